"""Reads the architecture of a checkpoint of fairseq from the config in the file, or else from the shapes."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from typing import Any

# Name of a model in fairseq -> type in transformers; a name that ends in ctc wraps one of the others.
_MODEL_TYPES = {"wav2vec2": "wav2vec2", "hubert": "hubert", "data2vec_audio": "data2vec-audio"}
_CTC_MODELS = ("wav2vec_ctc", "hubert_ctc")
_DEFAULT_CONVOLUTIONS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512, 2, 2)] * 2"
_MAX_CONVOLUTIONS = 1_000

# Field of transformers -> field of fairseq and its default there.
_FIELDS: dict[str, tuple[str, Any]] = {
    "conv_bias": ("conv_bias", False),
    "hidden_size": ("encoder_embed_dim", 768),
    "num_hidden_layers": ("encoder_layers", 12),
    "num_attention_heads": ("encoder_attention_heads", 12),
    "intermediate_size": ("encoder_ffn_embed_dim", 3072),
    "num_conv_pos_embeddings": ("conv_pos", 128),
    "num_conv_pos_embedding_groups": ("conv_pos_groups", 16),
    "conv_pos_batch_norm": ("conv_pos_batch_norm", False),
    "do_stable_layer_norm": ("layer_norm_first", False),
    "hidden_act": ("activation_fn", "gelu"),
    "hidden_dropout": ("dropout", 0.1),
    "attention_dropout": ("attention_dropout", 0.1),
    "activation_dropout": ("activation_dropout", 0.0),
    "feat_proj_dropout": ("dropout_input", 0.0),
    "layerdrop": ("encoder_layerdrop", 0.0),
    "mask_time_prob": ("mask_prob", 0.65),
    "mask_time_length": ("mask_length", 10),
    "mask_feature_prob": ("mask_channel_prob", 0.0),
    "mask_feature_length": ("mask_channel_length", 10),
}
# Fields that fine-tuning sets again, under its own names.
_TUNED = {
    "hidden_dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "feat_proj_dropout": "dropout_input",
    "final_dropout": "final_dropout",
    "layerdrop": "layerdrop",
    "mask_time_prob": "mask_prob",
    "mask_time_length": "mask_length",
    "mask_feature_prob": "mask_channel_prob",
    "mask_feature_length": "mask_channel_length",
}
# Fields with any other value mean another network.
_REQUIRED = {"quantize_input": False, "layer_type": "transformer"}
# Attention heads of the published models of a width, which no shape tells.
_HEADS = {768: 12, 1024: 16, 1280: 16, 1920: 16, 2048: 16}


def read_config(fields: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
    """Returns a fairseq config as fields of transformers, and whether recordings are normalized.

    Args:
        fields: `cfg` of the file, or its older `args`, as `plain` returns it.

    Raises:
        ValueError: If it is of another network, or damaged; names the field.
    """
    tuned: Mapping[str, Any] | None = None
    model, task = _parts(fields)
    if _name_of(model) in _CTC_MODELS:
        tuned = model
        if not isinstance(model.get("w2v_args"), Mapping):
            raise ValueError("its config lacks w2v_args, the config of the pretrained network; give --preset")
        model, _ = _parts(model["w2v_args"])
    if _name_of(model) not in _MODEL_TYPES:
        raise ValueError(
            f"its model is {_name_of(model)[:60]!r}; supported are {', '.join((*_MODEL_TYPES, *_CTC_MODELS))}"
        )
    for name, wanted in _REQUIRED.items():
        if model.get(name, wanted) != wanted:
            raise ValueError(f"{name} is {str(model[name])[:60]!r}, which is not supported; only {wanted!r} is")
    found = {theirs: model.get(ours, default) for theirs, (ours, default) in _FIELDS.items()}
    found |= _convolutions(model)
    found["model_type"] = _MODEL_TYPES[_name_of(model)]
    if found["model_type"] == "data2vec-audio":
        _check_data2vec(model)
    found |= _positions(model, found)
    if tuned is not None:
        found |= {theirs: tuned[ours] for theirs, ours in _TUNED.items() if tuned.get(ours) is not None}
        found["apply_spec_augment"] = tuned.get("apply_mask") is not False
    return found, task.get("normalize", (tuned or model).get("normalize", False)) is True


def _parts(fields: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Returns the fields of the model and of the task; older files have both in one flat object."""
    model = fields.get("model")
    task = fields.get("task")
    return (
        model if isinstance(model, Mapping) else fields,
        task if isinstance(task, Mapping) else fields,
    )


def _name_of(model: Mapping[str, Any]) -> str:
    return str(model.get("_name") or model.get("arch") or "")


