"""Operations as counted by formula and in the graph that TensorFlow makes of the same model."""

from __future__ import annotations

import math

import pytest
import tensorflow as tf

from benchmarks import flops
from models.wav2vec2.config import preset
from models.wav2vec2.model import Wav2Vec2ForCTC

ROWS, SAMPLES = 2, 12_000
SMALL = {
    "conv_dim": (32, 32), "conv_kernel": (400, 5), "conv_stride": (160, 2), "hidden_size": 48, "num_layers": 2,
    "num_heads": 4, "intermediate_size": 64, "pos_conv_kernel": 4, "pos_conv_groups": 2, "depthwise_kernel": 7,
    "mask_time_prob": 0.0, "layer_drop": 0.0, "fused_ops": "off",
}  # fmt: skip


def operations_in(graph):
    """Two for each multiply-add of the products and convolutions of a graph and of the functions that it calls."""
    total = 0
    for op in graph.get_operations():
        shapes = [tuple(tensor.shape) for tensor in op.inputs]
        if op.type in ("MatMul", "BatchMatMulV2"):
            is_transposed = op.get_attr("transpose_a" if op.type == "MatMul" else "adj_x")
            depth = shapes[0][-2 if is_transposed else -1]
            total += 2 * depth * math.prod(op.outputs[0].shape)
        elif op.type == "Conv2D":
            total += 2 * math.prod(shapes[1][:3]) * math.prod(op.outputs[0].shape)
        elif op.type == "DepthwiseConv2dNative":
            total += 2 * math.prod(shapes[1][:2]) * math.prod(op.outputs[0].shape)
        elif op.type == "RFFT":
            size = 512
            total += 2.5 * size * math.log2(size) * math.prod(op.outputs[0].shape[:-1])
    return total


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("base", {}),
        ("wavlm_base", {}),
        ("data2vec_audio_base", {}),
        ("conformer_rel_pos", {}),
        ("conformer_rope", {}),
        ("w2v_bert_base", {"relative_key_left": 5, "relative_key_right": 2}),
    ],
)
def test_operations_are_those_of_the_graph(monkeypatch, name, fields):
    # On a CPU the mask, and what is far to the left, are further channels of the product.
    for module in ("attention_logits", "operations"):
        monkeypatch.setattr(f"models.ops.{module}.on_cpu", lambda: False)
    # A group norm is computed together with the first convolution, as other products.
    config = preset(name, **{**SMALL, **fields, "feature_norm": "layer"})
    model = Wav2Vec2ForCTC(config=config)
    lengths = tf.constant([SAMPLES] * ROWS)
    call = tf.function(lambda waveform: model(waveform, lengths), autograph=False)
    found = operations_in(call.get_concrete_function(tf.TensorSpec([ROWS, SAMPLES])).graph)
    assert ROWS * flops.inference_flops(config, SAMPLES, num_rows=ROWS) == pytest.approx(found, rel=1e-6)


def test_a_log_mel_front_end_has_a_fourier_transform_and_a_product_for_each_window():
    config = preset("w2v_bert_base")
    of_window = 2.5 * 512 * 9 + 2 * 257 * 80
    assert flops.feature_encoder_flops(config, 16_000) == 98 * of_window
    assert flops.feature_encoder_flops(config, 399) == 0
    # Nothing of it is trained.
    wanted = flops.feature_encoder_flops(config, 16_000) + 3 * flops.context_flops(config, 16_000)
    assert flops.training_flops(config, 16_000, freeze_feature_encoder=False) == wanted


def test_rows_of_a_batch_share_the_keys_of_relative_positions():
    config = preset("conformer_rel_pos")
    alone, beside = (flops.context_flops(config, 32_000, num_rows=rows) for rows in (1, 2))
    frames, keys = 99, 2 * 2 * 99 * 1024**2
    assert alone - beside == pytest.approx(config.num_layers * keys / 2)
    assert config.num_frames(32_000) == frames
