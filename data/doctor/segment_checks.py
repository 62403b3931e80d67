"""Checks the places of utterances in their recordings, without decoding audio."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from itertools import accumulate
from typing import NamedTuple

from data.corpus.sources import Source, spans
from data.corpus.utterance import COMPRESSED_SUFFIXES, suffix
from data.doctor.findings import AUDIO_OF, Finding, find
from data.doctor.text_checks import Corpus

# Ends that are rounded, or padded by a frame or two, are no overlap.
_SLACK_SECS = 0.05


class _Place(NamedTuple):
    """The place of an utterance in its recording, in seconds."""

    begin: float
    end: float
    number: int


def check_overlaps(corpus: Corpus) -> list[Finding]:
    """Returns the utterances that are the same part of a recording as another one, or overlap with it."""
    ids, texts = corpus.source.utterance_ids, corpus.source.texts
    repeated: dict[str, str] = {}
    contradicting: dict[str, str] = {}
    overlapping: dict[str, str] = {}
    for places in _recordings(corpus.source).values():
        for place, longest in zip(places[1:], _longest_so_far(places), strict=False):
            first, name = ids[longest.number], ids[place.number]
            if place[:2] == longest[:2]:
                is_same = texts[place.number].split() == texts[longest.number].split()
                (repeated if is_same else contradicting)[name] = f"{AUDIO_OF}{first}"
            elif (secs := min(place.end, longest.end) - place.begin) > _SLACK_SECS:
                overlapping[name] = f"{secs:.2f} s of it are in {first}"
    return [
        *find("duplicate_audio", corpus.name, repeated),
        *find("contradicting_transcripts", corpus.name, contradicting),
        *find("overlapping_segments", corpus.name, overlapping),
    ]


def check_seeking(corpus: Corpus) -> list[Finding]:
    """Returns the files that cannot be entered in the middle and of which there are several segments."""
    counts = Counter(
        span.path
        for span in spans(corpus.source)
        if span and span.start is not None and suffix(span.path) in COMPRESSED_SUFFIXES
    )
    slow = {path: f"{count} segments" for path, count in counts.items() if count > 1}
    return find("slow_segments", corpus.name, slow)


def check_shared_segments(train: Corpus, evaluation: Corpus, leaked_ids: Collection[str]) -> list[Finding]:
    """Returns the evaluation utterances that overlap with a part of a recording that training has, too.

    Args:
        train: Training corpus.
        evaluation: Evaluation set.
        leaked_ids: Utterances of the evaluation set that another check has found in training.
    """
    ids, train_ids = evaluation.source.utterance_ids, train.source.utterance_ids
    trained = _recordings(train.source)
    shared: dict[str, str] = {}
    for key, places in _recordings(evaluation.source).items():
        others = trained.get(key, [])
        begins, longest = [other.begin for other in others], list(_longest_so_far(others))
        for place in places:
            before = bisect_left(begins, place.end)
            other = longest[before - 1] if before else None
            secs = min(place.end, other.end) - max(place.begin, other.begin) if other else 0.0
            if other and secs > _SLACK_SECS and ids[place.number] not in leaked_ids:
                shared[ids[place.number]] = f"{secs:.2f} s of it are in {train_ids[other.number]}"
    return find("segment_leak", evaluation.name, shared)


def _recordings(source: Source) -> dict[tuple[str, int | None], list[_Place]]:
    """Returns (file, channel) -> the places of its utterances, by their begin and then their end.

    An utterance that hears the mix of all channels counts for each channel that another one hears alone.
    """
    found: dict[str, dict[int | None, list[_Place]]] = defaultdict(lambda: defaultdict(list))
    for index, span in enumerate(spans(source)):
        if span is not None:
            begin = (span.start or 0) / span.sample_rate
            place = _Place(begin, begin + span.num_samples / span.sample_rate, index)
            found[span.path][span.channel].append(place)
    return {
        (path, channel): sorted([*places, *(channels.get(None, []) if channel is not None else [])])
        for path, channels in found.items()
        for channel, places in channels.items()
    }


def _longest_so_far(places: list[_Place]) -> Iterator[_Place]:
    """Yields, for each place, the one that ends last among it and those before it."""
    return accumulate(places, lambda longest, place: place if place.end > longest.end else longest)
