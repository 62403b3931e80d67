"""Reads and writes the languages of an MMS checkpoint: each has an adapter file and a part of vocab.json."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.json_files import MalformedFileError, optional_field, read_object
from common.nearest import name_nearest, nearest_names
from common.special_tokens import TOKENIZER_FILE
from models.hugging_face import files
from models.hugging_face import names as hf_names
from models.hugging_face.native import NativeModel
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.vocab_file import holds_languages, read_language_ids
from models.weights.cache import temporary_folder
from models.weights.stored_tensor import StoredTensor
from models.weights.tensor_files import open_tensor_file, save_tensors

_ADAPTER = "adapter.{}.safetensors"
_PICKLE = "adapter.{}.bin"
_CODE = re.compile(r"[A-Za-z0-9][\w-]{0,60}")
_MAX_SHOWN = 12


def check_language(target_lang: str) -> str:
    """Returns a language code that can be part of a file name.

    Raises:
        ValueError: If it is none.
    """
    if not _CODE.fullmatch(target_lang):
        raise ValueError(
            f"target_lang={target_lang[:60]!r} is no language code; give one such as fra or azj-script_latin"
        )
    return target_lang


def choose_language(folder: Path, target_lang: str, config: Wav2Vec2Config, *, has_vocab: bool) -> str:
    """Returns the language to read from a Hugging Face folder; "" for a folder without languages.

    Args:
        folder: Hugging Face folder.
        target_lang: Code of a language; "" for the one that the folder's tokenizer has.
        config: Architecture of config.json.
        has_vocab: Whether another vocabulary takes the place of the folder's.

    Raises:
        ValueError: If the folder has no such language, or has several and none is chosen.
    """
    if target_lang and not config.attention_adapter_size:
        raise ValueError(
            f"target_lang={check_language(target_lang)}, but config.json has no attention adapters (adapter_attn_dim); "
            "leave it out"
        )
    vocab, own = folder / files.VOCAB_FILE, _own_language(folder)
    if has_vocab or not (vocab.is_file() and holds_languages(vocab)):
        return target_lang and check_language(target_lang)
    known = read_language_ids(vocab)
    chosen = target_lang or own
    if chosen not in known:
        what = f"it has no language {chosen!r}" if chosen else "it has several languages and none is chosen"
        raise ValueError(f"{vocab}: {what}; set --target_lang{_name_nearest(chosen, list(known))}")
    return chosen


def open_language(
    tensors: Mapping[str, StoredTensor], folder: Path, target_lang: str, stack: contextlib.ExitStack
) -> dict[str, StoredTensor]:
    """Returns the tensors of a checkpoint with adapter and head of one language.

    Args:
        tensors: Those of the checkpoint by name in the file; they hold the adapter of the tokenizer's language.
        folder: Hugging Face folder.
        target_lang: Code of a language; "" changes nothing.
        stack: Closes the opened file.

    Raises:
        FileNotFoundError: If there is no adapter of the language.
        ValueError: If its file is damaged or holds anything else.
    """
    if not target_lang:
        return dict(tensors)
    paths = [folder / name.format(target_lang) for name in (_ADAPTER, _PICKLE)]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        if target_lang == _own_language(folder):
            return dict(tensors)
        raise FileNotFoundError(f"{paths[0]}: no such file{_name_nearest(target_lang, list_adapters(folder))}")
    found = open_tensor_file(path, stack)
    canonical = {hf_names.canonical_name(name): name for name in found}
    if others := [name for name in canonical if not hf_names.is_of_language(name)]:
        raise ValueError(f"{path}: {others[0]} is part of neither adapter nor head; fetch the file again")
    rest = {name: tensor for name, tensor in tensors.items() if hf_names.canonical_name(name) not in canonical}
    return {**rest, **found}


def list_adapters(folder: Path) -> list[str]:
    """Returns the languages that have an adapter file in a folder."""
    prefix, _, suffix = _ADAPTER.partition("{}")
    names = (path.name for path in sorted(folder.glob(_ADAPTER.format("*"))))
    return [name.removeprefix(prefix).removesuffix(suffix) for name in names]


def _name_nearest(language: str, known: Sequence[str]) -> str:
    """Returns the end of a message about an unknown language: those like it, else the first ones that there are."""
    return name_nearest(language, nearest_names(language, known) or known[:_MAX_SHOWN])


def fit_head(config: Wav2Vec2Config, tensors: Mapping[str, StoredTensor]) -> Wav2Vec2Config:
    """Returns an architecture with adapters whose head is as wide as that of the chosen language."""
    bias = next((name for name in tensors if hf_names.canonical_name(name) == hf_names.HEAD[1]), None)
    if not config.attention_adapter_size or bias is None or len(tensors[bias].shape) != 1:
        return config
    return dataclasses.replace(config, vocab_size=tensors[bias].shape[0])


def save_adapter(model: NativeModel, output: Path, target_lang: str) -> dict[str, int]:
    """Writes adapter.LANG.safetensors, which `load_adapter` of transformers reads, and the language into vocab.json.

    Args:
        model: Model with attention adapters; vocab.json stays as it is without a vocabulary.
        output: Folder to write, such as a copy of a published checkpoint.
        target_lang: Code of the language.

    Returns:
        Written tensor -> number of parameters.

    Raises:
        ValueError: If the model has no adapters, or vocab.json holds one language alone.
    """
    if not model.config.attention_adapter_size:
        raise ValueError("the model has no attention adapters (attention_adapter_size is 0); use --to_hf")
    vocab = output / files.VOCAB_FILE
    languages: dict[str, Any] = {}
    if model.vocabulary is not None and vocab.is_file():
        if not holds_languages(vocab):
            raise ValueError(f"{vocab}: holds the tokens of one language; give another --output, or remove it")
        languages = read_language_ids(vocab)
    table = [entry for entry in hf_names.name_table(model.config) if hf_names.is_of_language(entry.theirs[0])]
    tensors = {
        hf_names.full_name(name, model_type="wav2vec2"): tensor for name, tensor in model.tensors_of(table).items()
    }
    with temporary_folder(output) as temporary:
        save_tensors(tensors, temporary, name=_ADAPTER.format(target_lang))
        if model.vocabulary is not None:
            files.write_json(temporary / files.VOCAB_FILE, {**languages, target_lang: model.vocabulary.ids})
        for path in temporary.iterdir():
            os.replace(path, output / path.name)
    return {name: tensor.size for name, tensor in tensors.items()}


def _own_language(folder: Path) -> str:
    """Returns the language whose adapter and head the checkpoint itself holds, by its tokenizer; "" if unknown."""
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        return ""
    try:
        return optional_field(read_object(path), "target_lang", str, os.fspath(path), "") or ""
    except MalformedFileError:  # null in most folders, and another reader refuses a damaged file
        return ""
