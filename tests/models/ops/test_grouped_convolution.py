"""The grouped convolution's own gradients against TensorFlow's."""

from __future__ import annotations

import re

import numpy as np
import pytest
import tensorflow as tf

from models.ops import fused
from models.ops import grouped_convolution as module
from models.ops.grouped_convolution import grouped_convolution, grouped_convolution_by_products

# Frames below, at and past a multiple of the block; kernels even, odd and longer than the row.
CASES = [(2, 1, 4, 2), (1, 8, 4, 3), (3, 11, 5, 2), (2, 6, 13, 4)]
KINDS = {"cpu": grouped_convolution, "gpu": grouped_convolution_by_products, "gpu, fused": fused.grouped_convolution}


def noise(*shape, seed):
    return tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


@pytest.mark.parametrize(("num_rows", "num_frames", "kernel_size", "num_groups"), CASES)
@pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("kind", KINDS)
def test_values_and_gradients_are_those_of_the_plain_convolution(
    num_rows, num_frames, kernel_size, num_groups, dtype, kind
):
    size = 6 * num_groups
    x = tf.cast(noise(num_rows, num_frames + kernel_size - 1, size, seed=0), dtype)
    kernel = noise(kernel_size, 6, size, seed=1)
    upstream = tf.cast(noise(num_rows, num_frames, size, seed=2), dtype)

    def run(function, signature):
        @tf.function(input_signature=signature)
        def compute(x, kernel, upstream):
            with tf.GradientTape() as tape:
                tape.watch([x, kernel])
                result = function(x, kernel)
            return [result, *tape.gradient(result, [x, kernel], upstream)]

        return [tf.cast(one, tf.float32).numpy() for one in compute(x, kernel, upstream)]

    # The lengths of a run's buckets are not known when it is traced.
    signature = [
        tf.TensorSpec([None, None, size], dtype), tf.TensorSpec(kernel.shape), tf.TensorSpec([None, None, size], dtype)
    ]  # fmt: skip
    found = run(lambda x, kernel: KINDS[kind](x, kernel, num_groups=num_groups), signature)
    wanted = run(lambda x, kernel: tf.nn.conv1d(x, tf.cast(kernel, dtype), 1, "VALID"), signature)
    tolerance = 1e-5 if dtype == tf.float32 else 0.01
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


def test_windows_are_the_frames_under_each_block_and_one_gather():
    """XLA emits a concatenation of more than ten operands without vectors on a GPU."""
    num_groups, channels, width, num_frames, block = 2, 3, 20, 13, module._BLOCK_ON_GPU
    x = noise(2, num_frames + width - 1, num_groups * channels, seed=0)
    compiled = tf.function(lambda x: module._windows(x, width, num_groups), jit_compile=True)
    found = compiled(x).numpy()
    covered = -(-(width + block - 1) // block) * block
    assert found.shape == (num_groups, 2 * 2, covered * channels)
    padded = np.pad(x.numpy(), [(0, 0), (0, 2 * block), (0, 0)])
    for group, row, start in np.ndindex(num_groups, 2, 2):
        wanted = padded[row, start * block :][:covered, group * channels : (group + 1) * channels]
        np.testing.assert_array_equal(found[group, 2 * row + start], wanted.ravel())
    program = compiled.experimental_get_compiler_ir(x)(stage="hlo")
    assert len(re.findall(r" gather\(", program)) == 1 and " concatenate(" not in program
