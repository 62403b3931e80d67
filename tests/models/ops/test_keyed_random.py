"""Keyed random numbers: uniform, reproducible, and independent of the batch they are drawn in."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from models.ops.keyed_random import UpdateRandom, dropout, keep_of, uniform_of


def numbers(*, seed=1, update=3, rows=(10, 11, 12), stream=5, width=1000):
    random = UpdateRandom(seed=seed, update=tf.constant(update, tf.int64), row_ids=tf.constant(rows, tf.int64))
    return random.uniform_rows([len(rows), width], stream=stream).numpy()


def test_a_row_keeps_its_numbers_in_any_company():
    together = numbers(rows=(10, 11, 12))
    np.testing.assert_array_equal(numbers(rows=(11,))[0], together[1])
    np.testing.assert_array_equal(numbers(rows=(12, 99, 10, 11))[[2, 3, 0]], together)


def test_an_element_keeps_its_number_in_a_wider_tensor():
    """Heads, queries and keys of attention: the bucket's width must not change a row's dropout."""
    random = UpdateRandom(seed=1, update=tf.constant(3), row_ids=tf.constant([10, 11]))
    narrow = random.uniform_rows([2, 4, 7, 7], stream=5).numpy()
    wide = random.uniform_rows([2, 4, 12, 12], stream=5).numpy()
    np.testing.assert_array_equal(narrow, wide[:, :, :7, :7])
    # 1152 numbers of 24 bits: a repeat would be a key that forgets a coordinate.
    assert len(np.unique(wide)) == wide.size


def test_neighbours_in_every_dimension_are_unrelated():
    values = UpdateRandom(seed=1, update=tf.constant(3), row_ids=tf.range(8)).uniform_rows([8, 8, 40, 40], stream=5)
    values = values.numpy() - 0.5
    assert abs(values.mean()) < 0.005  # 102,400 numbers: standard error 0.0009
    for axis in range(4):
        first, second = np.delete(values, -1, axis), np.delete(values, 0, axis)
        assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.02


def test_graph_and_eager_agree():
    @tf.function
    def in_graph(update):
        random = UpdateRandom(seed=1, update=update, row_ids=tf.constant([10, 11, 12], tf.int64))
        return random.uniform_rows([3, 1000], stream=5)

    np.testing.assert_array_equal(in_graph(tf.constant(3, tf.int64)).numpy(), numbers())


def test_seed_update_row_and_stream_each_change_all_numbers():
    base = numbers()
    for other in (numbers(seed=2), numbers(update=4), numbers(stream=6), numbers(rows=(20, 21, 22))):
        assert np.mean(base == other) < 0.01
        assert abs(np.corrcoef(base.ravel(), other.ravel())[0, 1]) < 0.06


def test_numbers_are_uniform_in_the_unit_interval():
    values = numbers(rows=tuple(range(20)), width=5000)
    assert values.min() >= 0.0
    assert values.max() < 1.0
    # 100,000 numbers: the mean's standard error is 0.0009, a tenth's share has one of 0.001.
    assert abs(values.mean() - 0.5) < 0.005
    shares = np.histogram(values, bins=10, range=(0, 1))[0] / values.size
    np.testing.assert_allclose(shares, 0.1, atol=0.005)
    # Neighbours within a row and rows with neighbouring keys are not related.
    assert abs(np.corrcoef(values[:, :-1].ravel(), values[:, 1:].ravel())[0, 1]) < 0.02
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 0.02


def test_one_number_for_the_whole_update_does_not_depend_on_the_rows():
    def draw(rows):
        return float(UpdateRandom(seed=1, update=tf.constant(3), row_ids=tf.constant(rows)).uniform(stream=2))

    assert draw([1, 2]) == draw([7])
    assert 0.0 <= draw([1]) < 1.0


def test_dropout_zeroes_its_share_and_keeps_the_mean():
    random = UpdateRandom(seed=1, update=tf.constant(0), row_ids=tf.range(10))
    dropped = dropout(tf.ones([10, 100, 50]), 0.2, random, stream=1).numpy()
    assert set(np.unique(dropped)) == {0.0, np.float32(1.25)}
    assert abs(np.mean(dropped == 0.0) - 0.2) < 0.01
    assert abs(dropped.mean() - 1.0) < 0.02


def test_dropout_without_random_numbers_returns_its_input():
    x = tf.ones([2, 3])
    assert dropout(x, 0.5, None, stream=1) is x


@pytest.mark.parametrize("rate", [0.0, 1e-9, 0.1, 1 / 3, 0.5, 0.999999])
def test_what_is_kept_is_what_the_numbers_say(rate):
    keys = UpdateRandom(seed=1, update=tf.constant(3), row_ids=tf.range(300)).vector_keys([300, 1000], stream=5)
    np.testing.assert_array_equal(keep_of(keys, 1000, rate), uniform_of(keys, 1000) >= rate)


def test_a_rate_that_keeps_nothing_is_refused():
    with pytest.raises(ValueError, match=r"dropout rate must be in \[0, 1\), got 1.0"):
        keep_of(tf.zeros([2], tf.uint32), 4, 1.0)


def test_dropout_in_bfloat16_keeps_the_mean():
    """The factor 1 / 0.9 rounded to bfloat16 is 0.0016 too small; rounding the results alone errs to both sides."""
    x = tf.cast(tf.range(128, 256)[tf.newaxis] / 128, tf.bfloat16)
    random = UpdateRandom(seed=1, update=tf.constant(3), row_ids=tf.range(1))
    kept = tf.cast(dropout(x, 0.1, random, stream=5), tf.float32).numpy()
    is_kept = kept > 0
    ratios = kept[is_kept] / tf.cast(x, tf.float32).numpy()[is_kept]
    assert is_kept.sum() > 100
    assert abs(ratios.mean() - 1 / 0.9) < 4e-4


def test_views_of_a_row_have_numbers_of_their_own_and_the_first_those_of_a_single_one():
    def views(rows):
        random = UpdateRandom(seed=1, update=tf.constant(3), row_ids=tf.constant(rows, tf.int64), num_views=2)
        return random.uniform_rows([2 * len(rows), 1000], stream=5).numpy().reshape([2, len(rows), 1000])

    both = views((10, 11, 12))
    np.testing.assert_array_equal(both[0], numbers())
    np.testing.assert_array_equal(views((11,))[:, 0], both[:, 1])
    flat = both.reshape([6, 1000])
    correlation = np.corrcoef(flat) - np.eye(6)
    assert len(np.unique(flat)) > 5990 and abs(correlation).max() < 0.12
    other = [numbers(rows=(row,), stream=stream)[0] for row in (10, 11) for stream in range(60)]
    assert not any((view == row).mean() > 0.01 for view in both[1] for row in other)
