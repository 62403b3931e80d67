"""Checkpoints of fairseq and fairseq2, made of the golden models: the network, its words and what is refused."""

from __future__ import annotations

import argparse
import json
import pickle
import re

import numpy as np
import pytest
import sentencepiece

from data.text.tokenizer import load_tokenizer
from models import convert
from models.wav2vec2 import pretrained
from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.helpers.models_parity import check_parity, compute, load_golden, tensors_of
from tests.helpers.torch_made import torch_names, write_checkpoint, write_old

LETTERS = ["|", "A", "B", "C"]
SYMBOLS = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS]

_LAYER = {
    "attention.": ("self_attn.", "self_attn."),
    "attention.out_proj.": ("self_attn.out_proj.", "self_attn.output_proj."),
    "layer_norm.": ("self_attn_layer_norm.", "self_attn_layer_norm."),
    "feed_forward.intermediate_dense.": ("fc1.", "ffn.inner_proj."),
    "feed_forward.output_dense.": ("fc2.", "ffn.output_proj."),
    "final_layer_norm.": ("final_layer_norm.", "ffn_layer_norm."),
}


def name_in(program, name, *, stable, is_layer_norm):
    """The name of a tensor of transformers in fairseq (0) or fairseq2 (1), by the classes of each."""
    name = re.sub(r"^(wav2vec2|hubert)\.", "", name)
    name = name.replace("parametrizations.weight.original0", "weight_g")
    name = name.replace("parametrizations.weight.original1", "weight_v")
    head = "w2v_encoder." if program == 0 else ""
    inner = "w2v_encoder.w2v_model." if program == 0 else ""
    if name.startswith("lm_head."):
        return head + name.replace("lm_head", ("proj", "final_proj")[program])
    if match := re.fullmatch(r"feature_extractor\.conv_layers\.(\d+)\.(conv|layer_norm)\.(.*)", name):
        index, part, rest = match.groups()
        if program:
            part = part if part == "conv" or is_layer_norm else "group_norm"
            return f"encoder_frontend.feature_extractor.layers.{index}.{part}.{rest}"
        place = "0" if part == "conv" else ("2.1" if is_layer_norm else "2")
        return f"{inner}feature_extractor.conv_layers.{index}.{place}.{rest}"
    if match := re.fullmatch(r"encoder\.layers\.(\d+)\.(.*)", name):
        index, rest = match.groups()
        start = max((key for key in _LAYER if rest.startswith(key)), key=len)
        return f"{inner}encoder.layers.{index}.{_LAYER[start][program]}{rest.removeprefix(start)}"
    table = {
        "feature_projection.layer_norm.": ("layer_norm.", "encoder_frontend.post_extract_layer_norm."),
        "feature_projection.projection.": ("post_extract_proj.", "encoder_frontend.model_dim_proj."),
        "masked_spec_embed": ("mask_emb", "masker.temporal_mask_embed"),
        "encoder.pos_conv_embed.conv.": ("encoder.pos_conv.0.", "encoder_frontend.pos_encoder.conv."),
        "encoder.layer_norm.": (
            "encoder.layer_norm.",
            "encoder.layer_norm." if stable else "encoder_frontend.layer_norm.",
        ),
    }
    start = next(key for key in table if name.startswith(key))
    return inner + table[start][program] + name.removeprefix(start)


def renamed(golden, program):
    config = json.loads(str(golden["config"]))
    more = {"stable": config["do_stable_layer_norm"], "is_layer_norm": config["feat_extract_norm"] == "layer"}
    return {name_in(program, name, **more): tensor for name, tensor in tensors_of(golden).items()}


def pretrained_model(golden, network="wav2vec2", **more):
    """The fields of fairseq's model that a golden model is."""
    config = json.loads(str(golden["config"]))
    layers = zip(config["conv_dim"], config["conv_kernel"], config["conv_stride"], strict=True)
    return {
        "_name": network,
        "extractor_mode": "layer_norm" if config["feat_extract_norm"] == "layer" else "default",
        "conv_feature_layers": " + ".join(f"[{layer}] * 1" for layer in layers),
        "conv_bias": config["conv_bias"],
        "encoder_layers": config["num_hidden_layers"],
        "encoder_embed_dim": config["hidden_size"],
        "encoder_ffn_embed_dim": config["intermediate_size"],
        "encoder_attention_heads": config["num_attention_heads"],
        "layer_norm_first": config["do_stable_layer_norm"],
        "activation_fn": "gelu",
        "conv_pos": config["num_conv_pos_embeddings"],
        "conv_pos_groups": config["num_conv_pos_embedding_groups"],
        "dropout": 0.2,
        **more,
    }


