"""Computes the training loss of each row: CTC, alone or with consistency between two views and intermediate CTC."""

from __future__ import annotations

import dataclasses

import tensorflow as tf

from engine.protocols import AcousticModel, Batch, LossFn
from engine.training.frame_statistics import FRAME_SUMS, frame_sums
from engine.training.options import TrainerOptions


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowLosses:
    """Losses of the rows of a microbatch.

    Attributes:
        total: float32 [B], what is trained on.
        ctc: float32 [B], the CTC loss of the last layer, averaged over views.
        auxiliary: float32 [B] each, in the order of `TrainerOptions.auxiliary_losses` and without their weights.
        logits: float32 [num_views * B, F, V] of the last layer.
    """

    total: tf.Tensor
    ctc: tf.Tensor
    auxiliary: tuple[tf.Tensor, ...]
    logits: tf.Tensor


class TrainingLoss:
    """Computes the losses of rows, each a number that depends on nothing but its row and the update."""

    def __init__(
        self, *, model: AcousticModel, loss_fn: LossFn, options: TrainerOptions, global_step: tf.Variable
    ) -> None:
        """Keeps the arguments.

        Args:
            model: The model.
            loss_fn: CTC loss of each row.
            options: Options of the trainer.
            global_step: Number of updates done.
        """
        self._model = model
        self._loss_fn = loss_fn
        self._options = options
        self._global_step = global_step
        self._num_views = 2 if options.cr_ctc_scale else 1
        # The length of `sums`.
        self.num_sums = 1 + len(FRAME_SUMS) + len(options.auxiliary_losses)

    def row_losses(self, batch: Batch, valid: tf.Tensor) -> RowLosses:
        """Runs the forward pass.

        With w = `intermediate_ctc_weight` and a = `cr_ctc_scale`, the loss of a row is

            (1 - w) CTC(last layer) + w mean of CTC(intermediate layers) + a consistency,

        each CTC loss the mean over the views.

        Args:
            batch: The rows of a microbatch.
            valid: float32 [B], positive for rows that have a loss.
        """
        options, model, num_views = self._options, self._model, self._num_views
        random = model.make_random(
            seed=options.seed, update=self._global_step, row_ids=batch["utterance_index"], num_views=num_views
        )
        logits = model.training_logits(
            batch["waveform"],
            batch["waveform_lengths"],
            random=random,
            mask_time_factor=options.cr_ctc_mask_factor if num_views > 1 else 1.0,
            layers=options.intermediate_ctc_layers,
        )
        num_frames = model.output_lengths(batch["waveform_lengths"])
        labels = (num_frames, batch["labels"], batch["label_lengths"])
        copies = num_views * len(logits)
        if copies == 1:
            ctc = self._loss_fn(logits[-1], *labels)
            return RowLosses(total=ctc, ctc=ctc, auxiliary=(), logits=logits[-1])

        # One call for all layers and views, because a recursion over frames takes little longer for more rows.
        losses = self._loss_fn(tf.concat(logits, axis=0), *(tf.concat([x] * copies, axis=0) for x in labels))
        losses = tf.reduce_mean(tf.reshape(losses, [len(logits), num_views, -1]), axis=1)  # [layers, B]
        total = ctc = losses[-1]
        auxiliary = []
        if num_views > 1:
            first, second = tf.split(logits[-1], num_views)
            auxiliary.append(consistency_loss(first, second, num_frames, valid))
        if options.intermediate_ctc_layers:
            intermediate, weight = tf.reduce_mean(losses[:-1], axis=0), options.intermediate_ctc_weight
            auxiliary.append(intermediate)
            total = (1.0 - weight) * ctc + weight * intermediate
        if num_views > 1:
            total += self._consistency_weight() * auxiliary[0]
        return RowLosses(total=total, ctc=ctc, auxiliary=tuple(auxiliary), logits=logits[-1])

    def sums(self, rows: RowLosses, batch: Batch, valid: tf.Tensor) -> tf.Tensor:
        """Returns float32 [num_sums]: sum of the CTC losses, `frame_sums` of all views, sums of auxiliary losses.

        Args:
            rows: Losses of the rows of `batch`.
            batch: The rows of a microbatch.
            valid: float32 [B], positive for rows that have a loss.
        """
        num_frames = self._model.output_lengths(batch["waveform_lengths"])
        of_rows = (num_frames, batch["label_lengths"], valid)
        if self._num_views > 1:
            of_rows = tuple(tf.concat([x] * self._num_views, axis=0) for x in of_rows)
        of_frames = frame_sums(rows.logits, *of_rows, blank_id=self._options.blank_id)
        of_losses = [tf.reduce_sum(tf.where(valid > 0, losses, 0.0)) for losses in (rows.ctc, *rows.auxiliary)]
        return tf.concat([of_losses[:1], of_frames, of_losses[1:]], axis=0)

    def _consistency_weight(self) -> tf.Tensor | float:
        """Returns the weight of the consistency loss, which rises from 0 during its warm-up."""
        scale, warmup = self._options.cr_ctc_scale, self._options.cr_ctc_warmup_updates
        if not warmup:
            return scale
        return scale * tf.minimum(tf.cast(self._global_step, tf.float32) / float(warmup), 1.0)


def consistency_loss(first: tf.Tensor, second: tf.Tensor, num_frames: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Returns how much the token distributions of two views of each row differ (CR-CTC, Yao et al. 2024).

    It is the sum over frames of (KL(sg(p) || q) + KL(sg(q) || p)) / 2, where sg stops the gradient: each view is the
    other one's target (https://arxiv.org/abs/2410.05101, section 3.2).

    Args:
        first: Logits of the first views, float32 [B, F, V].
        second: Logits of the second views, float32 [B, F, V].
        num_frames: Integers [B], valid frames of each row.
        valid: float32 [B]; rows at 0 have a loss of 0, whatever their logits are.

    Returns:
        Float32 [B], in nats.
    """
    counts = tf.sequence_mask(num_frames, tf.shape(first)[1]) & (valid > 0)[:, tf.newaxis]
    # Replace logits that do not count instead of multiplying by 0: they may be infinite.
    log_p, log_q = (tf.nn.log_softmax(tf.where(counts[:, :, tf.newaxis], x, 0.0)) for x in (first, second))
    # The sum of both divergences is that of (p - q) (log p - log q). With the factor p - q held fixed, its gradient is
    # theirs: what else is in it, p times the gradient of log p, sums to zero over the tokens.
    difference = tf.stop_gradient(tf.exp(log_p) - tf.exp(log_q)) * (log_p - log_q)
    return 0.5 * tf.reduce_sum(difference, axis=[1, 2])
