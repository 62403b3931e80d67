"""Makes the rows of each epoch: which utterances a row concatenates, at what speed, and how often each corpus comes.

Everything is a pure function of (seed, epoch). With several corpora it is one of (seed, pass, corpus), see `Mixture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.batches.buckets import checked_speeds
from data.batches.row_padding import RowPadding

# Ids of the random streams of rows, one for each choice so that choices are independent. `data.batches.plan` has 2, 3.
_NEIGHBORS, _SPEED, _TURNS = 0, 1, 4


@dataclass(frozen=True)
class Concatenation:
    """Options of utterance concatenation, which joins utterances of one speaker into a row.

    Attributes:
        max_utterances: Most utterances of a row; 1 = no concatenation.
        max_samples: Most samples of a concatenated row at the slowest speed; 0 = no limit.
        gap_samples: Silence between the utterances of a row.

    Raises:
        ValueError: If a value is out of range.
    """

    max_utterances: int = 1
    max_samples: int = 0
    gap_samples: int = 0

    def __post_init__(self) -> None:
        if self.max_utterances < 1 or min(self.max_samples, self.gap_samples) < 0:
            raise ValueError(
                f"concat_max_utterances={self.max_utterances} must be >= 1, concat_max_samples={self.max_samples} and "
                f"concat_gap_samples={self.gap_samples} must be >= 0"
            )


@dataclass(frozen=True)
class Mixture:
    """Says which utterances belong to which corpus, and how often an epoch goes through each corpus.

    Every corpus is an endless sequence of passes, each a permutation of its rows. An epoch takes the next rows of every
    corpus, the same number each time. So after any number of updates, two rows of a corpus have come equally often,
    or one of them once more.

    Attributes:
        sizes: Utterances of each corpus; their indices follow each other.
        passes: Passes over each corpus in one epoch, above 0; 0.25 takes every fourth row. An epoch has at least one
            row of each corpus.

    Raises:
        ValueError: If a value is out of range.
    """

    sizes: tuple[int, ...]
    passes: tuple[float, ...]

    def __post_init__(self) -> None:
        is_right = all(size > 0 for size in self.sizes) and all(0 < each < np.inf for each in self.passes)
        if not self.sizes or len(self.sizes) != len(self.passes) or not is_right:
            raise ValueError(f"sizes={self.sizes} and passes={self.passes} must be positive, one of each per corpus")


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Options of the rows that utterances are made into.

    Attributes:
        concatenation: Utterance concatenation, which never crosses corpora.
        speaker_ids: Speakers for concatenation, [N]; None = all utterances are of one speaker.
        speed_factors: Playing speeds; each row of each pass over its corpus draws one.
        mixture: Corpora that the utterances belong to, and their passes; None = one corpus, once an epoch.
        padding: Samples that augmentation adds to rows, by the pass over their corpus; None = none.
    """

    concatenation: Concatenation = Concatenation()
    speaker_ids: Sequence[str] | None = None
    speed_factors: Sequence[float] = (1.0,)
    mixture: Mixture | None = None
    padding: RowPadding | None = None


@dataclass(frozen=True)
class Rows:
    """The rows of one epoch as flat arrays; row i holds members[offsets[i]:offsets[i + 1]].

    Attributes:
        members: Utterance indices, [N].
        offsets: Start of each row in `members`, [R + 1].
        speed_ids: Index into the speed factors, [R].
        samples: Samples with gaps at the row's speed, [R].
        passes: Pass over the row's corpus, counted from 0, [R]; the epoch with one corpus.
    """

    members: np.ndarray
    offsets: np.ndarray
    speed_ids: np.ndarray
    samples: np.ndarray
    passes: np.ndarray


