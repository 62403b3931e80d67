"""Defines the options of the training step."""

from __future__ import annotations

import dataclasses

LOSS_DIVISORS = ("utterances", "label_tokens")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """Options of `Trainer`. The defaults switch everything off; those of a run are in configs/base.py.

    Attributes:
        accum_steps: Microbatches per update and replica. Must divide the rows of a replica, whose number may vary from
            update to update.
        clip_norm: Largest global gradient norm; 0 = no clipping.
        freeze_encoder_updates: Number of first updates that train `model.head_variables` only.
        max_consecutive_skips: Number of consecutive skipped updates that stops the run; 0 = never.
        ema_decay: Decay of the averaged weights; 0 = none.
        loss_divisor: Divisor of an update's summed loss: its number of valid "utterances" or of their "label_tokens".
        cr_ctc_scale: Weight of the consistency loss between two views of each row (`engine.training.row_losses`); 0 = a
            single view.
        cr_ctc_warmup_updates: Number of first updates in which that weight rises from 0.
        cr_ctc_mask_factor: Factor of the number of time masks of two views.
        intermediate_ctc_layers: Transformer layers, numbered from 1, whose outputs have a CTC loss of their own.
        intermediate_ctc_weight: Weight of the mean of these losses; that of the last layer has the rest of 1.
        seed: Seed of dropout and masks.
        blank_id: Index of the CTC blank for the blank statistics.
        loop_in_graph: Whether updates run in a tf.while_loop (TPU) for about two seconds at a time, or by one call
            each.
    """

    accum_steps: int = 1
    clip_norm: float = 0.0
    freeze_encoder_updates: int = 0
    max_consecutive_skips: int = 0
    ema_decay: float = 0.0
    loss_divisor: str = "utterances"
    cr_ctc_scale: float = 0.0
    cr_ctc_warmup_updates: int = 0
    cr_ctc_mask_factor: float = 2.5
    intermediate_ctc_layers: tuple[int, ...] = ()
    intermediate_ctc_weight: float = 0.3
    seed: int = 0
    blank_id: int = 0
    loop_in_graph: bool = False

    def __post_init__(self) -> None:
        """Validates the options.

        Raises:
            ValueError: Names the config field, its value and what is allowed.
        """
        if self.accum_steps < 1:
            raise ValueError(f"train.accum_steps must be at least 1, got {self.accum_steps}")
        if self.loss_divisor not in LOSS_DIVISORS:
            allowed = ", ".join(LOSS_DIVISORS)
            raise ValueError(f"train.loss_divisor must be one of {allowed}, got {self.loss_divisor!r}")

    @property
    def auxiliary_losses(self) -> tuple[str, ...]:
        """Returns the names, in metrics, of the losses beside the CTC loss of the last layer."""
        return (
            *(("consistency_loss",) if self.cr_ctc_scale else ()),
            *(("intermediate_ctc_loss",) if self.intermediate_ctc_layers else ()),
        )
