"""Runs `--mode=average`: averages the weights of several checkpoints of one run into a new one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from common import storage
from common import workdir_layout as layout
from engine.checkpointing import manifest
from engine.checkpointing.restore import find_checkpoint, read_best_record, restore_weights, step_of
from engine.common import files
from engine.common.progress import progress_bar
from engine.config import builders, recorded_run
from engine.config.early_checks import AVERAGE_CHOICE
from engine.evaluation.best_metric import other_metric
from engine.inference.export.saved_model import check_new, folder_beside
from engine.protocols import AcousticModel, Components
from engine.training.ema import ema_name
from engine.workdir.folder import WorkdirError, storage_faults
from engine.workdir.records import read_metrics


def run(*, parts: Components, checkpoint: str, inputs: Sequence[str], output: str, weights: str = "") -> int:
    """Averages checkpoints, writes a folder that every mode takes as --checkpoint, and returns the exit status.

    The folder has the config, the vocabulary and the environment of the run, and the averaged checkpoint as its best
    one.

    Args:
        parts: Callables of data and models.
        checkpoint: The workdir of a run, or a checkpoint in it.
        inputs: ["last:N"] or ["best:N"] of the checkpoints that the workdir keeps, or the paths of checkpoints.
        output: New folder.
        weights: "ema" for the averaged weights that each checkpoint holds; "raw" or "" for the others.

    Raises:
        ValueError: The checkpoints do not exist, or are not of one run and one model.
    """
    check_new(output)
    config, workdir = recorded_run.load_run(checkpoint)
    paths = choose_checkpoints(workdir, inputs, weights=weights)
    run_id = _check_one_run(paths)
    tokenizer = parts.build_tokenizer(storage.join(workdir, layout.VOCAB_FILE))
    model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    average_weights(model, paths, weights=weights)
    steps = [step_of(path) for path in paths]
    about: dict[str, Any] = {"averaged": [storage.absolute(path) for path in paths], "weights": weights or "raw"}
    if run_id:
        about["run_id"] = run_id
    fields = layout.read_object(storage.join(workdir, layout.CONFIG_FILE))
    advice = "make room, or name another folder"
    with storage_faults(output, advice=advice), folder_beside(output, purpose="averaging") as temporary:
        folder = temporary / "run"
        _write(folder, model, step=max(steps), about=about)
        files.write_json_atomic(folder / layout.CONFIG_FILE, fields)
        tokenizer.save(os.fspath(folder / layout.VOCAB_FILE))
        with contextlib.suppress(FileNotFoundError):
            environment = storage.read_bytes(storage.join(workdir, layout.ENVIRONMENT_FILE))
            storage.write_bytes(folder / layout.ENVIRONMENT_FILE, environment)
        with contextlib.suppress(FileNotFoundError):
            Path(output).rmdir()  # it is empty
        os.replace(folder, output)
    shown = ", ".join(f"{step:,}" for step in sorted(steps))
    print(f"{output}: the mean of {len(paths)} checkpoints, of the updates {shown}; use it with --checkpoint={output}")
    return 0


def choose_checkpoints(workdir: str, inputs: Sequence[str], *, weights: str = "") -> list[str]:
    """Returns the paths (without .index) of the checkpoints that --inputs names.

    Args:
        workdir: Folder of the run.
        inputs: One of last:N and best:N, or paths of checkpoints.
        weights: "ema" ranks best:N by the averaged weights; "raw" or "" by the weights themselves.

    Raises:
        ValueError: There are fewer than two, or not as many as asked for.
    """
    asked = AVERAGE_CHOICE.fullmatch(inputs[0]) if len(inputs) == 1 else None
    if asked is None:
        return _find_named(inputs)
    kind, number = asked[1], int(asked[2])
    if number < 2:
        raise ValueError(f"--inputs={inputs[0]}: an average needs two checkpoints or more, such as {kind}:5")
    kept = layout.list_own_checkpoints(workdir, layout.CHECKPOINTS_FOLDER)
    found = kept[::-1] if kind == "last" else _rank_by_metric(workdir, kept, weights=weights)
    if len(found) < number:
        evaluated, meets = "", ""
        if kind == "best":
            evaluated = " that were evaluated"
            meets = ", and an --config.eval.every_updates at which one is saved"
        fewer = f"average them with --inputs={kind}:{len(found)}, or " if len(found) > 1 else ""
        raise ValueError(
            f"--inputs={inputs[0]}: {workdir} has {len(found)} checkpoints{evaluated}; {fewer}train with a larger "
            f"--config.checkpoint.keep, which says how many of the newest are kept{meets}"
        )
    return sorted(found[:number], key=step_of)


def _find_named(inputs: Sequence[str]) -> list[str]:
    """Returns the paths of at least two different checkpoints."""
    paths = [find_checkpoint(path) for path in inputs]
    repeated = [path for path in paths if paths.count(path) > 1]
    if len(paths) < 2 or repeated:
        what = f"{repeated[0]} is there twice" if repeated else "these are fewer than two checkpoints"
        raise ValueError(f"--inputs={','.join(inputs)}: {what}; write last:5, best:5, or different checkpoints")
    return paths


def _rank_by_metric(workdir: str, kept: Sequence[str], *, weights: str) -> list[str]:
    """Returns the checkpoints of a run that were evaluated, best first, by the metric that decides about best/.

    Between equal rates the other rate decides, then the later update, as for best/.
    """
    folder, record = _find_evaluations(workdir)
    name, _, metric = record["metric"].rpartition("/")
    line_of = _read_evaluations(folder, ema_name(name) if weights == "ema" else name, metric)
    candidates = {step_of(path): path for path in kept}
    if record["weights"] == (weights or "raw"):  # the best one may no longer be among the newest
        for path in layout.list_own_checkpoints(folder, layout.BEST_FOLDER):
            candidates.setdefault(step_of(path), path)

    def key(step: int) -> tuple[float, float, int]:
        other = line_of[step].get(other_metric(metric))
        return line_of[step][metric], float("inf") if other is None else other, -step

    return [candidates[step] for step in sorted(candidates.keys() & line_of.keys(), key=key)]


def _find_evaluations(workdir: str) -> tuple[str, dict[str, Any]]:
    """Returns the folder with a run's evaluations, its own or that of a process beside it, and its best.json."""
    for folder in (workdir, storage.join(workdir, layout.CONTINUOUS_FOLDER)):
        record = read_best_record(storage.join(folder, layout.BEST_FOLDER))
        if record is not None and storage.is_file(storage.join(folder, layout.METRICS_FILE)):
            return folder, record
    raise ValueError(f"{workdir}: no checkpoint was evaluated, so none is best; write --inputs=last:N")


