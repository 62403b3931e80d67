"""Roles of tokens: by tokenizer_config.json, else by their usual names."""

from __future__ import annotations

import pytest

from common.json_files import MalformedFileError
from common.special_tokens import find_special_tokens


@pytest.mark.parametrize(
    ("tokens", "fields", "wanted"),
    [
        ("<pad> <s> </s> <unk> | A", {}, {"pad_token": "<pad>", "word_delimiter_token": "|", "eos_token": "</s>"}),
        ("A [UNK] | [PAD]", {}, {"pad_token": "[PAD]", "unk_token": "[UNK]", "word_delimiter_token": "|"}),
        # What the file names wins, wherever the usual name stands.
        ("<pad> <ctc> A |", {"pad_token": "<ctc>"}, {"pad_token": "<ctc>", "word_delimiter_token": "|"}),
        ("_ <pad> A", {"word_delimiter_token": {"content": "_"}}, {"pad_token": "<pad>", "word_delimiter_token": "_"}),
        # A name that the vocabulary lacks says nothing: the class writes its defaults.
        ("[PAD] A |", {"pad_token": "<pad>", "unk_token": "<unk>", "bos_token": None}, {"pad_token": "[PAD]"}),
        # One token, one role: labels must never be the blank.
        ("<pad> A |", {"unk_token": "<pad>"}, {"pad_token": "<pad>", "word_delimiter_token": "|"}),
        ("A B", {}, {}),
    ],
)
def test_roles_are_found(tokens, fields, wanted):
    found = find_special_tokens(tokens.split(" "), fields)
    assert wanted.items() <= found.items()
    assert len(set(found.values())) == len(found)
    assert found.get("unk_token") != found.get("pad_token") or not found


def test_a_space_is_the_delimiter_where_no_other_is():
    assert find_special_tokens([" ", "<pad>", "|"])["word_delimiter_token"] == "|"
    assert find_special_tokens([" ", "<pad>"])["word_delimiter_token"] == " "
    assert find_special_tokens([" ", "<pad>", "|"], {"word_delimiter_token": " "})["word_delimiter_token"] == " "


@pytest.mark.parametrize("value", [3, ["<pad>"], {"content": 3}, True])
def test_a_role_that_is_no_name_is_one_line(value):
    with pytest.raises(MalformedFileError, match="here/tokenizer_config.json: 'pad_token' is .*, not the name of"):
        find_special_tokens(["<pad>"], {"pad_token": value}, where="here/tokenizer_config.json")
