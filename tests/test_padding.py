"""Sixteen real utterances through full-size networks: alone, in one padded batch, padded to 246,000 samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from data.audio.decoding import load_waveform
from data.corpus.manifest import read_librispeech
from data.text.tokenizer import load_tokenizer
from models.ctc.greedy import greedy_decode
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC

LIBRISPEECH = Path(__file__).resolve().parents[2] / "shared/corpora/LibriSpeech"
PUBLISHED_NUM_SAMPLES = 246_000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not LIBRISPEECH.is_dir(), reason="../shared/corpora/LibriSpeech is not here"),
]


@pytest.fixture(scope="module")
def waveforms() -> list[np.ndarray]:
    """Sixteen lengths between the shortest and half of 246,000 samples, a speaker at most twice."""
    by_length = sorted(read_librispeech(LIBRISPEECH, "train-clean-5"), key=lambda utterance: utterance.num_samples)
    by_length = [utterance for utterance in by_length if utterance.num_samples <= PUBLISHED_NUM_SAMPLES // 2]
    chosen = [by_length[i] for i in np.linspace(0, len(by_length) - 1, 16).astype(int)]
    return [load_waveform(utterance.audio_filepath) for utterance in chosen]


def transcribe(model, waveforms, width, rows_at_once):
    """Logits of each row's valid frames, and its text; the rows padded with zeros to `width` samples."""
    tokenizer = load_tokenizer()
    logits, texts = [], []
    for start in range(0, len(waveforms), rows_at_once):
        rows = waveforms[start : start + rows_at_once]
        size = width or max(map(len, rows))
        lengths = tf.constant([len(row) for row in rows])
        found = model(np.stack([np.pad(row, [0, size - len(row)]) for row in rows]), lengths)
        frames = model.output_lengths(lengths)
        tokens, counts = greedy_decode(found, frames)
        logits += [row[:count].numpy() for row, count in zip(found, frames.numpy(), strict=True)]
        texts += [
            tokenizer.decode(row[:count].numpy().tolist()) for row, count in zip(tokens, counts.numpy(), strict=True)
        ]
    return logits, texts


@pytest.mark.parametrize("name", ["base", "large_lv60"])
def test_the_text_does_not_depend_on_the_padding(name, waveforms):
    tf_keras.utils.set_random_seed(0)
    # A wider head than the published 0.02: its random logits are then as far apart as a trained model's.
    model = Wav2Vec2ForCTC(config=preset(name))
    model.head.kernel.assign(model.head.kernel * 5.0)
    logits, texts = transcribe(model, waveforms, 0, 1)
    assert len({len(waveform) for waveform in waveforms}) == 16
    assert len(set(texts)) == 16
    differences = {}
    for way, width, rows_at_once in (("batch", 0, 16), ("246,000", PUBLISHED_NUM_SAMPLES, 4)):
        found, found_texts = transcribe(model, waveforms, width, rows_at_once)
        differences[way] = max(np.abs(a - b).max() for a, b in zip(found, logits, strict=True))
        assert found_texts == texts, way
    print(name, differences, f"logits up to {max(np.abs(row).max() for row in logits):.1f}", repr(texts[3][:60]))
    assert max(differences.values()) <= 1e-4