def _positions(model: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of the convolutional position embedding where it has more than one layer."""
    depth, width = model.get("pos_conv_depth", 1), found["num_conv_pos_embeddings"]
    if not isinstance(depth, int) or (depth == 1 and found["model_type"] != "data2vec-audio"):
        return {}
    if found["model_type"] != "data2vec-audio":
        raise ValueError(f"pos_conv_depth is {depth}, which is not supported for {found['model_type']}; only 1 is")
    if not isinstance(width, int):
        return {}  # refused like every other value of a wrong type
    kernel = max(3, width // max(depth, 1))
    return {"num_conv_pos_embeddings": depth, "conv_pos_kernel_size": kernel}


def _check_data2vec(model: Mapping[str, Any]) -> None:
    """Refuses what fairseq can build as data2vec, and what the type of transformers has no field for."""
    for name, default, wanted in (("layer_norm_first", False, False), ("extractor_mode", "default", "layer_norm")):
        if (value := model.get(name, default)) != wanted:
            raise ValueError(
                f"{name} is {str(value)[:60]!r}, which is not supported for data2vec-audio; only {wanted!r} is"
            )
    if model.get("pos_conv_depth", 1) == 1:
        raise ValueError("pos_conv_depth is 1, which is not supported for data2vec-audio; its models have 5")


def _convolutions(model: Mapping[str, Any]) -> dict[str, Any]:
    text = model.get("conv_feature_layers") or _DEFAULT_CONVOLUTIONS
    try:
        layers = _list_of(ast.parse(str(text), mode="eval").body)
        columns = [list(column) for column in zip(*layers, strict=True)]
        dims, kernels, strides = columns
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"conv_feature_layers is {str(text)[:60]!r}, not a list of (dim, kernel, stride)") from error
    mode = model.get("extractor_mode", "default")
    if mode not in ("default", "layer_norm"):
        raise ValueError(f"extractor_mode is {str(mode)[:60]!r}; supported are 'default' and 'layer_norm'")
    return {
        "conv_dim": dims,
        "conv_kernel": kernels,
        "conv_stride": strides,
        "num_feat_extract_layers": len(layers),
        "feat_extract_norm": "layer" if mode == "layer_norm" else "group",
    }


def _list_of(node: ast.expr) -> list[tuple[int, ...]]:
    """Evaluates lists of tuples of whole numbers, their sums and multiples; fairseq evaluates any Python here."""
    if isinstance(node, ast.List):
        return [tuple(_number(item) for item in _elements(part)) for part in node.elts]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _list_of(node.left) + _list_of(node.right)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
        number, layers = (node.right, node.left) if isinstance(node.right, ast.Constant) else (node.left, node.right)
        found = _list_of(layers)
        if len(found) * (count := _number(number)) > _MAX_CONVOLUTIONS:
            raise ValueError("too many convolutions")
        return found * count
    raise ValueError("not a list")


def _elements(node: ast.expr) -> list[ast.expr]:
    if not isinstance(node, (ast.Tuple, ast.List)):
        raise ValueError("not a tuple")
    return node.elts


def _number(node: ast.expr) -> int:
    if not isinstance(node, ast.Constant) or type(node.value) is not int:
        raise ValueError("not a whole number")
    return node.value


def read_shapes(
    shapes: Mapping[str, tuple[int, ...]], *, is_pre_norm: bool | None = None
) -> tuple[dict[str, Any], bool]:
    """Returns the architecture that shapes tell as fields of transformers, and whether recordings are normalized.

    No shape tells the strides of the convolutions and the number of attention heads: they are those of all published
    models with these kernels and this width.

    Args:
        shapes: Translated name -> shape.
        is_pre_norm: Whether transformer layers are pre-norm; None if only the convolutions tell.

    Raises:
        ValueError: If there is no published model of these kernels or this width, or a tensor is missing.
    """
    try:
        convolutions = [shapes[f"feature_extractor.conv_layers.{i}.conv.weight"] for i in range(_count(shapes, _CONV))]
        hidden_size, _ = shapes["feature_projection.projection.weight"]
        _, per_group, kernel = next(shapes[name] for name in _POSITIONS if name in shapes)
        intermediate_size, _ = shapes["encoder.layers.0.feed_forward.intermediate_dense.weight"]
        dims, _, kernels = (list(column) for column in zip(*convolutions, strict=True))
        groups = hidden_size // per_group
    except (KeyError, ValueError, ZeroDivisionError, StopIteration) as error:
        raise ValueError("its tensors are not those of a wav2vec 2.0 of fairseq or fairseq2") from error
    if kernels != [10, 3, 3, 3, 3, 2, 2] or hidden_size not in _HEADS:
        raise ValueError(
            f"no published model has hidden_size {hidden_size} with convolutions {kernels}, and the file does not tell "
            "its strides and attention heads; give --preset, a name or a config.json"
        )
    has_layer_norm = "feature_extractor.conv_layers.1.layer_norm.weight" in shapes
    fields = {
        "model_type": "wav2vec2",
        "conv_dim": dims,
        "conv_kernel": kernels,
        "conv_stride": [5, 2, 2, 2, 2, 2, 2],
        "conv_bias": "feature_extractor.conv_layers.0.conv.bias" in shapes,
        "feat_extract_norm": "layer" if has_layer_norm else "group",
        "hidden_size": hidden_size,
        "num_hidden_layers": _count(shapes, _LAYERS),
        "num_attention_heads": _HEADS[hidden_size],
        "intermediate_size": intermediate_size,
        "num_conv_pos_embeddings": kernel,
        "num_conv_pos_embedding_groups": groups,
        # All published models with layer norm in the convolutions are pre-norm, and none of the others.
        "do_stable_layer_norm": has_layer_norm if is_pre_norm is None else is_pre_norm,
    }
    return fields, has_layer_norm


_POSITIONS = (
    "encoder.pos_conv_embed.conv.weight_v",
    "encoder.pos_conv_embed.conv.parametrizations.weight.original1",
)
_CONV = re.compile(r"feature_extractor\.conv_layers\.(\d+)\.conv\.weight")
_LAYERS = re.compile(r"encoder\.layers\.(\d+)\.layer_norm\.weight")


def _count(shapes: Mapping[str, Any], pattern: re.Pattern[str]) -> int:
    """Returns how many layers have a tensor of this name, by the highest number."""
    return 1 + max((int(match[1]) for match in map(pattern.fullmatch, shapes) if match), default=-1)
