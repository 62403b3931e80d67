"""Makes the batches of a plan as a tf.data.Dataset whose elements are one replica's share of one update.

The dataset only counts: element e of a `Dataset.range` is mapped to (update, replica), and NumPy fills the batch. So
any start takes O(1), and hosts and replicas agree without communication.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl import logging

from common.cores import count_cores
from data.audio.decoding import SAMPLE_RATE, fit_length, normalize_waveform, resample
from data.augmentation.augmenter import Augmenter
from data.batches.plan import BatchPlan, PlannedRow
from data.batches.rows import samples_at_speed
from data.batches.unreadable import UnreadableUtterances
from data.common.errors import InputError
from data.corpus.sources import Source
from data.text.normalization import normalize_transcript
from data.text.tokenizer import CharTokenizer

# Keys and types of a batch.
BATCH_DTYPES = {
    "waveform": np.float32,
    "waveform_lengths": np.int32,
    "labels": np.int32,
    "label_lengths": np.int32,
    "weight": np.float32,
    "utterance_index": np.int64,
}

# Bytes that TensorFlow aligns its tensors to; it adopts an array that is aligned so, and copies any other.
_ALIGNMENT = 64
_MOST_CALLS = 32  # more cores than this decode faster than eight GPUs train
_MAX_NAMED = 20  # noises in the log that cannot be used


def build_dataset(
    maker: BatchMaker,
    *,
    num_input_pipelines: int = 1,
    input_pipeline_id: int = 0,
    start_update: int = 0,
    num_updates: int | None = None,
    num_parallel_calls: int,
    prefetch: int,
) -> tf.data.Dataset:
    """Builds the batches of the replicas that one input pipeline (one host) feeds.

    An element is one replica's share of one update. The elements of an update follow each other, local replicas in
    order. All replicas get the same shapes within an update: the length T of the waveforms is a bucket boundary and
    decides the length L of the labels, so there are no more shapes than buckets.

    Args:
        maker: Makes the batches.
        num_input_pipelines: Number of hosts; divides the maker's replicas. Each host feeds a contiguous part of them.
        input_pipeline_id: Index of this host.
        start_update: First update, counted over all epochs.
        num_updates: Number of updates; None = endless.
        num_parallel_calls: Batches made at the same time, each on a thread of its own; 0 = by the processor's cores.
        prefetch: Finished batches to keep ready; 0 = those of two updates, at least four.

    Returns:
        Dicts of waveform [B, T] float32 (padded with zeros), waveform_lengths [B] int32 in samples, labels [B, L] int32
        (padded with 0), label_lengths [B] int32, weight [B] float32 (0 for padding rows and unreadable ones) and
        utterance_index [B] int64 (the first utterance of a concatenated row, -1 for padding rows). B, T and L are
        static where they cannot vary.

    Raises:
        ValueError: If an argument is out of range.
    """
    num_replicas = maker.num_replicas
    if num_input_pipelines < 1 or num_replicas % num_input_pipelines:
        raise ValueError(f"{num_replicas=} must be a multiple of {num_input_pipelines=}")
    if not 0 <= input_pipeline_id < num_input_pipelines:
        raise ValueError(f"{input_pipeline_id=} must be in [0, {num_input_pipelines})")
    if start_update < 0 or (num_updates is not None and num_updates < 0):
        raise ValueError(f"{start_update=} and {num_updates=} must be >= 0")
    num_local = num_replicas // num_input_pipelines
    num_parallel_calls = num_parallel_calls or min(max(count_cores(), 2), _MOST_CALLS)
    prefetch = prefetch or max(2 * num_local, 4)
    first_replica = input_pipeline_id * num_local

    def make_arrays(element: np.int64) -> list[np.ndarray]:
        update, local_replica = divmod(int(element), num_local)
        return list(maker.make(update, first_replica + local_replica).values())

    def make_batch(element: tf.Tensor) -> dict[str, tf.Tensor]:
        dtypes = [tf.as_dtype(dtype) for dtype in BATCH_DTYPES.values()]
        # A batch depends on its number alone. With a state, it would be made one at a time under op determinism.
        tensors = tf.numpy_function(make_arrays, [element], dtypes, stateful=False)
        batch = dict(zip(BATCH_DTYPES, tensors, strict=True))
        for key, tensor in batch.items():
            tensor.set_shape(maker.static_shapes[key])
        return batch

    stop = np.iinfo(np.int64).max
    if num_updates is not None:
        stop = (start_update + num_updates) * num_local
    dataset = tf.data.Dataset.range(start_update * num_local, stop)
    dataset = dataset.map(make_batch, num_parallel_calls=num_parallel_calls, deterministic=True)
    options = tf.data.Options()
    # All that autotuning would tune is set above, and destroying an iterator can wait a minute for its thread
    # (docs/decisions/0084).
    options.autotune.enabled = False
    # Otherwise decoding takes the threads that start the operations of the training step.
    options.threading.private_threadpool_size = num_parallel_calls
    # The plan has split the rows already; TensorFlow would split them again by skipping elements.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).prefetch(prefetch)


class BatchMaker:
    """Makes the arrays of a replica's share of an update in NumPy; thread-safe.

        maker = BatchMaker(source=source, plan=plan, tokenizer=tokenizer, text_normalization="unicode")
        batch = maker.make(update=0)
        batch["waveform"].shape  # (B, T)

    Attributes:
        num_replicas: Number of replicas that share an update.
        unreadable: Utterances found unreadable so far.
        static_shapes: Shape of each array of a batch, with None where it varies.
    """

    def __init__(
        self,
        *,
        source: Source,
        plan: BatchPlan,
        tokenizer: CharTokenizer,
        text_normalization: str,
        num_replicas: int = 1,
        max_label_length: int | None = None,
        on_bad: str = "skip",
        unreadable: UnreadableUtterances | None = None,
        normalize: bool = True,
        augmenter: Augmenter | None = None,
    ):
        """Counts the labels of all transcripts.

        Args:
            source: Corpus to read, the one that `plan` was made for.
            plan: Utterances of each update.
            tokenizer: Converts transcripts to labels.
            text_normalization: Style of `normalize_transcript`.
            num_replicas: Number of replicas over all hosts; padding rows fill up their shares of an update.
            max_label_length: Length to pad all labels to; None = the most that the rows of a bucket can need.
            on_bad: "skip" gives the row of an unreadable utterance weight 0 and logs its id once; "raise" ends the
                iteration with `tf.errors.InvalidArgumentError`.
            unreadable: Collects the skipped utterances.
            normalize: Whether rows get zero mean and unit variance, as most models expect.
            augmenter: Alters the rows; the one whose silence `plan` knows. None = nothing does.

        Raises:
            InputError: If labels do not fit `max_label_length`.
            ValueError: If an argument is out of range, or the plan was made for another source.
        """
        if num_replicas < 1:
            raise ValueError(f"{num_replicas=} must be >= 1")
        if on_bad not in ("skip", "raise"):
            raise ValueError(f"on_bad is {on_bad!r}, wanted skip or raise")
        if not np.array_equal(plan.utterance_samples, source.num_samples):
            raise ValueError("the plan was made for other utterances than the source has")
        self._source = source
        self._plan = plan
        self.num_replicas = num_replicas
        self._on_bad = on_bad
        self._normalize = normalize
        self._augmenter = augmenter
        self.unreadable = UnreadableUtterances() if unreadable is None else unreadable
        self._tokenizer = tokenizer
        self._text_normalization = text_normalization
        self._delimiter = np.array(tokenizer.encode(" "), dtype=np.int32)
        # Only count them: making 281,000 label sequences would take seconds before the first batch.
        labels = (tokenizer.num_labels(normalize_transcript(text, text_normalization)) for text in source.texts)
        self._label_lengths = np.fromiter(labels, dtype=np.int64, count=len(source.texts))
        self._label_widths = self._find_label_widths(max_label_length)
        batch_sizes = {-(-rows // num_replicas) for rows in plan.bucket_rows}
        batch_size = batch_sizes.pop() if len(batch_sizes) == 1 else None
        samples = plan.bucket_boundaries[0] if len(plan.bucket_boundaries) == 1 else None
        widths = set(self._label_widths.values())
        self.static_shapes: dict[str, tuple[int | None, ...]] = {
            **dict.fromkeys(BATCH_DTYPES, (batch_size,)),
            "waveform": (batch_size, samples),
            "labels": (batch_size, widths.pop() if len(widths) == 1 else None),
        }

    def make(self, update: int, replica: int = 0) -> dict[str, np.ndarray]:
        """Returns a batch with the keys and types of `BATCH_DTYPES`.

        Args:
            update: Number of the update, counted over all epochs.
            replica: Index of the replica.

        Raises:
            InputError: If an utterance is unreadable and `on_bad` is "raise".
        """
        planned = self._plan.batch(update, replica=replica, num_replicas=self.num_replicas)
        sizes = {
            "waveform": (len(planned.rows), planned.padded_samples),
            "labels": (len(planned.rows), self._label_widths[planned.padded_samples]),
        }
        batch = {key: aligned_zeros(sizes.get(key, (len(planned.rows),)), dtype) for key, dtype in BATCH_DTYPES.items()}
        for i, row in enumerate(planned.rows):
            batch["utterance_index"][i] = row.members[0] if row.members else -1
            waveform = self._read_row(row, update) if row.members else None
            if waveform is None:
                continue
            labels = self._row_labels(row)
            batch["waveform"][i, : len(waveform)] = waveform
            batch["waveform_lengths"][i] = len(waveform)
            batch["labels"][i, : len(labels)] = labels
            batch["label_lengths"][i] = len(labels)
            batch["weight"][i] = 1.0
        return batch

    def _read_row(self, row: PlannedRow, update: int) -> np.ndarray | None:
        """Returns the waveform of a row, or None if one of its utterances is unreadable."""
        gap = np.zeros(self._plan.concatenation.gap_samples, dtype=np.float32)
        parts: list[np.ndarray] = []
        for index in row.members:
            try:
                parts += [gap, self._read_utterance(index, row.speed)]
            # Readers raise InputError, soundfile's RuntimeError, or OSError for a vanished file. Any other error is a
            # bug and must not be hidden.
            except (ValueError, RuntimeError, OSError) as error:
                self._report_bad(index, update, error)
                return None
        waveform = np.concatenate(parts[1:])
        if self._augmenter is not None:
            augmented = self._augment(waveform, row, update)
            if augmented is None:
                return None
            waveform = augmented
        return normalize_waveform(waveform) if self._normalize else waveform

    def _read_utterance(self, index: int, speed: float) -> np.ndarray:
        waveform = self._source.read_waveform(index)
        wanted = int(self._plan.utterance_samples[index])
        if len(waveform) != wanted:
            raise InputError(f"it has {len(waveform)} samples, {wanted} were planned")
        if not np.isfinite(waveform).all():
            raise InputError("it holds values that are not finite")
        if speed == 1.0:
            return waveform
        # Fewer samples at the same rate play faster; the pitch changes with the speed.
        waveform = resample(waveform, round(SAMPLE_RATE * speed), SAMPLE_RATE)
        return fit_length(waveform, int(samples_at_speed(wanted, speed)))

    def _augment(self, waveform: np.ndarray, row: PlannedRow, update: int) -> np.ndarray | None:
        """Returns the altered waveform of a row, or None if no noise can be read any more."""
        assert self._augmenter is not None

        def report(name: str, reason: str) -> None:
            is_new = self.unreadable.add(update=update, utterance_id=name, reason=reason)
            if is_new and len(self.unreadable) <= _MAX_NAMED:  # metrics.jsonl has them all
                logging.warning("%s is not mixed into speech, it cannot be used: %s", name, reason)

        try:
            # The visit is the epoch with one corpus; of several, an utterance may come more than once an epoch.
            return self._augmenter.apply(waveform, epoch=row.visit, members=row.members, on_bad=report)
        except InputError as error:
            self._report_bad(row.members[0], update, error)
            return None

    def _report_bad(self, index: int, update: int, error: Exception) -> None:
        utterance_id = self._source.utterance_ids[index]
        if self._on_bad == "raise":
            raise InputError(f"cannot read utterance {utterance_id}: {error}") from error
        if self.unreadable.add(update=update, utterance_id=utterance_id, reason=str(error)):
            logging.warning("Utterance %s is left out, it cannot be read: %s", utterance_id, error)

    def _row_labels(self, row: PlannedRow) -> np.ndarray:
        parts: list[np.ndarray] = []
        for index in row.members:
            text = normalize_transcript(self._source.texts[index], self._text_normalization)
            labels = np.array(self._tokenizer.encode(text), dtype=np.int32)
            if labels.size:  # no delimiter beside an empty text
                parts += [self._delimiter, labels] if parts else [labels]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int32)

    def _find_label_widths(self, max_label_length: int | None) -> dict[int, int]:
        """Returns the length L of the labels for each bucket boundary, enough for any row of the bucket."""
        shortest = samples_at_speed(self._plan.utterance_samples, max(self._plan.speed_factors))
        most = self._plan.concatenation.max_utterances
        widths = {}
        for boundary in self._plan.bucket_boundaries:
            fitting = np.sort(self._label_lengths[shortest <= boundary])[-most:]
            # Keep at least one label: many kernels treat axes of size 0 differently.
            num_delimiters = len(self._delimiter) * (len(fitting) - 1)
            widths[boundary] = max(1, int(fitting.sum()) + num_delimiters)
        largest = max(widths.values())
        if max_label_length is None:
            return widths
        if largest > max_label_length:
            raise InputError(
                f"a row may need {largest} labels, max_label_length is {max_label_length}: raise "
                "it or leave out long transcripts"
            )
        return dict.fromkeys(widths, max_label_length)


def aligned_zeros(shape: tuple[int, ...], dtype: type) -> np.ndarray:
    """Returns zeros that TensorFlow takes as they are, instead of copying them while it holds the interpreter lock.

    NumPy aligns large arrays to 16 bytes. Copying a batch took three times as long as reading it from `pcm16` shards
    and limited all threads together to 6,000 seconds of audio a second.
    """
    num_bytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    buffer = np.zeros(num_bytes + _ALIGNMENT, np.uint8)
    start = -buffer.ctypes.data % _ALIGNMENT
    return buffer[start : start + num_bytes].view(dtype).reshape(shape)
