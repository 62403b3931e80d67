"""Actions that write metrics, predictions and the best checkpoint; callables for `orbit.Controller`.

An action gets the output of a train loop, {metric: value}, or of an evaluation, {set: {metric: value}}, and runs
eagerly. The controller calls actions before it saves a checkpoint.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from engine.checkpointing.best import BestCheckpoint
from engine.common import files
from engine.evaluation.best_metric import other_metric
from engine.evaluation.metrics import TranscriptionScore
from engine.protocols import EvalData
from engine.report.history import write_history
from engine.training.ema import EmaWeights, ema_name
from engine.workdir.records import read_metrics

Output = Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsWriter:
    """Appends to metrics.jsonl: a line for a train loop, a line per set for an evaluation.

    Attributes:
        path: Usually WORKDIR/metrics.jsonl.
        global_step: Number of updates done; the `step` of a line.
        split: The `split` of flat outputs; for nested ones it is the name of the set.
        extra: Returns more fields for flat outputs: texts, which the controller could not draw as curves.
        set_digests: {set: digest of its content}; the `set_digest` of a set's lines.
    """

    path: str | os.PathLike[str]
    global_step: tf.Variable
    split: str = "train"
    extra: Callable[[], Mapping[str, Any]] = dict
    set_digests: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __call__(self, output: Output) -> None:
        """Appends all lines of the output or none; scalars that are not finite become null."""
        step = int(self.global_step.numpy())
        flat = {name: value for name, value in output.items() if not isinstance(value, Mapping)}
        nested = {name: value for name, value in output.items() if isinstance(value, Mapping)}
        if flat:
            nested = {self.split: {**flat, **self.extra()}, **nested}
        records = [
            {
                "step": step,
                "split": split,
                **{name: _number(value) for name, value in metrics.items()},
                **({"set_digest": self.set_digests[split]} if split in self.set_digests else {}),
            }
            for split, metrics in nested.items()
        ]
        if records:
            files.append_jsonl(self.path, *records)


def truncate_metrics(path: str | os.PathLike[str], step: int) -> int:
    """Removes the lines of updates that a resumed run will repeat; atomic.

    A process killed between two checkpoints leaves lines of later steps than the checkpoint's, and perhaps half a line.

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
    # Comparing the whole text also removes half a line.
    if text != storage.read_bytes(path).decode("utf-8", "replace"):
        files.write_text_atomic(path, text)
    return len(records) - len(kept)


def last_step(path: str | os.PathLike[str]) -> int:
    """Returns the largest step in metrics.jsonl; 0 without lines."""
    steps = [record.get("step") for record in (files.read_jsonl(path) if storage.is_file(path) else [])]
    return max((step for step in steps if isinstance(step, int)), default=0)


def find_metric(output: Output, key: Sequence[str]) -> float:
    """Returns one metric of an evaluation.

    Args:
        output: {set: {metric: value}}.
        key: Name of the set, then of the metric.

    Raises:
        ValueError: The output has no such metric.
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaveBest:
    """Eval action that keeps the checkpoint with the best metric of one set.

    Attributes:
        best: Saves the checkpoint and keeps the best value across restarts.
        key: Name of the set, then of the metric. Between equal values of wer the cer decides, and the other way round.
        ema: Averaged weights that were evaluated too; they are saved if they are better.
        set_digest: Digest of the set's content; "" if unknown.
    """

    best: BestCheckpoint
    key: tuple[str, ...]
    ema: EmaWeights | None = None
    set_digest: str = ""

    def __call__(self, output: Output) -> None:
        """Saves if the metric is better than ever before.

        Raises:
            ValueError: The output has no such metric.
        """
        value, tie = self._find(output, self.key)
        about = {"metric": "/".join(self.key), "set_digest": self.set_digest}
        if self.ema is not None:
            averaged, averaged_tie = self._find(output, (ema_name(self.key[0]), *self.key[1:]))
            is_better = self.best.is_better(averaged, than=value)
            if averaged == value and averaged_tie is not None and tie is not None:
                is_better = self.best.is_better(averaged_tie, than=tie)
            if is_better:
                with self.ema.swapped():
                    self.best.save_if_better(averaged, tie_value=averaged_tie, weights="ema", **about)
                return
        self.best.save_if_better(value, tie_value=tie, weights="raw", **about)

    @staticmethod
    def _find(output: Output, key: tuple[str, ...]) -> tuple[float, float | None]:
        """Returns the metric of a key, and the other one of the set that decides between equal values."""
        value, other = find_metric(output, key), other_metric(key[-1])
        return value, find_metric(output, (*key[:-1], other)) if other in output[key[0]] else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionsWriter:
    """Eval action that writes WORKDIR/eval/SET/predictions.jsonl, worst first; history/ keeps the last few.

    Attributes:
        workdir: Folder of the run.
        scores: {set: score of the last evaluation}, filled by `EvaluatorGroup`.
        data: {set: its data}.
        global_step: Update of the evaluated weights.
    """

    workdir: str | os.PathLike[str]
    scores: Mapping[str, TranscriptionScore]
    data: Mapping[str, EvalData]
    global_step: tf.Variable

    def __call__(self, output: Output) -> None:
        """Writes the predictions of the last evaluation."""
        del output
        for name, score in self.scores.items():
            folder = storage.join(self.workdir, layout.EVAL_FOLDER, name)
            data = self.data[name]
            index_of = {utterance_id: index for index, utterance_id in data.utterance_ids.items()}
            records = [
                {
                    **record,
                    "speaker_id": data.speaker_ids[index_of[record["utterance_id"]]],
                    "duration_secs": round(data.duration_secs[index_of[record["utterance_id"]]], 3),
                    **_slices(data, index_of[record["utterance_id"]]),
                }
                for record in score.predictions()
            ]
            files.write_jsonl_atomic(storage.join(folder, layout.PREDICTIONS_FILE), records)
            write_history(folder, int(self.global_step.numpy()), records)


def _slices(data: EvalData, index: int) -> dict[str, Any]:
    return {"slices": data.slices[index]} if index in data.slices else {}


def _number(value: Any) -> Any:
    """Returns a tensor or NumPy scalar as a Python number."""
    value = value.numpy() if hasattr(value, "numpy") else value
    return value.item() if hasattr(value, "item") else value
