"""Runs `--mode=doctor`: examines the data of a config, prints the findings and writes two reports to the workdir."""

from __future__ import annotations

import functools
import itertools
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from common.text_style import text_base, with_base
from engine.config import builders, fields_of_run, memory, validation
from engine.distributed import gpus, strategy
from engine.inference.loading import load_transcriber, read_text_rules
from engine.inference.transcript_score import score_transcripts
from engine.protocols import Components, Tokenizer, TrainData
from engine.training import microbatches
from engine.workdir.records import read_metrics_if_any

_FIRST = "train"  # the name of the corpus of data.train among those of data.more_train
_PRODUCT_SIZE, _PRODUCT_SECS = 1024, 0.3
# Ratio of the speed of a lone matrix product that training reaches: 61 to 71 % with base (docs/results/0149). Small
# models spend most of their time between the products.
_REACHED, _REACHED_BY_SMALL, _SMALL_FLOPS = (0.4, 0.8), (0.1, 0.8), 5e9
_MIN_LOOPS = 2  # training loops in metrics.jsonl; the first includes compilation

TimeFn = Callable[[Sequence[tuple[int, int, float]], int], tuple[int, float, float, str] | None]
"""Predicts the time of a training, see `data.doctor.statistics.TimeFn`."""


def run(
    *,
    config: ConfigDict,
    parts: Components,
    workdir: str,
    strategy_name: str,
    measure_model: Callable[..., Any],
    set_type: Callable[..., Any],
    examine: Callable[..., Any],
    write_report: Callable[..., None],
    checkpoint: str = "",
    weights: str = "",
) -> int:
    """Examines the data of a config.

    Args:
        config: Config with the fields of configs/base.py.
        parts: Callables of data and models.
        workdir: Folder that gets doctor.json and doctor.html.
        strategy_name: Name of the distribution strategy, which decides how many rows a microbatch has.
        measure_model: Returns frames, memory and operations of a model that is not built.
        set_type: Builds the description of a set to examine.
        examine: Returns the examination of the sets.
        write_report: Writes the reports of an examination; (examination, folder, title) -> None.
        checkpoint: A recognizer that scores the transcripts, as --mode=align takes it; "" = none.
        weights: "raw", "ema" or "" for the checkpoint's own choice.

    Returns:
        Exit status: 2 if there are errors, else 0.

    Raises:
        ValueError: The config does not fit together.
    """
    strategy.configure_devices(num_virtual_devices=config.runtime.num_virtual_devices)
    replicas = strategy.count_replicas(strategy_name)
    validation.check_fields(config)
    config = fields_of_run.with_architecture(config, parts, init=parts.fetch_weights(config.model.init))
    data = config.data
    given = None if data.vocab in fields_of_run.VOCAB_UNITS else parts.build_tokenizer(data.vocab)
    trained = {_FIRST: data.train, **data.get("more_train", {})}
    build_train, config, tokenizer = _open_train(config, parts, given)
    data = config.data
    estimate = memory.measure(config, num_tokens=tokenizer.num_tokens, measure_model=measure_model)

    def rows_in_training(num_rows: int, num_samples: int) -> int:
        return builders.divide_update(config, num_rows, num_samples, num_replicas=replicas)[1]

    sets = [
        set_type(name="", corpus=name, fields=fields.to_dict(), build=build_train(name), rows_at_once=rows_in_training)
        for name, fields in trained.items()
    ]
    sets += _describe_eval_sets(config, parts, tokenizer, num_replicas=replicas, set_type=set_type)
    report = examine(
        sets=sets,
        tokenizer=tokenizer,
        text_normalization=data.text_normalization,
        frames_fn=estimate.num_frames,
        memory_fn=estimate.memory_bytes,
        time_fn=_time_fn(config, workdir, estimate.training_flops, replicas),
        available_bytes=memory.available_memory(),
        device_faults=gpus.find_gpu_faults(),
        speed_factors=data.speed_factors,
        min_duration_secs=data.min_duration_secs,
        max_duration_secs=data.max_duration_secs,
        allow_train_eval_overlap=data.allow_train_eval_overlap,
        max_hours=data.doctor_max_hours,
        frozen_random=validation.find_frozen_random(config),
        keeps_head=builders.keeps_head(config),
        **_scoring(parts, checkpoint, weights),
    )
    write_report(report, workdir, title=os.path.basename(os.path.normpath(workdir)))
    print("\n".join(report.lines()))
    return 2 if report.num_errors else 0


