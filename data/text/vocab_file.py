"""Reads and writes a vocabulary: vocab.json, and beside it the roles of its tokens and a SentencePiece model."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Sequence

from common import special_tokens as roles
from common import storage
from common.json_files import MalformedFileError, is_kind, optional_field, parse_object
from common.sentence_pieces import ADDED_BLANK, PIECES_FIELD, PIECES_FILE, Pieces, is_model_name, read_pieces
from data.common.errors import InputError
from data.common.files import write_bytes_atomic, write_text_atomic


@dataclasses.dataclass(frozen=True)
class VocabFile:
    """A vocabulary as its files tell it.

    Attributes:
        tokens: Token of each id.
        special_tokens: Role -> token.
        separator: Text between two tokens, for phones; "" for characters and pieces.
        pieces: Splits text into pieces; None where the longest match does.
    """

    tokens: tuple[str, ...]
    special_tokens: dict[str, str]
    separator: str = ""
    pieces: Pieces | None = None


def read_vocab_file(path: str | os.PathLike[str]) -> VocabFile:
    """Reads a vocab.json with what lies beside it, or a SentencePiece model by itself.

    A model without padding gets a blank behind its pieces, which keep their ids.

    Raises:
        InputError: If there is no such file, it is not an object of token -> id with the ids 0 to N - 1, or a file
            beside it is missing or damaged.
    """
    if not storage.is_file(path):
        raise InputError(f"no vocabulary {path}: make one with python -m data.vocab")
    if is_model_name(path):
        pieces = _read_pieces(path)
        tokens = pieces.tokens if roles.BLANK in pieces.roles else (*pieces.tokens, ADDED_BLANK)
        return VocabFile(tokens, {roles.BLANK: ADDED_BLANK} | pieces.roles, pieces=pieces)
    try:
        ids = parse_object(storage.read_bytes(path), os.fspath(path))
    except MalformedFileError as error:
        raise InputError(f"{error}: make it again") from error
    if not all(is_kind(index, int) for index in ids.values()):
        raise InputError(f"{path} is not an object of token -> id: make it again")
    if sorted(ids.values()) != list(range(len(ids))):
        raise InputError(f"the ids in {path} are not 0 to {len(ids) - 1}, each once: correct the file")
    return _with_files_beside(path, sorted(ids, key=ids.__getitem__))


def write_vocab_file(path: str | os.PathLike[str], vocab: VocabFile) -> None:
    """Writes a vocab.json for `read_vocab_file`, each file atomically and vocab.json last.

    Also writes tokenizer_config.json beside it where the usual names or an existing file would tell something else, and
    the SentencePiece model if there is one.
    """
    if vocab.pieces is not None:
        write_bytes_atomic(_beside(path, PIECES_FILE), vocab.pieces.content)
    try:
        found = _with_files_beside(path, vocab.tokens)
        is_known = (found.special_tokens, found.separator) == (vocab.special_tokens, vocab.separator)
        is_known = is_known and (found.pieces is None) == (vocab.pieces is None)
    except InputError:
        is_known = False  # the existing file is damaged and is replaced
    if not is_known:
        fields: dict[str, object] = {"tokenizer_class": "Wav2Vec2CTCTokenizer", **vocab.special_tokens}
        if vocab.separator:
            fields |= {
                "tokenizer_class": roles.PHONE_TOKENIZER,
                roles.SEPARATOR: vocab.separator,
                "do_phonemize": False,
            }
        if vocab.pieces is not None:
            fields[PIECES_FIELD] = PIECES_FILE
        text = json.dumps(fields, ensure_ascii=False, indent=1)
        write_text_atomic(_beside(path, roles.TOKENIZER_FILE), text + "\n")
    ids = {token: index for index, token in enumerate(vocab.tokens)}
    write_text_atomic(path, json.dumps(ids, ensure_ascii=False, indent=1) + "\n")


def _with_files_beside(path: str | os.PathLike[str], tokens: Sequence[str]) -> VocabFile:
    config = _beside(path, roles.TOKENIZER_FILE)
    try:
        fields = parse_object(storage.read_bytes(config), config) if storage.is_file(config) else {}
        special = roles.find_special_tokens(tokens, fields, where=config)
        separator = roles.find_separator(fields, config)
        has_pieces = optional_field(fields, PIECES_FIELD, str, config, "") == PIECES_FILE
    except MalformedFileError as error:
        raise InputError(f"{error}: correct it or remove it") from error
    pieces = _pieces_beside(path, tokens) if has_pieces else None
    return VocabFile(tuple(tokens), special, separator, pieces)


def _pieces_beside(path: str | os.PathLike[str], tokens: Sequence[str]) -> Pieces:
    model = _beside(path, PIECES_FILE)
    if not storage.is_file(model):
        raise InputError(f"{model}: no such file, but {roles.TOKENIZER_FILE} names it: copy it there")
    pieces = _read_pieces(model)
    if tuple(tokens)[: len(pieces.tokens)] != pieces.tokens:
        raise InputError(f"{model}: its pieces are not the tokens of {path}: copy the one that belongs to it")
    return pieces


def _read_pieces(path: str | os.PathLike[str]) -> Pieces:
    try:
        return read_pieces(storage.read_bytes(path), os.fspath(path))
    except ValueError as error:
        raise InputError(str(error)) from error


def _beside(path: str | os.PathLike[str], name: str) -> str:
    return os.path.join(os.path.dirname(os.fspath(path)), name)
