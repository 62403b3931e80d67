"""A config's fields as the arguments of the parts that a run is made of."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf
import tf_keras
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from common.hub_input import hub_normalizes
from common.json_files import Kind, MalformedFileError, field, optional_field
from common.weight_names import repository_hint
from engine.distributed import strategy as runtime
from engine.evaluation.evaluator import Evaluator, EvaluatorGroup, RowFunctions
from engine.protocols import AcousticModel, Components, EvalData, Search, Tokenizer, TrainData
from engine.report.writer import ReportWriter
from engine.training.ema import EmaWeights
from engine.training.optimizer import DynamicLossScale, build_optimizer
from engine.training.options import TrainerOptions
from engine.training.schedules import WarmupHoldDecay, build_schedule
from engine.training.trainer import Trainer

# Stands for what the texts of the training data decide: data.text_normalization, data.vocab.
AUTO = "auto"
# Only the config.json of a converted folder has it at its top.
_CONVERTED_FIELD = "hidden_size"
_ARCHITECTURE_FIELDS = (
    "hidden_dropout",
    "attention_dropout",
    "activation_dropout",
    "feature_projection_dropout",
    "final_dropout",
    "layer_drop",
    "mask_time_prob",
    "mask_time_length",
    "mask_feature_prob",
    "mask_feature_length",
    "fused_ops",
    "gradient_checkpointing",
)


_TYPES = {
    "fused_ops": str,
    "gradient_checkpointing": bool,
    "mask_time_length": int,
    "mask_feature_length": int,
}  # the others: float
# Group, name and type of what inference reads of a run's config, and whether every version has written it.
_READ_FIELDS: tuple[tuple[str, str, type, bool], ...] = (
    ("model", "preset", str, True),
    ("model", "source", str, False),
    ("model", "hub_handle", str, False),
    ("model", "architecture", dict, False),
    ("model", "freeze_feature_encoder", bool, True),
    *(("model", name, _TYPES.get(name, float), False) for name in _ARCHITECTURE_FIELDS),
    ("data", "on_rate_mismatch", str, True),
    ("data", "text_normalization", str, True),
    ("data", "eval", dict, True),
    ("train", "precision", str, True),
)  # fmt: skip


def load_run(checkpoint: str) -> tuple[ConfigDict, str]:
    """Returns the config of the run that made a checkpoint, and the folder that it lies in.

    A folder of `python -m models.convert` counts as a run that was never trained here: it has what inference reads.

    Args:
        checkpoint: A workdir, or a checkpoint inside one; or a converted folder.

    Raises:
        ValueError: If no config.json belongs to it, or a damaged one, or that of a Hugging Face model.
    """
    if not checkpoint:
        raise ValueError("--checkpoint is empty: give the workdir of a training run")
    path = layout.find_above(checkpoint, layout.CONFIG_FILE)
    if path is None:
        raise ValueError(
            f"{checkpoint}: no config.json there or above; give the workdir of a training run to --checkpoint"
            f"{repository_hint(checkpoint)}"
        )
    folder = storage.parent(path)
    fields = layout.read_config(path)
    if "model_type" in fields:
        raise ValueError(
            f"{path}: of a Hugging Face model; run python -m models.convert --input={folder} --output=DIR first and "
            "give DIR"
        )
    if _CONVERTED_FIELD in fields:
        fields = _untrained_run(fields, path)
    _check_fields(fields, path)
    return ConfigDict(fields), folder


def run_folder(checkpoint: str) -> str:
    """Returns the folder of the config.json at a checkpoint or above, "" where there is none."""
    path = layout.find_above(checkpoint, layout.CONFIG_FILE) if checkpoint else None
    return storage.parent(path) if path else ""


def build_tokenizer(config: ConfigDict, parts: Components, *, workdir: str, checkpoint: str = "") -> Tokenizer:
    """Builds the tokenizer of trained weights: tokens mean what they meant to the run that the weights are of.

    Args:
        config: Whose data.vocab is taken where no vocabulary lies beside the weights.
        parts: What data and models contribute.
        workdir: Of --workdir.
        checkpoint: Of --checkpoint, of this run or another; "" = the workdir's own.

    Raises:
        ValueError: The vocabulary is made at a run's first start, and there is no run.
    """
    path = storage.join(run_folder(checkpoint) or workdir, layout.VOCAB_FILE)
    if storage.is_file(path):
        return parts.build_tokenizer(path)
    if config.data.vocab == AUTO:
        place = checkpoint or workdir
        raise ValueError(f"{place}: no vocab.json (data.vocab=auto); train first, or name the vocabulary")
    return parts.build_tokenizer(config.data.vocab)


def _check_fields(fields: Mapping[str, Any], path: str) -> None:
    """Checks that what inference reads out of a run's config is there, and of its type.

    Raises:
        MalformedFileError: Names the field.
    """
    for group, name, kind, is_needed in _READ_FIELDS:
        found = field(fields, group, dict, path)
        if is_needed or name in found:
            field(found, name, kind, f"{path}, {group}")
    field(fields, "seed", int, path)
    sets = fields["data"]["eval"]
    for name in sets:
        field(sets, name, dict, f"{path}, data.eval")
    for name in ("decode", "eval"):
        optional_field(fields, name, dict, path, {})


def _untrained_run(fields: dict[str, Any], path: str) -> dict[str, Any]:
    """Returns the config of a run out of that of a converted folder, as far as inference reads it."""
    for name in _ARCHITECTURE_FIELDS:
        if name not in fields:
            raise MalformedFileError(f"{path} has no {name!r}; convert the model again")
    # The vocabulary beside it decides about its own size.
    architecture = {name: value for name, value in fields.items() if name not in (*_ARCHITECTURE_FIELDS, "vocab_size")}
    recipe = {name: fields[name] for name in _ARCHITECTURE_FIELDS}
    vocab = storage.join(storage.parent(path), layout.VOCAB_FILE)
    tokens = layout.read_object(vocab) if storage.is_file(vocab) else {}
    letters = "".join(token for token in tokens if len(token) == 1)
    # Transcripts are compared and aligned in the case that the model writes.
    text_normalization = "unicode" if letters.islower() else "librispeech"
    return {
        "seed": 0,
        "model": {"preset": "auto", "architecture": architecture, "freeze_feature_encoder": False, **recipe},
        "data": {"on_rate_mismatch": "resample", "text_normalization": text_normalization, "eval": {}},
        "train": {"precision": "float32"},
    }


def with_architecture(config: ConfigDict, parts: Components, *, init: str = "", run: str = "") -> ConfigDict:
    """Returns the config with `model.architecture` filled in where `model.preset` does not name one.

    So the config that a workdir keeps tells its architecture by itself, when the weights that the run started from are
    gone.

    Args:
        config: As configs/base.py.
        parts: Whose `find_architecture` is asked.
        init: Weights to start from; "" = none.
        run: A workdir, or a checkpoint in one, whose architecture is recorded already.

    Raises:
        ValueError: If none can be found, or the preset and the weights contradict each other.
    """
    if config.model.get("source", "native") != "native":
        return config
    found = ConfigDict(config.to_dict())
    found.model.architecture = parts.find_architecture(preset=config.model.preset, init=init, run=run)
    return found.lock()


def with_text_style(config: ConfigDict, *, run: str) -> ConfigDict:
    """Returns the config with the text style that "auto" turned out to be in a run.

    Args:
        config: As configs/base.py.
        run: A workdir, or a checkpoint in one.

    Raises:
        ValueError: There is no such run.
    """
    if config.data.text_normalization != AUTO:
        return config
    found = ConfigDict(config.to_dict())
    found.data.text_normalization = read_run_field(run, "data", "text_normalization", str)
    return found.lock()


def with_data(config: ConfigDict, data: TrainData, *, run: str = "") -> ConfigDict:
    """Returns the config with what follows from the training data: the text style, and epochs as updates.

    Args:
        config: As configs/base.py.
        data: The training data.
        run: A workdir that is continued; "" = a fresh run.
    """
    found = ConfigDict(config.to_dict())
    if found.data.text_normalization == AUTO:
        found.data.text_normalization = data.text_normalization
    for group in (found.eval, found.checkpoint):
        if epochs := group.get("every_epochs", 0.0):
            group.every_updates = _count_updates(epochs, data)
    if epochs := found.train.get("num_epochs", 0.0):
        # Other data have another number of updates, but that is not what is wrong with them: their fingerprint is.
        is_recorded = bool(run) and read_run_field(run, "train", "num_epochs", float) == epochs
        found.train.num_updates = (
            read_run_field(run, "train", "num_updates", int) if is_recorded else _count_updates(epochs, data)
        )
    return found.lock()


def read_run_field(run: str, group: str, name: str, kind: type[Kind]) -> Kind:
    """Returns one field of the config that a run has written.

    Args:
        run: A workdir, or a checkpoint in one.
        group: Of the field, such as "train".
        name: Of the field.
        kind: As `json_files.field`.

    Raises:
        ValueError: There is no such run or field.
    """
    path = layout.find_above(run, layout.CONFIG_FILE)
    if path is None:
        raise ValueError(f"{run}: no config.json there or above; give the workdir of a training run")
    return field(field(layout.read_config(path), group, dict, path), name, kind, f"{path}, {group}")


def _count_updates(epochs: float, data: TrainData) -> int:
    return max(1, round(epochs * data.updates_per_epoch))


def build_model(config: ConfigDict, parts: Components, *, num_tokens: int) -> AcousticModel:
    """Builds the model of a config; inside `strategy.scope()`."""
    # Runs from before a field was there did without it.
    fields = {name: config.model[name] for name in _ARCHITECTURE_FIELDS if name in config.model}
    if fields.get("fused_ops") == "auto" and runtime.is_tpu(tf.distribute.get_strategy()):
        # A TPU compiles the whole step; regions would only hide the shapes behind them, and compute in float64.
        fields["fused_ops"] = "off"
    # Fresh weights follow the seed on every device and in every process.
    tf_keras.utils.set_random_seed(config.seed)
    return parts.build_model(
        # Runs from before there were sources do not name theirs.
        source=config.model.get("source", "native"),
        hub_handle=config.model.get("hub_handle", ""),
        preset=config.model.preset,
        # Runs from before presets could be other than names have none.
        architecture=dict(config.model.get("architecture", {})),
        vocab_size=num_tokens,
        precision=config.train.precision,
        freeze_feature_encoder=config.model.freeze_feature_encoder,
        **fields,
    )


def with_blank(parts: Components, tokenizer: Tokenizer) -> Components:
    """Returns the parts with the vocabulary's blank in the loss, the decoders, the aligner and the searches."""
    if not tokenizer.blank_id:  # what all of them take where nobody gives another
        return parts
    bound = {
        name: functools.partial(getattr(parts, name), blank_id=tokenizer.blank_id)
        for name in ("loss_fn", "decoder", "span_decoder", "span_graph_decoder", "aligner", "build_search")
    }
    return dataclasses.replace(parts, **bound)


