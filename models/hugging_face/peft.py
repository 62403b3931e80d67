"""Reads and writes the folder of an adapter: LoRA as PEFT has it, or bottleneck adapters, without the frozen weights.

adapter_config.json says what was trained, adapter_model.safetensors has the numbers. PEFT loads LoRA's with
`PeftModel.from_pretrained(base_model, folder)`. Bottleneck adapters lie in the same two files and load here alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.json_files import MalformedFileError, describe, field, optional_field, read_object
from models.hugging_face import names as hf_names
from models.hugging_face.files import VOCAB_FILE, write_json
from models.wav2vec2.config import Wav2Vec2Config
from models.weights.tensor_files import open_safetensors, save_tensors

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_LORA, _BOTTLENECK = "LORA", "BOTTLENECK"
_A, _B = ".lora_A.weight", ".lora_B.weight"
_DIGEST = "base_digest"
_HEAD_MODULE = "lm_head"
# Fields of PEFT's LoraConfig that change what an update computes, with the values that leave it as it is here.
_PLAIN: dict[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "use_dora": (False,),
    "fan_in_fan_out": (False,),
    "lora_bias": (False,),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
    "layer_replication": (None,),
    "trainable_token_indices": (None,),
    "target_parameters": (None, []),
    "use_qalora": (False,),
    "use_bdlora": (None, False),
    # The others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) begin by changing the base's weights, which are not saved.
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal", "eva"),
}


@dataclasses.dataclass(frozen=True)
class Adapter:
    """Holds LoRA's updates or bottleneck adapters, with the head that was trained beside them.

    Attributes:
        folder: Where it was read.
        scale: Factor of LoRA's updates.
        bottleneck_size: Inner width of bottleneck adapters; 0 for LoRA.
        base_name: The base model that it names, "" if none.
        base_digest: Digest of the frozen weights, from `digest_of`; "" if unknown.
        updates: Name of a kernel in the table -> LoRA's A [rank, in] and B [out, rank], of a convolution [rank, in, K]
            and [out, rank, 1].
        values: Name in the table -> tensor that replaces the base's, or that the base lacks.
    """

    folder: Path
    scale: float
    bottleneck_size: int
    base_name: str
    base_digest: str
    updates: Mapping[str, tuple[np.ndarray, np.ndarray]]
    values: Mapping[str, np.ndarray]

    @property
    def vocab(self) -> Path | None:
        """The vocabulary of its head, None if it has no head or no vocabulary lies beside it."""
        path = self.folder / VOCAB_FILE
        return path if any(name in self.values for name in hf_names.HEAD) and path.is_file() else None

    def apply(self, name: str, tensor: np.ndarray | None) -> np.ndarray:
        """Returns a tensor of the base with the adapter in it.

        Args:
            name: Name in the table.
            tensor: The base's value; None if the base lacks it.

        Raises:
            ValueError: The adapter does not fit the base.
        """
        if name in self.values:
            found = self.values[name]
            if tensor is not None and tensor.shape != found.shape and name not in hf_names.HEAD:
                raise ValueError(self._misfit(name, found.shape, tensor.shape))
            return found
        if tensor is None:
            raise ValueError(f"{self.folder / WEIGHTS_FILE}: has no {name}; fetch it again")
        if name not in self.updates:
            return tensor
        a, b = self.updates[name]
        if tensor.shape != (wanted := (b.shape[0], *a.shape[1:])):
            raise ValueError(self._misfit(name, wanted, tensor.shape))
        # In float64 and rounded once, as `models.wav2vec2.layers.Projection.merge` does.
        update = self.scale * (a.reshape(len(a), -1).T.astype(np.float64) @ b.reshape(len(b), -1).T.astype(np.float64))
        return (tensor.astype(np.float64) + update.T.reshape(wanted)).astype(np.float32)

    def _misfit(self, name: str, found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
        base = f" ({self.base_name})" if self.base_name else ""
        return (
            f"{self.folder}: {name} is for {list(found)}, and the base has {list(wanted)}; give --input the base "
            f"model that it was trained on{base}"
        )

    def check_base(self, config: Wav2Vec2Config, digest: str) -> None:
        """Checks that the adapter is for these frozen weights and reaches all that it holds.

        Args:
            config: Architecture of the base, with the adapter's bottleneck_size.
            digest: Digest of the base's weights, from `digest_of`.

        Raises:
            ValueError: It is for other weights, or another architecture.
        """
        table = [*hf_names.name_table(config), *hf_names.adaptation_table(config)]
        known = {name for entry in table for name in entry.theirs}
        base = f", {self.base_name}" if self.base_name else ""
        if unknown := sorted({*self.updates, *self.values} - known):
            raise ValueError(
                f"{self.folder / WEIGHTS_FILE}: {unknown[0]} has no place in this model; give --input the base model "
                f"that it was trained on{base}"
            )
        if self.base_digest and self.base_digest != digest:
            raise ValueError(
                f"{self.folder}: was trained on other frozen weights than these; give --input the base model that it "
                f"was trained on{base}"
            )


def digest_of(config: Wav2Vec2Config, tensors: Mapping[str, np.ndarray]) -> str:
    """Returns a digest of the weights that stay frozen under an adaptation.

    The mask embedding is left out: files that lack it get random values, and only training reads it.

    Args:
        config: Architecture, adapted.
        tensors: Name in the table -> float32 tensor; more than the frozen ones may be in it.
    """
    trained = {name for entry in hf_names.trained_table(config) for name in entry.theirs}
    digest = hashlib.sha256()
    for entry in hf_names.name_table(config):
        for name in entry.theirs:
            if name in tensors and name not in trained and name != hf_names.MASK_EMBEDDING:
                digest.update(f"{name}\0".encode())
                digest.update(np.ascontiguousarray(tensors[name], dtype="<f4").tobytes())
    return digest.hexdigest()


def write(
    folder: Path, *, config: Wav2Vec2Config, tensors: Mapping[str, np.ndarray], model_type: str, base_name: str
) -> dict[str, int]:
    """Writes the two files of an adapter; not atomically.

    Args:
        folder: Folder to write to.
        config: Architecture, adapted.
        tensors: Name in the table -> tensor of the whole model.
        model_type: Model type in transformers, which decides the prefix of the names.
        base_name: Name or path of the base model, "" if unknown.

    Returns:
        Name in the table -> number of parameters, of what was written.
    """
    names = [name for entry in hf_names.trained_table(config) for name in entry.theirs]
    fields: dict[str, Any] = {
        "peft_type": _LORA if config.lora_rank else _BOTTLENECK,
        "base_model_name_or_path": base_name or None,
        "task_type": None,
        "inference_mode": True,
        "modules_to_save": [_HEAD_MODULE],
    }
    if config.lora_rank:
        fields |= {
            "r": config.lora_rank,
            "lora_alpha": config.lora_alpha,
            "lora_dropout": config.lora_dropout,
            "target_modules": _target_modules(config),
            "bias": "none",
            "fan_in_fan_out": False,
            "init_lora_weights": True,
            "use_rslora": False,
            "use_dora": False,
        }
    else:
        fields["bottleneck_size"] = config.bottleneck_size
    save_tensors(
        {_PREFIX + hf_names.full_name(name, model_type=model_type): tensors[name] for name in names},
        folder,
        name=WEIGHTS_FILE,
        metadata={_DIGEST: digest_of(config, tensors)},
    )
    write_json(folder / CONFIG_FILE, fields)
    return {name: tensors[name].size for name in names}


def _target_modules(config: Wav2Vec2Config) -> list[str] | str:
    """Returns what tells PEFT the updated modules: the ends of their names, or a regular expression of all of them."""
    if config.num_length_adapters and config.length_adapter == "attention":
        # The layers behind the encoder have modules of the same names.
        names = "|".join(re.escape(name) for name in config.lora_targets)
        return rf".*\bencoder\.layers\.\d+\.(self_attn\.)?({names})"
    return list(config.lora_targets)


def read(folder: Path) -> Adapter:
    """Reads the folder of an adapter, written here or by PEFT.

    Raises:
        FileNotFoundError: One of the two files is absent.
        ValueError: One is damaged, or says what is not computed here.
    """
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"{folder / name}: no such file; give --peft a folder of --to_peft, or one that PEFT saved with "
                "safetensors"
            )
    path = os.fspath(folder / CONFIG_FILE)
    try:
        fields = read_object(path)
        kind = field(fields, "peft_type", str, path)
        if kind not in (_LORA, _BOTTLENECK):
            raise MalformedFileError(f"{path}: peft_type is {describe(kind)}; supported is {_LORA}")
        scale = _read_scale(fields, path) if kind == _LORA else 0.0
        width = field(fields, "bottleneck_size", int, path) if kind == _BOTTLENECK else 0
        base_name = fields.get("base_model_name_or_path") or ""
    except MalformedFileError as error:
        raise ValueError(str(error)) from error
    updates, values, metadata = _read_tensors(folder)
    for name, (a, _) in updates.items():
        if len(a) != fields.get("r"):
            raise ValueError(f"{path}: r is {fields.get('r')}, but {name} has rank {len(a)}; fetch the folder again")
    return Adapter(folder, scale, width, str(base_name)[:200], metadata.get(_DIGEST, ""), updates, values)


def _read_scale(fields: Mapping[str, Any], path: str) -> float:
    """Returns the factor of LoRA's updates; refuses fields with which an update would compute something else."""
    for name, plain in _PLAIN.items():
        if name in fields and fields[name] not in plain:
            raise MalformedFileError(
                f"{path}: {name} is {describe(fields[name])}, which is not supported; merge it with PEFT's "
                "merge_and_unload and convert the whole model"
            )
    rank, alpha = field(fields, "r", int, path), field(fields, "lora_alpha", float, path)
    if rank < 1:
        raise MalformedFileError(f"{path}: r is {rank}, wanted 1 or more")
    return alpha / rank**0.5 if optional_field(fields, "use_rslora", bool, path, False) else alpha / rank


def _read_tensors(
    folder: Path,
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, np.ndarray], dict[str, str]]:
    """Returns LoRA's pairs of factors and all other tensors, by their names in the table, and the texts in the header.

    Raises:
        ValueError: The file is damaged, or a factor has no partner of its rank.
    """
    path, metadata = folder / WEIGHTS_FILE, dict[str, str]()
    with contextlib.ExitStack() as stack:
        stored = open_safetensors(path, stack, metadata=metadata)
        values = {hf_names.canonical_name(name.removeprefix(_PREFIX)): tensor.read() for name, tensor in stored.items()}
    updates = {}
    for name in sorted(values):
        if name.endswith((_A, _B)):
            module = name.removesuffix(_A).removesuffix(_B)
            a, b = values.get(module + _A), values.get(module + _B)
            # Those of a convolution are convolutions, the second one of kernel width 1.
            if a is None or b is None or a.ndim not in (2, 3) or b.shape[1:] != (len(a), 1)[: a.ndim - 1]:
                raise ValueError(f"{path}: {name} has no partner of the same rank; fetch the folder again")
            updates[f"{module}.weight"] = (a, b)
    others = {name: value for name, value in values.items() if not name.endswith((_A, _B))}
    return updates, others, metadata
