"""The training step: one batch in, one optimizer update out.

One `next(iterator)` delivers every row of one update. Each replica splits its rows into microbatches, sums their
gradients locally, and one all-reduce makes the gradient of the whole update. The divisor of the loss, the number of
valid utterances of the whole update, is known before the first backward pass; so any split into replicas and
microbatches gives the same gradient.
"""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable

import orbit
import tensorflow as tf
import tf_keras

from engine.checkpointing.background_save import Changes
from engine.distributed import strategy as runtime
from engine.protocols import AcousticModel, Batch, FeasibleFn, LossFn
from engine.training import frame_statistics
from engine.training.ema import EmaWeights
from engine.training.optimizer import DynamicLossScale, clip_by_global_norm
from engine.training.skipped_updates import SkipCounter

SAMPLE_RATE = 16_000
LOSS_DIVISORS = ("utterances", "label_tokens")
# What a train loop sums up, in the order of the variable that holds it.
_STATISTICS = (
    "loss_sum",  # nats, over valid rows
    *frame_statistics.FRAME_SUMS,  # over their frames
    "num_valid",  # rows with a loss
    "num_rows",  # rows that are not padding rows
    "num_infeasible",  # rows whose labels do not fit their frames
    "num_bad",  # rows whose audio could not be read
    "valid_samples",
    "padded_samples",  # valid or not
    "gradient_norm_sum",  # of applied updates
    "num_clipped",
    "num_skipped_updates",  # loss or gradient not finite, or no row with a loss
    "num_updates",
)
# The first of them, which an update whose loss is not finite would spoil for the whole loop.
_NUM_LOSS_STATISTICS = 2 + len(frame_statistics.FRAME_SUMS)
# Beside them travel the pieces of an update's data digest, so that it costs no all-reduce of its own.
_NUM_DIGEST_PIECES, _DIGEST_PIECE_BITS = 3, 14
# Odd and large, as in 64-bit mixing functions; written as the signed numbers they are in TensorFlow.
_MIX_ROW, _MIX_POSITION, _MIX_UPDATE = -0x61C8864680B583EB, 0x2545F4914F6CDD1D, 0x5851F42D4C957F2D
# A loop in the graph comes back to the host after about so long, where a signal may be waiting.
_LONGEST_UNHEARD_SECS = 2.0


