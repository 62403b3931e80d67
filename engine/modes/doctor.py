"""The mode `doctor`: hands a config's data to the doctor, prints what it says, leaves two reports in the workdir."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import tensorflow as tf
from ml_collections import ConfigDict

from engine.config import builders, validation
from engine.distributed import strategy
from engine.protocols import Components, Tokenizer, TrainData


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
) -> int:
    """Examines the data of a config.

    Args:
        config: As configs/base.py.
        parts: What data and models contribute.
        workdir: Gets doctor.json and doctor.html.
        strategy_name: As `runtime.build_strategy`; decides how many rows a microbatch has.
        measure_model: keyword arguments -> the frames and the memory of a model that is not built.
        set_type: keyword arguments -> a set to examine.
        examine: keyword arguments -> an examination.
        write_report: (examination, folder, title) -> None.

    Returns:
        Exit status: 2 if there are errors, else 0.

    Raises:
        ValueError: The config does not fit together.
    """
    strategy.configure_devices(num_virtual_devices=config.runtime.num_virtual_devices)
    replicas = strategy.count_replicas(strategy_name)
    validation.check_fields(config, num_replicas=replicas)
    config = builders.with_architecture(config, parts, init=parts.fetch_weights(config.model.init))
    data = config.data
    given = None if data.vocab == builders.AUTO else parts.build_tokenizer(data.vocab)
    build_train, config, tokenizer = _open_train(config, parts, given)
    data = config.data
    footprint = measure_model(
        source=config.model.source,
        preset_name=config.model.preset,
        architecture=dict(config.model.get("architecture", {})),
        hub_handle=config.model.hub_handle,
        vocab_size=tokenizer.num_tokens,
        precision=config.train.precision,
        freeze_feature_encoder=config.model.freeze_feature_encoder,
        keep_average=config.train.ema_decay > 0,
        keep_copy=config.checkpoint.background,
        regions=config.model.regions,
        recompute=config.model.recompute,
    )

    def build_eval(name: str) -> Callable[..., Any]:
        def build(report: Callable[..., None]) -> Any:
            validation.check_corpus(config, data.eval[name])
            return builders.build_eval_set(config, parts, tokenizer, name, num_replicas=replicas, report=report)

        return build

    num_parts = replicas * config.train.accum_steps
    sets = [set_type(name="", fields=data.train.to_dict(), build=build_train, num_parts=num_parts)]
    for name, fields in data.eval.items():
        sets.append(set_type(name=name, fields=fields.to_dict(), build=build_eval(name), num_parts=replicas))
    examination = examine(
        sets=sets,
        tokenizer=tokenizer,
        text_style=data.text_style,
        frames_fn=footprint.num_frames,
        memory_fn=footprint.memory_bytes,
        available_bytes=available_memory(),
        speed_factors=data.speed_factors,
        min_duration_secs=data.min_duration_secs,
        max_duration_secs=data.max_duration_secs,
        allow_leak=data.allow_leak,
        max_hours=data.doctor_max_hours,
        frozen_random=validation.find_frozen_random(config),
    )
    write_report(examination, workdir, title=os.path.basename(os.path.normpath(workdir)))
    print("\n".join(examination.lines()))
    return 2 if examination.num_errors else 0


def _open_train(
    config: ConfigDict, parts: Components, tokenizer: Tokenizer | None
) -> tuple[Callable[..., Any], ConfigDict, Tokenizer]:
    """Opens the training set before the others: its texts decide what the config leaves to them.

    Returns:
        What hands the set over, with its faults or the error that it cannot be opened for; the config with what the
        texts decide; the tokenizer, as given or made of them.
    """
    faults: list[Any] = []
    data: TrainData | None = None
    error: Exception | None = None
    try:
        validation.check_corpus(config, config.data.train)
        data = builders.build_train_data(config, parts, tokenizer, report=faults.append)
        config = builders.with_data(config, data)
    except (ValueError, OSError) as refused:
        error = refused
        if config.data.text_style == builders.AUTO:  # the other sets are examined all the same
            config = ConfigDict(config.to_dict())
            config.data.text_style = "unicode"

    def build(report: Callable[..., None]) -> Any:
        for fault in faults:
            report(fault)
        if error is not None:
            raise error
        return data

    if tokenizer is None:
        tokenizer = data.tokenizer if data is not None else parts.build_tokenizer("")
    return build, config, tokenizer


def available_memory() -> int | None:
    """Bytes of the machine's memory; None on accelerators, whose own memory decides and is not asked here."""
    if tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
