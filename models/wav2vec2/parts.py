"""Checks that the parts of a network go together."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from models.wav2vec2.config import Wav2Vec2Config

MAX_LAYERS = 1_000  # transformer layers, or convolutions
_MAX_PARAMETERS = 10**11


def check_parts(config: Wav2Vec2Config) -> None:
    """Refuses parts of a network that contradict each other, or that are too large together.

    Raises:
        ValueError: Names the fields.
    """
    _check_conformer(config)
    _check_length_adapters(config)
    if config.pos_conv_norm == "weight" and config.pos_conv_depth != 1:
        raise ValueError(f"pos_conv_depth must be 1 with pos_conv_norm='weight', got {config.pos_conv_depth}")
    if (buckets := config.relative_position_buckets) and not (
        buckets >= 4 and config.relative_position_max_distance > buckets // 4
    ):
        raise ValueError(
            "relative_position_buckets must be 0, or from 4 to below four times relative_position_max_distance, "
            f"got {buckets} and {config.relative_position_max_distance}"
        )
    if config.attention_adapter_size and not config.stable_layer_norm:
        raise ValueError("attention_adapter_size must be 0 without stable_layer_norm: post-norm layers have no adapter")
    if config.train_adapters_only and not config.attention_adapter_size:
        raise ValueError(
            "train_adapters_only is true, but attention_adapter_size is 0: there are no adapters; set it to false"
        )
    _check_adaptation(config)
    _check_num_parameters(config)


def _check_adaptation(config: Wav2Vec2Config) -> None:
    """Refuses several kinds of adaptation at once, and those that a network has no place for or that learn nothing."""
    kinds = {
        "lora_rank": config.lora_rank,
        "bottleneck_size": config.bottleneck_size,
        "train_adapters_only": config.train_adapters_only,
    }
    chosen = [name for name, value in kinds.items() if value]
    if len(chosen) > 1:
        raise ValueError(
            f"{chosen[0]} is {kinds[chosen[0]]} and {chosen[1]} {kinds[chosen[1]]}; set one of them to 0 or false"
        )
    if config.lora_rank and "linear_pos" in config.lora_targets and config.attention_positions != "relative":
        raise ValueError(
            f"lora_targets has linear_pos, which layers with attention_positions={config.attention_positions!r} lack; "
            "leave it out"
        )
    if config.lora_rank and not config.lora_alpha:
        raise ValueError("lora_alpha must be above 0 with lora_rank: updates that count 0 times would learn nothing")


def _check_conformer(config: Wav2Vec2Config) -> None:
    """Refuses parts of conformers in other networks, and sizes that they cannot have."""
    if config.front_end == "log_mel" and (config.normalize_waveform or not config.feature_projection_norm):
        raise ValueError("front_end='log_mel' needs normalize_waveform=False and feature_projection_norm=True")
    if config.layer_kind != "conformer":
        for name, usual in (("front_end", "convolutions"), ("attention_positions", "none")):
            if getattr(config, name) != usual:
                raise ValueError(f"{name}={getattr(config, name)!r} needs layer_kind='conformer'")
    elif config.relative_position_buckets or config.attention_adapter_size or config.pos_conv_norm != "weight":
        raise ValueError(
            "relative_position_buckets, attention_adapter_size and pos_conv_norm='layer' need transformer layers, not "
            "layer_kind='conformer'"
        )
    if config.attention_positions == "rotary" and config.hidden_size // config.num_heads % 2:
        raise ValueError(f"rotary positions need heads of an even width, got {config.hidden_size // config.num_heads}")
    if config.attention_positions == "relative" and config.hidden_size % 2:
        raise ValueError(f"relative positions need an even hidden_size, got {config.hidden_size}")
    if not config.depthwise_kernel % 2:
        raise ValueError(f"depthwise_kernel must be odd, got {config.depthwise_kernel}")


def _check_length_adapters(config: Wav2Vec2Config) -> None:
    """Refuses layers behind the encoder that do not fit it, or that lose count of a row's frames."""
    if not config.num_length_adapters:
        if config.output_size or config.length_adapter_feed_forward:
            raise ValueError("output_size and length_adapter_feed_forward need num_length_adapters of at least 1")
        return
    kernel, stride, padding = config.adapter_step
    has_attention = config.length_adapter == "attention"
    if kernel // 2 != padding or (kernel != 3 and not has_attention):
        raise ValueError(
            f"length_adapter_kernel={kernel} with length_adapter_stride={stride} pads by {padding}, and transformers "
            "counts the frames of a row as if by another number; 3 and 2 are usual"
        )
    if has_attention and config.head_input_size % config.num_heads:
        raise ValueError(f"output_size must be a multiple of num_heads, got {config.output_size}")


def _check_num_parameters(config: Wav2Vec2Config) -> None:
    """Refuses sizes that are fine one by one and together ask for more memory than any machine has."""
    feed_forward = 2 * config.hidden_size * (config.intermediate_size + config.attention_adapter_size)
    layer = 4 * config.hidden_size**2 + feed_forward
    if config.layer_kind == "conformer":
        layer += feed_forward + config.hidden_size * (4 * config.hidden_size + config.depthwise_kernel)
        layer += config.hidden_size * (config.relative_key_left + config.relative_key_right)
    layer += 4 * config.hidden_size * config.bottleneck_size
    layer += len(config.lora_targets) * config.lora_rank * (config.hidden_size + config.intermediate_size)
    num_weights = config.num_layers * layer
    num_weights += config.pos_conv_depth * config.hidden_size**2 * config.pos_conv_kernel // config.pos_conv_groups
    num_weights += config.head_input_size * config.vocab_size + config.feature_size * config.hidden_size
    adapter = config.head_input_size * (4 * config.length_adapter_kernel + 4) + 2 * config.intermediate_size
    num_weights += config.num_length_adapters * config.head_input_size * adapter
    for size, before, kernel in zip(config.conv_dim, (1, *config.conv_dim), config.conv_kernel, strict=False):
        num_weights += size * before * kernel
    if num_weights > _MAX_PARAMETERS:
        raise ValueError(
            f"the sizes make about {num_weights:.1e} parameters, at most {_MAX_PARAMETERS:.0e} are supported: "
            f"hidden_size {config.hidden_size}, num_layers {config.num_layers}, conv_dim {list(config.conv_dim)} ..."
        )
