module {
  tt.func public @attention_forward(%arg0: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg1: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg2: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg3: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg4: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg5: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg6: !tt.ptr<f32> {tt.divisibility = 16 : i32}) attributes {noinline = false} {
    %cst = arith.constant dense<0.000000e+00> : tensor<64x64xf32>
    %cst_0 = arith.constant dense<0.000000e+00> : tensor<64xf32>
    %cst_1 = arith.constant dense<0.000000e+00> : tensor<128x64xbf16>
    %cst_2 = arith.constant dense<0.000000e+00> : tensor<64x128xbf16>
    %c128_i32 = arith.constant 128 : i32
    %c0_i32 = arith.constant 0 : i32
    %cst_3 = arith.constant dense<0.000000e+00> : tensor<64x64xbf16>
    %c192_i32 = arith.constant 192 : i32
    %cst_4 = arith.constant dense<1.44269502> : tensor<128xf32>
    %cst_5 = arith.constant dense<0xFF800000> : tensor<128xf32>
    %cst_6 = arith.constant dense<0.000000e+00> : tensor<64x128xf32>
    %cst_7 = arith.constant dense<0xFF800000> : tensor<64xf32>
    %c64_i32 = arith.constant 64 : i32
    %c1_i32 = arith.constant 1 : i32
    %0 = tt.load %arg3 : !tt.ptr<i32>
    %1 = tt.addptr %arg3, %c1_i32 : !tt.ptr<i32>, i32
    %2 = tt.load %1 : !tt.ptr<i32>
    %3 = tt.load %arg4 : !tt.ptr<f32>
    %4 = tt.get_program_id y : i32
    %5 = arith.divsi %4, %2 : i32
    %6 = arith.remsi %4, %2 : i32
    %7 = arith.muli %2, %c64_i32 : i32
    %8 = arith.muli %5, %0 : i32
    %9 = arith.extsi %8 : i32 to i64
    %10 = arith.muli %2, %c192_i32 : i32
    %11 = arith.extsi %10 : i32 to i64
    %12 = arith.muli %9, %11 : i64
    %13 = tt.addptr %arg0, %12 : !tt.ptr<bf16>, i64
    %14 = arith.muli %6, %c64_i32 : i32
    %15 = tt.addptr %13, %14 : !tt.ptr<bf16>, i32
    %16 = tt.make_range {end = 64 : i32, start = 0 : i32} : tensor<64xi32>
    %17 = tt.get_program_id x : i32
    %18 = arith.muli %17, %c64_i32 : i32
    %19 = tt.splat %18 : i32 -> tensor<64xi32>
    %20 = arith.addi %19, %16 : tensor<64xi32>
    %21 = tt.splat %0 : i32 -> tensor<64xi32>
    %22 = arith.cmpi slt, %20, %21 : tensor<64xi32>
    %23 = tt.expand_dims %22 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
    %24 = tt.expand_dims %20 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
    %25 = tt.splat %10 : i32 -> tensor<64x1xi32>
    %26 = arith.muli %24, %25 : tensor<64x1xi32>
    %27 = tt.splat %15 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
    %28 = tt.addptr %27, %26 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
    %29 = tt.expand_dims %16 {axis = 0 : i32} : tensor<64xi32> -> tensor<1x64xi32>
    %30 = tt.broadcast %28 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
    %31 = tt.broadcast %29 : tensor<1x64xi32> -> tensor<64x64xi32>
    %32 = tt.addptr %30, %31 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %33 = tt.broadcast %23 : tensor<64x1xi1> -> tensor<64x64xi1>
    %34 = tt.load %32, %33, %cst_3 : tensor<64x64x!tt.ptr<bf16>>
    %35:3 = scf.for %arg7 = %c0_i32 to %0 step %c128_i32 iter_args(%arg8 = %cst_0, %arg9 = %cst, %arg10 = %cst_7) -> (tensor<64xf32>, tensor<64x64xf32>, tensor<64xf32>)  : i32 {
      %56 = tt.make_range {end = 128 : i32, start = 0 : i32} : tensor<128xi32>
      %57 = tt.splat %arg7 : i32 -> tensor<128xi32>
      %58 = arith.addi %57, %56 : tensor<128xi32>
      %59 = tt.splat %0 : i32 -> tensor<128xi32>
      %60 = arith.cmpi slt, %58, %59 : tensor<128xi32>
      %61 = tt.addptr %15, %7 : !tt.ptr<bf16>, i32
      %62 = tt.expand_dims %58 {axis = 0 : i32} : tensor<128xi32> -> tensor<1x128xi32>
      %63 = tt.splat %10 : i32 -> tensor<1x128xi32>
      %64 = arith.muli %62, %63 : tensor<1x128xi32>
      %65 = tt.splat %61 : !tt.ptr<bf16> -> tensor<1x128x!tt.ptr<bf16>>
      %66 = tt.addptr %65, %64 : tensor<1x128x!tt.ptr<bf16>>, tensor<1x128xi32>
      %67 = tt.expand_dims %16 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %68 = tt.broadcast %66 : tensor<1x128x!tt.ptr<bf16>> -> tensor<64x128x!tt.ptr<bf16>>
      %69 = tt.broadcast %67 : tensor<64x1xi32> -> tensor<64x128xi32>
      %70 = tt.addptr %68, %69 : tensor<64x128x!tt.ptr<bf16>>, tensor<64x128xi32>
      %71 = tt.expand_dims %60 {axis = 0 : i32} : tensor<128xi1> -> tensor<1x128xi1>
      %72 = tt.broadcast %71 : tensor<1x128xi1> -> tensor<64x128xi1>
      %73 = tt.load %70, %72, %cst_2 : tensor<64x128x!tt.ptr<bf16>>
      %74 = tt.addptr %arg1, %9 : !tt.ptr<f32>, i64
      %75 = tt.splat %74 : !tt.ptr<f32> -> tensor<128x!tt.ptr<f32>>
      %76 = tt.addptr %75, %58 : tensor<128x!tt.ptr<f32>>, tensor<128xi32>
      %77 = tt.load %76, %60, %cst_5 : tensor<128x!tt.ptr<f32>>
      %78 = tt.dot %34, %73, %cst_6, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x128xbf16> -> tensor<64x128xf32>
      %79 = tt.splat %3 : f32 -> tensor<64x128xf32>
      %80 = arith.mulf %78, %79 : tensor<64x128xf32>
      %81 = arith.mulf %77, %cst_4 : tensor<128xf32>
      %82 = tt.expand_dims %81 {axis = 0 : i32} : tensor<128xf32> -> tensor<1x128xf32>
      %83 = tt.broadcast %82 : tensor<1x128xf32> -> tensor<64x128xf32>
      %84 = arith.addf %80, %83 : tensor<64x128xf32>
      %85 = "tt.reduce"(%84) <{axis = 1 : i32}> ({
      ^bb0(%arg11: f32, %arg12: f32):
        %114 = arith.maxnumf %arg11, %arg12 : f32
        tt.reduce.return %114 : f32
      }) : (tensor<64x128xf32>) -> tensor<64xf32>
      %86 = arith.maxnumf %arg10, %85 : tensor<64xf32>
      %87 = arith.subf %arg10, %86 : tensor<64xf32>
      %88 = math.exp2 %87 : tensor<64xf32>
      %89 = tt.expand_dims %86 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %90 = tt.broadcast %89 : tensor<64x1xf32> -> tensor<64x128xf32>
      %91 = arith.subf %84, %90 : tensor<64x128xf32>
      %92 = math.exp2 %91 : tensor<64x128xf32>
      %93 = arith.mulf %arg8, %88 : tensor<64xf32>
      %94 = "tt.reduce"(%92) <{axis = 1 : i32}> ({
      ^bb0(%arg11: f32, %arg12: f32):
        %114 = arith.addf %arg11, %arg12 : f32
        tt.reduce.return %114 : f32
      }) : (tensor<64x128xf32>) -> tensor<64xf32>
      %95 = arith.addf %93, %94 : tensor<64xf32>
      %96 = arith.muli %2, %c128_i32 : i32
      %97 = tt.addptr %15, %96 : !tt.ptr<bf16>, i32
      %98 = tt.expand_dims %58 {axis = 1 : i32} : tensor<128xi32> -> tensor<128x1xi32>
      %99 = tt.splat %10 : i32 -> tensor<128x1xi32>
      %100 = arith.muli %98, %99 : tensor<128x1xi32>
      %101 = tt.splat %97 : !tt.ptr<bf16> -> tensor<128x1x!tt.ptr<bf16>>
      %102 = tt.addptr %101, %100 : tensor<128x1x!tt.ptr<bf16>>, tensor<128x1xi32>
      %103 = tt.broadcast %102 : tensor<128x1x!tt.ptr<bf16>> -> tensor<128x64x!tt.ptr<bf16>>
      %104 = tt.broadcast %29 : tensor<1x64xi32> -> tensor<128x64xi32>
      %105 = tt.addptr %103, %104 : tensor<128x64x!tt.ptr<bf16>>, tensor<128x64xi32>
      %106 = tt.expand_dims %60 {axis = 1 : i32} : tensor<128xi1> -> tensor<128x1xi1>
      %107 = tt.broadcast %106 : tensor<128x1xi1> -> tensor<128x64xi1>
      %108 = tt.load %105, %107, %cst_1 : tensor<128x64x!tt.ptr<bf16>>
      %109 = arith.truncf %92 : tensor<64x128xf32> to tensor<64x128xbf16>
      %110 = tt.expand_dims %88 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %111 = tt.broadcast %110 : tensor<64x1xf32> -> tensor<64x64xf32>
      %112 = arith.mulf %arg9, %111 : tensor<64x64xf32>
      %113 = tt.dot %109, %108, %112, inputPrecision = tf32 : tensor<64x128xbf16> * tensor<128x64xbf16> -> tensor<64x64xf32>
      scf.yield %95, %113, %86 : tensor<64xf32>, tensor<64x64xf32>, tensor<64xf32>
    }
    %36 = tt.expand_dims %35#0 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
    %37 = tt.broadcast %36 : tensor<64x1xf32> -> tensor<64x64xf32>
    %38 = arith.divf %35#1, %37 : tensor<64x64xf32>
    %39 = arith.extsi %7 : i32 to i64
    %40 = arith.muli %9, %39 : i64
    %41 = tt.addptr %arg5, %40 : !tt.ptr<bf16>, i64
    %42 = tt.addptr %41, %14 : !tt.ptr<bf16>, i32
    %43 = tt.splat %7 : i32 -> tensor<64x1xi32>
    %44 = arith.muli %24, %43 : tensor<64x1xi32>
    %45 = tt.splat %42 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
    %46 = tt.addptr %45, %44 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
    %47 = tt.broadcast %46 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
    %48 = tt.addptr %47, %31 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %49 = arith.truncf %38 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %48, %49, %33 : tensor<64x64x!tt.ptr<bf16>>
    %50 = arith.muli %4, %0 : i32
    %51 = tt.addptr %arg6, %50 : !tt.ptr<f32>, i32
    %52 = tt.splat %51 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %53 = tt.addptr %52, %20 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %54 = math.log2 %35#0 : tensor<64xf32>
    %55 = arith.addf %35#2, %54 : tensor<64xf32>
    tt.store %53, %55, %22 : tensor<64x!tt.ptr<f32>>
    tt.return
  }
}
