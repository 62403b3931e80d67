"""Hugging Face folders to ours and back: bit-exact, in every form they come, and bad input in one line."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard, constants
from safetensors.numpy import load_file, save_file

from data.text.tokenizer import load_tokenizer
from models import convert
from models.hugging_face.model_types import MODEL_TYPES
from models.hugging_face.names import canonical_name
from models.wav2vec2 import pretrained
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.full_disk import small_files_only
from tests.helpers.hub_servers import serving
from tests.helpers.models_parity import (
    SMALL_MODELS,
    check_parity,
    compute,
    load_golden,
    tensors_of,
    write_hf_folder,
)

OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


@pytest.fixture(scope="module")
def golden():
    return load_golden("base_shaped")


def without_head(tensors):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith("lm_head.")}


def by_table_name(tensors):
    return {canonical_name(name): tensor for name, tensor in tensors.items()}


def assert_same_bits(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype and found[name].shape == tensor.shape, name
        assert found[name].tobytes() == tensor.tobytes(), name


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_round_trip_is_bit_exact_and_the_model_between_is_the_reference(tmp_path, name):
    golden = load_golden(name)
    folder = write_hf_folder(tmp_path / "hf", golden)
    report = convert.from_hf(input=folder, output=tmp_path / "ours")
    assert len(report.loaded) == len(tensors_of(golden)) and not report.fresh and not report.dropped
    check_parity(compute(Wav2Vec2ForCTC.from_pretrained(tmp_path / "ours"), golden), golden)

    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    assert_same_bits(load_file(tmp_path / "back" / "model.safetensors"), tensors_of(golden))
    assert json.loads((tmp_path / "back" / "vocab.json").read_text()) == json.loads((folder / "vocab.json").read_text())
    theirs = json.loads(str(golden["config"]))
    mine = json.loads((tmp_path / "back" / "config.json").read_text())
    for key in mine.keys() & theirs.keys() - {"mask_time_min_masks"}:
        assert mine[key] == theirs[key], key
    assert mine["architectures"] == [MODEL_TYPES[theirs["model_type"]].architecture]


def test_old_names_without_prefix_without_head_and_with_leftovers(tmp_path, golden):
    tensors = {}
    for name, tensor in without_head(tensors_of(golden)).items():
        name = name.removeprefix("wav2vec2.")
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        tensors[name] = tensor
    del tensors["masked_spec_embed"]
    tensors["quantizer.codevectors"] = np.zeros((1, 4, 2), np.float32)
    assert "encoder.pos_conv_embed.conv.weight_g" in tensors
    folder = write_hf_folder(tmp_path / "hf", golden, tensors=tensors)
    report = convert.from_hf(input=folder, output=tmp_path / "ours")
    assert list(report.fresh) == ["masked_spec_embed", "lm_head.weight", "lm_head.bias"]
    assert list(report.dropped) == ["quantizer.codevectors"]

    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    back = by_table_name(load_file(tmp_path / "back" / "model.safetensors"))
    wanted = by_table_name(tensors_of(golden))
    fresh = {name: back.pop(name) for name in report.fresh}
    assert_same_bits(back, {name: tensor for name, tensor in wanted.items() if name not in fresh})
    assert fresh["lm_head.weight"].std() > 0 and (fresh["lm_head.weight"] != wanted["lm_head.weight"]).all()


def test_shards_are_read_by_their_index(tmp_path, golden):
    tensors = tensors_of(golden)
    folder = write_hf_folder(tmp_path / "hf", golden)
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, members in shards.items():
        save_file({name: tensors[name] for name in members}, folder / shard)
    index = {"weight_map": {name: shard for shard, members in shards.items() for name in members}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert len(convert.from_hf(input=folder, output=tmp_path / "ours").loaded) == len(tensors)
    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    assert_same_bits(load_file(tmp_path / "back" / "model.safetensors"), tensors)

    (folder / "model-2.safetensors").unlink()
    assert "model-2.safetensors: no such file" in refusal(tmp_path, folder)
    index["weight_map"][names[1]] = "model-1.safetensors"
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "is not in the shard listed for it" in refusal(tmp_path, folder)
    for shard in ("../model-1.safetensors", "model\n1.safetensors"):
        index["weight_map"][names[0]] = shard
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
        assert "is not a file name in the folder" in refusal(tmp_path, folder)
    for content in ("{}", "[]", "{", "[" * 100_000, *({"weight_map": value} for value in ([], 3, {"a": 1}, {"a": []}))):
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "model.safetensors.index.json").write_text(text)
        assert "wanted an index with a weight_map" in refusal(tmp_path, folder)


def test_half_precision_tensors_become_float32_of_the_same_value(tmp_path, golden):
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors_of(golden).items()}
    folder = write_hf_folder(tmp_path / "hf", golden, tensors=halves)
    convert.from_hf(input=folder, output=tmp_path / "ours")
    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    wanted = {name: tensor.astype(np.float32) for name, tensor in halves.items()}
    assert_same_bits(load_file(tmp_path / "back" / "model.safetensors"), wanted)


def test_a_new_vocabulary_gets_a_fresh_head_of_its_size(tmp_path, golden, capsys):
    folder = write_hf_folder(tmp_path / "hf", golden, pad_token_id=3)
    vocab = tmp_path / "new.json"
    vocab.write_text(json.dumps({"<pad>": 0, "<unk>": 1, "|": 2, "я": 3}, ensure_ascii=False), encoding="utf-8")
    flags = [f"--input={folder}", f"--output={tmp_path / 'ours'}", f"--vocab={vocab}"]
    assert convert.main(flags) == 0
    printed = capsys.readouterr().out
    assert "fresh: 2 tensors, 100 parameters (lm_head.weight, lm_head.bias)" in printed
    assert "dropped: 2 tensors, 200 parameters (lm_head.weight, lm_head.bias)" in printed
    assert Wav2Vec2ForCTC.from_pretrained(tmp_path / "ours").head.kernel.shape == (24, 4)
    assert json.loads((tmp_path / "ours" / "vocab.json").read_text(encoding="utf-8"))["я"] == 3


def test_blank_roles_and_normalization_go_both_ways(tmp_path, golden, capsys):
    folder = write_hf_folder(tmp_path / "hf", golden, vocab=False, pad_token_id=7)
    tokens = ["B", " ", "[UNK]", "A", "C", "sh", "<s>", "[PAD]"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    roles = {"pad_token": "[PAD]", "unk_token": "[UNK]", "word_delimiter_token": " "}
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    (folder / "added_tokens.json").write_text('{"</s>": 8}')
    extractor = {"feature_extractor": {"do_normalize": False, "sampling_rate": 16000}}
    (folder / "processor_config.json").write_text(json.dumps(extractor))
    assert convert.main([f"--input={folder}", f"--output={tmp_path / 'ours'}"]) == 0
    printed = capsys.readouterr().out
    assert "text: 8 tokens, the blank is '[PAD]' (id 7), unknown '[UNK]', word delimiter ' '" in printed
    assert "note: left out, because the head has no row for them: '</s>'" in printed
    assert pretrained.read_config(tmp_path / "ours").normalize_waveform is False
    # The tokenizer of a run reads what was written.
    tokenizer = load_tokenizer(tmp_path / "ours" / "vocab.json")
    assert (tokenizer.blank_id, tokenizer.encode("A sh"), tokenizer.decode([3, 1, 5])) == (7, [3, 1, 5], "A sh")

    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    back = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "back").glob("*.json")}
    assert list(back["vocab"]) == tokens
    assert back["config"]["pad_token_id"] == 7 and back["config"]["bos_token_id"] == 6
    assert roles.items() <= back["tokenizer_config"].items()
    assert back["special_tokens_map"] == {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "<s>"}
    assert back["preprocessor_config"]["do_normalize"] is False
    assert_same_bits(load_file(tmp_path / "back" / "model.safetensors"), tensors_of(golden))


def test_another_rate_is_refused_before_the_weights_are_read(tmp_path, golden):
    folder = write_hf_folder(tmp_path / "hf", golden)
    (folder / "processor_config.json").write_text('{"feature_extractor": {"sampling_rate": 8000}}')
    assert "processor_config.json: sampling_rate is 8000; only 16000 is supported" in refusal(tmp_path, folder)


def test_the_command_reports_and_goes_both_ways(tmp_path, golden, capsys):
    folder = write_hf_folder(tmp_path / "hf", golden)
    (folder / "preprocessor_config.json").write_text('{"do_normalize": false}')
    assert convert.main([f"--input={folder}", f"--output={tmp_path / 'ours'}"]) == 0
    printed = capsys.readouterr().out
    num_parameters = sum(tensor.size for tensor in tensors_of(golden).values())
    assert f"loaded: {len(tensors_of(golden))} tensors, {num_parameters:,} parameters" in printed
    assert f"model: {num_parameters:,} parameters, {num_parameters - 200:,} without the head" in printed
    assert "audio: 16 kHz, as it is, not normalized (do_normalize=false) (preprocessor_config.json)" in printed
    assert "text: 8 tokens, the blank is '<pad>' (id 0), unknown '<unk>', word delimiter '|'" in printed
    to_hf = [f"--input={tmp_path / 'ours'}", f"--output={tmp_path / 'back'}", "--to_hf", "--model_type=hubert"]
    assert convert.main(to_hf) == 0
    names = load_file(tmp_path / "back" / "model.safetensors")
    assert "hubert.masked_spec_embed" in names
    assert sorted(path.name for path in (tmp_path / "back").iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "special_tokens_map.json",
        "tokenizer_config.json", "vocab.json",
    ]  # fmt: skip


def refusal(tmp_path, folder, *flags):
    """What the command says when it refuses: one line, and nothing was written."""
    output = tmp_path / "refused"
    with contextlib.redirect_stderr(StringIO()) as stderr:
        assert convert.main([f"--input={folder}", f"--output={output}", *flags]) == 2
    message = stderr.getvalue()
    assert message.startswith("models.convert: ") and message.count("\n") == 1
    assert not output.exists()
    return message


@pytest.mark.parametrize("keep", [0.0, 0.001, 0.5, 0.999])
def test_truncated_safetensors(tmp_path, golden, keep):
    folder = write_hf_folder(tmp_path / "hf", golden)
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: int(len(content) * keep)])
    assert "model.safetensors: not a whole safetensors file" in refusal(tmp_path, folder)


def test_missing_transposed_and_double_tensors(tmp_path, golden):
    tensors = tensors_of(golden)
    name = "wav2vec2.encoder.layers.1.feed_forward.output_dense.weight"
    folder = write_hf_folder(tmp_path / "a", golden, tensors={k: v for k, v in tensors.items() if k != name})
    assert "1 missing" in (message := refusal(tmp_path, folder)) and name.removeprefix("wav2vec2.") in message
    report = convert.from_hf(input=folder, output=tmp_path / "ours", allow_missing=[name])
    assert list(report.fresh) == [name.removeprefix("wav2vec2.")]
    transposed = tensors | {name: np.ascontiguousarray(tensors[name].T)}
    folder = write_hf_folder(tmp_path / "b", golden, tensors=transposed)
    assert "[40, 24] instead of [24, 40]" in refusal(tmp_path, folder)
    double = tensors | {name.removeprefix("wav2vec2."): tensors[name]}
    assert "the same tensor twice" in refusal(tmp_path, write_hf_folder(tmp_path / "c", golden, tensors=double))
    half_a_head = {k: v for k, v in tensors.items() if k != "lm_head.bias"}
    assert "1 missing" in refusal(tmp_path, write_hf_folder(tmp_path / "d", golden, tensors=half_a_head))
    integers = tensors | {name: tensors[name].astype(np.int32)}
    assert "type int32" in refusal(tmp_path, write_hf_folder(tmp_path / "e", golden, tensors=integers))


def test_wrong_vocabulary_sizes(tmp_path, golden):
    folder = write_hf_folder(tmp_path / "hf", golden, vocab_size=32)
    assert "lm_head.weight [8, 24] instead of [32, 24]" in refusal(tmp_path, folder)
    folder = write_hf_folder(tmp_path / "hf", golden)
    (folder / "vocab.json").write_text('{"<pad>": 0, "a": 1}')
    assert "vocab.json: 2 tokens, but the head has 8" in refusal(tmp_path, folder)
    assert "absent.json: no such file" in refusal(tmp_path, folder, f"--vocab={tmp_path / 'absent.json'}")


def test_no_folder_no_weights_and_no_support(tmp_path, golden):
    assert "config.json: no such file" in refusal(tmp_path, tmp_path / "absent")
    folder = write_hf_folder(tmp_path / "hf", golden)
    (folder / "model.safetensors").unlink()
    assert "no weights; looked for model.safetensors" in refusal(tmp_path, folder)
    folder = write_hf_folder(tmp_path / "hf", golden, add_adapter=True, model_type="hubert")
    assert "add_adapter" in refusal(tmp_path, folder)
    assert "config.json: no such file" in refusal(tmp_path, tmp_path / "absent", "--to_hf")
    assert "belongs to a Hugging Face model" in refusal(tmp_path, folder, "--to_hf")
    assert "unrecognized arguments: --to_hff" in refusal(tmp_path, folder, "--to_hff")


class _Malicious:
    def __reduce__(self):
        return os.mkdir, (self.trap,)

    def __init__(self, trap):
        self.trap = trap


def test_a_pickle_is_refused_without_torch_and_never_runs(tmp_path, golden, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)  # also where it is installed
    folder = write_hf_folder(tmp_path / "hf", golden)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(_Malicious(str(tmp_path / "trap"))))
    message = refusal(tmp_path, folder)
    assert "names posix.mkdir, which is no tensor; none of it was run; fetch model.safetensors instead" in message
    assert not (tmp_path / "trap").exists()


def test_a_name_is_fetched_and_converted_like_its_folder(tmp_path, golden, monkeypatch, capsys):
    source = write_hf_folder(tmp_path / "hf", golden)
    with serving() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setenv("EARSHOT_CACHE", str(tmp_path / "ours"))
        hub.files = {path.name: path.read_bytes() for path in source.iterdir()}
        assert convert.main(["--input=hf://someone/some-model", f"--output={tmp_path / 'a'}"]) == 0
        folder = convert.fetch_weights("hf://someone/some-model")
    assert convert.main([f"--input={source}", f"--output={tmp_path / 'b'}"]) == 0
    for name in ("weights.index", "config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
        assert Path(folder, name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert convert.main(["--input=someone/some-model", f"--output={tmp_path / 'c'}"]) == 2
    assert "write hf://someone/some-model" in capsys.readouterr().err


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, golden, capsys):
    write_hf_folder(tmp_path / "hf", golden)
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "ours")
    for source, *flags in (("hf",), ("ours", "--to_hf")):
        with small_files_only():
            assert convert.main([f"--input={tmp_path / source}", f"--output={tmp_path / 'new'}", *flags]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "File too large" in error and "make room, or choose another folder" in error
        assert list((tmp_path / "new").iterdir()) == []


def snippet_of(folder):
    (snippet,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), flags=re.DOTALL)
    return snippet


def test_a_card_is_written_once_and_names_the_run_that_the_weights_come_from(tmp_path, golden):
    write_hf_folder(tmp_path / "hf", golden)
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "ours")
    # As a run leaves it: config.json, vocab.json, metrics.jsonl, best/.
    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    for path in (tmp_path / "ours").glob("weights.*"):
        (run / "best" / path.name.replace("weights", "ckpt-20")).write_bytes(path.read_bytes())
    (run / "vocab.json").write_bytes((tmp_path / "ours/vocab.json").read_bytes())
    fields = json.loads((tmp_path / "ours/config.json").read_text())
    model = {"preset": "auto", "architecture": fields, "init": "hf://facebook/wav2vec2-base@main", "source": "native"}
    (run / "config.json").write_text(json.dumps({"seed": 0, "model": model}))
    lines = [
        {"step": step, "split": "dev", "wer": wer, "cer": 0.1, "num_words": 10, "num_utterances": 2}
        for step, wer in ((10, 0.5), (20, 0.25))
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    convert.to_hf(input=run, output=tmp_path / "back")
    card = ModelCard.load(tmp_path / "back/README.md")
    assert (card.data.library_name, card.data.base_model) == ("transformers", "facebook/wav2vec2-base")
    assert [result.metric_value for result in card.data.eval_results] == [25.0, 10.0]
    (tmp_path / "back/README.md").write_text("edited")
    convert.to_hf(input=run, output=tmp_path / "back")
    assert (tmp_path / "back/README.md").read_text() == "edited"


def test_the_snippet_of_the_card_is_python_and_runs_where_transformers_is(tmp_path, golden, monkeypatch, capsys):
    write_hf_folder(tmp_path / "hf", golden)
    convert.from_hf(input=tmp_path / "hf", output=tmp_path / "ours")
    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    code = compile(snippet_of(tmp_path / "back"), "README.md", "exec")
    pytest.importorskip("transformers", reason="transformers is an extra of the parity recipe (tests/golden)")
    soundfile.write(tmp_path / "back/a.wav", np.sin(np.arange(8000) / 9).astype(np.float32), 16_000)
    monkeypatch.chdir(tmp_path / "back")
    exec(code, {})
    assert capsys.readouterr().out.endswith("\n")
