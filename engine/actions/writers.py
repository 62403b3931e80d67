"""What happens between train loops and after evaluations: plain callables for `orbit.Controller`.

An action gets the output of a train loop, {figure: value}, or of an evaluation, {set: {figure:
value}}, and always runs eagerly. The controller calls them before it saves a checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from engine.checkpointing.manager import BestCheckpoint
from engine.common import files
from engine.evaluation.metrics import TranscriptionScore
from engine.protocols import EvalData
from engine.report.history import write_history
from engine.training.ema import EmaWeights, ema_name
from engine.workdir.records import read_metrics

Output = Mapping[str, Any]


class MetricsWriter:
    """Appends figures to metrics.jsonl: a line for a train loop, one per set for an evaluation."""

    def __init__(
        self,
        *,
        path: str | os.PathLike[str],
        global_step: tf.Variable,
        split: str = "train",
        extra: Callable[[], Mapping[str, Any]] = dict,
        set_digests: Mapping[str, str] | None = None,
    ) -> None:
        """Keeps its arguments; the file is made with the first line.

        Args:
            path: Usually WORKDIR/metrics.jsonl.
            global_step: Goes into every line as `step`.
            split: Of flat outputs; for nested ones it is the name of the set.
            extra: What flat outputs say besides: texts, which the controller could not draw as curves.
            set_digests: {set: what tells it from others of its name}; goes into the lines of a set as `set_digest`.
        """
        self._path = path
        self._global_step = global_step
        self._split = split
        self._extra = extra
        self._set_digests = dict(set_digests or {})

    def __call__(self, output: Output) -> None:
        """Writes the output, all its lines or none; scalars that are not finite become null."""
        step = int(self._global_step.numpy())
        flat = {name: value for name, value in output.items() if not isinstance(value, Mapping)}
        nested = {name: value for name, value in output.items() if isinstance(value, Mapping)}
        if flat:
            nested = {self._split: {**flat, **self._extra()}, **nested}
        records = [
            {
                "step": step,
                "split": split,
                **{name: _number(value) for name, value in figures.items()},
                **({"set_digest": self._set_digests[split]} if split in self._set_digests else {}),
            }
            for split, figures in nested.items()
        ]
        if records:
            files.append_jsonl(self._path, *records)


def truncate_metrics(path: str | os.PathLike[str], step: int) -> int:
    """Removes the lines of updates that a resumed run will repeat; atomic.

    A process killed between two checkpoints leaves lines with a greater step than the checkpoint's,
    and perhaps half a line. Without this the file would hold them twice.

    Args:
        path: metrics.jsonl; need not exist.
        step: Update of the restored checkpoint; lines of this step stay.

    Returns:
        Number of lines removed, not counting half a line.
    """
    if not storage.is_file(path):
        return 0
    records = read_metrics(path)
    kept = [record for record in records if record.get("step", 0) <= step]
    text = "".join(files.json_line(record) for record in kept)
    # Compared as a whole, so that half a line goes too.
    if text != storage.read_bytes(path).decode("utf-8", "replace"):
        files.write_text_atomic(path, text)
    return len(records) - len(kept)


def last_step(path: str | os.PathLike[str]) -> int:
    """Returns the largest update that a line of metrics.jsonl is about; 0 without any."""
    steps = [record.get("step") for record in (files.read_jsonl(path) if storage.is_file(path) else [])]
    return max((step for step in steps if isinstance(step, int)), default=0)


def find_figure(output: Output, key: Sequence[str]) -> float:
    """Returns one figure of an evaluation.

    Args:
        output: {set: {figure: value}}.
        key: Name of the set, then of the figure.

    Raises:
        ValueError: The output has no such figure.
    """
    value: Any = output
    for position, name in enumerate(key):
        if not isinstance(value, Mapping) or name not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else "no further names"
            raise ValueError(
                f"best checkpoint by {'/'.join(key[: position + 1])}: not in the evaluation, which has {known}"
            )
        value = value[name]
    return float(_number(value))


class SaveBest:
    """Eval action that keeps the checkpoint with the best figure of one set."""

    def __init__(
        self,
        *,
        best: BestCheckpoint,
        key: Sequence[str] = ("dev", "wer"),
        ema: EmaWeights | None = None,
        set_digest: str = "",
    ) -> None:
        """Keeps its arguments.

        Args:
            best: Saves, and remembers the best value over restarts.
            key: Way to the figure in the output: the set's name, then the figure's.
            ema: Averages of the weights, which were evaluated too: they are what is saved where they are better.
            set_digest: Of the set, as `BestCheckpoint.save_if_better`.
        """
        self._best = best
        self._set_digest = set_digest
        self._key = tuple(key)
        self._ema = ema

    def __call__(self, output: Output) -> None:
        """Saves if the figure is better than ever before.

        Raises:
            ValueError: The output has no such figure.
        """
        value, metric = find_figure(output, self._key), "/".join(self._key)
        if self._ema is not None:
            averaged = find_figure(output, (ema_name(self._key[0]), *self._key[1:]))
            if self._best.is_better(averaged, than=value):
                with self._ema.swapped():
                    self._best.save_if_better(averaged, metric=metric, weights="ema", set_digest=self._set_digest)
                return
        self._best.save_if_better(value, metric=metric, weights="raw", set_digest=self._set_digest)


class PredictionsWriter:
    """Eval action: WORKDIR/eval/SET/predictions.jsonl of each set, worst first; history/ keeps the last few."""

    def __init__(
        self,
        *,
        workdir: str | os.PathLike[str],
        scores: Mapping[str, TranscriptionScore],
        data: Mapping[str, EvalData],
        global_step: tf.Variable,
    ) -> None:
        """Keeps its arguments.

        Args:
            workdir: Folder of the run.
            scores: {set: score of the last evaluation}, as `EvaluatorGroup` fills it.
            data: The sets, by the same names.
            global_step: Update of the evaluated weights.
        """
        self._workdir = workdir
        self._scores = scores
        self._data = data
        self._global_step = global_step

    def __call__(self, output: Output) -> None:
        """Writes the predictions of the evaluation that has just ended."""
        del output
        for name, score in self._scores.items():
            folder = storage.join(self._workdir, layout.EVAL_FOLDER, name)
            data = self._data[name]
            index_of = {utterance_id: index for index, utterance_id in data.utterance_ids.items()}
            records = [
                {
                    **record,
                    "speaker_id": data.speaker_ids[index_of[record["utterance_id"]]],
                    "duration_secs": round(data.duration_secs[index_of[record["utterance_id"]]], 3),
                }
                for record in score.predictions()
            ]
            files.write_jsonl_atomic(storage.join(folder, layout.PREDICTIONS_FILE), records)
            write_history(folder, int(self._global_step.numpy()), records)


def _number(value: Any) -> Any:
    """Returns a tensor or NumPy scalar as a Python number."""
    value = value.numpy() if hasattr(value, "numpy") else value
    return value.item() if hasattr(value, "item") else value
