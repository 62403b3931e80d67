"""Computes digests that tell corpora apart by their utterances, lengths and transcripts, wherever they lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from data.corpus.sources import Source, segment_starts, spans


def fingerprint(source: Source) -> dict[str, int | str]:
    """Returns counts and digests of a corpus: num_utterances, num_samples, ids, lengths, texts.

    It does not read the audio, which would take minutes for a hundred hours. So it does not notice other audio with the
    same id and number of samples; shards have checksums for that.

    Args:
        source: Training corpus. Another order of the same utterances is another corpus, because batches are planned by
            index.
    """
    return {
        "num_utterances": len(source.utterance_ids),
        "num_samples": int(np.sum(source.num_samples)),
        "ids": _digest(source.utterance_ids),
        "lengths": _digest(describe_lengths(source)),
        "texts": _digest(source.texts),
    }


def digest_rows(ids: Iterable[str], lengths: Iterable[object], references: Iterable[str]) -> str:
    """Returns a digest of an evaluation set: its rows in any order, their lengths and references."""
    rows = sorted(zip(ids, map(str, lengths), references, strict=True))
    return _digest(value for row in rows for value in row)


def describe_lengths(source: Source) -> Iterable[str]:
    """Returns the number of samples of each utterance as text, with the start of a segment and a chosen channel."""
    lengths: Iterable[str] = map(str, np.asarray(source.num_samples).tolist())
    if starts := segment_starts(source):
        pairs = zip(source.utterance_ids, lengths, strict=True)
        lengths = (f"{starts[name]}+{length}" if name in starts else length for name, length in pairs)
    channels = [None if span is None else span.channel for span in spans(source)]
    if all(channel is None for channel in channels):
        return lengths
    chosen = zip(lengths, channels, strict=True)
    return (length if channel is None else f"{length}#{channel}" for length, channel in chosen)


def _digest(values: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for value in values:
        # Each value with its length, so that ["a", "b"] differs from ["ab"].
        content = value.encode("utf-8", "surrogatepass")
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.hexdigest()[:16]
