"""Words that were heard as they are written, and where a recording is divided."""

from __future__ import annotations

import random

from engine.segmentation import anchors
from engine.segmentation.anchors import Part, Run, divide, find_runs


def test_only_runs_that_are_no_coincidence_count():
    heard = ["one", "two", "three", "four", "five", "hm", "six", "seven", "eight", "nine", "ten"]
    text = ["one", "two", "three", "four", "five", "zero", "zero", "six", "seven", "eight", "nine", "ten"]
    assert find_runs(heard, text) == [Run(0, 0, 5), Run(6, 7, 5)]
    assert find_runs(["a", "b", "c", "d"], ["a", "b", "c", "d"]) == []  # four letters
    assert find_runs([], text) == find_runs(heard, []) == []


def test_long_texts_are_compared_piece_by_piece(monkeypatch):
    monkeypatch.setattr(anchors, "_HEARD_AT_ONCE", 40)
    rng = random.Random(0)
    words = [f"word{rng.randrange(50)}" for _ in range(600)]
    text = words[:250] + ["never", "said"] * 20 + words[250:400] + words[480:]
    heard = [word if rng.random() < 0.9 else "hm" for word in words]
    runs = find_runs(heard, text)
    assert sum(run.length for run in runs) > 300
    assert all(heard[run.heard : run.heard + run.length] == text[run.text : run.text + run.length] for run in runs)
    assert all(
        a.heard + a.length <= b.heard and a.text + a.length <= b.text for a, b in zip(runs, runs[1:], strict=False)
    )
    assert runs[-1].text > len(text) - 60


def test_a_recording_is_divided_within_runs_alone():
    # Ten words of ten frames, five of them pause; a run of six.
    pauses = [(10 * i + 5, 10 * i + 10) for i in range(10)]
    parts = list(divide([Run(2, 3, 6)], pauses=pauses, num_frames=100, num_words=12, part_frames=10))
    # Not after the first word of the run (frame 27), nor before its last (67).
    assert parts == [Part(0, 37, 0, 5), Part(37, 47, 5, 6), Part(47, 57, 6, 7), Part(57, 100, 7, 12)]
    assert list(divide([], pauses=[], num_frames=100, num_words=7, part_frames=30)) == [Part(0, 100, 0, 7)]
