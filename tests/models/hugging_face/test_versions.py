"""Folders as transformers 4.x and 5.x save them, of every model type and class: equal values, or one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from models import convert
from models.hugging_face.config import from_hf
from models.hugging_face.files import folder_vocabulary
from models.hugging_face.model_types import MODEL_TYPES
from models.hugging_face.names import canonical_name
from models.wav2vec2.relative_attention import rotary_frequencies
from tests.helpers.models_parity import load_golden, tensors_of
from tests.helpers.torch_made import FakeTensor, torch_names, write_old, write_zip

GOLDEN = {
    "wav2vec2": "base_shaped",
    "hubert": "hubert_shaped",
    "wavlm": "wavlm_base_shaped",
    "unispeech": "unispeech_shaped",
    "unispeech-sat": "unispeech_sat_shaped",
    "data2vec-audio": "data2vec_audio_shaped",
    "wav2vec2-conformer": "conformer_relative_shaped",
    "wav2vec2-bert": "w2v_bert_shaped",
}
# What every config of a version has beside the fields of the network. The first is of the years before 4.20.
COMMON_4 = {
    "_name_or_path": "someone/some-model", "torch_dtype": "float32", "tokenizer_class": None, "id2label": None,
    "finetuning_task": None, "problem_type": None, "pruned_heads": {}, "return_dict": True, "torchscript": False,
    "use_bfloat16": False, "is_encoder_decoder": False, "bad_words_ids": None, "max_length": 20, "num_beams": 1,
}  # fmt: skip
CONFIGS = {
    "4.1x": {
        **COMMON_4, "transformers_version": "4.11.3", "gradient_checkpointing": False, "feat_extract_dropout": 0.0,
        "hidden_dropout_prob": 0.1, "mask_channel_length": 10, "mask_channel_min_space": 1, "mask_channel_prob": 0.0,
        "mask_channel_selection": "static", "mask_time_min_space": 1, "mask_time_other": 0.0, "gradient": None,
    },
    "4.4x": {**COMMON_4, "transformers_version": "4.44.2", "tie_word_embeddings": True, "_attn_implementation": "sdpa"},
    "5.x": {"dtype": "float32", "transformers_version": "5.23.0", "tie_word_embeddings": True},
}  # fmt: skip
# Fields of later versions, which the files of earlier ones lack; the network is that of their default.
LATER = {"4.1x": ("adapter_attn_dim", "mask_time_min_masks", "mask_feature_min_masks"), "4.4x": (), "5.x": ()}
WEIGHT_NORM = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}
PRETRAINING = (
    "quantizer.codevectors", "quantizer.weight_proj.weight", "quantizer.weight_proj.bias", "project_hid.weight",
    "project_hid.bias", "project_q.weight", "project_q.bias",
)  # fmt: skip
CLASSIFIER = ("projector.weight", "projector.bias", "classifier.weight", "classifier.bias")
# Class -> the tensors of its head.
HEADS = {
    "Model": (),
    "ForCTC": (),
    "ForPreTraining": PRETRAINING,
    "ForSequenceClassification": (*CLASSIFIER, "layer_weights"),
    "ForAudioFrameClassification": ("classifier.weight", "classifier.bias"),
    "ForXVector": (
        *CLASSIFIER, "tdnn.0.kernel.weight", "tdnn.0.kernel.bias", "feature_extractor.weight", "feature_extractor.bias",
        "objective.weight",
    ),
}  # fmt: skip
MORE_OF_PRETRAINING = {
    "unispeech": ("ctc_proj.weight", "ctc_proj.bias"),
    "unispeech-sat": (
        "speaker_proj.weight", "speaker_proj.bias", "label_embeddings_concat", "layer_norm_for_extract.weight",
        "layer_norm_for_extract.bias",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def written(monkeypatch):
    """The values of our variables that a conversion would have written, by name; None for new random ones."""
    values = {}

    def keep(output, *, report, value_of, **_):
        entries = convert.hf_names.name_table(report.config)
        values.update({entry.ours: (entry, value_of(entry)) for entry in entries})

    monkeypatch.setattr(convert, "write_native", keep)
    return values


def back_to_theirs(written):
    """The values under the names of transformers in the table."""
    return {
        name: tensor
        for entry, value in written.values()
        if value is not None
        for name, tensor in entry.split(value).items()
    }


def config_of(model_type, version, architecture="ForCTC"):
    fields = {**json.loads(str(load_golden(GOLDEN[model_type])["config"])), **CONFIGS[version]}
    name = MODEL_TYPES[model_type].architecture.removesuffix("ForCTC") + architecture
    return {key: value for key, value in fields.items() if key not in LATER[version]} | {"architectures": [name]}


def tensors_in(model_type, version, architecture):
    """The tensors as a class saves them, and those of its head that we drop."""
    tensors = tensors_of(load_golden(GOLDEN[model_type]))
    dropped = HEADS[architecture]
    if architecture == "ForPreTraining":
        dropped += MORE_OF_PRETRAINING.get(model_type, ())
    if architecture != "ForCTC":
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head.")}
    if architecture == "Model":
        tensors = {name.removeprefix(MODEL_TYPES[model_type].prefix): tensor for name, tensor in tensors.items()}
    if version == "4.1x":  # PyTorch before 2.1
        for new, old in WEIGHT_NORM.items():
            tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    return {**tensors, **{name: np.ones(3, np.float32) for name in dropped}}, dropped


def write_folder(folder, fields, tensors, *, file="model.safetensors"):
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(fields))
    if file == "model.safetensors":
        save_file(tensors, folder / file, metadata={"format": "pt"})
        return folder
    with torch_names():
        made = {name: FakeTensor(str(index), array) for index, (name, array) in enumerate(tensors.items())}
        storages = {tensor.key: tensor.storage for tensor in made.values()}
        (write_old if file == "old" else write_zip)(folder / "pytorch_model.bin", made, storages=storages)
    return folder


def test_every_model_type_is_tried():
    assert GOLDEN.keys() == MODEL_TYPES.keys()


def versions_and_classes():
    """(version, architecture): every class of the newest version, and CTC of each; the slow tests try the others."""
    newest = list(CONFIGS)[-1]
    for version in CONFIGS:
        for architecture in HEADS:
            is_default = version == newest or architecture == "ForCTC"
            yield pytest.param(version, architecture, marks=[] if is_default else pytest.mark.slow)


@pytest.mark.parametrize(("version", "architecture"), list(versions_and_classes()))
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_each_class_of_each_version_gives_the_same_network(tmp_path, written, model_type, version, architecture):
    tensors, dropped = tensors_in(model_type, version, architecture)
    file = {"4.1x": "old" if architecture == "ForCTC" else "zip"}.get(version, "model.safetensors")
    write_folder(tmp_path / "hf", config_of(model_type, version, architecture), tensors, file=file)
    report = convert.from_hf(input=tmp_path / "hf", output=tmp_path / "ours")
    head = ["lm_head.weight", "lm_head.bias"]
    assert list(report.fresh) == ([] if architecture == "ForCTC" else head)
    assert sorted(report.dropped) == sorted(dropped)
    wanted = {canonical_name(name): tensor for name, tensor in tensors_of(load_golden(GOLDEN[model_type])).items()}
    found = back_to_theirs(written)
    assert found.keys() == wanted.keys() - set(report.fresh)
    assert [name for name in found if found[name].tobytes() != wanted[name].tobytes()] == []


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_the_fields_of_every_version_name_the_same_architecture(model_type):
    wanted = from_hf(json.loads(str(load_golden(GOLDEN[model_type])["config"])))
    assert {version: from_hf(config_of(model_type, version)) for version in CONFIGS} == dict.fromkeys(CONFIGS, wanted)


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_names_of_norms_before_pytorch_are_those_of_today(tmp_path, written, model_type):
    tensors, _ = tensors_in(model_type, "4.4x", "ForCTC")
    norms = [name for name in tensors if "norm." in name or "norm" in name.split(".")[-2]]
    assert len(norms) > 5
    old = {name: name.replace(".weight", ".gamma").replace(".bias", ".beta") for name in norms}
    renamed = {old.get(name, name): tensor for name, tensor in tensors.items()}
    write_folder(tmp_path / "hf", config_of(model_type, "4.4x"), renamed)
    report = convert.from_hf(input=tmp_path / "hf", output=tmp_path / "ours")
    assert len(report.loaded) == len(tensors) and not report.fresh
    found = back_to_theirs(written)
    assert all(found[canonical_name(name)].tobytes() == tensor.tobytes() for name, tensor in tensors.items())


@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_model_saved_without_masks_has_no_mask_embedding(tmp_path, written, model_type):
    tensors, _ = tensors_in(model_type, "5.x", "ForCTC")
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("masked_spec_embed")}
    assert len(kept) == len(tensors) - 1
    fields = {**config_of(model_type, "5.x"), "mask_time_prob": 0.0}
    report = convert.from_hf(input=write_folder(tmp_path / "hf", fields, kept), output=tmp_path / "ours")
    assert list(report.fresh) == ["masked_spec_embed"] and len(report.loaded) == len(kept)
    assert report.config.mask_time_prob == 0.0 and written["mask_embedding"][1] is None


def test_constants_that_a_file_lacks_are_computed(tmp_path, written):
    golden = load_golden("conformer_rotary_shaped")
    constants = (".inv_freq", ".num_batches_tracked")
    kept = {name: tensor for name, tensor in tensors_of(golden).items() if not name.endswith(constants)}
    fields = json.loads(str(golden["config"]))
    report = convert.from_hf(input=write_folder(tmp_path / "hf", fields, kept), output=tmp_path / "ours")
    fresh = [name for name in map(canonical_name, tensors_of(golden)) if name.endswith(constants)]
    assert sorted(report.fresh) == sorted(fresh) and len(fresh) == 1 + report.config.num_layers
    # A new variable has the value that the file would have had.
    (frequencies,) = (tensor for name, tensor in tensors_of(golden).items() if name.endswith(".inv_freq"))
    np.testing.assert_allclose(rotary_frequencies(report.config), frequencies, rtol=1e-6)


TOKENS = ["[PAD]", "<s>", "</s>", "[UNK]", "|", "a", "b"]
ROLES = {
    "pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>", "word_delimiter_token": "|",
}  # fmt: skip


def token(content, **more):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **more}


def tokenizer_files(version):
    """The files that a tokenizer of a version saves, name -> content."""
    decoder = {str(index): token(name, special=True) for index, name in enumerate(TOKENS[:4])}
    roles = {role: name for role, name in ROLES.items() if role != "word_delimiter_token"}
    return {
        "4.1x": {
            "vocab.json": dict(zip(TOKENS, range(7), strict=True)),
            "added_tokens.json": {"<s>": 1, "</s>": 2},
            "special_tokens_map.json": {**roles, "additional_special_tokens": [token("<s>"), token("</s>")]},
            "tokenizer_config.json": {
                **{role: {"__type": "AddedToken", **token(name)} for role, name in ROLES.items()},
                "do_lower_case": False, "special_tokens_map_file": None, "tokenizer_file": None,
                "name_or_path": "./", "replace_word_delimiter_char": " ", "tokenizer_class": "Wav2Vec2CTCTokenizer",
            },
        },
        "4.4x": {
            "vocab.json": dict(zip(TOKENS, range(7), strict=True)),
            "special_tokens_map.json": {role: token(name) for role, name in roles.items()},
            "tokenizer_config.json": {
                **ROLES, "added_tokens_decoder": decoder, "clean_up_tokenization_spaces": True, "target_lang": None,
                "model_max_length": 1000000000000000019884624838656, "processor_class": "Wav2Vec2Processor",
                "tokenizer_class": "Wav2Vec2CTCTokenizer",
            },
        },
        "5.x": {
            "vocab.json": dict(zip(TOKENS, range(7), strict=True)),
            "tokenizer_config.json": {
                **ROLES, "added_tokens_decoder": decoder, "backend": "custom", "is_local": False, "target_lang": None,
                "extra_special_tokens": [], "tokenizer_class": "Wav2Vec2CTCTokenizer",
            },
        },
    }[version]  # fmt: skip


@pytest.mark.parametrize("version", CONFIGS)
def test_the_files_of_a_tokenizer_of_any_version_name_the_same_tokens(tmp_path, version):
    for name, content in tokenizer_files(version).items():
        (tmp_path / name).write_text(json.dumps(content))
    found = folder_vocabulary(tmp_path, num_rows=7, config={**CONFIGS[version], "pad_token_id": 0})
    assert (list(found.ids), found.special, found.blank_id, found.notes) == (TOKENS, ROLES, 0, ())


def refused(capsys, folder, tmp_path):
    assert convert.main([f"--input={folder}", f"--output={tmp_path / 'ours'}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


@pytest.mark.parametrize("model_type", MODEL_TYPES)
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, "quantization_config is "),
        ({"model_type": "speech-encoder-decoder"}, "model_type is 'speech-encoder-decoder'; supported are wav2vec2, "),
        ({"output_hidden_size": 9, "add_adapter": False}, "output_hidden_size is 9, not hidden_size"),
    ],
    ids=["quantized", "another_type", "another_network_above"],
)  # fmt: skip
def test_what_is_another_network_is_refused_in_one_line(tmp_path, capsys, model_type, fields, message):
    tensors, _ = tensors_in(model_type, "4.4x", "ForCTC")
    folder = write_folder(tmp_path / "hf", {**config_of(model_type, "4.4x"), **fields}, tensors)
    assert f"{folder / 'config.json'}: {message}" in refused(capsys, folder, tmp_path)


def test_the_folder_of_an_adapter_is_no_model_and_is_told_what_it_is(tmp_path, capsys):
    folder = tmp_path / "alone"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "base_model_name_or_path": "a/b"}))
    save_file({"a": np.zeros(1, np.float32)}, folder / "adapter_model.safetensors")
    assert "config.json: no such file; this is an adapter: give it as --peft, and its base model as --input" in refused(
        capsys, folder, tmp_path
    )
