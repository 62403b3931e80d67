"""Finds letters of a transcript among those that a model hears, and so where a long recording can be divided."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from engine.inference.words import Timed

# Equal letters that are no coincidence, and those of them between a joint and either end of a run.
_MIN_LETTERS = 12
_EDGE_LETTERS = 4
# Letters that occur more often together in the transcript say little about where they belong.
_MAX_OCCURRENCES = 20


class Run(NamedTuple):
    """Consecutive letters that were heard as they are written.

    Attributes:
        heard: Position of the first among the heard letters.
        text: Position of the first among the letters of the transcript.
        length: Number of letters.
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


def split_letters(words: Sequence[Timed]) -> list[Timed]:
    """Returns the letters of words with their times; those of a token share its time evenly."""
    letters = []
    for token in itertools.chain.from_iterable(word.characters for word in words):
        step = (token.end_secs - token.start_secs) / len(token.text)
        for position, letter in enumerate(token.text):
            start_secs = token.start_secs + position * step
            letters.append(Timed(letter, start_secs, start_secs + step, token.confidence))
    return letters


def find_runs(heard: str, text: str) -> list[Run]:
    """Returns the runs of equal letters that are no coincidence, in the order of both.

    Letters, not words, so that a model serves too that gets a letter of most words wrong. Of all places where so many
    letters are equal, the longest chain counts that goes forward in both: Hunt and Szymanski 1977
    (https://doi.org/10.1145/359581.359603), of strings of letters in place of single ones.

    Args:
        heard: Letters that were heard, without spaces.
        text: Letters of the transcript, without spaces.
    """
    places: dict[str, list[int]] = {}
    for place in range(len(text) - _MIN_LETTERS + 1):
        places.setdefault(text[place : place + _MIN_LETTERS], []).append(place)
    pairs: list[tuple[int, int]] = []
    for position in range(len(heard) - _MIN_LETTERS + 1):
        found = places.get(heard[position : position + _MIN_LETTERS], ())
        if len(found) <= _MAX_OCCURRENCES:
            # Of the places of one position a chain has one: in falling order no two of them follow each other.
            pairs += [(position, place) for place in reversed(found)]
    runs: list[Run] = []
    for position, place in _longest_chain(pairs):
        last = runs[-1] if runs else Run(0, 0, 0)
        ahead_heard, ahead_text = position - last.heard, place - last.text
        if ahead_heard == ahead_text < last.length:  # the pair overlaps the last run, and lengthens it
            runs[-1] = last._replace(length=ahead_heard + _MIN_LETTERS)
        elif min(ahead_heard, ahead_text) >= last.length:
            runs.append(Run(position, place, _MIN_LETTERS))
    return runs


def _longest_chain(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Returns the longest chain of pairs whose second numbers rise, by patience sorting."""
    last_places: list[int] = []  # of the chain of each length, the lowest last number
    last_pairs: list[int] = []  # and the index of its pair
    before: list[int] = []  # for each pair, the index of the one before it in its chain
    for index, (_, place) in enumerate(pairs):
        length = bisect.bisect_left(last_places, place)
        before.append(last_pairs[length - 1] if length else -1)
        last_places[length : length + 1] = [place]
        last_pairs[length : length + 1] = [index]
    chain = []
    index = last_pairs[-1] if last_pairs else -1
    while index >= 0:
        chain.append(pairs[index])
        index = before[index]
    return chain[::-1]


def divide(
    heard: Sequence[Timed], words: Sequence[str], *, num_frames: int, part_frames: int, secs_per_frame: float
) -> Iterator[Part]:
    """Divides a recording between two words that are known, so that both neighbours of a joint belong there.

    Args:
        heard: Letters that were heard, with their times.
        words: Words of the transcript.
        num_frames: Frames of the recording.
        part_frames: Frames after which a part ends at the next joint.
        secs_per_frame: Hop between frames, in seconds.

    Yields:
        The parts, without gaps.
    """
    spelled = [word.strip() for word in words]
    starts = list(itertools.accumulate(map(len, spelled), initial=0))
    start_frame = first_word = 0
    for run in find_runs("".join(letter.text for letter in heard), "".join(spelled)):
        # The outermost letters of a run may be equal by chance.
        first = bisect.bisect_left(starts, run.text + _EDGE_LETTERS)
        last = bisect.bisect_right(starts, run.text + run.length - _EDGE_LETTERS)
        for word in range(first, last):
            position = run.heard + starts[word] - run.text
            joint = round((heard[position - 1].end_secs + heard[position].start_secs) / (2 * secs_per_frame))
            if joint - start_frame >= part_frames:
                yield Part(start_frame, joint, first_word, word)
                start_frame, first_word = joint, word
    yield Part(start_frame, num_frames, first_word, len(words))
