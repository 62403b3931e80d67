"""Depthwise convolution: its values, and a kernel gradient that equals TensorFlow's."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.ops.depthwise import depthwise_convolution, fast_depthwise_convolution


# From the second shape on they share a trace that knows no sizes.
@pytest.mark.parametrize(("size", "width"), [(6, 5), (4, 3), (8, 7)])
def test_each_channel_has_its_filter_and_both_gradients_are_tensorflows(size, width):
    rng = np.random.default_rng(0)
    x, kernel, upstream = (
        tf.constant(rng.normal(size=shape).astype(np.float32))
        for shape in ((3, 9 + width, size), (width, size), (3, 10, size))
    )
    wanted = sum(x.numpy()[:, k : k + 10] * kernel.numpy()[k] for k in range(width))
    gradients = []
    for function in (depthwise_convolution, fast_depthwise_convolution):
        with tf.GradientTape() as tape:
            tape.watch([x, kernel])
            found = function(x, kernel)
        np.testing.assert_allclose(found, wanted, atol=1e-5)
        gradients.append(tape.gradient(found, [x, kernel], output_gradients=upstream))
    for a, b in zip(*gradients, strict=True):
        assert a.shape == b.shape and np.abs(a).max() > 1.0
        np.testing.assert_allclose(a, b, atol=1e-4)