def _read_evaluations(folder: str, split: str, metric: str) -> dict[int, Mapping[str, Any]]:
    """Returns the last line of each update about a set that has the metric, all of the set's newest version."""
    path = storage.join(folder, layout.METRICS_FILE)
    lines = [line for line in read_metrics(path) if line["split"] == split and line.get(metric) is not None]
    digest = lines[-1].get("set_digest", "") if lines else ""
    return {line["step"]: line for line in lines if line.get("set_digest", "") == digest}


def _check_one_run(paths: Sequence[str]) -> str:
    """Returns the id of the run that wrote the checkpoints, "" if none has one.

    Raises:
        WorkdirError: They are of several runs.
    """
    run_of = {path: layout.run_id_of(path) for path in paths}
    ids = {run_id: path for path, run_id in run_of.items() if run_id}
    if len(ids) > 1:
        (one, first), (other, second), *_ = ids.items()
        raise WorkdirError(
            f"{first} is of run {one} and {second} of run {other}: average the checkpoints of one run; those of "
            "different runs do not lie near each other"
        )
    return next(iter(ids), "")


def average_weights(model: AcousticModel, paths: Sequence[str], *, weights: str = "") -> None:
    """Assigns the mean of several checkpoints to a model: float64 sums, rounded once; one checkpoint at a time.

    Args:
        model: The model; its variables exist.
        paths: Checkpoints of the same model.
        weights: "raw", "ema", or "" for what a checkpoint holds as the model's weights.

    Raises:
        WorkdirError: A checkpoint is damaged or of another model; names it.
    """
    sums: list[Any] = [0.0] * len(model.variables)
    with progress_bar(total=len(paths), description="averaging", unit="checkpoint") as bar:
        for path in paths:
            restore_weights(model, path, weights=weights)
            logging.info("read %s", path)
            for i, variable in enumerate(model.variables):
                sums[i] = sums[i] + variable.numpy().astype(np.float64)
            bar.update()
    for variable, total in zip(model.variables, sums, strict=True):
        if variable.dtype.is_floating:  # a counter stays that of the last checkpoint
            variable.assign((total / len(paths)).astype(variable.dtype.as_numpy_dtype))


def _write(folder: Path, model: AcousticModel, *, step: int, about: Mapping[str, Any]) -> None:
    """Writes a model as the best checkpoint of a workdir."""
    storage.make_dirs(folder / layout.BEST_FOLDER)
    path = os.fspath(folder / layout.BEST_FOLDER / f"ckpt-{step}")
    tf.train.Checkpoint(model=model).write(path)
    manifest.write_manifest(path, {"step": step, **about})
