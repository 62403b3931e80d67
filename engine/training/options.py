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
        seed: Seed of dropout and masks.
        blank_id: Index of the CTC blank for the blank statistics.
        loop_in_graph: Whether updates run in a tf.while_loop (TPU) for about two seconds at a time, or by one call
            each.
        jit_compile: Whether XLA compiles the update as a whole; with several replicas, the passes of each replica.
    """

    accum_steps: int = 1
    clip_norm: float = 0.0
    freeze_encoder_updates: int = 0
    max_consecutive_skips: int = 0
    ema_decay: float = 0.0
    loss_divisor: str = "utterances"
    seed: int = 0
    blank_id: int = 0
    loop_in_graph: bool = False
    jit_compile: bool = False

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
