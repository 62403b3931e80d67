"""Kernels of a trace added up by region."""

from __future__ import annotations

import re

import pytest

from benchmarks.update_profile import Kernel, attribute, draw, read_kernels, table

MS = 10**9  # picoseconds
MODEL = "wav2vec2_for_ctc/wav2vec2/"
LAYER = f"{MODEL}encoder/encoder_layers_3/encoder_layers_3_"


def kernel(start, end, name, kind="", module="", thread="a"):
    return Kernel(thread, start * MS, end * MS, name, kind, module)


def test_kernels_are_added_up_by_region():
    times = attribute(
        [
            # A call holds a product and a piece of a compiled program: 10 ms of its own are left.
            kernel(0, 100, f"{LAYER}attention/PartitionedCall", "PartitionedCall"),
            kernel(10, 70, f"{LAYER}attention/PartitionedCall/MatMul", "_MklBatchMatMulV2"),
            kernel(70, 100, "", module="probs_dropped_1"),
            # The same program on a thread that does not say who called.
            kernel(0, 5, "", module="probs_dropped_1", thread="b"),
            # Gradients of compiled regions have no name: their contents tell the two apart.
            kernel(100, 120, "PartitionedCall_7/gradients/grad/MatMul", "_MklBatchMatMulV2"),
            kernel(120, 130, "PartitionedCall_7/gradients/grad/PartitionedCall", "PartitionedCall"),
            kernel(121, 130, "", module="a_inference__drop_9__.5"),
            kernel(130, 140, "PartitionedCall_8/gradients/grad/PartitionedCall", "PartitionedCall"),
            kernel(130, 139, "", module="a_inference__drop_9__.5"),
            kernel(140, 170, f"gradient_tape/{LAYER}attention/{LAYER[-17:]}attention_qkv/MatMul/MatMul", "_MklMatMul"),
            kernel(170, 180, f"{LAYER}intermediate/BiasAdd", "_MklNativeFusedMatMul"),
            # Called by the layer itself, as its norms are: the program's name tells whose it is.
            kernel(201, 208, f"{LAYER[:-17]}PartitionedCall_1", "PartitionedCall"),
            kernel(202, 206, "", module="a_inference__gelu_forward_2__.63"),
            kernel(180, 200, f"{MODEL}feature_encoder/feature_encoder_1/conv1d", "_MklNativeConv2D"),
            kernel(212, 214, f"gradient_tape/{MODEL}feature_projection/MatMul", "_MklMatMul"),
            kernel(214, 217, "cond/ctc_loss/CTCLoss", "CTCLoss"),
            kernel(217, 222, "AddN_4", "AddN"),
            kernel(200, 201, "cond/then/_0/cond/AdamW/ResourceApplyAdam", "ResourceApplyAdam"),
        ]
    )
    found = {one.region: (round(1e3 * one.secs), round(1e3 * one.product_secs)) for one in times}
    assert found == {
        "attention: softmax, dropout, context": (100 + 5 + 20 + 10, 60 + 20),
        "attention: projections": (30, 30),
        "feature encoder": (20, 20),
        "norms, residuals": (10 + 3 + 5, 0),
        "feed-forward": (10 + 4, 10),
        "CTC": (3, 0),
        "projection, masks, head": (2, 2),
        "optimizer": (1, 0),
    }
    assert [one.region for one in times][:3] == [*found][:3]  # largest first


def test_a_conformers_kernels_have_regions():
    times = attribute(
        [
            kernel(0, 20, f"{LAYER}first/{LAYER[-17:]}first_intermediate/BiasAdd", "_MklNativeFusedMatMul"),
            kernel(20, 24, f"{LAYER}second/PartitionedCall", "PartitionedCall"),
            kernel(24, 30, f"{LAYER}convolution/{LAYER[-17:]}convolution_gated/MatMul", "_MklMatMul"),
            kernel(30, 37, f"{LAYER}convolution/PartitionedCall/depthwise", "DepthwiseConv2dNative"),
            kernel(37, 39, "", module="a_inference__glu_backward_9__.5"),
            kernel(39, 42, "", module="a_inference__swish_backward_9__.5"),
            kernel(42, 47, f"{LAYER}attention/MatMul", "_MklBatchMatMulV2"),
            kernel(47, 48, f"{LAYER}first_norm/PartitionedCall", "PartitionedCall"),
            kernel(48, 50, f"{MODEL}feature_encoder/rfft", "RFFT"),
        ]
    )
    assert {one.region: (round(1e3 * one.secs), round(1e3 * one.product_secs)) for one in times} == {
        "feed-forward": (20 + 4 + 3, 20),
        "convolution module": (6 + 7 + 2, 6 + 7),
        "attention: softmax, dropout, context": (5, 5),
        "norms, residuals": (1, 0),
        "feature encoder": (2, 2),
    }


def test_a_profile_is_a_table_and_a_picture(tmp_path):
    times = attribute([kernel(0, 75, f"{LAYER}output/BiasAdd", "_MklNativeFusedMatMul"), kernel(75, 80, "CTCLoss")])
    assert table(times, pass_secs=0.1).splitlines()[2:] == [
        "| feed-forward | 75 | 75.0 % | 75 | 0 |",
        "| CTC | 5 | 5.0 % | 0 | 5 |",
        "| between kernels | 20 | 20.0 % | 0 | 20 |",
        "| **all** | 100 | 100.0 % | 75 | 25 |",
    ]
    draw(times, tmp_path / "bars.svg", title="an update")
    picture = (tmp_path / "bars.svg").read_text()
    texts = re.findall(r"<text [^>]*>([^<]+)</text>", picture)
    assert {"an update", "feed-forward", "CTC", "75 ms", "5 ms", "all else"} <= set(texts)
    # The bars that are drawn: from left to right edge, the longest fifteen times the other.
    corners = re.findall(r'd="M ([\d.]+) [\d.]+ \nL ([\d.]+) [^"]+"\s+clip-path', picture)
    widths = sorted(float(right) - float(left) for left, right in corners)
    assert widths == pytest.approx([0.0, 0.0, widths[-1] / 15, widths[-1]], abs=0.01) and widths[-1] > 100
    draw(times, tmp_path / "again.svg", title="an update")
    assert (tmp_path / "again.svg").read_text() == picture
    with pytest.raises(OSError, match="has no trace"):
        read_kernels(tmp_path)
