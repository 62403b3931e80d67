"""Builds the components of a run from its config."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf
import tf_keras
from ml_collections import ConfigDict

from common import storage
from common import workdir_layout as layout
from common.hub_input import hub_normalizes
from engine.config.compilation import choose_loss, compiles_steps
from engine.config.fields_of_run import VOCAB_UNITS
from engine.config.recorded_run import ADAPTATION_FIELDS, ARCHITECTURE_FIELDS, run_folder
from engine.distributed import strategy as runtime
from engine.evaluation.evaluator import Evaluator, EvaluatorGroup, RowFunctions
from engine.evaluation.normalizers import read_normalizers
from engine.protocols import AcousticModel, Components, EvalData, Search, Tokenizer, TrainData
from engine.report.writer import ReportWriter
from engine.training import microbatches
from engine.training.ema import EmaWeights
from engine.training.optimizer import DynamicLossScale, build_optimizer
from engine.training.options import TrainerOptions
from engine.training.schedules import WarmupHoldDecay, build_schedule
from engine.training.trainer import Trainer

_LOSS_FIELDS = (
    "cr_ctc_scale",
    "cr_ctc_warmup_updates",
    "cr_ctc_mask_factor",
    "intermediate_ctc_layers",
    "intermediate_ctc_weight",
)


def build_tokenizer(config: ConfigDict, parts: Components, *, workdir: str, checkpoint: str = "") -> Tokenizer:
    """Builds the tokenizer of trained weights, from the vocabulary of the run that trained them.

    Args:
        config: The config, whose data.vocab is used if no vocabulary lies beside the weights.
        parts: Callables of data and models.
        workdir: The value of --workdir.
        checkpoint: The value of --checkpoint, in this run or another; "" = the checkpoints of the workdir.

    Raises:
        ValueError: The first start of a run makes the vocabulary, and there is no run.
    """
    path = storage.join(run_folder(checkpoint) or workdir, layout.VOCAB_FILE)
    if storage.is_file(path):
        return parts.build_tokenizer(path)
    if config.data.vocab in VOCAB_UNITS:
        place = checkpoint or workdir
        raise ValueError(
            f"{place}: no vocab.json (data.vocab={config.data.vocab}); train first, or name the vocabulary"
        )
    return parts.build_tokenizer(config.data.vocab)


def build_model(config: ConfigDict, parts: Components, *, num_tokens: int) -> AcousticModel:
    """Builds the model of a config; call it inside `strategy.scope()`."""
    # Runs of older versions lack newer fields.
    names = (*ARCHITECTURE_FIELDS, *ADAPTATION_FIELDS)
    fields = {name: config.model[name] for name in names if name in config.model}
    strategy = tf.distribute.get_strategy()  # the default one in inference
    compiles = runtime.is_tpu(strategy) or (tf.distribute.has_strategy() and compiles_steps(config, strategy))
    if fields.get("fused_ops") == "auto" and compiles:
        # Where the whole step is compiled, compiled parts inside would only hide shapes, and compute in float64.
        fields["fused_ops"] = "off"
    # Initial weights must depend on the seed alone, on every device and in every process.
    tf_keras.utils.set_random_seed(config.seed)
    return parts.build_model(
        # Runs of older versions have no source.
        source=config.model.get("source", "native"),
        hub_handle=config.model.get("hub_handle", ""),
        preset=config.model.preset,
        # Runs of older versions have no architecture: their presets were names.
        architecture=dict(config.model.get("architecture", {})),
        vocab_size=num_tokens,
        precision=config.train.precision,
        freeze_feature_encoder=config.model.freeze_feature_encoder,
        **fields,
    )


def list_adapted(config: ConfigDict, model: AcousticModel) -> list[tf.Variable]:
    """Returns the variables of LoRA or bottleneck adapters, which other weights lack; [] for a config without them."""
    is_adapted = any(config.model.get(name, 0) for name in ("lora_rank", "bottleneck_size"))
    return list(model.adaptation_variables) if is_adapted else []


def with_blank(parts: Components, tokenizer: Tokenizer) -> Components:
    """Returns the components with the vocabulary's blank bound to the functions that take one."""
    if not tokenizer.blank_id:  # their default
        return parts
    bound = {
        name: functools.partial(getattr(parts, name), blank_id=tokenizer.blank_id)
        for name in (
            "loss_fn",
            "decoder",
            "span_decoder",
            "span_graph_decoder",
            "aligner",
            "word_aligner",
            "build_search",
        )
    }
    return dataclasses.replace(parts, **bound)


def normalizes(config: ConfigDict) -> bool:
    """Tells whether a run's model takes waveforms with zero mean and unit variance.

    This is part of the architecture (`models.wav2vec2.config.Wav2Vec2Config.normalize_waveform`). Every named preset
    normalizes and has no such field in the config. A SavedModel has a file beside it that says so.
    """
    if config.model.get("source", "native") == "hub":
        return hub_normalizes(config.model.hub_handle)
    return config.model.get("architecture", {}).get("normalize_waveform", True)


