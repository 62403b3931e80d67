"""Ends a run whose error rate no longer falls."""

from __future__ import annotations

import dataclasses
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
    """Ends the run with exit status 0 because its error rate no longer falls."""


@dataclasses.dataclass(kw_only=True)
class EarlyStopping:
    """Eval action that stops the run; `begin` reads the evaluations before a restart from metrics.jsonl.

    If there are raw and averaged weights, the better of the two counts.

    Attributes:
        patience: Number of consecutive evaluations without a new lowest rate that ends the run; 0 = never.
        sets: Names whose error rate counts, such as dev and dev-ema.
        metrics_path: metrics.jsonl; need not exist.
        global_step: Number of updates done.
        set_digest: Digest of the set; rates of a set with another digest do not count. "" matches any.
        metric: The rate that counts, "wer" or "cer".
    """

    patience: int
    sets: Sequence[str]
    metrics_path: str | os.PathLike[str]
    global_step: tf.Variable
    set_digest: str = ""
    metric: str = "wer"

    def __post_init__(self) -> None:
        """Validates the patience; reads nothing yet.

        Raises:
            ValueError: The patience is negative.
        """
        if self.patience < 0:
            raise ValueError(f"eval.early_stopping_patience must be at least 0, got {self.patience}")
        self._rates: dict[int, float] = {}

    def begin(self) -> None:
        """Reads the evaluations up to the global step, which must be restored.

        Raises:
            StopEarly: The run had already ended.
        """
        if self.patience and storage.is_file(self.metrics_path):
            self._read_rates(int(self.global_step.numpy()))
        if self.reason:
            raise StopEarly(self.reason)

    def _read_rates(self, last_step: int) -> None:
        num_ignored = 0
        for line in read_metrics(self.metrics_path):
            if line["split"] not in self.sets or line.get(self.metric) is None or line["step"] > last_step:
                continue
            if is_same_set(line, self.set_digest):
                self._add(line["step"], line[self.metric])
            else:
                num_ignored += 1
        if num_ignored:
            logging.warning(
                "%s: %d lines are of an earlier version of the set %s; early stopping ignores them",
                self.metrics_path, num_ignored, self.sets[0],
            )  # fmt: skip

    def _add(self, step: int, rate: float) -> None:
        # `--mode=eval` may later append results for an old step; they do not count as another evaluation.
        self._rates[step] = min(rate, self._rates.get(step, rate))

    @property
    def reason(self) -> str:
        """Reason to end the run, "" if it should continue."""
        steps = sorted(self._rates)
        if not self.patience or not steps:
            return ""
        best = min(steps, key=lambda step: (self._rates[step], step))
        since = len(steps) - 1 - steps.index(best)
        if since < self.patience:
            return ""
        return (
            f"early stopping: the {self.metric.upper()} of {self.sets[0]} has not fallen below the "
            f"{100 * self._rates[best]:.2f} % of update {best} in {since} evaluations "
            f"(eval.early_stopping_patience={self.patience})"
        )

    def __call__(self, output: Mapping[str, Any]) -> None:
        """Adds an evaluation.

        Raises:
            StopEarly: The patience is used up.
        """
        step = int(self.global_step.numpy())
        for name in self.sets:
            self._add(step, float(output[name][self.metric]))
        if self.reason:
            raise StopEarly(self.reason)