def tuned(golden, name="wav2vec_ctc", *, normalize=True, **more):
    """The config of a fine-tuned checkpoint."""
    task = {"_name": "audio_finetuning", "normalize": normalize, "labels": "ltr"}
    w2v_args = {"model": pretrained_model(golden, **more), "task": task}
    model = {"_name": name, "w2v_args": w2v_args, "normalize": normalize, "layerdrop": 0.05, "apply_mask": True}
    return {"model": model, "task": task}


@pytest.fixture(scope="module", autouse=True)
def names():
    with torch_names(fairseq__data__dictionary=["Dictionary"]):
        yield


def dictionary_of(symbols):
    import sys

    made = sys.modules["fairseq.data.dictionary"].Dictionary()
    vars(made).update(symbols=list(symbols), count=[1] * len(symbols), bos_index=0, unk_word="<unk>")
    return made


@pytest.mark.parametrize("golden_name", ["base_shaped", "large_lv60_shaped"])
def test_a_fine_tuned_model_of_fairseq_is_the_reference_and_knows_its_letters(tmp_path, golden_name, capsys):
    golden = load_golden(golden_name)
    # large_lv60_shaped has its own epsilon, which fairseq does not.
    path = write_checkpoint(
        tmp_path / "model.pt",
        renamed(golden, 0),
        cfg=tuned(golden, normalize=False),
        task_state={"target_dictionary": dictionary_of(SYMBOLS)},
        optimizer_history=[{"num_updates": 3}],
        extra_state={"epoch": 1},
    )
    assert convert.main([f"--input={path}", f"--output={tmp_path / 'ours'}"]) == 0
    printed = capsys.readouterr().out
    assert f"loaded: {len(tensors_of(golden))} tensors" in printed and "dropped: 0" in printed
    assert "16 kHz, as it is, not normalized (config in the file)" in printed
    assert "text: 8 tokens, the blank is '<s>' (id 0), unknown '<unk>', word delimiter '|'" in printed
    config = pretrained.read_config(tmp_path / "ours")
    assert (config.normalize_waveform, config.hidden_dropout, config.layer_drop) == (False, 0.2, 0.05)
    if golden_name == "base_shaped":
        check_parity(compute(Wav2Vec2ForCTC.from_pretrained(tmp_path / "ours"), golden), golden)
    tokenizer = load_tokenizer(tmp_path / "ours" / "vocab.json")
    assert (tokenizer.blank_id, tokenizer.encode("A B"), tokenizer.decode([5, 1, 4, 6])) == (0, [5, 4, 6], "A B")


def test_a_pretrained_model_of_fairseq_gets_a_fresh_head_and_drops_the_quantizer(tmp_path):
    golden = load_golden("base_shaped")
    tensors = {name.removeprefix("w2v_encoder.w2v_model."): array for name, array in renamed(golden, 0).items()}
    tensors = {name: array for name, array in tensors.items() if not name.startswith("w2v_encoder.")}
    for name in ("quantizer.vars", "project_q.weight", "final_proj.weight", "label_embs_concat"):
        tensors[name] = np.ones((2, 2), np.float32)
    # Older files have flat arguments and were written before PyTorch 1.6.
    arguments = argparse.Namespace(arch="wav2vec2", normalize=True, **pretrained_model(golden))
    (tmp_path / "in").mkdir()
    write_checkpoint(tmp_path / "in" / "wav2vec_small.pt", tensors, write=write_old, args=arguments, cfg=None)
    report = convert.from_hf(input=tmp_path / "in", output=tmp_path / "ours")
    assert list(report.fresh) == ["lm_head.weight", "lm_head.bias"] and len(report.dropped) == 4
    assert pretrained.read_config(tmp_path / "ours").normalize_waveform is True
    # With the letters beside it the head has their number.
    (tmp_path / "in" / "dict.ltr.txt").write_text("".join(f"{token} 10\n" for token in LETTERS))
    for name in ("wav2vec_small.pt", "spm.model"):
        (tmp_path / "in" / f"._{name}").write_bytes(b"\0\5\x16\7")  # what macOS adds is passed over
    report = convert.from_hf(input=tmp_path / "in", output=tmp_path / "ours")
    assert report.config.vocab_size == 8 and "the blank is '<s>' (id 0)" in report.understood[1]