def _scoring(parts: Components, checkpoint: str, weights: str) -> dict[str, Any]:
    """Returns the arguments of `examine` that let a trained model score the transcripts; {} without a checkpoint."""
    if not checkpoint:
        return {}
    transcriber = load_transcriber(parts=parts, checkpoint=checkpoint, weights=weights)
    aligner = builders.with_blank(parts, transcriber.tokenizer).aligner
    return {
        "score_fn": functools.partial(score_transcripts, transcriber, aligner),
        "score_normalization": read_text_rules(checkpoint)["text_normalization"],
    }


def _describe_eval_sets(
    config: ConfigDict, parts: Components, tokenizer: Tokenizer, *, num_replicas: int, set_type: Callable[..., Any]
) -> list[Any]:
    """Returns the descriptions of the evaluation sets, each with a function that checks and opens its set."""

    def build(name: str, report: Callable[..., None]) -> Any:
        validation.check_corpus(config, config.data.eval[name])
        return builders.build_eval_set(config, parts, tokenizer, name, num_replicas=num_replicas, report=report)

    def rows_at_once(num_rows: int, num_samples: int) -> int:
        del num_samples
        return microbatches.rows_of_replica(num_rows, num_replicas)

    return [
        set_type(name=name, fields=fields.to_dict(), build=functools.partial(build, name), rows_at_once=rows_at_once)
        for name, fields in config.data.eval.items()
    ]


def _open_train(
    config: ConfigDict, parts: Components, tokenizer: Tokenizer | None
) -> tuple[Callable[..., Any], ConfigDict, Tokenizer]:
    """Opens the training corpora before the other sets, because their texts decide fields that are "auto".

    Returns:
        A function from the name of a corpus to one that reports its issues and returns the training data, or raises the
        error of opening them; the config with the fields that the texts decide; the tokenizer, as given or made from
        the texts.
    """
    faults: list[Any] = []
    data: TrainData | None = None
    error: Exception | None = None
    config, missing = _without_missing_corpora(config)
    try:
        validation.check_corpus(config, config.data.train)
        data = builders.build_train_data(config, parts, tokenizer, report=faults.append)
        config = fields_of_run.with_data(config, data)
    except (ValueError, OSError) as refused:
        error = refused
        style = config.data.text_normalization
        if text_base(style) == fields_of_run.AUTO:  # the other sets are examined all the same
            config = ConfigDict(config.to_dict())
            config.data.text_normalization = with_base(style, "unicode")

    def build_train(name: str) -> Callable[..., Any]:
        unusable = missing.get(name, error)
        if error is not None and name != _FIRST and name not in missing:
            unusable = ValueError(f"{name} is not examined, because the training data cannot be opened")
        return functools.partial(_report_corpus, name, data, faults, unusable)

    if tokenizer is None:
        tokenizer = data.tokenizer if data is not None else parts.build_tokenizer("")
    return build_train, config, tokenizer


def _report_corpus(
    name: str, data: TrainData | None, faults: Sequence[Any], error: Exception | None, report: Callable[..., None]
) -> Any:
    """Reports the faults of one training corpus and returns the training data, or raises its error."""
    for fault in faults:
        if getattr(fault, "corpus", _FIRST) == name:
            report(fault)
    if error is not None:
        raise error
    return data


def _without_missing_corpora(config: ConfigDict) -> tuple[ConfigDict, dict[str, Exception]]:
    """Returns the config without the further corpora that do not exist, and the error of each: others are examined."""
    found = ConfigDict(config.to_dict())
    missing: dict[str, Exception] = {}
    for name, fields in config.data.get("more_train", {}).items():
        try:
            validation.check_corpus(config, fields)
        except ValueError as error:
            missing[name] = error
            del found.data.more_train[name]
    return found, missing


