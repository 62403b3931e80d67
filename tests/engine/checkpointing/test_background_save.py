"""Saves that training does not wait for: the same bytes at the same updates, and as safe as one waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import orbit
import pytest
import tensorflow as tf
import tf_keras

from engine.checkpointing import background_save, manifest, restore
from engine.checkpointing import manager as checkpoints
from engine.checkpointing.manager import CheckpointManager, WorkdirError
from engine.training.optimizer import build_optimizer

LONGEST_WAIT_SECS = 300.0  # a test machine may stop a process for minutes


class Gate:
    """Holds every save in the background once its values are copied and before a byte is written.

    Attributes:
        reached: Set when a save has come so far.
        opened: Set to let saves pass.
        came_in_time: Whether every save that was held was let pass, and none gave up.
    """

    def __init__(self):
        self.reached, self.opened, self.came_in_time = threading.Event(), threading.Event(), True


@pytest.fixture
def gate(monkeypatch):
    gate, copy_values = Gate(), background_save.CopyValues.__call__

    def held(self, tensors):
        copies = copy_values(self, tensors)
        gate.reached.set()
        gate.came_in_time &= gate.opened.wait(LONGEST_WAIT_SECS)
        return copies

    monkeypatch.setattr(background_save.CopyValues, "__call__", held)
    yield gate
    gate.opened.set()


def make_state(value=1.0):
    """Weights with an optimizer that updates them in place, and one variable of every other kind that a run saves."""
    layer = tf_keras.layers.Dense(3)
    layer.build((None, 4))
    layer.kernel.assign(tf.fill([4, 3], value))
    optimizer = build_optimizer(name="adam", learning_rate=0.1)
    optimizer.build(layer.trainable_variables)
    common = {"trainable": False, "aggregation": tf.VariableAggregation.ONLY_FIRST_REPLICA}
    return tf.train.Checkpoint(
        model=tf.train.Checkpoint(layer=layer),
        optimizer=optimizer,
        global_step=tf.Variable(0, dtype=tf.int64, **common),
        half=tf.Variable(tf.fill([2], tf.cast(value, tf.bfloat16)), **common),
        flag=tf.Variable(value > 1.0, **common),
        total=tf.Variable(value, trainable=False, synchronization=tf.VariableSynchronization.ON_READ,
                          aggregation=tf.VariableAggregation.SUM),
    )  # fmt: skip


def update(state):
    """One update: what the optimizer's kernels do, and assignments."""
    layer = state.model.layer
    state.optimizer.apply_gradients([(tf.ones_like(v), v) for v in layer.trainable_variables])
    state.global_step.assign_add(1)
    state.half.assign_add([1.0, 2.0])
    state.flag.assign(tf.logical_not(state.flag))


def make_manager(state, folder, *, keep=2, in_background=True, every_updates=1, **arguments):
    return CheckpointManager(
        checkpoint=state, directory=folder, global_step=state.global_step, every_updates=every_updates, keep=keep,
        in_background=in_background, **arguments,
    )  # fmt: skip


def contents(folder, name="ckpt-*"):
    """{file: bytes} of the checkpoints there, manifests included."""
    return {path.name: path.read_bytes() for path in sorted(Path(folder).glob(name))}


@pytest.mark.parametrize("strategy", ["one_device", "two_replicas"])
def test_what_is_written_beside_updates_is_to_the_byte_what_is_written_while_they_wait(
    tmp_path, gate, strategy, request
):
    strategy = (
        request.getfixturevalue("two_replicas")
        if strategy == "two_replicas"
        else tf.distribute.OneDeviceStrategy("/cpu:0")
    )
    with strategy.scope():
        state = make_state(value=1.5)
    for _ in range(3):
        update(state)
    waited = make_manager(state, tmp_path / "waited", in_background=False)
    assert waited.save(checkpoint_number=3) == str(tmp_path / "waited/ckpt-3")
    state.save_counter.assign(0)  # both are a first save
    beside = make_manager(state, tmp_path / "beside")
    assert beside.save(checkpoint_number=3) is None
    before = [variable.numpy() for variable in state.model.layer.variables]
    for _ in range(4):
        update(state)
    state.total.assign(7.0)
    assert manifest.list_checkpoints(tmp_path / "beside") == []
    assert all((a != b.numpy()).all() for a, b in zip(before, state.model.layer.variables, strict=True))
    gate.opened.set()
    beside.finish()
    assert gate.came_in_time and beside.latest_checkpoint == str(tmp_path / "beside/ckpt-3")
    found, wanted = contents(tmp_path / "beside"), contents(tmp_path / "waited")
    assert list(found) == ["ckpt-3.data-00000-of-00001", "ckpt-3.index", "ckpt-3.manifest.json"]
    assert found == wanted
    # Today's way of restoring reads it, into another state.
    fresh = make_state()
    assert make_manager(fresh, tmp_path / "beside").restore_or_initialize() == beside.latest_checkpoint
    np.testing.assert_array_equal(fresh.model.layer.kernel.numpy(), before[0])
    assert (int(fresh.global_step), bool(fresh.flag), fresh.half.numpy().tolist()) == (3, False, [4.5, 7.5])


