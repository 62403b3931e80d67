"""Calls the kernels of `models.ops.gpu_attention.kernels` in programs that XLA compiles for an NVIDIA GPU."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import tensorflow as tf
from absl import logging
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from common.gpu_capability import gpus_run_triton
from common.whole_compilation import is_compiled_whole
from models.ops.fused import dropped
from models.ops.gpu_attention.programs import BACKWARD, FORWARD, HEAD_SIZE, Program
from models.ops.keyed_random import keep_limit

_DTYPES = {tf.bfloat16: "bf16", tf.float16: "f16"}
_MOST_PAIRS = 65_535  # of a row and a head: CUDA's limit of the second axis of a grid
_MOST_ERROR = 0.05  # of bfloat16's; a wrong mask or random number makes one of about 1


def can_run(qkv: tf.Tensor) -> bool:
    """Returns whether `attention` can run where this is traced: for queries, keys and values [B, F, 3, H, D].

    XLA must compile it as a whole for an NVIDIA GPU of compute capability 8.0 or above, in half precision, with heads
    of 64 channels. All sizes must be known, because the number of a kernel's programs is written into XLA's program.
    """
    if not (is_compiled_whole() and qkv.dtype in _DTYPES and qkv.shape.is_fully_defined()):
        return False
    num_rows, num_frames, _, num_heads, size = qkv.shape
    return size == HEAD_SIZE and num_frames > 0 and 0 < num_rows * num_heads <= _MOST_PAIRS and _has_kernels()


@functools.cache
def _has_kernels() -> bool:
    """Returns whether all GPUs are recent enough and the first one computes a small problem right."""
    if not gpus_run_triton():
        return False
    try:
        with tf.init_scope(), tf.device("GPU:0"):
            largest = _error_of_trial()
        reason = "" if largest < _MOST_ERROR else f"an error of {largest:.2g} of the largest value"
    except (tf.errors.OpError, NotImplementedError) as error:  # from XLA: it has no Triton, or rejects the text
        reason = str(error).splitlines()[0]
    if reason:
        logging.warning("attention's GPU kernels fail a trial, so compiled steps do without them: %s", reason)
    return not reason


def _error_of_trial() -> float:
    """Returns the largest error of context and gradient in a small problem, relative to the largest value; eager."""
    numbers = np.random.default_rng(0)
    qkv = tf.constant(numbers.normal(size=[2, 150, 3, 2, HEAD_SIZE]), tf.bfloat16)
    upstream = tf.constant(numbers.normal(size=[2, 150, 2, HEAD_SIZE]), tf.bfloat16)
    is_masked = np.arange(150) >= [[150], [130]]
    key_bias = tf.constant(np.where(is_masked, -1e9, 0.0)[:, np.newaxis, np.newaxis], tf.float32)
    keys = tf.constant(numbers.integers(2**32, size=[2, 2, 150], dtype=np.uint32))

    def plain(qkv: tf.Tensor) -> tf.Tensor:
        query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))
        logits = tf.matmul(query, key, transpose_b=True) / math.sqrt(HEAD_SIZE) + key_bias
        return tf.transpose(tf.matmul(dropped(tf.nn.softmax(logits), 0.1, keys), value), [0, 2, 1, 3])

    def results(function: Callable[[tf.Tensor], tf.Tensor], qkv: tf.Tensor) -> list[tf.Tensor]:
        context = function(qkv)
        # Not a tape, which tf.init_scope stops.
        return [context, *tf.gradients(context, qkv, tf.cast(upstream, context.dtype))]

    run = functools.partial(attention, key_bias=key_bias, rate=0.1, keys=keys)
    found = tf.function(functools.partial(results, run), jit_compile=True, autograph=False)(qkv)
    wanted = tf.function(functools.partial(results, plain), autograph=False)(tf.cast(qkv, tf.float32))
    pairs = zip(found, wanted, strict=True)
    errors = [float(tf.norm(tf.cast(x, tf.float32) - y, np.inf) / tf.norm(y, np.inf)) for x, y in pairs]
    return float(np.max(errors))  # unlike max, it keeps what is no number


def _run(
    program: Program, operands: list[tf.Tensor], results: list[tuple[tf.DType, list[int]]], *, drops: bool
) -> list[tf.Tensor]:
    """Returns the results of a kernel, whose arguments are pointers to the operands and to the results."""
    num_rows, num_frames, _, num_heads, _ = operands[0].shape
    text = program.text(drops=drops, dtype=_DTYPES[operands[0].dtype])
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\0A")
    numbers = {
        "num_stages": program.num_stages,
        "num_warps": program.num_warps,
        "grid_x": -(-num_frames // program.block),
        "grid_y": num_rows * num_heads,
        "grid_z": 1,
    }
    settings = ", ".join(f"{name} = {number} : i32" for name, number in numbers.items())
    return gen_xla_ops.xla_custom_call_v2(
        operands=operands,
        call_target_name="__gpu$xla.gpu.triton",
        backend_config=f'{{name = "{program.kernel}", ir = "{escaped}", {settings}}}',
        has_side_effect=False,
        result_dtypes=[dtype for dtype, _ in results],
        result_shapes=[shape for _, shape in results],
    )


# A custom gradient cannot be differentiated inside a branch of tf.cond (layer drop), but a function call can. Without
# reduce_retracing, which would trace a second length with sizes that are not known.
@functools.partial(tf.function, autograph=False)
def attention(qkv: tf.Tensor, key_bias: tf.Tensor, *, rate: float, keys: tf.Tensor | None) -> tf.Tensor:
    """Returns dropout(softmax(query key^T / sqrt(D) + key_bias)) value, without a tensor of all pairs of frames.

    Args:
        qkv: [B, F, 3, H, D]: queries, keys and values, for which `can_run`.
        key_bias: float32 [B, 1, 1, F].
        rate: Dropout rate of the probabilities.
        keys: uint32 [B, H, F] of `UpdateRandom.vector_keys`; None drops nothing.

    Returns:
        [B, F, H, D].
    """
    num_rows, num_frames, _, num_heads, size = qkv.shape
    drops = keys is not None and rate > 0.0
    limit = np.uint32(keep_limit(rate) if drops else 0)

    def inputs(qkv: tf.Tensor) -> list[tf.Tensor]:
        # Made again for the backward pass: captured from a branch (layer drop), constants would become its outputs.
        return [
            qkv,
            tf.reshape(key_bias, [num_rows, num_frames]),
            keys if drops else tf.zeros([1], tf.uint32),
            tf.constant(np.array([num_frames, num_heads, limit.astype(np.int32)], np.int32)),
            tf.constant([math.log2(math.e) / math.sqrt(size), 1.0 / math.sqrt(size), 1.0 / (1.0 - rate)], tf.float32),
        ]

    @tf.custom_gradient
    def compute(qkv: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        results = [
            (qkv.dtype, [num_rows, num_frames, num_heads, size]),
            (tf.float32, [num_rows, num_heads, num_frames]),
        ]
        context, lse = _run(FORWARD, inputs(qkv), results, drops=drops)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Softmax's gradient needs the sum over keys of p * dp. It equals context * d(context): no sum over F x F.
            along = tf.reduce_sum(tf.cast(context, tf.float32) * tf.cast(upstream, tf.float32), axis=-1)
            along = tf.transpose(along, [0, 2, 1]) * ((1.0 - rate) if drops else 1.0)
            results = [(qkv.dtype, qkv.shape.as_list())]
            return _run(BACKWARD, [*inputs(qkv), lse, along, upstream], results, drops=drops)[0]

        return context, gradient

    return compute(qkv)
