"""Segments of one recording that overlap, within a set and between training and evaluation."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from data.corpus.sources import Span
from data.doctor.segment_checks import check_overlaps, check_seeking, check_shared_segments
from data.doctor.text_checks import Corpus
from data.text.tokenizer import FACEBOOK_TOKENS, CharTokenizer

RATE = 8_000


def make_corpus(name: str, *rows: tuple) -> Corpus:
    """A corpus of (id, file, start, end, text, channel) in seconds; start None for a whole file of `end` seconds."""
    rows = [(*row, *("A TEXT", None)[len(row) - 4 :]) for row in rows]
    source = SimpleNamespace(
        utterance_ids=[row[0] for row in rows],
        texts=[row[4] for row in rows],
        speaker_ids=[""] * len(rows),
        num_samples=np.array([round(16_000 * (end - (start or 0))) for _, _, start, end, *_ in rows]),
        sample_rates=np.full(len(rows), RATE),
        spans=[
            Span(f"/{path}.wav", channel, None if start is None else round(RATE * start),
                 round(RATE * (end - (start or 0))), RATE)
            for _, path, start, end, _, channel in rows
        ],
    )  # fmt: skip
    tokenizer = CharTokenizer(tokens=FACEBOOK_TOKENS)
    return Corpus.measure(name, source, tokenizer=tokenizer, text_normalization="librispeech")


def told(findings) -> dict[str, dict[str, str]]:
    return {item.code: dict(item.details) for item in findings}


def test_segments_that_follow_each_other_are_fine():
    corpus = make_corpus(
        "train", ("a", "x", 0.0, 2.0), ("b", "x", 1.96, 4.0), ("c", "y", 0.0, 4.0), ("d", "z", None, 4.0)
    )
    assert check_overlaps(corpus) == []


def test_overlaps_are_named_with_their_length_and_the_other_segment():
    corpus = make_corpus(
        "train", ("late", "x", 3.0, 5.0), ("long", "x", 0.0, 3.5), ("inner", "x", 1.0, 2.0), ("whole", "y", None, 9.0),
        ("part", "y", 8.0, 9.0),
    )  # fmt: skip
    assert told(check_overlaps(corpus)) == {
        "overlapping_segments": {
            "inner": "1.00 s of it are in long",
            "late": "0.50 s of it are in long",
            "part": "1.00 s of it are in whole",
        }
    }


def test_the_same_segment_twice_repeats_or_contradicts():
    corpus = make_corpus(
        "train", ("a", "x", 1.0, 2.0, "ONE"), ("b", "x", 1.0, 2.0, " ONE "), ("c", "x", 1.0, 2.0, "TWO")
    )
    assert told(check_overlaps(corpus)) == {
        "duplicate_audio": {"b": "the audio of a"},
        "contradicting_transcripts": {"c": "the audio of a"},
    }


def test_people_in_two_channels_may_speak_at_the_same_time():
    rows = [("a", "x", 0.0, 2.0, "ONE", 0), ("b", "x", 1.0, 3.0, "TWO", 1)]
    assert check_overlaps(make_corpus("train", *rows)) == []
    mixed = make_corpus("train", *rows, ("c", "x", 2.5, 4.0, "THREE", None))
    assert told(check_overlaps(mixed)) == {"overlapping_segments": {"c": "0.50 s of it are in b"}}


def test_a_set_without_files_has_no_overlaps():
    corpus = make_corpus("train", ("a", "x", 0.0, 2.0), ("b", "x", 0.0, 2.0))
    del corpus.source.spans
    assert check_overlaps(corpus) == [] == check_shared_segments(corpus, corpus, ())


def test_evaluation_segments_that_training_has_in_part_are_leaks():
    train = make_corpus("train", ("t0", "x", 0.0, 10.0), ("t1", "x", 1.0, 2.0), ("t2", "x", 12.0, 14.0))
    evaluation = make_corpus(
        "eval dev", ("e0", "x", 9.0, 11.0), ("e1", "x", 10.0, 12.0), ("e2", "x", 13.5, 20.0), ("e3", "y", 0.0, 9.0),
        ("e4", "x", 0.5, 1.0), ("known", "x", 3.0, 4.0),
    )  # fmt: skip
    (finding,) = check_shared_segments(train, evaluation, {"known"})
    assert (finding.code, finding.where) == ("segment_leak", "eval dev")
    assert finding.details == {
        "e0": "1.00 s of it are in t0",
        "e2": "0.50 s of it are in t2",
        "e4": "0.50 s of it are in t0",
    }


def test_an_mp3_of_several_segments_is_slow():
    corpus = make_corpus(
        "train", ("a", "x", 0.0, 1.0), ("b", "x", 1.0, 2.0), ("c", "y", 0.0, 1.0), ("d", "z", None, 9.0),
        ("e", "z", None, 9.0), ("f", "w", 0.0, 1.0), ("g", "w", 1.0, 2.0),
    )  # fmt: skip
    mp3 = {span: span._replace(path=span.path.replace(".wav", ".MP3")) for span in corpus.source.spans}
    corpus.source.spans = [span if "w.wav" in span.path else mp3[span] for span in corpus.source.spans]
    assert told(check_seeking(corpus)) == {"slow_segments": {"/x.MP3": "2 segments"}}
