"""A run over stand-ins: parts and a config with which `experiment.run` takes a second."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from common import storage
from configs import base
from data.common.page import page_environment
from engine.protocols import Components
from tests.helpers.engine_toys import (
    ToyModel,
    toy_batch,
    toy_dataset_fn,
    toy_decoder,
    toy_feasible,
    toy_loss,
)


class Letters:
    num_tokens = 6
    blank_id = 0
    token_strings = "_abcde"

    def decode(self, ids):
        return "".join("_abcde"[i] for i in ids)

    def save(self, path):
        storage.write_bytes(path, b"{}")


class ToyTrainData:
    fingerprint = {"num_utterances": 8, "ids": "a", "texts": "b"}
    num_utterances, duration_secs, updates_per_epoch, num_left_out, rows_per_epoch = 8, 20.0, 1, 0, 8
    row_secs = 2.5

    def __init__(self, **fields):
        self.dataset = toy_dataset_fn(fields["global_batch_size"])

    def unreadable(self, before_update):
        return []

    def corpus_rows(self, num_updates):
        return {}

    def describe_corpora(self):
        return []

    def utterance_ids_of(self, update):
        return [f"row-{update}-{row}" for row in range(4)]


class ToyEvalData:
    """Two batches of rows that training never sees; no hypothesis is ever right."""

    num_batches = 2
    digest = "a" * 16

    def __init__(self, **fields):
        self._size = fields["batch_size"]
        indices = [int(index) for update in self._updates for index in toy_batch(update, self._size)["utterance_index"]]
        self.utterance_ids = {index: f"utterance-{index}" for index in indices}
        self.references = dict.fromkeys(indices, "none of this")
        self.texts = dict.fromkeys(indices, "None of this.")
        self.speaker_ids = {index: f"speaker-{index % 2}" for index in indices}
        self.duration_secs = dict.fromkeys(indices, 1.5)
        self.slices = {}

    _updates = (900, 901)

    def references_in(self, style):
        return {index: f"{text} {style}" for index, text in self.references.items()}

    def read_flac(self, index):
        return b"fLaC" + bytes(index % 256 for _ in range(3))

    def dataset(self, context):
        batches = [toy_batch(update, self._size) for update in self._updates]
        stacked = {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        size = self._size // context.num_replicas_in_sync
        return tf.data.Dataset.from_tensor_slices(stacked).batch(size, drop_remainder=True).with_options(options)


def make_parts(**overrides):
    parts = {
        "build_tokenizer": lambda path: Letters(),
        "build_train_data": ToyTrainData,
        "build_eval_data": lambda **fields: pytest.fail("no evaluation set was configured"),
        "find_architecture": lambda **fields: {},
        "build_model": lambda **fields: ToyModel(),
        "find_reference": lambda path, text_normalization: None,
        "count_samples": lambda path: pytest.fail("nothing to load"),
        "stream_audio": lambda path, on_rate_mismatch: pytest.fail("nothing to load"),
        "normalize_waveform": lambda waveform: waveform,
        "loss_fn": toy_loss,
        "feasible_fn": toy_feasible,
        "decoder": toy_decoder,
        "span_decoder": lambda log_probs: pytest.fail("nothing to decode"),
        "span_graph_decoder": lambda logits, lengths: pytest.fail("nothing to decode"),
        "aligner": lambda log_probs, labels: pytest.fail("nothing to align"),
        "word_aligner": lambda **fields: pytest.fail("nothing to align"),
        "encode_flac": lambda waveform: pytest.fail("nothing to encode"),
        "page_environment": page_environment,
    }
    return Components(**{**parts, **overrides})


def make_config(corpus, **train) -> ConfigDict:
    config = base.get_small_config()
    config.data.train.input = str(corpus)
    config.train.update(
        {"global_batch_size": 4, "num_updates": 6, "log_every_updates": 2, "warmup_updates": 1, "hold_updates": 1}
    )
    config.train.update(train)
    config.checkpoint.every_updates = 2
    config.checkpoint.keep = 2
    return config


CLOCK = ("input_stall_ratio", "audio_secs_per_sec")


def reproducible_lines(workdir):
    """metrics.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in CLOCK} for line in lines]