class RowMaker:
    """Makes the rows of any epoch.

        maker = RowMaker(num_samples, seed=0, options=RowOptions(concatenation=Concatenation(max_utterances=3)))
        rows = maker.make(epoch=3)
        rows.members[rows.offsets[0] : rows.offsets[1]]  # utterances of the first row

    Attributes:
        max_row_samples: Length of the longest possible row of any epoch.
        corpus_rows: Rows of each corpus in an epoch, the same in every epoch.
        num_rows: Rows of an epoch.
        varies: Whether the lengths of the rows differ between epochs.
        speeds: Playing speeds, float64 [S]; `Rows.speed_ids` are indices into them.
    """

    def __init__(self, num_samples: np.ndarray, *, seed: int, options: RowOptions):
        """Groups the utterances of each corpus into rows.

        Args:
            num_samples: Samples of the utterances, int64 [N].
            seed: Seed of every choice.
            options: Concatenation, speeds, corpora and padding.

        Raises:
            ValueError: If the arguments differ in length, or a speed is not a positive number.
        """
        self.speeds = checked_speeds(options.speed_factors)
        concatenation, speaker_ids, mixture = options.concatenation, options.speaker_ids, options.mixture
        if speaker_ids is not None and len(speaker_ids) != len(num_samples):
            raise ValueError(f"{len(speaker_ids)} speaker_ids for {len(num_samples)} utterances")
        sizes, passes = ((len(num_samples),), (1.0,)) if mixture is None else (mixture.sizes, mixture.passes)
        if sum(sizes) != len(num_samples):
            raise ValueError(f"corpora of {sizes} utterances for {len(num_samples)} utterances")
        ends = np.cumsum(sizes).tolist()
        self._corpora = [
            _CorpusRows(
                num_samples[end - size : end],
                first=end - size,
                seed=seed,
                # One corpus has the keys of versions that knew no others: its plan is the same, bit for bit.
                key=() if mixture is None else (number,),
                speeds=self.speeds,
                concatenation=concatenation,
                speaker_ids=None if speaker_ids is None else speaker_ids[end - size : end],
                padding=options.padding,
            )
            for number, (size, end) in enumerate(zip(sizes, ends, strict=True))
        ]
        self.max_row_samples = max(corpus.max_row_samples for corpus in self._corpora)
        self.corpus_rows = tuple(
            max(1, round(each * corpus.num_rows)) for each, corpus in zip(passes, self._corpora, strict=True)
        )
        self.num_rows = sum(self.corpus_rows)
        in_part = any(rows % corpus.num_rows for rows, corpus in zip(self.corpus_rows, self._corpora, strict=True))
        is_joined, is_sped = concatenation.max_utterances > 1, len(np.unique(self.speeds)) > 1
        self.varies = is_joined or is_sped or in_part or options.padding is not None

    def make(self, epoch: int) -> Rows:
        """Returns the rows of an epoch, in no particular order."""
        parts = [
            part
            for corpus, rows in zip(self._corpora, self.corpus_rows, strict=True)
            for part in corpus.take(epoch * rows, (epoch + 1) * rows)
        ]
        if len(parts) == 1:
            return parts[0]
        sizes = np.concatenate([np.diff(part.offsets) for part in parts])
        names = ("members", "speed_ids", "samples", "passes")
        columns = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
        return Rows(offsets=np.concatenate([[0], np.cumsum(sizes)]), **columns)


