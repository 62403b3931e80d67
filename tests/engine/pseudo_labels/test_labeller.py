"""Recordings to labels: one view or two, one bad recording among good ones, and long ones."""

from __future__ import annotations

import tracemalloc

import numpy as np

from configs.base import get_config
from engine.inference.transcriber import SAMPLE_RATE, Transcriber, TranscriberOptions
from engine.pseudo_labels import labeller as labellers
from engine.pseudo_labels.labeller import Labeller
from models.ctc.alignment import greedy_spans
from tests.engine.inference.test_transcriber import VOCAB, Letters, OneTokenASecond


class Recording:
    """A second of audio for each letter; at another speed it says something else."""

    speaker_id = "ann"

    def __init__(self, name, letters, *, fast="", reference=""):
        self.name, self.utterance_id, self.reference = f"{name}.wav", name, reference
        self._letters, self._fast = letters, fast or letters

    def _said(self, speed):
        return self._letters if speed == 1.0 else self._fast

    def count_samples(self, speed=1.0):
        if not self._said(speed):
            raise ValueError("empty audio")
        return len(self._said(speed)) * SAMPLE_RATE

    def stream(self, speed=1.0):
        for letter in self._said(speed):
            if letter == "!":
                raise ValueError("damaged")
            yield np.full(SAMPLE_RATE, VOCAB.index(letter), np.float32)

    def manifest_fields(self, output, start_secs, duration_secs, *, is_kept=True):
        whole = self.count_samples() / SAMPLE_RATE
        return {"audio_filepath": self.name, "offset": start_secs, "duration": duration_secs or whole}


class Bad:
    name, reason = "m.jsonl:3", "is not JSON"


def make_labeller(*, has_second=False, **changes):
    options = {**get_config().pseudo_label.to_dict(), "min_chars_per_sec": 0.0, "batch_size": 2, **changes}
    transcriber = Transcriber(
        model=OneTokenASecond(),
        span_decoder=greedy_spans,
        tokenizer=Letters(),
        count_samples=labellers.count_samples,
        stream_audio=lambda view: labellers.stream_audio(view, on_rate_mismatch="resample"),
        normalize_waveform=None,
        options=TranscriberOptions(batch_size=2, window_secs=12, overlap_secs=5),
    )
    second = transcriber if has_second else None
    return Labeller(transcriber=transcriber, second=second, options=options, output="out.jsonl")


def of(row):
    return [(label["utterance_id"], label.get("text"), label["reason"]) for label in row["labels"]]


def test_labels_come_in_the_order_of_the_rows_and_bad_ones_cost_no_other():
    rows = [Recording("a", "ab"), Bad(), Recording("b", "c!"), Recording("c", ""), Recording("d", "abc d")]
    done = make_labeller().label(rows)
    assert [of(row) for row in done] == [
        [("a", "ab", "")],
        [("", None, "unreadable")],
        [("b", None, "unreadable")],
        [("c", None, "unreadable")],
        [("d", "abc d", "")],
    ]
    assert [row["labels"][0].get("detail") for row in done] == [None, "is not JSON", "damaged", "empty audio", None]
    assert [row["name"] for row in done] == ["a.wav", "m.jsonl:3", "b.wav", "c.wav", "d.wav"]
    assert [row["audio_secs"] for row in done] == [2.0, 0.0, 0.0, 0.0, 5.0]


def test_a_second_view_that_hears_something_else_leaves_a_label_out():
    rows = [Recording("a", "abcd", fast="abcd"), Recording("b", "abcd", fast="abdd"), Recording("c", "ab", fast="!")]
    done = make_labeller(has_second=True, second_speed=1.5).label(rows)
    assert [row["labels"][0]["reason"] for row in done] == ["", "views_disagree", "unreadable"]
    assert done[1]["labels"][0]["disagreement"] == 0.25
    # Without the second view all three are labels.
    assert [row["labels"][0]["reason"] for row in make_labeller().label(rows)] == ["", "", ""]


def test_a_long_recording_becomes_several_labels_with_offsets():
    row = Recording("long", "abc_ def_ ab  _ab_cd")
    (done,) = make_labeller(max_duration_secs=10.0).label([row])
    parts = [(label["utterance_id"], label["offset"], label["duration"], label["text"]) for label in done["labels"]]
    assert parts == [("long~1", 0.0, 9.0, "abc def"), ("long~2", 9.0, 4.5, "ab"), ("long~3", 13.5, 6.5, "abcd")]
    assert [label["reason"] for label in done["labels"]] == ["", "", ""]


def test_a_transcript_beside_the_audio_is_compared():
    (row,) = make_labeller().label([Recording("a", "abc", reference="abd")])
    assert (row["labels"][0]["reference_errors"], row["labels"][0]["reference_chars"]) == (1, 3)


def test_rows_are_taken_until_there_is_an_hour_of_audio(monkeypatch):
    labeller = make_labeller()
    rows = [Recording(str(number), "abc") for number in range(70)]
    assert [len(some) for some in labeller.split(iter(rows))] == [32, 32, 6]
    monkeypatch.setattr(labellers, "_SECS_AT_ONCE", 5.0)
    assert [len(some) for some in labeller.split(iter([*rows[:5], Bad(), Recording("x", "")]))] == [2, 2, 3]


def test_many_rows_need_no_more_memory_than_some():
    labeller = make_labeller(batch_size=1)
    labeller.label = lambda rows: [{"name": row.name} for row in rows]  # the transcriber has tests of its own
    peaks = []
    for count in (1_000, 20_000):
        tracemalloc.start()
        for some in labeller.split(Recording(str(number), "a") for number in range(count)):
            labeller.label(some)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]