def normalizes(config: ConfigDict) -> bool:
    """Returns whether a run's model hears recordings with zero mean and unit variance, or as they are.

    It is part of the model's architecture (`models.wav2vec2.config.Wav2Vec2Config.normalize_waveform`). Those
    that a preset names have none in the config: they all do. A SavedModel says it beside itself.
    """
    if config.model.get("source", "native") == "hub":
        return hub_normalizes(config.model.hub_handle)
    return config.model.get("architecture", {}).get("normalize_waveform", True)


def build_train_data(config: ConfigDict, parts: Components, tokenizer: Tokenizer | None, **more: Any) -> TrainData:
    """Opens the training corpus of a config, which makes a tokenizer if none is given; `more` goes to it as it is."""
    data = config.data
    return parts.build_train_data(
        tokenizer=tokenizer,
        text_normalization=data.text_normalization,
        **data.train.to_dict(),
        on_rate_mismatch=data.on_rate_mismatch,
        global_batch_size=config.train.global_batch_size,
        seed=config.seed,
        num_buckets=data.num_buckets,
        bucket_boundaries_samples=data.bucket_boundaries_samples,
        min_duration_secs=data.min_duration_secs,
        max_duration_secs=data.max_duration_secs,
        concat_max_utterances=data.concat_max_utterances,
        concat_max_secs=data.concat_max_secs,
        concat_gap_secs=data.concat_gap_secs,
        speed_factors=data.speed_factors,
        max_batch_secs=data.max_batch_secs,
        row_multiple=data.row_multiple,
        num_parallel_calls=data.num_parallel_calls,
        prefetch_batches=data.prefetch_batches,
        normalize=normalizes(config),
        **more,
    )