class Trainer(orbit.StandardTrainer):
    """Updates a state, and opens a gate after one of the updates."""

    def __init__(self, state, gate=None, open_after=0):
        dataset = tf.data.Dataset.from_tensors(0).repeat()
        super().__init__(dataset, orbit.StandardTrainerOptions(use_tf_while_loop=False, use_tf_function=False))
        self._state, self._gate, self._open_after = state, gate, open_after

    def train_step(self, iterator):
        next(iterator)
        update(self._state)
        if self._gate and int(self._state.global_step) == self._open_after:
            assert self._gate.reached.is_set()
            self._gate.opened.set()


def make_controller(state, manager, **trainer):
    return orbit.Controller(
        global_step=state.global_step, trainer=Trainer(state, **trainer), steps_per_loop=1, checkpoint_manager=manager
    )


def test_updates_go_on_while_a_checkpoint_is_written_and_the_end_waits_for_it(tmp_path, gate):
    state = make_state()
    with make_manager(state, tmp_path, every_updates=3) as manager:
        # The save of update 3 can only end after update 5: a training that waited for it would never come there.
        make_controller(state, manager, gate=gate, open_after=5).train(7)
    assert gate.came_in_time
    assert [restore.step_of(path) for path in manifest.list_checkpoints(tmp_path)] == [6, 7]
    assert [manifest.read_manifest(path)["step"] for path in manager.checkpoints] == [6, 7]


def test_a_save_waits_for_the_one_under_way_and_one_without_interval_is_whole_on_return(tmp_path, gate):
    state = make_state()
    manager = make_manager(state, tmp_path)
    whole = []
    for step, check_interval in ((1, True), (2, True), (3, False)):
        update(state)
        # The second finds the first held, and has to wait until somebody else lets it pass.
        threading.Timer(0.2, gate.opened.set).start()
        manager.save(checkpoint_number=step, check_interval=check_interval)
        whole.append([Path(path).name for path in manifest.list_checkpoints(tmp_path)])
    assert whole[1][0] == "ckpt-1" and whole[2] == ["ckpt-2", "ckpt-3"]
    assert [manifest.find_damage(path) for path in manager.checkpoints] == [None, None]
    assert gate.came_in_time


def test_the_oldest_goes_only_when_the_new_one_has_its_sums(tmp_path, monkeypatch):
    state = make_state()
    manager = make_manager(state, tmp_path, keep=1)
    update(state)
    manager.save(checkpoint_number=1)
    manager.finish()
    seen, write = [], manifest.write_manifest

    def note(path, about):
        seen.append(sorted(contents(tmp_path, "*.index")))
        write(path, about)
        seen.append(sorted(contents(tmp_path, "*.json")))

    monkeypatch.setattr(manifest, "write_manifest", note)
    update(state)
    manager.save(checkpoint_number=2)
    manager.finish()
    assert seen == [["ckpt-1.index", "ckpt-2.index"], ["ckpt-1.manifest.json", "ckpt-2.manifest.json"]]
    assert sorted(contents(tmp_path)) == ["ckpt-2.data-00000-of-00001", "ckpt-2.index", "ckpt-2.manifest.json"]


@pytest.fixture
def full_disk(tmp_path, gate, monkeypatch):
    """One whole checkpoint, and a disk that turned out to have no room for the next when training had gone on."""
    state = make_state()
    manager = make_manager(state, tmp_path, every_updates=10)
    state.global_step.assign(10)
    assert manager.save(checkpoint_number=10, check_interval=False)
    held = background_save.CopyValues.__call__

    def fail(self, tensors):
        held(self, tensors)
        (tmp_path / "ckpt-20_temp").mkdir()
        raise OSError(28, "No space left on device", "ckpt-20_temp/part-0")

    monkeypatch.setattr(background_save.CopyValues, "__call__", fail)
    state.global_step.assign(20)
    assert manager.save(checkpoint_number=20) is None
    gate.opened.set()
    manager._work._thread.join()
    return state, manager


