"""Scores of transcripts that are known: the same as --mode=align gives, in batches and window by window."""

from __future__ import annotations

import math

import numpy as np
import pytest

from engine.inference.transcriber import Transcriber, TranscriberOptions
from engine.inference.transcript_score import score_transcripts
from models.ctc.alignment import forced_align, greedy_spans
from tests.engine.inference.test_transcriber import SAMPLE_RATE, VOCAB, count_samples, stream_audio
from tests.engine.modes.test_align import Letters, SureOfASecond


def waveform_of(letters):
    return np.repeat(np.array([VOCAB.index(letter) for letter in letters], np.float32), SAMPLE_RATE)


@pytest.mark.parametrize("window_secs", [8, 30])
def test_each_text_is_scored_against_its_own_audio(window_secs):
    transcriber = Transcriber(
        model=SureOfASecond(), span_decoder=greedy_spans, tokenizer=Letters(), count_samples=count_samples,
        stream_audio=stream_audio, normalize_waveform=None,
        options=TranscriberOptions(window_secs=window_secs, overlap_secs=window_secs / 2),
    )  # fmt: skip
    long = "_ab_ cc__d__"  # more than a window of 8 s
    items = [(long, "ab cd"), (long, "ab ed"), ("ab", "ab"), ("a", "abab"), ("", "a")] * 3
    found = list(score_transcripts(transcriber, forced_align, [(waveform_of(said), text) for said, text in items]))
    assert [heard for _, heard in found] == ["ab cd", "ab cd", "ab", "a", ""] * 3
    for (score, _), wanted in zip(found, [0.0, -2 * 3 / 12, 0.0, math.nan, math.nan] * 3, strict=True):
        assert score == pytest.approx(wanted, abs=1e-6, nan_ok=True)
