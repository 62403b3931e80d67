"""Reads and writes the vocabulary and the preprocessing settings of a Hugging Face folder."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any

from common.json_files import MalformedFileError, describe, is_kind, optional_field, read_object
from common.sentence_pieces import PIECES_FIELD, PIECES_FILE
from common.special_tokens import (
    BLANK,
    BLANK_NAMES,
    PHONE_TOKENIZER,
    ROLES,
    SEPARATOR,
    TOKENIZER_FILE,
    UNKNOWN,
    WORD_DELIMITER,
    find_separator,
    find_special_tokens,
    named_token,
)
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.vocab_file import order_token_ids, read_token_ids, read_vocab

VOCAB_FILE = "vocab.json"
SAMPLE_RATE = 16_000
PREPROCESSOR_FILE, PROCESSOR_FILE = "preprocessor_config.json", "processor_config.json"
SPECIAL_TOKENS_FILE, ADDED_TOKENS_FILE = "special_tokens_map.json", "added_tokens.json"
_EXTRACTOR = "Wav2Vec2FeatureExtractor"
_MARKUP = re.compile(r"<.+>|\[.+\]")  # such as <pad> beside another blank
# Its class and other fields for w2v-BERT, whose features are in our graph; these are the only ones it was trained on.
_MEL_EXTRACTOR = "SeamlessM4TFeatureExtractor"
_MEL_FIELDS = {"feature_size": 80, "num_mel_bins": 80, "stride": 2, "sampling_rate": SAMPLE_RATE}


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Tokens of a CTC head.

    Attributes:
        ids: Token -> id, in the order of the ids 0 to N - 1.
        special: Role -> token, from `common.special_tokens.find_special_tokens`; always includes the blank.
        notes: Remarks for the user about files that disagree.
        separator: Text between two tokens, for phones; "" for characters and pieces.
        pieces: SentencePiece model that splits text into the tokens; b"" if the longest match does.
    """

    ids: dict[str, int]
    special: dict[str, str]
    notes: tuple[str, ...] = ()
    separator: str = ""
    pieces: bytes = b""

    @property
    def blank_id(self) -> int:
        """The id of the CTC blank."""
        return self.ids[self.special[BLANK]]

    def describe(self) -> str:
        """Returns one line that names the tokens with a role."""
        roles = ((UNKNOWN, "unknown"), (WORD_DELIMITER, "word delimiter"))
        named = [f"{name} {self.special[role]!r}" if role in self.special else f"no {name}" for role, name in roles]
        if self.separator:
            named.append(f"phones with {self.separator!r} between them")
        if self.pieces:
            named.append("pieces of a SentencePiece model")
        return f"{len(self.ids)} tokens, the blank is {self.special[BLANK]!r} (id {self.blank_id}), {', '.join(named)}"

    def id_of(self, role: str) -> int | None:
        """Returns the id of the token with a role, or None if there is none."""
        return self.ids[self.special[role]] if role in self.special else None


def folder_vocabulary(
    folder: Path, *, num_rows: int, config: Mapping[str, Any], target_lang: str = ""
) -> Vocabulary | None:
    """Reads the vocabulary of a Hugging Face folder, or returns None without a vocab.json.

    tokenizer_config.json names the special tokens. One from before transformers 4.34, which has no
    added_tokens_decoder, is overridden by special_tokens_map.json and completed by added_tokens.json, as in
    transformers. The blank is the pad_token that these files name, else the token of pad_token_id in config.json, else
    a token with a usual name.

    Args:
        folder: Hugging Face folder.
        num_rows: Rows of the head that the tokens belong to; 0 for a new head. Special and added tokens past the rows
            have no logit; they are left out and noted.
        config: Content of the folder's config.json.
        target_lang: Language to read where vocab.json has several.

    Raises:
        ValueError: If a file is damaged, the tokens do not fit the head, or none can be the blank.
    """
    path = folder / VOCAB_FILE
    if not path.is_file():
        return None
    notes: list[str] = []
    tokenizer, added = _tokenizer_files(folder, notes)
    # As in transformers, config.json may name the class of the tokenizer.
    named = {"tokenizer_class": config.get("tokenizer_class")} | tokenizer
    separator = find_separator(named, os.fspath(folder / TOKENIZER_FILE))
    ids = read_token_ids(path, target_lang)
    taken = set(ids.values())
    ids |= {token: index for token, index in added.items() if token not in ids and index not in taken}
    if num_rows:
        named_tokens = {named_token(tokenizer, role, os.fspath(folder / TOKENIZER_FILE)) for role in ROLES}
        without_row = {*added, *find_special_tokens(ids).values(), *named_tokens}
        ids = _fit_to_head(path, ids, without_row, num_rows, notes)
    ids = order_token_ids(path, ids)
    special = _special_tokens(folder, ids, tokenizer, config, notes, is_trained=num_rows > 0)
    return Vocabulary(ids, special, tuple(notes), separator, _pieces_of(folder, tokenizer))


