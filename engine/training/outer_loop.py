"""When to evaluate: at the same updates however often a run was interrupted, around orbit's own outer loop."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orbit

from common import storage
from engine.common import files
from engine.workdir.records import read_metrics


def train_and_evaluate(
    controller: orbit.Controller,
    *,
    num_updates: int,
    every_updates: int,
    metrics_path: str,
    sets: Collection[str],
    set_digests: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Trains to `num_updates` and evaluates at every multiple of `every_updates` and at the end, once at each.

    Args:
        controller: With trainer and evaluator, restored.
        num_updates: Where training ends.
        every_updates: Interval of evaluations; 0 = only at the end.
        metrics_path: metrics.jsonl, which tells what was evaluated before the process began.
        sets: Names of the evaluation sets.
        set_digests: {set: what tells it from others of its name}; a line of another is not taken for its evaluation.

    Returns:
        The last evaluation's figures, {set: {figure: value}}.
    """
    step = int(controller.global_step.numpy())
    is_due = step >= num_updates or (step > 0 and every_updates > 0 and step % every_updates == 0)
    figures: dict[str, Any] = {}
    if is_due:
        # Checkpoints are saved before evaluations: a kill in between has lost the evaluation of this very update.
        figures = evaluation_at(metrics_path, step, sets, set_digests)
        if set(figures) != set(sets):
            # Sets may have been added meanwhile: the others are evaluated again, and stand there once.
            if figures:
                lines = read_metrics(metrics_path)
                kept = [line for line in lines if line["step"] != step or line["split"] not in figures]
                files.write_jsonl_atomic(metrics_path, kept)
            figures = controller.evaluate()
    if step >= num_updates:
        return figures
    if every_updates and step % every_updates:
        # The controller counts its interval from where it starts: bring it back into step first.
        boundary = min(step + every_updates - step % every_updates, num_updates)
        controller.train(boundary, checkpoint_at_completion=boundary == num_updates)
        figures = controller.evaluate()
        if boundary == num_updates:
            return figures
    return controller.train_and_evaluate(train_steps=num_updates, eval_interval=every_updates or None)


def evaluation_at(
    metrics_path: str, step: int, sets: Collection[str], set_digests: Mapping[str, str] | None = None
) -> dict[str, dict[str, Any]]:
    """Returns what metrics.jsonl says of the evaluations of one update, {set: figures}; of some sets or none, too."""
    lines = read_metrics(metrics_path) if storage.is_file(metrics_path) else []
    digests = set_digests or {}
    return {
        line["split"]: line
        for line in lines
        if line["step"] == step and line["split"] in sets and is_same_set(line, digests.get(line["split"], ""))
    }


def is_same_set(line: Mapping[str, Any], set_digest: str) -> bool:
    """Returns whether a line of metrics.jsonl is of the evaluation set with a digest, as far as both tell."""
    return not set_digest or line.get("set_digest", set_digest) == set_digest
