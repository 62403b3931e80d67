"""The training loop and its step: one `next(iterator)` delivers every row of one optimizer update."""

from __future__ import annotations

import ctypes
import math
import time
from collections.abc import Callable

import orbit
import tensorflow as tf
import tf_keras

from common.whole_compilation import compile_whole, is_compiled_whole
from engine.checkpointing.background_save import Changes
from engine.distributed import strategy as runtime
from engine.protocols import AcousticModel, Batch, FeasibleFn, LossFn
from engine.training import data_digest, loop_statistics
from engine.training.device_feed import DeviceFeed
from engine.training.ema import EmaWeights
from engine.training.gradients import UpdateGradients
from engine.training.interruptible_loop import call_between_updates, split_into_parts
from engine.training.loop_statistics import STATISTICS
from engine.training.optimizer import DynamicLossScale
from engine.training.options import TrainerOptions
from engine.training.skipped_updates import SkipCounter


class Trainer(orbit.StandardTrainer):
    """Trains a model with an optimizer, one loop of updates at a time; `orbit.Controller` is the outer loop.

    Attributes:
        skip_counter: Counts skipped updates.
        ema: Averaged weights, or None.
        statistics: float32 variable, `loop_statistics.STATISTICS` of the current loop.
        auxiliary_losses: float32 variable, sums of `TrainerOptions.auxiliary_losses` in the current loop; None without.
        data_digest: int64 variable, digest of all data seen so far.

    All five are part of the checkpoint, so a loop that is interrupted midway resumes exactly where it stopped.
    """

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
        options: TrainerOptions,
        loss_scale: DynamicLossScale | None = None,
        between_updates: Callable[[], None] | None = None,
    ) -> None:
        """Creates the step's variables; call inside `strategy.scope()`.

        Args:
            strategy: Strategy to train under.
            model: The model; its variables exist.
            optimizer: Applies gradients that are already reduced; of `build_optimizer`, if steps are compiled.
            global_step: Number of updates done, including skipped ones.
            dataset_fn: (input_context, start_update) -> dataset of replica batches.
            loss_fn: Loss of each row.
            feasible_fn: Rows that can have a loss.
            options: Options of the step and the loop.
            loss_scale: Scale of the loss, for float16 only.
            between_updates: Called between the updates of a loop, or between parts of a loop in the graph. May raise;
                then the loop returns no metrics, and its statistics continue in the next loop.
        """
        # `train_loop_begin` creates the dataset: only then has the controller restored the update to start from.
        self._calls_updates = _calls_updates(strategy, options)
        loop = orbit.StandardTrainerOptions(
            use_tf_function=not self._calls_updates, use_tf_while_loop=options.loop_in_graph
        )
        super().__init__(train_dataset=None, options=loop)
        self.strategy = strategy
        self.model = model
        self.optimizer = optimizer
        self.global_step = global_step
        self.loss_scale = loss_scale
        self.skip_counter = SkipCounter(limit=options.max_consecutive_skips)
        self._options = options
        self._dataset_fn = dataset_fn
        has_feed = self._calls_updates and runtime.is_gpu(strategy)
        self._feed = DeviceFeed(strategy.extended.worker_devices[0]) if has_feed else None
        self._gradients = UpdateGradients(
            model=model,
            loss_fn=loss_fn,
            feasible_fn=feasible_fn,
            options=options,
            global_step=global_step,
            loss_scale=loss_scale,
        )
        optimizer.build(self._gradients.variables)
        self.ema = EmaWeights(self._gradients.variables, decay=options.ema_decay) if options.ema_decay else None
        self._between_updates = between_updates
        self.statistics = tf.Variable(tf.zeros([len(STATISTICS)]), trainable=False, name="statistics")
        # A variable of its own: runs without such losses, those of older versions among them, have none to restore.
        self.auxiliary_losses: tf.Variable | None = None
        if num_auxiliary := len(options.auxiliary_losses):
            self.auxiliary_losses = tf.Variable(tf.zeros([num_auxiliary]), trainable=False, name="auxiliary_losses")
        self.data_digest = _counter("data_digest")
        # The state changes only while these flags are 1 or within a step of `_changes`, so another thread may save in
        # between. There is a flag for each device, if all devices belong to this process.
        self._changes = Changes()
        self._is_applying: tuple[tf.Variable, ...] = ()
        if runtime.is_one_host(strategy):
            self._is_applying = tuple(strategy.experimental_local_results(_counter("is_applying")))
        # Not part of the checkpoint: the clock of an interrupted loop is lost.
        self._input_wait_secs = tf.Variable(0.0, trainable=False, name="input_wait_secs")
        self._loop_start_secs = self._samples_before = self._host_wait_secs = 0.0
        if options.jit_compile:
            self._compile()

    def _compile(self) -> None:
        """Lets XLA compile the update, or what of it needs no other replica."""
        if not runtime.is_one_device(self.strategy):
            self._gradients.compile_passes()
            return
        update_unpacked, feed = self.update, self._feed
        # int32 on a GPU would go to the host and back between two functions, so it is unpacked inside.
        compiled = compile_whole(update_unpacked if feed is None else lambda x: update_unpacked(feed.unpack(x)))
        device = self.strategy.extended.worker_devices[0]

        def update(batch: Batch) -> None:
            with tf.device(device):
                compiled(batch)

        self.update = update  # type: ignore[method-assign]

    def create_train_loop_fn(self) -> Callable[..., None]:
        """Returns orbit's loop with calls of `between_updates`."""
        loop, between_updates = super().create_train_loop_fn(), self._between_updates
        if not self._options.loop_in_graph:
            return call_between_updates(loop, between_updates)
        return loop if between_updates is None else split_into_parts(loop, between_updates, wait=self.global_step.numpy)

    def train_loop_begin(self) -> None:
        """Opens the data at the current update if this process has not done so yet; eager."""
        self._input_wait_secs.assign(0.0)
        self._host_wait_secs = 0.0
        self._loop_start_secs = time.monotonic()
        # If another process began the loop, its samples are in the statistics but its time is unknown.
        self._samples_before = float(self.statistics.numpy()[STATISTICS.index("valid_samples")])
        if self._train_iter is None:
            start_update = int(self.global_step.numpy())
            if self._feed is not None:
                self.train_dataset = self._feed.open(self._dataset_fn(tf.distribute.InputContext(), start_update))
                return
            self.train_dataset = self.strategy.distribute_datasets_from_function(
                lambda context: self._dataset_fn(context, start_update)
            )

    # The network uses tf.cond and tf.while_loop. AutoGraph would search every function below for other control flow,
    # which takes more than half of the time of tracing.
    @tf.autograph.experimental.do_not_convert
    def train_step(self, iterator: tf.data.Iterator) -> None:
        """Runs one update; in a graph, cross-replica context, unless updates are called one by one."""
        if self._calls_updates:
            asked_secs = time.monotonic()
            batch = next(iterator)
            waited_secs = time.monotonic() - asked_secs
            self._host_wait_secs += waited_secs if self._feed is None else self._feed.waited_secs(asked_secs)
            self.update(batch)
            return
        is_on_cpu = not (runtime.is_gpu(self.strategy) or runtime.is_tpu(self.strategy))
        batch, waited_secs = _timed_next(iterator, is_clock_first=is_on_cpu)
        self._input_wait_secs.assign_add(waited_secs)
        self.update(batch)

    def update(self, batch: Batch) -> None:
        """Runs the update of one batch: gradients, all-reduce, weights, statistics; graph, cross-replica context.

        All of it can run on a TPU: shapes follow from the batch's, and nothing calls back to the host.
        """
        gradients, statistics, norm = self.strategy.run(self._gradients.compute, args=(batch,))
        # The gradients were summed over replicas, so every replica holds the same norm.
        norm = self.strategy.experimental_local_results(norm)[0]
        statistics = self.strategy.experimental_local_results(statistics)[0]

        # The norm depends on all gradients.
        with tf.control_dependencies(self._mark_applying(1, after=[norm, statistics])):
            done = self._change_state(gradients, statistics, norm)
        # Last, so that an update that is counted is in the weights.
        with tf.control_dependencies(done):
            self.global_step.assign_add(1)
        self._mark_applying(0, after=[self.global_step.read_value()])

    def _change_state(self, gradients: list[tf.Tensor], statistics: tf.Tensor, norm: tf.Tensor) -> list[tf.Tensor]:
        """Makes all changes of an update but that of the global step; graph, cross-replica context.

        Returns:
            Tensors that exist once all changes are made; empty if no other thread may save.
        """
        statistics, of_auxiliary, pieces = self._gradients.split(statistics)
        is_loss_finite = tf.math.is_finite(statistics[0]) & tf.reduce_all(tf.math.is_finite(of_auxiliary))
        is_finite = tf.math.is_finite(norm) & is_loss_finite
        # A loss or gradient that is not finite must not reach the weights: the update is skipped and counted. So is an
        # update without a row that has a loss: weight decay and Adam's moments would move the weights.
        is_empty = statistics[STATISTICS.index("num_valid")] == 0.0
        is_applied = is_finite & ~is_empty
        if is_compiled_whole():
            self._apply(gradients, is_applied)
            num_skipped = tf.cast(~is_applied, tf.float32)
        else:
            num_skipped = tf.cond(is_applied, lambda: self._apply(gradients), lambda: tf.constant(1.0))
        is_no_fault = is_empty
        if self.loss_scale is not None:
            is_no_fault |= self.loss_scale.can_shrink()
        self.skip_counter.update(is_applied=is_applied, is_no_fault=is_no_fault, update=self.global_step)
        if self.loss_scale is not None:
            self.loss_scale.update(is_finite)
        clip_norm = self._options.clip_norm
        clipped = tf.cast(is_finite & (norm > clip_norm), tf.float32) if clip_norm else 0.0
        update = tf.stack([tf.where(is_finite, norm, 0.0), clipped, num_skipped, 1.0])
        self.data_digest.assign(data_digest.next_digest(self.data_digest, pieces))
        if self.auxiliary_losses is not None:
            self.auxiliary_losses.assign_add(tf.where(is_loss_finite, of_auxiliary, 0.0))
        of_loss = tf.where(is_loss_finite, statistics[: loop_statistics.NUM_LOSS_STATISTICS], 0.0)
        others = statistics[loop_statistics.NUM_LOSS_STATISTICS :]
        self.statistics.assign_add(tf.concat([of_loss, others, update], axis=0))
        if not self._is_applying:
            return []
        written = [self.statistics, self.data_digest, *self.skip_counter.variables]
        if self.auxiliary_losses is not None:
            written.append(self.auxiliary_losses)
        if self.loss_scale is not None:
            written += self.loss_scale.variables
        return [num_skipped, *(variable.read_value() for variable in written)]

    def _mark_applying(self, value: int, *, after: list[tf.Tensor]) -> list[tf.Tensor]:
        """Sets the flags of `settled_version` once `after` exists; returns tensors that exist once they are set."""
        if not self._is_applying:
            return []
        with tf.control_dependencies(after):
            for flag in self._is_applying:
                flag.assign(value)
        return [flag.read_value() for flag in self._is_applying]

    def _apply(self, gradients: list[tf.Tensor], is_applied: tf.Tensor | None = None) -> tf.Tensor:
        """Applies the reduced gradients on every replica; graph, cross-replica context.

        Args:
            gradients: Gradients of the trained variables.
            is_applied: Bool scalar; where it is false, nothing changes. None = they are applied.
        """

        def apply(head_only: bool) -> tf.Tensor:
            self.strategy.run(self._apply_on_replica, args=(gradients, head_only, is_applied))
            return tf.constant(0.0)  # a branch of tf.cond must return a tensor

        if self._options.freeze_encoder_updates:
            # Frozen variables are left out instead of given zeros, which would change Adam's moments and decay weights.
            is_frozen = self.global_step < self._options.freeze_encoder_updates
            return tf.cond(is_frozen, lambda: apply(True), lambda: apply(False))
        return apply(False)

    def _apply_on_replica(
        self, gradients: list[tf.Tensor], head_only: bool, is_applied: tf.Tensor | None = None
    ) -> None:
        variables, is_head_variable = self._gradients.variables, self._gradients.is_head
        pairs = [
            (gradient, variable)
            for gradient, variable, is_head in zip(gradients, variables, is_head_variable, strict=True)
            if is_head or not head_only
        ]
        if is_applied is None:
            self.optimizer.apply_gradients(pairs, skip_gradients_aggregation=True)
        else:
            self.optimizer.apply_gradients_if(is_applied, pairs)
        if self.ema is not None:
            self.ema.update(self.optimizer.iterations, is_applied=is_applied)

    def settled_version(self) -> tuple[int, int, int] | None:
        """Returns an identifier of the state between two updates, None while the state changes; eager, any thread.

        A copy of the state is consistent if this was not None before it and is the same after it.
        """
        averages = self.ema.changes.count if self.ema is not None else 0
        version = (int(self.global_step.numpy()), self._changes.count, averages)
        if not self._is_applying or any(int(flag.numpy()) for flag in self._is_applying):
            return None
        return None if self._changes.is_open or (self.ema is not None and self.ema.changes.is_open) else version

    def settle(self) -> None:
        """Ends the change that `train_loop_end` begins, after its metrics are written and its bad rows counted."""
        self._changes.end()

    def release_data(self) -> None:
        """Lets the input pipeline go without destroying it.

        The destructor waits for the tuner thread of the prefetch onto the device, which can sleep for up to a minute
        (docs/decisions/0084). One reference is kept for ever, so that the destructor never runs.
        """
        if self._train_iter is not None:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._train_iter))
        self.train_dataset = None

    def _loop_speed(self, sums: list[float]) -> float:
        loop_secs = time.monotonic() - self._loop_start_secs
        return loop_statistics.audio_secs_per_sec(sums, samples_before=self._samples_before, loop_secs=loop_secs)

    def peek(self) -> dict[str, float]:
        """Returns loss and speed of the current loop so far; eager, waits for the device."""
        sums = self.statistics.numpy().tolist()
        loss = loop_statistics.mean_loss(sums)
        return {"audio_secs_per_sec": self._loop_speed(sums), **({"loss": loss} if loss == loss else {})}

    def train_loop_end(self) -> dict[str, float]:
        """Returns the loop's metrics and resets its statistics; eager.

        Until `settle` is called, a copy of the state would lose the metrics.
        """
        self._changes.begin()
        sums = self.statistics.numpy().tolist()
        self.statistics.assign(tf.zeros([len(STATISTICS)]))
        auxiliary = {}
        if self.auxiliary_losses is not None:
            num_valid = sums[STATISTICS.index("num_valid")] or math.nan
            totals = zip(self._options.auxiliary_losses, self.auxiliary_losses.numpy().tolist(), strict=True)
            auxiliary = {name: total / num_valid for name, total in totals}
            self.auxiliary_losses.assign(tf.zeros_like(self.auxiliary_losses))
        loop_secs = max(time.monotonic() - self._loop_start_secs, 1e-6)
        metrics = {
            **loop_statistics.loop_metrics(sums),
            **auxiliary,
            "learning_rate": float(self.optimizer.learning_rate.numpy()),
            "audio_secs_per_sec": self._loop_speed(sums),
            # An upper bound on an accelerator, which computes while the host waits.
            "input_stall_ratio": min((float(self._input_wait_secs.numpy()) + self._host_wait_secs) / loop_secs, 1.0),
        }
        if self.loss_scale is not None:
            metrics["loss_scale"] = float(self.loss_scale.scale.numpy())
        return metrics


