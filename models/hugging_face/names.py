"""Two-way table between our variables and the tensors of a Hugging Face wav2vec 2.0 or HuBERT model.

One rule covers all of them: reversing the axes of their tensor gives ours ([out, in] -> [in, out] for projections,
[out, in, K] -> [K, in, out] for convolutions). Several of their tensors that make one of ours are concatenated along
our last axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from models.wav2vec2.config import Wav2Vec2Config

MASK_EMBEDDING = "masked_spec_embed"
HEAD = ("lm_head.weight", "lm_head.bias")
# Prefix of the backbone's names in a model with a head, by model type.
BACKBONE_PREFIXES = {"wav2vec2": "wav2vec2.", "hubert": "hubert."}
# Used by pretraining only: the quantizer and the two projections of the contrastive task.
PRETRAINING_PREFIXES = ("quantizer.", "project_q.", "project_hid.")
# Heads of other tasks: classification of recordings, of frames and of speakers.
OTHER_HEADS = (
    "projector.*", "classifier.*", "layer_weights", "tdnn.*", "objective.*", "feature_extractor.weight",
    "feature_extractor.bias",
)  # fmt: skip

_POS_CONV = "encoder.pos_conv_embed.conv"
# Names of weight normalization before torch 2.1.
_OLD_NAMES = {
    f"{_POS_CONV}.weight_g": f"{_POS_CONV}.parametrizations.weight.original0",
    f"{_POS_CONV}.weight_v": f"{_POS_CONV}.parametrizations.weight.original1",
}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our variables and their tensors that make it.

    Attributes:
        ours: Name of the variable, without ":0".
        shape: Shape of the variable.
        theirs: Names of their tensors without the backbone's prefix, in the order of our last axis.
    """

    ours: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of each of their tensors."""
        return tuple(reversed((*self.shape[:-1], self.shape[-1] // len(self.theirs))))

    @property
    def size(self) -> int:
        """The number of parameters."""
        return math.prod(self.shape)

    def join(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """Makes our array from their tensors, in the order of `theirs`, without changing any number."""
        return np.ascontiguousarray(np.concatenate([tensor.T for tensor in tensors], axis=-1))

    def split(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Splits our array into their tensors, by name."""
        parts = np.split(array, len(self.theirs), axis=-1)
        # Contiguous, because safetensors ignores the strides of a transposed view.
        return {name: np.ascontiguousarray(part.T) for name, part in zip(self.theirs, parts, strict=True)}


def canonical_name(name: str) -> str:
    """Returns a tensor's name in the table: without the backbone's prefix, with current names of weight norm."""
    for prefix in BACKBONE_PREFIXES.values():
        name = name.removeprefix(prefix)
    return _OLD_NAMES.get(name, name)


def full_name(name: str, *, model_type: str) -> str:
    """Returns the full name of a tensor in a model with a CTC head, from its name in the table."""
    return name if name in HEAD else BACKBONE_PREFIXES[model_type] + name