def _pieces_of(folder: Path, tokenizer: Mapping[str, Any]) -> bytes:
    """Returns the SentencePiece model that a folder of ours keeps beside its vocabulary, b"" without one."""
    path = os.fspath(folder / TOKENIZER_FILE)
    if optional_field(tokenizer, PIECES_FIELD, str, path, "") != PIECES_FILE:
        return b""
    if not (folder / PIECES_FILE).is_file():
        raise ValueError(f"{folder / PIECES_FILE}: no such file, but {TOKENIZER_FILE} names it; copy it there")
    return (folder / PIECES_FILE).read_bytes()


def _fit_to_head(
    path: Path, ids: Mapping[str, int], special: Container[str | None], num_rows: int, notes: list[str]
) -> dict[str, int]:
    """Returns the tokens that have a row of the head; leaves out special ones past the rows, and notes them."""
    without_logits = [token for token, index in ids.items() if index >= num_rows and token in special]
    kept = {token: index for token, index in ids.items() if token not in without_logits}
    if len(kept) != num_rows:
        raise ValueError(
            f"{path}: {len(kept)} tokens, but the head has {num_rows}; fetch the files that belong to it "
            f"({TOKENIZER_FILE}, {ADDED_TOKENS_FILE}), or give another vocabulary with --vocab, which gets a new "
            "head"
        )
    if without_logits:
        notes.append(f"left out, because the head has no row for them: {', '.join(map(repr, without_logits))}")
    return kept


def read_vocabulary(path: str | os.PathLike[str]) -> Vocabulary:
    """Reads a vocab.json of ours, and the roles of its tokens from tokenizer_config.json beside it.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is not a vocabulary.
    """
    ids, folder = read_vocab(path), Path(path).parent
    tokenizer = _read(folder / TOKENIZER_FILE)
    return Vocabulary(
        ids,
        _special_tokens(folder, ids, tokenizer, {}, [], is_trained=False),
        separator=find_separator(tokenizer, os.fspath(folder / TOKENIZER_FILE)),
        pieces=_pieces_of(folder, tokenizer),
    )


def _tokenizer_files(folder: Path, notes: list[str]) -> tuple[dict[str, Any], dict[str, int]]:
    """Returns the fields of the tokenizer and the tokens added to its vocabulary, with their ids."""
    path = folder / TOKENIZER_FILE
    fields = _read(path)
    if "added_tokens_decoder" in fields:
        return fields, _added_tokens(path, fields["added_tokens_decoder"])
    overruling = _read(folder / SPECIAL_TOKENS_FILE)
    for role in ROLES:
        ours = named_token(fields, role, os.fspath(path))
        theirs = named_token(overruling, role, os.fspath(folder / SPECIAL_TOKENS_FILE))
        if ours is not None and theirs is not None and ours != theirs:
            notes.append(
                f"{role} is {theirs!r} in {SPECIAL_TOKENS_FILE}, which is used, and {ours!r} in {TOKENIZER_FILE}"
            )
    more = folder / ADDED_TOKENS_FILE
    return {**fields, **overruling}, read_token_ids(more) if more.is_file() else {}


def _added_tokens(path: Path, decoder: Any) -> dict[str, int]:
    """Returns token -> id of an added_tokens_decoder."""
    added: dict[str, int] = {}
    if not is_kind(decoder, dict):
        raise ValueError(f"{path}: 'added_tokens_decoder' is {describe(decoder)}, not a JSON object")
    for key, value in decoder.items():
        token = value.get("content") if isinstance(value, dict) else None
        if not (key.isascii() and key.isdigit() and len(key) < 10 and isinstance(token, str)):
            raise ValueError(f"{path}: 'added_tokens_decoder' is not an object of id -> token ({key[:20]!r})")
        added[token] = int(key)
    return added


