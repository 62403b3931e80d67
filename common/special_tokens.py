"""Finds the special tokens of a vocabulary: the CTC blank, the unknown token, the word delimiter, begin and end."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from common.json_files import MalformedFileError, describe

# Lies beside a vocab.json and assigns roles to tokens, in the format of transformers' Wav2Vec2CTCTokenizer.
TOKENIZER_FILE = "tokenizer_config.json"
BLANK, UNKNOWN, WORD_DELIMITER = "pad_token", "unk_token", "word_delimiter_token"
# Names to look for if no file assigns a role; the blank comes first, because a token has one role.
_USUAL_NAMES = {
    BLANK: ("<pad>", "[PAD]", "<blank>", "[BLANK]", "[blank]", "<blk>", "<ctc>", "<ctc_blank>"),
    UNKNOWN: ("<unk>", "[UNK]"),
    "bos_token": ("<s>",),
    "eos_token": ("</s>",),
    WORD_DELIMITER: ("|", " "),
}
ROLES = tuple(_USUAL_NAMES)
# Names that mean nothing but the blank, as padding's may.
BLANK_NAMES = tuple(name for name in _USUAL_NAMES[BLANK] if "pad" not in name.lower())
# Field of TOKENIZER_FILE with the text between two tokens, for vocabularies of phones, and the class that has it.
SEPARATOR, PHONE_TOKENIZER = "phone_delimiter_token", "Wav2Vec2PhonemeCTCTokenizer"


def find_special_tokens(
    tokens: Collection[str], fields: Mapping[str, Any] | None = None, *, where: str = TOKENIZER_FILE
) -> dict[str, str]:
    """Returns role -> token for the roles that the vocabulary has a token for.

    Args:
        tokens: Vocabulary.
        fields: Content of tokenizer_config.json. If it names a token that the vocabulary lacks, the usual name is used.
        where: Path of `fields` in messages.

    Raises:
        MalformedFileError: If a role's value is not the name of a token.
    """
    found: dict[str, str] = {}
    for role, usual in _USUAL_NAMES.items():
        names = [name for name in (named_token(fields or {}, role, where), *usual) if name is not None]
        token = next((name for name in names if name in tokens and name not in found.values()), None)
        if token is not None:
            found[role] = token
    return found


def named_token(fields: Mapping[str, Any], role: str, where: str) -> str | None:
    """Returns the token that a file names for a role, as text or as the `content` of an object; None without one.

    Raises:
        MalformedFileError: If the value has another type.
    """
    value = fields.get(role)
    token = value.get("content") if isinstance(value, dict) else value
    if token is not None and not isinstance(token, str):
        raise MalformedFileError(f"{where}: {role!r} is {describe(value)}, not the name of a token")
    return token


def find_separator(fields: Mapping[str, Any], where: str) -> str:
    """Returns the text between two tokens of a vocabulary of phones, "" for one of characters or pieces.

    Raises:
        MalformedFileError: If the separator is not text.
    """
    if fields.get("tokenizer_class") != PHONE_TOKENIZER:
        return ""
    return named_token(fields, SEPARATOR, where) or " "
