"""Makes the batches of waveforms and labels that both sides of a benchmark run."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

SAMPLE_RATE = 16_000
# Upper bound of letters per second in read speech, for random labels as long as real ones.
_LABELS_PER_SEC = 13


@dataclasses.dataclass(frozen=True)
class Batch:
    """A batch of rows.

    Attributes:
        waveform: float32 [B, T], normalized, zeros past a row's length.
        lengths: int32 [B], valid samples.
        labels: int32 [B, L], zeros past a row's length.
        label_lengths: int32 [B].
    """

    waveform: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    label_lengths: np.ndarray

    @property
    def audio_secs(self) -> float:
        """Returns the seconds of audio without padding."""
        return float(self.lengths.sum()) / SAMPLE_RATE

    @property
    def rows(self) -> list[np.ndarray]:
        """Returns the waveforms without their padding."""
        return [row[:length] for row, length in zip(self.waveform, self.lengths, strict=True)]


def make_batch(rows: Sequence[np.ndarray], labels: Sequence[np.ndarray], *, num_samples: int = 0) -> Batch:
    """Pads rows of waveforms to the longest, or to `num_samples` if given."""
    lengths = np.array([len(row) for row in rows], np.int32)
    label_lengths = np.array([len(row) for row in labels], np.int32)
    waveform = np.zeros([len(rows), num_samples or lengths.max()], np.float32)
    padded_labels = np.zeros([len(rows), max(1, label_lengths.max())], np.int32)
    for i, (row, row_labels) in enumerate(zip(rows, labels, strict=True)):
        waveform[i, : len(row)] = row
        padded_labels[i, : len(row_labels)] = row_labels
    return Batch(waveform, lengths, padded_labels, label_lengths)


def noise_batch(*, num_rows: int, num_samples: int, vocab_size: int = 32, seed: int = 0) -> Batch:
    """Makes a batch of full rows of noise, with random labels as long as real transcripts."""
    rng = np.random.default_rng(seed)
    num_labels = max(1, num_samples * _LABELS_PER_SEC // SAMPLE_RATE)
    rows = [rng.normal(size=num_samples).astype(np.float32) for _ in range(num_rows)]
    labels = [rng.integers(4, vocab_size, size=num_labels).astype(np.int32) for _ in range(num_rows)]
    return make_batch(rows, labels)


def pick_evenly(lengths: Sequence[int], count: int, *, batch_size: int = 1) -> list[int]:
    """Returns the indices of `count` rows in whole batches of `group`, evenly spread over all batches, longest last.

    So the batches are those of a run over the whole corpus; single rows from all over it would make batches of very
    different lengths.

    Args:
        lengths: Lengths of all rows.
        count: Number of rows, a multiple of `batch_size`; fewer are returned if there are fewer.
        batch_size: Rows of a batch.
    """
    batches = [batch for batch in group(lengths, batch_size) if len(batch) == batch_size]
    num_batches = min(count // batch_size, len(batches))
    places = (np.arange(num_batches) + 0.5) / num_batches * len(batches)
    return [index for place in places for index in batches[int(place)]]


def group(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Returns the indices of batches of similar lengths, as grouping by length makes them."""
    order = [int(i) for i in np.argsort(lengths, kind="stable")]
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def round_up(num_samples: int, boundaries: Sequence[int]) -> int:
    """Returns the smallest boundary that holds `num_samples`.

    Raises:
        ValueError: If no boundary is large enough.
    """
    for boundary in sorted(boundaries):
        if num_samples <= boundary:
            return boundary
    raise ValueError(f"{num_samples} samples do not fit the boundaries {sorted(boundaries)}")


def save(path: str | Path, batches: Sequence[Batch]) -> None:
    """Writes batches to an .npz file."""
    arrays = {f"{i}/{field.name}": getattr(batch, field.name) for i, batch in enumerate(batches)
              for field in dataclasses.fields(Batch)}  # fmt: skip
    np.savez(path, **arrays)


def load(path: str | Path) -> list[Batch]:
    """Reads batches from a file of `save`."""
    names = [field.name for field in dataclasses.fields(Batch)]
    with np.load(path) as file:
        count = len(file.files) // len(names)
        return [Batch(**{name: file[f"{i}/{name}"] for name in names}) for i in range(count)]
