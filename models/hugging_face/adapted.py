"""Writes what a run trained beside frozen weights to a folder, and puts it into the weights of the base model again."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import numpy as np

from common import json_files
from common.weight_names import hub_repository
from models.hugging_face import files, peft
from models.hugging_face import names as hf_names
from models.hugging_face.matching import Report
from models.hugging_face.native import ValueOf, read_native
from models.weights.cache import temporary_folder


def to_peft(*, input: str | os.PathLike[str], output: str | os.PathLike[str], model_type: str = "") -> Report:
    """Writes what a run trained beside frozen weights, LoRA or bottleneck adapters with the head, to a folder.

    Args:
        input: Workdir of a run with LoRA or bottleneck adapters.
        output: Folder to write: adapter_config.json, adapter_model.safetensors, and the files of the vocabulary.
        model_type: Type of the base model in transformers; "" is what it came as, else the first that can have this
            architecture.

    Returns:
        The written tensors, as `loaded`.

    Raises:
        FileNotFoundError: If the input lacks its config or its weights.
        ValueError: If all of its weights were trained.
    """
    from models.wav2vec2 import pretrained  # imports TensorFlow, so not before flags are checked

    folder, target = Path(input), Path(output)
    if not pretrained.read_config(folder).is_adapted:
        raise ValueError(
            f"{folder}: neither LoRA nor bottleneck adapters were trained, so there is nothing to save without the "
            "other weights; leave out --to_peft"
        )
    model = read_native(folder)
    table = [*hf_names.name_table(model.config), *hf_names.adaptation_table(model.config)]
    report = Report(model.config)
    with temporary_folder(target) as temporary:
        report.loaded |= peft.write(
            temporary,
            config=model.config,
            tensors=model.tensors_of(table),
            model_type=model_type or model.model_type,
            base_name=_base_name(folder),
        )
        if model.vocabulary is not None:
            files.write_vocabulary(temporary, model.vocabulary)
        for path in temporary.iterdir():
            os.replace(path, target / path.name)
    return report


def _base_name(folder: Path) -> str:
    """Returns the weights that a run started from, as the Hub names them if they are from there; "" if unknown."""
    model = json_files.read_object(folder / "config.json").get("model")
    init = model.get("init") if isinstance(model, dict) else ""
    return (hub_repository(init) or init) if isinstance(init, str) else ""


def with_adapter(adapter: peft.Adapter, report: Report, value_of: ValueOf) -> ValueOf:
    """Returns `value_of` with an adapter in its values, after a check that the adapter is for them; changes the report.

    Args:
        adapter: The adapter.
        report: Outcome of the conversion, whose architecture gets bottleneck adapters if the adapter has them.
        value_of: Returns the value of one of our variables; None for a new random one.

    Raises:
        ValueError: If the adapter is for other weights.
    """
    table = hf_names.name_table(report.config)
    values = {entry.ours: value_of(entry) for entry in table}
    # A head of the adapter replaces the base's; a fresh one has no value to compare.
    base = {
        name: tensor
        for entry in table
        if (value := values[entry.ours]) is not None
        for name, tensor in entry.split(value).items()
    }
    report.config = dataclasses.replace(report.config, bottleneck_size=adapter.bottleneck_size)
    trained = report.config if adapter.bottleneck_size else dataclasses.replace(report.config, lora_rank=1)
    adapter.check_base(report.config, peft.digest_of(trained, base) if adapter.base_digest else "")
    num_parameters = sum(tensor.size for tensor in adapter.values.values())
    num_parameters += sum(a.size + b.size for a, b in adapter.updates.values())
    report.understood.append(f" adapter: {num_parameters:,} parameters of {adapter.folder}")
    for name in [name for name in report.fresh if name in adapter.values]:
        report.loaded[name] = report.fresh.pop(name)

    def value_with_adapter(entry: hf_names.Entry) -> np.ndarray | None:
        found = [base.get(name) for name in entry.theirs]
        if found[0] is None and not any(name in adapter.values for name in entry.theirs):
            return None
        value = entry.join([adapter.apply(name, tensor) for name, tensor in zip(entry.theirs, found, strict=True)])
        if value.shape != entry.shape:
            raise ValueError(
                f"{adapter.folder}: {entry.theirs[0]} has {list(value.shape)}, and the vocabulary needs "
                f"{list(entry.shape)}; put the vocab.json that it was trained with beside it"
            )
        return value

    return value_with_adapter
