"""What XLA compiles and which back end computes the loss: by config and devices, and said in one line."""

from __future__ import annotations

import logging

import pytest
import tensorflow as tf

from configs import base, debug
from engine.config import builders, recorded_run, validation
from engine.config.compilation import check_compilation, choose_loss, compiles_on, compiles_steps, describe_compilation
from engine.distributed import strategy as runtime
from engine.experiment import RESUMABLE_FIELDS
from engine.workdir import folder as workdirs
from models.wav2vec2.config import preset
from tests.helpers.experiment_toys import make_parts


@pytest.fixture
def strategy():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


@pytest.fixture
def on_gpu(monkeypatch):
    monkeypatch.setattr(runtime, "is_gpu", lambda strategy: True)


def with_fields(**fields):
    config = base.get_config()
    for name, value in fields.items():
        group, field = name.split("__")
        config[group][field] = value
    return config


def test_auto_compiles_nothing_on_a_cpu_and_on_and_off_are_obeyed(strategy):
    for choice, wanted in (("auto", False), ("on", True), ("off", False)):
        config = with_fields(runtime__jit_compile=choice, data__num_buckets=1)
        assert compiles_steps(config, strategy) == wanted
        assert bool(describe_compilation(config, strategy)) == wanted


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"data__num_buckets": 8}, True),
        ({"data__num_buckets": 9}, False),
        ({"data__num_buckets": 1, "runtime__deterministic": True}, False),
        ({"data__num_buckets": 9, "data__bucket_boundaries_samples": (160_000, 320_000)}, True),
        ({"data__num_buckets": 1, "data__max_batch_secs": 100.0}, False),  # rows vary
        ({"data__num_buckets": 1, "model__source": "hub"}, False),
        ({"data__num_buckets": 1, "model__fused_ops": "on"}, False),
        ({"data__num_buckets": 1, "runtime__ctc_backend": "cudnn"}, False),
        ({"data__num_buckets": 1, "runtime__ctc_backend": "blocks"}, True),
    ],
)
def test_auto_compiles_on_a_gpu_where_shapes_are_few_and_all_can_be_compiled(fields, wanted, strategy, on_gpu):
    assert compiles_steps(with_fields(**fields), strategy) == wanted


def test_what_a_device_compiles_is_known_without_a_strategy():
    config = with_fields(data__num_buckets=8)
    assert [compiles_on(config, kind) for kind in ("CPU", "GPU", "TPU")] == [False, True, True]


def test_a_run_of_an_older_version_has_neither_field(strategy):
    config = base.get_config()
    del config.runtime.jit_compile, config.runtime.ctc_backend
    validation.check_values(config)
    check_compilation(config)
    parts = make_parts()
    assert not compiles_steps(config, strategy) and choose_loss(config, parts, strategy) is parts.loss_fn


def test_a_converted_folder_that_recognizes_on_several_gpus_has_no_batches_to_compile_for(tmp_path, strategy, on_gpu):
    (tmp_path / "config.json").write_text(preset("tiny").to_json())
    config, built = recorded_run.load_run(str(tmp_path))[0], []
    with strategy.scope():
        builders.build_model(config, make_parts(build_model=lambda **fields: built.append(fields)), num_tokens=32)
    assert len(built) == 1 and not compiles_steps(config, strategy)


def test_both_may_change_when_a_run_resumes(tmp_path):
    workdirs.save_config(tmp_path, base.get_config().to_dict(), allowed=RESUMABLE_FIELDS)
    changed = with_fields(runtime__jit_compile="on", runtime__ctc_backend="blocks")
    workdirs.save_config(tmp_path, changed.to_dict(), allowed=RESUMABLE_FIELDS)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"runtime__ctc_backend": "host"}, "runtime.ctc_backend=host: XLA cannot compile it"),
        ({"runtime__ctc_backend": "cudnn"}, "runtime.ctc_backend=cudnn: XLA cannot compile it"),
        ({"model__fused_ops": "on"}, "model.fused_ops=on: runtime.jit_compile=on compiles the step as a whole"),
    ],
)
def test_what_cannot_be_compiled_is_refused_with_what_to_set(fields, message):
    config = with_fields(**fields)
    validation.check_fields(config)  # auto gives way
    config.runtime.jit_compile = "on"
    with pytest.raises(ValueError, match=message):
        validation.check_fields(config)


def test_the_back_end_is_bound_to_the_loss_and_cudnn_without_a_gpu_gives_way_to_auto(strategy, caplog):
    parts = make_parts(loss_fn=lambda *rows, backend="auto": backend)
    for backend in ("auto", "scan", "host", "xla", "blocks"):
        assert choose_loss(with_fields(runtime__ctc_backend=backend), parts, strategy)() == backend
    with caplog.at_level(logging.WARNING, logger="absl"):
        assert choose_loss(with_fields(runtime__ctc_backend="cudnn"), parts, strategy)() == "auto"
    assert "runtime.ctc_backend=cudnn: this run uses no GPU" in caplog.text


def test_cudnn_is_taken_on_a_gpu_and_its_limit_is_said(strategy, on_gpu, caplog):
    parts = make_parts(loss_fn=lambda *rows, backend="auto": backend)
    with caplog.at_level(logging.INFO, logger="absl"):
        assert choose_loss(with_fields(runtime__ctc_backend="cudnn"), parts, strategy)() == "cudnn"
    assert "more than 256 labels takes blocks" in caplog.text


def test_fused_operations_are_off_inside_a_compiled_step_and_as_chosen_in_inference(strategy):
    config, built = debug.get_config(), []
    config.runtime.jit_compile, config.model.fused_ops = "on", "auto"
    parts = make_parts(build_model=lambda **fields: built.append(fields["fused_ops"]))
    builders.build_model(config, parts, num_tokens=32)
    with strategy.scope():
        builders.build_model(config, parts, num_tokens=32)
    assert built == ["auto", "off"]


def test_the_line_at_the_start_says_what_is_compiled(strategy, two_replicas):
    config = with_fields(runtime__jit_compile="on")
    assert "XLA compiles each update and each evaluation step" in describe_compilation(config, strategy)
    assert "each replica's forward and backward passes" in describe_compilation(config, two_replicas)


def test_a_gpu_is_told_from_a_cpu_by_the_devices_of_the_strategy(strategy):
    assert not runtime.is_gpu(strategy) and runtime.is_one_device(strategy)
    assert runtime.is_gpu(tf.distribute.OneDeviceStrategy("/gpu:0"))
