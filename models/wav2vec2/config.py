"""Describes the architecture of a wav2vec 2.0 network as one frozen dataclass."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from common.json_files import describe, is_kind
from common.renamed import rename_fields
from models.wav2vec2.parts import MAX_LAYERS, check_parts
from models.wav2vec2.presets import PRESETS

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Narrower transformers are not fused by default: compiling costs more than it saves (docs/decisions/0040).
MIN_FUSED_HIDDEN_SIZE = 256
# Far above every published model. A larger value means a damaged file, which is refused before anything is allocated.
MAX_SIZE = 2**20  # of any width, kernel or count
_KINDS = {bool: "true or false", str: "text", int: "a whole number", float: "a finite number"}
_CHOICES = {
    "conv_init": ("random", "gabor"),
    "fused_ops": ("auto", "on", "off"),
    "feature_norm": ("group", "layer"),
    "pos_conv_norm": ("weight", "layer"),
    "front_end": ("convolutions", "log_mel"),
    "layer_kind": ("transformer", "conformer"),
    "activation": ("gelu", "swish", "relu"),
    "attention_positions": ("none", "relative", "rotary", "relative_key"),
    "depthwise_norm": ("batch", "layer"),
    "length_adapter": ("convolution", "attention"),
    "length_adapter_activation": ("gelu", "swish", "relu"),
}
_COUNTS_OF_LAYERS = ("num_layers", "pos_conv_depth", "num_length_adapters")
# Counts and sizes of parts that a network may lack.
_MAY_BE_ZERO = (
    "mask_time_min_spans", "relative_position_buckets", "attention_adapter_size", "relative_key_left",
    "relative_key_right", "num_length_adapters", "output_size", "lora_rank", "bottleneck_size",
)  # fmt: skip
# The projections of a transformer layer, and of a conformer layer, that LoRA can update, by their names in transformers
# and PEFT.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense")
CONFORMER_LORA_TARGETS = (
    "ffn1.intermediate_dense", "ffn1.output_dense", "linear_q", "linear_k", "linear_v", "linear_pos", "linear_out",
    "ffn2.intermediate_dense", "ffn2.output_dense",
)  # fmt: skip
# Window and hop of the log-mel spectrogram in samples at 16 kHz, its channels, and its frames that are joined into one.
MEL_WINDOW, MEL_HOP, MEL_BINS, MEL_STRIDE = 400, 160, 80, 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wav2Vec2Config:
    """All choices that decide the shapes and the arithmetic of the network.

    The default values are wav2vec 2.0 BASE (Baevski et al. 2020, https://arxiv.org/abs/2006.11477, section 4.2 and
    appendix A) with a 32-token CTC head.

        config = preset("tiny", vocab_size=40)
        config.num_frames(16_000)  # frames of one second of audio
        model = Wav2Vec2ForCTC(config=config)

    Attributes:
        vocab_size: Width of the CTC head, blank included.
        conv_dim: Output channels of each convolution of the feature encoder.
        conv_kernel: Kernel width of each convolution, in positions of its input.
        conv_stride: Stride of each convolution, in positions of its input.
        conv_bias: Whether those convolutions have a bias.
        conv_init: Initialization of the first convolution: "random", or "gabor" for a filterbank
            (`models.wav2vec2.filterbank`), with which small models train far faster.
        feature_norm: "group" (one group norm, after the first convolution) or "layer" (layer norm after each).
        feature_projection_norm: Whether features are layer-normalized before their projection to hidden_size, as in
            all published wav2vec 2.0 and HuBERT models; some models distilled from HuBERT lack it.
        normalize_waveform: Whether the network expects recordings of zero mean and unit variance, as nearly all
            published models do.
        front_end: What makes features of a waveform: "convolutions", or "log_mel" for the log-mel spectrogram of
            w2v-BERT (`models.wav2vec2.log_mel`), whose recordings are not normalized.
        hidden_size: Width D of the transformer.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads; divides hidden_size.
        intermediate_size: Width of the feed-forward blocks.
        pos_conv_kernel: Kernel width, in frames, of the convolutional position embedding.
        pos_conv_groups: Groups of that convolution.
        pos_conv_norm: "weight" for one convolution whose kernel is weight-normalized, or "layer" for a stack of plain
            ones, each followed by a layer norm, as in data2vec (`models.wav2vec2.positional_convolution`).
        pos_conv_depth: Number of convolutions; with "weight" there is one.
        relative_position_buckets: Rows of the table of a gated relative position bias in attention, as in WavLM
            (`models.wav2vec2.relative_positions`); 0 = no such bias.
        relative_position_max_distance: Distance in frames from which on all share the last row.
        attention_adapter_size: Inner width of the adapter at the end of each transformer layer, as in MMS
            (`models.wav2vec2.attention_adapter`); 0 = none. Pre-norm layers alone have one.
        stable_layer_norm: True for pre-norm transformer layers (LARGE models), False for post-norm. Conformer layers
            are pre-norm either way, and True adds a norm after the last one.
        layer_kind: "transformer" or "conformer" (`models.wav2vec2.conformer`).
        activation: Activation of the feed-forward blocks and of the convolutions inside conformer layers.
        attention_positions: Positions that the attention of conformer layers reads: "none", "relative"
            (Transformer-XL), "rotary", or "relative_key" (learned for each clipped distance).
        rotary_base: Base of the wavelengths of rotary positions.
        relative_key_left: Largest distance to the left that has a relative_key position of its own, in frames.
        relative_key_right: Largest distance to the right that has one.
        depthwise_kernel: Kernel width of the convolution inside a conformer layer, in frames; odd.
        depthwise_causal: Whether that convolution sees the frames before and not those behind.
        depthwise_norm: "batch" (with the recorded statistics, in training too) or "layer".
        num_length_adapters: Number of layers behind the encoder that shorten its output.
        length_adapter: "convolution", or "attention" for the adapter layers of w2v-BERT.
        length_adapter_kernel: Kernel width of their convolutions.
        length_adapter_stride: Stride of their convolutions.
        length_adapter_activation: Activation of the feed-forward blocks of attention adapters.
        length_adapter_feed_forward: Whether a feed-forward block comes before them.
        output_size: Width of the length adapters and of the input of the head; 0 = hidden_size.
        layer_norm_epsilon: Added to variances in the feature projection and the transformer; the feature encoder,
            convolution adapters and conformer layers with batch norm always use 1e-5.
        hidden_dropout: Dropout rate after embeddings, attention and feed-forward blocks.
        attention_dropout: Dropout rate of attention probabilities.
        activation_dropout: Dropout rate inside feed-forward blocks.
        feature_projection_dropout: Dropout rate after the feature projection.
        convolution_dropout: Dropout rate after the convolutions of conformer layers, and after the attention of length
            adapters.
        final_dropout: Dropout rate before the CTC head.
        layer_drop: Probability that an update skips a transformer layer.
        mask_time_prob: Expected ratio of frames under time masks, overlaps counted twice; 0 = no masks.
        mask_time_length: Frames of one time mask.
        mask_time_min_spans: Fewest time masks of a row that has room for them.
        mask_feature_prob: Expected ratio of channels under feature masks, overlaps counted twice; 0 = no masks.
        mask_feature_length: Channels of one feature mask.
        initializer_range: Standard deviation of randomly initialized projection weights.
        fused_ops: When training runs element-wise parts as fused, XLA-compiled operations (`models.ops.fused`): "auto"
            (wide models), "on" or "off"; the results are the same up to rounding.
        gradient_checkpointing: Whether the backward pass recomputes each transformer layer instead of
            keeping its tensors. Less memory, a third more time, the same results.
        train_adapters_only: Whether only the attention adapters and the CTC head train.
        lora_rank: Rank of the updates that train beside frozen projections (`models.wav2vec2.low_rank`); 0 = none.
        lora_alpha: The updates count lora_alpha / lora_rank times.
        lora_dropout: Dropout rate of what the updates read.
        lora_targets: Projections that have updates, among `LORA_TARGETS`, or `CONFORMER_LORA_TARGETS` for conformer
            layers. There the default means linear_q and linear_v, and intermediate_dense and output_dense mean those of
            both feed-forward blocks, as in PEFT.
        bottleneck_size: Inner width of the adapters that train in a frozen network (`models.wav2vec2.bottleneck`);
            0 = none.
    """

    vocab_size: int = 32
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_bias: bool = False
    conv_init: str = "random"
    feature_norm: str = "group"
    feature_projection_norm: bool = True
    normalize_waveform: bool = True
    front_end: str = "convolutions"
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    pos_conv_norm: str = "weight"
    pos_conv_depth: int = 1
    relative_position_buckets: int = 0
    relative_position_max_distance: int = 800
    attention_adapter_size: int = 0
    stable_layer_norm: bool = False
    layer_kind: str = "transformer"
    activation: str = "gelu"
    attention_positions: str = "none"
    rotary_base: int = 10_000
    relative_key_left: int = 64
    relative_key_right: int = 8
    depthwise_kernel: int = 31
    depthwise_causal: bool = False
    depthwise_norm: str = "batch"
    num_length_adapters: int = 0
    length_adapter: str = "convolution"
    length_adapter_kernel: int = 3
    length_adapter_stride: int = 2
    length_adapter_activation: str = "relu"
    length_adapter_feed_forward: bool = False
    output_size: int = 0
    layer_norm_epsilon: float = 1e-5
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    feature_projection_dropout: float = 0.1
    convolution_dropout: float = 0.1
    final_dropout: float = 0.1
    layer_drop: float = 0.1
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_spans: int = 0
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    initializer_range: float = 0.02
    fused_ops: str = "auto"
    gradient_checkpointing: bool = False
    train_adapters_only: bool = False
    lora_rank: int = 0
    lora_alpha: float = 16.0
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("q_proj", "v_proj")
    bottleneck_size: int = 0

    def __post_init__(self) -> None:
        # JSON has no tuples, and a config read back from a file must equal the one that was written.
        for name in ("conv_dim", "conv_kernel", "conv_stride"):
            value = getattr(self, name)
            if not isinstance(value, (list, tuple)) or not all(is_kind(v, int) for v in value):
                raise ValueError(f"{name} must be a list of whole numbers, got {describe(value)}")
            object.__setattr__(self, name, tuple(value))
        self._check_lora_targets()
        self._check_values()
        if not MAX_LAYERS >= len(self.conv_dim) == len(self.conv_kernel) == len(self.conv_stride) >= 1:
            raise ValueError(
                "conv_dim, conv_kernel and conv_stride must have one entry per convolution, got "
                f"{len(self.conv_dim)}, {len(self.conv_kernel)} and {len(self.conv_stride)} entries"
            )
        for name in ("num_heads", *(("pos_conv_groups",) if self.has_position_convolution else ())):
            if self.hidden_size % (divisor := getattr(self, name)):
                raise ValueError(f"hidden_size must be a multiple of {name}, got {self.hidden_size} and {divisor}")
        if self.samples_per_frame > MAX_SIZE:
            raise ValueError(f"conv_stride must make a hop of at most {MAX_SIZE} samples, got {list(self.conv_stride)}")
        check_parts(self)

    def _check_lora_targets(self) -> None:
        """Checks the names of the projections that LoRA updates, and puts them in the order of the network."""
        value: Any = self.lora_targets
        known: tuple[str, ...] = LORA_TARGETS
        if self.layer_kind == "conformer":
            known = CONFORMER_LORA_TARGETS
            if isinstance(value, (list, tuple)) and all(isinstance(name, str) for name in value):
                value = _conformer_targets(value)
        if not isinstance(value, (list, tuple)) or not value or not set(map(str, value)) <= set(known):
            layers = f" with layer_kind={self.layer_kind!r}" if self.layer_kind == "conformer" else ""
            raise ValueError(
                f"lora_targets must be one or more of {', '.join(known)}{layers}, got {describe(self.lora_targets)}"
            )
        object.__setattr__(self, "lora_targets", tuple(name for name in known if name in value))

    def _check_values(self) -> None:
        """Checks the type and the range of each field by itself."""
        for field in dataclasses.fields(self):
            name, kind, value = field.name, type(field.default), getattr(self, field.name)
            if kind in _KINDS and not is_kind(value, kind):
                raise ValueError(f"{name} must be {_KINDS[kind]}, got {describe(value)}")
            if kind is tuple and name != "lora_targets":
                for number in value:
                    _check_size(name, number)
            elif kind is int:
                _check_size(name, value)
            elif kind is float:
                _check_rate(name, value)
            elif name in _CHOICES and value not in _CHOICES[name]:
                raise ValueError(f"{name} must be {' or '.join(map(repr, _CHOICES[name]))}, got {value[:60]!r}")

    @property
    def samples_per_frame(self) -> int:
        """Returns the hop between frames of logits in samples (320, 20 ms, in all published models)."""
        return math.prod(stride for _, stride, _ in self.frame_steps)

    @property
    def encoder_steps(self) -> tuple[tuple[int, int, int], ...]:
        """Returns (kernel, stride, padding on each side) of what makes frames of the encoder out of samples."""
        if self.front_end == "log_mel":
            return (MEL_WINDOW, MEL_HOP, 0), (MEL_STRIDE, MEL_STRIDE, 0)
        return tuple((kernel, stride, 0) for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True))

    @property
    def adapter_step(self) -> tuple[int, int, int]:
        """Returns (kernel, stride, padding on each side) of one length adapter."""
        padding = 1 if self.length_adapter == "convolution" else self.length_adapter_stride // 2
        return self.length_adapter_kernel, self.length_adapter_stride, padding

    @property
    def frame_steps(self) -> tuple[tuple[int, int, int], ...]:
        """Returns (kernel, stride, padding on each side) of what makes frames of logits out of samples."""
        return self.encoder_steps + (self.adapter_step,) * self.num_length_adapters

    @property
    def feature_size(self) -> int:
        """Returns the width of the features."""
        return MEL_BINS * MEL_STRIDE if self.front_end == "log_mel" else self.conv_dim[-1]

    @property
    def has_position_convolution(self) -> bool:
        """Returns whether there are weights of a convolutional position embedding; conformers do not use theirs."""
        return self.front_end == "convolutions"

    @property
    def has_rotary_frequencies(self) -> bool:
        """Returns whether the frequencies of rotary positions are in the files of the model."""
        return self.attention_positions == "rotary" and self.front_end == "convolutions"

    @property
    def has_encoder_norm(self) -> bool:
        """Returns whether a norm comes before or after the layers; transformers always have one."""
        return self.stable_layer_norm or self.layer_kind == "transformer"

    @property
    def head_input_size(self) -> int:
        """Returns the width of the hidden states that the head reads."""
        return self.output_size or self.hidden_size

    @property
    def uses_fused_ops(self) -> bool:
        """Returns whether training runs element-wise parts as fused operations."""
        return self.fused_ops == "on" or (self.fused_ops == "auto" and self.hidden_size >= MIN_FUSED_HIDDEN_SIZE)

    @property
    def is_adapted(self) -> bool:
        """Returns whether LoRA or bottleneck adapters train in a network that is frozen otherwise."""
        return bool(self.lora_rank or self.bottleneck_size)

    @property
    def is_mostly_frozen(self) -> bool:
        """Returns whether LoRA or adapters of any kind train in a network that is frozen otherwise."""
        return self.is_adapted or self.train_adapters_only

    def num_frames(self, num_samples: int) -> int:
        """Returns the frames of logits of `num_samples` samples (0 if there are too few)."""
        return int(count_frames(self.frame_steps, np.asarray(num_samples, np.int64)))

    def to_json(self) -> str:
        """Returns the config as JSON text, one field a line."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Wav2Vec2Config:
        """Builds a config from a mapping.

        Raises:
            ValueError: If a key is not a field of this class, or its value is invalid.
        """
        fields = rename_fields(fields)
        known = {field.name for field in dataclasses.fields(cls)}
        unknown = sorted(set(fields) - known)
        if unknown:
            raise ValueError(f"unknown model config field(s): {', '.join(unknown)[:200]}; known are {sorted(known)}")
        return cls(**fields)


