"""Reads and trains SentencePiece models through their library, which is an extra, and names their pieces' roles."""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.readable import describe_error
from common.special_tokens import BLANK, UNKNOWN, WORD_DELIMITER

# Stands for the space before a word, at the beginning of a piece or as a piece of its own.
SPACE = "\u2581"
# Lies beside a vocab.json whose tokens are pieces of several characters; tokenizer_config.json names it.
PIECES_FILE = "sentencepiece.model"
PIECES_FIELD = "sentencepiece_model"
# Name of the blank that is added behind the pieces of a model without one.
ADDED_BLANK = "<blank>"
_MAX_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Pieces of a model.

    Attributes:
        tokens: Piece of each id.
        roles: Role -> piece, as in `common.special_tokens`; without the blank if the model has no padding.
        content: The model as it was read, for a copy.
        processor: sentencepiece.SentencePieceProcessor.
    """

    tokens: tuple[str, ...]
    roles: dict[str, str]
    content: bytes
    processor: Any

    @property
    def are_characters(self) -> bool:
        """Whether every piece is one character or has a role, so that text needs no library to be split."""
        return all(len(token) == 1 or token in self.roles.values() or _is_markup(token) for token in self.tokens)


def is_model_name(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path has the ending of a SentencePiece model."""
    return os.fspath(path).endswith(".model")


def read_pieces(content: bytes, where: str) -> Pieces:
    """Reads a SentencePiece model.

    Args:
        content: Bytes of the file.
        where: Path of the file in messages.

    Raises:
        ValueError: If the library is not installed, or the content is not such a model.
    """
    sentencepiece = _library(where)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{where}: has {len(content)} bytes; at most {_MAX_BYTES} are read")
    processor = sentencepiece.SentencePieceProcessor()
    try:
        processor.LoadFromSerializedProto(content)
        tokens = tuple(processor.IdToPiece(index) for index in range(processor.GetPieceSize()))
    except (RuntimeError, ValueError, UnicodeDecodeError) as error:
        raise ValueError(f"{where}: not a SentencePiece model; fetch it again") from error
    if not tokens:
        raise ValueError(f"{where}: not a SentencePiece model; fetch it again")
    if any(map(processor.IsByte, range(len(tokens)))):
        raise ValueError(
            f"{where}: has pieces that are bytes, whose text depends on their neighbors; train it without byte_fallback"
        )
    ids = {
        BLANK: processor.pad_id(),
        UNKNOWN: processor.unk_id(),
        "bos_token": processor.bos_id(),
        "eos_token": processor.eos_id(),
    }
    roles = {role: tokens[index] for role, index in ids.items() if index >= 0}
    if SPACE in tokens:
        roles[WORD_DELIMITER] = SPACE
    return Pieces(tokens, roles, content, processor)


def read_pieces_file(path: str | os.PathLike[str]) -> Pieces:
    """Reads a local SentencePiece model with `read_pieces`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be used.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{os.fspath(path)}: no such file; give a SentencePiece model")
    return read_pieces(Path(path).read_bytes(), os.fspath(path))


def train_pieces(texts: Iterable[str], *, size: int, kind: str) -> Pieces:
    """Trains a SentencePiece model whose padding, token 0, is the CTC blank.

    Args:
        texts: Normalized transcripts; the model changes no character of them.
        size: Number of pieces; fewer if the texts do not have as many.
        kind: "bpe" or "unigram".

    Raises:
        ValueError: If the library is not installed, or refuses the texts or the size.
    """
    where = f"{size} pieces"
    sentencepiece, written = _library(where), io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts), model_writer=written, vocab_size=size, model_type=kind, num_threads=1,
            pad_id=0, unk_id=1, bos_id=-1, eos_id=-1, character_coverage=1.0, hard_vocab_limit=False,
            normalization_rule_name="identity", minloglevel=2,
        )  # fmt: skip
    except (RuntimeError, OSError, ValueError) as error:
        reason = describe_error(error, 200)
        raise ValueError(f"{where} cannot be trained ({reason}); choose another number, or check the corpus") from error
    return read_pieces(written.getvalue(), where)


def _library(where: str) -> Any:
    try:
        import sentencepiece
    except ImportError as error:
        raise ValueError(f"{where}: needs sentencepiece; pip install 'earshot[sentencepiece]'") from error
    return sentencepiece


def _is_markup(token: str) -> bool:
    return token.startswith("<") and token.endswith(">")
