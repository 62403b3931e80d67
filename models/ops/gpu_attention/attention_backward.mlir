module {
  tt.func public @attention_backward(%arg0: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg1: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg2: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg3: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg4: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg5: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg6: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg7: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg8: !tt.ptr<bf16> {tt.divisibility = 16 : i32}) attributes {noinline = false} {
    %c0_i32 = arith.constant 0 : i32
    %c128_i32 = arith.constant 128 : i32
    %cst = arith.constant dense<0.000000e+00> : tensor<64x64xbf16>
    %c192_i32 = arith.constant 192 : i32
    %cst_0 = arith.constant dense<0.000000e+00> : tensor<64xf32>
    %cst_1 = arith.constant dense<0x7F800000> : tensor<64xf32>
    %cst_2 = arith.constant dense<1.44269502> : tensor<64xf32>
    %cst_3 = arith.constant dense<0xFF800000> : tensor<64xf32>
    %cst_4 = arith.constant dense<0.000000e+00> : tensor<64x64xf32>
    %c64_i32 = arith.constant 64 : i32
    %c1_i32 = arith.constant 1 : i32
    %0 = tt.load %arg3 : !tt.ptr<i32>
    %1 = tt.addptr %arg3, %c1_i32 : !tt.ptr<i32>, i32
    %2 = tt.load %1 : !tt.ptr<i32>
    %3 = tt.load %arg4 : !tt.ptr<f32>
    %4 = tt.addptr %arg4, %c1_i32 : !tt.ptr<f32>, i32
    %5 = tt.load %4 : !tt.ptr<f32>
    %6 = tt.get_program_id y : i32
    %7 = arith.divsi %6, %2 : i32
    %8 = arith.remsi %6, %2 : i32
    %9 = arith.muli %2, %c64_i32 : i32
    %10 = arith.muli %7, %0 : i32
    %11 = arith.extsi %10 : i32 to i64
    %12 = arith.muli %2, %c192_i32 : i32
    %13 = arith.extsi %12 : i32 to i64
    %14 = arith.muli %11, %13 : i64
    %15 = tt.addptr %arg0, %14 : !tt.ptr<bf16>, i64
    %16 = arith.muli %8, %c64_i32 : i32
    %17 = tt.addptr %15, %16 : !tt.ptr<bf16>, i32
    %18 = arith.extsi %9 : i32 to i64
    %19 = arith.muli %11, %18 : i64
    %20 = tt.addptr %arg7, %19 : !tt.ptr<bf16>, i64
    %21 = tt.addptr %20, %16 : !tt.ptr<bf16>, i32
    %22 = tt.addptr %arg8, %14 : !tt.ptr<bf16>, i64
    %23 = tt.addptr %22, %16 : !tt.ptr<bf16>, i32
    %24 = tt.make_range {end = 64 : i32, start = 0 : i32} : tensor<64xi32>
    %25 = tt.get_program_id x : i32
    %26 = arith.muli %25, %c64_i32 : i32
    %27 = tt.splat %26 : i32 -> tensor<64xi32>
    %28 = arith.addi %27, %24 : tensor<64xi32>
    %29 = tt.splat %0 : i32 -> tensor<64xi32>
    %30 = arith.cmpi slt, %28, %29 : tensor<64xi32>
    %31 = tt.expand_dims %28 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
    %32 = tt.splat %12 : i32 -> tensor<64x1xi32>
    %33 = arith.muli %31, %32 : tensor<64x1xi32>
    %34 = tt.expand_dims %24 {axis = 0 : i32} : tensor<64xi32> -> tensor<1x64xi32>
    %35 = tt.broadcast %33 : tensor<64x1xi32> -> tensor<64x64xi32>
    %36 = tt.broadcast %34 : tensor<1x64xi32> -> tensor<64x64xi32>
    %37 = arith.addi %35, %36 : tensor<64x64xi32>
    %38 = tt.expand_dims %30 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
    %39 = tt.addptr %17, %9 : !tt.ptr<bf16>, i32
    %40 = tt.splat %39 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %41 = tt.addptr %40, %37 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %42 = tt.broadcast %38 : tensor<64x1xi1> -> tensor<64x64xi1>
    %43 = tt.load %41, %42, %cst : tensor<64x64x!tt.ptr<bf16>>
    %44 = arith.muli %2, %c128_i32 : i32
    %45 = tt.addptr %17, %44 : !tt.ptr<bf16>, i32
    %46 = tt.splat %45 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %47 = tt.addptr %46, %37 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %48 = tt.load %47, %42, %cst : tensor<64x64x!tt.ptr<bf16>>
    %49 = tt.addptr %arg1, %11 : !tt.ptr<f32>, i64
    %50 = tt.splat %49 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %51 = tt.addptr %50, %28 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %52 = tt.load %51, %30, %cst_3 : tensor<64x!tt.ptr<f32>>
    %53 = arith.mulf %52, %cst_2 : tensor<64xf32>
    %54:2 = scf.for %arg9 = %c0_i32 to %0 step %c64_i32 iter_args(%arg10 = %cst_4, %arg11 = %cst_4) -> (tensor<64x64xf32>, tensor<64x64xf32>)  : i32 {
      %89 = tt.splat %arg9 : i32 -> tensor<64xi32>
      %90 = arith.addi %89, %24 : tensor<64xi32>
      %91 = arith.cmpi slt, %90, %29 : tensor<64xi32>
      %92 = tt.expand_dims %91 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
      %93 = tt.expand_dims %90 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %94 = arith.muli %93, %32 : tensor<64x1xi32>
      %95 = tt.splat %17 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
      %96 = tt.addptr %95, %94 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
      %97 = tt.broadcast %96 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
      %98 = tt.addptr %97, %36 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %99 = tt.broadcast %92 : tensor<64x1xi1> -> tensor<64x64xi1>
      %100 = tt.load %98, %99, %cst : tensor<64x64x!tt.ptr<bf16>>
      %101 = tt.splat %9 : i32 -> tensor<64x1xi32>
      %102 = arith.muli %93, %101 : tensor<64x1xi32>
      %103 = tt.splat %21 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
      %104 = tt.addptr %103, %102 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
      %105 = tt.broadcast %104 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
      %106 = tt.addptr %105, %36 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %107 = tt.load %106, %99, %cst : tensor<64x64x!tt.ptr<bf16>>
      %108 = arith.muli %6, %0 : i32
      %109 = tt.addptr %arg5, %108 : !tt.ptr<f32>, i32
      %110 = tt.splat %109 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
      %111 = tt.addptr %110, %90 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
      %112 = tt.load %111, %91, %cst_1 : tensor<64x!tt.ptr<f32>>
      %113 = tt.trans %100 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %114 = tt.dot %43, %113, %cst_4, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %115 = tt.splat %3 : f32 -> tensor<64x64xf32>
      %116 = arith.mulf %114, %115 : tensor<64x64xf32>
      %117 = tt.expand_dims %53 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %118 = tt.broadcast %117 : tensor<64x1xf32> -> tensor<64x64xf32>
      %119 = arith.addf %116, %118 : tensor<64x64xf32>
      %120 = tt.expand_dims %112 {axis = 0 : i32} : tensor<64xf32> -> tensor<1x64xf32>
      %121 = tt.broadcast %120 : tensor<1x64xf32> -> tensor<64x64xf32>
      %122 = arith.subf %119, %121 : tensor<64x64xf32>
      %123 = math.exp2 %122 : tensor<64x64xf32>
      %124 = tt.trans %107 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %125 = tt.dot %48, %124, %cst_4, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %126 = arith.truncf %123 : tensor<64x64xf32> to tensor<64x64xbf16>
      %127 = tt.dot %126, %107, %arg10, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %128 = tt.addptr %arg6, %108 : !tt.ptr<f32>, i32
      %129 = tt.splat %128 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
      %130 = tt.addptr %129, %90 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
      %131 = tt.load %130, %91, %cst_0 : tensor<64x!tt.ptr<f32>>
      %132 = tt.expand_dims %131 {axis = 0 : i32} : tensor<64xf32> -> tensor<1x64xf32>
      %133 = tt.broadcast %132 : tensor<1x64xf32> -> tensor<64x64xf32>
      %134 = arith.subf %125, %133 : tensor<64x64xf32>
      %135 = arith.mulf %123, %134 : tensor<64x64xf32>
      %136 = arith.truncf %135 : tensor<64x64xf32> to tensor<64x64xbf16>
      %137 = tt.dot %136, %100, %arg11, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      scf.yield %127, %137 : tensor<64x64xf32>, tensor<64x64xf32>
    }
    %55 = tt.addptr %23, %9 : !tt.ptr<bf16>, i32
    %56 = tt.splat %55 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %57 = tt.addptr %56, %37 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %58 = tt.splat %5 : f32 -> tensor<64x64xf32>
    %59 = arith.mulf %54#1, %58 : tensor<64x64xf32>
    %60 = arith.truncf %59 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %57, %60, %42 : tensor<64x64x!tt.ptr<bf16>>
    %61 = tt.addptr %23, %44 : !tt.ptr<bf16>, i32
    %62 = tt.splat %61 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %63 = tt.addptr %62, %37 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %64 = arith.truncf %54#0 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %63, %64, %42 : tensor<64x64x!tt.ptr<bf16>>
    %65 = tt.splat %17 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %66 = tt.addptr %65, %37 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %67 = tt.load %66, %42, %cst : tensor<64x64x!tt.ptr<bf16>>
    %68 = tt.splat %9 : i32 -> tensor<64x1xi32>
    %69 = arith.muli %31, %68 : tensor<64x1xi32>
    %70 = tt.splat %21 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
    %71 = tt.addptr %70, %69 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
    %72 = tt.broadcast %71 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
    %73 = tt.addptr %72, %36 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %74 = tt.load %73, %42, %cst : tensor<64x64x!tt.ptr<bf16>>
    %75 = arith.muli %6, %0 : i32
    %76 = tt.addptr %arg5, %75 : !tt.ptr<f32>, i32
    %77 = tt.splat %76 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %78 = tt.addptr %77, %28 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %79 = tt.load %78, %30, %cst_1 : tensor<64x!tt.ptr<f32>>
    %80 = tt.addptr %arg6, %75 : !tt.ptr<f32>, i32
    %81 = tt.splat %80 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %82 = tt.addptr %81, %28 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %83 = tt.load %82, %30, %cst_0 : tensor<64x!tt.ptr<f32>>
    %84 = scf.for %arg9 = %c0_i32 to %0 step %c64_i32 iter_args(%arg10 = %cst_4) -> (tensor<64x64xf32>)  : i32 {
      %89 = tt.splat %arg9 : i32 -> tensor<64xi32>
      %90 = arith.addi %89, %24 : tensor<64xi32>
      %91 = arith.cmpi slt, %90, %29 : tensor<64xi32>
      %92 = tt.expand_dims %90 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %93 = arith.muli %92, %32 : tensor<64x1xi32>
      %94 = tt.broadcast %93 : tensor<64x1xi32> -> tensor<64x64xi32>
      %95 = arith.addi %94, %36 : tensor<64x64xi32>
      %96 = tt.expand_dims %91 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
      %97 = tt.addptr %40, %95 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %98 = tt.broadcast %96 : tensor<64x1xi1> -> tensor<64x64xi1>
      %99 = tt.load %97, %98, %cst : tensor<64x64x!tt.ptr<bf16>>
      %100 = tt.addptr %46, %95 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %101 = tt.load %100, %98, %cst : tensor<64x64x!tt.ptr<bf16>>
      %102 = tt.addptr %50, %90 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
      %103 = tt.load %102, %91, %cst_3 : tensor<64x!tt.ptr<f32>>
      %104 = arith.mulf %103, %cst_2 : tensor<64xf32>
      %105 = tt.trans %99 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %106 = tt.dot %67, %105, %cst_4, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %107 = tt.splat %3 : f32 -> tensor<64x64xf32>
      %108 = arith.mulf %106, %107 : tensor<64x64xf32>
      %109 = tt.expand_dims %104 {axis = 0 : i32} : tensor<64xf32> -> tensor<1x64xf32>
      %110 = tt.broadcast %109 : tensor<1x64xf32> -> tensor<64x64xf32>
      %111 = arith.addf %108, %110 : tensor<64x64xf32>
      %112 = tt.expand_dims %79 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %113 = tt.broadcast %112 : tensor<64x1xf32> -> tensor<64x64xf32>
      %114 = arith.subf %111, %113 : tensor<64x64xf32>
      %115 = math.exp2 %114 : tensor<64x64xf32>
      %116 = tt.trans %101 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %117 = tt.dot %74, %116, %cst_4, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %118 = tt.expand_dims %83 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %119 = tt.broadcast %118 : tensor<64x1xf32> -> tensor<64x64xf32>
      %120 = arith.subf %117, %119 : tensor<64x64xf32>
      %121 = arith.mulf %115, %120 : tensor<64x64xf32>
      %122 = arith.truncf %121 : tensor<64x64xf32> to tensor<64x64xbf16>
      %123 = tt.dot %122, %99, %arg10, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      scf.yield %123 : tensor<64x64xf32>
    }
    %85 = tt.splat %23 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %86 = tt.addptr %85, %37 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %87 = arith.mulf %84, %58 : tensor<64x64xf32>
    %88 = arith.truncf %87 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %86, %88, %42 : tensor<64x64x!tt.ptr<bf16>>
    tt.return
  }
}
