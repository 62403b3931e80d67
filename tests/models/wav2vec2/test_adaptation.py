"""LoRA and bottleneck adapters in the network: what they compute, what trains, and what stays as it was."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from models.hugging_face.names import adaptation_table, num_parameters, trained_table
from models.ops.operations import PLAIN
from models.wav2vec2.config import CONFORMER_LORA_TARGETS, LORA_TARGETS, Wav2Vec2Config, preset
from models.wav2vec2.layers import adapted_projection
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.models.wav2vec2.test_model import CONFORMERS, pad, small_preset, waveforms

LORA = {"lora_rank": 3, "lora_alpha": 6.0}  # on every projection that the layers have
BOTTLENECK = {"bottleneck_size": 5}
KINDS = pytest.mark.parametrize("fields", [LORA, BOTTLENECK], ids=["lora", "bottleneck"])


def every_target(name, fields):
    """The fields, with all projections of the preset as targets of LoRA where there is LoRA and they have none."""
    if "lora_rank" not in fields:
        return fields
    targets = LORA_TARGETS
    if (positions := small_preset(name).attention_positions) != "none":
        targets = [part for part in CONFORMER_LORA_TARGETS if positions == "relative" or part != "linear_pos"]
    return {"lora_targets": targets, **fields}


def adapted(name="base", *, base=None, is_trained=True, precision="float32", **fields):
    """An adapted model with the weights of `base`, and with random numbers in what training would move."""
    model = Wav2Vec2ForCTC(config=small_preset(name, **every_target(name, fields)), precision=precision)
    values = {variable.name: variable for variable in base.variables} if base is not None else {}
    rng = np.random.default_rng(4)
    new = {variable.ref() for variable in model.adaptation_variables}
    for variable in model.variables:
        if variable.name in values:
            variable.assign(values[variable.name])
        elif is_trained and variable.ref() in new:
            variable.assign(rng.normal(0.0, 0.2, variable.shape))
    return model


def inputs():
    return pad(waveforms(), 16_000)


@KINDS
@pytest.mark.parametrize("name", ["base", "large_lv60", *CONFORMERS[:3]])
def test_training_starts_from_the_frozen_network_exactly(name, fields):
    base = Wav2Vec2ForCTC(config=small_preset(name))
    fresh, moved = (adapted(name, base=base, is_trained=trained, **fields) for trained in (False, True))
    np.testing.assert_array_equal(fresh(*inputs()), base(*inputs()))
    assert np.abs(moved(*inputs()) - base(*inputs())).max() > 0.01


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), ("k_proj",), ("v_proj", "q_proj", "k_proj")])
def test_an_update_adds_to_its_parts_of_the_joint_projection_alone(targets):
    config = small_preset("base", hidden_size=16, lora_rank=2, lora_alpha=5.0, lora_targets=targets)
    layer = adapted_projection(
        config,
        "q_proj",
        "k_proj",
        "v_proj",
        input_size=16,
        output_size=48,
        name="a/qkv",
        stream=1,
        operations=PLAIN,
        dtype="float32",
    )
    rng = np.random.default_rng(0)
    for variable in layer.low_rank.variables:
        variable.assign(rng.normal(size=variable.shape))
    kernel = layer.kernel.numpy()
    by_name = {variable.name.split(":")[0]: variable.numpy() for variable in layer.low_rank.variables}
    for i, part in enumerate(("q_proj", "k_proj", "v_proj")):
        if part in targets:
            kernel[:, 16 * i : 16 * (i + 1)] += 2.5 * by_name[f"a/qkv/lora/{part}/a"] @ by_name[f"a/qkv/lora/{part}/b"]
    assert len(by_name) == 2 * len(targets)
    x = rng.normal(size=(2, 3, 16)).astype(np.float32)
    np.testing.assert_allclose(layer(tf.constant(x)), x @ kernel + layer.bias.numpy(), atol=1e-4)


def test_an_adapter_stands_between_a_block_and_its_residual():
    config = small_preset("base", **BOTTLENECK)
    layer = Wav2Vec2ForCTC(config=config).backbone.encoder.transformer_layers[0].output_adapter
    layer.up.kernel.assign(np.random.default_rng(0).normal(size=layer.up.kernel.shape))
    x = np.random.default_rng(1).normal(size=(2, 3, 32)).astype(np.float32)
    inner = tf.nn.gelu(x @ layer.down.kernel.numpy() + layer.down.bias.numpy(), approximate=False)
    np.testing.assert_allclose(layer(tf.constant(x), None), x + inner @ layer.up.kernel + layer.up.bias, atol=1e-5)


@KINDS
@pytest.mark.parametrize(
    # Of each layer: the norms before or after its blocks, and the encoder's.
    ("name", "num_norms"),
    [("base", 2 * 2 + 1), ("conformer_rel_pos", 2 * 5 + 1), ("conformer_rope", 2 * 5 + 1), ("w2v_bert_adapter", 2 * 5)],
)
def test_only_the_adaptation_and_the_head_train_and_the_tables_have_their_names_and_shapes(name, num_norms, fields):
    model = adapted(name, **fields)
    trained = {variable.name.removesuffix(":0"): tuple(variable.shape) for variable in model.trainable_variables}
    assert trained == {entry.ours: entry.shape for entry in trained_table(model.config)}
    assert not model.backbone.feature_encoder.trainable
    new = {variable.name.removesuffix(":0") for variable in model.adaptation_variables}
    assert new == {entry.ours for entry in adaptation_table(model.config)}
    norms = {name for name in trained if "layer_norm" in name}
    assert trained.keys() - new - norms == {"head/kernel", "head/bias"}
    assert len(norms) == (2 * num_norms if "bottleneck_size" in fields else 0)
    assert num_parameters(model.config) == sum(variable.shape.num_elements() for variable in model.variables)


def test_without_either_all_trains_and_nothing_is_new():
    model = Wav2Vec2ForCTC(config=small_preset("base"))
    assert model.adaptation_variables == [] and trained_table(model.config) == []
    assert len(model.trainable_variables) == len(model.variables)


@pytest.mark.parametrize(
    ("name", "precision"),
    [("base", "float32"), ("base", "mixed_bfloat16"), *((name, "float32") for name in CONFORMERS[:3])],
)
def test_merged_it_reads_as_before_and_nothing_of_lora_is_left(name, precision, tmp_path):
    model = adapted(name, precision=precision, **LORA)
    wanted = model(*inputs()).numpy()
    model.merge_low_rank()
    tolerance = 1e-4 if precision == "float32" else 0.05 * np.abs(wanted).max()
    np.testing.assert_allclose(model(*inputs()), wanted, atol=tolerance)
    assert model.adaptation_variables == [] and not model.config.is_adapted
    path = tf.train.Checkpoint(model=model).write(str(tmp_path / "merged"))
    assert not [name for name, _ in tf.train.list_variables(path) if "lora" in name]
    plain = Wav2Vec2ForCTC(config=small_preset(name))
    tf.train.Checkpoint(model=plain).read(path).assert_consumed()


def test_weights_fixed_for_inference_have_lora_in_them():
    model = adapted(**LORA)
    wanted = model(*inputs()).numpy()
    model.fix_weights()
    np.testing.assert_allclose(model(*inputs()), wanted, atol=1e-4)


@KINDS
@pytest.mark.parametrize("name", ["base", "conformer_rope", "w2v_bert_adapter"])
def test_a_padded_row_equals_the_row_alone(name, fields):
    model = adapted(name, **fields)
    batch, lengths = pad(waveforms(), 30_000)
    together = model(batch, lengths).numpy()
    for i, row in enumerate(waveforms()):
        alone = model(tf.constant(row[np.newaxis]), tf.constant([len(row)])).numpy()[0]
        np.testing.assert_allclose(together[i, : len(alone)], alone, atol=1e-4)


@pytest.mark.parametrize("name", ["base", "conformer_rel_pos", "conformer_rope"])
def test_dropout_of_an_update_is_keyed_by_row_and_update(name):
    model = adapted(
        name, lora_dropout=0.5, hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, layer_drop=0.0,
        feature_projection_dropout=0.0, convolution_dropout=0.0, final_dropout=0.0, mask_time_prob=0.0, **LORA,
    )  # fmt: skip
    rows, lengths = inputs()

    def logits(rows, lengths, ids, update=7):
        random = model.make_random(seed=3, update=tf.constant(update), row_ids=tf.constant(ids))
        return model(rows, lengths, training=True, random=random).numpy()

    together = logits(rows, lengths, [5, 6, 7])
    np.testing.assert_allclose(together[1:2], logits(rows[1:2], lengths[1:2], [6]), atol=1e-4)
    for other in (logits(rows, lengths, [5, 8, 7])[1], logits(rows, lengths, [5, 6, 7], update=8)[1]):
        assert np.abs(together[1] - other).max() > 0.01


@KINDS
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("base", {"fused_ops": "on"}),
        ("base", {"gradient_checkpointing": True}),
        pytest.param(*("conformer_rel_pos", {"gradient_checkpointing": True}), marks=pytest.mark.slow),
    ],
)
def test_gradients_are_the_same_fused_and_recomputed(name, fields, options):
    base = Wav2Vec2ForCTC(config=small_preset(name))
    chosen = {"lora_dropout": 0.2, "layer_drop": 0.4, "mask_time_prob": 0.3, **fields}

    def gradients(**more):
        model = adapted(name, base=base, **chosen, **more)
        rows, lengths = inputs()

        @tf.function(autograph=False)
        def compute():
            random = model.make_random(seed=3, update=tf.constant(2), row_ids=tf.constant([5, 6, 7]))
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(model.trainable_variables)
                loss = tf.reduce_mean(tf.square(model(rows, lengths, training=True, random=random)))
            return tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")

        return {v.name: g.numpy() for v, g in zip(model.trainable_variables, compute(), strict=True)}

    wanted, found = gradients(fused_ops="off"), gradients(**{"fused_ops": "off", **options})
    assert wanted.keys() == found.keys() and max(np.abs(value).max() for value in wanted.values()) > 1e-3
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, atol=1e-5, rtol=1e-3, err_msg=name)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lora_rank": 2, "bottleneck_size": 3}, "lora_rank is 2 and bottleneck_size 3; set one of them to 0"),
        ({"lora_targets": ("q_proj", "query")}, "lora_targets must be one or more of q_proj, k_proj"),
        ({"lora_targets": ()}, "lora_targets must be one or more of"),
        ({"lora_targets": "q_proj"}, "lora_targets must be one or more of"),
        ({"lora_targets": [["q_proj"]]}, "lora_targets must be one or more of"),
        ({"lora_rank": -1}, "lora_rank must be from 0"),
        ({"lora_alpha": -1.0}, "lora_alpha must not be negative"),
        ({"bottleneck_size": True}, "bottleneck_size must be a whole number"),
    ],
)
def test_impossible_choices_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Wav2Vec2Config(**fields)


def test_a_config_comes_back_from_json_whatever_the_order_of_its_targets():
    config = Wav2Vec2Config(lora_rank=2, lora_targets=("v_proj", "q_proj"))
    again = Wav2Vec2Config.from_dict({**dataclasses.asdict(config), "lora_targets": ["q_proj", "v_proj"]})
    assert again == config and again.lora_targets == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        (("q_proj", "v_proj"), ("linear_q", "linear_v")),  # the default
        (("output_dense", "linear_out"), ("ffn1.output_dense", "linear_out", "ffn2.output_dense")),
        (("ffn2.intermediate_dense", "linear_k"), ("linear_k", "ffn2.intermediate_dense")),
    ],
)
def test_targets_of_conformers_are_those_that_peft_finds_by_the_same_names(named, meant):
    config = preset("w2v_bert_base", lora_rank=2, lora_targets=named)
    assert config.lora_targets == meant
    assert Wav2Vec2Config.from_dict(dataclasses.asdict(config)) == config


@pytest.mark.parametrize(
    ("name", "targets", "message"),
    [
        ("conformer_rope", ("q_proj", "k_proj"), "lora_targets must be one or more of ffn1.inter.* with "),
        ("conformer_rope", ("linear_pos",), "which layers with attention_positions='rotary' lack"),
        ("w2v_bert_base", [["linear_q"]], "with layer_kind='conformer', got"),
        ("base", ("linear_q",), "lora_targets must be one or more of q_proj, k_proj, .*output_dense, got"),
    ],
)  # fmt: skip
def test_targets_that_the_layers_lack_are_one_line(name, targets, message):
    with pytest.raises(ValueError, match=message) as caught:
        preset(name, lora_rank=2, lora_targets=targets)
    assert "\n" not in str(caught.value)
