"""What can be known to be wrong with a run before anything slow begins: fields, inputs, lengths of rows."""

from __future__ import annotations

import math
import os
from collections.abc import Callable

import tensorflow as tf
from ml_collections import ConfigDict

from engine.ema import ema_name
from engine.protocols import Tokenizer


def check_fields(config: ConfigDict, *, num_replicas: int) -> None:
    """Checks fields against each other before anything is built.

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    train = config.train
    if config.data.max_batch_secs:
        if config.data.row_multiple % (num_replicas * train.accum_steps):
            raise ValueError(
                f"data.row_multiple={config.data.row_multiple} must be a multiple of replicas x train.accum_steps = "
                f"{num_replicas} x {train.accum_steps}, as data.max_batch_secs is set"
            )
    elif train.global_batch_size % (num_replicas * train.accum_steps):
        raise ValueError(
            f"train.global_batch_size={train.global_batch_size} must be a multiple of replicas x train.accum_steps = "
            f"{num_replicas} x {train.accum_steps}"
        )
    if config.eval.batch_size < 1:
        raise ValueError(f"eval.batch_size must be at least 1, got {config.eval.batch_size}")
    for name in ("num_updates", "log_every_updates"):
        if train[name] < 1:
            raise ValueError(f"train.{name} must be at least 1, got {train[name]}")
    if train.ema_decay:
        taken = [name for name in config.data.eval if ema_name(name) in config.data.eval]
        if taken:
            raise ValueError(
                f"data.eval.{ema_name(taken[0])}: with train.ema_decay this is the name of {taken[0]}'s figures of "
                "averaged weights; rename the set"
            )
    if config.data.eval and config.eval.best_of not in config.data.eval:
        raise ValueError(
            f"eval.best_of={config.eval.best_of!r} names no evaluation set; data.eval has "
            f"{', '.join(sorted(config.data.eval))}"
        )


def check_tpu(config: ConfigDict) -> None:
    """Checks what a TPU cannot run: it compiles the step for one shape, in float32 or bfloat16.

    Raises:
        ValueError: Names the field and the value that would do.
    """
    if config.data.num_buckets != 1 and len(config.data.bucket_boundaries_samples) != 1:
        raise ValueError(
            f"data.num_buckets={config.data.num_buckets}: a TPU needs rows of one length; set data.num_buckets=1 and a "
            "data.max_duration_secs that suits the corpus"
        )
    if config.train.precision == "mixed_float16":
        raise ValueError("train.precision=mixed_float16: a TPU has no float16; set mixed_bfloat16 or float32")
    if config.model.get("regions") == "on":
        raise ValueError("model.regions=on: a TPU compiles the step as a whole; set auto or off")


def check_inputs(config: ConfigDict, init: str, *, evaluate: bool) -> None:
    """Says what is missing, and the command that makes it, before anything slow begins.

    Raises:
        ValueError: If a corpus or the weights to start from are not there.
    """
    for fields in (config.data.train, *(config.data.eval.values() if evaluate else ())):
        check_corpus(config, fields)
    if init and not (tf.io.gfile.exists(init) or tf.io.gfile.exists(f"{init}.index")):
        raise ValueError(
            f"{init}: no such weights (model.init); convert a Hugging Face folder with: python -m models.convert "
            f"--input=HF_FOLDER --output={init}; or start from random weights with --config.model.init="
        )


def check_head(init: str, *, tokenizer: Tokenizer, build_tokenizer: Callable[[str], Tokenizer]) -> None:
    """Checks that a head that is taken over speaks the run's alphabet; one of the same size could be another.

    Args:
        init: Weights to start from; a vocab.json there, or above a checkpoint, is that of their head.
        tokenizer: Of the run.
        build_tokenizer: Reads a vocabulary.

    Raises:
        ValueError: Names both vocabularies and what to set.
    """
    folder = os.path.abspath(init)
    places = (folder, os.path.dirname(folder), os.path.dirname(os.path.dirname(folder)))
    path = next((path for place in places if os.path.isfile(path := os.path.join(place, "vocab.json"))), None)
    if path is None:
        return  # bare weights: their shape is compared when they are read
    difference = _difference(build_tokenizer(path), tokenizer)
    if difference:
        raise ValueError(
            f"model.init_head=True, but the vocabulary of the head, {path}, {difference}; set data.vocab={path}, or "
            "model.init_head=False for a fresh head"
        )


def check_same_vocabulary(workdir: str, *, tokenizer: Tokenizer, build_tokenizer: Callable[[str], Tokenizer]) -> None:
    """Checks that a run goes on with the vocabulary that its head was trained on, whatever data.vocab holds by now.

    Raises:
        ValueError: Names both and what to set.
    """
    path = os.path.join(workdir, "vocab.json")
    difference = _difference(build_tokenizer(path), tokenizer) if os.path.isfile(path) else ""
    if difference:
        raise ValueError(
            f"the vocabulary of this run, {path}, {difference}, which is no longer the one that it began with; set "
            f"data.vocab back, or choose another workdir"
        )


def _difference(theirs: Tokenizer, ours: Tokenizer) -> str:
    """Returns how a vocabulary differs from that of data.vocab; "" where rows of a head mean the same in both."""
    if theirs.num_tokens != ours.num_tokens:
        return f"has {theirs.num_tokens} tokens and that of data.vocab {ours.num_tokens}"
    if theirs.blank_id != ours.blank_id:
        return f"has its blank at {theirs.blank_id} and that of data.vocab at {ours.blank_id}"
    tokens = zip(theirs.pieces, ours.pieces, range(theirs.num_tokens), strict=True)
    first = next((found for found in tokens if found[0] != found[1]), None)
    return "" if first is None else f"has {first[0]!r} as token {first[2]} and that of data.vocab {first[1]!r}"


def check_corpus(config: ConfigDict, fields: ConfigDict) -> None:
    """Says what makes a set of the config whose corpus is missing.

    Raises:
        ValueError: If it is.
    """
    if not tf.io.gfile.exists(fields.input):
        hint = f"make it with: {config.data.make_command}" if config.data.make_command else "check the path"
        raise ValueError(f"{fields.input}: no such corpus; {hint}")


def check_row_lengths(config: ConfigDict, max_samples: int) -> None:
    """Checks that no row can be longer than the model trains on.

    Args:
        config: Whose data limits the rows.
        max_samples: Longest row; 0 = any.

    Raises:
        ValueError: Names the field and the value that would do.
    """
    if not max_samples:
        return
    limits = {"max_duration_secs": max_samples / 16_000 * min(config.data.speed_factors)}
    if config.data.join_max_utterances > 1:
        limits["join_max_secs"] = max_samples / 16_000  # which is meant at the slowest speed already
    for name, limit in limits.items():
        if not 0 < config.data[name] <= limit:
            raise ValueError(
                f"data.{name}={config.data[name]:g}: this model trains on rows of at most {max_samples} samples; set "
                f"{math.floor(limit * 1000) / 1000:g} or less (longer rows are left out, and counted)"
            )
