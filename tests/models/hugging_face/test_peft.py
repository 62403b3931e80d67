"""LoRA and bottleneck adapters saved alone, in PEFT's layout, and put into the base model again."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file, save_file

from models import convert, hub_export
from models.wav2vec2 import pretrained
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.models_parity import load_golden, tensors_of, write_hf_folder

LORA = {"lora_rank": 3, "lora_alpha": 6.0, "lora_targets": ("q_proj", "v_proj", "output_dense")}
BOTTLENECK = {"bottleneck_size": 4}
LAYER = "wav2vec2.encoder.layers.1"


@pytest.fixture(scope="module")
def golden():
    return load_golden("base_shaped")


@pytest.fixture(scope="module")
def base(tmp_path_factory, golden):
    """A base model as transformers has it, and the same converted."""
    return write_base(tmp_path_factory.mktemp("base"), golden)


@pytest.fixture(scope="module", params=[LORA, BOTTLENECK], ids=["lora", "bottleneck"])
def run(request, base, tmp_path_factory):
    """A folder with the base's frozen weights, and with random numbers where training would have moved them."""
    return train_toy(base, tmp_path_factory.mktemp("run"), request.param)


@pytest.fixture(scope="module")
def lora_run(base, tmp_path_factory):
    return train_toy(base, tmp_path_factory.mktemp("lora"), LORA)


def write_base(folder, golden):
    convert.from_hf(input=write_hf_folder(folder / "hf", golden), output=folder / "ours")
    return folder


def train_toy(base, folder, fields):
    model = Wav2Vec2ForCTC(config=dataclasses.replace(pretrained.read_config(base / "ours"), **fields))
    frozen = {variable.name: variable for variable in Wav2Vec2ForCTC.from_pretrained(base / "ours").variables}
    trained = {variable.ref() for variable in model.trainable_variables}
    rng = np.random.default_rng(0)
    for variable in model.variables:
        is_frozen = variable.ref() not in trained
        variable.assign(frozen[variable.name] if is_frozen else rng.normal(0.0, 0.3, variable.shape))
    model.save_pretrained(folder, vocab=base / "ours" / "vocab.json")
    return folder


def values_of(folder):
    return {variable.name: variable.numpy() for variable in Wav2Vec2ForCTC.from_pretrained(folder).variables}


def assert_same(found, wanted):
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name].tobytes() != wanted[name].tobytes()] == []


def refused(capsys, *arguments):
    assert convert.main([*map(str, arguments)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_the_file_has_the_names_shapes_and_numbers_that_peft_documents(lora_run, tmp_path):
    assert convert.main([f"--input={lora_run}", f"--output={tmp_path}", "--to_peft"]) == 0
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    model = Wav2Vec2ForCTC.from_pretrained(lora_run)
    size, inner = model.config.hidden_size, model.config.intermediate_size
    layer = f"base_model.model.{LAYER}"
    shapes = {
        **{f"{layer}.attention.{part}.lora_A.weight": (3, size) for part in ("q_proj", "v_proj")},
        **{f"{layer}.attention.{part}.lora_B.weight": (size, 3) for part in ("q_proj", "v_proj")},
        f"{layer}.feed_forward.output_dense.lora_A.weight": (3, inner),
        f"{layer}.feed_forward.output_dense.lora_B.weight": (size, 3),
        "base_model.model.lm_head.weight": (8, size),
        "base_model.model.lm_head.bias": (8,),
    }
    found = {name: tensor.shape for name, tensor in tensors.items()}
    assert {name: found[name] for name in shapes} == shapes
    assert len(found) == 6 * model.config.num_layers + 2
    values = {variable.name: variable.numpy() for variable in model.variables}
    name = f"{layer}.attention.v_proj.lora_A.weight"
    np.testing.assert_array_equal(tensors[name], values["encoder/layers/1/attention/qkv/lora/v_proj/a:0"].T)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["peft_type"] == "LORA" and (config["r"], config["lora_alpha"]) == (3, 6.0)
    assert config["target_modules"] == ["q_proj", "v_proj", "output_dense"] and config["bias"] == "none"
    assert config["modules_to_save"] == ["lm_head"] and not config["use_rslora"] and not config["fan_in_fan_out"]
    assert json.loads((tmp_path / "vocab.json").read_text())["A"] == 5


@pytest.mark.parametrize("kind", ["hf", "ours"])
def test_saved_alone_and_put_into_the_same_base_it_is_the_same_model_bit_by_bit(run, base, kind, tmp_path, capsys):
    assert convert.main([f"--input={run}", f"--output={tmp_path}/alone", "--to_peft"]) == 0
    assert convert.main([f"--input={base / kind}", f"--peft={tmp_path}/alone", f"--output={tmp_path}/again"]) == 0
    assert " adapter: " in capsys.readouterr().out
    config = pretrained.read_config(run)
    wanted = values_of(run)
    if config.lora_rank:
        assert convert.main([f"--input={run}", f"--output={tmp_path}/merged", "--merge"]) == 0
        wanted = values_of(tmp_path / "merged")
    assert_same(values_of(tmp_path / "again"), wanted)
    again = pretrained.read_config(tmp_path / "again")
    assert (again.lora_rank, again.bottleneck_size) == (0, config.bottleneck_size)
    assert (tmp_path / "again/vocab.json").read_text() == (base / "ours/vocab.json").read_text()


def test_a_folder_of_peft_is_merged_as_its_numbers_say(base, golden, tmp_path):
    tensors = tensors_of(golden)
    kernel, head = tensors[f"{LAYER}.attention.out_proj.weight"], tensors["lm_head.weight"]
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((4, kernel.shape[1]), (kernel.shape[0], 4)))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    prefix = f"base_model.model.{LAYER}.attention.out_proj"
    save_file(
        {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b, "base_model.model.lm_head.weight": head + 1},
        theirs / "adapter_model.safetensors",
    )
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 6, "use_rslora": True, "target_modules": ".*out_proj"}
    (theirs / "adapter_config.json").write_text(json.dumps(fields))
    assert convert.main([f"--input={base}/hf", f"--peft={theirs}", f"--output={tmp_path}/ours"]) == 0
    assert convert.main([f"--input={tmp_path}/ours", f"--output={tmp_path}/back", "--to_hf"]) == 0
    back = load_file(tmp_path / "back/model.safetensors")
    np.testing.assert_allclose(back[f"{LAYER}.attention.out_proj.weight"], kernel + 3.0 * b @ a, atol=1e-5)
    np.testing.assert_array_equal(back["lm_head.weight"], head + 1)
    changed = {name for name in tensors if (back[name] != tensors[name]).any()}
    assert changed == {f"{LAYER}.attention.out_proj.weight", "lm_head.weight"}


