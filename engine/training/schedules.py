"""Learning-rate schedules with a linear warm-up, a hold at the peak and a decay of one of four shapes."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import tensorflow as tf
import tf_keras

# Default final rate of each shape, as a share of the peak.
_DEFAULT_FINAL_SCALES = {"constant": 1.0, "linear": 0.0, "cosine": 0.0, "tri_stage": 0.05}
SCHEDULES = tuple(_DEFAULT_FINAL_SCALES)


@dataclasses.dataclass(kw_only=True, eq=False)
class WarmupHoldDecay(tf_keras.optimizers.schedules.LearningRateSchedule):
    """Computes the learning rate from the number of updates already applied.

    With w warm-up updates, h hold updates and n updates in total, the rate at step

        0            is initial_scale * peak (peak if w is 0),
        0 .. w       rises linearly,
        w .. w + h   is the peak,
        w + h .. n   falls to final_scale * peak by the shape,
        from n on    is final_scale * peak.

    Update number k (from 0) uses the rate at step k, so the last update stops just short of the final rate.
    `tri_stage`, an exponential decay, is the fine-tuning schedule of wav2vec 2.0 (Baevski et al., 2020,
    https://arxiv.org/abs/2006.11477, section 4.3: 10 % warm-up, 40 % hold, 50 % decay; first rate 1 % and last rate
    5 % of the peak).

    Attributes:
        decay: "constant", "linear", "cosine" or "tri_stage".
        peak_learning_rate: Largest rate, positive.
        num_updates: Number of updates of the run.
        warmup_updates: Number of updates until the peak is reached; may be 0.
        hold_updates: Number of updates at the peak; may be 0.
        initial_scale: Rate at step 0 as a share of the peak, in [0, 1].
        final_scale: Rate from `num_updates` on as a share of the peak, in [0, 1]; positive for tri_stage, 1 for
            constant.
    """

    decay: str
    peak_learning_rate: float
    num_updates: int
    warmup_updates: int
    hold_updates: int
    initial_scale: float
    final_scale: float

    def __post_init__(self) -> None:
        """Validates the arguments; `build_schedule` has the defaults.

        Raises:
            ValueError: An argument is out of range, or warm-up and hold exceed `num_updates`.
        """
        if self.decay not in SCHEDULES:
            raise ValueError(f"unknown learning-rate schedule {self.decay!r}; choose one of {', '.join(SCHEDULES)}")
        if not (self.peak_learning_rate > 0 and math.isfinite(self.peak_learning_rate)):
            raise ValueError(f"peak_learning_rate must be positive, got {self.peak_learning_rate}")
        if self.num_updates < 1:
            raise ValueError(f"num_updates must be at least 1, got {self.num_updates}")
        warmup, hold = self.warmup_updates, self.hold_updates
        if min(warmup, hold) < 0 or warmup + hold > self.num_updates:
            raise ValueError(
                f"warmup_updates ({warmup}) and hold_updates ({hold}) must be at least 0 and fit into num_updates "
                f"({self.num_updates}); lower train.warmup_updates and train.hold_updates, or set them to 0 and give "
                "shares of the run, such as train.warmup_ratio=0.1 and train.hold_ratio=0.4"
            )
        _check_scales(self.decay, self.initial_scale, self.final_scale)

    def __call__(self, step: tf.Tensor | tf.Variable | int) -> tf.Tensor:
        """Returns the learning rate, a float32 scalar; runs eagerly, in a graph and under XLA.

        Args:
            step: Number of updates applied so far, an integer scalar of any kind.
        """
        with tf.name_scope("learning_rate"):
            # Integer differences: float32 cannot represent all integers above 2**24.
            step = tf.cast(step, tf.int64)
            if self.warmup_updates:
                risen = tf.cast(step, tf.float32) / tf.cast(self.warmup_updates, tf.float32)
            else:
                risen = tf.constant(1.0, tf.float32)
            rise = self.initial_scale + (1.0 - self.initial_scale) * tf.minimum(risen, 1.0)
            decay_start = self.warmup_updates + self.hold_updates
            decay_updates = max(self.num_updates - decay_start, 1)
            left = tf.cast(decay_start + decay_updates - step, tf.float32)
            left = tf.clip_by_value(left / tf.cast(decay_updates, tf.float32), 0.0, 1.0)
            return self.peak_learning_rate * tf.where(step < self.warmup_updates, rise, self._fall(left))

    def num_updates_shared_with(self, other: WarmupHoldDecay) -> float:
        """Returns the number of first updates with the same rate in both schedules; infinite if all are equal.

        Valid for schedules that only differ in the length of the run and in what follows from it.
        """
        if self.get_config() == other.get_config():
            return math.inf
        if self.warmup_updates != other.warmup_updates:
            return 0
        if self.decay == other.decay == "constant":
            return math.inf
        # The update at which a decay begins still has the peak rate.
        return self.warmup_updates + min(self.hold_updates, other.hold_updates) + 1

    def _fall(self, left: tf.Tensor) -> tf.Tensor:
        """Maps the remaining share of the decay, float32 in [0, 1], to the rate as a share of the peak."""
        if self.decay == "linear":
            return self.final_scale + (1.0 - self.final_scale) * left
        if self.decay == "cosine":
            # (1 + cos(pi (1 - x))) / 2 in a form that stays precise near 0.
            height = tf.square(tf.sin(0.5 * math.pi * left))
            return self.final_scale + (1.0 - self.final_scale) * height
        if self.decay == "tri_stage":
            return tf.exp(math.log(self.final_scale) * (1.0 - left))
        return tf.ones_like(left)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return dataclasses.asdict(self)


def build_schedule(
    *,
    name: str,
    peak_learning_rate: float,
    num_updates: int,
    warmup_updates: int,
    hold_updates: int = 0,
    warmup_ratio: float = 0.0,
    hold_ratio: float = 0.0,
    initial_scale: float = 0.01,
    final_scale: float | None = None,
) -> WarmupHoldDecay:
    """Builds a learning-rate schedule; see `WarmupHoldDecay` for its exact values.

    Args:
        name: "constant", "linear", "cosine" or "tri_stage".
        peak_learning_rate: Largest rate.
        num_updates: Number of updates of the run.
        warmup_updates: Number of updates of the linear rise.
        hold_updates: Number of updates at the peak before the decay.
        warmup_ratio: Warm-up as a share of the run, instead of `warmup_updates`; 0 = not used.
        hold_ratio: Hold as a share of the run, instead of `hold_updates`; 0 = not used.
        initial_scale: First rate as a share of the peak; 0 would waste the first update.
        final_scale: Last rate as a share of the peak; None = 0.05 for tri_stage, 0 for linear and cosine, 1 for
            constant.

    Raises:
        ValueError: The name is unknown, an argument is out of range, or both a number and a share are given.
    """
    for part, updates, ratio in (("warmup", warmup_updates, warmup_ratio), ("hold", hold_updates, hold_ratio)):
        if updates and ratio:
            raise ValueError(
                f"train.{part}_ratio={ratio:g} and train.{part}_updates={updates} are both set; set one of them to 0"
            )
    if not (warmup_ratio >= 0 and hold_ratio >= 0 and warmup_ratio + hold_ratio <= 1 + 1e-9):
        raise ValueError(
            f"train.warmup_ratio={warmup_ratio:g} and train.hold_ratio={hold_ratio:g} must be at least 0 and their sum "
            "at most 1; the rest of the run is decay"
        )
    # Rounding the ends instead of the lengths keeps the sum within the run.
    warmup_updates = warmup_updates or round(warmup_ratio * num_updates)
    if hold_ratio:
        hold_updates = round((warmup_ratio + hold_ratio) * num_updates) - round(warmup_ratio * num_updates)
    if final_scale is None:
        final_scale = _DEFAULT_FINAL_SCALES.get(name, 0.0)
    return WarmupHoldDecay(
        decay=name,
        peak_learning_rate=peak_learning_rate,
        num_updates=num_updates,
        warmup_updates=warmup_updates,
        hold_updates=hold_updates,
        initial_scale=initial_scale,
        final_scale=final_scale,
    )


def _check_scales(decay: str, initial_scale: float, final_scale: float) -> None:
    for name, scale in (("initial_scale", initial_scale), ("final_scale", final_scale)):
        if not 0.0 <= scale <= 1.0:
            raise ValueError(f"{name} must be in [0, 1], got {scale}")
    if decay == "tri_stage" and final_scale == 0.0:
        raise ValueError("final_scale must be positive for tri_stage, an exponential decay")
    if decay == "constant" and final_scale != 1.0:
        raise ValueError(f"final_scale must be 1 for the constant schedule, got {final_scale}")
