"""How the rows of a replica become microbatches, as numbers and in a graph."""

from __future__ import annotations

import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from engine.training.microbatches import divide, rows_of_replica

ROWS = st.integers(1, 200)


@given(ROWS, ROWS, st.integers(0, 40))
def test_microbatches_hold_every_row_with_as_little_padding_as_their_number_allows(num_rows, num_replicas, max_rows):
    rows = rows_of_replica(num_rows, num_replicas)
    assert rows * num_replicas >= num_rows > (rows - 1) * num_replicas
    count, size = divide(rows, 100, max_rows=max_rows, max_secs=0.0)
    assert count * size >= rows > (count - 1) * size and count * (size - 1) < rows
    assert size <= (max_rows or rows) and (max_rows or count == 1)
    # No fewer microbatches would do.
    assert not max_rows or (count - 1) * max_rows < rows


@given(ROWS, st.integers(1, 400_000), st.sampled_from([0.001, 1.0, 20.0]))
def test_a_limit_of_audio_holds_but_for_a_row_that_exceeds_it_alone(rows, num_samples, max_secs):
    count, size = divide(rows, num_samples, max_rows=1, max_secs=max_secs)
    fitting = max(int(max_secs * 16_000) // num_samples, 1)
    assert size <= fitting and count * size >= rows > (count - 1) * fitting


def test_a_graph_counts_as_python_does():
    def in_graph(rows, samples):
        return divide(rows, samples, max_rows=3, max_secs=0.0) + divide(rows, samples, max_rows=0, max_secs=0.01)

    traced = tf.function(in_graph, input_signature=[tf.TensorSpec([], tf.int32)] * 2, autograph=False)
    for rows in (1, 3, 7, 12):
        for samples in (20, 70, 200):
            assert [int(x) for x in traced(rows, samples)] == list(in_graph(rows, samples))