def test_to_hugging_face_lora_is_merged_and_bottleneck_adapters_are_refused(run, tmp_path, capsys):
    arguments = [f"--input={run}", f"--output={tmp_path}/hf", "--to_hf"]
    if pretrained.read_config(run).bottleneck_size:
        assert "transformers has no bottleneck adapters; save them alone" in refused(capsys, *arguments)
        return
    assert convert.main(arguments) == 0
    names = load_file(tmp_path / "hf/model.safetensors").keys()
    assert not [name for name in names if "lora" in name]
    convert.main([f"--input={tmp_path}/hf", f"--output={tmp_path}/again"])
    convert.main([f"--input={run}", f"--output={tmp_path}/merged", "--merge"])
    assert_same(values_of(tmp_path / "again"), values_of(tmp_path / "merged"))


def test_exported_for_tf_hub_it_has_what_was_trained(run, tmp_path):
    assert hub_export.main([f"--input={run}", f"--output={tmp_path}/saved", "--num_samples=4000"]) == 0
    model = Wav2Vec2ForCTC.from_pretrained(run)
    speech = np.random.default_rng(0).normal(size=(1, 4000)).astype(np.float32)
    wanted, _ = model.backbone(tf.constant(speech), tf.constant([4000]), None)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    np.testing.assert_allclose(loaded(speech, training=False), wanted[-1], atol=1e-4)
    assert len(loaded.trainable_variables) == len(loaded.variables)
    assert not [variable.name for variable in loaded.variables if "lora" in variable.name]