def test_a_hubert_of_fairseq_goes_on_to_transformers_as_one(tmp_path):
    golden = load_golden("base_shaped")
    fields = tuned(golden, "hubert_ctc", network="hubert")
    path = write_checkpoint(tmp_path / "a.pt", renamed(golden, 0), cfg=fields)
    report = convert.from_hf(input=path, output=tmp_path / "ours")
    assert report.notes == ["no vocab.json, so the tokens of the head are unknown; a run needs data.vocab"]
    convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    assert json.loads((tmp_path / "back" / "config.json").read_text())["model_type"] == "hubert"


@pytest.mark.parametrize("golden_name", ["base_shaped", "large_lv60_shaped"])
def test_a_fairseq2_model_is_the_reference_with_the_preset_that_its_file_lacks(tmp_path, golden_name, capsys):
    golden = load_golden(golden_name)
    (tmp_path / "config.json").write_text(str(golden["config"]))
    tensors = {f"module.{name}": array for name, array in renamed(golden, 1).items()}
    path = write_checkpoint(tmp_path / "omni.pt", tensors, fs2=True)
    assert convert.main([f"--input={path}", f"--output={tmp_path / 'ours'}"]) == 2
    assert "no published model has hidden_size 24" in capsys.readouterr().err
    flags = [f"--input={path}", f"--output={tmp_path / 'ours'}", f"--preset={tmp_path / 'config.json'}"]
    assert convert.main(flags) == 0
    assert f"loaded: {len(tensors_of(golden))} tensors" in capsys.readouterr().out
    check_parity(compute(Wav2Vec2ForCTC.from_pretrained(tmp_path / "ours"), golden), golden)


def test_a_pretrained_fairseq2_model_has_no_head(tmp_path):
    golden = load_golden("base_shaped")
    (tmp_path / "config.json").write_text(str(golden["config"]))
    tensors = renamed(golden, 1) | {"quantizer.entries": np.ones((1, 4, 2), np.float32)}
    tensors["final_target_proj.weight"] = np.ones((2, 2), np.float32)
    path = write_checkpoint(tmp_path / "omni.pt", tensors)
    report = convert.from_hf(input=path, output=tmp_path / "ours", preset=str(tmp_path / "config.json"))
    assert list(report.fresh) == ["lm_head.weight", "lm_head.bias"]
    assert sorted(report.dropped) == [
        "final_proj.bias", "final_proj.weight", "final_target_proj.weight", "quantizer.entries",
    ]  # fmt: skip


def train_pieces(path, *, kind, letters="abc"):
    sentences = [f"{letters} {letters[::-1]} {letters[1:]}"] * 20
    with open(path, "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences), model_writer=file, vocab_size=20, model_type=kind, minloglevel=2,
            bos_id=0, pad_id=1, eos_id=2, unk_id=3, hard_vocab_limit=False,
        )  # fmt: skip


