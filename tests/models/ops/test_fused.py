"""Fused operations against the plain versions they stand for: values, gradients, whole models, replicas."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from models.ops import fused
from models.ops.keyed_random import UpdateRandom, dropout
from models.ops.operations import FusedOperations, gelu
from models.wav2vec2 import layers
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.models.wav2vec2.test_model import pad, small_preset, waveforms

TOLERANCE = {tf.float32: 2e-6, tf.bfloat16: 0.03}
DTYPES = pytest.mark.parametrize("dtype", [tf.float32, tf.bfloat16], ids=["float32", "bfloat16"])


def noise(*shape, seed=0, dtype=tf.float32):
    return tf.cast(tf.constant(np.random.default_rng(seed).normal(size=shape).astype(np.float32)), dtype)


def make_random(num_rows=2):
    return UpdateRandom(seed=1, update=tf.constant(5), row_ids=tf.range(num_rows))


def compare(fused_op, plain, inputs, dtype):
    """Values and the gradients of all inputs, for one upstream gradient."""
    found = []
    for function in (fused_op, plain):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            result = function(*inputs)
        upstream = noise(*result.shape, seed=9, dtype=result.dtype)
        assert result.dtype == dtype
        found.append([result, *tape.gradient(result, inputs, output_gradients=upstream)])
    for ours, theirs in zip(*found, strict=True):
        ours, theirs = tf.cast(ours, tf.float32).numpy(), tf.cast(theirs, tf.float32).numpy()
        assert np.abs(theirs).max() > 0.1
        np.testing.assert_allclose(ours, theirs, atol=TOLERANCE[dtype] * max(1.0, np.abs(theirs).max()))


@DTYPES
@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_gelu_and_its_dropout(dtype, rate):
    random, shape = make_random(), [2, 7, 12]
    keys = random.vector_keys(shape, stream=3) if rate else None
    compare(
        lambda x: fused.gelu(x, rate=rate, keys=keys),
        lambda x: dropout(gelu(x), rate, random, stream=3),
        [2.0 * noise(*shape, dtype=dtype)],
        dtype,
    )


@DTYPES
def test_layer_norm(dtype):
    norm = layers.LayerNorm(size=12, epsilon=1e-5, name="norm")
    fused_norm = layers.LayerNorm(size=12, epsilon=1e-5, name="fused", operations=FusedOperations())

    def plain(x, scale, offset):
        wide = tf.cast(x, tf.float32)
        mean, variance = tf.nn.moments(wide, axes=[-1], keepdims=True)
        return tf.cast((wide - mean) * tf.math.rsqrt(variance + 1e-5) * scale + offset, x.dtype)

    x = 3.0 + noise(2, 7, 12, dtype=dtype)
    compare(lambda *i: fused.layer_norm(*i, epsilon=1e-5), plain, [x, noise(12, seed=1), noise(12, seed=2)], dtype)
    np.testing.assert_allclose(
        tf.cast(fused_norm(x, make_random()), tf.float32), tf.cast(norm(x), tf.float32), atol=TOLERANCE[dtype]
    )
    np.testing.assert_array_equal(tf.cast(fused_norm(x), tf.float32), tf.cast(norm(x), tf.float32))


@DTYPES
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_sum_with_dropout(dtype, rate):
    random, shape = make_random(), [2, 7, 12]
    keys = random.vector_keys(shape, stream=4) if rate else None
    compare(
        lambda x, residual: fused.add_dropped(x, residual, rate=rate, keys=keys),
        lambda x, residual: residual + dropout(x, rate, random, stream=4),
        [noise(*shape, dtype=dtype), noise(*shape, seed=1, dtype=dtype)],
        dtype,
    )


def gradients_of(model, *, seed=3, jit_compile=None):
    """Loss and gradients of a training pass over padded rows, with everything random switched on."""
    batch, lengths = pad(waveforms(), 17_000)
    variables = model.trainable_variables

    @tf.function(jit_compile=jit_compile, autograph=False)
    def run():
        random = model.make_random(seed=seed, update=tf.constant(2), row_ids=tf.constant([4, 7, 9]))
        with tf.GradientTape() as tape:
            logits = model(batch, lengths, training=True, random=random)
            frames = model.output_lengths(lengths)
            valid = tf.sequence_mask(frames, tf.shape(logits)[1], dtype=tf.float32)[:, :, tf.newaxis]
            loss = tf.reduce_sum(tf.square(logits) * valid)
        return loss, tape.gradient(loss, variables, unconnected_gradients="zero")

    loss, gradients = run()
    return float(loss), [gradient.numpy() for gradient in gradients]


RANDOM = {
    "hidden_dropout": 0.1, "attention_dropout": 0.2, "activation_dropout": 0.1, "feature_projection_dropout": 0.1,
    "final_dropout": 0.1, "layer_drop": 0.3, "mask_time_prob": 0.3, "num_layers": 2,
}  # fmt: skip


def twins(name, one, other, *, freeze=False, precision="float32"):
    models = [
        Wav2Vec2ForCTC(config=small_preset(name, **RANDOM | fields), freeze_feature_encoder=freeze, precision=precision)
        for fields in (one, other)
    ]
    for a, b in zip(*(model.variables for model in models), strict=True):
        b.assign(a)
    return models


@pytest.mark.parametrize(
    ("name", "freeze"),
    [
        ("base", False),
        ("base", True),
        ("large_lv60", False),
        pytest.param(*("wavlm_base", False), marks=pytest.mark.slow),
        pytest.param(*("data2vec_audio_base", False), marks=pytest.mark.slow),
        pytest.param(*("conformer_rel_pos", False), marks=pytest.mark.slow),
        pytest.param(*("conformer_adapter", True), marks=pytest.mark.slow),
        pytest.param(*("w2v_bert_base", False), marks=pytest.mark.slow),
        pytest.param(*("w2v_bert_adapter", False), marks=pytest.mark.slow),
    ],
    ids=["base", "frozen", "large_lv60", "wavlm", "data2vec", "relative", "rotary", "bert", "bert_adapter"],
)
def test_a_model_of_fused_operations_trains_like_a_plain_one(name, freeze):
    plain, compiled = twins(name, {"fused_ops": "off"}, {"fused_ops": "on"}, freeze=freeze)
    loss, wanted = gradients_of(plain)
    found_loss, found = gradients_of(compiled)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    for variable, a, b in zip(plain.trainable_variables, wanted, found, strict=True):
        np.testing.assert_allclose(b, a, atol=2e-5 * max(1e-3, np.abs(a).max()), err_msg=variable.name)
    batch, lengths = pad(waveforms(), 17_000)
    frames = plain.output_lengths(lengths).numpy()
    for a, b, count in zip(plain(batch, lengths).numpy(), compiled(batch, lengths).numpy(), frames, strict=True):
        np.testing.assert_allclose(b[:count], a[:count], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "precision", "fields", "jit_compile"),
    [
        ("base", "float32", {"fused_ops": "off"}, None),
        ("base", "mixed_bfloat16", {"fused_ops": "on"}, None),
        ("large_lv60", "float32", {"fused_ops": "on", "layer_drop": 0.0}, None),
        pytest.param(*("base", "float32", {"fused_ops": "off"}, True), marks=pytest.mark.slow),  # as on a TPU
        pytest.param(*("wavlm_base", "float32", {"fused_ops": "off"}, None), marks=pytest.mark.slow),
        pytest.param(*("wavlm_base", "float32", {"fused_ops": "on"}, None), marks=pytest.mark.slow),
        pytest.param(*("wavlm_large", "mixed_bfloat16", {"fused_ops": "on"}, None), marks=pytest.mark.slow),
        pytest.param(*("conformer_rel_pos", "float32", {"fused_ops": "on"}, None), marks=pytest.mark.slow),
        pytest.param(*("conformer_adapter", "float32", {"fused_ops": "off"}, None), marks=pytest.mark.slow),
        pytest.param(*("w2v_bert_base", "mixed_bfloat16", {"fused_ops": "on"}, None), marks=pytest.mark.slow),
        pytest.param(*("w2v_bert_adapter", "float32", {"fused_ops": "off"}, True), marks=pytest.mark.slow),
    ],
    ids=[
        "plain",
        "fused-bfloat16",
        "fused-pre-norm",
        "compiled",
        "wavlm",
        "fused-wavlm",
        "fused-wavlm-bfloat16",
        "relative",
        "rotary",
        "bert-bfloat16",
        "bert-compiled",
    ],
)
def test_gradient_checkpointing_gives_the_same_gradients(monkeypatch, name, precision, fields, jit_compile):
    kept, recomputed = twins(name, fields, {**fields, "gradient_checkpointing": True}, precision=precision)
    layer = type(kept.backbone.encoder.transformer_layers[0])
    traced, call = [], layer.call
    monkeypatch.setattr(layer, "call", lambda *inputs, **more: traced.append(inputs[0]) or call(*inputs, **more))
    loss, wanted = gradients_of(kept, jit_compile=jit_compile)
    assert len(traced) == RANDOM["num_layers"]
    found_loss, found = gradients_of(recomputed, jit_compile=jit_compile)
    assert len(traced) == 3 * RANDOM["num_layers"]  # forward, and once more in the backward pass
    assert found_loss == pytest.approx(loss, rel=1e-6)
    # Mostly bit for bit; a graph may be fused otherwise, and then a sum comes in another order.
    tolerance = 1e-5 if precision == "float32" else 1e-2
    for variable, a, b in zip(kept.trainable_variables, wanted, found, strict=True):
        np.testing.assert_allclose(b, a, rtol=0.0, atol=tolerance * max(1e-3, np.abs(a).max()), err_msg=variable.name)


def test_the_folded_group_norm_is_exact_where_samples_are_nearly_equal():
    """A slow drift over a loud offset: windows whose samples differ in their last digits only."""
    plain, folded = twins("base", {"fused_ops": "off"}, {"fused_ops": "on"})
    time = np.arange(16_000, dtype=np.float32)
    rows = np.stack([1.0 + 1e-3 * np.sin(time / 900), np.sin(time / 15)]).astype(np.float32)
    lengths = tf.constant([16_000, 9_000])
    first = plain.backbone.feature_encoder.convolutions[0]
    other = folded.backbone.feature_encoder.convolutions[0]
    a, _ = first(tf.constant(rows[:, :, np.newaxis]), lengths)
    b, frames = other(tf.constant(rows[:, :, np.newaxis]), lengths)
    for row, count in enumerate(frames.numpy()):
        # The plain version itself works in float32 and is the less exact of the two here.
        np.testing.assert_allclose(b[row, :count], a[row, :count], atol=5e-3 if row == 0 else 2e-4)


def test_fused_operations_run_in_wide_models_alone_unless_asked_for():
    assert preset("base").uses_fused_ops and preset("xls_r_300m").uses_fused_ops
    assert not preset("tiny").uses_fused_ops
    assert preset("tiny", fused_ops="on").uses_fused_ops and not preset("base", fused_ops="off").uses_fused_ops
    with pytest.raises(ValueError, match="fused_ops must be"):
        preset("base", fused_ops="some")


@pytest.mark.parametrize("gradient_checkpointing", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_two_replicas_run_fused_operations(two_replicas, gradient_checkpointing):
    config = small_preset("base", **RANDOM, fused_ops="on", gradient_checkpointing=gradient_checkpointing)
    with two_replicas.scope():
        model = Wav2Vec2ForCTC(config=config)
    alone = Wav2Vec2ForCTC(config=config)
    for a, b in zip(model.variables, alone.variables, strict=True):
        b.assign(a.numpy() if hasattr(a, "numpy") else a)
    batch, lengths = pad(waveforms(), 17_000)

    def compute(chosen):
        random = chosen.make_random(seed=3, update=tf.constant(2), row_ids=tf.constant([4, 7, 9]))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(chosen(batch, lengths, training=True, random=random)))
        return loss, tape.gradient(loss, chosen.trainable_variables, unconnected_gradients="zero")

    @tf.function
    def on_replicas():
        return two_replicas.run(lambda: compute(model))

    wanted = tf.function(lambda: compute(alone))()
    loss, gradients = on_replicas()
    for replica in range(2):
        assert float(loss.values[replica]) == pytest.approx(float(wanted[0]), rel=1e-5)
        for a, b in zip(wanted[1], gradients, strict=True):
            scale = max(1e-3, float(tf.reduce_max(tf.abs(a))))
            np.testing.assert_allclose(b.values[replica], a, atol=3e-5 * scale)


@pytest.mark.slow
def test_the_first_compilation_says_nothing_about_itself():
    """In a process of its own: the compiler speaks once a process."""
    code = (
        "import tensorflow as tf\n"
        "from models.ops.keyed_random import UpdateRandom\n"
        "from models.wav2vec2.model import build_model\n"
        "model = build_model(preset='tiny', vocab_size=32, fused_ops='on')\n"
        "random = UpdateRandom(seed=1, update=tf.constant(5), row_ids=tf.range(2))\n"
        "model(tf.zeros([2, 8000]), tf.constant([8000, 4000]), training=True, random=random)\n"
    )
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "Compiled cluster" not in done.stderr and "InitializeLog" not in done.stderr
