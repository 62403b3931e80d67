"""Functions that XLA compiles as a whole."""

from __future__ import annotations

import tensorflow as tf

from common.whole_compilation import compile_whole, is_compiled_whole


def test_many_shapes_are_traced_without_a_warning(caplog):
    seen = []
    double = compile_whole(lambda x: seen.append((x.shape.as_list(), is_compiled_whole())) or 2 * x)
    for size in range(1, 9):
        assert double(tf.ones([size])).shape == [size]
    assert seen == [([size], True) for size in range(1, 9)]
    assert not is_compiled_whole()
    assert "retracing" not in caplog.text
