"""--mode=average: the mean of checkpoints of one run, to the last digit, in a folder that every mode takes."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from common import workdir_layout as layout
from engine.checkpointing import manifest
from engine.checkpointing.best import BestCheckpoint
from engine.checkpointing.restore import find_checkpoint, restore_model, step_of
from engine.common import files
from engine.inference.window_length import default_window_secs
from engine.modes import average, transcribe
from engine.training.ema import EmaWeights
from engine.workdir.folder import WorkdirError
from tests.engine.inference import test_loading
from tests.engine.inference.test_loading import trained  # noqa: F401 - a fixture
from tests.helpers.engine_toys import ToyModel
from tests.helpers.full_disk import small_files_only


class Letters(test_loading.Letters):
    def save(self, path):
        files.write_json_atomic(path, {})


def make_parts():
    return dataclasses.replace(test_loading.make_parts(), build_tokenizer=lambda path: Letters())


def save(folder, step, *, seed=None, run_id="r1", model=None, ema=None):
    """Writes checkpoint `step` with weights of its own; returns its path."""
    path = f"{folder}/checkpoints/ckpt-{step}"
    model = model or ToyModel(seed=step if seed is None else seed)
    state = tf.train.Checkpoint(model=model, global_step=tf.Variable(step, dtype=tf.int64))
    if ema is not None:
        state.ema = ema
    state.write(path)
    manifest.write_manifest(path, {"run_id": run_id} if run_id else {})
    return path


@pytest.fixture
def workdir(trained):  # noqa: F811
    """A run with checkpoints of the updates 10, 20 and 30, evaluated on dev."""
    folder, _ = trained
    shutil.rmtree(f"{folder}/best")
    for step in (10, 20, 30):
        save(folder, step)
    rates = {10: (0.4, 0.3), 20: (0.3, 0.2), 30: (0.3, 0.1)}
    for step, (wer, cer) in rates.items():
        files.append_jsonl(f"{folder}/metrics.jsonl", {"step": step, "split": "dev", "wer": wer, "cer": cer})
        best(folder, step).save_if_better(wer, metric="dev/wer", tie_value=cer)
    return folder


def best(folder, step):
    state = tf.train.Checkpoint(model=ToyModel(seed=step))
    return BestCheckpoint(checkpoint=state, directory=f"{folder}/best", global_step=tf.Variable(step))


def values(path):
    model = ToyModel(seed=0)
    restore_model(model, path)
    return [variable.numpy() for variable in model.variables]


def mean(*seeds):
    models = [ToyModel(seed=seed) for seed in seeds]
    columns = zip(*[[variable.numpy() for variable in model.variables] for model in models], strict=True)
    return [np.mean(np.array(column, dtype=np.float64), axis=0).astype(np.float32) for column in columns]


def run(workdir, output, *inputs, **more):
    return average.run(parts=make_parts(), checkpoint=workdir, inputs=list(inputs), output=str(output), **more)


@pytest.mark.parametrize(
    ("inputs", "steps"),
    [
        (["last:2"], (20, 30)),
        (["last:3"], (10, 20, 30)),
        (["best:2"], (20, 30)),
        (["{0}/checkpoints/ckpt-10", "{0}/checkpoints/ckpt-30.index"], (10, 30)),
    ],
)
def test_the_mean_is_that_of_numpy_in_float64_rounded_once(workdir, tmp_path, capsys, inputs, steps):
    output = tmp_path / "average"
    assert run(workdir, output, *[text.format(workdir) for text in inputs]) == 0
    for found, wanted in zip(values(output), mean(*steps), strict=True):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, wanted)
    path = find_checkpoint(output)
    assert step_of(path) == 30 and manifest.find_damage(path) is None
    about = layout.read_manifest(path)
    assert about["run_id"] == "r1" and [name[-2:] for name in about["averaged"]] == [str(step) for step in steps]
    shown = capsys.readouterr().out
    assert f"{output}: the mean of {len(steps)} checkpoints, of the updates {', '.join(map(str, steps))}" in shown


def test_the_folder_is_a_recognizer_that_writes_what_the_averaged_model_does(workdir, tmp_path):
    output = tmp_path / "average"
    run(workdir, output, "last:2")
    assert json.loads((output / "config.json").read_text()) == layout.read_object(f"{workdir}/config.json")
    own = tmp_path / "own"
    shutil.copytree(output, own)
    model = ToyModel(seed=0)
    for variable, value in zip(model.variables, mean(20, 30), strict=True):
        variable.assign(value)
    tf.train.Checkpoint(model=model).write(f"{own}/best/ckpt-30")
    (own / "best/ckpt-30.manifest.json").unlink()
    (tmp_path / "a.wav").touch()
    texts = []
    for checkpoint in (output, own, workdir):
        target = tmp_path / "out.txt"
        arguments = {"inputs": [str(tmp_path / "a.wav")], "output": str(target)}
        assert transcribe.run(parts=make_parts(), checkpoint=str(checkpoint), **arguments) == 0
        texts.append(target.read_text())
    assert texts[0] == texts[1] != "" and texts[0] != texts[2]


def test_the_average_of_a_run_from_random_weights_is_read_in_windows_of_the_run(workdir, tmp_path):
    Path(workdir, "environment.json").write_text('{"trained_row_secs": 2.5}')
    run(workdir, tmp_path / "average", "last:2")
    assert default_window_secs(str(tmp_path / "average")) == 2.5 == default_window_secs(workdir)


def test_the_best_may_be_older_than_the_newest_and_is_ranked_as_best_is(workdir, tmp_path):
    for step in (10, 20):
        for path in manifest.files_of(f"{workdir}/checkpoints/ckpt-{step}"):
            os.remove(path)
    save(workdir, 40)
    files.append_jsonl(f"{workdir}/metrics.jsonl", {"step": 40, "split": "dev", "wer": 0.9, "cer": 0.9})
    save(workdir, 50)  # not evaluated
    best(workdir, 30)  # in best/, and among the newest too
    assert [step_of(path) for path in average.choose_checkpoints(workdir, ["best:2"])] == [30, 40]
    for path in manifest.files_of(f"{workdir}/checkpoints/ckpt-30"):
        os.remove(path)
    chosen = average.choose_checkpoints(workdir, ["best:2"])
    assert [path.removeprefix(f"{workdir}/") for path in chosen] == ["best/ckpt-30", "checkpoints/ckpt-40"]
    with pytest.raises(
        ValueError, match=r"has 2 checkpoints that were evaluated; average them with --inputs=best:2, or"
    ):
        average.choose_checkpoints(workdir, ["best:3"])


def test_evaluations_of_a_process_beside_the_training_count(workdir):
    os.makedirs(f"{workdir}/continuous_eval")
    for name in ("best", "metrics.jsonl"):
        shutil.move(f"{workdir}/{name}", f"{workdir}/continuous_eval/{name}")
    assert [step_of(path) for path in average.choose_checkpoints(workdir, ["best:2"])] == [20, 30]
    shutil.rmtree(f"{workdir}/continuous_eval")
    with pytest.raises(ValueError, match="no checkpoint was evaluated, so none is best; write --inputs=last:N"):
        average.choose_checkpoints(workdir, ["best:2"])


def test_evaluations_of_an_earlier_version_of_the_set_do_not_rank(workdir):
    files.append_jsonl(
        f"{workdir}/metrics.jsonl",
        *({"step": step, "split": "dev", "wer": wer, "set_digest": "new"} for step, wer in ((10, 0.1), (20, 0.2))),
    )
    assert [step_of(path) for path in average.choose_checkpoints(workdir, ["best:2"])] == [10, 20]


def test_averaged_weights_are_averaged_where_they_are_asked_for(workdir, tmp_path):
    shadows = []
    for step in (10, 20, 30):
        model, other = ToyModel(seed=step), ToyModel(seed=100 + step)
        ema = EmaWeights(model.trainable_variables, decay=0.5)
        for shadow, variable in zip(ema.shadows, other.trainable_variables, strict=True):
            shadow.assign(variable)
        shadows.append(100 + step)
        save(workdir, step, model=model, ema=ema)
    run(workdir, tmp_path / "raw", "last:3")
    run(workdir, tmp_path / "ema", "last:3", weights="ema")
    for found, wanted in zip(values(tmp_path / "raw"), mean(10, 20, 30), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for found, wanted in zip(values(tmp_path / "ema"), mean(*shadows), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("inputs", "line"),
    [
        (
            ["last:5"],
            "has 3 checkpoints; average them with --inputs=last:3, or train with a larger --config.checkpoint.",
        ),
        (["last:1"], "--inputs=last:1: an average needs two checkpoints or more, such as last:5"),
        (["{0}/checkpoints/ckpt-10"], "these are fewer than two checkpoints; write last:5, best:5"),
        (["{0}/checkpoints/ckpt-10", "{0}/checkpoints/ckpt-10.index"], "ckpt-10 is there twice"),
        (["{0}/checkpoints/ckpt-10", "{0}/absent"], "absent: no checkpoint there"),
    ],
)
def test_checkpoints_that_are_not_there_are_a_line(workdir, tmp_path, inputs, line):
    with pytest.raises(ValueError) as raised:
        run(workdir, tmp_path / "average", *[text.format(workdir) for text in inputs])
    assert line in str(raised.value) and "\n" not in str(raised.value)
    assert not (tmp_path / "average").exists()


def test_checkpoints_of_two_runs_or_of_two_models_or_damaged_ones_are_refused(workdir, tmp_path):
    other = tmp_path / "other"
    paths = [f"{workdir}/checkpoints/ckpt-10", save(other, 20, run_id="r2")]
    with pytest.raises(WorkdirError, match=r"ckpt-10 is of run r1 and .*ckpt-20 of run r2: average the checkpoints of"):
        run(workdir, tmp_path / "average", *paths)
    wide = tf.Module()
    wide.kernel = tf.Variable(tf.zeros([99]))
    with pytest.raises(WorkdirError, match="ckpt-40.* it was saved with another model"):
        run(workdir, tmp_path / "average", paths[0], save(workdir, 40, model=wide))
    with open(f"{workdir}/checkpoints/ckpt-20.data-00000-of-00001", "r+b") as file:
        file.write(b"damage")
    with pytest.raises(WorkdirError, match="ckpt-20 is damaged: "):
        run(workdir, tmp_path / "average", paths[0], f"{workdir}/checkpoints/ckpt-20")
    assert [path.name for path in tmp_path.iterdir() if "average" in path.name] == []


def test_a_folder_with_something_in_it_is_not_overwritten(workdir, tmp_path):
    output = tmp_path / "average"
    output.mkdir()
    (output / "mine").touch()
    with pytest.raises(ValueError, match="is not empty"):
        run(workdir, output, "last:2")
    (output / "mine").unlink()
    assert run(workdir, output, "last:2") == 0


def test_a_full_disk_is_a_line_and_leaves_nothing(workdir, tmp_path):
    with (
        small_files_only(100),
        pytest.raises(WorkdirError, match="cannot be written.*make room, or name another folder"),
    ):
        run(workdir, tmp_path / "average", "last:2")
    assert [path.name for path in tmp_path.iterdir() if "average" in path.name] == []


def test_more_checkpoints_need_no_more_memory(tmp_path):
    model = tf.Module()
    model.kernel = tf.Variable(tf.zeros([500_000]))
    paths = []
    for step in range(6):
        model.kernel.assign(tf.fill([500_000], float(step)))
        paths.append(save(tmp_path, step, model=model))
    peaks = []
    for chosen in (paths[:2], paths):
        tracemalloc.start()
        average.average_weights(model, chosen)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    np.testing.assert_array_equal(model.kernel.numpy(), np.full(500_000, 2.5, np.float32))