def _special_tokens(
    folder: Path,
    ids: Mapping[str, int],
    tokenizer: Mapping[str, Any],
    config: Mapping[str, Any],
    notes: list[str],
    *,
    is_trained: bool,
) -> dict[str, str]:
    """Returns the roles of a vocabulary's tokens; where files disagree about the blank, the tokenizer's wins."""
    path = os.fspath(folder / TOKENIZER_FILE)
    named = named_token(tokenizer, BLANK, path)
    pad_id = _pad_token_id(folder / "config.json", config)
    if not is_trained:
        pad_id = None  # with a new head the id in config.json belongs to another vocabulary
    in_config = next((token for token, index in ids.items() if index == pad_id), None)
    # "<blank>" says more than padding does.
    blank = named if named in ids and not (in_config in BLANK_NAMES and named not in BLANK_NAMES) else in_config
    special = find_special_tokens(ids, {**tokenizer, BLANK: blank}, where=path)
    if BLANK not in special:
        raise ValueError(
            f"{folder / VOCAB_FILE}: no token is the CTC blank; name it as pad_token in {TOKENIZER_FILE} beside it"
        )
    if pad_id is not None:
        notes += _blank_notes(ids, special[BLANK], named=named, pad_id=pad_id, in_config=in_config)
    return special


def _blank_notes(
    ids: Mapping[str, int], blank: str, *, named: str | None, pad_id: int, in_config: str | None
) -> list[str]:
    """Returns remarks on a blank that files disagree about.

    Args:
        ids: Token -> id.
        blank: Token of the blank.
        named: Token that the tokenizer's files name, which the vocabulary may lack.
        pad_id: pad_token_id of config.json.
        in_config: Token with this id; None if there is none.
    """
    if in_config != blank:
        why = "which the tokenizer's files name" if blank == named else "by its name"
        theirs = "not a row of the head" if in_config is None else repr(in_config)
        return [f"the blank is {blank!r} (id {ids[blank]}), {why}; pad_token_id of config.json is {pad_id}, {theirs}"]
    if named in ids and named != blank:
        why = f"as pad_token_id of config.json says; the tokenizer's files name {named!r}"
        return [f"the blank is {blank!r} (id {pad_id}), {why}"]
    usual = find_special_tokens(ids).get(BLANK, blank)
    if named in ids or usual == blank:
        return []
    return [f"the blank is {blank!r}, as pad_token_id of config.json ({pad_id}) says, though there is {usual!r}"]


def _pad_token_id(path: Path, config: Mapping[str, Any]) -> int | None:
    """Returns pad_token_id of a config.json, None if it has none."""
    pad_id = config.get("pad_token_id")
    if pad_id is not None and not is_kind(pad_id, int):
        raise ValueError(f"{path}: pad_token_id is {describe(pad_id)}, not a whole number")
    return pad_id


def read_preprocessing(folder: Path, front_end: str = "convolutions") -> tuple[bool, str]:
    """Returns whether a folder's feature extractor normalizes waveforms, and a line that describes it.

    As in transformers, processor_config.json takes precedence over preprocessor_config.json if it contains the feature
    extractor (transformers 5). Settings for padding (return_attention_mask, padding_value) do not matter, because our
    padding is always masked.

    Args:
        folder: Hugging Face folder.
        front_end: Input of the network, a value of `Wav2Vec2Config.front_end`; "log_mel" takes waveforms as they are.

    Raises:
        ValueError: If the extractor is another one, its sampling rate is not 16 kHz, or a file is damaged.
    """
    nested, flat = _read(folder / PROCESSOR_FILE), _read(folder / PREPROCESSOR_FILE)
    key = next((key for key in ("feature_extractor", "audio_processor") if nested.get(key) is not None), None)
    found = []
    if key is not None:
        if not is_kind(nested[key], dict):
            raise ValueError(f"{folder / PROCESSOR_FILE}: {key!r} is {describe(nested[key])}, not a JSON object")
        found.append((PROCESSOR_FILE, _extractor(folder / PROCESSOR_FILE, nested[key], front_end)))
    if (folder / PREPROCESSOR_FILE).is_file():
        found.append((PREPROCESSOR_FILE, _extractor(folder / PREPROCESSOR_FILE, flat, front_end, refuse=not found)))
    if front_end == "log_mel":
        return False, "16 kHz, as it is; its log-mel spectrogram is part of the model"
    if not found:
        return True, "16 kHz, normalized to zero mean and unit variance (assumed: no preprocessor_config.json)"
    name, normalizes = found[0]
    line = (
        "normalized to zero mean and unit variance" if normalizes else "as it is, not normalized (do_normalize=false)"
    )
    if found[-1][1] not in (None, normalizes):
        return bool(normalizes), f"16 kHz, {line}, by {name}; {found[-1][0]} disagrees and is ignored"
    return bool(normalizes), f"16 kHz, {line} ({name})"


