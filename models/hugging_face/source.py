"""Opens a published model for the converter, in the terms of transformers whatever program wrote it."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.weight_names import repository_hint
from models.hugging_face import config as hf_config
from models.hugging_face import files, languages
from models.wav2vec2.config import Wav2Vec2Config
from models.weights.stored_tensor import StoredTensor
from models.weights.tensor_files import open_tensors


@dataclasses.dataclass(frozen=True)
class Source:
    """A model to convert.

    Attributes:
        path: Folder or file, for messages.
        config: Its architecture.
        model_type: Its type in transformers.
        tensors: Name in transformers, with or without the backbone's prefix -> tensor.
        preprocessing: A line on what it expects of recordings.
        read_vocabulary: Returns the tokens of a head of this many rows, or of a new head for 0; None if they are
            unknown. Raises ValueError if they do not fit.
        text_notes: Returns remarks on the text that a vocabulary writes.
        unused: Patterns of further tensors to drop.
        language: Language of its head where it has several; "" otherwise.
    """

    path: Path
    config: Wav2Vec2Config
    model_type: str
    tensors: Mapping[str, StoredTensor]
    preprocessing: str
    read_vocabulary: Callable[[int], files.Vocabulary | None]
    text_notes: Callable[[files.Vocabulary], list[str]]
    unused: tuple[str, ...] = ()
    language: str = ""


def open_folder(folder: Path, stack: contextlib.ExitStack, *, target_lang: str = "", has_vocab: bool = False) -> Source:
    """Opens a Hugging Face folder.

    Args:
        folder: The folder.
        stack: Closes the opened files.
        target_lang: Language whose adapter and head are read, see `models.hugging_face.languages`.
        has_vocab: Whether another vocabulary takes the place of the folder's.

    Raises:
        FileNotFoundError: If config.json or the weights are absent.
        ValueError: If the architecture is not supported, or a file is damaged.
    """
    if not folder.is_dir() and (hint := repository_hint(str(folder))):
        raise FileNotFoundError(f"{folder}: no such folder{hint}")
    config, fields = hf_config.read_hf_config(folder / "config.json")
    normalizes, preprocessing = files.read_preprocessing(folder, config.front_end)
    language = languages.choose_language(folder, target_lang, config, has_vocab=has_vocab)
    tensors = languages.open_language(open_tensors(folder, stack), folder, target_lang, stack)
    config = languages.fit_head(config, tensors)

    def read_vocabulary(num_rows: int) -> files.Vocabulary | None:
        return files.folder_vocabulary(folder, num_rows=num_rows, config=fields, target_lang=language)

    def text_notes(vocabulary: files.Vocabulary) -> list[str]:
        return files.text_notes(folder, vocabulary)

    return Source(
        path=folder,
        config=dataclasses.replace(config, normalize_waveform=normalizes),
        model_type=model_type_of(fields),
        tensors=tensors,
        preprocessing=preprocessing,
        read_vocabulary=read_vocabulary,
        text_notes=text_notes,
        language=language,
    )


def model_type_of(fields: Mapping[str, Any]) -> str:
    """Returns the type of a config that `models.hugging_face.config.from_hf` has accepted."""
    return str(fields["model_type"])
