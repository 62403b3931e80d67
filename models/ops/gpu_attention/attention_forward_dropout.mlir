module {
  tt.func public @attention_forward(%arg0: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg1: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg2: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg3: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg4: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg5: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg6: !tt.ptr<f32> {tt.divisibility = 16 : i32}) attributes {noinline = false} {
    %cst = arith.constant dense<-1640531527> : tensor<1x128xi32>
    %cst_0 = arith.constant dense<16> : tensor<64x128xi32>
    %cst_1 = arith.constant dense<2146121005> : tensor<64x128xi32>
    %cst_2 = arith.constant dense<15> : tensor<64x128xi32>
    %cst_3 = arith.constant dense<-2073254261> : tensor<64x128xi32>
    %cst_4 = arith.constant dense<0.000000e+00> : tensor<64x64xf32>
    %cst_5 = arith.constant dense<0.000000e+00> : tensor<64xf32>
    %cst_6 = arith.constant dense<0.000000e+00> : tensor<128x64xbf16>
    %cst_7 = arith.constant dense<0.000000e+00> : tensor<64x128xbf16>
    %c128_i32 = arith.constant 128 : i32
    %c0_i32 = arith.constant 0 : i32
    %cst_8 = arith.constant dense<0> : tensor<64xi32>
    %cst_9 = arith.constant dense<0.000000e+00> : tensor<64x64xbf16>
    %c192_i32 = arith.constant 192 : i32
    %cst_10 = arith.constant dense<1.44269502> : tensor<128xf32>
    %cst_11 = arith.constant dense<0xFF800000> : tensor<128xf32>
    %cst_12 = arith.constant dense<0.000000e+00> : tensor<64x128xf32>
    %cst_13 = arith.constant dense<0xFF800000> : tensor<64xf32>
    %c64_i32 = arith.constant 64 : i32
    %c2_i32 = arith.constant 2 : i32
    %c1_i32 = arith.constant 1 : i32
    %0 = tt.load %arg3 : !tt.ptr<i32>
    %1 = tt.addptr %arg3, %c1_i32 : !tt.ptr<i32>, i32
    %2 = tt.load %1 : !tt.ptr<i32>
    %3 = tt.addptr %arg3, %c2_i32 : !tt.ptr<i32>, i32
    %4 = tt.load %3 : !tt.ptr<i32>
    %5 = tt.bitcast %4 : i32 -> i32
    %6 = tt.load %arg4 : !tt.ptr<f32>
    %7 = tt.addptr %arg4, %c2_i32 : !tt.ptr<f32>, i32
    %8 = tt.load %7 : !tt.ptr<f32>
    %9 = tt.get_program_id y : i32
    %10 = arith.divsi %9, %2 : i32
    %11 = arith.remsi %9, %2 : i32
    %12 = arith.muli %2, %c64_i32 : i32
    %13 = arith.muli %10, %0 : i32
    %14 = arith.extsi %13 : i32 to i64
    %15 = arith.muli %2, %c192_i32 : i32
    %16 = arith.extsi %15 : i32 to i64
    %17 = arith.muli %14, %16 : i64
    %18 = tt.addptr %arg0, %17 : !tt.ptr<bf16>, i64
    %19 = arith.muli %11, %c64_i32 : i32
    %20 = tt.addptr %18, %19 : !tt.ptr<bf16>, i32
    %21 = tt.make_range {end = 64 : i32, start = 0 : i32} : tensor<64xi32>
    %22 = tt.get_program_id x : i32
    %23 = arith.muli %22, %c64_i32 : i32
    %24 = tt.splat %23 : i32 -> tensor<64xi32>
    %25 = arith.addi %24, %21 : tensor<64xi32>
    %26 = tt.splat %0 : i32 -> tensor<64xi32>
    %27 = arith.cmpi slt, %25, %26 : tensor<64xi32>
    %28 = tt.expand_dims %27 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
    %29 = tt.expand_dims %25 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
    %30 = tt.splat %15 : i32 -> tensor<64x1xi32>
    %31 = arith.muli %29, %30 : tensor<64x1xi32>
    %32 = tt.splat %20 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
    %33 = tt.addptr %32, %31 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
    %34 = tt.expand_dims %21 {axis = 0 : i32} : tensor<64xi32> -> tensor<1x64xi32>
    %35 = tt.broadcast %33 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
    %36 = tt.broadcast %34 : tensor<1x64xi32> -> tensor<64x64xi32>
    %37 = tt.addptr %35, %36 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %38 = tt.broadcast %28 : tensor<64x1xi1> -> tensor<64x64xi1>
    %39 = tt.load %37, %38, %cst_9 : tensor<64x64x!tt.ptr<bf16>>
    %40 = arith.muli %9, %0 : i32
    %41 = tt.addptr %arg2, %40 : !tt.ptr<i32>, i32
    %42 = tt.splat %41 : !tt.ptr<i32> -> tensor<64x!tt.ptr<i32>>
    %43 = tt.addptr %42, %25 : tensor<64x!tt.ptr<i32>>, tensor<64xi32>
    %44 = tt.load %43, %27, %cst_8 : tensor<64x!tt.ptr<i32>>
    %45:3 = scf.for %arg7 = %c0_i32 to %0 step %c128_i32 iter_args(%arg8 = %cst_5, %arg9 = %cst_4, %arg10 = %cst_13) -> (tensor<64xf32>, tensor<64x64xf32>, tensor<64xf32>)  : i32 {
      %67 = tt.make_range {end = 128 : i32, start = 0 : i32} : tensor<128xi32>
      %68 = tt.splat %arg7 : i32 -> tensor<128xi32>
      %69 = arith.addi %68, %67 : tensor<128xi32>
      %70 = tt.splat %0 : i32 -> tensor<128xi32>
      %71 = arith.cmpi slt, %69, %70 : tensor<128xi32>
      %72 = tt.addptr %20, %12 : !tt.ptr<bf16>, i32
      %73 = tt.expand_dims %69 {axis = 0 : i32} : tensor<128xi32> -> tensor<1x128xi32>
      %74 = tt.splat %15 : i32 -> tensor<1x128xi32>
      %75 = arith.muli %73, %74 : tensor<1x128xi32>
      %76 = tt.splat %72 : !tt.ptr<bf16> -> tensor<1x128x!tt.ptr<bf16>>
      %77 = tt.addptr %76, %75 : tensor<1x128x!tt.ptr<bf16>>, tensor<1x128xi32>
      %78 = tt.expand_dims %21 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %79 = tt.broadcast %77 : tensor<1x128x!tt.ptr<bf16>> -> tensor<64x128x!tt.ptr<bf16>>
      %80 = tt.broadcast %78 : tensor<64x1xi32> -> tensor<64x128xi32>
      %81 = tt.addptr %79, %80 : tensor<64x128x!tt.ptr<bf16>>, tensor<64x128xi32>
      %82 = tt.expand_dims %71 {axis = 0 : i32} : tensor<128xi1> -> tensor<1x128xi1>
      %83 = tt.broadcast %82 : tensor<1x128xi1> -> tensor<64x128xi1>
      %84 = tt.load %81, %83, %cst_7 : tensor<64x128x!tt.ptr<bf16>>
      %85 = tt.addptr %arg1, %14 : !tt.ptr<f32>, i64
      %86 = tt.splat %85 : !tt.ptr<f32> -> tensor<128x!tt.ptr<f32>>
      %87 = tt.addptr %86, %69 : tensor<128x!tt.ptr<f32>>, tensor<128xi32>
      %88 = tt.load %87, %71, %cst_11 : tensor<128x!tt.ptr<f32>>
      %89 = tt.dot %39, %84, %cst_12, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x128xbf16> -> tensor<64x128xf32>
      %90 = tt.splat %6 : f32 -> tensor<64x128xf32>
      %91 = arith.mulf %89, %90 : tensor<64x128xf32>
      %92 = arith.mulf %88, %cst_10 : tensor<128xf32>
      %93 = tt.expand_dims %92 {axis = 0 : i32} : tensor<128xf32> -> tensor<1x128xf32>
      %94 = tt.broadcast %93 : tensor<1x128xf32> -> tensor<64x128xf32>
      %95 = arith.addf %91, %94 : tensor<64x128xf32>
      %96 = "tt.reduce"(%95) <{axis = 1 : i32}> ({
      ^bb0(%arg11: f32, %arg12: f32):
        %141 = arith.maxnumf %arg11, %arg12 : f32
        tt.reduce.return %141 : f32
      }) : (tensor<64x128xf32>) -> tensor<64xf32>
      %97 = arith.maxnumf %arg10, %96 : tensor<64xf32>
      %98 = arith.subf %arg10, %97 : tensor<64xf32>
      %99 = math.exp2 %98 : tensor<64xf32>
      %100 = tt.expand_dims %97 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %101 = tt.broadcast %100 : tensor<64x1xf32> -> tensor<64x128xf32>
      %102 = arith.subf %95, %101 : tensor<64x128xf32>
      %103 = math.exp2 %102 : tensor<64x128xf32>
      %104 = arith.mulf %arg8, %99 : tensor<64xf32>
      %105 = "tt.reduce"(%103) <{axis = 1 : i32}> ({
      ^bb0(%arg11: f32, %arg12: f32):
        %141 = arith.addf %arg11, %arg12 : f32
        tt.reduce.return %141 : f32
      }) : (tensor<64x128xf32>) -> tensor<64xf32>
      %106 = arith.addf %104, %105 : tensor<64xf32>
      %107 = tt.expand_dims %44 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %108 = arith.muli %73, %cst : tensor<1x128xi32>
      %109 = tt.broadcast %107 : tensor<64x1xi32> -> tensor<64x128xi32>
      %110 = tt.broadcast %108 : tensor<1x128xi32> -> tensor<64x128xi32>
      %111 = arith.addi %109, %110 : tensor<64x128xi32>
      %112 = arith.shrui %111, %cst_0 : tensor<64x128xi32>
      %113 = arith.xori %111, %112 : tensor<64x128xi32>
      %114 = arith.muli %113, %cst_1 : tensor<64x128xi32>
      %115 = arith.shrui %114, %cst_2 : tensor<64x128xi32>
      %116 = arith.xori %114, %115 : tensor<64x128xi32>
      %117 = arith.muli %116, %cst_3 : tensor<64x128xi32>
      %118 = arith.shrui %117, %cst_0 : tensor<64x128xi32>
      %119 = arith.xori %117, %118 : tensor<64x128xi32>
      %120 = tt.splat %5 : i32 -> tensor<64x128xi32>
      %121 = arith.cmpi uge, %119, %120 : tensor<64x128xi32>
      %122 = arith.select %121, %103, %cst_12 : tensor<64x128xi1>, tensor<64x128xf32>
      %123 = arith.muli %2, %c128_i32 : i32
      %124 = tt.addptr %20, %123 : !tt.ptr<bf16>, i32
      %125 = tt.expand_dims %69 {axis = 1 : i32} : tensor<128xi32> -> tensor<128x1xi32>
      %126 = tt.splat %15 : i32 -> tensor<128x1xi32>
      %127 = arith.muli %125, %126 : tensor<128x1xi32>
      %128 = tt.splat %124 : !tt.ptr<bf16> -> tensor<128x1x!tt.ptr<bf16>>
      %129 = tt.addptr %128, %127 : tensor<128x1x!tt.ptr<bf16>>, tensor<128x1xi32>
      %130 = tt.broadcast %129 : tensor<128x1x!tt.ptr<bf16>> -> tensor<128x64x!tt.ptr<bf16>>
      %131 = tt.broadcast %34 : tensor<1x64xi32> -> tensor<128x64xi32>
      %132 = tt.addptr %130, %131 : tensor<128x64x!tt.ptr<bf16>>, tensor<128x64xi32>
      %133 = tt.expand_dims %71 {axis = 1 : i32} : tensor<128xi1> -> tensor<128x1xi1>
      %134 = tt.broadcast %133 : tensor<128x1xi1> -> tensor<128x64xi1>
      %135 = tt.load %132, %134, %cst_6 : tensor<128x64x!tt.ptr<bf16>>
      %136 = arith.truncf %122 : tensor<64x128xf32> to tensor<64x128xbf16>
      %137 = tt.expand_dims %99 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %138 = tt.broadcast %137 : tensor<64x1xf32> -> tensor<64x64xf32>
      %139 = arith.mulf %arg9, %138 : tensor<64x64xf32>
      %140 = tt.dot %136, %135, %139, inputPrecision = tf32 : tensor<64x128xbf16> * tensor<128x64xbf16> -> tensor<64x64xf32>
      scf.yield %106, %140, %97 : tensor<64xf32>, tensor<64x64xf32>, tensor<64xf32>
    }
    %46 = tt.splat %8 : f32 -> tensor<64xf32>
    %47 = arith.divf %45#0, %46 : tensor<64xf32>
    %48 = tt.expand_dims %47 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
    %49 = tt.broadcast %48 : tensor<64x1xf32> -> tensor<64x64xf32>
    %50 = arith.divf %45#1, %49 : tensor<64x64xf32>
    %51 = arith.extsi %12 : i32 to i64
    %52 = arith.muli %14, %51 : i64
    %53 = tt.addptr %arg5, %52 : !tt.ptr<bf16>, i64
    %54 = tt.addptr %53, %19 : !tt.ptr<bf16>, i32
    %55 = tt.splat %12 : i32 -> tensor<64x1xi32>
    %56 = arith.muli %29, %55 : tensor<64x1xi32>
    %57 = tt.splat %54 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
    %58 = tt.addptr %57, %56 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
    %59 = tt.broadcast %58 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
    %60 = tt.addptr %59, %36 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %61 = arith.truncf %50 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %60, %61, %38 : tensor<64x64x!tt.ptr<bf16>>
    %62 = tt.addptr %arg6, %40 : !tt.ptr<f32>, i32
    %63 = tt.splat %62 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %64 = tt.addptr %63, %25 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %65 = math.log2 %45#0 : tensor<64xf32>
    %66 = arith.addf %45#2, %65 : tensor<64xf32>
    tt.store %64, %66, %27 : tensor<64x!tt.ptr<f32>>
    tt.return
  }
}
