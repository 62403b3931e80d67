"""Cuts the aligned words of a recording into utterances, and says why the rest is left out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from engine.inference.words import Timed, mean_confidence, text_confidence

NOT_SAID = "not in the recording"
UNSURE = "unsure"
TOO_SHORT = "too short"
TOO_LONG = "too long"
UNKNOWN = "not in the transcript"
# Frames of unknown speech in a pause up to which it is a breath or a click.
_NUM_UNKNOWN_FRAMES = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class CutOptions:
    """Options of cutting: the fields of config.segment.

    Attributes:
        min_secs: Shortest utterance, in seconds.
        max_secs: Longest utterance, in seconds.
        pause_secs: Pause that always ends an utterance, in seconds.
        margin_secs: Most of a pause that an utterance keeps at each end, in seconds.
        min_confidence: Least confidence of an utterance, in [0, 1].
        min_word_confidence: Confidence below which a word counts as not said, in [0, 1].
    """

    min_secs: float
    max_secs: float
    pause_secs: float
    margin_secs: float
    min_confidence: float
    min_word_confidence: float


@dataclasses.dataclass(frozen=True)
class Cut:
    """An utterance, or a stretch that is left out.

    Attributes:
        start_secs: Start in the recording, in seconds.
        end_secs: End in the recording, in seconds.
        words: Its words.
        reason: Why it is left out; "" for an utterance.
    """

    start_secs: float
    end_secs: float
    words: tuple[Timed, ...]
    reason: str = ""

    @property
    def confidence(self) -> float:
        """Geometric mean of the confidences of all characters."""
        return text_confidence(self.words)


@dataclasses.dataclass(frozen=True)
class _Said:
    """A word of the transcript that was said.

    Attributes:
        word: The word.
        is_unknown: Whether something that is not in the transcript was said right before it.
        is_broken: Whether words of the transcript that were not said stand right before it.
    """

    word: Timed
    is_unknown: bool
    is_broken: bool


@dataclasses.dataclass
class _Group:
    """Words without a long pause, and the times between which nothing else is said."""

    words: list[Timed]
    after_secs: float
    before_secs: float


def cut(
    words: Sequence[tuple[str, Timed | None]],
    unknown_frames: Sequence[int],
    *,
    duration_secs: float,
    options: CutOptions,
) -> list[Cut]:
    """Returns the utterances and what is left out, in order of time.

    Args:
        words: Each word of the transcript with its time; None if it was not said.
        unknown_frames: Frames of unknown speech before each word, and after the last.
        duration_secs: Duration of the recording, in seconds.
        options: How to cut.
    """
    left_out: list[Cut] = []
    said: list[_Said] = []
    end_secs, num_unknown, is_broken = 0.0, 0, False
    for (text, word), before in zip(words, unknown_frames, strict=False):
        num_unknown = max(num_unknown, before)
        if word is None:
            left_out.append(Cut(end_secs, end_secs, (Timed(text, end_secs, end_secs, 0.0),), NOT_SAID))
            is_broken = True
            continue
        said.append(_Said(word, num_unknown > _NUM_UNKNOWN_FRAMES, is_broken))
        end_secs, num_unknown, is_broken = word.end_secs, 0, False
    is_unknown = max(num_unknown, *unknown_frames[-1:], 0) > _NUM_UNKNOWN_FRAMES

    ends = [0.0, *(one.word.end_secs for one in said)]
    starts = [*(one.word.start_secs for one in said), duration_secs]
    is_between = [*(one.is_unknown for one in said), is_unknown]
    pauses = zip(ends, starts, is_between, strict=True)
    left_out += [Cut(end, start, (), UNKNOWN) for end, start, is_any in pauses if is_any]
    is_sure = [mean_confidence(one.word.characters) >= options.min_word_confidence for one in said]
    left_out += [
        Cut(one.word.start_secs, one.word.end_secs, (one.word,), UNSURE)
        for one, is_kept in zip(said, is_sure, strict=True)
        if not is_kept
    ]
    groups = _group(said, is_sure, ends, starts, is_between, options)
    made = [one for group in groups for one in _finish(group, options)]
    return sorted([*made, *left_out], key=lambda one: one.start_secs)


def _group(
    said: Sequence[_Said],
    is_sure: Sequence[bool],
    ends: Sequence[float],
    starts: Sequence[float],
    is_between: Sequence[bool],
    options: CutOptions,
) -> list[_Group]:
    """Groups the words that are sure.

    Args:
        said: The words that were said.
        is_sure: Whether each counts.
        ends: End of what was said before each word, and before the end of the recording.
        starts: Start of each word, and the end of the recording.
        is_between: Whether unknown speech lies before each word, and before the end of the recording.
        options: How to cut.
    """
    groups: list[_Group] = []
    for i, one in enumerate(said):
        if not is_sure[i]:
            continue
        # A pause is shared with the neighbor; where unknown speech lies in it, nobody knows how much of it is free.
        after = starts[i] if is_between[i] else (ends[i] + starts[i]) / 2 if groups else ends[i]
        is_last = i + 1 == len(said)
        before = starts[i + 1] if is_last else (ends[i + 1] + starts[i + 1]) / 2
        before = ends[i + 1] if is_between[i + 1] else before
        is_pause = starts[i] - ends[i] >= options.pause_secs
        if not groups or one.is_broken or one.is_unknown or is_pause or not is_sure[i - 1]:
            groups.append(_Group([one.word], after, before))
        else:
            groups[-1].words.append(one.word)
            groups[-1].before_secs = before
    return groups


def _finish(group: _Group, options: CutOptions) -> list[Cut]:
    """Returns the utterances of a group; one that is too long is divided at its pauses."""
    words = group.words
    start = max(group.after_secs, words[0].start_secs - options.margin_secs)
    end = min(group.before_secs, words[-1].end_secs + options.margin_secs)
    if end - start > options.max_secs and len(words) > 1:
        pauses = [right.start_secs - left.end_secs for left, right in zip(words, words[1:], strict=False)]
        # The longest pause, and of equals the one nearest to the middle.
        place = max(range(len(pauses)), key=lambda i: (round(pauses[i], 2), -abs(2 * (i + 1) - len(words)))) + 1
        middle = (words[place - 1].end_secs + words[place].start_secs) / 2
        return [
            *_finish(_Group(words[:place], group.after_secs, middle), options),
            *_finish(_Group(words[place:], middle, group.before_secs), options),
        ]
    made = Cut(start, end, tuple(words))
    reason = ""
    if end - start > options.max_secs:
        reason = TOO_LONG
    elif end - start < options.min_secs:
        reason = TOO_SHORT
    elif made.confidence < options.min_confidence:
        reason = UNSURE
    return [dataclasses.replace(made, reason=reason)]
