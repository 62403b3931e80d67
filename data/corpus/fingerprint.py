"""What tells one corpus from another, wherever it lies: its utterances in order, their lengths and transcripts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from data.corpus.sources import Source, segment_starts


def fingerprint(source: Source) -> dict[str, int | str]:
    """Returns counts and digests of a corpus: num_utterances, num_samples, ids, lengths, texts.

    The audio itself is not read: a hundred hours would take minutes. Other audio under the same id and with the same
    number of samples therefore goes unnoticed here; shards carry sums of their own.

    Args:
        source: As the trainer sees it; another order of the same utterances is another corpus, because batches are
            planned by number.
    """
    return {
        "num_utterances": len(source.utterance_ids),
        "num_samples": int(np.sum(source.num_samples)),
        "ids": _digest(source.utterance_ids),
        "lengths": _digest(describe_lengths(source)),
        "texts": _digest(source.texts),
    }


def digest_rows(ids: Iterable[str], lengths: Iterable[object], references: Iterable[str]) -> str:
    """Returns what tells one evaluation set from another: its rows in any order, their lengths and references."""
    rows = sorted(zip(ids, map(str, lengths), references, strict=True))
    return _digest(value for row in rows for value in row)


def describe_lengths(source: Source) -> Iterable[str]:
    """Returns the number of samples of each utterance as text, with its start where it is a part of a recording."""
    lengths = map(str, np.asarray(source.num_samples).tolist())
    starts = segment_starts(source)
    if not starts:
        return lengths
    pairs = zip(source.utterance_ids, lengths, strict=True)
    # Another part of the same recording is another utterance.
    return (f"{starts[name]}+{length}" if name in starts else length for name, length in pairs)


def _digest(values: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for value in values:
        # Each with its length: ["a", "b"] is not ["ab"].
        content = value.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:16]
