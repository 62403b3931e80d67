"""Computes the gradient of one update on a replica, independent of how the update is split.

Each replica splits its rows into microbatches and sums their gradients; one all-reduce sums over the replicas. The
divisor of the loss, the number of valid utterances of the whole update or of their labels, is known before the first
backward pass. So any split into replicas and microbatches gives the same gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from engine.protocols import AcousticModel, Batch, FeasibleFn, LossFn
from engine.training.data_digest import digest_pieces
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

    def compute(self, batch: Batch) -> tuple[list[tf.Tensor], tf.Tensor, tf.Tensor]:
        """Returns the gradient of the whole update, its statistics and its norm before clipping.

        The statistics are the first of `loop_statistics.STATISTICS`, followed by the sums of the auxiliary losses and
        the pieces of the data digest.
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

        num_auxiliary = len(self.options.auxiliary_losses)
        sums, of_auxiliary = tf.split(sums, [self._loss.num_sums - num_auxiliary, num_auxiliary])
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
                *tf.unstack(of_auxiliary),
                *digest_pieces(batch["utterance_index"], context.replica_id_in_sync_group),
            ]
        )
        return gradients, context.all_reduce(tf.distribute.ReduceOp.SUM, statistics), norm

    def _accumulate(self, batch: Batch, valid: tf.Tensor, row_scale: tf.Tensor) -> tuple[list[tf.Tensor], tf.Tensor]:
        """Sums gradients, losses and frame statistics over this replica's microbatches."""
        accum_steps = self.options.accum_steps
        if accum_steps == 1:
            return self._microbatch_gradients(batch, valid, row_scale)
        num_rows = batch["weight"].shape[0]
        if num_rows is None:  # varies from update to update; data.row_multiple makes it divisible
            num_rows = tf.shape(batch["weight"])[0]
            tf.debugging.assert_equal(num_rows % accum_steps, 0, "train.accum_steps must divide the rows")
        elif num_rows % accum_steps:
            raise ValueError(f"train.accum_steps={accum_steps} must divide the {num_rows} rows of one replica")
        size = num_rows // accum_steps

        def rows_of(i: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
            # x[i * size : (i + 1) * size] would have an unknown number of rows, which a TPU refuses.
            def rows(x: tf.Tensor) -> tf.Tensor:
                zeros = [0] * (x.shape.rank - 1)
                return tf.slice(x, [i * size, *zeros], tf.concat([[size], tf.shape(x)[1:]], axis=0))

            return rows

        def body(i: tf.Tensor, total: list[tf.Tensor], sums: tf.Tensor) -> tuple:
            micro = tf.nest.map_structure(rows_of(i), (batch, valid, row_scale))
            gradients, micro_sums = self._microbatch_gradients(*micro)
            return i + 1, [a + b for a, b in zip(total, gradients, strict=True)], sums + micro_sums

        zeros = [tf.zeros(v.shape, tf.float32) for v in self.variables]
        # Parallel iterations would need the memory that microbatches are there to save.
        _, gradients, sums = tf.while_loop(
            lambda i, *_: i < accum_steps,
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