class Trainer(orbit.StandardTrainer):
    """Drives one model and one optimizer; the outer loop is `orbit.Controller`."""

    def __init__(
        self,
        *,
        strategy: tf.distribute.Strategy,
        model: AcousticModel,
        optimizer: tf_keras.optimizers.Optimizer,
        global_step: tf.Variable,
        dataset_fn: Callable[[tf.distribute.InputContext, int], tf.data.Dataset],
        loss_fn: LossFn,
        feasible_fn: FeasibleFn,
        loss_scale: DynamicLossScale | None = None,
        accum_steps: int = 1,
        clip_norm: float = 0.0,
        freeze_encoder_updates: int = 0,
        max_skipped_in_a_row: int = 0,
        ema_decay: float = 0.0,
        seed: int = 0,
        loss_divisor: str = "utterances",
        loop_in_graph: bool = False,
        between_updates: Callable[[], None] | None = None,
        blank_id: int = 0,
    ) -> None:
        """Creates the step's state; call inside `strategy.scope()`.

        Args:
            strategy: Where the step runs.
            model: The model; its variables exist.
            optimizer: Applies already reduced gradients.
            global_step: Counts updates, skipped ones included.
            dataset_fn: (input_context, start_update) -> dataset of replica batches.
            loss_fn: Loss of each row.
            feasible_fn: Rows that can have a loss.
            loss_scale: For float16 only.
            accum_steps: Microbatches per update and replica; must divide the rows of a replica, whose number may vary
                from update to update.
            clip_norm: Largest global gradient norm; 0 = no clipping.
            freeze_encoder_updates: Updates during which only `model.head_variables` train.
            max_skipped_in_a_row: Limit of `skip_counter`.
            ema_decay: Of `ema`; 0 = none.
            seed: Of dropout and masks.
            loss_divisor: What the summed loss of an update is divided by: its valid "utterances" or their
                "label_tokens".
            loop_in_graph: Whether updates run in a tf.while_loop (TPU), for about two seconds at a time, or by one call
                each.
            between_updates: Called between the updates of a loop, or between the times in the graph. May raise: then
                the loop has no end and no figures, and its statistics go on with the next one.
            blank_id: Index of the CTC blank, whose share of the frames is counted; `loss_fn` has its own.
        """
        # The dataset is made in `train_loop_begin`: only then has the controller restored the update to start from.
        super().__init__(train_dataset=None, options=orbit.StandardTrainerOptions(use_tf_while_loop=loop_in_graph))
        if accum_steps < 1:
            raise ValueError(f"train.accum_steps must be at least 1, got {accum_steps}")
        if loss_divisor not in LOSS_DIVISORS:
            raise ValueError(f"train.loss_divisor must be one of {', '.join(LOSS_DIVISORS)}, got {loss_divisor!r}")
        self.strategy = strategy
        self.model = model
        self.optimizer = optimizer
        self.global_step = global_step
        self.loss_scale = loss_scale
        self.skip_counter = SkipCounter(limit=max_skipped_in_a_row)
        self._dataset_fn = dataset_fn
        self._loss_fn = loss_fn
        self._feasible_fn = feasible_fn
        self._accum_steps = accum_steps
        self._clip_norm = clip_norm
        self._freeze_encoder_updates = freeze_encoder_updates
        self._seed = seed
        self._loss_divisor = loss_divisor
        self._variables = list(model.trainable_variables)
        head = {variable.ref() for variable in model.head_variables}
        self._is_head = [variable.ref() in head for variable in self._variables]
        optimizer.build(self._variables)
        self.ema = EmaWeights(self._variables, decay=ema_decay) if ema_decay else None
        self._between_updates = between_updates
        self._blank_id = blank_id
        # Both belong into the checkpoint: a loop that was left in its middle goes on as if it had not been.
        self.statistics = tf.Variable(tf.zeros([len(_STATISTICS)]), trainable=False, name="statistics")
        self.data_digest = tf.Variable(
            0,
            dtype=tf.int64,
            trainable=False,
            name="data_digest",
            aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
        )
        # What is in the checkpoint changes only while these are 1, or within a step of `_changes`: another thread may
        # save in between. One for each device, where all devices are of this process.
        self._changes = Changes()
        self._is_applying: tuple[tf.Variable, ...] = ()
        if runtime.is_one_host(strategy):
            flag = tf.Variable(
                0,
                dtype=tf.int64,
                trainable=False,
                name="is_applying",
                aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
            )
            self._is_applying = tuple(strategy.experimental_local_results(flag))
        # Of this process: the clock of a loop that was left in its middle is gone.
        self._input_wait_secs = tf.Variable(0.0, trainable=False, name="input_wait_secs")
        self._loop_start_secs = self._samples_before = 0.0

    def create_train_loop_fn(self) -> Callable[..., None]:
        """Returns orbit's loop, with `between_updates` in it."""
        loop = super().create_train_loop_fn()
        between_updates = self._between_updates
        if between_updates is None:
            return loop
        if self._train_options.use_tf_while_loop:
            return self._interruptible_in_graph(loop, between_updates)

        def interruptible(iterator: tf.data.Iterator, num_steps: tf.Tensor) -> None:
            last = int(num_steps)

            def count(num_done: int, output: None) -> int:
                # Not after the last one: what is due at the end of a loop must not be left out.
                if num_done + 1 < last:
                    between_updates()
                return num_done + 1

            loop(iterator, num_steps, state=0, reduce_fn=count)

        return interruptible

    def _interruptible_in_graph(
        self, loop: Callable[..., None], between_updates: Callable[[], None]
    ) -> Callable[..., None]:
        """Splits a loop in the graph into parts that are over soon; the updates are the same ones."""
        # Of an update; None while all that was timed is a compilation.
        slowest_secs: float | None = None
        is_compiled = False

        def interruptible(iterator: tf.data.Iterator, num_steps: tf.Tensor) -> None:
            nonlocal slowest_secs, is_compiled
            left = int(num_steps)
            while left:
                part = 1 if slowest_secs is None else int(max(_LONGEST_UNHEARD_SECS / slowest_secs, 1))
                part = min(part, left)
                start = time.monotonic()
                loop(iterator, tf.constant(part, num_steps.dtype))
                # An accelerator may have taken its work and not have done it: this waits.
                self.global_step.numpy()
                secs = (time.monotonic() - start) / part
                if is_compiled:
                    # One that was slow once, for a long row perhaps, is soon forgotten.
                    slowest_secs = max(secs, 1e-6, 0.8 * (slowest_secs or 0.0))
                is_compiled = True
                left -= part
                if left:
                    between_updates()

        return interruptible

    def train_loop_begin(self) -> None:
        """Opens the data at the current update in a fresh process; eager."""
        self._input_wait_secs.assign(0.0)
        self._loop_start_secs = time.monotonic()
        # A loop that another process began brings its samples along, but not its time.
        self._samples_before = float(self.statistics.numpy()[_STATISTICS.index("valid_samples")])
        if self._train_iter is None:
            start_update = int(self.global_step.numpy())
            self.train_dataset = self.strategy.distribute_datasets_from_function(
                lambda context: self._dataset_fn(context, start_update)
            )

    # The network's branches are tf.cond and tf.while_loop. AutoGraph would look for others in every function that runs
    # below: more than half of the time that tracing takes.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, iterator: tf.data.Iterator) -> None:
        """One update; graph, cross-replica context."""
        batch, waited_secs = _timed_next(iterator)
        self._input_wait_secs.assign_add(waited_secs)
        self.update(batch)

    def update(self, batch: Batch) -> None:
        """The whole update of one batch: gradients, all-reduce, weights and figures; graph, cross-replica context.

        Everything in here can run on a TPU: shapes follow from the batch's, and nothing calls back to the host.
        """
        gradients, statistics, norm = self.strategy.run(self._compute_gradients, args=(batch,))
        # The gradients were summed over replicas: every replica holds the same norm.
        norm = self.strategy.experimental_local_results(norm)[0]
        statistics = self.strategy.experimental_local_results(statistics)[0]
        is_loss_finite = tf.math.is_finite(statistics[0])
        is_finite = tf.math.is_finite(norm) & is_loss_finite

        # Of the gradients the norm is made.
        with tf.control_dependencies(self._mark_applying(1, after=[norm, statistics])):
            done = self._take_update(gradients, statistics, norm, is_finite=is_finite, is_loss_finite=is_loss_finite)
        # Last: an update that is counted is in the weights, whoever looks.
        with tf.control_dependencies(done):
            self.global_step.assign_add(1)
        self._mark_applying(0, after=[self.global_step.read_value()])

    def _take_update(
        self,
        gradients: list[tf.Tensor],
        statistics: tf.Tensor,
        norm: tf.Tensor,
        *,
        is_finite: tf.Tensor,
        is_loss_finite: tf.Tensor,
    ) -> list[tf.Tensor]:
        """Changes all that an update changes, but for the global step; graph, cross-replica context.

        Returns:
            Tensors that exist once all of it is done; none where nobody asks.
        """
        # A loss or gradient that is not finite must not reach the weights: the update is skipped and counted. So is one
        # without any row that has a loss: its zero gradient would still let weight decay and Adam's moments move them.
        is_empty = statistics[_STATISTICS.index("num_valid")] == 0.0
        num_skipped = tf.cond(is_finite & ~is_empty, lambda: self._apply(gradients), lambda: tf.constant(1.0))
        is_no_fault = is_empty
        if self.loss_scale is not None:
            is_no_fault |= self.loss_scale.can_shrink()
        self.skip_counter.update(is_applied=is_finite & ~is_empty, is_no_fault=is_no_fault, update=self.global_step)
        if self.loss_scale is not None:
            self.loss_scale.update(is_finite)
        clipped = tf.cast(is_finite & (norm > self._clip_norm), tf.float32) if self._clip_norm else 0.0
        update = tf.stack([tf.where(is_finite, norm, 0.0), clipped, num_skipped, 1.0])
        self._advance_digest(statistics[-_NUM_DIGEST_PIECES:])
        statistics = statistics[:-_NUM_DIGEST_PIECES]
        of_loss = tf.where(is_loss_finite, statistics[:_NUM_LOSS_STATISTICS], 0.0)
        self.statistics.assign_add(tf.concat([of_loss, statistics[_NUM_LOSS_STATISTICS:], update], axis=0))
        if not self._is_applying:
            return []
        written = [self.statistics, self.data_digest, *self.skip_counter.variables]
        if self.loss_scale is not None:
            written += self.loss_scale.variables
        return [num_skipped, *(variable.read_value() for variable in written)]

    def _mark_applying(self, value: int, *, after: list[tf.Tensor]) -> list[tf.Tensor]:
        """Sets the flag of `settled_version` once `after` exists; returns what exists once it is set."""
        if not self._is_applying:
            return []
        with tf.control_dependencies(after):
            for flag in self._is_applying:
                flag.assign(value)
        return [flag.read_value() for flag in self._is_applying]

    def settled_version(self) -> tuple[int, int, int] | None:
        """Returns what tells the states between two updates apart, None while the state changes; eager, any thread.

        A copy of the state is whole if this was not None before it and is the same after it.
        """
        averages = self.ema.changes.count if self.ema is not None else 0
        version = (int(self.global_step.numpy()), self._changes.count, averages)
        if not self._is_applying or any(int(flag.numpy()) for flag in self._is_applying):
            return None
        return None if self._changes.is_open or (self.ema is not None and self.ema.changes.is_open) else version

    def settle(self) -> None:
        """Ends what `train_loop_end` begins: its figures are written, and a bad row or skipped update counted."""
        self._changes.end()

    def release_data(self) -> None:
        """Lets the input pipeline go without destroying it.

        The destructor waits for the tuner thread of the prefetch onto the device, which can sleep for up to a minute
        (docs/decisions/0084). One reference is kept for ever, so that nobody runs the destructor.
        """
        if self._train_iter is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._train_iter))
        self.train_dataset = None

    def peek(self) -> dict[str, float]:
        """Returns what the loop under way comes to so far, as `train_loop_end` will; eager, waits for the device."""
        total = dict(zip(_STATISTICS, self.statistics.numpy().tolist(), strict=True))
        loop_secs = max(time.monotonic() - self._loop_start_secs, 1e-6)
        found = {"audio_secs_per_sec": (total["valid_samples"] - self._samples_before) / SAMPLE_RATE / loop_secs}
        if total["num_valid"]:
            found["loss"] = total["loss_sum"] / total["num_valid"]
        return found

    def train_loop_end(self) -> dict[str, float]:
        """Returns the loop's figures and begins new ones; eager.

        Until `settle`, a copy of the state would lose them.
        """
        self._changes.begin()
        total = dict(zip(_STATISTICS, self.statistics.numpy().tolist(), strict=True))
        self.statistics.assign(tf.zeros([len(_STATISTICS)]))
        num_updates = max(total["num_updates"], 1.0)
        loop_secs = max(time.monotonic() - self._loop_start_secs, 1e-6)
        num_applied = total["num_updates"] - total["num_skipped_updates"]
        # Not 0 where nothing had a loss: that would look like a perfect one.
        num_valid, num_frames = total["num_valid"] or math.nan, total["num_frames"] or math.nan
        figures = {
            "loss": total["loss_sum"] / num_valid,
            "blank_share": total["num_blank_frames"] / num_frames,
            "mean_confidence": total["confidence_sum"] / num_frames,
            "labels_per_frame": total["num_labels"] / num_frames,
            "learning_rate": float(self.optimizer.learning_rate.numpy()),
            "gradient_norm": total["gradient_norm_sum"] / max(num_applied, 1.0),
            "clipped_share": total["num_clipped"] / num_updates,
            "audio_secs": total["valid_samples"] / SAMPLE_RATE,
            "padding_share": 1.0 - total["valid_samples"] / max(total["padded_samples"], 1.0),
            "audio_secs_per_sec": (total["valid_samples"] - self._samples_before) / SAMPLE_RATE / loop_secs,
            # Of the loop's wall time; on an accelerator that still computes meanwhile, an upper bound.
            "input_stall_share": min(float(self._input_wait_secs.numpy()) / loop_secs, 1.0),
            "num_rows": total["num_rows"],
            "num_infeasible": total["num_infeasible"],
            "num_bad": total["num_bad"],
            "num_skipped_updates": total["num_skipped_updates"],
        }
        if self.loss_scale is not None:
            figures["loss_scale"] = float(self.loss_scale.scale.numpy())
        return figures

    def _compute_gradients(self, batch: Batch) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Gradient of the whole update, its statistics and its norm; graph, replica context."""
        context = tf.distribute.get_replica_context()
        weight = batch["weight"]
        num_frames = self.model.output_lengths(batch["waveform_lengths"])
        is_feasible = tf.cast(self._feasible_fn(batch["labels"], batch["label_lengths"], num_frames), tf.float32)
        valid = weight * is_feasible
        units = valid * tf.cast(batch["label_lengths"], tf.float32) if self._loss_divisor == "label_tokens" else valid
        divisor = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(units))
        row_scale = valid / tf.maximum(divisor, 1.0)

        gradients, sums = self._accumulate(batch, valid, row_scale)
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if self.loss_scale is not None:
            gradients = self.loss_scale.unscale(gradients)
        # The norm before clipping shows whether the gradient is finite, and is what the log shows.
        if self._clip_norm:
            gradients, norm = clip_by_global_norm(gradients, self._clip_norm)
        else:
            norm = tf.linalg.global_norm(gradients)

        is_row = tf.cast(batch["utterance_index"] >= 0, tf.float32)
        shape = tf.cast(tf.shape(batch["waveform"]), tf.float32)
        statistics = tf.stack(
            [
                *tf.unstack(sums),
                tf.reduce_sum(valid),
                tf.reduce_sum(is_row),
                tf.reduce_sum(weight * (1.0 - is_feasible)),
                tf.reduce_sum(is_row * (1.0 - weight)),
                tf.reduce_sum(tf.cast(batch["waveform_lengths"], tf.float32)),
                shape[0] * shape[1],
                *_digest_pieces(batch["utterance_index"], context.replica_id_in_sync_group),
            ]
        )
        return gradients, context.all_reduce(tf.distribute.ReduceOp.SUM, statistics), norm

    def _advance_digest(self, pieces: tf.Tensor) -> None:
        """Takes an update into the digest of all data since the first one, order included; graph, cross-replica."""
        update = tf.constant(0, tf.int64)
        for piece in tf.unstack(tf.cast(pieces, tf.int64)):
            update = tf.bitwise.left_shift(update, tf.constant(20, tf.int64)) + piece
        self.data_digest.assign((self.data_digest + update) * tf.constant(_MIX_UPDATE, tf.int64))

    def _accumulate(self, batch: Batch, valid: tf.Tensor, row_scale: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Sums gradients, losses and frames over this replica's microbatches."""
        if self._accum_steps == 1:
            return self._microbatch_gradients(batch, valid, row_scale)
        num_rows = batch["weight"].shape[0]
        if num_rows is None:  # it varies from update to update; data.row_multiple sees to it that it divides
            num_rows = tf.shape(batch["weight"])[0]
            tf.debugging.assert_equal(num_rows % self._accum_steps, 0, "train.accum_steps must divide the rows")
        elif num_rows % self._accum_steps:
            raise ValueError(
                f"train.accum_steps={self._accum_steps} must divide the rows of one replica, which are {num_rows}"
            )
        size = num_rows // self._accum_steps

        def rows_of(i: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
            # x[i * size : (i + 1) * size] would have an unknown number of rows, which no TPU takes.
            def rows(x: tf.Tensor) -> tf.Tensor:
                zeros = [0] * (x.shape.rank - 1)
                return tf.slice(x, [i * size, *zeros], tf.concat([[size], tf.shape(x)[1:]], axis=0))

            return rows

        def body(i: tf.Tensor, total: list[tf.Tensor], sums: tf.Tensor) -> tuple:
            micro = tf.nest.map_structure(rows_of(i), (batch, valid, row_scale))
            gradients, micro_sums = self._microbatch_gradients(*micro)
            return i + 1, [a + b for a, b in zip(total, gradients, strict=True)], sums + micro_sums

        zeros = [tf.zeros(v.shape, tf.float32) for v in self._variables]
        # One iteration at a time: microbatches that ran side by side would need the memory they are there to save.
        _, gradients, sums = tf.while_loop(
            lambda i, *_: i < self._accum_steps,
            body,
            (tf.constant(0), zeros, tf.zeros([1 + len(frame_statistics.FRAME_SUMS)])),
            parallel_iterations=1,
        )
        return gradients, sums

    def _microbatch_gradients(
        self, batch: Batch, valid: tf.Tensor, row_scale: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Gradients of all variables; zero for the encoder's while it is frozen."""
        if not self._freeze_encoder_updates:
            return self._backpropagate(batch, valid, row_scale, self._variables)

        def head_only() -> tuple[list[tf.Tensor], tf.Tensor]:
            heads = [v for v, is_head in zip(self._variables, self._is_head, strict=True) if is_head]
            gradients, sums = self._backpropagate(batch, valid, row_scale, heads)
            found = iter(gradients)
            return [
                next(found) if is_head else tf.zeros(v.shape, tf.float32)
                for v, is_head in zip(self._variables, self._is_head, strict=True)
            ], sums

        return tf.cond(
            self.global_step < self._freeze_encoder_updates,
            head_only,
            lambda: self._backpropagate(batch, valid, row_scale, self._variables),
        )

    def _backpropagate(
        self, batch: Batch, valid: tf.Tensor, row_scale: tf.Tensor, variables: list[tf.Variable]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """One forward and one backward pass; returns gradients of sum(row_scale * losses), and what is summed up.

        The sums are float32 [5]: the losses' and `health.frame_sums`.
        """
        random = self.model.make_random(seed=self._seed, update=self.global_step, row_ids=batch["utterance_index"])
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            logits = self.model(batch["waveform"], batch["waveform_lengths"], training=True, random=random)
            num_frames = self.model.output_lengths(batch["waveform_lengths"])
            losses = self._loss_fn(logits, num_frames, batch["labels"], batch["label_lengths"])
            # where, not a product: 0 * inf of a row that does not count would still poison the sum.
            loss = tf.reduce_sum(tf.where(valid > 0, losses * row_scale, 0.0))
            if self.loss_scale is not None:
                loss = self.loss_scale.scale_loss(loss)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        loss_sum = tf.reduce_sum(tf.where(valid > 0, losses, 0.0))
        frame_sums = frame_statistics.frame_sums(
            logits, num_frames, batch["label_lengths"], valid, blank_id=self._blank_id
        )
        return gradients, tf.concat([[loss_sum], frame_sums], axis=0)

    def _apply(self, gradients: list[tf.Tensor]) -> tf.Tensor:
        """Applies the reduced gradients on every replica; graph, cross-replica context."""

        def apply(head_only: bool) -> None:
            self.strategy.run(self._apply_on_replica, args=(gradients, head_only))

        if self._freeze_encoder_updates:
            # Frozen variables are left out, not given zeros: Adam's moments and weight decay must not see them.
            is_frozen = self.global_step < self._freeze_encoder_updates
            return tf.cond(is_frozen, lambda: _then(apply, True), lambda: _then(apply, False))
        return _then(apply, False)

    def _apply_on_replica(self, gradients: list[tf.Tensor], head_only: bool) -> None:
        pairs = [
            (gradient, variable)
            for gradient, variable, is_head in zip(gradients, self._variables, self._is_head, strict=True)
            if is_head or not head_only
        ]
        self.optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)
        if self.ema is not None:
            self.ema.update(self.optimizer.iterations)


def _timed_next(iterator: tf.data.Iterator) -> tuple[Batch, tf.Tensor]:
    """The next batch and the seconds that it took to come; graph, cross-replica context."""
    start = tf.timestamp()
    with tf.control_dependencies([start]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        waited_secs = tf.timestamp() - start
    return batch, tf.cast(waited_secs, tf.float32)


def _digest_pieces(utterance_index: tf.Tensor, replica: tf.Tensor | int) -> list[tf.Tensor]:
    """Sums over this replica's rows that tell which utterance stands where in the global batch; graph.

    The pieces are whole numbers small enough that float32 adds up those of a thousand rows exactly, in any order.

    Args:
        utterance_index: int64 [B].
        replica: Number of this replica; every replica has B rows.
    """
    size = tf.shape(utterance_index, tf.int64)[0]
    position = tf.cast(replica, tf.int64) * size + tf.range(size) + 1
    mixed = (utterance_index + 2) * tf.constant(_MIX_ROW, tf.int64) + position * tf.constant(_MIX_POSITION, tf.int64)
    mixed = tf.bitwise.bitwise_xor(mixed, tf.bitwise.right_shift(mixed, tf.constant(29, tf.int64)))
    mixed *= tf.constant(_MIX_ROW, tf.int64)
    mask = tf.constant((1 << _DIGEST_PIECE_BITS) - 1, tf.int64)
    return [
        tf.reduce_sum(tf.cast(tf.bitwise.bitwise_and(tf.bitwise.right_shift(mixed, shift), mask), tf.float32))
        for shift in (tf.constant(8 + 16 * i, tf.int64) for i in range(_NUM_DIGEST_PIECES))
    ]


def _then(apply: Callable[[bool], None], head_only: bool) -> tf.Tensor:
    """Calls `apply` and returns a tensor, as a branch of tf.cond must."""
    apply(head_only)
    return tf.constant(0.0)
