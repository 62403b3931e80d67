"""What the handler does where there is one process; the agreement among several needs several."""

from __future__ import annotations

import os
import signal

import pytest
import tensorflow as tf

from engine.checkpointing.manager import CheckpointManager
from engine.common.signals import StopOnSignal, StopTraining
from engine.distributed.preemption import SaveAllIfPreempted


def make_manager(folder, value, step):
    state = tf.train.Checkpoint(weight=tf.Variable(value), global_step=step)
    return state, CheckpointManager(checkpoint=state, directory=folder, global_step=step, every_updates=100, keep=2)


@pytest.fixture
def handlers_come_back():
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def make_action(manager, step, stop, any_worker):
    # No jobs: one process, in which nothing has to be agreed upon.
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(tf.train.ClusterSpec({}))
    return SaveAllIfPreempted(
        cluster_resolver=resolver, manager=manager, global_step=step, stop=stop, any_worker=any_worker
    )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_signal_saves_between_updates_and_stops_with_our_status(tmp_path, handlers_come_back, number, status):
    step = tf.Variable(0, dtype=tf.int64)
    state, manager = make_manager(tmp_path, 1.0, step)
    with StopOnSignal() as stop:
        stop.defer()
        action = make_action(manager, step, stop, any_worker=bool)
        step.assign(7)
        action()
        assert not stop.requested and manager.latest_checkpoint is None
        os.kill(os.getpid(), number)
        state.weight.assign(2.0)
        with pytest.raises(StopTraining, match=signal.Signals(number).name):
            for _ in range(3):
                step.assign_add(1)
                action()
        assert (stop.requested, stop.exit_status) == (True, status)
    saved = int(step.numpy())
    assert manager.latest_checkpoint == str(tmp_path / f"ckpt-{saved}")
    # A run of one process goes on from it, and the other way round.
    fresh_step = tf.Variable(0, dtype=tf.int64)
    fresh, again = make_manager(tmp_path, 0.0, fresh_step)
    again.restore_or_initialize()
    assert (float(fresh.weight), int(fresh_step)) == (2.0, saved)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (None, 143)])
def test_an_evaluation_is_left_by_all_when_one_has_a_signal(tmp_path, handlers_come_back, number, status):
    """With None the signal has come to another process alone."""
    step = tf.Variable(7, dtype=tf.int64)
    _, manager = make_manager(tmp_path, 1.0, step)
    told = []

    def any_worker(is_so):
        told.append(is_so)
        return is_so or (number is None and len(told) == 2)

    with StopOnSignal() as stop:
        stop.defer()
        action = make_action(manager, step, stop, any_worker)
        action.between_batches()
        if number is not None:
            os.kill(os.getpid(), number)
        with pytest.raises(StopTraining, match="with all processes"):
            action.between_batches()
        assert (told, stop.exit_status) == ([False, number is not None], status)
