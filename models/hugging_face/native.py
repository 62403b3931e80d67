"""Reads and writes folders of ours for the converter: the model, its vocabulary and the type that it came as."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import json_files
from models.hugging_face import config as hf_config
from models.hugging_face import files
from models.hugging_face import names as hf_names
from models.hugging_face.matching import Report
from models.hugging_face.model_types import MODEL_TYPES
from models.wav2vec2.config import Wav2Vec2Config
from models.weights.cache import temporary_folder

# Functions import TensorFlow themselves, so that a wrong flag or file is reported at once.
if TYPE_CHECKING:
    import tensorflow as tf

    from models.wav2vec2.model import Wav2Vec2ForCTC

_ORIGIN_FILE = "origin.json"

# Returns the value of one of our variables; None for a new random one.
ValueOf = Callable[[hf_names.Entry], np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class NativeModel:
    """Holds a model read from a folder of ours.

    Attributes:
        config: Its architecture.
        variables: Name without ":0" -> variable.
        vocabulary: Tokens of its head; None if the folder has none.
        origin_type: Type in transformers that it came as; "" if unknown.
    """

    config: Wav2Vec2Config
    variables: Mapping[str, tf.Variable]
    vocabulary: files.Vocabulary | None
    origin_type: str

    @property
    def model_type(self) -> str:
        """The type in transformers: that which it came as, else the first that can have this architecture."""
        return self.origin_type or hf_config.usual_type(self.config)

    def value_of(self, entry: hf_names.Entry) -> np.ndarray | None:
        """Returns the value of a variable; None if the model has no such variable."""
        return self.variables[entry.ours].numpy() if entry.ours in self.variables else None

    def tensors_of(self, table: Iterable[hf_names.Entry]) -> dict[str, np.ndarray]:
        """Returns the tensors of transformers that variables of the model make, by their names in the table."""
        tensors: dict[str, np.ndarray] = {}
        for entry in table:
            tensors |= entry.split(self.variables[entry.ours].numpy())
        return tensors


def read_native(folder: Path, *, merge: bool = False) -> NativeModel:
    """Reads a folder of ours.

    Args:
        folder: Written by `write_native` or `Wav2Vec2ForCTC.save_pretrained`, or the workdir of a run.
        merge: Whether LoRA is merged into the weights.

    Raises:
        FileNotFoundError: If it lacks its config or its weights.
        ValueError: If a file is damaged.
    """
    from models.wav2vec2.model import Wav2Vec2ForCTC

    model = Wav2Vec2ForCTC.from_pretrained(folder)
    if merge:
        model.merge_low_rank()
    vocab = folder / files.VOCAB_FILE
    return NativeModel(
        config=model.config,
        variables=_variables_of(model),
        vocabulary=files.read_vocabulary(vocab) if vocab.is_file() else None,
        origin_type=_read_origin_type(folder / _ORIGIN_FILE),
    )


def write_native(
    output: Path, *, report: Report, value_of: ValueOf, vocabulary: files.Vocabulary | None, model_type: str
) -> None:
    """Builds a model, assigns the values of its variables and writes its folder.

    Args:
        output: Folder to write.
        report: Outcome of the conversion, with the architecture.
        value_of: Returns the value of one of our variables; None for a new random one.
        vocabulary: Tokens of the head; None if they are unknown.
        model_type: Type in transformers that the model came as.
    """
    from models.wav2vec2.model import Wav2Vec2ForCTC

    model = Wav2Vec2ForCTC(config=report.config)
    variables = _variables_of(model)
    for entry in (*hf_names.name_table(report.config), *hf_names.adaptation_table(report.config)):
        value = value_of(entry)
        if value is not None:
            variables[entry.ours].assign(value)
    origin = {"model_type": model_type, "fresh": list(report.fresh), "dropped": list(report.dropped)}
    with temporary_folder(output) as temporary:
        if vocabulary is not None:
            files.write_vocabulary(temporary, vocabulary)
        files.write_json(temporary / _ORIGIN_FILE, origin)
        (output / _ORIGIN_FILE).unlink(missing_ok=True)
        model.save_pretrained(output, vocab=temporary / files.VOCAB_FILE if vocabulary is not None else "")
        os.replace(temporary / _ORIGIN_FILE, output / _ORIGIN_FILE)


def _variables_of(model: Wav2Vec2ForCTC) -> dict[str, tf.Variable]:
    return {variable.name.removesuffix(":0"): variable for variable in model.variables}


def _read_origin_type(path: Path) -> str:
    """Returns the type that a model came as; "" if the file does not exist or does not say."""
    if not path.is_file():
        return ""
    model_type = json_files.optional_field(json_files.read_object(path), "model_type", str, os.fspath(path), "")
    if model_type and model_type not in MODEL_TYPES:
        raise ValueError(f"{path}: model_type is {json_files.describe(model_type)}; remove the file to have it guessed")
    return model_type