def build_eval_data(
    config: ConfigDict, parts: Components, tokenizer: Tokenizer, *, num_replicas: int = 1
) -> dict[str, EvalData]:
    """Opens the evaluation sets of a config, by name; batches are rounded up to a multiple of the replicas."""
    return {
        name: build_eval_set(config, parts, tokenizer, name, num_replicas=num_replicas) for name in config.data.eval
    }


def build_eval_set(
    config: ConfigDict, parts: Components, tokenizer: Tokenizer, name: str, *, num_replicas: int = 1, **more: Any
) -> EvalData:
    """Opens one evaluation set of a config; `more` goes to it as it is."""
    data = config.data
    return parts.build_eval_data(
        tokenizer=tokenizer,
        text_normalization=data.text_normalization,
        **data.eval[name].to_dict(),
        on_rate_mismatch=data.on_rate_mismatch,
        batch_size=math.ceil(config.eval.batch_size / num_replicas) * num_replicas,
        num_buckets=data.num_buckets,
        num_parallel_calls=data.num_parallel_calls,
        prefetch_batches=data.prefetch_batches,
        normalize=normalizes(config),
        **more,
    )


def build_search(config: ConfigDict, parts: Components, tokenizer: Tokenizer) -> Search | None:
    """Builds the search of `config.decode`; None for greedy.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    return parts.build_search(token_strings=tokenizer.token_strings, **config.decode)


def run_preflight(
    config: ConfigDict,
    parts: Components,
    tokenizer: Tokenizer,
    model: AcousticModel,
    train_data: TrainData,
    eval_data: dict[str, EvalData],
) -> None:
    """Runs the cheap checks of the data.

    Raises:
        ValueError: The data would spoil the run.
    """
    parts.preflight(
        train_data=train_data,
        eval_data=eval_data,
        tokenizer=tokenizer,
        text_normalization=config.data.text_normalization,
        frames_fn=lambda num_samples: model.output_lengths(tf.constant(num_samples)).numpy(),
        speed_factors=config.data.speed_factors,
        allow_train_eval_overlap=config.data.allow_train_eval_overlap,
    )


def build_learning_rate(config: ConfigDict) -> WarmupHoldDecay:
    """Builds the learning-rate schedule of a config.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    train = config.train
    return build_schedule(
        name=train.schedule,
        peak_learning_rate=train.learning_rate,
        num_updates=train.num_updates,
        warmup_updates=train.warmup_updates,
        hold_updates=train.hold_updates,
        # Runs from before there were shares have none.
        warmup_ratio=train.get("warmup_ratio", 0.0),
        hold_ratio=train.get("hold_ratio", 0.0),
    )


