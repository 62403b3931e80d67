"""Reads the tokens of a fairseq or fairseq2 model: of the file itself, of a dict.*.txt or of a SentencePiece model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.sentence_pieces import SPACE, is_model_name, read_pieces_file
from common.special_tokens import BLANK, WORD_DELIMITER, find_special_tokens
from models.hugging_face.files import Vocabulary
from models.weights.unpickling import Inert

# Before the tokens of every dictionary file. The first is the CTC blank.
_FIRST_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
# Ends the line of a token that replaces an earlier one of this name.
_OVERWRITE = " #fairseq:overwrite"


def find_vocabulary(path: Path, state: Any, *, num_rows: int) -> Vocabulary | None:
    """Returns the tokens of the head of a checkpoint, None if nothing tells them.

    Args:
        path: The checkpoint. Its folder may hold one dict.*.txt or one *.model.
        state: `task_state` of the file.
        num_rows: Rows of the head; 0 for a new head.

    Raises:
        ValueError: If a dictionary is damaged, there are several, or the tokens are not as many as the rows.
    """
    where, tokens = path, _tokens_inside(state) if num_rows else None
    if tokens is None:
        beside = _file_beside(path)
        if beside is None:
            return None
        if is_model_name(beside):
            return _of_pieces(beside, num_rows)
        where, tokens = beside, _read_dictionary(beside)
    _check_rows(where, tokens, num_rows)
    ids = {token: index for index, token in enumerate(tokens)}
    if len(ids) != len(tokens):
        raise ValueError(f"{where}: its dictionary has a token twice; give another vocabulary with --vocab")
    return Vocabulary(ids, find_special_tokens(ids, {BLANK: tokens[0]}), separator=_separator(tokens))


def _check_rows(where: Path, tokens: Sequence[str], num_rows: int) -> None:
    if num_rows and len(tokens) != num_rows:
        raise ValueError(
            f"{where}: {len(tokens)} tokens, but the head has {num_rows}; put the dictionary that belongs to it beside "
            "the checkpoint, or give another vocabulary with --vocab, which gets a new head"
        )


def _tokens_inside(state: Any) -> list[str] | None:
    """Returns the symbols of the target dictionary that fairseq keeps in a fine-tuned checkpoint."""
    dictionary = state.get("target_dictionary") if isinstance(state, Mapping) else None
    content = dictionary.state if isinstance(dictionary, Inert) else None
    symbols = content.get("symbols") if isinstance(content, Mapping) else None
    if not isinstance(symbols, list) or not symbols or not all(isinstance(token, str) for token in symbols):
        return None
    return symbols


def _file_beside(path: Path) -> Path | None:
    beside = sorted([*path.parent.glob("dict.*.txt"), *path.parent.glob("*.model")])
    found = [file for file in beside if not file.name.startswith(".")]  # ._NAME of macOS
    if len(found) > 1:
        names = ", ".join(file.name for file in found[:5])
        raise ValueError(f"{path.parent}: has {names}; leave the dictionary of the head alone there")
    return found[0] if found else None


def _read_dictionary(path: Path) -> list[str]:
    """Reads a dict.*.txt, lines of a token and a count, behind the tokens that every dictionary begins with."""
    tokens = list(_FIRST_TOKENS)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text; fetch it again") from error
    for number, line in enumerate(lines, 1):
        replaces = line.endswith(_OVERWRITE)
        token, _, count = line.removesuffix(_OVERWRITE).rpartition(" ")
        if not token or not count.isdecimal():
            raise ValueError(f"{path}, line {number}: not a token and a count, with a space between; fetch it again")
        if replaces and token in tokens:
            tokens[tokens.index(token)] = f"{token}#{number}"
        tokens.append(token)
    return tokens


def _separator(tokens: Sequence[str]) -> str:
    """Returns " " for phones: several tokens have more than one character, and none is a space between words."""
    long = [token for token in tokens[len(_FIRST_TOKENS) :] if len(token) > 1]
    return " " if len(long) > 1 and "|" not in tokens and not any(SPACE in token for token in tokens) else ""


def _of_pieces(path: Path, num_rows: int) -> Vocabulary:
    """Returns the tokens of a SentencePiece model; the blank is the first, as fairseq2 trains it."""
    pieces = read_pieces_file(path)
    _check_rows(path, pieces.tokens, num_rows)
    ids = {token: index for index, token in enumerate(pieces.tokens)}
    fields = pieces.roles | {BLANK: pieces.tokens[0]}
    special = find_special_tokens(ids, fields)
    if SPACE not in ids:
        special.pop(WORD_DELIMITER, None)
    return Vocabulary(ids, special, pieces=b"" if pieces.are_characters else pieces.content)