def build_train_data(config: ConfigDict, parts: Components, tokenizer: Tokenizer | None, **more: Any) -> TrainData:
    """Opens the training corpora of a config; it makes a tokenizer if none is given. `more` is passed through."""
    data = config.data
    return parts.build_train_data(
        tokenizer=tokenizer,
        text_normalization=data.text_normalization,
        **data.train.to_dict(),
        **_more_corpora(data),
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
        vocab_units=VOCAB_UNITS.get(data.vocab, "characters"),
        num_parallel_calls=data.num_parallel_calls,
        prefetch_batches=data.prefetch_batches,
        normalize=normalizes(config),
        # Runs of older versions alter nothing.
        augment=data.get("augment", ConfigDict()).to_dict(),
        **more,
    )


def _more_corpora(data: ConfigDict) -> dict[str, Any]:
    """Returns the arguments of the corpora beside data.train; {} without any, as runs of older versions have it."""
    if not (more := data.get("more_train", {})):
        return {}
    fields = {name: one.to_dict() for name, one in more.items()}
    return {"more": fields, "sampling_alpha": data.sampling_alpha}


def build_eval_data(
    config: ConfigDict, parts: Components, tokenizer: Tokenizer, *, num_replicas: int = 1
) -> dict[str, EvalData]:
    """Opens the evaluation sets of a config by name; batch sizes are rounded up to a multiple of the replicas."""
    return {
        name: build_eval_set(config, parts, tokenizer, name, num_replicas=num_replicas) for name in config.data.eval
    }


def build_eval_set(
    config: ConfigDict, parts: Components, tokenizer: Tokenizer, name: str, *, num_replicas: int = 1, **more: Any
) -> EvalData:
    """Opens one evaluation set of a config; `more` is passed through."""
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
        slices=config.eval.get("slices", ()),  # runs of older versions have no such field
        **more,
    )


def build_search(config: ConfigDict, parts: Components, tokenizer: Tokenizer) -> Search | None:
    """Builds the search of `config.decode`; None for greedy decoding.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    return parts.build_search(token_strings=tokenizer.token_strings, **config.decode)


def keeps_head(config: ConfigDict) -> bool:
    """Tells whether a run starts from a trained head, whose vocabulary it must keep."""
    return bool(config.model.init) and config.model.init_head


def run_preflight(
    config: ConfigDict,
    parts: Components,
    tokenizer: Tokenizer,
    model: AcousticModel,
    train_data: TrainData,
    eval_data: dict[str, EvalData],
) -> None:
    """Runs the checks of the data that need no audio.

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
        keeps_head=keeps_head(config),
    )


def divide_update(config: ConfigDict, num_rows: int, num_samples: int, *, num_replicas: int) -> tuple[int, int]:
    """Returns the microbatches of a replica in an update, and the rows of each.

    Args:
        config: The config of the run.
        num_rows: Rows of the update over all replicas.
        num_samples: Samples of each row, padding included.
        num_replicas: Number of replicas.
    """
    limits = microbatch_limits(config)
    return microbatches.divide(
        microbatches.rows_of_replica(num_rows, num_replicas),
        num_samples,
        max_rows=limits["microbatch_rows"],
        max_secs=limits["microbatch_secs"],
    )


def microbatch_limits(config: ConfigDict) -> dict[str, Any]:
    """Returns train.microbatch_rows and train.microbatch_secs; configs of older versions have neither."""
    return {name: config.train.get(name, 0) for name in ("microbatch_rows", "microbatch_secs")}


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
        # Runs of older versions have no ratios.
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
    """Builds the optimizer, loss scale and training step of a config; call it inside `strategy.scope()`."""
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
        loss_fn=choose_loss(config, parts, strategy),
        feasible_fn=parts.feasible_fn,
        options=TrainerOptions(
            **microbatch_limits(config),
            clip_norm=train.clip_norm,
            freeze_encoder_updates=config.model.freeze_encoder_updates,
            max_consecutive_skips=train.max_consecutive_skips,
            ema_decay=train.ema_decay,
            loss_divisor=train.loss_divisor,
            **{name: train[name] for name in _LOSS_FIELDS if name in train},  # runs of older versions have none
            seed=config.seed,
            blank_id=blank_id,
            # On a TPU, updates would wait for the host. Elsewhere the host is fast enough, and can handle signals.
            loop_in_graph=config.runtime.loop_in_graph or runtime.is_tpu(strategy),
            jit_compile=compiles_steps(config, strategy),
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
    """Builds an evaluator for each set, with the search of `build_search`; call it inside `strategy.scope()`."""
    functions = RowFunctions(
        loss_fn=choose_loss(config, parts, strategy),
        feasible_fn=parts.feasible_fn,
        decoder=parts.decoder,
        jit_compile=compiles_steps(config, strategy),
    )
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
        normalizers=read_normalizers(config.eval.get("normalizers", ())),  # runs of older versions have none
        normalize=parts.normalize_text,
    )


def report_maker(config: ConfigDict, parts: Components) -> Callable[..., ReportWriter]:
    """Returns `ReportWriter` with its arguments from the config bound; the caller passes the others."""
    return functools.partial(
        ReportWriter,
        page_environment=parts.page_environment,
        max_utterances=config.eval.report_utterances,
        max_audio_mb=config.eval.report_max_audio_mb,
    )