class _CorpusRows:
    """Makes the rows of one corpus, pass by pass."""

    def __init__(
        self,
        num_samples: np.ndarray,
        *,
        first: int,
        seed: int,
        key: tuple[int, ...],
        speeds: np.ndarray,
        concatenation: Concatenation,
        speaker_ids: Sequence[str] | None,
        padding: RowPadding | None,
    ):
        """Groups the utterances; the first one has the index `first`, and `key` tells corpora apart."""
        self._num_samples, self._first, self._seed, self._key = num_samples, first, seed, key
        self._speeds, self._gap_samples, self._padding = speeds, concatenation.gap_samples, padding
        slowest = samples_at_speed(num_samples, speeds.min())
        self._cells: np.ndarray | None = None
        self._offsets = np.arange(len(slowest) + 1)
        self.max_row_samples = int(slowest.max())
        if concatenation.max_utterances > 1:
            self._cells, self._offsets, self.max_row_samples = _group(slowest, concatenation, speaker_ids)
        self.max_row_samples += padding.max_samples if padding else 0
        self.num_rows = len(self._offsets) - 1

    def take(self, start: int, stop: int) -> list[Rows]:
        """Returns the rows from `start` to `stop` of the endless sequence of passes, one part for each pass."""
        found = []
        for number in range(start // self.num_rows, (stop - 1) // self.num_rows + 1):
            low, high = max(start - number * self.num_rows, 0), min(stop - number * self.num_rows, self.num_rows)
            rows = self._make_pass(number)
            if high - low < self.num_rows:
                turns = np.argsort(self._bits(number, _TURNS, self.num_rows), kind="stable")
                rows = _select(rows, np.sort(turns[low:high]))
            found.append(rows)
        return found

    def _make_pass(self, number: int) -> Rows:
        members = np.arange(len(self._num_samples))
        if self._cells is not None:
            members = np.lexsort((self._bits(number, _NEIGHBORS, len(members)), self._cells))
        speed_ids = np.zeros(self.num_rows, dtype=np.int64)
        if len(self._speeds) > 1:
            bits = self._bits(number, _SPEED, self.num_rows)
            speed_ids = (bits % np.uint64(len(self._speeds))).astype(np.int64)
        sizes = np.diff(self._offsets)
        speeds = np.repeat(self._speeds[speed_ids], sizes)
        samples = samples_at_speed(self._num_samples[members], speeds)
        row_samples = np.add.reduceat(samples, self._offsets[:-1]) + (sizes - 1) * self._gap_samples
        if self._padding:
            padding = self._padding.samples(number, self._first, self._first + len(members))
            row_samples += padding[members[self._offsets[:-1]]]
        passes = np.full(self.num_rows, number, dtype=np.int64)
        return Rows(members + self._first, self._offsets, speed_ids, row_samples, passes)

    def _bits(self, number: int, stream: int, count: int) -> np.ndarray:
        return random_bits(self._seed, (number, stream, *self._key), count)


def random_bits(seed: int, key: tuple[int, ...], count: int) -> np.ndarray:
    """Returns random uint64 [count] that depend on the seed and the key only: (epoch, stream) or more."""
    seeds = np.random.SeedSequence(entropy=seed, spawn_key=key)
    return np.random.Philox(seeds).random_raw(count)


def samples_at_speed(num_samples: np.ndarray | int, speed: np.ndarray | float) -> np.ndarray:
    """Returns the samples of waveforms of `num_samples` samples played at `speed`, ceil(n / speed)."""
    return np.ceil(np.asarray(num_samples, dtype=np.int64) / speed).astype(np.int64)


def _select(rows: Rows, chosen: np.ndarray) -> Rows:
    """Returns the rows with the numbers `chosen`, in that order."""
    sizes = np.diff(rows.offsets)[chosen]
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    places = np.repeat(rows.offsets[chosen] - offsets[:-1], sizes) + np.arange(offsets[-1])
    return Rows(rows.members[places], offsets, rows.speed_ids[chosen], rows.samples[chosen], rows.passes[chosen])


def _group(
    num_samples: np.ndarray, concatenation: Concatenation, speaker_ids: Sequence[str] | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Groups utterances for concatenation such that all epochs have the same number of groups.

    Groups stay within a cell, which holds the utterances of one speaker that allow equally large groups. An utterance
    allows c members if c utterances of its length and the gaps between them fit `max_samples`. So any c utterances of a
    cell fit together in any permutation, and an utterance that is too long stays alone. Within a cell the sizes of the
    groups are 1, 2 ... c, 1, 2 ... (the last group takes the rest). Each epoch permutes the members of each cell; the
    sizes, and so the number of rows, never change.

    Returns:
        cells: [N] cell of each utterance.
        offsets: [R + 1] start of each group among the utterances sorted by cell.
        max_row_samples: Samples of the longest group that any permutation can make.
    """
    max_utterances, max_samples = concatenation.max_utterances, concatenation.max_samples
    gap_samples = concatenation.gap_samples
    allowed = np.full(len(num_samples), max_utterances)
    if max_samples:
        fitting = (max_samples + gap_samples) // (num_samples + gap_samples)
        allowed = np.clip(fitting, 1, max_utterances)
    speakers = np.zeros(len(num_samples), dtype=np.int64)
    if speaker_ids is not None:
        speakers = np.unique(np.array(speaker_ids, dtype=str), return_inverse=True)[1]
    utterance_cells = speakers * (max_utterances + 1) + allowed

    # Sort by cell, then by falling length: positions give the sizes, lengths the worst case.
    order = np.lexsort((-num_samples, utterance_cells))
    cells, allowed, num_samples = utterance_cells[order], allowed[order], num_samples[order]
    positions = np.arange(len(order)) - np.searchsorted(cells, cells)
    # Groups of sizes 1, 2 ... c start at the triangular numbers 0, 1, 3 ... and repeat after the c-th one.
    sizes = np.arange(max_utterances + 1)
    triangular = sizes * (sizes + 1) // 2
    offsets = np.flatnonzero(np.isin(positions % triangular[allowed], triangular))
    offsets = np.append(offsets, len(order))
    largest = np.zeros(int(cells[-1]) + 1, dtype=np.int64)
    np.maximum.at(largest, cells[offsets[:-1]], np.diff(offsets))
    in_longest = positions < largest[cells]
    longest = np.bincount(cells[in_longest], num_samples[in_longest] + gap_samples) - gap_samples
    return utterance_cells, offsets, int(longest.max())