@pytest.mark.parametrize("asked", ["between", "at the next", "at the end", "on restoring", "leaving"])
def test_what_fails_beside_the_training_is_raised_by_the_next_who_asks(tmp_path, full_disk, asked):
    state, manager = full_disk
    state.global_step.assign(30 if asked == "at the next" else 21)
    with pytest.raises(OSError, match="No space left"):
        if asked == "on restoring":
            manager.restore_or_initialize()
        elif asked == "leaving":
            with manager:
                pass
        else:
            manager.save(checkpoint_number=int(state.global_step), check_interval=asked != "at the end")
    names = ["checkpoint", "ckpt-10.data-00000-of-00001", "ckpt-10.index", "ckpt-10.manifest.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    assert make_manager(make_state(), tmp_path).restore_or_initialize() == str(tmp_path / "ckpt-10")
    manager.finish()  # said once


def test_where_only_the_sums_have_no_room_neither_checkpoint_goes(tmp_path, monkeypatch):
    state = make_state()
    manager = make_manager(state, tmp_path, keep=1)
    update(state)
    assert manager.save(checkpoint_number=1, check_interval=False)

    def fail(path, about):
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(manifest, "write_manifest", fail)
    update(state)
    with pytest.raises(OSError, match="No space left"):
        manager.save(checkpoint_number=2)
        manager.finish()
    assert [Path(path).name for path in manifest.list_checkpoints(tmp_path)] == ["ckpt-1", "ckpt-2"]
    # All of its bytes are there, which TensorFlow's own sums confirm.
    fresh = make_state()
    assert make_manager(fresh, tmp_path).restore_or_initialize() == str(tmp_path / "ckpt-2")
    assert int(fresh.global_step) == 2


def test_what_fails_while_the_values_are_copied_is_raised_at_once(tmp_path, monkeypatch):
    state = make_state()
    manager = make_manager(state, tmp_path)
    update(state)

    def fail(**arguments):
        raise tf.errors.ResourceExhaustedError(None, None, "out of memory")

    monkeypatch.setattr(tf.raw_ops, "DeepCopy", fail)
    with pytest.raises(tf.errors.ResourceExhaustedError, match="out of memory"):
        manager.save(checkpoint_number=1)
    assert contents(tmp_path) == {}


def test_where_training_fails_too_the_save_is_waited_for_and_the_training_s_error_counts(full_disk, monkeypatch):
    _, manager = full_disk
    said = []
    monkeypatch.setattr(checkpoints.logging, "error", lambda text, *values: said.append(text % values))
    with pytest.raises(WorkdirError, match="the first"), manager:
        raise WorkdirError("the first")
    assert (
        len(said) == 1
        and "the checkpoint being saved could not be written either: " in said[0]
        and "No space left" in said[0]
    )


def test_a_second_ctrl_c_does_not_wait(tmp_path, gate):
    state = make_state()
    update(state)
    with pytest.raises(KeyboardInterrupt), make_manager(state, tmp_path) as manager:
        manager.save(checkpoint_number=1)
        raise KeyboardInterrupt
    assert not gate.opened.is_set() and manifest.list_checkpoints(tmp_path) == []
    gate.opened.set()
    manager.finish()
    assert gate.came_in_time


def test_the_copies_have_memory_of_their_own(tmp_path):
    variable = tf.Variable([1.0, 2.0])

    class Shardable:
        checkpoint_key, slice_spec, tensor = "key", "", tf.identity(variable.read_value())

    (shard,) = background_save.CopyValues(lambda: None)([Shardable])
    copy, read = (np.asarray(memoryview(tensor)) for tensor in (shard["key"][""], Shardable.tensor))
    assert copy.tolist() == read.tolist() == [1.0, 2.0]
    assert np.shares_memory(read, np.asarray(memoryview(tf.identity(Shardable.tensor))))  # else this test sees nothing
    assert not np.shares_memory(copy, read)


def test_values_that_are_read_in_a_graph_are_not_copied_and_training_waits(tmp_path):
    taken = []
    policy = background_save.CopyValues(lambda: taken.append(1))

    class Shardable:
        checkpoint_key, slice_spec = "key", ""

    @tf.function
    def trace():
        Shardable.tensor = tf.constant(1.0)
        (shard,) = policy([Shardable])
        assert shard["key"][""] is Shardable.tensor
        return 0

    trace()
    assert taken == []


KILLED = """
import os, sys, time
from engine.checkpointing import background_save as background
from engine.checkpointing import manifest as integrity
from tests.engine.checkpointing.test_background_save import make_manager, make_state, update
folder, moment = sys.argv[1:]
state = make_state(value=2.0)
update(state)
manager = make_manager(state, folder, keep=1)
manager.save(checkpoint_number=1)
manager.finish()
def hold(*arguments):
    print("now", flush=True)
    time.sleep(600)
if moment == "copied":
    copy = background.CopyValues.__call__
    background.CopyValues.__call__ = lambda self, tensors: (copy(self, tensors), hold())
elif moment == "written":
    integrity.write_manifest = hold
else:
    write = integrity.write_manifest
    integrity.write_manifest = lambda *arguments: (write(*arguments), hold())
update(state)
manager.save(checkpoint_number=2)
update(state)
time.sleep(600)
"""


@pytest.mark.parametrize(("moment", "newest"), [("copied", 1), ("written", 2), ("summed", 2)])
def test_kill_9_during_a_save_leaves_a_whole_checkpoint_and_the_one_before_until_then(tmp_path, moment, newest):
    folder = tmp_path / "checkpoints"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder), moment],
        cwd=Path(__file__).resolve().parents[3],
        env={**os.environ, "TF_USE_LEGACY_KERAS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "now\n"
    process.send_signal(signal.SIGKILL)
    assert process.wait(timeout=LONGEST_WAIT_SECS) == -signal.SIGKILL
    assert (folder / "ckpt-1.manifest.json").exists(), "the old one went before the new one counted"
    wanted = make_state(value=2.0)
    for _ in range(newest):
        update(wanted)
    state = make_state()
    assert make_manager(state, folder).restore_or_initialize() == str(folder / f"ckpt-{newest}")
    np.testing.assert_array_equal(state.model.layer.kernel.numpy(), wanted.model.layer.kernel.numpy())
    assert int(state.global_step) == newest


def test_what_a_save_will_take_is_known_from_its_size_and_then_from_those_before(tmp_path, monkeypatch):
    state = make_state()
    manager = make_manager(state, tmp_path)
    assert 1.0 < manager.expected_save_secs < 1.1  # a few hundred bytes
    monkeypatch.setattr(checkpoints, "_ASSUMED_BYTES_PER_SEC", 4.0)
    # Kernel and bias with two moments each, and the variables beside them.
    assert manager.expected_save_secs > (4 * 3 + 3) * 3
    now = [0.0]
    write = manifest.write_manifest
    monkeypatch.setattr(manifest, "write_manifest", lambda *args: (now.__setitem__(0, now[0] + 8.0), write(*args)))
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    manager.save(check_interval=False)
    assert manager.expected_save_secs == 1.5 * 8.0 + 1.0


def test_a_save_that_was_given_up_can_be_made_again_at_the_same_update(tmp_path):
    state = make_state()
    update(state)
    manager = make_manager(state, tmp_path)
    versions = iter(["a", "b"])
    assert manager.save_from_beside(lambda: next(versions)) is None
    assert contents(tmp_path) == {} and not list(tmp_path.glob("*_temp"))
    assert manager.save_from_beside(lambda: None) is None  # in the middle of an update
    assert manager.save(checkpoint_number=1, check_interval=False) == str(tmp_path / "ckpt-1")
    assert manager.save_from_beside(lambda: "c") is None  # nothing is new
    update(state)
    assert manager.save_from_beside(lambda: "c") == str(tmp_path / "ckpt-2")
    assert not make_manager(state, tmp_path / "waiting", in_background=False).save_from_beside(lambda: "c")


def test_changes_are_open_from_their_begin_to_their_end_and_each_is_another():
    changes = background_save.Changes()
    seen = [changes.count]
    for act, is_open in ((changes.begin, True), (changes.begin, True), (changes.end, False), (changes.end, False)):
        act()
        assert changes.is_open == is_open
        seen.append(changes.count)
    assert seen == [0, 1, 1, 2, 2]
