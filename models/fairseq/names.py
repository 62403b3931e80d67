"""Translates the tensor names of fairseq and fairseq2 to those of transformers; shapes and layout are the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

# Prefixes of the network inside a fine-tuned model of fairseq, and what a wrapper for several devices adds.
_PREFIXES = ("module.", "w2v_encoder.w2v_model.")
_LAYER = r"^encoder\.layers\.(\d+)\."
_FEATURE_2 = r"^encoder_frontend\.feature_extractor\.layers\.(\d+)\."

# Pattern of the beginning of a name -> its translation. The first that matches counts.
_FAIRSEQ = {
    r"^w2v_encoder\.proj\.": "lm_head.",
    r"^feature_extractor\.conv_layers\.(\d+)\.0\.": r"feature_extractor.conv_layers.\1.conv.",
    r"^feature_extractor\.conv_layers\.(\d+)\.2\.(?:1\.)?": r"feature_extractor.conv_layers.\1.layer_norm.",
    r"^layer_norm\.": "feature_projection.layer_norm.",
    r"^post_extract_proj\.": "feature_projection.projection.",
    r"^mask_emb$": "masked_spec_embed",
    r"^encoder\.pos_conv\.0\.(weight_g|weight_v|weight|bias)$": r"encoder.pos_conv_embed.conv.\1",
    r"^encoder\.pos_conv\.0\.(parametrizations\..*)$": r"encoder.pos_conv_embed.conv.\1",
    # data2vec has several convolutions, one after another.
    r"^encoder\.pos_conv\.(\d+)\.0\.": r"encoder.pos_conv_embed.layers.\1.conv.",
    _LAYER + r"self_attn\.": r"encoder.layers.\1.attention.",
    _LAYER + r"self_attn_layer_norm\.": r"encoder.layers.\1.layer_norm.",
    _LAYER + r"fc1\.": r"encoder.layers.\1.feed_forward.intermediate_dense.",
    _LAYER + r"fc2\.": r"encoder.layers.\1.feed_forward.output_dense.",
}
_FAIRSEQ_2 = {
    _FEATURE_2 + r"conv\.": r"feature_extractor.conv_layers.\1.conv.",
    _FEATURE_2 + r"(?:layer|group)_norm\.": r"feature_extractor.conv_layers.\1.layer_norm.",
    r"^encoder_frontend\.post_extract_layer_norm\.": "feature_projection.layer_norm.",
    r"^encoder_frontend\.model_dim_proj\.": "feature_projection.projection.",
    r"^masker\.temporal_mask_embed$": "masked_spec_embed",
    r"^encoder_frontend\.pos_encoder\.conv\.": "encoder.pos_conv_embed.conv.",
    r"^encoder_frontend\.pos_encoder\.layers\.(\d+)\.conv\.": r"encoder.pos_conv_embed.layers.\1.conv.",
    # Post-norm models have it before the layers, pre-norm models after them under transformers' name.
    r"^encoder_frontend\.layer_norm\.": "encoder.layer_norm.",
    _LAYER + r"self_attn\.output_proj\.": r"encoder.layers.\1.attention.out_proj.",
    _LAYER + r"self_attn\.": r"encoder.layers.\1.attention.",
    _LAYER + r"self_attn_layer_norm\.": r"encoder.layers.\1.layer_norm.",
    _LAYER + r"ffn\.inner_proj\.": r"encoder.layers.\1.feed_forward.intermediate_dense.",
    _LAYER + r"ffn\.output_proj\.": r"encoder.layers.\1.feed_forward.output_dense.",
    _LAYER + r"ffn_layer_norm\.": r"encoder.layers.\1.final_layer_norm.",
}
# Translated names, as patterns, of what only pretraining uses beside the quantizer.
UNUSED = ("final_proj.*", "final_target_proj.*", "label_embs_concat", "target_glu.*", "input_quantizer.*", "_ema*")
_FAIRSEQ_2_PRETRAINING = ("quantizer.", "final_target_proj.")


def is_fairseq2(names: Iterable[str]) -> bool:
    """Returns whether the names are those of fairseq2, and not of fairseq."""
    return any(name.removeprefix("module.").startswith("encoder_frontend.") for name in names)


def translate(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns tensors under the names of transformers, without the backbone's prefix.

    Raises:
        ValueError: If two tensors get the same name.
    """
    rules = _FAIRSEQ
    if is_fairseq2(tensors):
        rules = dict(_FAIRSEQ_2)
        names = [name.removeprefix("module.") for name in tensors]
        if not any(name.startswith(_FAIRSEQ_2_PRETRAINING) for name in names):
            rules[r"^final_proj\."] = "lm_head."
    found: dict[str, Any] = {}
    for name, tensor in tensors.items():
        translated = _translate(name, rules)
        if translated in found:
            raise ValueError(f"two tensors are {translated}, the second is {name}; save the model again")
        found[translated] = tensor
    return found


def _translate(name: str, rules: Mapping[str, str]) -> str:
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    for pattern, translation in rules.items():
        if re.match(pattern, name):
            return re.sub(pattern, translation, name, count=1)
    return name
