"""Computes the gradient of one update on a replica, independent of how the update is split.

Each replica splits its rows into microbatches, the last of which is filled up with padding rows, and sums their
gradients; one all-reduce sums over the replicas. The divisor of the loss, the number of valid utterances of the whole
update or of their labels, is known before the first backward pass. So any split into replicas and microbatches gives
the same gradient.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import tensorflow as tf

from common.whole_compilation import compile_whole
from engine.protocols import AcousticModel, Batch, FeasibleFn, LossFn
from engine.training.data_digest import NUM_PIECES, digest_pieces
from engine.training.microbatches import divide
from engine.training.optimizer import DynamicLossScale, clip_by_global_norm
from engine.training.options import TrainerOptions
from engine.training.row_losses import TrainingLoss


@dataclasses.dataclass(kw_only=True)
class UpdateGradients:
    """Computes gradients and statistics of a batch.

    Attributes:
        model: The model; its variables exist.
        loss_fn: Loss of each row.
        feasible_fn: Rows that can have a loss.
        options: Options of the trainer.
        global_step: Number of updates done.
        loss_scale: Scale of the loss, for float16 only.
        variables: Trainable variables of the model, in the order of the gradients.
        is_head: For each of them, whether it trains while the encoder is frozen.
    """

    model: AcousticModel
    loss_fn: LossFn
    feasible_fn: FeasibleFn
    options: TrainerOptions
    global_step: tf.Variable
    loss_scale: DynamicLossScale | None

    def __post_init__(self) -> None:
        """Lists the variables and builds the loss."""
        self._loss = TrainingLoss(
            model=self.model, loss_fn=self.loss_fn, options=self.options, global_step=self.global_step
        )
        self.variables = list(self.model.trainable_variables)
        head = {variable.ref() for variable in self.model.head_variables}
        self.is_head = [variable.ref() in head for variable in self.variables]

    def compile_passes(self) -> None:
        """Lets XLA compile all passes of a replica as a whole; the collectives stay outside."""
        self._accumulate = compile_whole(self._accumulate)  # type: ignore[method-assign]

    def compute(self, batch: Batch) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the gradient of the whole update, its statistics and its norm before clipping.

        `split` takes the statistics apart, which are one tensor so that one all-reduce sums them.
        """
        context = tf.distribute.get_replica_context()
        weight = batch["weight"]
        num_frames = self.model.output_lengths(batch["waveform_lengths"])
        is_feasible = tf.cast(self.feasible_fn(batch["labels"], batch["label_lengths"], num_frames), tf.float32)
        valid = weight * is_feasible
        by_tokens = self.options.loss_divisor == "label_tokens"
        units = valid * tf.cast(batch["label_lengths"], tf.float32) if by_tokens else valid
        divisor = context.all_reduce(tf.distribute.ReduceOp.SUM, tf.reduce_sum(units))
        row_scale = valid / tf.maximum(divisor, 1.0)

        gradients, sums = self._accumulate(batch, valid, row_scale)
        gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        if self.loss_scale is not None:
            gradients = self.loss_scale.unscale(gradients)
        if self.options.clip_norm:
            gradients, norm = clip_by_global_norm(gradients, self.options.clip_norm)
        else:
            norm = tf.linalg.global_norm(gradients)

        sums, of_auxiliary = tf.split(sums, [-1, len(self.options.auxiliary_losses)])
        is_row = tf.cast(batch["utterance_index"] >= 0, tf.float32)
        num_rows = tf.reduce_sum(is_row)
        statistics = tf.stack(
            [
                *tf.unstack(sums),
                tf.reduce_sum(valid),
                num_rows,
                tf.reduce_sum(weight * (1.0 - is_feasible)),
                tf.reduce_sum(is_row * (1.0 - weight)),
                tf.reduce_sum(tf.cast(batch["waveform_lengths"], tf.float32)),
                num_rows * tf.cast(tf.shape(batch["waveform"])[1], tf.float32),
                *tf.unstack(of_auxiliary),
                *digest_pieces(batch["utterance_index"], context.replica_id_in_sync_group),
            ]
        )
        return gradients, context.all_reduce(tf.distribute.ReduceOp.SUM, statistics), norm

    def split(self, statistics: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Splits the statistics of `compute`.

        Returns:
            The first of `loop_statistics.STATISTICS`, the sums of `TrainerOptions.auxiliary_losses`, and the pieces of
            the data digest.
        """
        first, of_auxiliary, pieces = tf.split(statistics, [-1, len(self.options.auxiliary_losses), NUM_PIECES])
        return first, of_auxiliary, pieces

    def _accumulate(self, batch: Batch, valid: tf.Tensor, row_scale: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Sums gradients, losses and frame statistics over this replica's microbatches."""
        num_rows, num_samples = (
            tf.shape(batch["waveform"])[axis] if size is None else size
            for axis, size in enumerate(batch["waveform"].shape)
        )
        options = self.options
        count, size = divide(num_rows, num_samples, max_rows=options.microbatch_rows, max_secs=options.microbatch_secs)
        if not tf.is_tensor(count) and count == 1:
            return self._microbatch_gradients(batch, valid, row_scale)
        parts = _cut({**batch, "valid": valid, "row_scale": row_scale}, count, size, count * size - num_rows)

        def body(i: tf.Tensor, total: list[tf.Tensor], sums: tf.Tensor) -> tuple:
            micro = {key: x[i] for key, x in parts.items()}
            gradients, micro_sums = self._microbatch_gradients(micro, micro.pop("valid"), micro.pop("row_scale"))
            total = [a + b for a, b in zip(total, gradients, strict=True)]
            for each, v in zip(total, self.variables, strict=True):
                each.set_shape(v.shape)  # the gradients of a SavedModel have unknown shapes
            return i + 1, total, sums + micro_sums

        zeros = [tf.zeros(v.shape, tf.float32) for v in self.variables]
        # Parallel iterations would need the memory that microbatches are there to save.
        _, gradients, sums = tf.while_loop(
            lambda i, *_: i < count,
            body,
            (tf.constant(0), zeros, tf.zeros([self._loss.num_sums])),
            parallel_iterations=1,
        )
        return gradients, sums

    def _microbatch_gradients(
        self, batch: Batch, valid: tf.Tensor, row_scale: tf.Tensor
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Returns gradients of all variables; zero for the encoder's while it is frozen."""
        if not self.options.freeze_encoder_updates:
            return self._backpropagate(batch, valid, row_scale, self.variables)

        def head_only() -> tuple[list[tf.Tensor], tf.Tensor]:
            heads = [v for v, is_head in zip(self.variables, self.is_head, strict=True) if is_head]
            gradients, sums = self._backpropagate(batch, valid, row_scale, heads)
            found = iter(gradients)
            return [
                next(found) if is_head else tf.zeros(v.shape, tf.float32)
                for v, is_head in zip(self.variables, self.is_head, strict=True)
            ], sums

        return tf.cond(
            self.global_step < self.options.freeze_encoder_updates,
            head_only,
            lambda: self._backpropagate(batch, valid, row_scale, self.variables),
        )

    def _backpropagate(
        self, batch: Batch, valid: tf.Tensor, row_scale: tf.Tensor, variables: list[tf.Variable]
    ) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Runs one forward and one backward pass.

        Returns:
            Gradients of sum(row_scale * losses), and `TrainingLoss.sums`.
        """
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            rows = self._loss.row_losses(batch, valid)
            # Not a product: 0 * inf of an invalid row would still poison the sum.
            loss = tf.reduce_sum(tf.where(valid > 0, rows.total * row_scale, 0.0))
            if self.loss_scale is not None:
                loss = self.loss_scale.scale_loss(loss)
        gradients = tape.gradient(loss, variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return gradients, self._loss.sums(rows, batch, valid)


def _cut(batch: Batch, count: Any, size: Any, num_missing: Any) -> Batch:
    """Reshapes the tensors [B, ...] of a batch to [count, size, ...], with padding rows at the end; graph.

    Reshaped, because x[i * size : (i + 1) * size] would have an unknown number of rows, which a TPU refuses.

    Args:
        batch: Tensors whose first axis is the rows.
        count: Number of microbatches.
        size: Rows of each.
        num_missing: Padding rows to add; integers or int32 scalars, as the two before.
    """
    cut = {}
    for key, x in batch.items():
        if tf.is_tensor(num_missing) or num_missing:
            padding = [[0, num_missing], *([0, 0] for _ in x.shape[1:])]
            x = tf.pad(x, padding, constant_values=-1 if key == "utterance_index" else 0)
        shape = [count, size, *(tf.shape(x)[axis] if n is None else n for axis, n in enumerate(x.shape[1:], start=1))]
        cut[key] = tf.reshape(x, shape)
    return cut