def test_another_base_is_refused(lora_run, base, golden, tmp_path, capsys):
    convert.main([f"--input={lora_run}", f"--output={tmp_path}/alone", "--to_peft"])
    name = "wav2vec2.encoder.layers.0.attention.k_proj.weight"
    tensors = tensors_of(golden)
    write_hf_folder(tmp_path / "other", golden, tensors={**tensors, name: tensors[name] + 1e-6})
    found = refused(capsys, f"--input={tmp_path}/other", f"--peft={tmp_path}/alone", f"--output={tmp_path}/out")
    assert "was trained on other frozen weights than these; give --input the base model" in found
    assert not (tmp_path / "out").exists()
    # The mask embedding is random where a file lacks it, and only training reads it.
    del tensors["wav2vec2.masked_spec_embed"]
    write_hf_folder(tmp_path / "same", golden, tensors=tensors)
    assert convert.main([f"--input={tmp_path}/same", f"--peft={tmp_path}/alone", f"--output={tmp_path}/out"]) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, 'adapter_config.json: peft_type is "IA3"; supported is LORA'),
        ({"use_dora": True}, "adapter_config.json: use_dora is true, which is not supported; merge it with PEFT's"),
        ({"rank_pattern": {"q_proj": 2}}, "adapter_config.json: rank_pattern is a JSON object, which is not supported"),
        ({"init_lora_weights": "pissa_niter_4"}, 'init_lora_weights is "pissa_niter_4", which is not supported; merge'),
        ({"r": 0}, "adapter_config.json: r is 0, wanted 1 or more"),
        ({"r": 4}, "adapter_config.json: r is 4, but encoder.layers.0."),
        ({"r": "3"}, "adapter_config.json: 'r' is \"3\", not a whole number"),
        ({"lora_alpha": None}, "adapter_config.json: 'lora_alpha' is null, not "),
    ],
)
def test_what_peft_can_and_this_cannot_is_one_line(lora_run, base, change, message, tmp_path, capsys):
    convert.main([f"--input={lora_run}", f"--output={tmp_path}/alone", "--to_peft"])
    path = tmp_path / "alone/adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    capsys.readouterr()
    found = refused(capsys, f"--input={base}/hf", f"--peft={tmp_path}/alone", f"--output={tmp_path}/out")
    assert re.search(re.escape(message), found), found


def test_damaged_and_missing_files_are_one_line(lora_run, base, tmp_path, capsys):
    alone = tmp_path / "alone"
    convert.main([f"--input={lora_run}", f"--output={alone}", "--to_peft"])
    capsys.readouterr()
    weights = alone / "adapter_model.safetensors"
    onto = (f"--input={base}/hf", f"--peft={alone}", f"--output={tmp_path}/out")
    whole, tensors = weights.read_bytes(), load_file(weights)
    weights.write_bytes(whole[:300])
    assert "adapter_model.safetensors: not a whole safetensors file" in refused(capsys, *onto)
    first = next(name for name in tensors if name.endswith("lora_B.weight"))
    save_file({name: value for name, value in tensors.items() if name != first}, weights)
    assert "has no partner of the same rank" in refused(capsys, *onto)
    save_file({**tensors, "base_model.model.wav2vec2.encoder.layers.9.final_layer_norm.bias": tensors[first]}, weights)
    assert "encoder.layers.9.final_layer_norm.bias has no place in this model" in refused(capsys, *onto)
    wide = {name: np.zeros((9, *value.shape[1:]), np.float32) for name, value in tensors.items() if name == first}
    save_file({**tensors, **wide}, weights)
    assert "is for [9, " in refused(capsys, *onto)
    weights.unlink()
    assert "adapter_model.safetensors: no such file; give --peft a folder" in refused(capsys, *onto)


def test_the_pieces_of_the_vocabulary_lie_beside_an_adapter(lora_run, base, tmp_path):
    shutil.copytree(lora_run, tmp_path / "run")
    fields = {"pad_token": "<pad>", "sentencepiece_model": "sentencepiece.model"}
    (tmp_path / "run/tokenizer_config.json").write_text(json.dumps(fields))
    (tmp_path / "run/sentencepiece.model").write_bytes(b"pieces")
    assert convert.main([f"--input={tmp_path}/run", f"--output={tmp_path}/alone", "--to_peft"]) == 0
    assert convert.main([f"--input={base}/hf", f"--peft={tmp_path}/alone", f"--output={tmp_path}/again"]) == 0
    assert (tmp_path / "again/sentencepiece.model").read_bytes() == b"pieces"


