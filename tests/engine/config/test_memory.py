"""The largest batch that is foreseen, and what each mode says where memory is used up."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import tensorflow as tf

from configs.base import get_augment, get_config
from engine.config import memory
from engine.distributed import gpus
from models.memory_estimate import measure_model

GB = 10**9


@pytest.fixture
def run(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text(json.dumps({"model": {"architecture": {}}}))
    return str(tmp_path / "run")


def config_of_base(**model):
    config = get_config()
    config.model.preset = "base"
    config.model.update(model)
    return config


def test_the_largest_batch_of_base_fits_and_one_row_more_does_not(run, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 80 * GB)
    found = memory.foresee(config_of_base(), run=run, training=True, measure_model=measure_model)
    rows = int(found.removeprefix("the doctor foresees at most ").split()[0])
    assert found == f"the doctor foresees at most {rows} rows of 20 s in 74.5 GiB"
    estimate = memory.measure(config_of_base(), num_tokens=32, measure_model=measure_model)
    assert estimate.memory_bytes(rows, 320_000, True) <= 80 * GB < estimate.memory_bytes(rows + 1, 320_000, True)
    more = memory.foresee(
        config_of_base(gradient_checkpointing=True), run=run, training=True, measure_model=measure_model
    )
    assert int(more.removeprefix("the doctor foresees at most ").split()[0]) > 2 * rows


def test_a_gpu_that_compiles_whole_steps_is_foreseen_to_hold_more_rows(run, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 80 * GB)
    monkeypatch.setattr(memory, "_device_type", lambda: "GPU")
    rows = []
    for choice in ("auto", "off"):
        config = config_of_base()
        config.runtime.jit_compile = choice
        found = memory.foresee(config, run=run, training=True, measure_model=measure_model)
        rows.append(int(found.removeprefix("the doctor foresees at most ").split()[0]))
    assert rows[0] > 1.3 * rows[1]


def test_a_device_too_small_for_a_single_row_is_said_to_be(run, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: GB)
    found = memory.foresee(config_of_base(), run=run, training=True, measure_model=measure_model)
    assert found == "the doctor foresees no rows of 20 s in 0.9 GiB"


@pytest.mark.parametrize(
    ("fields", "secs"),
    [
        ({}, 20.0),
        ({"speed_factors": (0.8, 1.0)}, 25.0),
        ({"concat_max_utterances": 3, "concat_max_secs": 30.0, "speed_factors": (0.9,)}, 30.0),
        ({"max_duration_secs": 0.0}, 0.0),
        ({"augment": get_augment(silence_prob=0.1, silence_secs=(0.0, 2.0))}, 24.0),
        ({"augment": get_augment(silence_prob=0.1), "max_duration_secs": 0.0}, 0.0),
        ({"augment": get_augment(silence_secs=(0.0, 2.0))}, 20.0),
    ],
)
def test_the_longest_row_follows_from_durations_speeds_and_concatenation(fields, secs):
    config = config_of_base()
    config.data.update(fields)
    assert memory.longest_row_samples(config) == 16_000 * secs


def test_nothing_is_foreseen_without_a_limit_a_run_or_a_known_memory(run, tmp_path, monkeypatch):
    unlimited = config_of_base()
    unlimited.data.max_duration_secs = 0.0
    cases = [(unlimited, run, GB), (config_of_base(), str(tmp_path / "none"), GB), (config_of_base(), run, None)]
    for config, where, available in cases:
        monkeypatch.setattr(memory, "available_memory", lambda available=available: available)
        assert memory.foresee(config, run=where, training=True, measure_model=measure_model) == ""


def test_the_memory_is_that_of_the_gpu_where_there_is_one(monkeypatch):
    assert memory.available_memory() > 2**28
    gpu = SimpleNamespace(device_type="GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu] if kind == "GPU" else [])
    monkeypatch.setattr(gpus, "memory_bytes", lambda: 80 * GB)
    assert memory.available_memory() == 80 * GB
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind=None: [gpu] if kind == "TPU" else [])
    assert memory.available_memory() is None


@pytest.mark.parametrize(
    ("mode", "evaluates", "words"),
    [
        (
            "train",
            False,
            ["lower --config.train.microbatch_rows (at most 5), set --config.model.gradient_checkpointing"],
        ),
        (
            "train",
            False,
            ["data.max_duration_secs", "checkpoints are intact, and the same command with the lower value"],
        ),
        ("train_and_eval", True, ["lower --config.eval.batch_size (at most 5)", "checkpoints are intact"]),
        ("eval", True, ["lower --config.eval.batch_size (at most 5)"]),
        ("continuous_eval", False, ["lower --config.eval.batch_size (at most 5)"]),
        ("transcribe", False, ["lower --window_secs"]),
        ("pseudo_label", False, ["lower --config.pseudo_label.batch_size or --window_secs"]),
        ("serve", False, ["lower --serve.batch_size or --window_secs"]),
        ("export", False, ["--inputs"]),
    ],
)
def test_every_mode_names_what_it_can_lower(mode, evaluates, words):
    said = memory.advise(mode, evaluates=evaluates, foreseen="at most 5")
    assert all(word in said for word in words), said
    assert "end other programs that use this memory" in said


@pytest.mark.parametrize(("secs", "rest"), [(0.0, "rows"), (20.0, "secs")])
def test_the_field_that_limits_a_microbatch_is_the_one_to_lower(secs, rest):
    config = config_of_base()
    config.train.microbatch_secs = secs
    said = memory.advise("train", evaluates=False, foreseen="", config=config)
    assert f"lower --config.train.microbatch_{rest}, set" in said and said.count("microbatch") == 1


def test_two_views_of_a_row_count_as_memory(run, monkeypatch):
    monkeypatch.setattr(memory, "available_memory", lambda: 80 * GB)

    def rows(**train):
        config = config_of_base()
        config.train.update(train)
        found = memory.foresee(config, run=run, training=True, measure_model=measure_model)
        return int(found.removeprefix("the doctor foresees at most ").split()[0])

    assert 1.7 < rows() / rows(cr_ctc_scale=0.2) < 2.3
