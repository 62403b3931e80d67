"""Log-mel features in the graph: the reference's formula step by step, padding, and rows of odd or no frames."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.wav2vec2.config import preset
from models.wav2vec2.log_mel import LogMelFeatures, mel_filters, povey_window
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.models.wav2vec2.test_model import small_preset


def reference_features(waveform):
    """What SeamlessM4TFeatureExtractor of transformers computes, in float64; odd frames left out."""
    frames = np.lib.stride_tricks.sliding_window_view(waveform.astype(np.float64) * 2**15, 400)[::160]
    frames = frames - frames.mean(axis=1, keepdims=True)
    emphasized = frames - 0.97 * np.concatenate([frames[:, :1], frames[:, :-1]], axis=1)
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399)) ** 0.85
    power = np.abs(np.fft.rfft(emphasized * window, 512)) ** 2
    energy = np.log(np.maximum(power @ mel_filters(80).astype(np.float64), 1.192092955078125e-07))
    normalized = (energy - energy.mean(axis=0)) / np.sqrt(energy.var(axis=0, ddof=1) + 1e-7)
    count = len(normalized) // 2
    return normalized[: 2 * count].reshape(count, 160)


def recording(num_samples, seed=0):
    rng = np.random.default_rng(seed)
    waveform = rng.normal(0.0, 0.05, num_samples) * (1.2 + np.sin(np.arange(num_samples) / 2_000))
    return (np.round(waveform * 32_768) / 32_768 + 0.01).astype(np.float32)  # 16 bits, and an offset


@pytest.fixture(scope="module")
def layer():
    return LogMelFeatures(config=preset("w2v_bert_base"), dtype="float32")


@pytest.mark.parametrize("num_samples", [16_000, 16_160, 8_333])
def test_features_are_those_of_the_reference(layer, num_samples):
    waveform = recording(num_samples)
    wanted = reference_features(waveform)
    features, lengths = layer(tf.constant(waveform[np.newaxis]), tf.constant([num_samples]))
    assert lengths.numpy().tolist() == [len(wanted)] == [preset("w2v_bert_base").num_frames(num_samples)]
    np.testing.assert_allclose(features[0, : len(wanted)], wanted, atol=2e-4)


def test_padding_and_other_rows_change_no_feature(layer):
    rows = [recording(n, seed=n) for n in (9_000, 4_321, 300, 560, 720)]
    batch = np.random.default_rng(1).normal(size=(len(rows), 12_345)).astype(np.float32)
    for i, row in enumerate(rows):
        batch[i, : len(row)] = row
    features, lengths = layer(tf.constant(batch), tf.constant([len(row) for row in rows]))
    assert np.isfinite(features).all()
    # Windows of 25 ms each 10 ms, two of them a frame; 560 samples make two windows.
    assert lengths.numpy().tolist() == [27, 12, 0, 1, 1]
    for i, row in enumerate(rows):
        count = int(lengths[i])
        if count:
            alone, _ = layer(tf.constant(row[np.newaxis]), tf.constant([len(row)]))
            np.testing.assert_allclose(features[i, :count], alone[0, :count], atol=1e-5)


def test_the_filters_are_triangles_that_sum_to_one_between_their_centers():
    filters = mel_filters(80)
    assert filters.shape == (257, 80) and filters.min() == 0.0
    peaks = filters.argmax(axis=0)
    np.testing.assert_allclose(filters.sum(axis=1)[peaks[0] + 1 : peaks[-1]], 1.0, atol=1e-5)
    assert (filters.argmax(axis=0)[1:] >= filters.argmax(axis=0)[:-1]).all()
    window = povey_window()
    assert window[0] == window[-1] == 0.0 and window.argmax() in (199, 200)


def test_half_precision_casts_the_finished_features_alone():
    waveform, lengths = tf.constant(recording(8_000)[np.newaxis]), tf.constant([8_000])
    config = preset("w2v_bert_base")
    wide, _ = LogMelFeatures(config=config, dtype="float32")(waveform, lengths)
    half, _ = LogMelFeatures(config=config, dtype="mixed_bfloat16")(waveform, lengths)
    assert half.dtype == tf.bfloat16
    np.testing.assert_array_equal(half, tf.cast(wide, tf.bfloat16))


@pytest.mark.parametrize("front_end", ["log_mel", "convolutions"])
def test_a_model_of_half_precision_hands_its_front_end_whole_samples(monkeypatch, front_end):
    name = "w2v_bert_base" if front_end == "log_mel" else "base"
    model = Wav2Vec2ForCTC(config=small_preset(name), precision="mixed_bfloat16")
    seen, call = [], model.backbone.call
    monkeypatch.setattr(model.backbone, "call", lambda x, *more: seen.append(x.dtype) or call(x, *more))
    logits = model(tf.constant(recording(8_000)[np.newaxis]), tf.constant([8_000]))
    assert seen == [tf.float32] and logits.dtype == tf.float32
