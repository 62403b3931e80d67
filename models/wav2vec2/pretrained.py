"""Reads and writes folders that hold a model: those written by `save`, and workdirs of training runs."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import tensorflow as tf

from common import storage
from common.json_files import MalformedFileError, field, optional_field
from common.sentence_pieces import PIECES_FILE
from common.special_tokens import TOKENIZER_FILE
from common.workdir_layout import CONFIG_FILE, VOCAB_FILE, WEIGHTS, find_checkpoint, read_object
from common.workdir_layout import read_config as read_config_fields
from models.wav2vec2.config import Wav2Vec2Config, resolve
from models.wav2vec2.vocab_file import read_vocab


def read_config(folder: str | os.PathLike[str]) -> Wav2Vec2Config:
    """Reads the architecture of a model.

    Args:
        folder: Folder written by `save`, workdir of a training run, or the config.json of either.

    Raises:
        FileNotFoundError: If there is no config.json.
        ValueError: If it was written by another program, or by a run whose network is a SavedModel.
    """
    path = os.fspath(folder) if storage.is_file(folder) else storage.join(folder, CONFIG_FILE)
    fields = _read_fields(path)
    run = fields.get("model")
    if not isinstance(run, dict):
        try:
            return Wav2Vec2Config.from_dict(fields)
        except (TypeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error
    if run.get("source") == "hub":
        raise ValueError(
            f"{path}: the network of this run is the SavedModel {run.get('hub_handle')}, not one of ours; "
            "export it with the run's weights with python -m models.hub_export"
        )
    try:
        known = {field.name for field in dataclasses.fields(Wav2Vec2Config)}
        overrides = {name: value for name, value in run.items() if name in known}
        vocab = storage.join(storage.parent(path), VOCAB_FILE)
        num_tokens = len(read_object(vocab) if storage.is_remote(vocab) else read_vocab(vocab))
        architecture = optional_field(run, "architecture", dict, "model", {})
        return resolve(field(run, "preset", str, "model"), architecture, **{**overrides, "vocab_size": num_tokens})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def saved_model_of_run(folder: str | os.PathLike[str]) -> str | None:
    """Returns the handle of the SavedModel that a run with model.source=hub started from; None for other folders.

    Raises:
        FileNotFoundError: If there is no config.json.
        ValueError: If it is not JSON, or belongs to a Hugging Face model.
    """
    run = _read_fields(storage.join(folder, CONFIG_FILE)).get("model")
    return str(run.get("hub_handle", "")) if isinstance(run, dict) and run.get("source") == "hub" else None


def is_hugging_face(path: str | os.PathLike[str]) -> bool:
    """Returns whether a config.json belongs to a Hugging Face model; False if it is not JSON."""
    try:
        return "model_type" in read_object(path)
    except MalformedFileError:
        return False


def _read_fields(path: str) -> dict[str, Any]:
    if not storage.is_file(path):
        raise FileNotFoundError(
            f"{path}: no such file; give a folder written by python -m models.convert, or the workdir of a run"
        )
    try:
        fields = read_config_fields(path)
    except MalformedFileError as error:
        raise ValueError(f"{error}; convert the model again") from error
    if "model_type" in fields:
        raise ValueError(
            f"{path}: belongs to a Hugging Face model; run python -m models.convert "
            f"--input={storage.parent(path)} --output=DIR first and give DIR"
        )
    return fields


def save(
    model: tf.Module, config: Wav2Vec2Config, folder: str | os.PathLike[str], *, vocab: str | os.PathLike[str] = ""
) -> None:
    """Writes a model such that a reader finds the whole old one, none, or the whole new one.

    Args:
        model: Model to save, as the attribute `model` of the checkpoint like a training run's.
        config: Architecture of the model.
        folder: Folder to write, made if absent; unrelated files in it stay.
        vocab: vocab.json to copy beside the weights, with the tokenizer_config.json and the SentencePiece model beside
            it if there are any; "" for none, which removes an older one.

    Raises:
        OSError: If the folder cannot be written.
    """
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        try:
            tf.train.Checkpoint(model=model).write(os.fspath(temporary / WEIGHTS))
        except tf.errors.OpError as error:
            raise write_error(target, error) from error
        (temporary / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        if vocab:
            shutil.copyfile(vocab, temporary / VOCAB_FILE)
            for name in (TOKENIZER_FILE, PIECES_FILE):
                if (beside := Path(vocab).parent / name).is_file():
                    shutil.copyfile(beside, temporary / name)
        index = f"{WEIGHTS}.index"
        # A checkpoint exists while its index does: remove the index first and put the new one in place last.
        for stale in (index, VOCAB_FILE, TOKENIZER_FILE, PIECES_FILE):
            (target / stale).unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == index):
            os.replace(path, target / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_error(target: Path, error: tf.errors.OpError) -> OSError:
    """Returns the error of one line for a folder that TensorFlow cannot write, such as one on a full disk."""
    reason = error.message.rpartition("; ")[2].partition(" [Op:")[0]
    return OSError(f"{target}: cannot be written ({reason}); make room, or choose another folder")


def restore(model: tf.Module, folder: str | os.PathLike[str], *, checkpoint: str | os.PathLike[str] = "") -> None:
    """Assigns the saved value to every variable of `model`; call it inside `strategy.scope()`.

    Args:
        model: Model built with the folder's config.
        folder: Folder written by `save`, or the workdir of a training run.
        checkpoint: Checkpoint of the run (a path without .index) or a folder of checkpoints to use instead of the best
            or newest one of the workdir.

    Raises:
        FileNotFoundError: If the folder holds no weights.
        ValueError: If they are damaged, or do not match this model exactly.
    """
    path = storage.join(folder, WEIGHTS)
    is_run = bool(checkpoint) or not storage.is_file(f"{path}.index")
    if is_run:
        path = find_run_checkpoint(folder, checkpoint)
    status = None
    try:
        status = tf.train.Checkpoint(model=model).read(path)
        if is_run:
            # The checkpoint of a run holds the optimizer as well.
            status.assert_existing_objects_matched().expect_partial()
        else:
            status.assert_consumed()
    # TensorFlow raises IndexError for a truncated data file.
    except (tf.errors.OpError, ValueError, AssertionError, IndexError, RuntimeError) as error:
        if status is not None:
            status.expect_partial()  # without this TensorFlow adds a page of warnings
        reason = str(error).strip().splitlines()[0]
        remedy = "give another checkpoint" if is_run else "convert it again"
        raise ValueError(f"{path}: damaged, or of another model ({reason}); {remedy}") from error


def find_run_checkpoint(folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] = "") -> str:
    """Returns the path (without .index) of the weights that `restore` reads from a workdir.

    Raises:
        FileNotFoundError: If it has no weights.
        MalformedFileError: If the workdir's run.json is damaged.
    """
    if found := find_checkpoint(checkpoint or folder):
        return found
    if checkpoint:
        raise FileNotFoundError(f"{checkpoint}: no checkpoint; give WORKDIR/best or WORKDIR/checkpoints")
    raise FileNotFoundError(
        f"{storage.join(folder, WEIGHTS)}.index: no such file; give a folder written by python -m models.convert, or "
        "the workdir of a run"
    )
