"""Builds Adam and AdamW, clips gradients by their global norm, and scales the loss for float16."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tf_keras

from engine.training.fused_adam import FusedAdam
from engine.training.head_learning_rate import HeadLearningRateAdam

# Words in the names of variables without weight decay: biases, and the scales and offsets of layer and group norms
# (gamma and beta in Keras's own layers).
NO_WEIGHT_DECAY = ("bias", "layer_norm", "group_norm", "scale", "offset", "gamma", "beta")


def build_optimizer(
    *,
    name: str,
    learning_rate: tf_keras.optimizers.schedules.LearningRateSchedule | float,
    beta_1: float = 0.9,
    beta_2: float = 0.98,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
    exclude_from_weight_decay: Sequence[str] = NO_WEIGHT_DECAY,
    head_variables: Sequence[tf.Variable] = (),
    head_learning_rate_factor: float = 1.0,
) -> tf_keras.optimizers.Optimizer:
    """Builds the optimizer; call in `strategy.scope()`.

    Then call `optimizer.build(model.trainable_variables)` in the same scope before anything is saved, restored or
    traced: a checkpoint can only be compared with existing slots. Slots are stored by position, so the order of the
    variables must be the same at every start.

    The rate follows `optimizer.iterations`, which counts applied updates (not those skipped for non-finite gradients).
    `optimizer.learning_rate` is the rate of the latest applied update. The arithmetic is PyTorch's
    (docs/decisions/0069): bias correction follows each variable's own updates, and epsilon is added after it (Kingma
    and Ba, https://arxiv.org/abs/1412.6980, algorithm 1). Weight decay is decoupled (Loshchilov and Hutter,
    https://arxiv.org/abs/1711.05101): a variable first loses learning_rate * weight_decay of its value.

    Args:
        name: "adam" or "adamw".
        learning_rate: Schedule or constant.
        beta_1: Decay of the first moment.
        beta_2: Decay of the second moment.
        epsilon: Term added to the denominator.
        weight_decay: Decay per unit of learning rate; for adamw only.
        exclude_from_weight_decay: Words; variables with one of them in their name are not decayed, see
            `has_weight_decay`.
        head_variables: Variables of the CTC head.
        head_learning_rate_factor: The head's learning rate as a multiple of the schedule's.

    Returns:
        A new-style tf_keras optimizer without XLA and without clipping.

    Raises:
        ValueError: The name is unknown, the factor is not positive, or adam is given a weight decay.
    """
    # By default Keras compiles each variable's update under XLA on a GPU; engine decides about XLA for the whole step.
    shared: dict[str, Any] = {"beta_1": beta_1, "beta_2": beta_2, "epsilon": epsilon, "jit_compile": False}
    if not head_learning_rate_factor > 0:
        raise ValueError(f"train.head_learning_rate_factor must be positive, got {head_learning_rate_factor}")
    build = FusedAdam
    if head_learning_rate_factor != 1.0:
        build = HeadLearningRateAdam
        shared.update(head_variables=head_variables, head_factor=head_learning_rate_factor)
    if name == "adam":
        if weight_decay:
            raise ValueError(f"adam has no weight decay, got {weight_decay}; use adamw or set train.weight_decay to 0")
        return build(learning_rate, **shared)
    if name == "adamw":
        optimizer = build(learning_rate, weight_decay=weight_decay, **shared)
        if exclude_from_weight_decay:
            optimizer.exclude_from_weight_decay(var_names=[_word_pattern(exclude_from_weight_decay)])
        return optimizer
    raise ValueError(f"unknown optimizer {name!r}; choose adam or adamw")


def has_weight_decay(variable_name: str, exclude: Sequence[str] = NO_WEIGHT_DECAY) -> bool:
    """Returns whether AdamW decays the variable of this name.

    Words match between the separators / _ : or at the ends of the name: "scale" matches "layer_0/norm/scale:0" and
    "scale_1" but not "upscale/kernel".
    """
    return not exclude or re.search(_word_pattern(exclude), variable_name) is None


def _word_pattern(words: Sequence[str]) -> str:
    # Keras searches the name for the pattern; on the second replica the name ends in "/replica_1:0".
    return rf"(?:^|[/_])(?:{'|'.join(re.escape(word) for word in words)})(?:$|[/_:])"


def clip_by_global_norm(
    grads: Sequence[tf.Tensor | None], clip_norm: float
) -> tuple[list[tf.Tensor | None], tf.Tensor]:
    """Scales all gradients by one factor so that their global norm is at most `clip_norm`; any context.

    Args:
        grads: Gradients, summed over the replicas; None entries (variables that the loss does not reach) are kept.
        clip_norm: Largest norm; 0 = no clipping.

    Returns:
        The gradients and their norm before clipping, a float32 scalar. The norm is finite if and only if no gradient
        has an infinity or NaN and no square overflows float32; otherwise the clipped gradients must not be applied.
    """
    present = [grad for grad in grads if grad is not None]
    norm = tf.cast(tf.linalg.global_norm([tf.cast(grad, tf.float32) for grad in present]), tf.float32)
    if clip_norm <= 0:
        return list(grads), norm
    # A non-finite norm makes this 0 or NaN, and the products NaN.
    factor = clip_norm / tf.maximum(norm, clip_norm)
    return [None if grad is None else grad * tf.cast(factor, grad.dtype) for grad in grads], norm


class DynamicLossScale(tf.Module):
    """Scales the loss so that float16 gradients do not vanish.

    The scale is halved when gradients overflow and doubled after a long run without overflow (Micikevicius et al.,
    2018, https://arxiv.org/abs/1710.03740, section 3.2).

    Create it inside `strategy.scope()`. `scale_loss` and `unscale` run in replica or cross-replica context; `update`
    runs in cross-replica context once per update, after the gradients are reduced. All work in a `tf.function`. Both
    variables are part of the checkpoint.

    Attributes:
        scale: float32 scalar variable.
        num_good_updates: int64 scalar variable, finite updates since the scale last changed.
    """

    def __init__(
        self,
        *,
        initial_scale: float = 2.0**15,
        growth_interval: int = 2000,
        min_scale: float = 1.0,
        max_scale: float = 2.0**24,
        name: str = "loss_scale",
    ) -> None:
        """Creates the variables.

        Args:
            initial_scale: First scale; a power of two, so that scaling does not round.
            growth_interval: Number of consecutive finite updates after which the scale doubles.
            min_scale: Smallest scale.
            max_scale: Largest scale.
            name: Name of the module.

        Raises:
            ValueError: The scales are not in order or the interval is not positive.
        """
        super().__init__(name=name)
        if not 0.0 < min_scale <= initial_scale <= max_scale:
            raise ValueError(f"loss scale {initial_scale} must be positive, from {min_scale} to {max_scale}")
        if growth_interval < 1:
            raise ValueError(f"growth_interval must be at least 1, got {growth_interval}")
        self._growth_interval = growth_interval
        self._min_scale = min_scale
        self._max_scale = max_scale
        aggregation = tf.VariableAggregation.ONLY_FIRST_REPLICA
        self.scale = tf.Variable(
            initial_scale, dtype=tf.float32, trainable=False, aggregation=aggregation, name="scale"
        )
        self.num_good_updates = tf.Variable(
            0, dtype=tf.int64, trainable=False, aggregation=aggregation, name="num_good_updates"
        )

    def scale_loss(self, loss: tf.Tensor) -> tf.Tensor:
        """Returns the scaled loss in float32, since float16 overflows at 65504."""
        return tf.cast(loss, tf.float32) * self.scale

    def unscale(self, grads: Sequence[tf.Tensor | None]) -> list[tf.Tensor | None]:
        """Returns float32 gradients of the unscaled loss; None entries are kept."""
        inverse = 1.0 / tf.convert_to_tensor(self.scale)
        return [None if grad is None else tf.cast(grad, tf.float32) * inverse for grad in grads]

    def can_shrink(self) -> tf.Tensor:
        """Returns a bool scalar: whether an overflow may be caused by the scale instead of the loss or the weights."""
        return tf.convert_to_tensor(self.scale) > self._min_scale

    def update(self, finite: tf.Tensor | bool) -> None:
        """Halves the scale after a non-finite update, doubles it after `growth_interval` finite ones.

        Args:
            finite: bool scalar, whether all gradients of this update were finite.
        """
        scale = tf.convert_to_tensor(self.scale)
        num_good = tf.convert_to_tensor(self.num_good_updates) + 1
        grown = num_good >= self._growth_interval
        after_good = tf.where(grown, tf.minimum(scale * 2.0, self._max_scale), scale)
        after_bad = tf.maximum(scale / 2.0, self._min_scale)
        keep_counting = tf.logical_and(finite, tf.logical_not(grown))
        self.scale.assign(tf.where(finite, after_good, after_bad))
        self.num_good_updates.assign(tf.where(keep_counting, num_good, tf.zeros_like(num_good)))
