"""Rows cut out of joined audio have the words that they say, whole."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from benchmarks.by_heart import Aligned, cut_row, find_cuts, join, read_alignments, whole_row, write_rows
from data.audio.decoding import SAMPLE_RATE, load_audio
from data.corpus.manifest import read_jsonl, write_jsonl


def spoken(first_level: int, num_words: int) -> Aligned:
    """Words of 0.2 s with pauses of 0.1 s before, between and after them; each word is a level of its own."""
    pause = np.zeros(1_600, np.float32)
    pieces, words, spans, position = [pause], [], [], 1_600
    for number in range(num_words):
        level = first_level + number
        pieces += [np.full(3_200, level / 100, np.float32), pause]
        words.append(f"W{level}")
        spans.append((position, position + 3_200))
        position += 4_800
    return Aligned(np.concatenate(pieces), tuple(words), np.array(spans))


def words_heard(samples: np.ndarray) -> list[str]:
    """The words whose levels are there for all of their 0.2 s."""
    levels = np.round(100 * samples).astype(int)
    changes = np.flatnonzero(np.diff(levels, prepend=-1, append=-1))
    runs = [(levels[start], end - start) for start, end in zip(changes[:-1], changes[1:], strict=True)]
    assert all(length == 3_200 for level, length in runs if level)
    return [f"W{level}" for level, _ in runs if level]


UTTERANCES = [spoken(1, 3), spoken(11, 7), spoken(31, 12)]


def test_joined_words_are_where_they_are_heard():
    joined = join([UTTERANCES[0], UTTERANCES[1]], [500])
    assert len(joined.samples) == len(UTTERANCES[0].samples) + 500 + len(UTTERANCES[1].samples)
    assert list(joined.words) == words_heard(joined.samples) == [f"W{level}" for level in [1, 2, 3, *range(11, 18)]]
    for word, (start, end) in zip(joined.words, joined.spans, strict=True):
        assert set(np.round(100 * joined.samples[start:end]).astype(int)) == {int(word[1:])}


def test_cuts_lie_late_in_the_pauses_and_never_in_a_word():
    rng = np.random.default_rng(0)
    utterance = UTTERANCES[1]
    found = np.array([find_cuts(utterance, rng) for _ in range(200)])
    assert set(found[:, 0]) == {0}
    assert set(found[:, -1]) == {len(utterance.samples)}
    starts, ends = utterance.spans[1:, 0], utterance.spans[:-1, 1]
    # The pause is 1,600 samples; the last 320 of it belong to the word that follows.
    assert np.all(found[:, 1:-1] >= ends + 640)
    assert np.all(found[:, 1:-1] <= starts - 320)
    assert found[:, 1].min() < ends[0] + 680
    assert found[:, 1].max() > starts[0] - 360


def test_a_cut_between_words_without_pause_is_where_they_meet():
    touching = Aligned(np.zeros(9_600, np.float32), ("A", "B"), np.array([[0, 4_800], [4_800, 9_600]]))
    assert find_cuts(touching, np.random.default_rng(0)).tolist() == [0, 4_800, 9_600]


def test_a_row_says_the_words_of_its_text_and_no_part_of_others():
    rng = np.random.default_rng(0)
    rows = [cut_row(UTTERANCES, rng, (1.0, 30.0)) for _ in range(300)]
    for samples, text in rows:
        assert text.split() == words_heard(samples)
        assert text
        assert len(samples) <= 30 * SAMPLE_RATE
    firsts = {text.split()[0] for _, text in rows}
    # They begin at any word of any utterance, and end at any.
    assert firsts == {text.split()[-1] for _, text in rows} == {word for u in UTTERANCES for word in u.words}
    secs = [len(samples) / SAMPLE_RATE for samples, _ in rows]
    assert min(secs) < 2
    assert max(secs) > 28


def test_a_word_longer_than_the_row_wanted_comes_whole():
    slow = Aligned(np.full(40 * SAMPLE_RATE, 0.01, np.float32), ("SLOW",), np.array([[0, 40 * SAMPLE_RATE]]))
    samples, text = cut_row([slow], np.random.default_rng(0), (1.0, 6.0))
    assert text == "SLOW"
    # All of it (no pause lies before it), and of the gap after it at most what a gap is long.
    assert 40 * SAMPLE_RATE <= len(samples) <= 40.6 * SAMPLE_RATE


def test_no_row_begins_in_the_same_way_on_the_frames():
    """By the very samples of its frames a model knew an utterance, and left out the space before it."""
    rng = np.random.default_rng(0)
    rows = [whole_row(UTTERANCES[1], rng) for _ in range(8_000)]
    assert {text for _, text in rows} == {" ".join(UTTERANCES[1].words)}
    lost = [len(UTTERANCES[1].samples) - len(samples) for samples, _ in rows]
    assert (min(lost), max(lost), len(set(lost))) == (0, 319, 320)
    assert all(words_heard(samples) == text.split() for samples, text in rows[:50])
    # Where the word comes sooner than a frame, it is not touched.
    early = Aligned(UTTERANCES[1].samples[1_500:], UTTERANCES[1].words, UTTERANCES[1].spans - 1_500)
    assert max(len(early.samples) - len(whole_row(early, rng)[0]) for _ in range(500)) == 100


def test_rows_are_written_as_a_manifest_that_training_reads(tmp_path):
    alone = tmp_path / "alone.wav"
    soundfile.write(alone, UTTERANCES[2].samples, SAMPLE_RATE)
    words = [
        {"text": word, "start": start / SAMPLE_RATE, "end": end / SAMPLE_RATE}
        for word, (start, end) in zip(UTTERANCES[2].words, UTTERANCES[2].spans.tolist(), strict=True)
    ]
    alignments = tmp_path / "alignments.jsonl"
    alignments.write_text(json.dumps({"audio_filepath": str(alone), "words": words}) + "\n")
    utterances = read_alignments(alignments)
    np.testing.assert_array_equal(utterances[0].spans, UTTERANCES[2].spans)
    rng = np.random.default_rng(4)
    rows = write_rows(tmp_path / "rows", (cut_row(utterances, rng, (1.0, 6.0)) for _ in range(3)))
    write_jsonl(tmp_path / "rows.jsonl", rows)
    found = read_jsonl(tmp_path / "rows.jsonl")
    assert [(row.utterance_id, row.text) for row in found] == [(f"rows-0000{i}", rows[i].text) for i in range(3)]
    for row in found:
        samples = load_audio(row.audio_filepath)
        assert len(samples) == row.num_samples
        assert words_heard(samples) == row.text.split()


@pytest.mark.parametrize("gaps", [[], [1, 2]])
def test_each_utterance_but_the_first_has_a_gap(gaps):
    with pytest.raises(ValueError, match="zip"):
        join(UTTERANCES[:2], gaps)
