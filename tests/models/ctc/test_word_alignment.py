"""Transcripts that lack words of the recording, or have words that were not said."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from models.ctc import word_alignment
from models.ctc.word_alignment import align_words

BLANK, SPACE = 0, 1
SAID = [0, 2, 0, 3, 0, 1, 0, 4, 5, 0, 1, 6, 0, 7, 0]  # the words 23, 45 and 67


def sure_of(tokens, *, num_tokens=8, noise=0.02):
    probs = np.full([len(tokens), num_tokens], noise)
    probs[np.arange(len(tokens)), tokens] = 1.0 - noise * (num_tokens - 1)
    return np.log(probs)


def places(found):
    return [None if spans is None else (spans[0].start_frame, spans[-1].end_frame) for spans in found.words]


def align(tokens, words, **options):
    return align_words(sure_of(tokens), words, separators=[SPACE], **options)


def test_words_that_were_said_are_found():
    found = align(SAID, [[2, 3], [4, 5], [6, 7]])
    assert places(found) == [(1, 4), (7, 9), (11, 14)] and found.unknown_frames == [0, 0, 0, 0]
    assert [span.token for spans in found.words for span in spans] == [2, 3, 4, 5, 6, 7]
    assert found.words[0][0].prob == pytest.approx(0.86)


def test_a_word_that_was_not_said_is_left_out():
    found = align([0, 2, 0, 3, 0, 1, 0, 6, 0, 7, 0], [[2, 3], [4, 5], [6, 7]])
    assert places(found) == [(1, 4), None, (7, 10)]


def test_speech_that_is_not_in_the_transcript_is_unknown():
    found = align(SAID, [[2, 3], [6, 7]])
    assert places(found) == [(1, 4), (11, 14)] and found.unknown_frames == [0, 2, 0]
    assert align(SAID, []).unknown_frames == [6]


def test_many_words_may_be_left_out_between_two_frames_and_at_both_ends():
    never = [[7, 2]] * 40
    found = align(SAID, [*never, [2, 3], *never, [4, 5], [6, 7], *never])
    assert [place for place in places(found) if place] == [(1, 4), (7, 9), (11, 14)]
    assert places(found)[40] == (1, 4) and places(found)[81:83] == [(7, 9), (11, 14)]


def test_repeated_letters_need_a_blank_between_them():
    found = align([0, 2, 2, 0, 2, 0], [[2, 2]])
    assert [(span.start_frame, span.end_frame) for span in found.words[0]] == [(1, 3), (4, 5)]
    assert places(align([2, 2, 2], [[2, 2]], skip_loss=0.1, unknown_loss=0.1)) == [None]


def test_a_recording_may_begin_and_end_within_a_word():
    assert places(align([2, 3, 0, 1, 4, 5], [[2, 3], [4, 5]])) == [(0, 2), (4, 6)]


def test_the_path_is_the_likeliest_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        log_probs = np.log(rng.dirichlet(np.full(5, 0.5), size=5))
        words = [[2], [3, 2], [4]]
        found = align_words(log_probs, words, separators=[SPACE], unknown_loss=1.0, skip_loss=1.5)
        assert score_of(found, log_probs, words) == pytest.approx(best_of_all(log_probs, words), abs=1e-9)


def score_of(found, log_probs, words, *, unknown_loss=1.0, skip_loss=1.5):
    """Returns the score of what was found: words and their blanks, pauses, and words that are left out."""
    pause = np.maximum(log_probs[:, [BLANK, SPACE]].max(axis=1), log_probs.max(axis=1) - unknown_loss)
    total = -skip_loss * sum(spans is None for spans in found.words)
    inside = np.zeros(len(log_probs), bool)
    for spans in filter(None, found.words):
        inside[spans[0].start_frame : spans[-1].end_frame] = True
        total += sum(log_probs[span.start_frame : span.end_frame, span.token].sum() for span in spans)
        total += sum(log_probs[a.end_frame : b.start_frame, BLANK].sum() for a, b in itertools.pairwise(spans))
    return total + pause[~inside].sum()


def best_of_all(log_probs, words, *, unknown_loss=1.0, skip_loss=1.5):
    """Returns the best score of any choice of words and of any frames for their tokens.

    Where words are left out before a word, there is a frame of pause before it.
    """
    pause = np.maximum(log_probs[:, [BLANK, SPACE]].max(axis=1), log_probs.max(axis=1) - unknown_loss)
    num_frames, best = len(log_probs), -np.inf
    for kept in itertools.product([True, False], repeat=len(words)):
        chosen = [word for word, is_kept in zip(words, kept, strict=True) if is_kept]
        places = [-1, *(place for place, is_kept in enumerate(kept) if is_kept)]
        is_gap = [b - a > 1 for a, b in itertools.pairwise(places)]
        # What each frame is: a pause, or a token of a word or a blank inside one.
        states: list = [("pause", 0)]
        for number, word in enumerate(chosen):
            for position, token in enumerate(word):
                states.append((token, number))
                states.append(("inside", number) if position + 1 < len(word) else ("pause", number + 1))
        for path in itertools.combinations_with_replacement(range(len(states)), num_frames):
            needed = {i for i, state in enumerate(states) if isinstance(state[0], int)}
            needed |= {i for i, (kind, number) in enumerate(states) if kind == "pause" and (is_gap[number:] or [0])[0]}
            if not needed <= set(path):
                continue
            jumps = [(a, b) for a, b in itertools.pairwise(path) if b - a == 2]
            if any(states[a][0] == states[b][0] for a, b in jumps):
                continue
            total = -skip_loss * (len(words) - len(chosen))
            for frame, state in enumerate(path):
                kind = states[state][0]
                score = {"pause": pause[frame], "inside": log_probs[frame, BLANK]}
                total += score[kind] if kind in score else log_probs[frame, kind]
            best = max(best, total)
    return best


def test_a_lattice_that_does_not_fit_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(word_alignment, "MAX_LATTICE", 10)
    with pytest.raises(ValueError, match="2 labels over 15 frames are too many to align at once; split them"):
        align(SAID, [[2, 3]])


def test_without_frames_nothing_was_said():
    assert align([], [[2, 3]]).words == [None]
