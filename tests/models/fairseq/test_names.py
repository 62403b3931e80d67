"""Names of fairseq and fairseq2; tests/models/fairseq/test_checkpoint.py translates whole models."""

from __future__ import annotations

import pytest

from models.fairseq.names import is_fairseq2, translate


@pytest.mark.parametrize(
    ("theirs", "wanted"),
    [
        ("w2v_encoder.w2v_model.encoder.layers.11.self_attn.k_proj.bias", "encoder.layers.11.attention.k_proj.bias"),
        ("encoder.pos_conv.0.weight_g", "encoder.pos_conv_embed.conv.weight_g"),
        # data2vec: several convolutions, one after another.
        ("encoder.pos_conv.0.0.weight", "encoder.pos_conv_embed.layers.0.conv.weight"),
        ("encoder.pos_conv.4.0.bias", "encoder.pos_conv_embed.layers.4.conv.bias"),
        ("feature_extractor.conv_layers.0.2.weight", "feature_extractor.conv_layers.0.layer_norm.weight"),
        ("feature_extractor.conv_layers.6.2.1.bias", "feature_extractor.conv_layers.6.layer_norm.bias"),
        ("quantizer.vars", "quantizer.vars"),
    ],
)
def test_a_name_of_fairseq(theirs, wanted):
    assert list(translate({theirs: 0})) == [wanted]
    assert not is_fairseq2([theirs])


def test_the_last_projection_of_fairseq2_is_a_head_only_without_a_quantizer():
    encoder = {"encoder_frontend.model_dim_proj.weight": 0, "final_proj.weight": 1}
    assert translate(encoder)["lm_head.weight"] == 1
    assert translate({**encoder, "final_target_proj.weight": 2})["final_proj.weight"] == 1


def test_two_tensors_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two tensors are masked_spec_embed, the second is module.mask_emb"):
        translate({"mask_emb": 0, "module.mask_emb": 1})
