"""Saving at fixed updates, restoring only what matches, one best checkpoint, weights alone."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import orbit
import pytest
import tensorflow as tf
import tf_keras

from engine.checkpointing import manager as checkpoints
from engine.checkpointing import manifest as integrity
from engine.checkpointing import restore
from engine.checkpointing.best import BestCheckpoint
from engine.checkpointing.manager import CheckpointManager, WorkdirError
from engine.training.optimizer import build_optimizer


class _Model(tf_keras.Model):
    """Two layers in a list, one of them shared, and a head."""

    def __init__(self, num_layers=2, size=2, num_tokens=3, value=1.0):
        super().__init__()
        self.blocks = [tf_keras.layers.Dense(size, name=f"block_{i}") for i in range(num_layers)]
        self.last = self.blocks[-1]
        self.head = tf_keras.layers.Dense(num_tokens, name="head")
        for layer in [*self.blocks, self.head]:
            layer.build((None, size))
        for variable in self.variables:
            variable.assign(tf.fill(variable.shape, value))


def _state(value=1.0, **sizes):
    """Model, optimizer and counter, built; the slots hold `value` too."""
    model = _Model(value=value, **sizes)
    optimizer = build_optimizer(name="adam", learning_rate=0.1)
    optimizer.build(model.trainable_variables)
    for slot in optimizer.variables[1:]:
        slot.assign(tf.fill(slot.shape, value))
    step = tf.Variable(0, dtype=tf.int64)
    return tf.train.Checkpoint(model=model, optimizer=optimizer, global_step=step)


def _manager(state, folder, *, every_updates=10, keep=2, **arguments):
    return CheckpointManager(
        checkpoint=state,
        directory=folder,
        global_step=state.global_step,
        every_updates=every_updates,
        keep=keep,
        **arguments,
    )


def _values(state):
    return [v.numpy() for v in [*state.model.variables, *state.optimizer.variables]]


class _Counter(orbit.StandardTrainer):
    """Trains nothing; counts."""

    def __init__(self, step):
        dataset = tf.data.Dataset.from_tensors(0).repeat()
        super().__init__(dataset, orbit.StandardTrainerOptions(use_tf_while_loop=False))
        self._step = step

    def train_step(self, iterator):
        next(iterator)
        self._step.assign_add(1)


def _train(folder, steps, *, every_updates, steps_per_loop=1, until=None):
    """Runs the controller; returns (where it started, updates at which it saved)."""
    state = _state()
    manager = _manager(state, folder, every_updates=every_updates, keep=99)
    controller = orbit.Controller(
        global_step=state.global_step,
        trainer=_Counter(state.global_step),
        steps_per_loop=steps_per_loop,
        checkpoint_manager=manager,
    )
    start = int(state.global_step.numpy())
    before = set(manager.checkpoints)
    controller.train(until or steps, checkpoint_at_completion=until is None)
    saved = [path for path in manager.checkpoints if path not in before]
    return start, [restore.step_of(path) for path in saved]


def test_controller_saves_at_multiples_and_at_the_end(tmp_path):
    assert _train(tmp_path, 9, every_updates=4) == (0, [4, 8, 9])


def test_resumed_run_saves_at_the_same_updates(tmp_path):
    # Stopped by a signal at 6, where it saves out of turn.
    assert _train(tmp_path, 6, every_updates=4) == (0, [4, 6])
    assert _train(tmp_path, 13, every_updates=4) == (6, [8, 12, 13])


def test_finished_run_saves_nothing_twice(tmp_path):
    assert _train(tmp_path, 8, every_updates=4) == (0, [4, 8])
    assert _train(tmp_path, 8, every_updates=4) == (8, [])


def test_loop_that_steps_over_a_multiple_saves_after_it(tmp_path):
    # 3, 6 (past 4), 9 (past 8), 12.
    assert _train(tmp_path, 12, every_updates=4, steps_per_loop=3) == (0, [6, 9, 12])


def test_only_the_latest_are_kept(tmp_path):
    state = _state()
    manager = _manager(state, tmp_path, every_updates=1, keep=2)
    for _ in range(4):
        state.global_step.assign_add(1)
        manager.save(checkpoint_number=int(state.global_step.numpy()))
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["ckpt-3.index", "ckpt-4.index"]


def test_everything_is_restored_from_the_latest(tmp_path):
    state = _state(value=2.0)
    state.global_step.assign(20)
    _manager(state, tmp_path).save(checkpoint_number=20)
    other = _state(value=1.0)
    manager = _manager(other, tmp_path)
    assert manager.restore_or_initialize() == str(tmp_path / "ckpt-20")
    assert int(other.global_step.numpy()) == 20
    for restored, saved in zip(_values(other), _values(state), strict=True):
        np.testing.assert_array_equal(restored, saved)
    assert (_values(other)[0] == 2.0).all()
    assert manager.save(check_interval=False) is None  # Nothing new since.


def test_without_a_checkpoint_the_start_is_initialized(tmp_path):
    calls = []
    manager = _manager(_state(), tmp_path, init_fn=lambda: calls.append(1))
    assert manager.restore_or_initialize() is None
    assert calls == [1]


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_layers": 3}, r"ckpt-1: holds no value for model/blocks/\d/kernel \(2, 2\) \(and \d+ more"),
        ({"num_layers": 1}, r"ckpt-1: holds model/blocks/\d/\w+, for which there is no variable"),
        ({"num_tokens": 5}, r"ckpt-1: model/head/kernel has shape \(2, 3\) in the file, \(2, 5\) here"),
    ],
)
def test_checkpoint_of_another_model_is_refused_untouched(tmp_path, sizes, message):
    _manager(_state(value=2.0), tmp_path).save(check_interval=False)
    other = _state(**sizes)
    with pytest.raises(WorkdirError, match=message) as caught:
        _manager(other, tmp_path).restore_or_initialize()
    assert "\n" not in str(caught.value)
    assert all((value == 1.0).all() for value in _values(other) if value.dtype == np.float32 and value.ndim)


def test_controller_refuses_it_too(tmp_path):
    _manager(_state(), tmp_path).save(check_interval=False)
    state = _state(num_layers=3)
    with pytest.raises(WorkdirError, match="holds no value for model/blocks/"):
        orbit.Controller(
            global_step=state.global_step,
            trainer=_Counter(state.global_step),
            steps_per_loop=1,
            checkpoint_manager=_manager(state, tmp_path),
        )


def test_slots_of_other_variables_are_noticed(tmp_path):
    _manager(_state(), tmp_path).save(check_interval=False)
    state = _state()
    frozen = build_optimizer(name="adam", learning_rate=0.1)
    frozen.build(state.model.head.trainable_variables)
    state.optimizer = frozen
    with pytest.raises(WorkdirError, match="ckpt-1: .*optimizer/"):
        _manager(state, tmp_path).restore_or_initialize()


def test_part_that_the_file_lacks_is_noticed(tmp_path):
    _manager(_state(), tmp_path).save(check_interval=False)
    state = _state()
    state.loss_scale = tf.Variable(1.0)
    with pytest.raises(WorkdirError, match=r"holds no value for loss_scale \(\);"):
        _manager(state, tmp_path).restore_or_initialize()


def _save(folder, *steps):
    """Checkpoints whose every value is their step."""
    for step in steps:
        state = _state(value=float(step))
        state.global_step.assign(step)
        _manager(state, folder).save(checkpoint_number=step)


def _damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["ckpt-20.index", "ckpt-20.data-00000-of-00001"])
@pytest.mark.parametrize("with_manifest", [True, False])
def test_a_damaged_newest_checkpoint_is_named_set_aside_and_the_one_before_used(
    tmp_path, monkeypatch, file, with_manifest
):
    said = []
    monkeypatch.setattr(checkpoints.logging, "error", lambda text, *values: said.append(text % values))
    _save(tmp_path, 10, 20)
    if not with_manifest:
        (tmp_path / "ckpt-20.manifest.json").unlink()
    _damage(tmp_path / file)
    state = _state()
    manager = _manager(state, tmp_path)
    assert manager.restore_or_initialize() == str(tmp_path / "ckpt-10")
    assert float(state.model.head.kernel[0, 0]) == 10.0
    assert len(said) == 1
    assert said[0].startswith(f"{tmp_path}/ckpt-20 is damaged: ") and f"continuing from {tmp_path}/ckpt-10" in said[0]
    assert (tmp_path / "damaged" / file).exists()
    # The run goes on, and saves the same update anew.
    state.global_step.assign(20)
    assert manager.save(checkpoint_number=20) == str(tmp_path / "ckpt-20")
    assert _manager(_state(), tmp_path).latest_checkpoint == str(tmp_path / "ckpt-20")


def test_where_every_checkpoint_is_damaged_nothing_begins_anew(tmp_path):
    _save(tmp_path, 10, 20)
    before = sorted(path.name for path in tmp_path.iterdir())
    for step in (10, 20):
        _damage(tmp_path / f"ckpt-{step}.index")
    for _ in range(2):
        with pytest.raises(WorkdirError, match="all checkpoints are damaged .ckpt-20.index does not match") as caught:
            _manager(_state(), tmp_path)
        assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == before


@pytest.mark.parametrize("content", [None, "", "no such thing", 'model_checkpoint_path: "ckpt-10"\n'])
def test_a_lost_or_stale_list_of_checkpoints_does_not_lose_them(tmp_path, content):
    _save(tmp_path, 10, 20)
    (tmp_path / "checkpoint").unlink()
    if content is not None:
        (tmp_path / "checkpoint").write_text(content)
    state = _state()
    manager = _manager(state, tmp_path)
    assert manager.restore_or_initialize() == str(tmp_path / "ckpt-20")
    # What is older than the newest two still goes when new ones come.
    state.global_step.assign(30)
    manager.save(checkpoint_number=30)
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["ckpt-20.index", "ckpt-30.index"]
    assert sorted(path.name for path in tmp_path.glob("*.json")) == ["ckpt-20.manifest.json", "ckpt-30.manifest.json"]


def test_a_save_that_fails_leaves_the_checkpoint_before_it_and_no_litter(tmp_path, monkeypatch):
    _save(tmp_path, 10)
    before = sorted(path.name for path in tmp_path.iterdir())
    state = _state()
    manager = _manager(state, tmp_path)
    manager.restore_or_initialize()
    state.global_step.assign(20)

    def fail(prefix, options):
        (tmp_path / "ckpt-20_temp").mkdir()
        raise tf.errors.ResourceExhaustedError(None, None, "ckpt-20_temp/part-0; No space left on device")

    monkeypatch.setattr(state, "_write", fail)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        manager.save(checkpoint_number=20)
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert _manager(_state(), tmp_path).restore_or_initialize() == str(tmp_path / "ckpt-10")


def test_a_manifest_tells_what_it_was_given_and_the_origin_is_checked_before_anything_changes(tmp_path):
    state = _state(value=3.0)
    state.global_step.assign(10)
    _manager(state, tmp_path, about={"data": "x"}).save(checkpoint_number=10)
    manifest = integrity.read_manifest(str(tmp_path / "ckpt-10"))
    assert (manifest["step"], manifest["data"]) == (10, "x")

    def refuse(path):
        raise WorkdirError(f"not from {path}")

    state = _state()
    with pytest.raises(WorkdirError, match="not from .*ckpt-10"):
        _manager(state, tmp_path, check_origin=refuse).restore_or_initialize()
    assert float(state.model.head.kernel[0, 0]) == 1.0


def test_damaged_weights_are_refused_in_one_line_and_a_damaged_best_is_replaced(tmp_path):
    state = _state(value=2.0)
    state.global_step.assign(5)
    _best(state, tmp_path / "best").save_if_better(0.3, metric="dev/wer")
    _damage(tmp_path / "best/ckpt-5.data-00000-of-00001")
    model = _Model()
    with pytest.raises(WorkdirError, match="ckpt-5 is damaged: ckpt-5.data-00000-of-00001 does not match"):
        restore.restore_model(model, tmp_path)
    assert float(model.head.kernel[0, 0]) == 1.0
    best = _best(state, tmp_path / "best")
    assert best.value is None
    assert best.save_if_better(0.9, metric="dev/wer")
    restore.restore_model(model, tmp_path)
    assert float(model.head.kernel[0, 0]) == 2.0


def test_checkpoint_of_another_tool_is_refused(tmp_path):
    path = str(tmp_path / "plain")
    tf.raw_ops.SaveV2(prefix=path, tensor_names=["weight"], shape_and_slices=[""], tensors=[tf.zeros([2])])
    with pytest.raises(WorkdirError, match="plain: not written by tf.train.Checkpoint"):
        restore.restore_model(_Model(), path)


@pytest.mark.parametrize("numbers", [{"every_updates": 0}, {"keep": 0}])
def test_numbers_that_would_save_nothing_are_refused(tmp_path, numbers):
    with pytest.raises(ValueError, match=r"must be at least 1$"):
        _manager(_state(), tmp_path, **numbers)


def _best(state, folder, **arguments):
    return BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=state.model),
        directory=folder,
        global_step=state.global_step,
        **arguments,
    )


def test_best_keeps_one_checkpoint_by_value(tmp_path):
    state = _state()
    best = _best(state, tmp_path)
    assert best.value is None
    saved = []
    for step, value in enumerate([0.5, 0.7, 0.4, float("nan"), 0.4, 0.45], start=1):
        state.global_step.assign(step)
        state.model.head.bias.assign([float(step)] * 3)
        saved.append(best.save_if_better(value, metric="dev/wer"))
    assert saved == [True, False, True, False, False, False]
    assert best.value == 0.4
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-3.index"]
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "metric": "dev/wer",
        "value": 0.4,
        "step": 3,
        "weights": "raw",
    }
    model = _Model()
    path = restore.restore_model(model, tmp_path)
    np.testing.assert_array_equal(model.head.bias.numpy(), [3.0] * 3)
    assert restore.step_of(path) == 3  # From its number: the counter is not in it.


def test_between_equal_values_the_second_one_decides_and_then_the_later_checkpoint(tmp_path):
    state, saved = _state(), []
    rates = [(0.5, 0.3), (0.5, 0.4), (0.5, 0.2), (0.5, 0.2), (0.6, 0.0), (0.4, 0.9), (0.4, float("nan")), (0.4, 0.9)]
    for step, (value, tie_value) in enumerate(rates, start=1):
        state.global_step.assign(step)
        # Each by a new process, which has the values of best.json alone.
        saved.append(_best(state, tmp_path).save_if_better(value, metric="dev/wer", tie_value=tie_value))
    assert saved == [True, False, True, True, False, True, False, True]
    assert json.loads((tmp_path / "best.json").read_text()) == {
        "metric": "dev/wer", "value": 0.4, "step": 8, "weights": "raw", "tie_value": 0.9,
    }  # fmt: skip
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-8.index"]


def test_a_best_checkpoint_of_an_older_version_gives_way_to_a_later_one_that_is_as_good(tmp_path):
    state = _state()
    _best(state, tmp_path).save_if_better(0.3, metric="dev/wer")  # without a second value, as older versions did
    assert not _best(state, tmp_path).save_if_better(0.31, metric="dev/wer", tie_value=0.0)
    assert _best(state, tmp_path).save_if_better(0.3, metric="dev/wer", tie_value=0.9)


def test_best_value_outlives_the_process(tmp_path):
    state = _state()
    assert _best(state, tmp_path).save_if_better(0.3, metric="dev/wer")
    again = _best(state, tmp_path)
    assert again.value == 0.3
    assert not again.save_if_better(0.3, metric="dev/wer")
    assert again.save_if_better(0.2, metric="dev/wer")
    assert len(list(tmp_path.glob("*.index"))) == 1


def test_best_value_of_another_metric_is_not_compared_with(tmp_path):
    state = _state()
    assert _best(state, tmp_path).save_if_better(0.01, metric="dev/cer")
    assert _best(state, tmp_path).save_if_better(0.3, metric="dev/wer")
    assert _best(state, tmp_path).value == 0.3


def test_best_by_a_value_that_should_be_high(tmp_path):
    best = _best(_state(), tmp_path, higher_is_better=True)
    assert [best.save_if_better(v, metric="dev/hits") for v in (3.0, 2.0, 4.0)] == [True, False, True]


def test_best_value_without_its_checkpoint_is_forgotten(tmp_path):
    state = _state()
    assert _best(state, tmp_path).save_if_better(0.3, metric="dev/wer")
    for path in tmp_path.glob("*ckpt*"):
        path.unlink()
    (tmp_path / "checkpoint").unlink()
    again = _best(state, tmp_path)
    assert again.value is None
    assert again.save_if_better(0.9, metric="dev/wer")


def test_broken_best_record_is_one_line(tmp_path):
    state = _state()
    _best(state, tmp_path).save_if_better(0.3, metric="dev/wer")
    (tmp_path / "best.json").write_text("{")
    with pytest.raises(WorkdirError, match=r"best\.json is not valid JSON .*; remove the file"):
        _best(state, tmp_path)


@pytest.fixture
def workdir(tmp_path):
    """A finished run: the best weights (0.5) from update 10, the last ones (2.0) from 20."""
    state = _state(value=0.5)
    state.global_step.assign(10)
    _best(state, tmp_path / "best").save_if_better(0.1, metric="dev/wer")
    state = _state(value=2.0)
    state.global_step.assign(20)
    _manager(state, tmp_path / "checkpoints").save(checkpoint_number=20)
    return tmp_path


def test_weights_alone_come_from_the_best_or_the_last(workdir):
    model = _Model()
    assert restore.restore_model(model, workdir) == str(workdir / "best" / "ckpt-10")
    assert all((v.numpy() == 0.5).all() for v in model.variables)
    path = restore.restore_model(model, workdir, prefer_best=False)
    assert path == str(workdir / "checkpoints" / "ckpt-20")
    assert all((v.numpy() == 2.0).all() for v in model.variables)
    assert restore.step_of(path) == 20


@pytest.mark.parametrize("prefer_best", [True, False])
@pytest.mark.parametrize("missing", ["best", "checkpoints"])
def test_whichever_there_is_will_do(workdir, missing, prefer_best):
    shutil.rmtree(workdir / missing)
    other = {"best": "checkpoints/ckpt-20", "checkpoints": "best/ckpt-10"}[missing]
    found = restore.find_checkpoint(workdir, prefer_best=prefer_best)
    assert found == os.path.join(workdir, *other.split("/"))


@pytest.mark.parametrize("given", ["checkpoints", "checkpoints/ckpt-20", "checkpoints/ckpt-20.index"])
def test_folder_or_path_of_a_checkpoint_will_do(workdir, given):
    assert restore.find_checkpoint(workdir / given) == str(workdir / "checkpoints" / "ckpt-20")


def test_folder_of_a_converted_model_will_do(tmp_path):
    saved, model = _Model(), _Model()
    for variable in saved.variables:
        variable.assign(tf.fill(variable.shape, 3.0))
    tf.train.Checkpoint(model=saved).write(str(tmp_path / "converted" / "weights"))
    path = restore.restore_model(model, tmp_path / "converted")
    assert path == str(tmp_path / "converted" / "weights")
    assert all((v.numpy() == 3.0).all() for v in model.variables)
    assert restore.step_of(path) == 0


def test_moved_workdir_is_found(workdir, tmp_path):
    moved = tmp_path / "moved"
    moved.mkdir()
    shutil.move(workdir / "best", moved / "best")
    assert restore.find_checkpoint(moved) == str(moved / "best" / "ckpt-10")


@pytest.mark.parametrize("name", ["", "absent", "checkpoints/ckpt-7"])
def test_no_checkpoint_there_is_one_line(tmp_path, name):
    with pytest.raises(WorkdirError, match="no checkpoint there; give a workdir") as caught:
        restore.restore_model(_Model(), tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused_untouched(workdir):
    model = _Model(num_layers=3)
    with pytest.raises(WorkdirError, match="holds no value for model/blocks/"):
        restore.restore_model(model, workdir)
    assert all((v.numpy() == 1.0).all() for v in model.variables)


def test_head_may_be_left_out(workdir):
    model = _Model(num_tokens=7)
    with pytest.raises(WorkdirError, match="model/head/kernel has shape"):
        restore.restore_model(model, workdir)
    restore.restore_model(model, workdir, leave_out=["head"])
    assert all((v.numpy() == 0.5).all() for v in model.blocks[0].variables)
    assert all((v.numpy() == 1.0).all() for v in model.head.variables)
    with pytest.raises(WorkdirError, match="holds no value for model/blocks/"):
        restore.restore_model(_Model(num_layers=3), workdir, leave_out=["head"])


def test_part_that_the_model_lacks_cannot_be_left_out(workdir):
    with pytest.raises(ValueError, match="no attribute 'tail'; it has .*head"):
        restore.restore_model(_Model(), workdir, leave_out=["tail"])


def test_weights_are_restored_on_every_replica(workdir, monkeypatch):
    monkeypatch.setattr(tf.distribute.MirroredStrategy, "_collective_key_base", 1_900_000)
    strategy = tf.distribute.MirroredStrategy(["cpu:0", "cpu:1"])
    with strategy.scope():
        model = _Model()
        restore.restore_model(model, workdir)
    for variable in model.variables:
        copies = strategy.experimental_local_results(variable)
        assert len(copies) == 2
        assert all((copy.numpy() == 0.5).all() for copy in copies)


def test_a_rate_of_another_set_under_the_same_name_is_not_compared_with(tmp_path, caplog):
    state = _state()
    best = _best(state, tmp_path, run_id="mine")
    state.global_step.assign(10)
    assert best.save_if_better(0.1, metric="dev/wer", set_digest="old")
    state.global_step.assign(20)
    assert not _best(state, tmp_path).save_if_better(0.5, metric="dev/wer", set_digest="old")
    assert not _best(state, tmp_path).save_if_better(0.5, metric="dev/wer")  # nobody says which set
    assert "no longer counts" not in caplog.text
    assert _best(state, tmp_path).save_if_better(0.5, metric="dev/wer", set_digest="new")
    assert "the evaluation set of dev/wer has changed since update 10; its 0.1 no longer counts" in caplog.text
    assert not _best(state, tmp_path).save_if_better(0.6, metric="dev/wer", set_digest="new")
    assert restore.find_checkpoint(tmp_path).endswith("ckpt-20")


def test_only_the_best_stays_where_tensorflows_list_was_lost(tmp_path):
    state = _state()
    for step, value in ((10, 0.5), (20, 0.4)):
        state.global_step.assign(step)
        _best(state, tmp_path).save_if_better(value, metric="dev/wer")
        (tmp_path / "checkpoint").unlink()
    assert sorted(path.name for path in tmp_path.glob("*.index")) == ["ckpt-20.index"]
    assert not list(tmp_path.glob("ckpt-10*"))


@pytest.mark.parametrize("content", ['{"metric": "dev/wer"}', '{"metric": 1, "value": 0.1}', "[]", "[" * 100_000])
def test_a_best_record_without_its_fields_is_one_line(tmp_path, content):
    state = _state()
    _best(state, tmp_path).save_if_better(0.3, metric="dev/wer")
    (tmp_path / "best.json").write_text(content)
    with pytest.raises(WorkdirError, match=r"best\.json.*; remove the file") as caught:
        _best(state, tmp_path)
    assert "\n" not in str(caught.value)
