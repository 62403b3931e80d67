"""Chooses the utterances that the doctor listens to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from data.doctor.text_checks import Corpus
from data.text.normalization import normalize_transcript


def choose_utterances(
    corpora: Mapping[int, Corpus], text_normalization: str, max_hours: float
) -> dict[int, np.ndarray]:
    """Returns the utterances of each set to decode, int64, ascending.

    Args:
        corpora: Sets by number.
        text_normalization: Normalization style of `normalize_transcript`.
        max_hours: Limit of the audio of each set; 0 = all. Beyond it, the sample is the same each time, and utterances
            that share length and text with another, possible duplicates, are added.
    """
    chosen = {number: _sample(corpus, max_hours) for number, corpus in corpora.items()}
    if all(len(chosen[number]) == len(corpus.secs) for number, corpus in corpora.items()):
        return chosen
    more = _find_alike(corpora, text_normalization)
    return {number: np.union1d(found, np.array(more[number], dtype=np.int64)) for number, found in chosen.items()}


def _sample(corpus: Corpus, max_hours: float) -> np.ndarray:
    """Returns all utterances, or a sample of `max_hours` that is the same each time, int64, ascending."""
    order = np.arange(len(corpus.secs))
    if max_hours and corpus.secs.sum() > max_hours * 3600:
        order = np.argsort(np.random.Philox(0).random_raw(len(order)), kind="stable")
        order = order[: max(1, int(np.searchsorted(np.cumsum(corpus.secs[order]), max_hours * 3600)))]
    return np.sort(order)


def _find_alike(corpora: Mapping[int, Corpus], text_normalization: str) -> dict[int, list[int]]:
    """Returns the utterances of each set that share length and text with another: nearly all are duplicates."""
    alike: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for number, corpus in corpora.items():
        for index, text in enumerate(corpus.source.texts):
            key = int(corpus.source.num_samples[index]), normalize_transcript(text, text_normalization)
            alike[key].append((number, index))
    more: dict[int, list[int]] = defaultdict(list)
    for places in alike.values():
        for number, index in places if len(places) > 1 else ():
            more[number].append(index)
    return more
