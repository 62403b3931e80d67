"""Training LoRA and bottleneck adapters: the rest stays bit-equal and costs the optimizer nothing, however split."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf

from engine import experiment
from engine.checkpointing.restore import restore_weights
from engine.config import builders, field_rules
from engine.config.recorded_run import ADAPTATION_FIELDS, load_run, read_adaptation
from engine.inference.loading import load_trained
from engine.modes.average import average_weights
from models.build import build_model
from models.wav2vec2.config import CONFORMER_LORA_TARGETS, LORA_TARGETS
from tests.helpers import equivalence
from tests.helpers.experiment_toys import make_config, make_parts

LORA = {**equivalence.MODEL, "lora_rank": 4, "lora_dropout": 0.1, "lora_targets": ("q_proj", "v_proj", "out_proj")}
BOTTLENECK = {**equivalence.MODEL, "bottleneck_size": 8}
CONFORMER = {
    "layer_kind": "conformer", "attention_positions": "relative", "depthwise_kernel": 5, "convolution_dropout": 0.1,
}  # fmt: skip
ALL_LINEAR = ("linear_q", "linear_k", "linear_v", "linear_pos", "linear_out", "intermediate_dense", "output_dense")
TOLERANCE = 1e-5
NUM_UPDATES = 3


def one_device():
    return tf.distribute.OneDeviceStrategy("/cpu:0")


def values_of(model):
    return {variable.name: variable.numpy() for variable in model.variables}


def trained(strategy, model, num_updates=NUM_UPDATES, **options):
    trainer = equivalence.make_trainer(strategy, model=model, **options)
    before = values_of(trainer.model)
    trainer.train(tf.constant(num_updates))
    return trainer, before


@pytest.mark.parametrize(
    ("model", "freeze_feature_encoder"), [(LORA, True), (BOTTLENECK, False)], ids=["lora", "bottleneck"]
)
def test_frozen_weights_stay_bit_equal_and_have_no_slots_no_averages_and_no_gradients(model, freeze_feature_encoder):
    trainer, before = trained(
        one_device(), {**model, "freeze_feature_encoder": freeze_feature_encoder}, ema_decay=0.9, microbatch_rows=8
    )
    names = {variable.name for variable in trainer.model.trainable_variables}
    frozen = before.keys() - names
    assert len(frozen) > 30
    after = values_of(trainer.model)
    for name in frozen:
        assert after[name].tobytes() == before[name].tobytes(), name
    still = {name for name in names if (after[name] == before[name]).all()}
    assert not {name for name in still if "/down/" not in name}  # these start once the zeros behind them have moved
    num_trained = sum(before[name].size for name in names)
    assert num_trained < 0.5 * sum(value.size for value in before.values())
    slots = [v for v in trainer.optimizer.variables if v.shape.rank]
    assert sum(v.shape.num_elements() for v in slots) == 2 * num_trained
    assert sum(v.shape.num_elements() for v in trainer.ema.shadows) == num_trained
    assert [v.name for v in trainer._gradients.variables] == [v.name for v in trainer.model.trainable_variables]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(LORA, id="lora"),
        pytest.param(BOTTLENECK, id="bottleneck"),
        pytest.param(CONFORMER | LORA | {"lora_targets": ALL_LINEAR}, id="conformer-lora", marks=pytest.mark.slow),
        pytest.param(CONFORMER | BOTTLENECK, id="conformer-bottleneck", marks=pytest.mark.slow),
    ],
)
def test_replicas_microbatches_and_padding_change_no_weight(model, two_replicas):
    alone, _ = trained(one_device(), model, is_bucketed=False, ema_decay=0.5)
    split, _ = trained(two_replicas, model, microbatch_rows=3, ema_decay=0.5)
    pairs = ((trainer.model.trainable_variables, trainer.ema.shadows) for trainer in (split, alone))
    found, wanted = ([v.numpy() for v in (*weights, *averages)] for weights, averages in pairs)
    assert equivalence.largest_difference(found, wanted) < TOLERANCE


def test_training_goes_on_bit_equal_from_a_checkpoint(tmp_path):
    model = BOTTLENECK
    options = {"ema_decay": 0.9, "freeze_encoder_updates": 1}

    def state(trainer):
        return tf.train.Checkpoint(
            model=trainer.model, optimizer=trainer.optimizer, global_step=trainer.global_step, ema=trainer.ema
        )

    whole, _ = trained(one_device(), model, num_updates=4, **options)
    first, _ = trained(one_device(), model, num_updates=2, **options)
    path = state(first).write(str(tmp_path / "saved"))
    second = equivalence.make_trainer(one_device(), model=model, **options)
    for variable in second.model.variables:
        variable.assign(tf.zeros_like(variable))
    state(second).read(path).assert_consumed()
    second.train(tf.constant(2))
    wanted, found = values_of(whole.model), values_of(second.model)
    assert all(found[name].tobytes() == wanted[name].tobytes() for name in wanted)
    for a, b in zip(second.ema.shadows, whole.ema.shadows, strict=True):
        np.testing.assert_array_equal(a, b)


def test_first_updates_can_train_the_head_alone():
    trainer, before = trained(one_device(), LORA, num_updates=2, freeze_encoder_updates=2)
    after = values_of(trainer.model)
    changed = {name.split("/")[0] for name, value in before.items() if (after[name] != value).any()}
    assert changed == {"head"}


@pytest.mark.parametrize(("model", "precision"), [(LORA, "mixed_bfloat16"), (BOTTLENECK, "mixed_float16")])
def test_half_precision_moves_float32_variables(model, precision):
    model = {**model, "gradient_checkpointing": precision == "mixed_bfloat16"}
    trainer = equivalence.make_trainer(one_device(), model=model, precision=precision)
    before = values_of(trainer.model)
    metrics = trainer.train(tf.constant(1))
    assert np.isfinite(metrics["loss"]) and metrics["num_skipped_updates"] == 0
    new = [variable for variable in trainer.model.adaptation_variables if variable.dtype == tf.float32]
    assert len(new) == len(trainer.model.adaptation_variables)
    assert any((variable.numpy() != before[variable.name]).any() for variable in new)


ARCHITECTURE = {
    "conv_dim": [8], "conv_kernel": [4], "conv_stride": [4], "feature_norm": "layer", "conv_bias": True,
    "hidden_size": 16, "num_layers": 2, "num_heads": 2, "intermediate_size": 32, "pos_conv_kernel": 4,
    "pos_conv_groups": 2,
}  # fmt: skip


def make_real_parts():
    """Toy data and texts around the real network, of a size at which a run takes seconds."""
    return make_parts(build_model=build_model, find_architecture=lambda **fields: ARCHITECTURE)


def train_run(workdir, **model):
    config = make_config(workdir)
    config.model.update({"preset": "auto", **model})
    parts = make_real_parts()
    outcome = experiment.run(config=config, parts=parts, workdir=str(workdir), mode="train", strategy_name="one_device")
    assert outcome.exit_status == 0
    return workdir


@pytest.fixture(scope="module")
def base_run(tmp_path_factory):
    return train_run(tmp_path_factory.mktemp("base") / "run")


def tensors_of(path):
    reader = tf.train.load_checkpoint(str(path))
    return {
        name.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if name.endswith("VARIABLE_VALUE")
    }


@pytest.mark.parametrize(
    ("fields", "new"),
    [({"lora_rank": 2}, "low_rank"), ({"bottleneck_size": 4}, "_adapter")],
    ids=["lora", "bottleneck"],
)
def test_a_run_starts_from_weights_without_it_and_resumes_to_the_last_bit(base_run, tmp_path, caplog, fields, new):
    init = {"init": str(base_run), "init_head": True, "freeze_feature_encoder": False}
    with caplog.at_level("INFO", logger="absl"):
        whole = train_run(tmp_path / "whole", **init, **fields)
    assert re.search(
        r"parameters train \([\d.]+ %\); Adam keeps [\d.]+ MB, where training the whole model takes", caplog.text
    )
    environment = json.loads((whole / "environment.json").read_text())
    assert environment["num_trained"] < 0.6 * environment["num_parameters"]

    again = tmp_path / "again"
    shutil.copytree(whole, again)
    for path in (again / "checkpoints").glob("ckpt-6*"):
        path.unlink()
    train_run(again, **init, **fields)
    wanted, found = (tensors_of(folder / "checkpoints/ckpt-6") for folder in (whole, again))
    assert [name for name in wanted if wanted[name].tobytes() != found[name].tobytes()] == []

    before = tensors_of(base_run / "checkpoints/ckpt-6")
    is_trained = re.compile(r"model/head|norm/layer_norm/" if "bottleneck_size" in fields else r"model/head")
    frozen = [name for name in before if name.startswith("model/") and not is_trained.search(name.replace(".S", "/"))]
    assert len(frozen) > 25
    assert [name for name in frozen if wanted[name].tobytes() != before[name].tobytes()] == []
    assert any(new in name for name in wanted) and not any(new in name for name in before)

    # In inference the model has all of it, merged if that is possible.
    model, _ = load_trained(parts=make_real_parts(), checkpoint=str(whole))
    config, _ = load_run(str(whole))
    plain = builders.build_model(config, make_real_parts(), num_tokens=6)
    restore_weights(plain, str(whole))
    waveform = np.random.default_rng(0).normal(size=(1, 40)).astype(np.float32)
    np.testing.assert_allclose(model(waveform, [40]), plain(waveform, [40]), atol=1e-5)
    assert bool(model.adaptation_variables) == ("bottleneck_size" in fields)

    average_weights(plain, [str(whole / f"checkpoints/ckpt-{step}") for step in (4, 6)])
    assert tf.train.Checkpoint(model=plain).write(str(tmp_path / "mean"))
    mean = tensors_of(tmp_path / "mean")
    assert [name for name in frozen if mean[name].tobytes() != before[name].tobytes()] == []


def test_weights_of_other_lora_must_be_merged_before_another_run_starts_from_them(base_run, tmp_path):
    lora = train_run(tmp_path / "lora", init=str(base_run), init_head=True, lora_rank=2)
    train_run(tmp_path / "same", init=str(lora), init_head=True, lora_rank=2)
    wanted, found = (tensors_of(tmp_path / name / "checkpoints/ckpt-4") for name in ("same", "lora"))
    assert wanted.keys() == found.keys()
    for other in ({}, {"lora_rank": 4}, {"lora_rank": 2, "lora_targets": ("q_proj",)}, {"bottleneck_size": 2}):
        message = "lora_rank=2, lora_alpha=16.0, lora_targets=.*models.convert --input=.*lora --output=DIR --merge"
        with pytest.raises(ValueError, match=message):
            train_run(tmp_path / "other", init=str(lora), init_head=True, **other)
    assert not (tmp_path / "other/config.json").exists()


@pytest.mark.parametrize("fields", [{"lora_rank": 2}, {"bottleneck_size": 4}])
def test_random_weights_that_would_stay_so_are_refused(tmp_path, fields):
    with pytest.raises(
        ValueError, match=f"model.{next(iter(fields))}=.*, but model.init is empty: all weights but a few"
    ):
        train_run(tmp_path / "run", **fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_rank": 2, "bottleneck_size": 4}, "model.lora_rank=2 and model.bottleneck_size=4: set one of them to 0"),
        ({"lora_rank": 2, "source": "hub"}, "model.lora_rank=2: the SavedModel of model.source=hub has no layers"),
        ({"lora_rank": 2.5}, "model.lora_rank=2.5: wanted a whole number"),
        ({"lora_targets": ("q_proj", "lm_head")}, "model.lora_targets=.*: wanted one or more of q_proj, k_proj"),
        ({"lora_targets": ()}, r"model.lora_targets=\(\): wanted one or more of"),
        ({"lora_alpha": 0.0}, "model.lora_alpha=0.0: wanted a number above 0"),
    ],
)
def test_fields_that_cannot_be_are_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        field_rules.check_values({"model": fields})


@pytest.mark.parametrize("targets", [LORA_TARGETS, CONFORMER_LORA_TARGETS])
def test_the_names_of_targets_are_those_of_the_network(targets):
    field_rules.check_values({"model": {"lora_targets": targets}})


def test_runs_of_older_versions_have_neither(tmp_path):
    config = make_config(tmp_path).to_dict()
    for name in ADAPTATION_FIELDS:
        del config["model"][name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_adaptation(str(tmp_path)) == {
        "lora_rank": 0, "lora_alpha": 16.0, "lora_dropout": 0.0, "lora_targets": ("q_proj", "v_proj"),
        "bottleneck_size": 0,
    }  # fmt: skip
    assert not load_run(str(tmp_path))[0].model.get("lora_rank", 0)
