"""Describes the architecture of a wav2vec 2.0 network as one frozen dataclass."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any

from common.json_files import describe, is_kind
from common.renamed import rename_fields
from models.wav2vec2.presets import PRESETS

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")
# Narrower transformers are not fused by default: compiling costs more than it saves (docs/decisions/0040).
MIN_FUSED_HIDDEN_SIZE = 256
# Far above every published model. A larger value means a damaged file, which is refused before anything is allocated.
MAX_SIZE = 2**20  # of any width, kernel or count
MAX_LAYERS = 1_000  # transformer layers, or convolutions
_MAX_PARAMETERS = 10**11
_KINDS = {bool: "true or false", str: "text", int: "a whole number", float: "a finite number"}
_CHOICES = {
    "conv_init": ("random", "gabor"),
    "fused_ops": ("auto", "on", "off"),
    "feature_norm": ("group", "layer"),
}
# The projections of a transformer layer that LoRA can update, by their names in transformers and PEFT.
LORA_TARGETS = ("q_proj", "k_proj", "v_proj", "out_proj", "intermediate_dense", "output_dense")
_MAY_BE_0 = ("mask_time_min_spans", "lora_rank", "bottleneck_size")


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
        hidden_size: Width D of the transformer.
        num_layers: Number of transformer layers.
        num_heads: Number of attention heads; divides hidden_size.
        intermediate_size: Width of the feed-forward blocks.
        pos_conv_kernel: Kernel width, in frames, of the convolutional position embedding.
        pos_conv_groups: Groups of that convolution.
        stable_layer_norm: True for pre-norm transformer layers (LARGE models), False for post-norm.
        layer_norm_epsilon: Added to variances in the feature projection and the transformer; the feature encoder
            always uses 1e-5.
        hidden_dropout: Dropout rate after embeddings, attention and feed-forward blocks.
        attention_dropout: Dropout rate of attention probabilities.
        activation_dropout: Dropout rate inside feed-forward blocks.
        feature_projection_dropout: Dropout rate after the feature projection.
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
        lora_rank: Rank of the updates that train beside frozen projections (`models.wav2vec2.low_rank`); 0 = none.
        lora_alpha: The updates count lora_alpha / lora_rank times.
        lora_dropout: Dropout rate of what the updates read.
        lora_targets: Projections that have updates, among `LORA_TARGETS`.
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
    hidden_size: int = 768
    num_layers: int = 12
    num_heads: int = 12
    intermediate_size: int = 3072
    pos_conv_kernel: int = 128
    pos_conv_groups: int = 16
    stable_layer_norm: bool = False
    layer_norm_epsilon: float = 1e-5
    hidden_dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    feature_projection_dropout: float = 0.1
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
        for name in ("num_heads", "pos_conv_groups"):
            if self.hidden_size % (divisor := getattr(self, name)):
                raise ValueError(f"hidden_size must be a multiple of {name}, got {self.hidden_size} and {divisor}")
        if self.samples_per_frame > MAX_SIZE:
            raise ValueError(f"conv_stride must make a hop of at most {MAX_SIZE} samples, got {list(self.conv_stride)}")
        self._check_num_parameters()

    def _check_lora_targets(self) -> None:
        """Checks the names of the projections that LoRA updates, and that there is one kind of adaptation."""
        value = self.lora_targets
        if not isinstance(value, (list, tuple)) or not value or not set(map(str, value)) <= set(LORA_TARGETS):
            raise ValueError(f"lora_targets must be one or more of {', '.join(LORA_TARGETS)}, got {describe(value)}")
        object.__setattr__(self, "lora_targets", tuple(name for name in LORA_TARGETS if name in value))
        if self.lora_rank and self.bottleneck_size:
            raise ValueError(
                f"lora_rank is {self.lora_rank} and bottleneck_size {self.bottleneck_size}; set one of them to 0"
            )

    def _check_num_parameters(self) -> None:
        """Refuses sizes that are fine one by one and together ask for more memory than any machine has."""
        num_weights = self.num_layers * self.hidden_size * (4 * self.hidden_size + 2 * self.intermediate_size)
        num_weights += self.hidden_size**2 * self.pos_conv_kernel // self.pos_conv_groups
        num_weights += self.hidden_size * self.vocab_size
        for size, before, kernel in zip(self.conv_dim, (1, *self.conv_dim), self.conv_kernel, strict=False):
            num_weights += size * before * kernel
        if num_weights > _MAX_PARAMETERS:
            raise ValueError(
                f"the sizes make about {num_weights:.1e} parameters, at most {_MAX_PARAMETERS:.0e} are supported: "
                f"hidden_size {self.hidden_size}, num_layers {self.num_layers}, conv_dim {list(self.conv_dim)} ..."
            )

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
        """Returns the hop between frames in samples (320 in all published models, 20 ms at 16 kHz)."""
        return math.prod(self.conv_stride)

    @property
    def uses_fused_ops(self) -> bool:
        """Returns whether training runs element-wise parts as fused operations."""
        return self.fused_ops == "on" or (self.fused_ops == "auto" and self.hidden_size >= MIN_FUSED_HIDDEN_SIZE)

    @property
    def is_adapted(self) -> bool:
        """Returns whether LoRA or bottleneck adapters train in a network that is frozen otherwise."""
        return bool(self.lora_rank or self.bottleneck_size)

    def num_frames(self, num_samples: int) -> int:
        """Returns the frames that the feature encoder makes of `num_samples` samples (0 if there are too few)."""
        for kernel, stride in zip(self.conv_kernel, self.conv_stride, strict=True):
            num_samples = max(0, (num_samples - kernel) // stride + 1)
        return num_samples

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


def _check_size(name: str, value: int) -> None:
    least, most = int(name not in _MAY_BE_0), MAX_LAYERS if name == "num_layers" else MAX_SIZE
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
