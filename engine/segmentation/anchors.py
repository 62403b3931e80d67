"""Finds words of a transcript among those that a model hears, and so where a long recording can be divided."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

# Heard words that are compared at once, and how many times as many words of the transcript, the next where little fits.
# The comparison's memory is their product. Of the end of a piece nothing is sure: it fits whatever comes later, too.
_HEARD_AT_ONCE = 2_000
_TEXT_RATIOS = (1.25, 3.0, 8.0)
_SURE_RATIO = 0.6
_LITTLE_RATIO = 0.1
# A run of equal words that is no coincidence.
_MIN_WORDS = 3
_MIN_LETTERS = 9


class Run(NamedTuple):
    """Consecutive words that were heard as they are written.

    Attributes:
        heard: Position of the first among the heard words.
        text: Position of the first among the words of the transcript.
        length: Number of words.
    """

    heard: int
    text: int
    length: int


class Part(NamedTuple):
    """A part of a recording with its part of the transcript.

    Attributes:
        start_frame: First frame.
        end_frame: First frame after it.
        first_word: Position of its first word in the transcript.
        last_word: Position after its last word.
    """

    start_frame: int
    end_frame: int
    first_word: int
    last_word: int


def find_runs(heard: Sequence[str], text: Sequence[str]) -> list[Run]:
    """Returns the runs of equal words of the cheapest edit from `heard` to `text`, in order.

    Long texts are compared piece by piece, each from where the last run of the piece before it ends.
    """
    runs: list[Run] = []
    first_heard = first_text = 0
    while first_heard < len(heard) and first_text < len(text):
        is_rest = first_heard + _HEARD_AT_ONCE >= len(heard)
        end = len(heard) if is_rest else first_heard + round(_SURE_RATIO * _HEARD_AT_ONCE)
        found: list[Run] = []
        for ratio in _TEXT_RATIOS:
            some_text = text[first_text : first_text + round(ratio * _HEARD_AT_ONCE)]
            found = _compare(heard[first_heard : first_heard + _HEARD_AT_ONCE], some_text, first_heard, first_text)
            found = [run for run in found if run.heard + run.length <= end]
            if sum(run.length for run in found) >= _LITTLE_RATIO * (end - first_heard):
                break
        runs += found
        # Without a run, what was heard here is not in the transcript.
        first_heard = end if is_rest or not found else found[-1].heard + found[-1].length
        first_text = found[-1].text + found[-1].length if found else first_text
    return runs


def _compare(heard: Sequence[str], text: Sequence[str], first_heard: int, first_text: int) -> list[Run]:
    """Returns the runs of a piece, with their positions in the whole."""
    return [
        Run(first_heard + edit.src_start, first_text + edit.dest_start, edit.src_end - edit.src_start)
        for edit in Levenshtein.opcodes(heard, text)
        if edit.tag == "equal" and _is_sure(heard[edit.src_start : edit.src_end])
    ]


def _is_sure(words: Sequence[str]) -> bool:
    return len(words) >= _MIN_WORDS and sum(map(len, words)) >= _MIN_LETTERS


def divide(
    runs: Sequence[Run],
    *,
    pauses: Sequence[tuple[int, int]],
    num_frames: int,
    num_words: int,
    part_frames: int,
) -> Iterator[Part]:
    """Divides a recording within runs, so that both neighbours of a joint are known words.

    Args:
        runs: Runs of `find_runs`.
        pauses: For each heard word, its last frame and the first frame of the word after it.
        num_frames: Frames of the recording.
        num_words: Words of the transcript.
        part_frames: Frames after which a part ends at the next joint.

    Yields:
        The parts, without gaps.
    """
    start_frame = first_word = 0
    for run in runs:
        # Not the outermost words of a run, which may be equal by chance.
        for position in range(1, run.length - 2):
            before, after = pauses[run.heard + position]
            joint = (before + after) // 2
            if joint - start_frame >= part_frames:
                last_word = run.text + position + 1
                yield Part(start_frame, joint, first_word, last_word)
                start_frame, first_word = joint, last_word
    yield Part(start_frame, num_frames, first_word, num_words)
