"""The workers beside the chief: they restore what it restores and save nothing."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.checkpointing.follower import FollowingCheckpoints
from engine.workdir.folder import WorkdirError


def test_a_follower_restores_the_chiefs_checkpoint_and_writes_nothing(tmp_path):
    path = tf.train.Checkpoint(step=tf.Variable(7)).save(str(tmp_path / "ckpt"))
    before = sorted(tmp_path.iterdir())
    step = tf.Variable(0)
    follower = FollowingCheckpoints(
        checkpoint=tf.train.Checkpoint(step=step), path=path, init_fn=lambda: pytest.fail("there is one to restore")
    )
    assert isinstance(follower, tf.train.CheckpointManager), "orbit.Controller asserts it"
    assert follower.restore_or_initialize() == path
    assert int(step.numpy()) == 7
    assert follower.save() is None
    assert sorted(tmp_path.iterdir()) == before


def test_without_a_checkpoint_it_starts_as_the_chief_does():
    called = []
    follower = FollowingCheckpoints(checkpoint=tf.train.Checkpoint(), path="", init_fn=lambda: called.append(1))
    assert follower.restore_or_initialize() is None
    assert called == [1]


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    follower = FollowingCheckpoints(
        checkpoint=tf.train.Checkpoint(step=tf.Variable(0)), path=str(tmp_path / "ckpt-3"), init_fn=lambda: None
    )
    with pytest.raises(WorkdirError, match="ckpt-3"):
        follower.restore_or_initialize()
