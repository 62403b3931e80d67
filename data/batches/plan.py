"""The batch plan: which utterances make which update. Arithmetic only, no audio.

The plan is a pure function of its arguments and the update's number, so a run that resumes, and
every host and replica of a run, compute the same batches without asking each other. Orders are
sorted raw bits of a bit generator, because NumPy keeps those streams stable from version to version
and does not promise it for `Generator.permutation`.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.batches.buckets import checked_lengths, choose_bucket_boundaries, cut_batches, rows_within
from data.common.errors import InputError

# Which random choice a stream of bits serves; a stream per choice keeps them independent.
_JOIN, _SPEED, _ROWS, _BATCHES = range(4)


@dataclass(frozen=True)
class PlannedRow:
    """One row of a batch.

    Attributes:
        members: utterance indices, in the order of their concatenation; () is a padding row.
        speed: playing speed; an utterance of n samples takes ceil(n / speed).
    """

    members: tuple[int, ...]
    speed: float = 1.0


@dataclass(frozen=True)
class PlannedBatch:
    """The rows of one update, or of one replica's share of it.

    Attributes:
        rows: as many as the plan gives this update; padding rows come last.
        padded_samples: samples that every row is padded to, one of the bucket boundaries.
        update: number of the update, counted from 0 over all epochs.
        epoch: number of the epoch, counted from 0.
    """

    rows: tuple[PlannedRow, ...]
    padded_samples: int
    update: int
    epoch: int


def samples_at_speed(num_samples: np.ndarray | int, speed: np.ndarray | float) -> np.ndarray:
    """Samples that waveforms of `num_samples` have when played at `speed`: ceil(n / speed)."""
    return np.ceil(np.asarray(num_samples, dtype=np.int64) / speed).astype(np.int64)


@dataclass(frozen=True)
class _Epoch:
    """One epoch as flat arrays; row i holds members[offsets[i]:offsets[i + 1]]."""

    members: np.ndarray  # [N] utterance indices
    speed_ids: np.ndarray  # [R] index into the speed factors
    row_samples: np.ndarray  # [R] with gaps, at the row's speed
    order: np.ndarray  # [R] row numbers; batch p has order[starts[p]:starts[p + 1]], and padding rows
    starts: np.ndarray  # [P + 1]
    batch_rows: np.ndarray  # [P] rows of each batch, padding rows included
    padded_samples: np.ndarray  # [P]


class BatchPlan:
    """Every update's rows, for any number of epochs. Thread-safe.

    Rows are sorted by bucket, at random within one, and cut into batches: a batch that straddles
    buckets takes the leftovers of the smaller one up into the larger. So an epoch has every row
    once and only its last batch is filled up with padding rows. Full batches come in random order.
    Joining brings fresh neighbours in each epoch, but always as many rows: see `_join`.

    Batches have `global_batch_size` rows, or as many as fit `max_batch_samples` when padded: every
    bucket then has a number of rows of its own, so there are still no more shapes than buckets.
    Where speeds or joining make rows longer in one epoch than in another, such epochs differ by a
    few updates. To find an update the plan then counts the batches of the epochs before it once,
    which takes some 30 ns a row: 10 ms an epoch of 300,000 (joined ones 0.1 s).

    Args:
        num_samples: [N] samples of the utterances.
        global_batch_size: rows of one update, over all replicas; not used with `max_batch_samples`.
        seed: not negative; the plan of an epoch is a pure function of (seed, epoch).
        bucket_boundaries: rising samples that batches may be padded to, the last one no shorter
            than the longest row that any epoch can bring; or how many to choose for the rows as
            they come out joined and sped.
        shuffle: False sorts by falling length, the same in every epoch: a batch that does not fit
            the memory comes first.
        join_max_utterances: most utterances of one speaker joined into a row; 1 joins none.
        join_max_samples: most samples of a joined row at the slowest speed; 0 sets no limit.
        join_gap_samples: silence between joined utterances.
        speaker_ids: [N]; None takes all utterances for one speaker's. Used for joining only.
        speed_factors: each (epoch, row) draws one.
        max_batch_samples: most samples of one update, over all replicas and with padding; 0 goes by
            rows.
        row_multiple: the rows of an update by samples are a multiple of this. It belongs to the
            plan, and not the number of replicas: the same updates come on any number of them.

    Attributes:
        utterance_samples: [N] int64, the `num_samples` given.
        max_row_samples: no row of any epoch is longer.
        num_rows: rows of an epoch, padding rows not counted; the same in every epoch.
        updates_per_epoch: batches of the first epoch; of every one, unless batches go by samples
            and rows vary in length.
        bucket_boundaries: the boundaries in use.
        bucket_rows: rows of a full batch of each bucket, over all replicas.
        global_batch_size: the most of them.
        row_multiple: divides the rows of every update; the number of replicas must divide it.

    Raises:
        InputError: no utterance, an empty one, a row longer than the last boundary, or batches by
            samples that hold too few of the longest rows.
        ValueError: an argument out of its range.
    """

    def __init__(
        self,
        *,
        num_samples: np.ndarray | Sequence[int],
        global_batch_size: int,
        seed: int,
        bucket_boundaries: Sequence[int] | int,
        shuffle: bool = True,
        join_max_utterances: int = 1,
        join_max_samples: int = 0,
        join_gap_samples: int = 0,
        speaker_ids: Sequence[str] | None = None,
        speed_factors: Sequence[float] = (1.0,),
        max_batch_samples: int = 0,
        row_multiple: int = 1,
    ):
        if seed < 0 or global_batch_size < 1:
            raise ValueError(f"{seed=} must be >= 0 and {global_batch_size=} >= 1")
        if max_batch_samples < 0 or row_multiple < 1:
            raise ValueError(f"{max_batch_samples=} must be >= 0 and {row_multiple=} >= 1")
        if join_max_utterances < 1 or min(join_max_samples, join_gap_samples) < 0:
            raise ValueError(
                f"{join_max_utterances=} must be >= 1, {join_max_samples=} and {join_gap_samples=} must be >= 0"
            )
        self._speeds = np.array(speed_factors, dtype=np.float64)
        if not self._speeds.size or not np.all(np.isfinite(self._speeds) & (self._speeds > 0)):
            raise ValueError(f"{speed_factors=} must be one or more positive numbers")
        self.utterance_samples = checked_lengths(num_samples)
        self.join_max_utterances = join_max_utterances
        self.join_gap_samples = join_gap_samples
        self.speed_factors = tuple(self._speeds.tolist())
        self._seed = seed
        self._shuffle = shuffle

        slowest = samples_at_speed(self.utterance_samples, self._speeds.min())
        self._cells: np.ndarray | None = None
        self._offsets = np.arange(len(slowest) + 1)
        self.max_row_samples = int(slowest.max())
        if join_max_utterances > 1:
            self._cells, self._offsets, self.max_row_samples = _join(
                slowest, join_max_utterances, join_max_samples, join_gap_samples, speaker_ids
            )
        self.num_rows = len(self._offsets) - 1
        if isinstance(bucket_boundaries, int):
            examples = np.append(self._make_rows(0)[2], self.max_row_samples)
            bucket_boundaries = choose_bucket_boundaries(examples, bucket_boundaries)
        self._boundaries = np.array(bucket_boundaries, dtype=np.int64)
        self.bucket_boundaries = tuple(self._boundaries.tolist())
        if np.any(np.diff(self._boundaries, prepend=0) <= 0) or not self._boundaries.size:
            raise ValueError(f"{bucket_boundaries=} must be positive and rising")
        if self.max_row_samples > self._boundaries[-1]:
            raise InputError(
                f"a row may have {self.max_row_samples} samples, the last bucket boundary is "
                f"{self._boundaries[-1]}: leave out longer utterances, or raise the boundary"
                + (", or lower join_max_samples" if join_max_utterances > 1 else "")
            )
        self.row_multiple = row_multiple if max_batch_samples else global_batch_size
        self._bucket_rows = np.full(len(self._boundaries), global_batch_size, dtype=np.int64)
        if max_batch_samples:
            self._bucket_rows = rows_within(
                self._boundaries, max_batch_samples=max_batch_samples, row_multiple=row_multiple
            )
        self.bucket_rows = tuple(self._bucket_rows.tolist())
        self.global_batch_size = max(self.bucket_rows)
        # The smallest bucket whose batches have as many rows: a batch may be padded to its boundary.
        self._first_alike = np.searchsorted(-self._bucket_rows, -self._bucket_rows)
        varies = self._cells is not None or len(set(self.speed_factors)) > 1
        self._epochs_differ = bool(max_batch_samples) and shuffle and varies
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._lock = threading.RLock()
        self.updates_per_epoch = len(self._epoch(0).batch_rows)
        # Update that each epoch begins with, as far as they were counted; where they all are alike, not needed.
        self._epoch_starts = [0, self.updates_per_epoch]

    def batch(self, update: int, *, replica: int = 0, num_replicas: int = 1) -> PlannedBatch:
        """Returns an update's rows, or the equal contiguous share of them that a replica takes.

        Args:
            update: >= 0, counted over all epochs.
            replica: which share, in [0, num_replicas).
            num_replicas: shares; must divide `row_multiple`.
        """
        if not 0 <= replica < num_replicas:
            raise ValueError(f"{replica=} must be in [0, {num_replicas})")
        if self.row_multiple % num_replicas:
            raise ValueError(f"{num_replicas=} must divide the rows, a multiple of {self.row_multiple}")
        epoch_number, position = self.locate(update)
        epoch = self._epoch(epoch_number)
        count = int(epoch.batch_rows[position]) // num_replicas
        first = int(epoch.starts[position]) + replica * count
        last = min(first + count, int(epoch.starts[position + 1]))
        rows = []
        for row in epoch.order[first:last].tolist():
            members = epoch.members[self._offsets[row] : self._offsets[row + 1]]
            speed = self.speed_factors[epoch.speed_ids[row]]
            rows.append(PlannedRow(tuple(members.tolist()), speed))
        rows += [PlannedRow(())] * (count - len(rows))
        padded = int(epoch.padded_samples[position])
        return PlannedBatch(tuple(rows), padded, update, epoch_number)

    def locate(self, update: int) -> tuple[int, int]:
        """Returns the epoch that an update belongs to, and its place in there; both from 0."""
        if update < 0:
            raise ValueError(f"{update=} must be >= 0")
        if not self._epochs_differ:
            return divmod(update, self.updates_per_epoch)
        with self._lock:
            while self._epoch_starts[-1] <= update:
                row_samples = self._make_rows(len(self._epoch_starts) - 1)[2]
                self._epoch_starts.append(self._epoch_starts[-1] + self._count_batches(row_samples))
            epoch = bisect_right(self._epoch_starts, update) - 1
            return epoch, update - self._epoch_starts[epoch]

    def row_samples(self, epoch: int) -> np.ndarray:
        """[num_rows] samples of an epoch's rows, in the order of their batches."""
        made = self._epoch(epoch)
        return made.row_samples[made.order]

    def padded_samples(self, epoch: int) -> np.ndarray:
        """[P] samples that the rows of an epoch's batches are padded to."""
        return self._epoch(epoch).padded_samples.copy()

    def batch_rows(self, epoch: int) -> np.ndarray:
        """[P] rows of an epoch's batches, over all replicas and with padding rows."""
        return self._epoch(epoch).batch_rows.copy()

    def _epoch(self, number: int) -> _Epoch:
        number = number if self._shuffle else 0
        # The lock also keeps parallel readers from making the same epoch twice. Two are kept:
        # readers that run ahead cross into the next epoch while others finish this one.
        with self._lock:
            if number not in self._epochs:
                self._epochs[number] = self._make_epoch(number)
                while len(self._epochs) > 2:
                    self._epochs.popitem(last=False)
            self._epochs.move_to_end(number)
            return self._epochs[number]

    def _make_epoch(self, number: int) -> _Epoch:
        members, speed_ids, row_samples = self._make_rows(number)
        cut = self._cut_shuffled if self._shuffle else self._cut_sorted
        order, starts, buckets = cut(number, row_samples)
        longest = np.maximum.reduceat(row_samples[order], starts[:-1])
        # The shape of its bucket, or of a smaller one that holds the longest row and has batches of as many rows.
        buckets = np.maximum(self._first_alike[buckets], np.searchsorted(self._boundaries, longest))
        rows, padded_samples = self._bucket_rows[buckets], self._boundaries[buckets]
        return _Epoch(members, speed_ids, row_samples, order, starts, rows, padded_samples)

    def _cut_shuffled(self, number: int, row_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the order of the rows [R], where batches start in it [P + 1] and their buckets [P]."""
        row_buckets = np.searchsorted(self._boundaries, row_samples)
        order = np.lexsort((self._bits(number, _ROWS, self.num_rows), row_buckets))
        buckets, left = cut_batches(np.bincount(row_buckets, minlength=len(self._boundaries)), self._bucket_rows)
        sizes = self._bucket_rows[buckets]
        first = np.cumsum(sizes) - sizes
        shuffled = np.argsort(self._bits(number, _BATCHES, len(buckets)), kind="stable")
        buckets, sizes, first = buckets[shuffled], sizes[shuffled], first[shuffled]
        if left:  # what fills no batch makes the epoch's last one
            buckets = np.append(buckets, row_buckets[order[-1]])
            sizes, first = np.append(sizes, left), np.append(first, self.num_rows - left)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        order = order[np.repeat(first - starts[:-1], sizes) + np.arange(self.num_rows)]
        return order, starts, buckets

    def _cut_sorted(self, number: int, row_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """As `_cut_shuffled`, by falling length: the longest row of a batch decides how many it takes."""
        del number
        order = np.argsort(-row_samples, kind="stable")
        row_buckets = np.searchsorted(self._boundaries, row_samples[order])
        starts = [0]
        while starts[-1] < self.num_rows:
            starts.append(starts[-1] + int(self._bucket_rows[row_buckets[starts[-1]]]))
        starts[-1] = self.num_rows
        return order, np.array(starts), row_buckets[starts[:-1]]

    def _count_batches(self, row_samples: np.ndarray) -> int:
        row_buckets = np.searchsorted(self._boundaries, row_samples)
        buckets, left = cut_batches(np.bincount(row_buckets, minlength=len(self._boundaries)), self._bucket_rows)
        return len(buckets) + bool(left)

    def _make_rows(self, number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns an epoch's members [N], speed ids [R] and row samples [R]."""
        members = np.arange(len(self.utterance_samples))
        if self._cells is not None:
            members = np.lexsort((self._bits(number, _JOIN, len(members)), self._cells))
        speed_ids = np.zeros(self.num_rows, dtype=np.int64)
        if len(self._speeds) > 1:
            bits = self._bits(number, _SPEED, self.num_rows)
            speed_ids = (bits % np.uint64(len(self._speeds))).astype(np.int64)
        sizes = np.diff(self._offsets)
        speeds = np.repeat(self._speeds[speed_ids], sizes)
        samples = samples_at_speed(self.utterance_samples[members], speeds)
        row_samples = np.add.reduceat(samples, self._offsets[:-1])
        return members, speed_ids, row_samples + (sizes - 1) * self.join_gap_samples

    def _bits(self, epoch: int, stream: int, count: int) -> np.ndarray:
        """Returns [count] uint64 that depend on the seed, the epoch and the stream alone."""
        seeds = np.random.SeedSequence(entropy=self._seed, spawn_key=(epoch, stream))
        return np.random.Philox(seeds).random_raw(count)


def padding_share(plan: BatchPlan, epoch: int) -> float:
    """Share of an epoch's padded samples that are no audio, padding rows included, in [0, 1)."""
    padded = int((plan.padded_samples(epoch) * plan.batch_rows(epoch)).sum())
    return 1.0 - int(plan.row_samples(epoch).sum()) / padded


def _join(
    num_samples: np.ndarray,
    max_utterances: int,
    max_samples: int,
    gap_samples: int,
    speaker_ids: Sequence[str] | None,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Finds groups to join such that their number holds for every epoch.

    Joining stays inside a cell: utterances of one speaker that allow equally many members. An
    utterance allows c members when c of its length and the gaps between them fit `max_samples`; so
    any c utterances of a cell fit together, whichever the permutation brings together, and one
    that is too long by itself stays alone. Within a cell the sizes of groups run 1, 2 ... c, 1,
    2 ... (the last group takes what is left). An epoch permutes the members of each cell; the
    sizes, and with them the number of rows, never change.

    Returns:
        cells: [N] cell of each utterance.
        offsets: [R + 1] where groups begin among the utterances sorted by cell.
        max_row_samples: samples of the longest group that any permutation can make.
    """
    allowed = np.full(len(num_samples), max_utterances)
    if max_samples:
        fitting = (max_samples + gap_samples) // (num_samples + gap_samples)
        allowed = np.clip(fitting, 1, max_utterances)
    speakers = np.zeros(len(num_samples), dtype=np.int64)
    if speaker_ids is not None:
        if len(speaker_ids) != len(num_samples):
            raise ValueError(f"{len(speaker_ids)} speaker_ids for {len(num_samples)} utterances")
        speakers = np.unique(np.array(speaker_ids, dtype=str), return_inverse=True)[1]
    utterance_cells = speakers * (max_utterances + 1) + allowed

    # Sorted by cell, then by falling length: positions give the sizes, lengths the worst case.
    order = np.lexsort((-num_samples, utterance_cells))
    cells, allowed, num_samples = utterance_cells[order], allowed[order], num_samples[order]
    positions = np.arange(len(order)) - np.searchsorted(cells, cells)
    # Sizes 1, 2 ... c begin at the triangular numbers 0, 1, 3 ... and repeat after the c-th one.
    sizes = np.arange(max_utterances + 1)
    triangular = sizes * (sizes + 1) // 2
    offsets = np.flatnonzero(np.isin(positions % triangular[allowed], triangular))
    offsets = np.append(offsets, len(order))
    largest = np.zeros(int(cells[-1]) + 1, dtype=np.int64)
    np.maximum.at(largest, cells[offsets[:-1]], np.diff(offsets))
    in_longest = positions < largest[cells]
    longest = np.bincount(cells[in_longest], num_samples[in_longest] + gap_samples) - gap_samples
    return utterance_cells, offsets, int(longest.max())
