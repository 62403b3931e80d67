"""Under mixed precision products are in half precision; what loses digits there is not, in the graph of an update."""

from __future__ import annotations

import pytest
import tensorflow as tf

from models.ops.attention_logits import softmax_dtype
from tests.helpers import equivalence
from tests.helpers.device_graph import operations
from tests.test_tpu import batch_specs

HALVES = (tf.bfloat16, tf.float16)
# The loss's recursion, statistics of norms, the gradient's norm, what the guard tests, and the optimizer.
WIDE = {"Log1p", "Max", "Mean", "Rsqrt", "Sqrt", "Log", "L2Loss", "IsFinite", "ResourceApplyAdam"}


@pytest.mark.parametrize(
    ("preset", "fused_ops", "precision", "more"),
    [
        ("base", "off", "mixed_bfloat16", {"RsqrtGrad"}),
        ("large_lv60", "on", "mixed_float16", set()),
    ],
)
def test_only_products_and_what_is_between_them_are_in_half_precision(preset, fused_ops, precision, more):
    model = {
        **equivalence.MODEL, "preset": preset, "conv_dim": (16,) * 7, "num_layers": 1, "layer_drop": 0.0,
        "fused_ops": fused_ops,
    }  # fmt: skip
    strategy = tf.distribute.OneDeviceStrategy("/cpu:0")
    trainer = equivalence.make_trainer(strategy, precision=precision, model=model)
    update = tf.function(trainer.update, autograph=False).get_concrete_function(batch_specs(2, 6400, num_labels=5))
    dtypes: dict[str, set[tf.DType]] = {}
    for _, op in operations(update):
        dtypes.setdefault(op.type, set()).update(tensor.dtype.base_dtype for tensor in (*op.inputs, *op.outputs))
    wide = WIDE | more
    assert wide <= set(dtypes)
    assert {name for name in wide if dtypes[name] & set(HALVES)} == set()
    # Attention's is as wide as its kernel needs it (tests/models/ops/test_attention_logits.py).
    (half,) = dtypes["MatMul"] & set(HALVES)
    assert dtypes["Softmax"] == {softmax_dtype(half)} and softmax_dtype(tf.float16) == tf.float32
    # Convolutions too, but for the grouped one, which float16 has not on CPUs.
    assert dtypes["MatMul"] == {half} and half in dtypes["Conv2D"]
