"""Table of architectures: the published ones and a tiny one for laptops, as fields that differ from BASE."""

from __future__ import annotations

from typing import Any

# Shared by all published 24-layer models: Baevski et al. 2020, https://arxiv.org/abs/2006.11477, section 4.2.
_LARGE: dict[str, Any] = {"hidden_size": 1024, "num_layers": 24, "num_heads": 16, "intermediate_size": 4096}

# Later large models have biases and layer norm in every convolution, and pre-norm transformer layers.
_STABLE: dict[str, Any] = {"conv_bias": True, "feature_norm": "layer", "stable_layer_norm": True}

_XLS_R_1B = {**_STABLE, "hidden_size": 1280, "num_layers": 48, "num_heads": 16, "intermediate_size": 5120}

# WavLM adds a gated relative position bias to attention.
_POSITIONS: dict[str, Any] = {"relative_position_buckets": 320, "relative_position_max_distance": 800}

# data2vec's position embedding is a stack of narrow convolutions, and its transformer is post-norm at every size.
_NARROW_POSITIONS: dict[str, Any] = {
    "feature_norm": "layer",
    "pos_conv_norm": "layer",
    "pos_conv_depth": 5,
    "pos_conv_kernel": 19,
}
# Conformers keep wav2vec 2.0's convolutions below, those of large models.
_CONFORMER: dict[str, Any] = {**_STABLE, "layer_kind": "conformer", "activation": "swish"}

# w2v-BERT reads a log-mel spectrogram, and its convolutions look back only.
_W2V_BERT: dict[str, Any] = {
    "front_end": "log_mel", "normalize_waveform": False, "layer_kind": "conformer", "activation": "swish",
    "attention_positions": "relative_key", "depthwise_norm": "layer", "depthwise_causal": True,
    "length_adapter": "attention",
}  # fmt: skip

# Maps a name to the fields of `models.wav2vec2.config.Wav2Vec2Config` that differ from its defaults, which are "base".
PRESETS: dict[str, dict[str, Any]] = {
    # facebook/wav2vec2-base, wav2vec2-base-960h
    "base": {},
    # About a million parameters, for laptops and tests. Three convolutions instead of seven give the same 20 ms hop,
    # because a small model would spend most of its time in the first ones. Filterbank initialization, layer norm in
    # the feature encoder and pre-norm layers train from scratch far faster.
    "tiny": {
        "conv_dim": (160, 128, 128),
        "conv_kernel": (256, 5, 3),
        "conv_stride": (80, 2, 2),
        "conv_init": "gabor",
        "conv_bias": True,
        "feature_norm": "layer",
        "hidden_size": 128,
        "num_layers": 4,
        "num_heads": 4,
        "intermediate_size": 512,
        "pos_conv_kernel": 32,
        "pos_conv_groups": 8,
        "stable_layer_norm": True,
        "initializer_range": 0.05,
    },
    # facebook/wav2vec2-large, wav2vec2-large-960h
    "large": _LARGE,
    # facebook/wav2vec2-large-lv60, wav2vec2-large-960h-lv60-self
    "large_lv60": {**_LARGE, **_STABLE},
    # facebook/wav2vec2-large-robust (Hsu et al. 2021, https://arxiv.org/abs/2104.01027)
    "robust": {**_LARGE, **_STABLE},
    # facebook/wav2vec2-large-xlsr-53 (Conneau et al. 2020, https://arxiv.org/abs/2006.13979)
    "xlsr_53": {**_LARGE, **_STABLE},
    # facebook/wav2vec2-xls-r-300m, -1b and -2b (Babu et al. 2021, https://arxiv.org/abs/2111.09296, table 2)
    "xls_r_300m": {**_LARGE, **_STABLE},
    "xls_r_1b": _XLS_R_1B,
    "xls_r_2b": {**_STABLE, "hidden_size": 1920, "num_layers": 48, "num_heads": 16, "intermediate_size": 7680},
    # facebook/mms-300m and mms-1b (Pratap et al. 2023, https://arxiv.org/abs/2305.13516), and mms-1b-all, mms-1b-fl102
    # and mms-1b-l1107, which have an adapter for each language.
    "mms_300m": {**_LARGE, **_STABLE},
    "mms_1b": _XLS_R_1B,
    "mms_1b_all": {**_XLS_R_1B, "attention_adapter_size": 16},
    # omniASR W2V and CTC, 300M to 7B, in fairseq2 (Omnilingual ASR team 2025, https://arxiv.org/abs/2511.09690)
    "omniasr_300m": {**_LARGE, **_STABLE},
    "omniasr_1b": _XLS_R_1B,
    "omniasr_3b": {**_STABLE, "hidden_size": 2048, "num_layers": 60, "num_heads": 16, "intermediate_size": 8192},
    "omniasr_7b": {**_STABLE, "hidden_size": 2048, "num_layers": 128, "num_heads": 16, "intermediate_size": 8192},
    # facebook/hubert-base-ls960 and hubert-large-ll60k (Hsu et al. 2021, https://arxiv.org/abs/2106.07447): the same
    # networks as wav2vec 2.0, pretrained with another objective.
    "hubert_base": {},
    "hubert_large": {**_LARGE, **_STABLE},
    # microsoft/wavlm-base, wavlm-base-plus and wavlm-large (Chen et al. 2021, https://arxiv.org/abs/2110.13900)
    "wavlm_base": _POSITIONS,
    "wavlm_large": {**_LARGE, **_POSITIONS, "feature_norm": "layer", "stable_layer_norm": True},
    # microsoft/unispeech-large-1500h-cv (Wang et al. 2021, https://arxiv.org/abs/2101.07597), and
    # microsoft/unispeech-sat-base and unispeech-sat-large (Chen et al. 2021, https://arxiv.org/abs/2110.05752): wav2vec
    # 2.0's networks, pretrained with other objectives.
    "unispeech_large": {**_LARGE, **_STABLE},
    "unispeech_sat_base": {},
    "unispeech_sat_large": {**_LARGE, **_STABLE},
    # facebook/data2vec-audio-base, data2vec-audio-large and theirs that are fine-tuned on LibriSpeech (Baevski et al.
    # 2022, https://arxiv.org/abs/2202.03555)
    "data2vec_audio_base": _NARROW_POSITIONS,
    "data2vec_audio_large": {**_LARGE, **_NARROW_POSITIONS},
    # facebook/wav2vec2-conformer-rel-pos-large and -rope-large (Wang et al. 2020, https://arxiv.org/abs/2010.05171,
    # with the network of https://arxiv.org/abs/2005.08100)
    "conformer_rel_pos": {**_LARGE, **_CONFORMER, "attention_positions": "relative"},
    "conformer_rope": {**_LARGE, **_CONFORMER, "attention_positions": "rotary"},
    # facebook/w2v-bert-2.0 (Seamless Communication 2023, https://arxiv.org/abs/2312.05187, section 3.1)
    "w2v_bert_2": {**_LARGE, **_W2V_BERT},
    # The same network at the size of "base".
    "w2v_bert_base": _W2V_BERT,
}