def test_the_names_and_the_base_are_those_of_the_model_that_the_run_started_from(base, tmp_path, capsys):
    write_hf_folder(tmp_path / "hf", load_golden("wavlm_base_shaped"))
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "ours")
    run = train_toy(tmp_path, tmp_path / "run", LORA)
    fields = json.loads((run / "config.json").read_text())
    model = {"preset": "auto", "architecture": fields, "init": "hf://microsoft/wavlm-base@main", **LORA}
    (run / "config.json").write_text(json.dumps({"model": model}))
    assert convert.main([f"--input={run}", f"--output={tmp_path}/alone", "--to_peft"]) == 0
    names = load_file(tmp_path / "alone/adapter_model.safetensors")
    assert "base_model.model.wavlm.encoder.layers.0.attention.q_proj.lora_A.weight" in names
    config = json.loads((tmp_path / "alone/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "microsoft/wavlm-base"

    (run / "origin.json").write_text('{"model_type": "bert"}')
    assert 'origin.json: model_type is "bert"' in refused(
        capsys, f"--input={run}", f"--output={tmp_path}/out", "--to_peft"
    )


def test_conversions_that_exclude_each_other_or_find_nothing_to_do_are_one_line(base, lora_run, tmp_path, capsys):
    out = f"--output={tmp_path}/out"
    assert "--to_hf and --merge are different conversions" in refused(
        capsys, f"--input={lora_run}", out, "--to_hf", "--merge"
    )
    assert "neither LoRA nor bottleneck adapters were trained" in refused(
        capsys, f"--input={base}/ours", out, "--to_peft"
    )


CONFORMER = "base_model.model.wav2vec2_conformer.encoder.layers.0"
BERT = "base_model.model.wav2vec2_bert.encoder.layers.0"


@pytest.mark.parametrize(
    ("name", "fields", "target_modules", "places"),
    [
        (
            "conformer_relative_shaped",
            {"lora_rank": 2, "lora_targets": ("linear_q", "linear_pos", "linear_out", "output_dense")},
            ["ffn1.output_dense", "linear_q", "linear_pos", "linear_out", "ffn2.output_dense"],
            [f"{CONFORMER}.{name}.lora_{part}.weight" for part in "AB" for name in (
                "self_attn.linear_q", "self_attn.linear_pos", "self_attn.linear_out", "ffn1.output_dense",
                "ffn2.output_dense",
            )],
        ),
        (
            "conformer_rotary_shaped",
            {"lora_rank": 2, "lora_targets": ("linear_k", "linear_v", "ffn1.intermediate_dense")},
            ["ffn1.intermediate_dense", "linear_k", "linear_v"],
            [f"{CONFORMER}.self_attn.linear_v.lora_A.weight", f"{CONFORMER}.ffn1.intermediate_dense.lora_B.weight"],
        ),
        (
            # The layer behind the encoder has a linear_q of its own.
            "w2v_bert_adapter_shaped",
            {"lora_rank": 2},
            r".*\bencoder\.layers\.\d+\.(self_attn\.)?(linear_q|linear_v)",
            [f"{BERT}.self_attn.linear_q.lora_A.weight", f"{BERT}.self_attn.linear_v.lora_B.weight"],
        ),
        (
            "conformer_rotary_shaped",
            BOTTLENECK,
            None,
            [f"{CONFORMER}.attention_adapter.down.weight", f"{CONFORMER}.output_adapter.up.bias",
             f"{CONFORMER}.ffn1_layer_norm.weight"],
        ),
    ],
)  # fmt: skip
def test_conformers_are_saved_under_their_names_and_put_into_the_same_base_again(
    tmp_path, name, fields, target_modules, places
):
    base = write_base(tmp_path, load_golden(name))
    run = train_toy(base, tmp_path / "run", fields)
    assert convert.main([f"--input={run}", f"--output={tmp_path}/alone", "--to_peft"]) == 0
    tensors = load_file(tmp_path / "alone/adapter_model.safetensors")
    assert set(places) <= tensors.keys() and "base_model.model.lm_head.weight" in tensors
    config = json.loads((tmp_path / "alone/adapter_config.json").read_text())
    assert config.get("target_modules") == target_modules
    if target_modules is not None:
        num_targets = len(pretrained.read_config(run).lora_targets)
        assert len(tensors) == 2 * num_targets * pretrained.read_config(run).num_layers + 2
    assert convert.main([f"--input={base}/hf", f"--peft={tmp_path}/alone", f"--output={tmp_path}/again"]) == 0
    assert convert.main([f"--input={run}", f"--output={tmp_path}/merged", "--merge"]) == 0
    assert_same(values_of(tmp_path / "again"), values_of(tmp_path / "merged"))


def test_lora_of_a_convolution_as_peft_has_it_is_merged_as_its_numbers_say(tmp_path):
    golden = load_golden("conformer_relative_shaped")
    base = write_base(tmp_path, golden)
    place = "wav2vec2_conformer.encoder.layers.1.conv_module.pointwise_conv1"
    kernel = tensors_of(golden)[f"{place}.weight"]
    rng = np.random.default_rng(3)
    a, b = (rng.normal(size=shape).astype(np.float32) for shape in ((4, kernel.shape[1], 1), (kernel.shape[0], 4, 1)))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    names = {f"base_model.model.{place}.lora_{part}.weight": value for part, value in (("A", a), ("B", b))}
    save_file(names, theirs / "adapter_model.safetensors")
    fields = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["pointwise_conv1"]}
    (theirs / "adapter_config.json").write_text(json.dumps(fields))
    assert convert.main([f"--input={base}/hf", f"--peft={theirs}", f"--output={tmp_path}/again"]) == 0
    found = values_of(tmp_path / "again")["encoder/layers/1/convolution/gated/kernel:0"]
    np.testing.assert_allclose(found, (kernel[..., 0] + 2 * b[..., 0] @ a[..., 0]).T, atol=1e-5)
