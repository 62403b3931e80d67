"""Opens a checkpoint of fairseq (wav2vec 2.0, HuBERT, data2vec) or fairseq2 (omniASR), without running its pickle."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common.near_files import describe_near
from models.fairseq import names
from models.fairseq.config import read_config, read_shapes
from models.fairseq.vocabulary import find_vocabulary
from models.hugging_face import config as hf_config
from models.hugging_face.files import case_notes
from models.hugging_face.matching import canonical_names
from models.hugging_face.names import HEAD
from models.hugging_face.source import Source, model_type_of
from models.wav2vec2.config import Wav2Vec2Config, resolve
from models.weights import torch_files
from models.weights.stored_tensor import StoredTensor
from models.weights.tensor_files import open_stored
from models.weights.unpickling import TorchFileError, TorchTensor, plain

_ENDINGS = (".pt", ".pth")
# Names of the tensors of networks that have more than the encoder.
_DECODERS = ("llama_decoder.", "decoder.")


def find_checkpoint(path: Path) -> Path | None:
    """Returns the checkpoint that a path means: a file, or the only one of a folder without config.json; else None.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the folder has several.
    """
    if path.suffix in _ENDINGS and not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file{describe_near(path)}")
        return path
    if not path.is_dir() or (path / "config.json").exists():
        return None
    visible = (file for file in path.iterdir() if not file.name.startswith("."))  # ._NAME of macOS
    found = sorted(file for file in visible if file.suffix in _ENDINGS and file.is_file())
    if len(found) > 1:
        raise ValueError(f"{path}: has {len(found)} checkpoints ({found[0].name}, {found[1].name} ...); name one")
    return found[0] if found else None


def open_checkpoint(path: Path, *, preset: str = "") -> Source:
    """Opens a checkpoint.

    Args:
        path: File that `torch.save` wrote.
        preset: Architecture, as in `models.architecture.find_architecture`; "" is what the file tells.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged or of another network.
    """
    try:
        content = torch_files.load(path, inert=True)
        tensors = _model_of(content)
        fields = plain(content.get("cfg") or content.get("args"))
    except TorchFileError as error:
        raise ValueError(f"{path}: {error}; fetch it again") from error
    try:
        is_fairseq2 = names.is_fairseq2(tensors)
        stored = names.translate(open_stored(path, tensors))
        config, model_type, normalizes = _architecture(fields, stored, tensors, preset)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    what = "normalized to zero mean and unit variance" if normalizes else "as it is, not normalized"
    said = "config in the file" if isinstance(fields, Mapping) and not is_fairseq2 else "assumed by its convolutions"
    return Source(
        path=path,
        config=dataclasses.replace(config, normalize_waveform=normalizes),
        model_type=model_type,
        tensors=stored,
        preprocessing=f"16 kHz, {what} ({said})",
        read_vocabulary=lambda num_rows: find_vocabulary(path, content.get("task_state"), num_rows=num_rows),
        text_notes=case_notes,
        unused=names.UNUSED,
    )


def _model_of(content: Any) -> dict[str, TorchTensor]:
    """Returns the tensors of a checkpoint; averages and counters beside them are left out."""
    model = content.get("model", content) if isinstance(content, Mapping) else None
    found = {
        name: value
        for name, value in (model.items() if isinstance(model, Mapping) else ())
        if isinstance(name, str) and isinstance(value, TorchTensor) and value.dtype.kind not in "iub"
    }
    if not found:
        raise TorchFileError("not a checkpoint of fairseq or fairseq2, which has tensors under 'model'")
    if decoder := next((name for name in found if name.startswith(_DECODERS)), None):
        raise TorchFileError(
            f"has a decoder on top of the encoder ({decoder}), which is not supported; only wav2vec 2.0, HuBERT and "
            "their CTC models are"
        )
    return found


def _architecture(
    fields: Any, stored: Mapping[str, StoredTensor], tensors: Mapping[str, TorchTensor], preset: str
) -> tuple[Wav2Vec2Config, str, bool]:
    """Returns the architecture, the type in transformers and whether recordings are normalized."""
    shapes = {name: tensor.shape for name, tensor in stored.items()}
    canonical = canonical_names(list(stored))
    head = shapes.get(canonical.get(HEAD[0], ""), ())
    size = {"vocab_size": head[0]} if head else {}
    if preset:
        # Imports TensorFlow, so not before a wrong flag is reported.
        from models.architecture import find_architecture

        config = resolve(preset, find_architecture(preset=preset), **size)
        return config, "wav2vec2", config.normalize_waveform
    if isinstance(fields, Mapping) and not names.is_fairseq2(tensors):
        found, normalizes = read_config(fields)
    else:
        pre_norm = "encoder.layer_norm.weight" in {name.removeprefix("module.") for name in tensors}
        found, normalizes = read_shapes(shapes, is_pre_norm=pre_norm if names.is_fairseq2(tensors) else None)
    found |= size
    return hf_config.from_hf(found), model_type_of(found), normalizes
