"""A folder that holds a model: one that `save` has written, or the workdir of a training run."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import storage
from common.json_files import MalformedFileError, field, optional_field
from common.special_tokens import TOKENIZER_FILE
from common.workdir_layout import CONFIG_FILE, VOCAB_FILE, WEIGHTS, find_checkpoint, read_object
from common.workdir_layout import read_config as read_config_fields
from models.wav2vec2.config import Wav2Vec2Config, resolve
from models.wav2vec2.vocab_file import read_vocab

if TYPE_CHECKING:  # seconds that who reads a vocabulary, such as python -m models.convert, does not wait for
    import tensorflow as tf


def read_config(folder: str | os.PathLike[str]) -> Wav2Vec2Config:
    """Reads the architecture of a folder that `save` or a training run has written.

    Args:
        folder: Or its config.json.

    Raises:
        FileNotFoundError: If there is no config.json.
        ValueError: If it is not one of ours, or that of a run whose network is a SavedModel.
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
            "python -m models.hub_export writes it with the run's weights"
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
    """Returns the handle of the SavedModel that a run with model.source=hub has trained; None for anything else.

    Raises:
        FileNotFoundError: If there is no config.json.
        ValueError: If it is not JSON, or of Hugging Face.
    """
    run = _read_fields(storage.join(folder, CONFIG_FILE)).get("model")
    return str(run.get("hub_handle", "")) if isinstance(run, dict) and run.get("source") == "hub" else None


def is_hugging_face(path: str | os.PathLike[str]) -> bool:
    """Returns whether a config.json is that of a Hugging Face model; one that is no JSON is not."""
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
        raise ValueError(f"{error}, so not a config of ours; convert the model again") from error
    if "model_type" in fields:
        raise ValueError(
            f"{path}: not a config of ours but of Hugging Face; run python -m models.convert "
            f"--input={storage.parent(path)} --output=DIR first and give DIR"
        )
    return fields


def save(
    model: tf.Module, config: Wav2Vec2Config, folder: str | os.PathLike[str], *, vocab: str | os.PathLike[str] = ""
) -> None:
    """Writes a model, so that a reader finds all of the old one, nothing, or all of the new one.

    Args:
        model: Saved as the attribute `model` of the checkpoint, as a training run saves it.
        config: Its architecture.
        folder: Made if it does not exist; other files in it are left alone.
        vocab: vocab.json to copy beside the weights, and with it what names the roles of its tokens, if that lies
            there; "" for none (an older one is removed).
    """
    import tensorflow as tf

    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        tf.train.Checkpoint(model=model).write(os.fspath(temporary / WEIGHTS))
        (temporary / CONFIG_FILE).write_text(config.to_json(), encoding="utf-8")
        if vocab:
            shutil.copyfile(vocab, temporary / VOCAB_FILE)
            if (roles := Path(vocab).parent / TOKENIZER_FILE).is_file():
                shutil.copyfile(roles, temporary / TOKENIZER_FILE)
        index = f"{WEIGHTS}.index"
        # The index says which data belongs to it: gone before any other file changes, back after the last one.
        for stale in (index, VOCAB_FILE, TOKENIZER_FILE):
            (target / stale).unlink(missing_ok=True)
        for path in sorted(temporary.iterdir(), key=lambda path: path.name == index):
            os.replace(path, target / path.name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def restore(model: tf.Module, folder: str | os.PathLike[str], *, checkpoint: str | os.PathLike[str] = "") -> None:
    """Gives every variable of `model` its saved value; call in `strategy.scope()`.

    Args:
        model: Built with the folder's config.
        folder: Written by `save` or by a training run.
        checkpoint: Of a run: this one instead of its best, or else its newest: a path without .index, or a folder.

    Raises:
        FileNotFoundError: If the folder holds no weights.
        ValueError: If they are damaged, or not exactly those of this model.
    """
    import tensorflow as tf

    path = storage.join(folder, WEIGHTS)
    is_run = bool(checkpoint) or not storage.is_file(f"{path}.index")
    if is_run:
        path = find_run_checkpoint(folder, checkpoint)
    status = None
    try:
        status = tf.train.Checkpoint(model=model).read(path)
        if is_run:
            # Beside the model it holds the optimizer.
            status.assert_existing_objects_matched().expect_partial()
        else:
            status.assert_consumed()
    # IndexError is what TensorFlow raises for a data file that is cut off.
    except (tf.errors.OpError, ValueError, AssertionError, IndexError, RuntimeError) as error:
        if status is not None:
            status.expect_partial()  # or TensorFlow adds a page of warnings to the one line
        reason = str(error).strip().splitlines()[0]
        remedy = "give another checkpoint" if is_run else "convert it again"
        raise ValueError(f"{path}: damaged, or of another model ({reason}); {remedy}") from error


def find_run_checkpoint(folder: str | os.PathLike[str], checkpoint: str | os.PathLike[str] = "") -> str:
    """Returns the path (without .index) of the weights that `restore` takes from a workdir.

    Raises:
        FileNotFoundError: If there are none.
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
