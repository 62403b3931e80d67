"""Parts of a network that do not go together, each refused by the name of its field."""

from __future__ import annotations

import pytest

from models.wav2vec2.config import preset


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("w2v_bert_base", {"normalize_waveform": True}, "needs normalize_waveform=False"),
        ("base", {"front_end": "log_mel", "normalize_waveform": False}, "front_end='log_mel' needs layer_kind"),
        ("base", {"attention_positions": "rotary"}, "attention_positions='rotary' needs layer_kind='conformer'"),
        ("conformer_rope", {"relative_position_buckets": 8}, "need transformer layers"),
        ("conformer_rope", {"num_heads": 1024}, "heads of an even width, got 1"),
        ("conformer_rel_pos", {"depthwise_kernel": 4}, "depthwise_kernel must be odd, got 4"),
        ("base", {"output_size": 24}, "need num_length_adapters of at least 1"),
        ("base", {"num_length_adapters": 1, "length_adapter_kernel": 2}, "length_adapter_kernel=2"),
        ("w2v_bert_base", {"num_length_adapters": 1, "length_adapter_stride": 4}, "length_adapter_stride=4"),
        ("w2v_bert_base", {"num_length_adapters": 1, "output_size": 25}, "output_size must be a multiple of num_heads"),
        ("base", {"num_length_adapters": 2000}, "num_length_adapters must be from 0 to 1000, got 2000"),
        ("w2v_bert_2", {"relative_key_left": -1}, "relative_key_left must be from 0"),
        ("base", {"lora_rank": 2, "lora_alpha": 0.0}, "lora_alpha must be above 0"),
        ("base", {"train_adapters_only": True}, "train_adapters_only is true, but attention_adapter_size is 0"),
        ("mms_1b_all", {"train_adapters_only": True, "bottleneck_size": 4}, "and train_adapters_only True; set one of"),
        ("xls_r_2b", {"lora_rank": 2**20}, r"about 9.7e\+11 parameters"),
        ("xls_r_2b", {"bottleneck_size": 2**20}, r"about 3.9e\+11 parameters"),
    ],
)
def test_parts_that_do_not_go_together_are_refused(name, fields, message):
    with pytest.raises(ValueError, match=message):
        preset(name, **fields)