def _has_accelerator() -> bool:
    return bool(tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))


def _time_fn(config: ConfigDict, workdir: str, training_flops: Callable[[int], float | None], replicas: int) -> TimeFn:
    """Returns the prediction of the training time: from the workdir's own speed, or from the model's operations."""

    def predict(
        shapes: Sequence[tuple[int, int, float]], updates_per_epoch: int
    ) -> tuple[int, float, float, str] | None:
        num_updates = config.train.num_updates
        found = _epoch_from_speeds(shapes, _measured_speeds(workdir))
        if found is None:
            num_devices = replicas if _has_accelerator() else 1  # virtual devices share the processor
            found = _epoch_from_operations(shapes, training_flops, config.train.precision, num_devices)
        if found is None:
            return None
        low_secs, high_secs, basis = found
        epochs = num_updates / max(updates_per_epoch, 1)
        return num_updates, epochs * low_secs, epochs * high_secs, basis

    return predict


def _epoch_from_speeds(
    shapes: Sequence[tuple[int, int, float]], speeds: Sequence[float]
) -> tuple[float, float, str] | None:
    if not speeds:
        return None
    slow, fast = min(speeds), max(speeds)
    if len(speeds) > _MIN_LOOPS:
        slow, _, fast = statistics.quantiles(speeds, n=4)
    audio_secs = sum(secs for _, _, secs in shapes)
    basis = f"from {len(speeds):,} measurements in {layout.METRICS_FILE} of this workdir"
    return audio_secs / fast, audio_secs / slow, basis


def _epoch_from_operations(
    shapes: Sequence[tuple[int, int, float]],
    training_flops: Callable[[int], float | None],
    precision: str,
    num_devices: int,
) -> tuple[float, float, str] | None:
    audio_secs = sum(secs for _, _, secs in shapes)
    counted = [training_flops(num_samples) for _, num_samples, _ in shapes]
    per_row = [flops for flops in counted if flops is not None]
    if not audio_secs or len(per_row) < len(shapes):
        return None
    flops = sum(rows * each for (rows, _, _), each in zip(shapes, per_row, strict=True))
    peak = product_speed(precision) * num_devices
    low, high = _REACHED if flops / audio_secs > _SMALL_FLOPS else _REACHED_BY_SMALL
    basis = (
        f"estimated before training: {flops / audio_secs / 1e9:.3g} billion operations per second of audio, at "
        f"{100 * low:.0f} to {100 * high:.0f} % of a matrix product's {peak / 1e9:,.0f} GFLOP/s, measured just now"
    )
    return flops / (high * peak), flops / (low * peak), basis


def _measured_speeds(workdir: str) -> list[float]:
    """Returns seconds of audio per second of each training loop in the workdir but the first; [] without two."""
    path = storage.join(workdir, layout.METRICS_FILE)
    try:
        lines = read_metrics_if_any(path)
    except (ValueError, OSError) as error:
        logging.warning("the prediction of the training time does without the speed of this workdir: %s", error)
        return []
    found = [line.get("audio_secs_per_sec") for line in lines if line["split"] == "train"]
    return [speed for speed in found[1:] if speed and speed > 0]


def product_speed(precision: str) -> float:
    """Measures the speed of a matrix product on this machine, in floating-point operations per second.

    It is the fastest of those in 0.3 s, because other processes slow most of them down.

    Args:
        precision: float32, mixed_bfloat16 or mixed_float16.
    """
    dtype = tf.as_dtype(precision.removeprefix("mixed_"))
    factor = tf.cast(tf.random.stateless_uniform([_PRODUCT_SIZE] * 2, seed=[0, 0]), dtype)
    tf.linalg.matmul(factor, factor).numpy()  # starts the thread pools
    ends = [time.monotonic()]
    while ends[-1] - ends[0] < _PRODUCT_SECS:
        tf.linalg.matmul(factor, factor).numpy()
        ends.append(time.monotonic())
    return 2.0 * _PRODUCT_SIZE**3 / max(min(b - a for a, b in itertools.pairwise(ends)), 1e-9)
