"""Plans the batches of a run: the utterances of each update, from their lengths alone.

The plan is a pure function of its arguments and the number of the update, so a resumed run and all hosts and replicas
compute the same batches without communication. Orders are sorted raw bits of a bit generator, because NumPy keeps those
streams stable between versions but not `Generator.permutation`.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.batches.buckets import checked_lengths, choose_bucket_boundaries, cut_batches, rows_within
from data.batches.rows import RowMaker, RowOptions, Rows, random_bits
from data.common.errors import InputError

# Ids of the random streams, one for each choice so that choices are independent. `data.batches.rows` has the others.
_ROWS, _BATCHES = 2, 3
_AS_THEY_ARE = RowOptions()


@dataclass(frozen=True)
class PlannedRow:
    """One row of a batch.

    Attributes:
        members: Utterance indices in the order of their concatenation; () is a padding row.
        speed: Playing speed; an utterance of n samples takes ceil(n / speed).
        visit: Earlier passes over the row's corpus; the epoch with one corpus. An epoch of several corpora may have an
            utterance more than once, and no two rows of an utterance have the same visit.
    """

    members: tuple[int, ...]
    speed: float = 1.0
    visit: int = 0


@dataclass(frozen=True)
class PlannedBatch:
    """The rows of one update, or of one replica's share of it.

    Attributes:
        rows: Rows of the update; padding rows come last.
        padded_samples: Number of samples to pad every row to, one of the bucket boundaries.
        update: Number of the update, counted from 0 over all epochs.
        epoch: Number of the epoch, counted from 0.
    """

    rows: tuple[PlannedRow, ...]
    padded_samples: int
    update: int
    epoch: int


@dataclass(frozen=True)
class _Epoch:
    """The rows of one epoch and their batches."""

    rows: Rows
    order: np.ndarray  # [R] row numbers; batch p has order[starts[p]:starts[p + 1]], and padding rows
    starts: np.ndarray  # [P + 1]
    batch_rows: np.ndarray  # [P] rows of each batch, padding rows included
    padded_samples: np.ndarray  # [P]


class BatchPlan:
    """Plans the rows of every update, for any number of epochs; thread-safe.

        plan = BatchPlan(num_samples=source.num_samples, global_batch_size=32, seed=0, bucket_boundaries=8)
        batch = plan.batch(update=1000)
        [row.members for row in batch.rows]  # utterance indices

    Rows are sorted by bucket, randomly within a bucket, and cut into batches. Rows left over in a bucket go into a
    batch of the next larger one. So an epoch has every row once, and only its last batch contains padding rows. Full
    batches come in random order. Concatenation draws new neighbors in each epoch but always makes as many rows, see
    `data.batches.rows`.

    Batches have `global_batch_size` rows, or as many as fit `max_batch_samples` when padded. In the second case the
    number of rows depends on the bucket, so there are still no more shapes than buckets. If speeds or concatenation
    then change the lengths of rows between epochs, the number of updates differs a little between epochs, and locating
    an update means counting the batches of all epochs before it once: about 10 ms an epoch of 300,000 rows (0.1 s with
    concatenation).

    Args:
        num_samples: [N] samples of the utterances.
        global_batch_size: Rows of one update over all replicas; unused with `max_batch_samples`.
        seed: Non-negative seed; the plan of an epoch is a pure function of (seed, epoch).
        bucket_boundaries: Increasing lengths in samples to pad batches to, the last one no shorter than the longest
            possible row; or the number of lengths to choose for the concatenated and sped-up rows.
        shuffle: False sorts by falling length, the same in every epoch, so that a batch that does not fit the memory
            comes first.
        rows: Concatenation, speeds, corpora and padding of the rows.
        max_batch_samples: Most samples of one update over all replicas, padding included; 0 = `global_batch_size` rows.
        row_multiple: Divides the rows of an update with `max_batch_samples`. It is fixed instead of the number of
            replicas, so that the plan does not depend on the devices.

    Attributes:
        utterance_samples: int64 [N], the given `num_samples`.
        max_row_samples: Length of the longest possible row of any epoch.
        num_rows: Rows of an epoch without padding rows, the same in every epoch.
        corpus_rows: Rows of each corpus among them.
        updates_per_epoch: Batches of the first epoch; of every epoch unless `max_batch_samples` is given and rows vary
            in length.
        bucket_boundaries: Lengths in samples that batches are padded to.
        bucket_rows: Rows of a full batch of each bucket over all replicas.
        global_batch_size: Largest of `bucket_rows`.
        row_multiple: Divides the rows of every update.

    Raises:
        InputError: If there is no utterance, an empty one, a row longer than the last boundary, or `max_batch_samples`
            holds too few of the longest rows.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        num_samples: np.ndarray | Sequence[int],
        global_batch_size: int,
        seed: int,
        bucket_boundaries: Sequence[int] | int,
        shuffle: bool = True,
        rows: RowOptions = _AS_THEY_ARE,
        max_batch_samples: int = 0,
        row_multiple: int = 1,
    ):
        if seed < 0 or global_batch_size < 1:
            raise ValueError(f"{seed=} must be >= 0 and {global_batch_size=} >= 1")
        if max_batch_samples < 0 or row_multiple < 1:
            raise ValueError(f"{max_batch_samples=} must be >= 0 and {row_multiple=} >= 1")
        self.utterance_samples = checked_lengths(num_samples)
        self.concatenation = rows.concatenation
        self._seed = seed
        self._shuffle = shuffle

        self._rows = RowMaker(self.utterance_samples, seed=seed, options=rows)
        self.speed_factors = tuple(self._rows.speeds.tolist())
        self.max_row_samples = self._rows.max_row_samples
        self.num_rows, self.corpus_rows = self._rows.num_rows, self._rows.corpus_rows
        self._boundaries = self._choose_boundaries(bucket_boundaries)
        self.bucket_boundaries = tuple(self._boundaries.tolist())
        self.row_multiple = row_multiple if max_batch_samples else global_batch_size
        self._bucket_rows = np.full(len(self._boundaries), global_batch_size, dtype=np.int64)
        if max_batch_samples:
            self._bucket_rows = rows_within(
                self._boundaries, max_batch_samples=max_batch_samples, row_multiple=row_multiple
            )
        self.bucket_rows = tuple(self._bucket_rows.tolist())
        self.global_batch_size = max(self.bucket_rows)
        # The smallest bucket whose batches have as many rows; a batch may be padded to the boundary of that one.
        self._first_alike = np.searchsorted(-self._bucket_rows, -self._bucket_rows)
        self._epochs_differ = all((max_batch_samples, shuffle, self._rows.varies))
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()
        self._lock = threading.RLock()
        self.updates_per_epoch = len(self._epoch(0).batch_rows)
        # First update of each epoch counted so far; unused if all epochs have as many updates.
        self._epoch_starts = [0, self.updates_per_epoch]

    def _choose_boundaries(self, bucket_boundaries: Sequence[int] | int) -> np.ndarray:
        """Returns the boundaries, chosen if only their number is given, and checks that they hold every row."""
        if isinstance(bucket_boundaries, int):
            examples = np.append(self._rows.make(0).samples, self.max_row_samples)
            bucket_boundaries = choose_bucket_boundaries(examples, bucket_boundaries)
        boundaries = np.array(bucket_boundaries, dtype=np.int64)
        if np.any(np.diff(boundaries, prepend=0) <= 0) or not boundaries.size:
            raise ValueError(f"{bucket_boundaries=} must be positive and increasing")
        if self.max_row_samples > boundaries[-1]:
            raise InputError(
                f"a row may have {self.max_row_samples} samples, the last bucket boundary is {boundaries[-1]}: leave "
                "out longer utterances, or raise the boundary"
                + (", or lower concat_max_samples" if self.concatenation.max_utterances > 1 else "")
            )
        return boundaries

    def batch(self, update: int, *, replica: int = 0, num_replicas: int = 1) -> PlannedBatch:
        """Returns the rows of an update, or the contiguous share of one replica.

        All shares have as many rows. The last ones are filled up with padding rows, or consist of them.

        Args:
            update: Number of the update, counted from 0 over all epochs.
            replica: Index of the share, in [0, num_replicas).
            num_replicas: Number of shares; may be more than the rows.
        """
        if not 0 <= replica < num_replicas:
            raise ValueError(f"{replica=} must be in [0, {num_replicas})")
        epoch_number, position = self.locate(update)
        epoch = self._epoch(epoch_number)
        count = -(-int(epoch.batch_rows[position]) // num_replicas)
        first = int(epoch.starts[position]) + replica * count
        last = min(first + count, int(epoch.starts[position + 1]))
        rows, made = [], epoch.rows
        for row in epoch.order[first:last].tolist():
            members = made.members[made.offsets[row] : made.offsets[row + 1]]
            speed = self.speed_factors[made.speed_ids[row]]
            rows.append(PlannedRow(tuple(members.tolist()), speed, int(made.passes[row])))
        rows += [PlannedRow(())] * (count - len(rows))
        padded = int(epoch.padded_samples[position])
        return PlannedBatch(tuple(rows), padded, update, epoch_number)

    def locate(self, update: int) -> tuple[int, int]:
        """Returns the epoch of an update and its position in the epoch, both counted from 0."""
        if update < 0:
            raise ValueError(f"{update=} must be >= 0")
        if not self._epochs_differ:
            return divmod(update, self.updates_per_epoch)
        with self._lock:
            while self._epoch_starts[-1] <= update:
                row_samples = self._rows.make(len(self._epoch_starts) - 1).samples
                self._epoch_starts.append(self._epoch_starts[-1] + self._count_batches(row_samples))
            epoch = bisect_right(self._epoch_starts, update) - 1
            return epoch, update - self._epoch_starts[epoch]

    def row_samples(self, epoch: int) -> np.ndarray:
        """Returns the samples of an epoch's rows, [num_rows], in the order of their batches."""
        made = self._epoch(epoch)
        return made.rows.samples[made.order]

    def first_members(self, update: int) -> tuple[int, np.ndarray]:
        """Returns the epoch of an update, and the first utterance of each row of that epoch before the update."""
        number, position = self.locate(update)
        epoch = self._epoch(number)
        before = epoch.order[: int(epoch.starts[position])]
        return number, epoch.rows.members[epoch.rows.offsets[before]]

    def padded_samples(self, epoch: int) -> np.ndarray:
        """Returns the samples that the rows of each batch of an epoch are padded to, [P]."""
        return self._epoch(epoch).padded_samples.copy()

    def batch_rows(self, epoch: int) -> np.ndarray:
        """Returns the rows of each batch of an epoch over all replicas, padding rows included, [P]."""
        return self._epoch(epoch).batch_rows.copy()

    def _epoch(self, number: int) -> _Epoch:
        number = number if self._shuffle else 0
        # The lock also keeps parallel readers from making the same epoch twice. Keep two epochs, because some readers
        # cross into the next one while others finish this one.
        with self._lock:
            if number not in self._epochs:
                self._epochs[number] = self._make_epoch(number)
                while len(self._epochs) > 2:
                    self._epochs.popitem(last=False)
            self._epochs.move_to_end(number)
            return self._epochs[number]

    def _make_epoch(self, number: int) -> _Epoch:
        made = self._rows.make(number)
        cut = self._cut_shuffled if self._shuffle else self._cut_sorted
        order, starts, buckets = cut(number, made.samples)
        longest = np.maximum.reduceat(made.samples[order], starts[:-1])
        # Pad to the batch's bucket, or to a smaller one that holds its longest row and has batches of as many rows.
        buckets = np.maximum(self._first_alike[buckets], np.searchsorted(self._boundaries, longest))
        return _Epoch(made, order, starts, self._bucket_rows[buckets], self._boundaries[buckets])

    def _cut_shuffled(self, number: int, row_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns the order of the rows [R], the start of each batch in it [P + 1] and the batches' buckets [P]."""
        row_buckets = np.searchsorted(self._boundaries, row_samples)
        order = np.lexsort((self._bits(number, _ROWS, self.num_rows), row_buckets))
        buckets, left = cut_batches(np.bincount(row_buckets, minlength=len(self._boundaries)), self._bucket_rows)
        sizes = self._bucket_rows[buckets]
        first = np.cumsum(sizes) - sizes
        shuffled = np.argsort(self._bits(number, _BATCHES, len(buckets)), kind="stable")
        buckets, sizes, first = buckets[shuffled], sizes[shuffled], first[shuffled]
        if left:  # the rest makes the last batch of the epoch
            buckets = np.append(buckets, row_buckets[order[-1]])
            sizes, first = np.append(sizes, left), np.append(first, self.num_rows - left)
        starts = np.concatenate([[0], np.cumsum(sizes)])
        order = order[np.repeat(first - starts[:-1], sizes) + np.arange(self.num_rows)]
        return order, starts, buckets

    def _cut_sorted(self, number: int, row_samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Does the same by falling length; the longest row of a batch decides its number of rows."""
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

    def _bits(self, epoch: int, stream: int, count: int) -> np.ndarray:
        """Returns random uint64 [count] that depend on the seed, the epoch and the stream only."""
        return random_bits(self._seed, (epoch, stream), count)


def padding_ratio(plan: BatchPlan, epoch: int) -> float:
    """Returns the ratio of padding in an epoch's padded samples, padding rows included, in [0, 1)."""
    padded = int((plan.padded_samples(epoch) * plan.batch_rows(epoch)).sum())
    return 1.0 - int(plan.row_samples(epoch).sum()) / padded
