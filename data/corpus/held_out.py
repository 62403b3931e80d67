"""Splits a corpus into training data and speakers held out for evaluation."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from absl import logging

from data.common.errors import InputError

_MOST_OF_TARGET = 1.5  # a speaker who exceeds the target by this factor is held out only if there is no other choice


def split_held_out(
    *, speaker_ids: Sequence[str], utterance_ids: Sequence[str], ratio: float, where: str, warn: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Chooses speakers to hold out by a hash of their names, so that the order of the utterances does not matter.

    Speakers are taken in the order of the hash until their utterances reach the ratio; a speaker who would exceed it by
    far is skipped. At least one speaker is held out and at least one stays. Utterances without a speaker stay. If the
    speakers cannot be split like this, single utterances are held out.

    Args:
        speaker_ids: [N] speakers; "" if unknown.
        utterance_ids: [N] ids.
        ratio: Approximate ratio of the utterances to hold out.
        where: Name of the corpus in messages.
        warn: Whether to warn if a speaker may be in both parts.

    Returns:
        The indices that stay and those that are held out, int64, increasing.

    Raises:
        InputError: If the ratio is not in (0, 0.5], or there are fewer than two utterances.
    """
    if not 0 < ratio <= 0.5:
        raise InputError(f"held_out_ratio is {ratio:g}, wanted more than 0 and at most 0.5")
    total = len(utterance_ids)
    if total < 2:
        raise InputError(f"{where} has {total} utterances, too few to hold any out: give a separate evaluation set")
    counts = Counter(filter(None, speaker_ids))
    chosen = _choose(counts, ratio * total)
    num_held_out = sum(counts[name] for name in chosen)
    # Otherwise the smallest speaker has more than half of the corpus.
    if chosen and 2 * num_held_out <= total:
        is_held_out = np.array([name in chosen for name in speaker_ids], dtype=bool)
    else:
        if warn:
            _warn_of_shared_speakers(where, ratio, is_named=any(speaker_ids))
        names = _choose(Counter(utterance_ids), ratio * total)
        is_held_out = np.array([name in names for name in utterance_ids], dtype=bool)
    return np.flatnonzero(~is_held_out), np.flatnonzero(is_held_out)


def _warn_of_shared_speakers(where: str, ratio: float, *, is_named: bool) -> None:
    logging.warning(
        "%s %s: %g %% of its utterances are held out, so speakers may be in both training and evaluation, and "
        "the error rate is too optimistic; add a column speaker_id, or give a separate evaluation set",
        where,
        "has too few speakers to hold one out" if is_named else "does not name its speakers",
        100 * ratio,
    )


def _choose(counts: dict[str, int], target: float) -> set[str]:
    """Returns names with about `target` utterances in total, or the one with the fewest if all have too many."""
    chosen: set[str] = set()
    total = 0
    order = sorted(counts, key=_digest)
    for name in order:
        if total < target and total + counts[name] <= _MOST_OF_TARGET * target:
            chosen.add(name)
            total += counts[name]
    if not chosen and order:
        chosen.add(min(order, key=counts.__getitem__))
    return chosen


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).digest()