def _calls_updates(strategy: tf.distribute.Strategy, options: TrainerOptions) -> bool:
    """Returns whether Python calls each update, as a function of its batch, and not a graph around it.

    Then compiled updates are traced for the sizes of their batches, which attention's GPU kernels need.
    """
    return options.jit_compile and runtime.is_one_device(strategy) and not options.loop_in_graph


def _counter(name: str) -> tf.Variable:
    return tf.Variable(
        0, dtype=tf.int64, trainable=False, name=name, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA
    )


def _timed_next(iterator: tf.data.Iterator, *, is_clock_first: bool) -> tuple[Batch, tf.Tensor]:
    """Returns the next batch and the seconds until it came; graph, cross-replica context.

    Args:
        iterator: Iterator of batches.
        is_clock_first: Whether nothing can use the batch before the clock is read. A process with a single thread may
            otherwise run the update first and count it as waiting. An accelerator must not wait for the host's clock.
    """
    start = _now_secs()
    with tf.control_dependencies([start]):
        batch = next(iterator)
    with tf.control_dependencies(tf.nest.flatten(batch, expand_composites=True)):
        end = _now_secs()
    if is_clock_first:
        with tf.control_dependencies([end]):
            batch = tf.nest.map_structure(_same, batch, expand_composites=True)
    return batch, tf.cast(end - start, tf.float32)


def _same(x: tf.Tensor) -> tf.Tensor:
    """Returns the same tensor, on its device and without a copy, as the output of a new operation."""
    with tf.device(x.device):
        return tf.identity(x)


def _now_secs() -> tf.Tensor:
    """Returns the time of a clock, in seconds; graph."""
    if runtime.is_deterministic():  # then TensorFlow refuses its own clock
        return tf.numpy_function(time.time, [], tf.float64)
    return tf.timestamp()
