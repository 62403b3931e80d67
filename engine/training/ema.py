"""An exponential moving average of the weights, kept beside them and evaluated like them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence

import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from engine.checkpointing import manager
from engine.checkpointing.background_save import Changes
from engine.checkpointing.compatibility import open_checkpoint
from engine.protocols import AcousticModel
from engine.workdir.folder import WorkdirError

WEIGHTS = ("", "raw", "ema")


def ema_name(set_name: str) -> str:
    """Returns the name under which a set's figures with averaged weights are reported."""
    return f"{set_name}-ema"


class EmaWeights(tf.Module):
    """Shadows of variables; make it inside `strategy.scope()`, and put it into the checkpoint as `ema`.

    After the n-th applied update, with d = min(decay, (1 + n) / (10 + n)):

        shadow = d * shadow + (1 - d) * variable

    The smaller d of the first updates makes the random start fade at once, whatever the decay. A skipped update
    changes nothing.

    Attributes:
        shadows: float32 variables, in the order of the model's trainable ones.
        changes: Open while the averages are in the model.
    """

    def __init__(self, variables: Sequence[tf.Variable], *, decay: float, name: str = "ema") -> None:
        """Makes a shadow of each variable, with its present value.

        Args:
            variables: `model.trainable_variables`.
            decay: In (0, 1).
            name: Name of the module.

        Raises:
            ValueError: The decay is out of its range.
        """
        super().__init__(name=name)
        if not 0.0 < decay < 1.0:
            raise ValueError(f"train.ema_decay must be from 0 (off) to less than 1, got {decay}")
        self._decay = decay
        self.changes = Changes()
        # Behind a function: as an attribute they would be part of the checkpoint a second time.
        kept = tuple(variables)
        self._get_variables = lambda: kept
        self.shadows = [tf.Variable(v.read_value(), trainable=False, name="ema") for v in variables]

    def _pairs(self) -> Iterator[tuple[tf.Variable, tf.Variable]]:
        return zip(self.shadows, self._get_variables(), strict=True)

    def reset(self) -> None:
        """Begins at the variables' present values: after weights to start from were loaded; eager."""
        for shadow, variable in self._pairs():
            shadow.assign(variable.read_value())

    def update(self, num_applied: tf.Tensor) -> None:
        """Follows an applied update; graph, replica context.

        Args:
            num_applied: Integer scalar, updates applied so far, this one included.
        """
        n = tf.cast(num_applied, tf.float32)
        rate = 1.0 - tf.minimum(self._decay, (1.0 + n) / (10.0 + n))

        def apply(strategy: tf.distribute.Strategy, rate: tf.Tensor) -> None:
            for shadow, variable in self._pairs():
                strategy.extended.update(
                    shadow, lambda s, v, r: s.assign_sub((s - v) * r), args=(variable, rate), group=False
                )

        tf.distribute.get_replica_context().merge_call(apply, args=(rate,))

    def _swap(self) -> None:
        for shadow, variable in self._pairs():
            value = variable.read_value()
            variable.assign(shadow.read_value())
            shadow.assign(value)

    @contextlib.contextmanager
    def swapped(self) -> Iterator[None]:
        """Puts the averages into the model and, whatever happens, every bit back where it was; eager."""
        self.changes.begin()
        self._swap()
        try:
            yield
        finally:
            self._swap()
            self.changes.end()


def restore_weights(model: AcousticModel, path_or_workdir: str | os.PathLike[str], *, weights: str = "") -> str:
    """Restores a model's raw or averaged weights; call in `strategy.scope()`.

    Args:
        model: A built model.
        path_or_workdir: As `checkpoints.find_checkpoint`.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights: in best/ those that were
            better, in checkpoints/ the raw ones.

    Returns:
        The path that was used, as `find_weights`.

    Raises:
        ValueError: There is no such checkpoint, or it does not have these weights.
    """
    path = find_weights(path_or_workdir, weights=weights)
    manager.restore_model(model, path)
    if weights == "ema" and _kind_of_best(path) != "ema":
        holder = tf.Module()
        holder.shadows = list(model.trainable_variables)
        state = tf.train.Checkpoint(ema=holder)
        if not open_checkpoint(path).has_tensor("ema/shadows/0/.ATTRIBUTES/VARIABLE_VALUE"):
            raise WorkdirError(f"{path}: no averaged weights in it; it was trained with train.ema_decay=0")
        manager.check_matches(state, path)
        state.read(path).expect_partial()
    return path


def find_weights(path_or_workdir: str | os.PathLike[str], *, weights: str = "") -> str:
    """Returns the checkpoint that `restore_weights` takes; its arguments are the same.

    In a workdir that is the best checkpoint, or the newest where the best holds the other kind of weights.

    Raises:
        ValueError: There is no such checkpoint.
    """
    if weights not in WEIGHTS:
        raise ValueError(f"--weights must be raw or ema, or left out, got {weights!r}")
    path = manager.find_checkpoint(path_or_workdir)
    kind = _kind_of_best(path) if weights else ""
    if kind in ("", weights):
        return path
    newest = layout.list_own_checkpoints(path_or_workdir, layout.CHECKPOINTS_FOLDER)
    if not newest:
        raise WorkdirError(f"{path}: the best checkpoint has the {kind} weights alone; leave --weights out")
    return newest[-1]


def _kind_of_best(path: str) -> str:
    """Returns "raw" or "ema" for a best checkpoint, "" for any other."""
    record = manager.read_best_record(storage.parent(path))
    # Runs from before there were averages do not say.
    return "" if record is None else record.get("weights", "raw")