def build_trainer(
    config: ConfigDict,
    parts: Components,
    *,
    strategy: tf.distribute.Strategy,
    model: AcousticModel,
    train_data: TrainData,
    global_step: tf.Variable,
    between_updates: Callable[[], None],
    blank_id: int = 0,
) -> Trainer:
    """Builds optimizer, loss scale and step of a config; inside `strategy.scope()`."""
    train = config.train
    optimizer = build_optimizer(
        name=train.optimizer,
        learning_rate=build_learning_rate(config),
        beta_1=train.beta_1,
        beta_2=train.beta_2,
        epsilon=train.epsilon,
        weight_decay=train.weight_decay,
        head_variables=model.head_variables,
        head_learning_rate_factor=train.head_learning_rate_factor,
    )
    return Trainer(
        strategy=strategy,
        model=model,
        optimizer=optimizer,
        global_step=global_step,
        dataset_fn=train_data.dataset,
        loss_fn=parts.loss_fn,
        feasible_fn=parts.feasible_fn,
        options=TrainerOptions(
            accum_steps=train.accum_steps,
            clip_norm=train.clip_norm,
            freeze_encoder_updates=config.model.freeze_encoder_updates,
            max_consecutive_skips=train.max_consecutive_skips,
            ema_decay=train.ema_decay,
            loss_divisor=train.loss_divisor,
            seed=config.seed,
            blank_id=blank_id,
            # A TPU would wait for the host between updates; elsewhere the host is fast enough, and notices signals.
            loop_in_graph=config.runtime.loop_in_graph or runtime.is_tpu(strategy),
        ),
        loss_scale=DynamicLossScale() if train.precision == "mixed_float16" else None,
        between_updates=between_updates,
    )


def build_evaluators(
    config: ConfigDict,
    parts: Components,
    *,
    strategy: tf.distribute.Strategy,
    model: AcousticModel,
    tokenizer: Tokenizer,
    eval_data: dict[str, EvalData],
    between_batches: Callable[[], None] | None = None,
    ema: EmaWeights | None = None,
    search: Search | None = None,
) -> EvaluatorGroup:
    """Builds an evaluator for each set, with `search` as `build_search` made it; inside `strategy.scope()`."""
    functions = RowFunctions(loss_fn=parts.loss_fn, feasible_fn=parts.feasible_fn, decoder=parts.decoder)
    return EvaluatorGroup(
        {
            name: Evaluator(
                name=name,
                strategy=strategy,
                model=model,
                data=data,
                functions=functions,
                tokenizer=tokenizer,
                num_logged=config.eval.num_logged,
                between_batches=between_batches,
                search=search,
            )
            for name, data in eval_data.items()
        },
        ema=ema,
        search_method="" if search is None else config.decode.method,
    )


def report_maker(config: ConfigDict, parts: Components) -> Callable[..., ReportWriter]:
    """Returns `ReportWriter` with what the config says of reports; the rest is the caller's."""
    return functools.partial(
        ReportWriter,
        page_environment=parts.page_environment,
        max_utterances=config.eval.report_utterances,
        max_audio_mb=config.eval.report_max_audio_mb,
    )
