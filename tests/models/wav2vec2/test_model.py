"""The whole model: padding, precision, masks, freezing, parameter counts."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC, build_model

# Presets with layers behind the encoder, which no published model has.
ADAPTERS = {
    "conformer_adapter": ("conformer_rope", {"num_length_adapters": 2, "output_size": 24}),
    "w2v_bert_adapter": ("w2v_bert_base", {"num_length_adapters": 1, "length_adapter_feed_forward": True}),
}
CONFORMERS = ("conformer_rel_pos", "conformer_rope", "w2v_bert_base", *ADAPTERS)


def small_preset(name, **overrides):
    """The architecture of a preset, narrow enough for a test."""
    name, more = ADAPTERS.get(name, (name, {}))
    overrides = more | overrides
    narrow = {"hidden_size": 32, "num_heads": 4, "num_layers": 2, "intermediate_size": 64, "pos_conv_groups": 4}
    return preset(name, conv_dim=(16,) * len(preset(name).conv_dim), **{**narrow, **overrides})


def waveforms():
    rng = np.random.default_rng(0)
    return [rng.normal(size=n).astype(np.float32) for n in (16_000, 9_999, 4_000)]


def pad(rows, width):
    padded = np.random.default_rng(1).normal(size=(len(rows), width)).astype(np.float32)  # noise, not zeros
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return tf.constant(padded), tf.constant([len(row) for row in rows])


@pytest.mark.parametrize("name", ["tiny", "base", "wavlm_base", "wavlm_large", "data2vec_audio_base", *CONFORMERS])
def test_a_padded_row_equals_the_row_alone(name):
    model = Wav2Vec2ForCTC(config=small_preset(name))
    rows = waveforms()
    batch, lengths = pad(rows, 40_000)
    together = model(batch, lengths).numpy()
    frames = model.output_lengths(lengths).numpy()
    for i, row in enumerate(rows):
        alone = model(tf.constant(row[np.newaxis]), tf.constant([len(row)])).numpy()[0]
        assert len(alone) == frames[i]
        assert np.abs(alone).max() > 1e-3
        np.testing.assert_allclose(together[i, : frames[i]], alone, atol=1e-5)


@pytest.mark.parametrize("name", ["base", *CONFORMERS])
def test_a_padded_row_equals_the_row_alone_in_training_too(name):
    model = Wav2Vec2ForCTC(config=small_preset(name, mask_time_prob=0.4, mask_feature_prob=0.3))
    rows = waveforms()

    def logits(rows, ids, width):
        batch, lengths = pad(rows, width)
        random = model.make_random(seed=3, update=tf.constant(7), row_ids=tf.constant(ids))
        return model(batch, lengths, training=True, random=random).numpy()

    together = logits(rows, [5, 6, 7], 16_000)
    alone = logits(rows[1:2], [6], 9_999)[0]
    # Dropout and masks count elements from the start of the row, so frames pair up; attention's dropout counts along
    # the padded width, which is why it is compared with the same width below.
    same_width = logits(rows[1:2], [6], 16_000)[0]
    frames = len(alone)
    np.testing.assert_allclose(together[1, :frames], same_width[:frames], atol=1e-5)


@pytest.mark.parametrize(("name", "frames"), [("base", 49), ("w2v_bert_base", 49), ("conformer_adapter", 13)])
def test_a_row_too_short_for_a_frame_and_an_empty_one_stay_finite(name, frames):
    model = Wav2Vec2ForCTC(config=small_preset(name))
    batch, _ = pad(waveforms(), 16_000)
    logits = model(batch, tf.constant([16_000, 10, 0]))
    assert model.output_lengths(tf.constant([16_000, 10, 0])).numpy().tolist() == [frames, 0, 0]
    assert np.isfinite(logits.numpy()).all()


def test_masks_and_dropout_change_with_the_update_and_vanish_in_evaluation():
    model = Wav2Vec2ForCTC(config=small_preset("tiny"))
    batch, lengths = pad(waveforms(), 16_000)

    def train(update):
        random = model.make_random(seed=0, update=tf.constant(update), row_ids=tf.constant([0, 1, 2]))
        return model(batch, lengths, training=True, random=random).numpy()

    np.testing.assert_array_equal(train(0), train(0))
    assert np.abs(train(0) - train(1)).max() > 1e-3
    np.testing.assert_array_equal(model(batch, lengths).numpy(), model(batch, lengths).numpy())
    with pytest.raises(ValueError, match="random"):
        model(batch, lengths, training=True)


def test_logits_of_layers_and_views_are_those_of_each_by_itself():
    model = Wav2Vec2ForCTC(config=small_preset("large_lv60", num_layers=3, mask_time_prob=0.2, mask_feature_prob=0.2))
    batch, lengths = pad(waveforms(), 16_000)

    def logits(num_views, **fields):
        random = model.make_random(seed=0, update=tf.constant(2), row_ids=tf.constant([0, 1, 2]), num_views=num_views)
        return [x.numpy() for x in model.training_logits(batch, lengths, random=random, **fields)]

    (single,), (second, two_views) = logits(1), logits(2, layers=(2,))
    assert single.shape[0] == 3 and two_views.shape[0] == second.shape[0] == 6
    np.testing.assert_allclose(two_views[:3], single, atol=1e-5)  # the first views
    assert np.abs(two_views[3:, :12] - single[:, :12]).max() > 1e-3
    assert np.abs(second - two_views)[:, :12].max() > 1e-3
    assert np.abs(logits(1, mask_time_factor=3.0)[0] - single)[:, :12].max() > 1e-3
    assert model.explain_unsupported(num_views=2, layers=(1, 2)) == ""
    for layer in (3, 0):
        fault = model.explain_unsupported(num_views=1, layers=(1, layer))
        assert fault == f"layer {layer} is no layer before the last one of this model, which has 3"


def test_time_mask_puts_the_learned_embedding_in_place_of_frames():
    config = small_preset("tiny", mask_time_prob=1.0, mask_time_length=1, mask_feature_prob=0.0, layer_drop=0.0)
    model = Wav2Vec2ForCTC(config=config)
    batch, lengths = pad(waveforms(), 16_000)
    random = model.make_random(seed=0, update=tf.constant(0), row_ids=tf.constant([0, 1, 2]))
    num_frames = config.num_frames(16_000)
    x = tf.zeros([3, num_frames, 32])
    masked = model.backbone._mask(x, model.output_lengths(lengths), random).numpy()
    np.testing.assert_array_equal(masked[0], np.tile(model.backbone.mask_embedding.numpy(), (num_frames, 1)))
    frames = int(model.output_lengths(lengths)[2])
    assert not masked[2, frames:].any()


@pytest.mark.parametrize("name", ["base", "wavlm_base", "data2vec_audio_base", "conformer_rel_pos", "w2v_bert_adapter"])
@pytest.mark.parametrize(("precision", "tolerance"), [("mixed_bfloat16", 0.05), ("mixed_float16", 0.01)])
def test_half_precision_logits_are_float32_and_close(name, precision, tolerance):
    tf_keras.utils.set_random_seed(0)  # among many draws of weights some are further apart
    wide = Wav2Vec2ForCTC(config=small_preset(name))
    half = Wav2Vec2ForCTC(config=small_preset(name), precision=precision)
    half.set_weights(wide.get_weights())
    batch, lengths = pad(waveforms()[:1], 16_000)
    found, wanted = half(batch, lengths), wide(batch, lengths)
    assert found.dtype == tf.float32
    assert all(variable.dtype == tf.float32 for variable in half.variables if variable.dtype.is_floating)
    scale = np.abs(wanted.numpy()).max()
    tolerance *= 1 + (name == "data2vec_audio_base")  # whose five norms and GELUs more round, each
    assert np.abs(found.numpy() - wanted.numpy()).max() < tolerance * scale


def test_frozen_feature_encoder_leaves_the_trainable_list_and_the_tape():
    model = Wav2Vec2ForCTC(config=small_preset("base"), freeze_feature_encoder=True)
    trainable = {variable.name for variable in model.trainable_variables}
    assert not any(name.startswith("feature_encoder") for name in trainable)
    assert len(model.variables) - len(trainable) == 7 + 2
    batch, lengths = pad(waveforms()[:1], 16_000)
    with tf.GradientTape() as tape:
        tape.watch(model.variables)
        loss = tf.reduce_sum(model(batch, lengths) ** 2)
    gradients = dict(zip([v.name for v in model.variables], tape.gradient(loss, model.variables), strict=True))
    assert gradients["feature_encoder/0/kernel:0"] is None
    assert np.abs(gradients["encoder/layers/0/attention/qkv/kernel:0"].numpy()).max() > 0


def test_head_variables_are_the_ctc_head():
    model = Wav2Vec2ForCTC(config=small_preset("base"))
    assert [variable.name for variable in model.head_variables] == ["head/kernel:0", "head/bias:0"]


def test_base_has_the_published_number_of_parameters():
    model = build_model(preset="base", vocab_size=32)
    # fairseq and Hugging Face count 94,371,712 without head; the head adds 768 x 32 + 32.
    assert sum(int(tf.size(variable)) for variable in model.variables) == 94_371_712 + 768 * 32 + 32


def test_unknown_precision_is_refused():
    with pytest.raises(ValueError, match="train.precision"):
        build_model(preset="tiny", vocab_size=32, precision="bfloat16")


@pytest.mark.parametrize("width", [9_000, 40_000])
def test_frames_past_the_longest_row_are_left_out_and_nothing_changes(width, monkeypatch):
    plain, cropping = (Wav2Vec2ForCTC(config=small_preset("base", fused_ops=fused_ops)) for fused_ops in ("off", "on"))
    for a, b in zip(plain.variables, cropping.variables, strict=True):
        b.assign(a)
    seen = []
    encoder = cropping.backbone.encoder
    call = encoder.call
    monkeypatch.setattr(encoder, "call", lambda x, *more: seen.append(x.shape[1]) or call(x, *more))
    for rows in ([row[:8_000] for row in waveforms()], [np.zeros(100, np.float32)]):
        batch, lengths = pad(rows, width)
        wanted, found = plain(batch, lengths).numpy(), cropping(batch, lengths).numpy()
        frames = plain.output_lengths(lengths).numpy()
        assert seen.pop() == max(1, frames.max()) < found.shape[1] == wanted.shape[1]
        for a, b, count in zip(wanted, found, frames, strict=True):
            np.testing.assert_allclose(b[:count], a[:count], atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", ["base", "large_lv60", "w2v_bert_adapter"])
def test_fixed_weights_give_the_same_logits_without_reading_the_kernels(name, precision):
    tf_keras.utils.set_random_seed(0)  # with other weights one bfloat16 may round the other way, half a percent of it
    model = Wav2Vec2ForCTC(config=small_preset(name), precision=precision)
    batch, lengths = pad(waveforms(), 17_000)

    def infer():
        step = tf.function(lambda x, n: model(x, n)).get_concrete_function(batch, lengths)
        casts = [op for op in step.graph.get_operations() if op.type == "Cast" and "kernel" in op.inputs[0].op.name]
        return step(batch, lengths).numpy(), len(step.graph.variables), len(casts)

    wanted, num_read, _ = infer()
    model.fix_weights()
    found, num_read_later, num_casts = infer()
    # Kernels may be chosen otherwise, so sums come in another order.
    np.testing.assert_allclose(found, wanted, atol=1e-6 if precision == "float32" else 2e-3 * np.abs(wanted).max())
    assert num_casts == 0
    kernels = [
        v.name
        for v in model.variables
        if v.name.split("/")[-1].split(":")[0] in ("kernel", "kernel_v", "kernel_g") and "depthwise" not in v.name
    ]
    # In float32 nothing is to be cast, and only the positional kernel is made of others. A depthwise one stays float32.
    of_others = 2 if model.config.has_position_convolution else 0
    assert num_read - num_read_later == (of_others if precision == "float32" else len(kernels) > 15 and len(kernels))
