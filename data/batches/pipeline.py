"""Plan to batches: a tf.data.Dataset whose elements are one replica's arrays of one update.

The dataset counts, the host fills: element e of a `Dataset.range` is mapped to (update, replica),
and NumPy does the rest. So any start is O(1), and hosts and replicas agree without talking.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from absl import logging

from data.audio.decoding import SAMPLE_RATE, fit_length, normalize_waveform, resample
from data.batches.plan import BatchPlan, PlannedRow, samples_at_speed
from data.batches.unreadable import UnreadableUtterances
from data.common.errors import InputError
from data.corpus.sources import Source
from data.text.tokenizer import CharTokenizer, normalize_transcript

# The keys of a batch and their types, in the order in which `build_dataset` passes them around.
BATCH_DTYPES = {
    "waveform": np.float32,
    "waveform_lengths": np.int32,
    "labels": np.int32,
    "label_lengths": np.int32,
    "weight": np.float32,
    "utterance_index": np.int64,
}


def build_dataset(
    *,
    source: Source,
    plan: BatchPlan,
    tokenizer: CharTokenizer,
    text_style: str,
    num_replicas: int = 1,
    num_input_pipelines: int = 1,
    input_pipeline_id: int = 0,
    start_update: int = 0,
    num_updates: int | None = None,
    num_parallel_calls: int = 2,
    prefetch: int = 4,
    max_label_length: int | None = None,
    on_bad: str = "skip",
    unreadable: UnreadableUtterances | None = None,
    normalize: bool = True,
) -> tf.data.Dataset:
    """Builds the batches of the replicas that one input pipeline (one host) feeds.

    An element is one replica's share of one update; the elements of an update follow each other,
    local replicas in order. Every replica gets the same shapes within an update: the waveforms'
    length T is a bucket boundary, the labels' length L a function of it, so there are no more
    shapes than buckets.

    Args:
        source: what to read; its utterances are the plan's.
        plan: which utterances make which update.
        tokenizer: transcripts to labels.
        text_style: `normalize_transcript`'s style.
        num_replicas: replicas of all input pipelines; must divide the plan's global batch size.
        num_input_pipelines: hosts; must divide `num_replicas`. Each feeds as many, contiguous ones.
        input_pipeline_id: this host.
        start_update: update to begin with, counted over all epochs.
        num_updates: updates to give; None never ends.
        num_parallel_calls: batches made at the same time.
        prefetch: finished batches kept ready.
        max_label_length: pads all labels to this length; None to the longest a bucket can hold.
        on_bad: what an unreadable utterance does. "skip": its row gets weight 0 and it is logged
            once by its id. "raise": iterating ends with `tf.errors.InvalidArgumentError`.
        unreadable: collects the utterances that were skipped.
        normalize: whether a row gets zero mean and unit variance, as most models hear it, or stays as it is read.

    Returns:
        Dicts of waveform [B, T] float32 (as `normalize` says, then padded with zeros), waveform_lengths [B]
        int32 in samples, labels [B, L] int32 (padded with 0), label_lengths [B] int32, weight [B]
        float32 (0 for padding rows and unreadable ones) and utterance_index [B] int64 (a joined
        row's first member, -1 for padding rows). B, T and L are static where they cannot vary.

    Raises:
        InputError: labels that do not fit `max_label_length`.
        ValueError: counts that do not divide, or a source that is not the plan's.
    """
    if num_input_pipelines < 1 or num_replicas % num_input_pipelines:
        raise ValueError(f"{num_replicas=} must be a multiple of {num_input_pipelines=}")
    if not 0 <= input_pipeline_id < num_input_pipelines:
        raise ValueError(f"{input_pipeline_id=} must be in [0, {num_input_pipelines})")
    if start_update < 0 or (num_updates is not None and num_updates < 0):
        raise ValueError(f"{start_update=} and {num_updates=} must be >= 0")
    maker = BatchMaker(
        source=source,
        plan=plan,
        tokenizer=tokenizer,
        text_style=text_style,
        num_replicas=num_replicas,
        max_label_length=max_label_length,
        on_bad=on_bad,
        unreadable=unreadable,
        normalize=normalize,
    )
    num_local = num_replicas // num_input_pipelines
    first_replica = input_pipeline_id * num_local

    def make_arrays(element: np.int64) -> list[np.ndarray]:
        update, local_replica = divmod(int(element), num_local)
        return list(maker.make(update, first_replica + local_replica).values())

    def make_batch(element: tf.Tensor) -> dict[str, tf.Tensor]:
        dtypes = [tf.as_dtype(dtype) for dtype in BATCH_DTYPES.values()]
        tensors = tf.numpy_function(make_arrays, [element], dtypes)
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
    # Everything that it would tune is set above, and destroying an iterator can wait a minute for its thread
    # (docs/decisions/0084).
    options.autotune.enabled = False
    # The plan has shared the rows out already; TensorFlow would do it again, by skipping elements.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options).prefetch(prefetch)


class BatchMaker:
    """Makes the arrays of a replica's share of an update: plain NumPy, for any number of threads.

    Attributes:
        unreadable: the utterances found unreadable so far.
        static_shapes: shape of each array of a batch, None where it varies.
    """

    def __init__(
        self,
        *,
        source: Source,
        plan: BatchPlan,
        tokenizer: CharTokenizer,
        text_style: str,
        num_replicas: int = 1,
        max_label_length: int | None = None,
        on_bad: str = "skip",
        unreadable: UnreadableUtterances | None = None,
        normalize: bool = True,
    ):
        """Measures all transcripts; the arguments and errors are those of `build_dataset`."""
        if num_replicas < 1 or plan.row_multiple % num_replicas:
            raise ValueError(
                f"the rows of an update, a multiple of {plan.row_multiple}, cannot be shared out evenly "
                f"among {num_replicas} replicas: the number of replicas must divide that multiple"
            )
        if on_bad not in ("skip", "raise"):
            raise ValueError(f"on_bad is {on_bad!r}, wanted skip or raise")
        if not np.array_equal(plan.utterance_samples, source.num_samples):
            raise ValueError("the plan was made for other utterances than the source has")
        self._source = source
        self._plan = plan
        self._num_replicas = num_replicas
        self._on_bad = on_bad
        self._normalize = normalize
        self.unreadable = UnreadableUtterances() if unreadable is None else unreadable
        self._tokenizer = tokenizer
        self._text_style = text_style
        self._delimiter = np.array(tokenizer.encode(" "), dtype=np.int32)
        # Their numbers alone: 281,000 label sequences would take seconds to make before the first batch.
        labels = (tokenizer.num_labels(normalize_transcript(text, text_style)) for text in source.texts)
        self._label_lengths = np.fromiter(labels, dtype=np.int64, count=len(source.texts))
        self._label_widths = self._find_label_widths(max_label_length)
        batch_size = plan.bucket_rows[0] // num_replicas if len(set(plan.bucket_rows)) == 1 else None
        samples = plan.bucket_boundaries[0] if len(plan.bucket_boundaries) == 1 else None
        widths = set(self._label_widths.values())
        self.static_shapes: dict[str, tuple[int | None, ...]] = {
            **dict.fromkeys(BATCH_DTYPES, (batch_size,)),
            "waveform": (batch_size, samples),
            "labels": (batch_size, widths.pop() if len(widths) == 1 else None),
        }

    def make(self, update: int, replica: int = 0) -> dict[str, np.ndarray]:
        """Returns a batch with the keys and types of `BATCH_DTYPES`.

        Raises:
            InputError: an utterance is unreadable, and `on_bad` is "raise".
        """
        planned = self._plan.batch(update, replica=replica, num_replicas=self._num_replicas)
        sizes = {
            "waveform": (len(planned.rows), planned.padded_samples),
            "labels": (len(planned.rows), self._label_widths[planned.padded_samples]),
        }
        batch = {key: np.zeros(sizes.get(key, (len(planned.rows),)), dtype) for key, dtype in BATCH_DTYPES.items()}
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
        """Returns a row's waveform as the model hears it, None if any of its utterances is unreadable."""
        gap = np.zeros(self._plan.join_gap_samples, dtype=np.float32)
        pieces: list[np.ndarray] = []
        for index in row.members:
            try:
                pieces += [gap, self._read_utterance(index, row.speed)]
            # What readers raise: InputError, soundfile's RuntimeError, a vanished file's OSError.
            # Anything else is a fault of the program and must show.
            except (ValueError, RuntimeError, OSError) as error:
                self._report_bad(index, update, error)
                return None
        waveform = np.concatenate(pieces[1:])
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
        # Fewer samples at the same rate play faster; the pitch moves with the speed.
        waveform = resample(waveform, round(SAMPLE_RATE * speed), SAMPLE_RATE)
        return fit_length(waveform, int(samples_at_speed(wanted, speed)))

    def _report_bad(self, index: int, update: int, error: Exception) -> None:
        utterance_id = self._source.utterance_ids[index]
        if self._on_bad == "raise":
            raise InputError(f"cannot read utterance {utterance_id}: {error}") from error
        if self.unreadable.add(update=update, utterance_id=utterance_id, reason=str(error)):
            logging.warning("Utterance %s is left out, it cannot be read: %s", utterance_id, error)

    def _row_labels(self, row: PlannedRow) -> np.ndarray:
        pieces: list[np.ndarray] = []
        for index in row.members:
            text = normalize_transcript(self._source.texts[index], self._text_style)
            labels = np.array(self._tokenizer.encode(text), dtype=np.int32)
            # As joining the texts by a space would: none beside an empty one.
            if labels.size:
                pieces += [self._delimiter, labels] if pieces else [labels]
        return np.concatenate(pieces) if pieces else np.zeros(0, dtype=np.int32)

    def _find_label_widths(self, max_label_length: int | None) -> dict[int, int]:
        """Returns the labels' length L for each bucket boundary: what any of its rows may need."""
        shortest = samples_at_speed(self._plan.utterance_samples, max(self._plan.speed_factors))
        most = self._plan.join_max_utterances
        widths = {}
        for boundary in self._plan.bucket_boundaries:
            fitting = np.sort(self._label_lengths[shortest <= boundary])[-most:]
            # At least 1: operations on an axis of size 0 are a path of their own in many kernels.
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