def name_table(config: Wav2Vec2Config) -> list[Entry]:
    """Returns one entry for each variable of the model, in the order from waveform to logits."""
    table: list[Entry] = []

    def add(ours: str, shape: tuple[int, ...], *theirs: str) -> None:
        table.append(Entry(ours, shape, theirs))

    def add_norm(ours: str, size: int, theirs: str, kind: str = "layer_norm") -> None:
        add(f"{ours}/{kind}/scale", (size,), f"{theirs}.weight")
        add(f"{ours}/{kind}/offset", (size,), f"{theirs}.bias")

    def add_projection(ours: str, input_size: int, output_size: int, *theirs: str) -> None:
        add(f"{ours}/kernel", (input_size, output_size), *(f"{name}.weight" for name in theirs))
        add(f"{ours}/bias", (output_size,), *(f"{name}.bias" for name in theirs))

    input_size = 1
    for i, size in enumerate(config.conv_dim):
        ours, theirs = f"feature_encoder/{i}", f"feature_extractor.conv_layers.{i}"
        add(f"{ours}/kernel", (config.conv_kernel[i], input_size, size), f"{theirs}.conv.weight")
        if config.conv_bias:
            add(f"{ours}/bias", (size,), f"{theirs}.conv.bias")
        if config.feature_norm == "layer":
            add_norm(ours, size, f"{theirs}.layer_norm")
        elif i == 0:
            add_norm(ours, size, f"{theirs}.layer_norm", kind="group_norm")
        input_size = size

    size = config.hidden_size
    if config.feature_projection_norm:
        add_norm("feature_projection", input_size, "feature_projection.layer_norm")
    add_projection("feature_projection", input_size, size, "feature_projection.projection")
    add("mask_embedding", (size,), MASK_EMBEDDING)

    weight = f"{_POS_CONV}.parametrizations.weight"
    kernel = config.pos_conv_kernel
    add("encoder/pos_conv/kernel_g", (kernel, 1, 1), f"{weight}.original0")
    add("encoder/pos_conv/kernel_v", (kernel, size // config.pos_conv_groups, size), f"{weight}.original1")
    add("encoder/pos_conv/bias", (size,), f"{_POS_CONV}.bias")
    add_norm("encoder/norm", size, "encoder.layer_norm")
    for i in range(config.num_layers):
        ours, theirs = f"encoder/layers/{i}", f"encoder.layers.{i}"
        parts = (f"{theirs}.attention.{part}_proj" for part in "qkv")
        add_projection(f"{ours}/attention/qkv", size, 3 * size, *parts)
        add_projection(f"{ours}/attention/out", size, size, f"{theirs}.attention.out_proj")
        add_norm(f"{ours}/attention_norm", size, f"{theirs}.layer_norm")
        inner = config.intermediate_size
        add_projection(f"{ours}/intermediate", size, inner, f"{theirs}.feed_forward.intermediate_dense")
        add_projection(f"{ours}/output", inner, size, f"{theirs}.feed_forward.output_dense")
        add_norm(f"{ours}/final_norm", size, f"{theirs}.final_layer_norm")

    add_projection("head", size, config.vocab_size, "lm_head")
    return table


def adaptation_table(config: Wav2Vec2Config) -> list[Entry]:
    """Returns one entry for each variable of LoRA or of bottleneck adapters, in the order of the layers.

    LoRA's tensors have PEFT's names and shapes, A [rank, in] and B [out, rank]. Those of bottleneck adapters have names
    of our own, because transformers has no such adapters.
    """
    table: list[Entry] = []
    size, inner, rank = config.hidden_size, config.intermediate_size, config.lora_rank
    for i in range(config.num_layers):
        ours, theirs = f"encoder/layers/{i}", f"encoder.layers.{i}"
        for part, (projection, module, input_size, output_size) in {
            **{f"{part}_proj": ("attention/qkv", "attention", size, size) for part in "qkv"},
            "out_proj": ("attention/out", "attention", size, size),
            "intermediate_dense": ("intermediate", "feed_forward", size, inner),
            "output_dense": ("output", "feed_forward", inner, size),
        }.items():
            if rank and part in config.lora_targets:
                prefix, place = f"{ours}/{projection}/lora/{part}", f"{theirs}.{module}.{part}"
                table.append(Entry(f"{prefix}/a", (input_size, rank), (f"{place}.lora_A.weight",)))
                table.append(Entry(f"{prefix}/b", (rank, output_size), (f"{place}.lora_B.weight",)))
        for part in ("attention_adapter", "output_adapter") if config.bottleneck_size else ():
            for name, shape in (("down", (size, config.bottleneck_size)), ("up", (config.bottleneck_size, size))):
                table.append(Entry(f"{ours}/{part}/{name}/kernel", shape, (f"{theirs}.{part}.{name}.weight",)))
                table.append(Entry(f"{ours}/{part}/{name}/bias", shape[1:], (f"{theirs}.{part}.{name}.bias",)))
    return table


def trained_table(config: Wav2Vec2Config) -> list[Entry]:
    """Returns the entries of what trains with LoRA or bottleneck adapters, the head last; [] where all trains."""
    if not config.is_adapted:
        return []
    others = [
        entry
        for entry in name_table(config)
        if entry.ours.startswith("head/")
        or (config.bottleneck_size and entry.ours.startswith("encoder/") and "norm/layer_norm/" in entry.ours)
    ]
    return [*adaptation_table(config), *others]


def num_parameters(config: Wav2Vec2Config, *, with_head: bool = True) -> int:
    """Returns the number of parameters of a model, without building it."""
    table = [*name_table(config), *adaptation_table(config)]
    return sum(entry.size for entry in table if with_head or not entry.ours.startswith("head/"))