def test_the_tokenizer_of_omniasr_lies_beside_its_checkpoint(tmp_path):
    golden = load_golden("base_shaped")
    (tmp_path / "in").mkdir()
    (tmp_path / "config.json").write_text(str(golden["config"]))
    write_checkpoint(tmp_path / "in" / "omniASR-CTC-300M.pt", renamed(golden, 1))
    train_pieces(tmp_path / "in" / "omniASR_tokenizer.model", kind="char")
    preset = {"preset": str(tmp_path / "config.json")}
    report = convert.from_hf(input=tmp_path / "in", output=tmp_path / "ours", **preset)
    assert "8 tokens, the blank is '<s>' (id 0), unknown '<unk>', word delimiter '\u2581'" in report.understood[1]
    # All pieces are characters, so nothing needs the library afterwards.
    assert not (tmp_path / "ours" / "sentencepiece.model").exists()
    tokenizer = load_tokenizer(tmp_path / "ours" / "vocab.json")
    assert (tokenizer.blank_id, tokenizer.decode(tokenizer.encode("ab cab"))) == (0, "ab cab")

    train_pieces(tmp_path / "in" / "omniASR_tokenizer.model", kind="char", letters="abcd")
    with pytest.raises(ValueError, match=r"omniASR_tokenizer.model: 9 tokens, but the head has 8; put the dictionary"):
        convert.from_hf(input=tmp_path / "in", output=tmp_path / "ours", **preset)
    (tmp_path / "in" / "other.model").write_bytes(b"")
    with pytest.raises(ValueError, match="has omniASR_tokenizer.model, other.model; leave the dictionary of the head"):
        convert.from_hf(input=tmp_path / "in", output=tmp_path / "ours", **preset)


def test_pieces_of_several_characters_go_with_the_weights_both_ways(tmp_path):
    golden = load_golden("base_shaped")
    (tmp_path / "in").mkdir()
    (tmp_path / "config.json").write_text(str(golden["config"]))
    tensors = {name: array for name, array in renamed(golden, 1).items() if not name.startswith("final_proj.")}
    write_checkpoint(tmp_path / "in" / "omniASR-W2V-300M.pt", tensors)
    train_pieces(tmp_path / "in" / "bpe.model", kind="bpe")
    report = convert.from_hf(input=tmp_path / "in", output=tmp_path / "ours", preset=str(tmp_path / "config.json"))
    assert "pieces of a SentencePiece model" in report.understood[1]
    model = (tmp_path / "in" / "bpe.model").read_bytes()
    assert (tmp_path / "ours" / "sentencepiece.model").read_bytes() == model
    tokenizer = load_tokenizer(tmp_path / "ours" / "vocab.json")
    assert tokenizer.decode(tokenizer.encode("abc cba")) == "abc cba" and len(tokenizer.encode("abc cba")) < 7
    report = convert.to_hf(input=tmp_path / "ours", output=tmp_path / "back")
    assert (tmp_path / "back" / "sentencepiece.model").read_bytes() == model
    assert "transformers writes" in report.notes[0]
    convert.from_hf(input=tmp_path / "back", output=tmp_path / "again")
    assert load_tokenizer(tmp_path / "again" / "vocab.json").encode("abc") == tokenizer.encode("abc")


def test_older_fine_tuned_models_have_flat_arguments(tmp_path):
    golden = load_golden("base_shaped")
    inner = argparse.Namespace(arch="wav2vec2", normalize=True, **pretrained_model(golden))
    arguments = argparse.Namespace(arch="wav2vec_ctc", normalize=True, w2v_args=inner, apply_mask=False)
    path = write_checkpoint(tmp_path / "a.pt", renamed(golden, 0), args=arguments)
    convert.from_hf(input=path, output=tmp_path / "ours")
    config = pretrained.read_config(tmp_path / "ours")
    assert (config.normalize_waveform, config.mask_time_prob, config.num_heads) == (True, 0.0, 3)


