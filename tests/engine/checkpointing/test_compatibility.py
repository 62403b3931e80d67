"""What a checkpoint need not have, and what is not looked at; the rest is tested in test_checkpoints."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.checkpointing.compatibility import check_matches, open_checkpoint
from engine.workdir.folder import WorkdirError


@pytest.fixture
def saved(tmp_path):
    state = tf.train.Checkpoint(model=tf.train.Checkpoint(a=tf.Variable([1.0]), b=tf.Variable([2.0])))
    return state.write(str(tmp_path / "x"))


def test_only_what_tensorflow_counts_by_itself_may_be_missing(saved):
    model = tf.train.Checkpoint(a=tf.Variable([0.0]), b=tf.Variable([0.0]))
    state = tf.train.Checkpoint(model=model, checkpointed_runs=tf.Variable(0))
    assert state.save_counter is not None  # TensorFlow makes it when it is asked for
    check_matches(state, saved)
    state.scale = tf.Variable(0.0)
    with pytest.raises(WorkdirError, match="holds no value for scale"):
        check_matches(state, saved)


def test_a_variable_of_another_shape_is_named(saved):
    other = tf.train.Checkpoint(model=tf.train.Checkpoint(a=tf.Variable([0.0, 0.0]), b=tf.Variable([0.0])))
    with pytest.raises(WorkdirError, match=r"model/a has shape \(1,\) in the file, \(2,\) here"):
        check_matches(other, saved)


def test_what_is_left_out_is_not_looked_at(saved):
    state = tf.train.Checkpoint(model=tf.train.Checkpoint(a=tf.Variable([0.0])))
    check_matches(state, saved, leave_out=["model/b"])
    with pytest.raises(WorkdirError, match="holds model/b, for which there is no variable here"):
        check_matches(state, saved)


def test_bytes_that_are_no_checkpoint_are_one_line(tmp_path):
    (tmp_path / "x.index").write_bytes(b"\0" * 100)
    with pytest.raises(WorkdirError, match="x: not a readable checkpoint"):
        open_checkpoint(str(tmp_path / "x"))
