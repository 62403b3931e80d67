"""Ends a run whose word error rate no longer falls."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from common import storage
from engine.common.signals import StopTraining
from engine.training.outer_loop import is_same_set
from engine.workdir.records import read_metrics


class StopEarly(StopTraining):
    """There is nothing left to gain: the run is done, with exit status 0."""


class EarlyStopping:
    """Eval action; what went before a restart it takes from metrics.jsonl, by `begin`.

    With raw and averaged weights the better of the two counts.
    """

    def __init__(
        self,
        *,
        patience: int,
        sets: Sequence[str],
        metrics_path: str | os.PathLike[str],
        global_step: tf.Variable,
        set_digest: str = "",
    ) -> None:
        """Keeps its arguments.

        Args:
            patience: Evaluations in a row that bring no lower rate than the lowest before them; 0 = never stops.
            sets: Names of the figures that count, such as dev and dev-ema.
            metrics_path: metrics.jsonl; need not exist.
            global_step: Counts the updates.
            set_digest: What tells the set from others of its name: rates of another one do not count. "" = unknown,
                which is like any.

        Raises:
            ValueError: The patience is negative.
        """
        if patience < 0:
            raise ValueError(f"eval.early_stopping_patience must be at least 0, got {patience}")
        self._patience = patience
        self._sets = tuple(sets)
        self._metrics_path = metrics_path
        self._global_step = global_step
        self._set_digest = set_digest
        self._rates: dict[int, float] = {}

    def begin(self) -> None:
        """Reads the evaluations up to the global step, which is restored by now.

        Raises:
            StopEarly: The run had ended already.
        """
        if self._patience and storage.is_file(self._metrics_path):
            others = 0
            for line in read_metrics(self._metrics_path):
                if line["split"] not in self._sets or line.get("wer") is None:
                    continue
                if line["step"] <= int(self._global_step.numpy()):
                    if is_same_set(line, self._set_digest):
                        self._add(line["step"], line["wer"])
                    else:
                        others += 1
            if others:
                logging.warning(
                    "%s: %d lines are of another set %s than today's; early stopping does not count them",
                    self._metrics_path, others, self._sets[0],
                )  # fmt: skip
        if self.reason:
            raise StopEarly(self.reason)

    def _add(self, step: int, rate: float) -> None:
        # A later --mode=eval writes lines of an old step: they are no evaluation more.
        self._rates[step] = min(rate, self._rates.get(step, rate))

    @property
    def reason(self) -> str:
        """Why the run should end, "" while it should not."""
        steps = sorted(self._rates)
        if not self._patience or not steps:
            return ""
        best = min(steps, key=lambda step: (self._rates[step], step))
        since = len(steps) - 1 - steps.index(best)
        if since < self._patience:
            return ""
        return (
            f"early stopping: the WER of {self._sets[0]} has not fallen below the {100 * self._rates[best]:.2f} % of "
            f"update {best} in {since} evaluations (eval.early_stopping_patience={self._patience})"
        )

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Takes an evaluation into account.

        Raises:
            StopEarly: It was one too many.
        """
        step = int(self._global_step.numpy())
        for name in self._sets:
            self._add(step, float(output[name]["wer"]))
        if self.reason:
            raise StopEarly(self.reason)