def _conformer_targets(names: Sequence[str]) -> tuple[str, ...]:
    """Returns what targets of LoRA mean in a conformer layer, which has two feed-forward blocks."""
    if set(names) == {"q_proj", "v_proj"}:  # the default
        return "linear_q", "linear_v"
    blocks = ("ffn1.", "ffn2.")
    both = ("intermediate_dense", "output_dense")
    return tuple(f"{block}{name}" for name in names for block in (blocks if name in both else ("",)))


def count_frames(steps: tuple[tuple[int, int, int], ...], num_samples: np.ndarray) -> np.ndarray:
    """Returns the frames, int64 [...], that `steps` of (kernel, stride, padding) make of int64 [...] samples."""
    for kernel, stride, padding in steps:
        # Padding alone makes no frame.
        num_samples = np.where(num_samples > 0, np.maximum((num_samples + 2 * padding - kernel) // stride + 1, 0), 0)
    return num_samples


def _check_size(name: str, value: int) -> None:
    least, most = int(name not in _MAY_BE_ZERO), MAX_LAYERS if name in _COUNTS_OF_LAYERS else MAX_SIZE
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value}")


def _check_rate(name: str, value: float) -> None:
    if name in ("layer_norm_epsilon", "initializer_range", "lora_alpha") and value < 0:
        raise ValueError(f"{name} must not be negative, got {value}")
    if name.endswith(("_dropout", "layer_drop")) and not 0.0 <= value < 1.0:
        raise ValueError(f"{name} must be in [0, 1), got {value}")
    if name.endswith("_prob") and not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def preset(name: str, **overrides: Any) -> Wav2Vec2Config:
    """Returns the architecture of a preset with some fields replaced.

    Args:
        name: Key of `models.wav2vec2.presets.PRESETS`, such as "base".
        **overrides: Fields of `Wav2Vec2Config` to replace.

    Raises:
        ValueError: If the name or a field is unknown.
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model preset {name[:60]!r}; known are {', '.join(PRESETS)}")
    return Wav2Vec2Config.from_dict({**PRESETS[name], **overrides})


def resolve(name: str, architecture: Mapping[str, Any], **overrides: Any) -> Wav2Vec2Config:
    """Returns `architecture`, or the preset `name` if that is empty, with some fields replaced.

    Raises:
        ValueError: If the name or a field is unknown.
    """
    return Wav2Vec2Config.from_dict({**architecture, **overrides}) if architecture else preset(name, **overrides)
