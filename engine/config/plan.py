"""Describes a training's plan from its config, for the log at its start."""

from __future__ import annotations

import tensorflow as tf
from ml_collections import ConfigDict

from engine.config import builders, validation
from engine.console.model_summary import count_parameters
from engine.protocols import AcousticModel, TrainData

_NUM_MOMENTS = 2  # float32 numbers that Adam keeps for each parameter


def describe_plan(config: ConfigDict, data: TrainData, *, num_replicas: int) -> list[str]:
    """Returns log lines about training data, batches and, for a run that counts in epochs, its updates."""
    train = config.train
    lines = [
        f"{data.num_utterances} training utterances, {data.duration_secs / 3600:.2f} h, {data.updates_per_epoch} "
        f"updates an epoch; {_describe_batch(config, num_replicas)}, {data.duration_secs / data.updates_per_epoch:.1f} "
        "audio-seconds an update"
    ]
    lines += data.describe_corpora()
    if num_epochs := train.get("num_epochs", 0.0):  # runs of older versions have no such field
        every = config.eval.every_updates
        lines.append(
            f"{num_epochs:g} epochs are {train.num_updates} updates; evaluation "
            f"{f'every {every}' if every else 'at the end'}, a checkpoint every {config.checkpoint.every_updates}"
        )
    return lines


def describe_finished(config: ConfigDict, *, workdir: str, step: int) -> str:
    """Returns that nothing is left to train, and how to train longer."""
    train = config.train
    done = f"{workdir} has done its {step} updates (train.num_updates={train.num_updates}): nothing to train"
    longer = 2 * train.num_updates
    if validation.can_be_longer(config, before=train.num_updates, num_updates=longer, step=step):
        num_epochs = train.get("num_epochs", 0.0)
        field = f"num_epochs={2 * num_epochs:g}" if num_epochs else f"num_updates={longer}"
        return f"{done}; to train longer, give --config.train.{field}"
    return f"{done}; {validation.how_to_go_on(config, workdir=workdir)}"


def initialized_variables(config: ConfigDict, model: AcousticModel) -> list[tf.Variable]:
    """Returns the variables that a new run initializes from loaded weights."""
    if not config.model.init:
        return list(model.pretrained_variables)
    fresh = [*builders.list_adapted(config, model), *(() if config.model.init_head else model.head_variables)]
    left_out = {variable.ref() for variable in fresh}
    return [variable for variable in model.variables if variable.ref() not in left_out]


def describe_adaptation(config: ConfigDict, model: AcousticModel) -> str:
    """Returns how much of the model trains beside its frozen weights, and what Adam saves; "" if all trains."""
    adapted = builders.list_adapted(config, model)
    if not adapted:
        return ""
    fields = config.model
    if fields.get("lora_rank"):
        what = f"LoRA of rank {fields.lora_rank} on {', '.join(fields.lora_targets)}"
    else:
        what = f"bottleneck adapters of width {fields.bottleneck_size}"
    num_trained, total = count_parameters(model.trainable_variables), count_parameters(model.variables)
    return (
        f"{what}: {num_trained:,} of {total:,} parameters train ({100 * num_trained / total:.2g} %); Adam keeps "
        f"{_NUM_MOMENTS * 4 * num_trained / 1e6:.3g} MB, where training the whole model takes "
        f"{_NUM_MOMENTS * 4 * (total - count_parameters(adapted)) / 1e6:,.3g} MB"
    )


def _describe_batch(config: ConfigDict, num_replicas: int) -> str:
    data, rows = config.data, config.train.global_batch_size
    max_rows, max_secs = builders.microbatch_limits(config).values()
    if not (data.max_batch_secs or max_secs):
        count, size = builders.divide_update(config, rows, 0, num_replicas=num_replicas)
        filled = size * num_replicas * count - rows
        less = f" less {filled} padding rows" if filled else ""
        return f"global batch {rows} = {size} rows x {num_replicas} replicas x {count} microbatches{less}"
    batch = str(rows)
    if data.max_batch_secs:
        batch = f"up to {data.max_batch_secs:g} s with padding, its rows a multiple of {data.row_multiple}"
    at_once = f"{max_rows} rows (train.microbatch_secs counts audio instead)"
    if max_secs:
        at_once = f"{max_secs:g} s with padding, or of one row"
    return f"global batch {batch}, over {num_replicas} replicas, in microbatches of at most {at_once}"
