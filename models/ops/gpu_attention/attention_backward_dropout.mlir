module {
  tt.func public @attention_backward(%arg0: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg1: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg2: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg3: !tt.ptr<i32> {tt.divisibility = 16 : i32}, %arg4: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg5: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg6: !tt.ptr<f32> {tt.divisibility = 16 : i32}, %arg7: !tt.ptr<bf16> {tt.divisibility = 16 : i32}, %arg8: !tt.ptr<bf16> {tt.divisibility = 16 : i32}) attributes {noinline = false} {
    %cst = arith.constant dense<-1640531527> : tensor<1x64xi32>
    %cst_0 = arith.constant dense<-1640531527> : tensor<64x1xi32>
    %cst_1 = arith.constant dense<16> : tensor<64x64xi32>
    %cst_2 = arith.constant dense<2146121005> : tensor<64x64xi32>
    %cst_3 = arith.constant dense<15> : tensor<64x64xi32>
    %cst_4 = arith.constant dense<-2073254261> : tensor<64x64xi32>
    %cst_5 = arith.constant dense<0> : tensor<64xi32>
    %c0_i32 = arith.constant 0 : i32
    %c128_i32 = arith.constant 128 : i32
    %cst_6 = arith.constant dense<0.000000e+00> : tensor<64x64xbf16>
    %c192_i32 = arith.constant 192 : i32
    %cst_7 = arith.constant dense<0.000000e+00> : tensor<64xf32>
    %cst_8 = arith.constant dense<0x7F800000> : tensor<64xf32>
    %cst_9 = arith.constant dense<1.44269502> : tensor<64xf32>
    %cst_10 = arith.constant dense<0xFF800000> : tensor<64xf32>
    %cst_11 = arith.constant dense<0.000000e+00> : tensor<64x64xf32>
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
    %7 = tt.addptr %arg4, %c1_i32 : !tt.ptr<f32>, i32
    %8 = tt.load %7 : !tt.ptr<f32>
    %9 = tt.addptr %arg4, %c2_i32 : !tt.ptr<f32>, i32
    %10 = tt.load %9 : !tt.ptr<f32>
    %11 = tt.get_program_id y : i32
    %12 = arith.divsi %11, %2 : i32
    %13 = arith.remsi %11, %2 : i32
    %14 = arith.muli %2, %c64_i32 : i32
    %15 = arith.muli %12, %0 : i32
    %16 = arith.extsi %15 : i32 to i64
    %17 = arith.muli %2, %c192_i32 : i32
    %18 = arith.extsi %17 : i32 to i64
    %19 = arith.muli %16, %18 : i64
    %20 = tt.addptr %arg0, %19 : !tt.ptr<bf16>, i64
    %21 = arith.muli %13, %c64_i32 : i32
    %22 = tt.addptr %20, %21 : !tt.ptr<bf16>, i32
    %23 = arith.extsi %14 : i32 to i64
    %24 = arith.muli %16, %23 : i64
    %25 = tt.addptr %arg7, %24 : !tt.ptr<bf16>, i64
    %26 = tt.addptr %25, %21 : !tt.ptr<bf16>, i32
    %27 = tt.addptr %arg8, %19 : !tt.ptr<bf16>, i64
    %28 = tt.addptr %27, %21 : !tt.ptr<bf16>, i32
    %29 = tt.make_range {end = 64 : i32, start = 0 : i32} : tensor<64xi32>
    %30 = tt.get_program_id x : i32
    %31 = arith.muli %30, %c64_i32 : i32
    %32 = tt.splat %31 : i32 -> tensor<64xi32>
    %33 = arith.addi %32, %29 : tensor<64xi32>
    %34 = tt.splat %0 : i32 -> tensor<64xi32>
    %35 = arith.cmpi slt, %33, %34 : tensor<64xi32>
    %36 = tt.expand_dims %33 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
    %37 = tt.splat %17 : i32 -> tensor<64x1xi32>
    %38 = arith.muli %36, %37 : tensor<64x1xi32>
    %39 = tt.expand_dims %29 {axis = 0 : i32} : tensor<64xi32> -> tensor<1x64xi32>
    %40 = tt.broadcast %38 : tensor<64x1xi32> -> tensor<64x64xi32>
    %41 = tt.broadcast %39 : tensor<1x64xi32> -> tensor<64x64xi32>
    %42 = arith.addi %40, %41 : tensor<64x64xi32>
    %43 = tt.expand_dims %35 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
    %44 = tt.addptr %22, %14 : !tt.ptr<bf16>, i32
    %45 = tt.splat %44 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %46 = tt.addptr %45, %42 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %47 = tt.broadcast %43 : tensor<64x1xi1> -> tensor<64x64xi1>
    %48 = tt.load %46, %47, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
    %49 = arith.muli %2, %c128_i32 : i32
    %50 = tt.addptr %22, %49 : !tt.ptr<bf16>, i32
    %51 = tt.splat %50 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %52 = tt.addptr %51, %42 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %53 = tt.load %52, %47, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
    %54 = tt.addptr %arg1, %16 : !tt.ptr<f32>, i64
    %55 = tt.splat %54 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %56 = tt.addptr %55, %33 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %57 = tt.load %56, %35, %cst_10 : tensor<64x!tt.ptr<f32>>
    %58 = arith.mulf %57, %cst_9 : tensor<64xf32>
    %59:2 = scf.for %arg9 = %c0_i32 to %0 step %c64_i32 iter_args(%arg10 = %cst_11, %arg11 = %cst_11) -> (tensor<64x64xf32>, tensor<64x64xf32>)  : i32 {
      %101 = tt.splat %arg9 : i32 -> tensor<64xi32>
      %102 = arith.addi %101, %29 : tensor<64xi32>
      %103 = arith.cmpi slt, %102, %34 : tensor<64xi32>
      %104 = tt.expand_dims %103 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
      %105 = tt.expand_dims %102 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %106 = arith.muli %105, %37 : tensor<64x1xi32>
      %107 = tt.splat %22 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
      %108 = tt.addptr %107, %106 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
      %109 = tt.broadcast %108 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
      %110 = tt.addptr %109, %41 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %111 = tt.broadcast %104 : tensor<64x1xi1> -> tensor<64x64xi1>
      %112 = tt.load %110, %111, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
      %113 = tt.splat %14 : i32 -> tensor<64x1xi32>
      %114 = arith.muli %105, %113 : tensor<64x1xi32>
      %115 = tt.splat %26 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
      %116 = tt.addptr %115, %114 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
      %117 = tt.broadcast %116 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
      %118 = tt.addptr %117, %41 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %119 = tt.load %118, %111, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
      %120 = arith.muli %11, %0 : i32
      %121 = tt.addptr %arg5, %120 : !tt.ptr<f32>, i32
      %122 = tt.splat %121 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
      %123 = tt.addptr %122, %102 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
      %124 = tt.load %123, %103, %cst_8 : tensor<64x!tt.ptr<f32>>
      %125 = tt.trans %112 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %126 = tt.dot %48, %125, %cst_11, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %127 = tt.splat %6 : f32 -> tensor<64x64xf32>
      %128 = arith.mulf %126, %127 : tensor<64x64xf32>
      %129 = tt.expand_dims %58 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %130 = tt.broadcast %129 : tensor<64x1xf32> -> tensor<64x64xf32>
      %131 = arith.addf %128, %130 : tensor<64x64xf32>
      %132 = tt.expand_dims %124 {axis = 0 : i32} : tensor<64xf32> -> tensor<1x64xf32>
      %133 = tt.broadcast %132 : tensor<1x64xf32> -> tensor<64x64xf32>
      %134 = arith.subf %131, %133 : tensor<64x64xf32>
      %135 = math.exp2 %134 : tensor<64x64xf32>
      %136 = tt.trans %119 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %137 = tt.dot %53, %136, %cst_11, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %138 = tt.addptr %arg2, %120 : !tt.ptr<i32>, i32
      %139 = tt.splat %138 : !tt.ptr<i32> -> tensor<64x!tt.ptr<i32>>
      %140 = tt.addptr %139, %102 : tensor<64x!tt.ptr<i32>>, tensor<64xi32>
      %141 = tt.load %140, %103, %cst_5 : tensor<64x!tt.ptr<i32>>
      %142 = tt.expand_dims %141 {axis = 0 : i32} : tensor<64xi32> -> tensor<1x64xi32>
      %143 = arith.muli %36, %cst_0 : tensor<64x1xi32>
      %144 = tt.broadcast %142 : tensor<1x64xi32> -> tensor<64x64xi32>
      %145 = tt.broadcast %143 : tensor<64x1xi32> -> tensor<64x64xi32>
      %146 = arith.addi %144, %145 : tensor<64x64xi32>
      %147 = arith.shrui %146, %cst_1 : tensor<64x64xi32>
      %148 = arith.xori %146, %147 : tensor<64x64xi32>
      %149 = arith.muli %148, %cst_2 : tensor<64x64xi32>
      %150 = arith.shrui %149, %cst_3 : tensor<64x64xi32>
      %151 = arith.xori %149, %150 : tensor<64x64xi32>
      %152 = arith.muli %151, %cst_4 : tensor<64x64xi32>
      %153 = arith.shrui %152, %cst_1 : tensor<64x64xi32>
      %154 = arith.xori %152, %153 : tensor<64x64xi32>
      %155 = tt.splat %5 : i32 -> tensor<64x64xi32>
      %156 = arith.cmpi uge, %154, %155 : tensor<64x64xi32>
      %157 = arith.select %156, %135, %cst_11 : tensor<64x64xi1>, tensor<64x64xf32>
      %158 = arith.select %156, %137, %cst_11 : tensor<64x64xi1>, tensor<64x64xf32>
      %159 = arith.truncf %157 : tensor<64x64xf32> to tensor<64x64xbf16>
      %160 = tt.dot %159, %119, %arg10, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %161 = tt.addptr %arg6, %120 : !tt.ptr<f32>, i32
      %162 = tt.splat %161 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
      %163 = tt.addptr %162, %102 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
      %164 = tt.load %163, %103, %cst_7 : tensor<64x!tt.ptr<f32>>
      %165 = tt.expand_dims %164 {axis = 0 : i32} : tensor<64xf32> -> tensor<1x64xf32>
      %166 = tt.broadcast %165 : tensor<1x64xf32> -> tensor<64x64xf32>
      %167 = arith.subf %158, %166 : tensor<64x64xf32>
      %168 = arith.mulf %135, %167 : tensor<64x64xf32>
      %169 = arith.truncf %168 : tensor<64x64xf32> to tensor<64x64xbf16>
      %170 = tt.dot %169, %112, %arg11, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      scf.yield %160, %170 : tensor<64x64xf32>, tensor<64x64xf32>
    }
    %60 = tt.splat %10 : f32 -> tensor<64x64xf32>
    %61 = arith.mulf %59#0, %60 : tensor<64x64xf32>
    %62 = arith.mulf %8, %10 : f32
    %63 = tt.addptr %28, %14 : !tt.ptr<bf16>, i32
    %64 = tt.splat %63 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %65 = tt.addptr %64, %42 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %66 = tt.splat %62 : f32 -> tensor<64x64xf32>
    %67 = arith.mulf %59#1, %66 : tensor<64x64xf32>
    %68 = arith.truncf %67 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %65, %68, %47 : tensor<64x64x!tt.ptr<bf16>>
    %69 = tt.addptr %28, %49 : !tt.ptr<bf16>, i32
    %70 = tt.splat %69 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %71 = tt.addptr %70, %42 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %72 = arith.truncf %61 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %71, %72, %47 : tensor<64x64x!tt.ptr<bf16>>
    %73 = tt.splat %22 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %74 = tt.addptr %73, %42 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %75 = tt.load %74, %47, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
    %76 = tt.splat %14 : i32 -> tensor<64x1xi32>
    %77 = arith.muli %36, %76 : tensor<64x1xi32>
    %78 = tt.splat %26 : !tt.ptr<bf16> -> tensor<64x1x!tt.ptr<bf16>>
    %79 = tt.addptr %78, %77 : tensor<64x1x!tt.ptr<bf16>>, tensor<64x1xi32>
    %80 = tt.broadcast %79 : tensor<64x1x!tt.ptr<bf16>> -> tensor<64x64x!tt.ptr<bf16>>
    %81 = tt.addptr %80, %41 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %82 = tt.load %81, %47, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
    %83 = arith.muli %11, %0 : i32
    %84 = tt.addptr %arg5, %83 : !tt.ptr<f32>, i32
    %85 = tt.splat %84 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %86 = tt.addptr %85, %33 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %87 = tt.load %86, %35, %cst_8 : tensor<64x!tt.ptr<f32>>
    %88 = tt.addptr %arg6, %83 : !tt.ptr<f32>, i32
    %89 = tt.splat %88 : !tt.ptr<f32> -> tensor<64x!tt.ptr<f32>>
    %90 = tt.addptr %89, %33 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
    %91 = tt.load %90, %35, %cst_7 : tensor<64x!tt.ptr<f32>>
    %92 = tt.addptr %arg2, %83 : !tt.ptr<i32>, i32
    %93 = tt.splat %92 : !tt.ptr<i32> -> tensor<64x!tt.ptr<i32>>
    %94 = tt.addptr %93, %33 : tensor<64x!tt.ptr<i32>>, tensor<64xi32>
    %95 = tt.load %94, %35, %cst_5 : tensor<64x!tt.ptr<i32>>
    %96 = scf.for %arg9 = %c0_i32 to %0 step %c64_i32 iter_args(%arg10 = %cst_11) -> (tensor<64x64xf32>)  : i32 {
      %101 = tt.splat %arg9 : i32 -> tensor<64xi32>
      %102 = arith.addi %101, %29 : tensor<64xi32>
      %103 = arith.cmpi slt, %102, %34 : tensor<64xi32>
      %104 = tt.expand_dims %102 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %105 = arith.muli %104, %37 : tensor<64x1xi32>
      %106 = tt.broadcast %105 : tensor<64x1xi32> -> tensor<64x64xi32>
      %107 = arith.addi %106, %41 : tensor<64x64xi32>
      %108 = tt.expand_dims %103 {axis = 1 : i32} : tensor<64xi1> -> tensor<64x1xi1>
      %109 = tt.addptr %45, %107 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %110 = tt.broadcast %108 : tensor<64x1xi1> -> tensor<64x64xi1>
      %111 = tt.load %109, %110, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
      %112 = tt.addptr %51, %107 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
      %113 = tt.load %112, %110, %cst_6 : tensor<64x64x!tt.ptr<bf16>>
      %114 = tt.addptr %55, %102 : tensor<64x!tt.ptr<f32>>, tensor<64xi32>
      %115 = tt.load %114, %103, %cst_10 : tensor<64x!tt.ptr<f32>>
      %116 = arith.mulf %115, %cst_9 : tensor<64xf32>
      %117 = tt.trans %111 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %118 = tt.dot %75, %117, %cst_11, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %119 = tt.splat %6 : f32 -> tensor<64x64xf32>
      %120 = arith.mulf %118, %119 : tensor<64x64xf32>
      %121 = tt.expand_dims %116 {axis = 0 : i32} : tensor<64xf32> -> tensor<1x64xf32>
      %122 = tt.broadcast %121 : tensor<1x64xf32> -> tensor<64x64xf32>
      %123 = arith.addf %120, %122 : tensor<64x64xf32>
      %124 = tt.expand_dims %87 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %125 = tt.broadcast %124 : tensor<64x1xf32> -> tensor<64x64xf32>
      %126 = arith.subf %123, %125 : tensor<64x64xf32>
      %127 = math.exp2 %126 : tensor<64x64xf32>
      %128 = tt.trans %113 {order = array<i32: 1, 0>} : tensor<64x64xbf16> -> tensor<64x64xbf16>
      %129 = tt.dot %82, %128, %cst_11, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      %130 = tt.expand_dims %95 {axis = 1 : i32} : tensor<64xi32> -> tensor<64x1xi32>
      %131 = tt.expand_dims %102 {axis = 0 : i32} : tensor<64xi32> -> tensor<1x64xi32>
      %132 = arith.muli %131, %cst : tensor<1x64xi32>
      %133 = tt.broadcast %130 : tensor<64x1xi32> -> tensor<64x64xi32>
      %134 = tt.broadcast %132 : tensor<1x64xi32> -> tensor<64x64xi32>
      %135 = arith.addi %133, %134 : tensor<64x64xi32>
      %136 = arith.shrui %135, %cst_1 : tensor<64x64xi32>
      %137 = arith.xori %135, %136 : tensor<64x64xi32>
      %138 = arith.muli %137, %cst_2 : tensor<64x64xi32>
      %139 = arith.shrui %138, %cst_3 : tensor<64x64xi32>
      %140 = arith.xori %138, %139 : tensor<64x64xi32>
      %141 = arith.muli %140, %cst_4 : tensor<64x64xi32>
      %142 = arith.shrui %141, %cst_1 : tensor<64x64xi32>
      %143 = arith.xori %141, %142 : tensor<64x64xi32>
      %144 = tt.splat %5 : i32 -> tensor<64x64xi32>
      %145 = arith.cmpi uge, %143, %144 : tensor<64x64xi32>
      %146 = arith.select %145, %129, %cst_11 : tensor<64x64xi1>, tensor<64x64xf32>
      %147 = tt.expand_dims %91 {axis = 1 : i32} : tensor<64xf32> -> tensor<64x1xf32>
      %148 = tt.broadcast %147 : tensor<64x1xf32> -> tensor<64x64xf32>
      %149 = arith.subf %146, %148 : tensor<64x64xf32>
      %150 = arith.mulf %127, %149 : tensor<64x64xf32>
      %151 = arith.truncf %150 : tensor<64x64xf32> to tensor<64x64xbf16>
      %152 = tt.dot %151, %111, %arg10, inputPrecision = tf32 : tensor<64x64xbf16> * tensor<64x64xbf16> -> tensor<64x64xf32>
      scf.yield %152 : tensor<64x64xf32>
    }
    %97 = tt.splat %28 : !tt.ptr<bf16> -> tensor<64x64x!tt.ptr<bf16>>
    %98 = tt.addptr %97, %42 : tensor<64x64x!tt.ptr<bf16>>, tensor<64x64xi32>
    %99 = arith.mulf %96, %66 : tensor<64x64xf32>
    %100 = arith.truncf %99 : tensor<64x64xf32> to tensor<64x64xbf16>
    tt.store %98, %100, %47 : tensor<64x64x!tt.ptr<bf16>>
    tt.return
  }
}
