"""Trains and evaluates at the same updates, no matter how often the run was interrupted."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orbit

from engine.common import files
from engine.workdir.records import read_metrics, read_metrics_if_any


def train_and_evaluate(
    controller: orbit.Controller,
    *,
    num_updates: int,
    every_updates: int,
    metrics_path: str,
    sets: Collection[str],
    set_digests: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Trains to `num_updates` and evaluates once at every multiple of `every_updates` and at the end.

    Args:
        controller: Controller with trainer and evaluator, already restored.
        num_updates: Update at which training ends.
        every_updates: Interval of evaluations; 0 = only at the end.
        metrics_path: metrics.jsonl, which tells what earlier processes evaluated.
        sets: Names of the evaluation sets.
        set_digests: {set: digest of its content}; lines of metrics.jsonl with another digest are ignored.

    Returns:
        The metrics of the last evaluation, {set: {metric: value}}.
    """
    step = int(controller.global_step.numpy())
    metrics: dict[str, Any] = {}
    if step >= num_updates or (step and _is_multiple(step, every_updates)):
        # Checkpoints are saved before evaluations: a kill in between loses the evaluation of this update.
        metrics = evaluation_at(metrics_path, step, sets, set_digests)
        if set(metrics) != set(sets):
            _remove_evaluations(metrics_path, step, metrics)
            metrics = controller.evaluate()
    if step < num_updates and every_updates and step % every_updates:
        # The controller counts its interval from where it starts, so train to the next multiple first.
        step = min(step + every_updates - step % every_updates, num_updates)
        controller.train(step, checkpoint_at_completion=step == num_updates)
        metrics = controller.evaluate()
    if step >= num_updates:
        return metrics
    return controller.train_and_evaluate(train_steps=num_updates, eval_interval=every_updates or None)


def _is_multiple(step: int, every_updates: int) -> bool:
    return every_updates > 0 and step % every_updates == 0


def _remove_evaluations(metrics_path: str, step: int, sets: Collection[str]) -> None:
    """Removes the lines of sets at an update, which is evaluated again because sets have been added to the config."""
    if sets:
        lines = read_metrics(metrics_path)
        kept = [line for line in lines if line["step"] != step or line["split"] not in sets]
        files.write_jsonl_atomic(metrics_path, kept)


def evaluation_at(
    metrics_path: str, step: int, sets: Collection[str], set_digests: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Returns the evaluations of one update from metrics.jsonl, {set: metrics}, for the sets that have one."""
    lines = read_metrics_if_any(metrics_path)
    digests = set_digests or {}
    return {
        line["split"]: line
        for line in lines
        if line["step"] == step and line["split"] in sets and is_same_set(line, digests.get(line["split"], ""))
    }


def is_same_set(line: Mapping[str, Any], set_digest: str) -> bool:
    """Returns whether a line of metrics.jsonl belongs to the evaluation set with a digest, if both have one."""
    return not set_digest or line.get("set_digest", set_digest) == set_digest