def _extractor(path: Path, fields: Mapping[str, Any], front_end: str, *, refuse: bool = True) -> bool | None:
    """Returns do_normalize of a supported feature extractor; refuses any other, or returns None without `refuse`."""
    normalizes = fields.get("do_normalize", True)
    problems = []
    kind, numbers = _EXTRACTOR, {"sampling_rate": SAMPLE_RATE, "feature_size": 1}
    if front_end == "log_mel":
        kind, numbers = _MEL_EXTRACTOR, _MEL_FIELDS
    if fields.get("feature_extractor_type", kind) != kind:
        problems.append(f"feature_extractor_type is {describe(fields['feature_extractor_type'])}; only {kind} is")
    for name, wanted in numbers.items():
        value = fields.get(name, wanted)
        if not is_kind(value, float) or value != wanted:
            problems.append(f"{name} is {describe(value)}; only {wanted} is")
    if not is_kind(normalizes, bool):
        problems.append(f"do_normalize is {describe(normalizes)}; only true or false is")
    if problems and refuse:
        raise ValueError(f"{path}: {problems[0]} supported")
    return None if problems else normalizes


def text_notes(folder: Path, vocabulary: Vocabulary) -> list[str]:
    """Returns remarks on what the folder does to text and this project does not."""
    notes = []
    if _read(folder / TOKENIZER_FILE).get("do_lower_case") is True:
        notes.append("do_lower_case=true is ignored; transcripts keep the case of the tokens")
    notes += case_notes(vocabulary)
    if (folder / "language_model").is_dir():
        notes.append("language_model/ is not converted; decode with config.decode.lm")
    return notes


def case_notes(vocabulary: Vocabulary) -> list[str]:
    """Returns a remark on the style of transcripts that the tokens ask for, where it is not the usual upper case."""
    if vocabulary.separator:
        return ["the tokens are phones: give transcripts as phones, with --config.data.text_normalization=none"]
    special = set(vocabulary.special.values())
    written = (token for token in vocabulary.ids if token not in special and not _MARKUP.fullmatch(token))
    characters = "".join(written)
    if not any(map(str.islower, characters)):
        return []
    if any(map(str.isupper, characters)) or any(mark in characters for mark in ".?!"):
        return ["the tokens have case or punctuation: --config.data.text_normalization=none keeps both"]
    return ["the tokens are in lower case: train with --config.data.text_normalization=unicode"]


def preprocessor_fields(config: Wav2Vec2Config) -> dict[str, Any]:
    """Returns the content of preprocessor_config.json for our preprocessing."""
    if config.front_end == "log_mel":
        return {
            "feature_extractor_type": _MEL_EXTRACTOR,
            "processor_class": "Wav2Vec2BertProcessor",
            **_MEL_FIELDS,
            "padding_side": "right",
            "padding_value": 0.0,
            "return_attention_mask": True,
        }
    return {
        "feature_extractor_type": _EXTRACTOR,
        "processor_class": "Wav2Vec2Processor",  # AutoProcessor does not find it by every model_type
        "do_normalize": config.normalize_waveform,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        # Models with group norm were trained without a mask, and group norm in transformers ignores it.
        "return_attention_mask": config.feature_norm == "layer",
        "sampling_rate": SAMPLE_RATE,
    }


def tokenizer_fields(vocabulary: Vocabulary) -> dict[str, Any]:
    """Returns the content of tokenizer_config.json for a vocabulary."""
    if vocabulary.separator:
        more = {"tokenizer_class": PHONE_TOKENIZER, SEPARATOR: vocabulary.separator, "do_phonemize": False}
        return {**more, **vocabulary.special}
    fields = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "do_lower_case": False, **vocabulary.special}
    return fields | ({PIECES_FIELD: PIECES_FILE} if vocabulary.pieces else {})


def write_vocabulary(folder: Path, vocabulary: Vocabulary) -> None:
    """Writes vocab.json and the files that lie beside it; not atomically."""
    write_json(folder / VOCAB_FILE, vocabulary.ids)
    write_json(folder / TOKENIZER_FILE, tokenizer_fields(vocabulary))
    if vocabulary.pieces:
        (folder / PIECES_FILE).write_bytes(vocabulary.pieces)


def special_tokens_map(vocabulary: Vocabulary) -> dict[str, str]:
    """Returns the content of special_tokens_map.json, where the word delimiter is not a special token."""
    return {role: token for role, token in vocabulary.special.items() if role != WORD_DELIMITER}


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON; not atomically."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _read(path: Path) -> dict[str, Any]:
    """Returns the object in a file, {} if there is no file."""
    if not path.is_file():
        return {}
    try:
        return read_object(path)
    except MalformedFileError as error:
        raise ValueError(f"{error}; fetch it again or remove it") from error
