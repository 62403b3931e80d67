"""Vocabulary and preprocessing settings of a Hugging Face folder."""

from __future__ import annotations

import json

import pytest

from models import hf_files
from models.config import preset


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_added_tokens_join_the_vocabulary_in_the_order_of_ids(tmp_path):
    write(tmp_path / "vocab.json", {"é": 2, "<pad>": 0, "|": 1})
    assert list(hf_files.folder_vocab(tmp_path)) == ["<pad>", "|", "é"]
    write(tmp_path / "added_tokens.json", {"</s>": 4, "<s>": 3})
    assert hf_files.folder_vocab(tmp_path) == {"<pad>": 0, "|": 1, "é": 2, "<s>": 3, "</s>": 4}


def test_no_vocabulary_is_none(tmp_path):
    assert hf_files.folder_vocab(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="no such file"):
        hf_files.read_vocab(tmp_path / "vocab.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        (["<pad>"], "not an object"),
        ({"<pad>": "0"}, "not an object"),
        ({"eng": {"<pad>": 0}}, "single language"),
        ({"<pad>": 0, "a": 2}, "ids are not 0 to 1"),
        ({"<pad>": 0, "a": 0}, "ids are not 0 to 1"),
    ],
)
def test_a_file_that_is_no_vocabulary_is_one_line(tmp_path, content, message):
    path = write(tmp_path / "vocab.json", content)
    with pytest.raises(ValueError, match=message) as caught:
        hf_files.read_vocab(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_other_preprocessing_is_noted_or_refused(tmp_path):
    assert hf_files.preprocessing_notes(tmp_path) == []
    path = write(tmp_path / "preprocessor_config.json", hf_files.preprocessor_fields(preset("base")))
    assert hf_files.preprocessing_notes(tmp_path) == []
    write(path, {"do_normalize": False})
    assert "do_normalize=false" in hf_files.preprocessing_notes(tmp_path)[0]
    for content, message in (({"sampling_rate": 8000}, "8000"), ("[", "fetch it again"), ("[]", "fetch it again")):
        write(path, content)
        with pytest.raises(ValueError, match=message):
            hf_files.preprocessing_notes(tmp_path)


def test_only_layer_norm_models_want_an_attention_mask():
    assert hf_files.preprocessor_fields(preset("large_lv60"))["return_attention_mask"] is True
    assert hf_files.preprocessor_fields(preset("large"))["return_attention_mask"] is False


def test_the_tokenizer_names_the_special_tokens_that_exist():
    fields = hf_files.tokenizer_fields({"<pad>": 0, "<unk>": 1, "|": 2})
    assert fields["pad_token"] == "<pad>" and fields["unk_token"] == "<unk>"
    assert "bos_token" not in fields
