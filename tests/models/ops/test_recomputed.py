"""Operations of compiled steps against the plain ones, and against what XLA would store without them."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import tensorflow as tf

from common.whole_compilation import compile_whole
from models.ops import operations, recomputed
from models.ops.operations import PLAIN
from tests.models.ops.test_fused import DTYPES, TOLERANCE, make_random, noise

RATES = pytest.mark.parametrize("rate", [0.0, 0.3])
SHAPE = [2, 3, 9, 8]


def gradients(function):
    """Returns a function of inputs that gives the result of `function` and the gradients of all inputs."""

    def run(*inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            result = function(*inputs)
        return [result, *tape.gradient(result, inputs, noise(*result.shape, seed=9, dtype=result.dtype))]

    return run


def compare(function, inputs, dtype):
    """Compares `function` of the plain operations inside a compiled step with itself outside of one."""
    found, wanted = (wrap(gradients(function))(*inputs) for wrap in (compile_whole, tf.function))
    for ours, theirs in zip(found, wanted, strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = tf.cast(ours, tf.float32).numpy(), tf.cast(theirs, tf.float32).numpy()
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE[dtype] * max(1.0, np.abs(theirs).max()))


def masked_bias():
    bias = np.zeros((2, 1, 1, 9), np.float32)
    bias[1, ..., 6:] = -1e9
    return tf.constant(bias)


@DTYPES
@RATES
@pytest.mark.parametrize("kind", ["gelu", "swish"])
def test_activations(kind, rate, dtype):
    inputs = [2.0 * noise(2, 7, 12, dtype=dtype)]
    compare(lambda x: PLAIN.activation(x, make_random(), kind=kind, rate=rate, stream=3), inputs, dtype)


@DTYPES
@RATES
@pytest.mark.parametrize("kind", ["plain", "positions", "pairs", "distances"])
def test_attention(kind, rate, dtype):
    def run(query, key, value, *more):
        random, options = make_random(), {}
        if kind == "positions":
            options = {"gate": more[0], "positions": PLAIN.positions(more[1], random, dtype=dtype)}
        elif kind == "pairs":
            options = {"pair_bias": more[0]}
        elif kind == "distances":  # on a CPU they make queries and keys wider than values
            query, key, pair_bias = PLAIN.add_distances(query, key, more[0], random, left=3)
            options = {"pair_bias": pair_bias}
        return PLAIN.attention(query, key, value, masked_bias(), random, rate=rate, stream=5, **options)

    inputs = [noise(*SHAPE, seed=seed, dtype=dtype) for seed in range(3)]
    if kind == "positions":
        inputs += [1.0 + noise(2, 3, 9, seed=3), noise(3, 17, seed=4)]
    elif kind == "pairs":
        inputs += [noise(2, 3, 9, 9, seed=3, dtype=dtype)]
    elif kind == "distances":
        inputs += [noise(8, 6, seed=3, dtype=dtype)]
    compare(run, inputs, dtype)


def test_batches_of_several_widths_share_one_trace():
    def run(query, key, value):
        bias = tf.zeros([2, 1, 1, tf.shape(query)[2]])
        return PLAIN.attention(PLAIN.gelu(query, make_random()), key, value, bias, make_random(), rate=0.3, stream=5)

    before = recomputed.attention.experimental_get_tracing_count()
    for width in (31, 37, 41, 43):
        compare(run, [noise(2, 5, width, 8, seed=seed) for seed in range(3)], tf.float32)
    assert recomputed.attention.experimental_get_tracing_count() <= before + 2


def count(function, inputs, pattern):
    """Returns how often a pattern occurs in the program that XLA makes of a result and its gradients."""
    program = compile_whole(gradients(function)).experimental_get_compiler_ir(*inputs)(stage="optimized_hlo")
    return len(re.findall(pattern, program))


@RATES
def test_the_product_of_queries_and_keys_is_computed_twice_so_that_it_need_not_be_kept(rate, monkeypatch):
    def run(query, key, value):
        return PLAIN.attention(query, key, value, tf.zeros([2, 1, 1, 64]), make_random(), rate=rate, stream=5)

    # Enough frames for products of their own; XLA fuses small ones.
    inputs = [noise(2, 3, 64, 8, seed=seed) for seed in range(3)]
    logits = r"= f32\[\S+ (dot|custom-call)\("
    assert count(run, inputs, logits) == 7  # two of the forward pass, one of them again, four gradients
    monkeypatch.setattr(recomputed, "_tied", lambda x, upstream: x)
    recomputed_attention = tf.function(recomputed.attention.python_function, autograph=False)
    monkeypatch.setattr(recomputed, "attention", recomputed_attention)
    assert count(run, inputs, logits) == 6


def test_a_gradient_that_is_not_finite_stays_so():
    """A skipped update is found by its gradient: zero times infinity must not hide it."""
    x = noise(2, 12)

    def run(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = tf.reduce_sum(PLAIN.gelu(x, make_random()) * np.float32(np.inf))
        return tape.gradient(result, x)

    assert not np.isfinite(compile_whole(run)(x)).any()


def test_gelu_without_random_numbers_is_one_operation_of_xla_where_all_is_compiled():
    """What XLA writes out as many operations it runs as two kernels on a GPU: inference, frozen feature encoders."""
    x = noise(2, 12, dtype=tf.bfloat16)
    programs = []
    for wrap in (compile_whole, tf.function(jit_compile=True)):
        ir = wrap(lambda x: PLAIN.gelu(x, None)).experimental_get_compiler_ir(x)
        programs.append(ir(stage="hlo"))
    ours, theirs = ([len(re.findall(rf" {name}\(", text)) for name in ("erf", "exponential")] for text in programs)
    assert ours == [1, 0]
    assert theirs == [0, 1]  # TensorFlow's erfc; if this has become one operation, ours may go


def test_gelu_without_random_numbers_rounds_once_where_all_is_compiled():
    x = tf.cast(tf.linspace(-8.0, 8.0, 10_001), tf.bfloat16)
    found = compile_whole(lambda x: PLAIN.gelu(x, None))(x)
    wanted = [0.5 * value * math.erfc(-value / math.sqrt(2.0)) for value in x.numpy().astype(np.float64)]
    assert found.dtype == tf.bfloat16
    # Half a unit in the last of 8 binary digits, and what float32 cannot tell from 1 in 1 + erf.
    np.testing.assert_allclose(found.numpy().astype(np.float64), wanted, rtol=1.001 * 2.0**-8, atol=5e-7)


@DTYPES
def test_gelu_without_random_numbers_has_its_gradient(dtype):
    compare(lambda x: PLAIN.gelu(x, None), [2.0 * noise(2, 7, 12, dtype=dtype)], dtype)


def test_inference_and_steps_that_are_not_compiled_whole_keep_tensorflows_operations(monkeypatch):
    for name in ("gelu", "swish", "attention"):
        monkeypatch.setattr(recomputed, name, None)
    inputs = [noise(*SHAPE, seed=seed) for seed in range(3)]

    def attend(random):
        return PLAIN.attention(*inputs, masked_bias(), random, rate=0.0, stream=5)

    attend(make_random())
    compile_whole(lambda: attend(None))()
    monkeypatch.setattr(operations, "device_type", lambda: "TPU")  # which compiles whatever it runs
    with pytest.raises(TypeError, match="NoneType"):
        attend(make_random())
