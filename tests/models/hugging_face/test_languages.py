"""An MMS checkpoint: two languages out of one folder, adapters saved and loaded alone, and what is refused."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models import convert
from models.hugging_face.names import canonical_name, is_of_language, name_table
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.models_parity import check_parity, compute, load_golden, tensors_of, write_hf_folder

ENGLISH = ["<pad>", "<s>", "</s>", "<unk>", "|", "A", "B", "C"]
FRENCH = ["<pad>", "<s>", "</s>", "<unk>", "|", "É", "È", "A", "Ç", "O"]


def french_tensors():
    """Other adapters, and a head for ten tokens."""
    rng = np.random.default_rng(5)
    tensors = tensors_of(load_golden("mms_shaped"))
    of_language = {name: value for name, value in tensors.items() if is_of_language(canonical_name(name))}
    shapes = {**{name: value.shape for name, value in of_language.items()}, "lm_head.bias": (10,)}
    shapes["lm_head.weight"] = (10, of_language["lm_head.weight"].shape[1])
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def checkpoint(tmp_path):
    """As published: English in the weights, each language in a file of its own and in vocab.json."""
    folder = write_hf_folder(tmp_path / "mms", load_golden("mms_shaped"), vocab=False)
    languages = {"eng": ENGLISH, "fra": FRENCH}
    vocab = {code: {token: i for i, token in enumerate(tokens)} for code, tokens in languages.items()}
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "tokenizer_config.json").write_text(json.dumps({"target_lang": "eng", "pad_token": "<pad>"}))
    save_file(french_tensors(), folder / "adapter.fra.safetensors")
    return folder


def variables_of(folder):
    model = Wav2Vec2ForCTC.from_pretrained(folder)
    return {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}


def test_two_languages_come_out_of_one_checkpoint(checkpoint, tmp_path):
    golden = load_golden("mms_shaped")
    report = convert.from_hf(input=checkpoint, output=tmp_path / "eng")  # the language of the tokenizer
    assert "language: eng" in report.understood and not report.fresh and not report.dropped
    check_parity(compute(Wav2Vec2ForCTC.from_pretrained(tmp_path / "eng"), golden), golden)
    report = convert.from_hf(input=checkpoint, output=tmp_path / "fra", target_lang="fra")
    assert "language: fra" in report.understood and not report.fresh and not report.dropped
    assert list(json.loads((tmp_path / "fra" / "vocab.json").read_text())) == FRENCH

    english, french, wanted = variables_of(tmp_path / "eng"), variables_of(tmp_path / "fra"), french_tensors()
    wanted = {canonical_name(name): value for name, value in wanted.items()}
    config = Wav2Vec2ForCTC.from_pretrained(tmp_path / "fra").config
    num_of_language = 0
    for entry in name_table(config):
        if not is_of_language(entry.theirs[0]):
            assert french[entry.ours].tobytes() == english[entry.ours].tobytes(), entry.ours
            continue
        num_of_language += 1
        np.testing.assert_array_equal(french[entry.ours], entry.join([wanted[name] for name in entry.theirs]))
        assert (
            french[entry.ours].shape != english[entry.ours].shape or (french[entry.ours] != english[entry.ours]).all()
        )
    assert num_of_language == 2 * 6 + 2 and config.vocab_size == 10


def test_an_adapter_is_saved_alone_and_found_again(checkpoint, tmp_path):
    convert.from_hf(input=checkpoint, output=tmp_path / "fra", target_lang="fra")
    report = convert.to_adapter(input=tmp_path / "fra", output=checkpoint, target_lang="frb")
    assert len(report.loaded) == 2 * 6 + 2
    saved, wanted = load_file(checkpoint / "adapter.frb.safetensors"), french_tensors()
    assert saved.keys() == wanted.keys()
    assert all(saved[name].tobytes() == value.tobytes() for name, value in wanted.items())
    vocab = json.loads((checkpoint / "vocab.json").read_text())
    assert list(vocab) == ["eng", "fra", "frb"] and list(vocab["frb"]) == FRENCH
    convert.from_hf(input=checkpoint, output=tmp_path / "again", target_lang="frb")
    before, after = variables_of(tmp_path / "fra"), variables_of(tmp_path / "again")
    assert all(after[name].tobytes() == value.tobytes() for name, value in before.items())


def test_a_new_alphabet_starts_from_the_adapter_of_a_language(checkpoint, tmp_path):
    vocab = tmp_path / "vocab.json"
    vocab.write_text(json.dumps({token: i for i, token in enumerate([*ENGLISH[:5], "क"])}))
    report = convert.from_hf(input=checkpoint, output=tmp_path / "new", target_lang="fra", vocab=vocab)
    assert sorted(report.fresh) == ["lm_head.bias", "lm_head.weight"]
    found = variables_of(tmp_path / "new")
    wanted = french_tensors()["wav2vec2.encoder.layers.1.adapter_layer.linear_1.weight"]
    np.testing.assert_array_equal(found["encoder/layers/1/adapter/down/kernel"], wanted.T)
    assert found["head/bias"].shape == (6,)


def remove_adapter(folder):
    (folder / "adapter.fra.safetensors").unlink()


def add_foreign_tensor(folder):
    foreign = {"wav2vec2.encoder.layer_norm.weight": np.zeros(12, np.float32)}
    save_file({**french_tensors(), **foreign}, folder / "adapter.fra.safetensors")


def cut_adapter(folder):
    path = folder / "adapter.fra.safetensors"
    path.write_bytes(path.read_bytes()[:200])


def drop_adapters_from_config(folder):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "adapter_attn_dim": None}))


@pytest.mark.parametrize(
    ("language", "spoil", "message"),
    [
        ("fre", None, "it has no language 'fre'; set --target_lang; did you mean fra"),
        ("../fra", None, "it has no language '../fra'"),
        ("fra", remove_adapter, "adapter.fra.safetensors: no such file"),
        ("fra", add_foreign_tensor, "encoder.layer_norm.weight is part of neither adapter nor head"),
        ("fra", cut_adapter, "adapter.fra.safetensors: not a whole safetensors file"),
        ("fra", drop_adapters_from_config, "config.json has no attention adapters"),
        ("", lambda folder: (folder / "tokenizer_config.json").unlink(), "several languages and none is chosen"),
    ],
)
def test_what_has_no_such_language_is_refused_in_one_line(checkpoint, tmp_path, capsys, language, spoil, message):
    if spoil is not None:
        spoil(checkpoint)
    arguments = [f"--input={checkpoint}", f"--output={tmp_path / 'ours'}", f"--target_lang={language}"]
    assert convert.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "ours").exists()


def test_adapters_are_not_saved_where_there_are_none_or_where_they_would_not_be_found(checkpoint, tmp_path, capsys):
    convert.from_hf(input=checkpoint, output=tmp_path / "fra", target_lang="fra")
    (tmp_path / "flat").mkdir()
    shutil.copy(tmp_path / "fra" / "vocab.json", tmp_path / "flat" / "vocab.json")
    write_hf_folder(tmp_path / "hf", load_golden("unispeech_sat_shaped"))
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "plain")
    for source, output, code, message in (
        ("fra", "flat", "fra", "holds the tokens of one language"),
        ("plain", "out", "fra", "has no attention adapters"),
        ("fra", "out", "", "no language code"),
        ("fra", "out", "../x", "no language code"),
    ):
        arguments = [f"--input={tmp_path / source}", f"--output={tmp_path / output}", f"--target_lang={code}"]
        assert convert.main([*arguments, "--to_adapter"]) == 2
        said = capsys.readouterr().err
        assert message in said and said.count("\n") == 1
        assert not list(tmp_path.glob(f"{output}/adapter*"))
