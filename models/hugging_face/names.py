"""Two-way table between our variables and the tensors of a Hugging Face model of the family.

One rule covers all of them: reversing the axes of their tensor gives ours ([out, in] -> [in, out] for projections,
[out, in, K] -> [K, in, out] for convolutions). Several of their tensors that make one of ours are concatenated along
our last axis.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from models.hugging_face.model_types import MODEL_TYPES
from models.wav2vec2.config import Wav2Vec2Config

MASK_EMBEDDING = "masked_spec_embed"
HEAD = ("lm_head.weight", "lm_head.bias")
# Used by pretraining only: the quantizer, the projections of the contrastive task, and the other tasks' heads.
PRETRAINING_PREFIXES = (
    "quantizer.", "project_q.", "project_hid.", "ctc_proj.", "speaker_proj.", "label_embeddings_concat",
    "layer_norm_for_extract.",
)  # fmt: skip
# Heads of other tasks: classification of recordings, of frames and of speakers.
OTHER_HEADS = (
    "projector.*", "classifier.*", "layer_weights", "tdnn.*", "objective.*", "feature_extractor.weight",
    "feature_extractor.bias",
)  # fmt: skip

# Outputs of the projection that the gate of a relative position bias is made of.
GATE_WIDTH = 8
_POS_CONV = "encoder.pos_conv_embed.conv"
# Names of weight normalization before torch 2.1.
_OLD_NAMES = {
    f"{_POS_CONV}.weight_g": f"{_POS_CONV}.parametrizations.weight.original0",
    f"{_POS_CONV}.weight_v": f"{_POS_CONV}.parametrizations.weight.original1",
}
# Names of a norm's scale and offset that transformers 4 reads as well.
_OLD_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}
# Buffers of a module that are constants, or that nothing reads; a new variable has their value.
CONSTANTS = ("encoder.embed_positions.inv_freq", "*.batch_norm.num_batches_tracked")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our variables and their tensors that make it.

    Attributes:
        ours: Name of the variable, without ":0".
        shape: Shape of the variable.
        theirs: Names of their tensors without the backbone's prefix, in the order of our last axis.
        is_pointwise: Whether theirs is a convolution of kernel width 1, whose last axis ours lacks.
    """

    ours: str
    shape: tuple[int, ...]
    theirs: tuple[str, ...]
    is_pointwise: bool = False

    @property
    def their_shape(self) -> tuple[int, ...]:
        """The shape of each of their tensors."""
        if not self.shape:
            return ()
        shape = tuple(reversed((*self.shape[:-1], self.shape[-1] // len(self.theirs))))
        return (*shape, 1) if self.is_pointwise else shape

    @property
    def size(self) -> int:
        """The number of parameters."""
        return math.prod(self.shape)

    def join(self, tensors: Sequence[np.ndarray]) -> np.ndarray:
        """Makes our array from their tensors, in the order of `theirs`, without changing any number."""
        if not self.shape:
            return tensors[0]
        if self.is_pointwise:
            tensors = [tensor[..., 0] for tensor in tensors]
        return np.ascontiguousarray(np.concatenate([tensor.T for tensor in tensors], axis=-1))

    def split(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """Splits our array into their tensors, by name."""
        parts = np.split(array, len(self.theirs), axis=-1) if self.shape else [np.asarray(array)]
        # Contiguous, because safetensors ignores the strides of a transposed view.
        return {
            name: np.ascontiguousarray(part.T).reshape(self.their_shape)
            for name, part in zip(self.theirs, parts, strict=True)
        }


def canonical_name(name: str) -> str:
    """Returns a tensor's name in the table: without the backbone's prefix, with current names of weight norm."""
    for known in MODEL_TYPES.values():
        name = name.removeprefix(known.prefix)
    for old, new in _OLD_ENDINGS.items():
        if name.endswith(old):
            name = name.removesuffix(old) + new
    return _OLD_NAMES.get(name, name)


def full_name(name: str, *, model_type: str) -> str:
    """Returns the full name of a tensor in a model with a CTC head, from its name in the table."""
    return name if name in HEAD else MODEL_TYPES[model_type].prefix + name


class _Table:
    """Collects the entries of a name table."""

    def __init__(self) -> None:
        """Starts an empty table."""
        self.entries: list[Entry] = []

    def add(self, ours: str, shape: tuple[int, ...], *theirs: str, is_pointwise: bool = False) -> None:
        """Adds one variable."""
        self.entries.append(Entry(ours, shape, theirs, is_pointwise))

    def add_norm(self, ours: str, size: int, theirs: str, kind: str = "layer_norm") -> None:
        """Adds scale and offset of a norm."""
        self.add(f"{ours}/{kind}/scale", (size,), f"{theirs}.weight")
        self.add(f"{ours}/{kind}/offset", (size,), f"{theirs}.bias")

    def add_projection(self, ours: str, input_size: int, output_size: int, *theirs: str) -> None:
        """Adds kernel and bias of a projection."""
        self.add(f"{ours}/kernel", (input_size, output_size), *(f"{name}.weight" for name in theirs))
        self.add(f"{ours}/bias", (output_size,), *(f"{name}.bias" for name in theirs))


def name_table(config: Wav2Vec2Config) -> list[Entry]:
    """Returns one entry for each variable of the model, in the order from waveform to logits."""
    table = _Table()
    _add_features(table, config)
    _add_positions(table, config)
    if config.has_encoder_norm:
        table.add_norm("encoder/norm", config.hidden_size, "encoder.layer_norm")
    for i in range(config.num_layers):
        add_layer = _add_conformer_layer if config.layer_kind == "conformer" else _add_layer
        add_layer(table, config, i)
    if config.num_length_adapters:
        _add_length_adapters(table, config)
    table.add_projection("head", config.head_input_size, config.vocab_size, "lm_head")
    return table.entries


def _add_features(table: _Table, config: Wav2Vec2Config) -> None:
    """Adds the feature encoder, the feature projection and the mask embedding."""
    input_size = 1
    for i, size in enumerate(config.conv_dim if config.front_end == "convolutions" else ()):
        ours, theirs = f"feature_encoder/{i}", f"feature_extractor.conv_layers.{i}"
        table.add(f"{ours}/kernel", (config.conv_kernel[i], input_size, size), f"{theirs}.conv.weight")
        if config.conv_bias:
            table.add(f"{ours}/bias", (size,), f"{theirs}.conv.bias")
        if config.feature_norm == "layer":
            table.add_norm(ours, size, f"{theirs}.layer_norm")
        elif i == 0:
            table.add_norm(ours, size, f"{theirs}.layer_norm", kind="group_norm")
        input_size = size
    if config.feature_projection_norm:
        table.add_norm("feature_projection", config.feature_size, "feature_projection.layer_norm")
    table.add_projection("feature_projection", config.feature_size, config.hidden_size, "feature_projection.projection")
    table.add("mask_embedding", (config.hidden_size,), MASK_EMBEDDING)


def _add_positions(table: _Table, config: Wav2Vec2Config) -> None:
    """Adds what tells the encoder where a frame stands."""
    size, weight = config.hidden_size, f"{_POS_CONV}.parametrizations.weight"
    shape: tuple[int, ...] = (config.pos_conv_kernel, size // config.pos_conv_groups, size)
    if not config.has_position_convolution:
        pass
    elif config.pos_conv_norm == "weight":
        table.add("encoder/pos_conv/kernel_g", (config.pos_conv_kernel, 1, 1), f"{weight}.original0")
        table.add("encoder/pos_conv/kernel_v", shape, f"{weight}.original1")
        table.add("encoder/pos_conv/bias", (size,), f"{_POS_CONV}.bias")
    else:
        for i in range(config.pos_conv_depth):
            theirs = f"encoder.pos_conv_embed.layers.{i}.conv"
            table.add(f"encoder/pos_conv/{i}/kernel", shape, f"{theirs}.weight")
            table.add(f"encoder/pos_conv/{i}/bias", (size,), f"{theirs}.bias")
    if config.has_rotary_frequencies:
        frequencies = (size // config.num_heads // 2,)
        table.add("encoder/positions/frequencies", frequencies, "encoder.embed_positions.inv_freq")
    if config.relative_position_buckets:
        shape = (config.num_heads, config.relative_position_buckets)
        table.add("encoder/position_bias/table", shape, "encoder.layers.0.attention.rel_attn_embed.weight")


def _add_layer(table: _Table, config: Wav2Vec2Config, i: int) -> None:
    """Adds a transformer layer."""
    size, inner = config.hidden_size, config.intermediate_size
    ours, theirs = f"encoder/layers/{i}", f"encoder.layers.{i}"
    parts = (f"{theirs}.attention.{part}_proj" for part in "qkv")
    table.add_projection(f"{ours}/attention/qkv", size, 3 * size, *parts)
    table.add_projection(f"{ours}/attention/out", size, size, f"{theirs}.attention.out_proj")
    if config.relative_position_buckets:
        gate = f"{ours}/attention/position_gate"
        head_size = size // config.num_heads
        table.add_projection(gate, head_size, GATE_WIDTH, f"{theirs}.attention.gru_rel_pos_linear")
        table.add(f"{gate}/scale", (1, 1, config.num_heads, 1), f"{theirs}.attention.gru_rel_pos_const")
    table.add_norm(f"{ours}/attention_norm", size, f"{theirs}.layer_norm")
    table.add_projection(f"{ours}/intermediate", size, inner, f"{theirs}.feed_forward.intermediate_dense")
    table.add_projection(f"{ours}/output", inner, size, f"{theirs}.feed_forward.output_dense")
    table.add_norm(f"{ours}/final_norm", size, f"{theirs}.final_layer_norm")
    if adapter := config.attention_adapter_size:
        table.add_norm(f"{ours}/adapter", size, f"{theirs}.adapter_layer.norm")
        table.add_projection(f"{ours}/adapter/down", size, adapter, f"{theirs}.adapter_layer.linear_1")
        table.add_projection(f"{ours}/adapter/up", adapter, size, f"{theirs}.adapter_layer.linear_2")


def is_of_language(name: str) -> bool:
    """Returns whether a tensor, by its name in the table, belongs to one language of a model with adapters."""
    return name in HEAD or ".adapter_layer." in name


def adaptation_table(config: Wav2Vec2Config) -> list[Entry]:
    """Returns one entry for each variable of LoRA or of bottleneck adapters, in the order of the layers.

    LoRA's tensors have PEFT's names and shapes, A [rank, in] and B [out, rank]. Those of bottleneck adapters have names
    of our own, because transformers has no such adapters.
    """
    table: list[Entry] = []
    size, rank = config.hidden_size, config.lora_rank
    for i in range(config.num_layers):
        ours, theirs = f"encoder/layers/{i}", f"encoder.layers.{i}"
        for part, (projection, module, input_size, output_size) in _low_rank_places(config).items():
            if rank and part in config.lora_targets:
                prefix, place = f"{ours}/{projection}/lora/{part}", f"{theirs}.{module}{part}"
                table.append(Entry(f"{prefix}/a", (input_size, rank), (f"{place}.lora_A.weight",)))
                table.append(Entry(f"{prefix}/b", (rank, output_size), (f"{place}.lora_B.weight",)))
        for part in ("attention_adapter", "output_adapter") if config.bottleneck_size else ():
            for name, shape in (("down", (size, config.bottleneck_size)), ("up", (config.bottleneck_size, size))):
                table.append(Entry(f"{ours}/{part}/{name}/kernel", shape, (f"{theirs}.{part}.{name}.weight",)))
                table.append(Entry(f"{ours}/{part}/{name}/bias", shape[1:], (f"{theirs}.{part}.{name}.bias",)))
    return table


def _low_rank_places(config: Wav2Vec2Config) -> dict[str, tuple[str, str, int, int]]:
    """Returns target of LoRA -> our projection in a layer, prefix of the module in theirs, input and output size."""
    size, inner = config.hidden_size, config.intermediate_size
    if config.layer_kind == "transformer":
        return {
            **{f"{part}_proj": ("attention/qkv", "attention.", size, size) for part in "qkv"},
            "out_proj": ("attention/out", "attention.", size, size),
            "intermediate_dense": ("intermediate", "feed_forward.", size, inner),
            "output_dense": ("output", "feed_forward.", inner, size),
        }
    is_rotary = config.attention_positions == "rotary"
    projections = {"q": "qk", "k": "qk", "v": "value"} if is_rotary else dict.fromkeys("qkv", "qkv")
    places = {
        f"linear_{part}": (f"attention/{projection}", "self_attn.", size, size)
        for part, projection in {**projections, "pos": "position", "out": "out"}.items()
    }
    for ours, theirs in (("first", "ffn1"), ("second", "ffn2")):
        places[f"{theirs}.intermediate_dense"] = (f"{ours}/intermediate", "", size, inner)
        places[f"{theirs}.output_dense"] = (f"{ours}/output", "", inner, size)
    return places


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


def _add_feed_forward(table: _Table, config: Wav2Vec2Config, size: int, ours: str, theirs: str) -> None:
    """Adds the two projections of a feed-forward block of width `size`."""
    table.add_projection(f"{ours}/intermediate", size, config.intermediate_size, f"{theirs}.intermediate_dense")
    table.add_projection(f"{ours}/output", config.intermediate_size, size, f"{theirs}.output_dense")


def _add_attention(table: _Table, config: Wav2Vec2Config, size: int, positions: str, ours: str, theirs: str) -> None:
    """Adds a `models.wav2vec2.relative_attention.RelativeAttention` of width `size`."""
    head_size = size // config.num_heads
    query, key, value = (f"{theirs}.linear_{part}" for part in "qkv")
    if positions == "rotary":
        table.add_projection(f"{ours}/qk", size, 2 * size, query, key)
        table.add_projection(f"{ours}/value", size, size, value)
    else:
        table.add_projection(f"{ours}/qkv", size, 3 * size, query, key, value)
    table.add_projection(f"{ours}/out", size, size, f"{theirs}.linear_out")
    if positions == "relative":
        table.add(f"{ours}/position/kernel", (size, size), f"{theirs}.linear_pos.weight")
        table.add(f"{ours}/content_bias", (head_size, config.num_heads), f"{theirs}.pos_bias_u")
        table.add(f"{ours}/position_bias", (head_size, config.num_heads), f"{theirs}.pos_bias_v")
    elif positions == "relative_key":
        num_distances = config.relative_key_left + config.relative_key_right + 1
        table.add(f"{ours}/distances", (head_size, num_distances), f"{theirs}.distance_embedding.weight")


def _add_conformer_layer(table: _Table, config: Wav2Vec2Config, i: int) -> None:
    """Adds a conformer layer."""
    size = config.hidden_size
    ours, theirs = f"encoder/layers/{i}", f"encoder.layers.{i}"
    table.add_norm(f"{ours}/first_norm", size, f"{theirs}.ffn1_layer_norm")
    _add_feed_forward(table, config, size, f"{ours}/first", f"{theirs}.ffn1")
    table.add_norm(f"{ours}/attention_norm", size, f"{theirs}.self_attn_layer_norm")
    _add_attention(table, config, size, config.attention_positions, f"{ours}/attention", f"{theirs}.self_attn")
    part, module = f"{ours}/convolution", f"{theirs}.conv_module"
    table.add_norm(f"{part}/norm", size, f"{module}.layer_norm")
    table.add(f"{part}/gated/kernel", (size, 2 * size), f"{module}.pointwise_conv1.weight", is_pointwise=True)
    table.add(f"{part}/depthwise/kernel", (config.depthwise_kernel, 1, size), f"{module}.depthwise_conv.weight")
    if config.depthwise_norm == "layer":
        table.add_norm(f"{part}/depthwise", size, f"{module}.depthwise_layer_norm")
    else:
        table.add_norm(part, size, f"{module}.batch_norm", kind="batch_norm")
        table.add(f"{part}/batch_norm/mean", (size,), f"{module}.batch_norm.running_mean")
        table.add(f"{part}/batch_norm/variance", (size,), f"{module}.batch_norm.running_var")
        table.add(f"{part}/batch_norm/num_batches", (), f"{module}.batch_norm.num_batches_tracked")
    table.add(f"{part}/out/kernel", (size, size), f"{module}.pointwise_conv2.weight", is_pointwise=True)
    table.add_norm(f"{ours}/second_norm", size, f"{theirs}.ffn2_layer_norm")
    _add_feed_forward(table, config, size, f"{ours}/second", f"{theirs}.ffn2")
    table.add_norm(f"{ours}/final_norm", size, f"{theirs}.final_layer_norm")


def _add_length_adapters(table: _Table, config: Wav2Vec2Config) -> None:
    """Adds the layers behind the encoder."""
    size, kernel = config.head_input_size, config.length_adapter_kernel
    if config.length_adapter_feed_forward:
        _add_feed_forward(table, config, config.hidden_size, "length_adapter/feed_forward", "intermediate_ffn")
    if size != config.hidden_size:
        table.add_projection("length_adapter/projection", config.hidden_size, size, "adapter.proj")
        table.add_norm("length_adapter/norm", size, "adapter.proj_layer_norm")

    def add_convolution(ours: str, theirs: str) -> None:
        table.add(f"{ours}/kernel", (kernel, size, 2 * size), f"{theirs}.weight")
        table.add(f"{ours}/bias", (2 * size,), f"{theirs}.bias")

    for i in range(config.num_length_adapters):
        ours, theirs = f"length_adapter/{i}", f"adapter.layers.{i}"
        if config.length_adapter == "convolution":
            add_convolution(ours, f"{theirs}.conv")
            continue
        table.add_norm(f"{ours}/residual_norm", size, f"{theirs}.residual_layer_norm")
        add_convolution(f"{ours}/residual", f"{theirs}.residual_conv")
        table.add_norm(f"{ours}/attention_norm", size, f"{theirs}.self_attn_layer_norm")
        add_convolution(f"{ours}/shortened", f"{theirs}.self_attn_conv")
        _add_attention(table, config, size, "none", f"{ours}/attention", f"{theirs}.self_attn")
        table.add_norm(f"{ours}/feed_forward_norm", size, f"{theirs}.ffn_layer_norm")
        _add_feed_forward(table, config, size, ours, f"{theirs}.ffn")


def num_parameters(config: Wav2Vec2Config, *, with_head: bool = True) -> int:
    """Returns the number of parameters of a model, without building it."""
    table = [*name_table(config), *adaptation_table(config)]
    return sum(entry.size for entry in table if with_head or not entry.ours.startswith("head/"))
