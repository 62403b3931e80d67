"""Cuts the aligned words of a recording into utterances, and says why the rest is left out."""

from __future__ import annotations

import dataclasses
import math
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
    """How utterances are cut; the fields of config.segment.

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
    def text(self) -> str:
        """The words, joined by spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def confidence(self) -> float:
        """Geometric mean of the confidences of all characters."""
        return text_confidence(self.words)


@dataclasses.dataclass
class _Group:
    """Words without a long pause, and the times between which nothing else is said."""

    words: list[Timed]
    after_secs: float
    before_secs: float = math.inf


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
    groups: list[_Group] = []
    end_secs = 0.0  # of what was said last
    is_broken = True
    num_unknown = 0
    for (text, word), before in zip(words, unknown_frames, strict=False):
        num_unknown = max(num_unknown, before)
        if word is None:
            left_out.append(Cut(end_secs, end_secs, (Timed(text, end_secs, end_secs, 0.0),), NOT_SAID))
            is_broken = True
            continue
        is_unknown, num_unknown = num_unknown > _NUM_UNKNOWN_FRAMES, 0
        if is_unknown:
            left_out.append(Cut(end_secs, word.start_secs, (), UNKNOWN))
        if groups and math.isinf(groups[-1].before_secs) and (is_unknown or is_broken or end_secs < word.start_secs):
            groups[-1].before_secs = end_secs if is_unknown else (end_secs + word.start_secs) / 2
        if mean_confidence(word.characters) < options.min_word_confidence:
            left_out.append(Cut(word.start_secs, word.end_secs, (word,), UNSURE))
            is_broken = True
        elif is_broken or is_unknown or word.start_secs - end_secs >= options.pause_secs:
            after = word.start_secs if is_unknown else (end_secs + word.start_secs) / 2 if groups else end_secs
            groups.append(_Group([word], after))
            is_broken = False
        else:
            groups[-1].words.append(word)
            groups[-1].before_secs = math.inf
        end_secs = word.end_secs
    is_unknown = max(num_unknown, *unknown_frames[-1:]) > _NUM_UNKNOWN_FRAMES if unknown_frames else False
    if is_unknown:
        left_out.append(Cut(end_secs, duration_secs, (), UNKNOWN))
    if groups and math.isinf(groups[-1].before_secs):
        groups[-1].before_secs = end_secs if is_unknown else duration_secs
    made = [one for group in groups for one in _finish(group, options)]
    return sorted([*made, *left_out], key=lambda one: one.start_secs)


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