class _Malicious:
    def __init__(self, trap):
        self.trap = trap

    def __reduce__(self):
        import os

        return os.mkdir, (self.trap,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "wav2vec"}, "its model is 'wav2vec'; supported are wav2vec2, hubert"),
        ({"layer_type": "conformer"}, "layer_type is 'conformer', which is not supported"),
        ({"quantize_input": True}, "quantize_input is 'True', which is not supported"),
        ({"activation_fn": "relu"}, "hidden_act is 'relu', which is not supported"),
        ({"extractor_mode": "x"}, "extractor_mode is 'x'; supported are 'default' and 'layer_norm'"),
        ({"conv_feature_layers": "__import__('os').mkdir('trap')"}, "not a list of"),
        ({"conv_feature_layers": "[(512, 10, 5)] * 10000000000"}, "not a list of"),
        ({"conv_feature_layers": "[(512, 10)]"}, "not a list of"),
        ({"conv_feature_layers": "[" * 5000}, "not a list of"),
        ({"encoder_layers": "two"}, "num_hidden_layers is 'two', wanted a value like 12"),
        ({"pos_conv_depth": 5}, "pos_conv_depth is 5, which is not supported for wav2vec2"),
        ({"network": "data2vec_audio", "conv_pos": None}, "num_conv_pos_embeddings is None, wanted a value like 5"),
        ({"encoder_layers": 3}, "missing"),
    ],
)
def test_a_config_of_another_network_is_one_line(tmp_path, monkeypatch, change, message, capsys):
    monkeypatch.chdir(tmp_path)
    golden = load_golden("base_shaped")
    fields = tuned(golden, **change)
    path = write_checkpoint(tmp_path / "a.pt", renamed(golden, 0), cfg=fields)
    assert convert.main([f"--input={path}", f"--output={tmp_path / 'ours'}"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and f"{path}: " in error and message in error
    assert not (tmp_path / "ours").exists() and not (tmp_path / "trap").exists()


def test_what_is_no_such_checkpoint_is_one_line_and_never_runs(tmp_path, capsys):
    golden = load_golden("base_shaped")
    whole = write_checkpoint(tmp_path / "whole.pt", renamed(golden, 0), cfg=tuned(golden)).read_bytes()
    trap = tmp_path / "trap"
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / "a.pt"

    def refuse(*flags):
        assert convert.main([f"--input={folder}", f"--output={tmp_path / 'ours'}", *flags]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and not (tmp_path / "ours").exists() and not trap.exists()
        return error

    for content, message in (
        (pickle.dumps(_Malicious(str(trap))), "none of it was run"),
        (pickle.dumps({"model": _Malicious(str(trap))}), "none of it was run"),
        (whole[: len(whole) // 2], "a.pt: "),
        (b"", "a.pt: damaged"),
        (b"text", "a.pt: "),
    ):
        path.write_bytes(content)
        assert message in refuse()
    write_checkpoint(path, {"llama_decoder.layers.0.weight": np.ones(2, np.float32)})
    assert "has a decoder on top of the encoder" in refuse()
    write_checkpoint(path, {})
    assert "not a checkpoint of fairseq or fairseq2" in refuse()
    write_checkpoint(path, {"weight": np.ones(2, np.float32)})
    assert "its tensors are not those of a wav2vec 2.0" in refuse()
    assert "neither a name nor a config.json" in refuse("--preset=none")
    write_checkpoint(path, renamed(golden, 0) | {"w2v_encoder.proj.weight": np.float32(1)}, cfg=tuned(golden))
    assert "lm_head.weight [] instead of [32, 24]" in refuse()
    write_checkpoint(path, renamed(golden, 0), cfg=tuned(golden) | {"model": {"_name": "wav2vec_ctc"}})
    assert "lacks w2v_args" in refuse()
    (folder / "b.pt").write_bytes(whole)
    assert "has 2 checkpoints (a.pt, b.pt ...); name one" in refuse()
    (folder / "b.pt").unlink()
    path.write_bytes(whole)
    for content, message in (
        ("A\n", "dict.ltr.txt, line 1: not a token and a count"),
        ("A 1\n", "5 tokens, but the head has 8"),
    ):
        (folder / "dict.ltr.txt").write_text(content)
        assert message in refuse()
    assert "--preset belongs to a .pt" in _refuse_folder(tmp_path, capsys)


def _refuse_folder(tmp_path, capsys):
    assert convert.main([f"--input={tmp_path / 'none'}", f"--output={tmp_path / 'ours'}", "--preset=base"]) == 2
    return capsys.readouterr().err


def test_phones_in_the_dictionary_are_separated_by_spaces(tmp_path):
    golden = load_golden("base_shaped")
    symbols = ["<s>", "<pad>", "</s>", "<unk>", "aa", "b", "sh", "t"]
    state = {"target_dictionary": dictionary_of(symbols)}
    path = write_checkpoint(tmp_path / "a.pt", renamed(golden, 0), cfg=tuned(golden), task_state=state)
    convert.from_hf(input=path, output=tmp_path / "ours")
    tokenizer = load_tokenizer(tmp_path / "ours" / "vocab.json")
    assert (tokenizer.encode("sh aa t"), tokenizer.decode([6, 4, 7])) == ([6, 4, 7], "sh aa t")
