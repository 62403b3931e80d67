"""The faults that the benchmark of segmentation puts into a text, and how it counts what is kept."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile

from benchmarks import segmentation
from benchmarks.segmentation import Word, make_words
from data.corpus.manifest import read_jsonl


def test_words_are_changed_and_passages_are_missing():
    texts = [f"one two number{i}" for i in range(100)]
    words = make_words(texts, changed_ratio=0.1, passage=3, seed=0)
    assert [word.text for word in words] == " ".join(texts).split()
    missing = {word.utterance for word in words if not word.written}
    assert missing == {33, 34, 35, 66, 67, 68}
    changed = sum(bool(word.written) and word.written != word.text for word in words)
    assert 15 <= changed <= 45
    assert make_words(texts, changed_ratio=0.0, passage=1, seed=0) == make_words(
        texts, changed_ratio=0.0, passage=1, seed=5
    )


def test_numbers_of_the_config_are_given_by_name(capsys):
    assert segmentation.parse_field("unknown_loss=4") == ("unknown_loss", 4.0)
    for wrong in ("unknown_los=4", "formats=srt", "unknown_loss=x", "unknown_loss"):
        with pytest.raises(SystemExit):
            segmentation.main(["--checkpoint=x", "--corpus=y", "--segment", wrong])
        assert f"{wrong}: wanted NAME=NUMBER, of margin_secs" in capsys.readouterr().err


def test_kept_words_are_found_where_they_were_said():
    words = [Word("a", 0, "a"), Word("b", 0, "x"), Word("a", 1, ""), Word("c", 2, "c")]
    starts, durations = [0.0, 2.0, 4.0], [1.5, 1.5, 1.5]
    found = segmentation._places(words, starts, [("a", 0.1), ("x", 0.5), ("a", 2.3), ("c", 4.2), ("c", 9.0)], durations)
    # What is kept and was not written there, or lies outside of all utterances, is wrong.
    assert found == [0, 1, None, 3, None]


def test_the_true_cuts_are_the_recordings_that_were_joined(tmp_path):
    rng, spoken, paths = np.random.default_rng(0), [], []
    for number, size in enumerate((4_000, 6_000)):
        paths.append(tmp_path / f"{number}.flac")
        soundfile.write(paths[-1], rng.uniform(-0.5, 0.5, size).astype(np.float32), 16_000)
        spoken.append(soundfile.read(paths[-1])[0])
    words = [Word("a", 0, "a"), Word("b", 0, "x"), Word("c", 1, "")]
    segmentation.write_recording(tmp_path / "kept", paths, ["a b", "c"], words, seed=0)
    assert (tmp_path / "kept/long/long.txt").read_text() == "a x\n"
    rows = read_jsonl(tmp_path / "kept/true.jsonl")
    assert [row.text for row in rows] == ["a b", "c"]
    for row, wanted in zip(rows, spoken, strict=True):
        assert row.num_samples == len(wanted)
        heard, _ = soundfile.read(tmp_path / "kept/long/long.flac", start=row.start, frames=len(wanted))
        np.testing.assert_array_equal(heard, wanted)
