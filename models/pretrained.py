"""A folder that holds a model: config.json (architecture), weights of TensorFlow, vocab.json if there is one."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

import tensorflow as tf

from models.config import Wav2Vec2Config

CONFIG_FILE = "config.json"
VOCAB_FILE = "vocab.json"
# Prefix of the checkpoint: weights.index and weights.data-00000-of-00001.
WEIGHTS = "weights"


def read_config(folder: str | os.PathLike[str]) -> Wav2Vec2Config:
    """Reads the architecture of a folder that `save` has written.

    Raises:
        FileNotFoundError: If there is no config.json.
        ValueError: If it is not one of ours.
    """
    path = Path(folder, CONFIG_FILE)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; give a folder written by python -m models.convert")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not JSON ({error}); convert the model again") from error
    if not isinstance(fields, dict) or "model_type" in fields:
        raise ValueError(f"{path}: not a config of ours but of Hugging Face; run python -m models.convert first")
    try:
        return Wav2Vec2Config.from_dict(fields)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def save(
    model: tf.Module, config: Wav2Vec2Config, folder: str | os.PathLike[str], *, vocab: str | os.PathLike[str] = ""
) -> None:
    """Writes a model, so that a reader finds all of the old one, nothing, or all of the new one.

    Args:
        model: Saved as the attribute `model` of the checkpoint, as a training run saves it.
        config: Its architecture.
        folder: Made if it does not exist; other files in it are left alone.
        vocab: vocab.json to copy beside the weights; "" for none (an older one is removed).
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        tf.train.Checkpoint(model=model).write(os.fspath(temporary / WEIGHTS))
        (temporary / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        if vocab:
            shutil.copyfile(vocab, temporary / VOCAB_FILE)
        index = f"{WEIGHTS}.index"
        # The index says which data belongs to it: gone before any other file changes, back after the last one.
        for stale in (index, VOCAB_FILE):
            (target / stale).unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == index):
            os.replace(path, target / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def restore(model: tf.Module, folder: str | os.PathLike[str]) -> None:
    """Gives every variable of `model` its saved value; call in `strategy.scope()`.

    Raises:
        FileNotFoundError: If the folder holds no weights.
        ValueError: If they are damaged, or not exactly those of this model.
    """
    path = os.path.join(folder, WEIGHTS)
    if not os.path.exists(f"{path}.index"):
        raise FileNotFoundError(f"{path}.index: no such file; give a folder written by python -m models.convert")
    status = None
    try:
        status = tf.train.Checkpoint(model=model).read(path)
        status.assert_consumed()
    # IndexError is what TensorFlow raises for a data file that is cut off.
    except (tf.errors.OpError, ValueError, AssertionError, IndexError, RuntimeError) as error:
        if status is not None:
            status.expect_partial()  # or TensorFlow adds a page of warnings to the one line
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path}: damaged, or of another model ({reason}); convert it again") from error
