"""What a run does before and around its first update; whole runs are in tests/test_run.py."""

from __future__ import annotations

import functools
import json
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs import base
from engine import experiment
from engine.actions import writers
from engine.checkpointing import background_save, manifest
from engine.checkpointing.best import BestCheckpoint
from engine.common.signals import StopTraining
from engine.config.recorded_run import LATER_FIELDS
from engine.distributed import strategy as runtime
from engine.modes import train as train_mode
from engine.training import interruptible_loop, trainer
from engine.workdir.folder import WorkdirError
from tests.helpers.engine_toys import ToyModel, toy_batch, toy_dataset_fn
from tests.helpers.experiment_toys import (
    ToyEvalData,
    ToyTrainData,
    make_config,
    make_parts,
    reproducible_lines,
)


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_what_only_other_modes_read_may_change_when_a_run_resumes():
    """A new group of fields must be listed, or a changed default of one mode would refuse every older run."""
    read_by_training = {"seed", "model", "data", "train"}
    assert set(base.get_config()) - set(experiment.RESUMABLE_FIELDS) == read_by_training


def test_train_mode_needs_no_evaluation_set(tmp_path):
    workdir = tmp_path / "run"
    outcome = experiment.run(
        config=make_config(tmp_path), parts=make_parts(), workdir=str(workdir), mode="train", strategy_name="one_device"
    )
    assert (outcome.exit_status, outcome.metrics) == (0, {})
    assert [line["step"] for line in lines(workdir)] == [2, 4, 6]
    assert sorted(path.name for path in (workdir / "checkpoints").glob("*.index")) == ["ckpt-4.index", "ckpt-6.index"]


def test_too_many_unreadable_rows_stop_the_run_with_status_2_and_a_checkpoint(tmp_path):
    def spoiled(update, rows):
        batch = toy_batch(update, rows)
        if update >= 2:
            batch["weight"][:2] = 0.0
        return batch

    class Spoiled(ToyTrainData):
        def __init__(self, **fields):
            self.dataset = toy_dataset_fn(fields["global_batch_size"], make=spoiled)

        def unreadable(self, before_update):
            met = [(2, "u2", "gone"), (3, "u3", "cut"), (4, "u4", "not yet trained on")]
            return [item for item in met if item[0] < before_update]

    config = make_config(tmp_path)
    config.data.max_unreadable_ratio = 0.2
    workdir = tmp_path / "run"
    outcome = experiment.run(
        config=config, parts=make_parts(build_train_data=Spoiled), workdir=str(workdir), mode="train"
    )
    # Updates 2 and 3 bring 4 bad rows of the 16 of two epochs: a quarter.
    assert outcome.exit_status == 2
    train = [line for line in lines(workdir) if line["split"] == "train"]
    assert [(line["step"], line["num_bad"]) for line in train] == [(2, 0), (4, 4)]
    assert all(0 <= line["input_stall_ratio"] <= 1 for line in train)
    named = [line for line in lines(workdir) if line["split"] == "unreadable"]
    assert [(line["step"], line["utterance_id"]) for line in named] == [(4, "u2"), (4, "u3")]
    assert (workdir / "checkpoints/ckpt-4.index").exists()


def test_too_many_skipped_updates_stop_the_run_with_status_2_and_the_same_command_goes_on_behind_them(tmp_path):
    def poisoned(update, rows):
        batch = toy_batch(update, rows)
        if update in (2, 3):
            batch["waveform"][1, 0] = np.nan
        return batch

    class Poisoned(ToyTrainData):
        def __init__(self, **fields):
            self.dataset = toy_dataset_fn(fields["global_batch_size"], make=poisoned)

    workdir = tmp_path / "run"
    run = {
        "config": make_config(tmp_path, max_consecutive_skips=2),
        "parts": make_parts(build_train_data=Poisoned),
        "workdir": str(workdir),
        "mode": "train",
    }
    assert experiment.run(**run).exit_status == 2
    saved = [json.loads(line) for line in (workdir / "skipped_updates.jsonl").open()]
    assert saved == [
        {"update": update, "utterance_ids": [f"row-{update}-{row}" for row in range(4)]} for update in (2, 3)
    ]
    assert (workdir / "checkpoints/ckpt-4.index").exists()
    assert experiment.run(**run).exit_status == 0
    assert [(line["step"], line["num_skipped_updates"]) for line in lines(workdir)] == [(2, 0), (4, 2), (6, 0)]
    assert lines(workdir)[1]["loss"] is None


def test_weights_of_another_run_are_the_start_with_or_without_its_head(tmp_path):
    donor = ToyModel(seed=5)
    BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=donor),
        directory=tmp_path / "donor/best",
        global_step=tf.Variable(3, dtype=tf.int64),
    ).save_if_better(0.5, metric="dev/wer")
    for with_head in (True, False):
        model, fresh = ToyModel(seed=1), ToyModel(seed=1)
        train_mode._initialize(model, str(tmp_path / "donor"), with_head=with_head)
        assert (model.encoder.kernel.numpy() == donor.encoder.kernel.numpy()).all()
        wanted = donor if with_head else fresh
        assert (model.head.kernel.numpy() == wanted.head.kernel.numpy()).all()


def test_a_run_records_the_length_of_its_rows_if_its_weights_go_back_to_random_ones(tmp_path):
    class Rows(ToyTrainData):
        row_secs = 2.5

    def train(name, row_secs, *, init="", **fields):
        config = make_config(tmp_path, **fields)
        config.model.init = init
        Rows.row_secs = row_secs
        parts = make_parts(build_train_data=Rows)
        arguments = {"config": config, "parts": parts, "strategy_name": "one_device", "mode": "train"}
        experiment.run(**arguments, workdir=str(tmp_path / name))
        return json.loads((tmp_path / name / "environment.json").read_text())["trained_row_secs"]

    assert train("random", 2.5) == 2.5
    assert train("random", 2.5) == 2.5  # given again
    assert train("shorter", 1.5, init=str(tmp_path / "random")) == 2.5
    assert train("longer", 4.0, init=str(tmp_path / "random/checkpoints/ckpt-6")) == 4.0
    assert train("longer again", 3.0, init=str(tmp_path / "longer")) == 4.0
    shutil.rmtree(tmp_path / "random")
    assert train("longer", 4.0, init=str(tmp_path / "random/checkpoints/ckpt-6")) == 4.0  # the start is gone
    shutil.copytree(tmp_path / "longer", tmp_path / "published")
    (tmp_path / "published/environment.json").unlink()
    assert train("tuned", 1.5, init=str(tmp_path / "published")) is None
    shutil.copytree(tmp_path / "published", tmp_path / "unlimited")
    fields = json.loads((tmp_path / "unlimited/config.json").read_text())
    fields["model"]["init"], fields["data"]["max_duration_secs"] = "", 0.0
    (tmp_path / "unlimited/config.json").write_text(json.dumps(fields))
    assert train("of unlimited", 1.5, init=str(tmp_path / "unlimited")) is None


def test_a_started_run_continues_where_the_weights_it_started_from_are_gone(tmp_path):
    donor = tmp_path / "donor"
    make_donor = make_config(tmp_path)
    experiment.run(config=make_donor, parts=make_parts(), workdir=str(donor), mode="train")
    config = make_config(tmp_path)
    config.model.init = str(donor)
    arguments = {"config": config, "parts": make_parts(), "workdir": str(tmp_path / "run"), "mode": "train"}
    assert experiment.run(**arguments).exit_status == 0
    shutil.rmtree(donor)
    assert experiment.run(**arguments).exit_status == 0


def test_training_does_not_ask_for_the_evaluation_corpora(tmp_path):
    config = make_config(tmp_path)
    config.data.eval["dev"] = base.get_eval_set(input=str(tmp_path / "nowhere"))
    config.eval.best_metric_set = "dev"
    run = {"config": config, "parts": make_parts(), "workdir": str(tmp_path / "run")}
    assert experiment.run(**run, mode="train").exit_status == 0
    with pytest.raises(ValueError, match="nowhere: no such corpus"):
        experiment.run(**run, mode="train_and_eval")


class StopAt:
    """Stands in for StopOnSignal: a signal comes before the n-th time it is asked."""

    within_secs = 30.0

    def __init__(self, n):
        self.exit_status, self._n, self._calls, self.is_deferred = 0, n, 0, False

    def defer(self):
        self.is_deferred = True

    def __call__(self, output=None):
        self._calls += 1
        if self._calls == self._n:
            self.exit_status = 143
            raise StopTraining("stopped by SIGTERM")


def test_a_stop_between_any_two_updates_leaves_no_trace_in_the_figures(tmp_path):
    def run(name, stop=None):
        return experiment.run(
            config=make_config(tmp_path, log_every_updates=4, num_updates=6, cr_ctc_scale=0.2), parts=make_parts(),
            workdir=str(tmp_path / name), mode="train", strategy_name="one_device", stop=stop,
        )  # fmt: skip

    run("straight")
    # It is asked after updates 1, 2, 3, after the loop of four, after update 5 and after the loop of two.
    for n, saved in ((2, 2), (4, 4), (5, 5)):
        stop = StopAt(n)
        assert (run(f"run{n}", stop).exit_status, stop.is_deferred) == (143, True)
        assert (tmp_path / f"run{n}/checkpoints/ckpt-{saved}.index").exists()
        assert run(f"run{n}").exit_status == 0
        assert reproducible_lines(tmp_path / f"run{n}") == reproducible_lines(tmp_path / "straight")
        found, wanted = (
            tf.train.load_checkpoint(str(tmp_path / name / "checkpoints/ckpt-6")) for name in (f"run{n}", "straight")
        )
        names = [name for name in wanted.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
        assert len(names) > 10
        for name in names:
            if not name.startswith("save_counter"):
                assert found.get_tensor(name).tobytes() == wanted.get_tensor(name).tobytes(), name


def test_a_run_of_a_version_without_later_fields_goes_on_as_it_began(tmp_path, caplog):
    constant = {"schedule": "constant", "hold_updates": 0}
    train_toy(tmp_path, "long", num_updates=6, **constant)
    train_toy(tmp_path, "run", num_updates=4, **constant)
    recorded = tmp_path / "run/config.json"
    fields = json.loads(recorded.read_text())
    for name in LATER_FIELDS:
        *groups, field = name.split(".")
        del functools.reduce(dict.__getitem__, groups, fields)[field]
    recorded.write_text(json.dumps(fields))
    with pytest.raises(WorkdirError, match=r"train.cr_ctc_scale was 0.0, is 0.2; undo"):
        train_toy(tmp_path, "run", num_updates=6, cr_ctc_scale=0.2, **constant)
    config, built = make_config(tmp_path, num_updates=6, **constant), []
    config.model.mask_time_min_spans = 2  # a default of later versions
    with caplog.at_level("INFO", logger="absl"):
        experiment.run(
            config=config, workdir=str(tmp_path / "run"), mode="train", strategy_name="one_device",
            parts=make_parts(build_model=lambda **fields: built.append(fields) or ToyModel()),
        )  # fmt: skip
    assert [fields["mask_time_min_spans"] for fields in built] == [0]
    assert "without model.mask_time_min_spans, so the run continues with 0 in place of 2" in caplog.text
    assert values_of(tmp_path / "run", 6) == values_of(tmp_path / "long", 6)


def test_losses_that_the_model_cannot_serve_are_named_before_anything_is_written(tmp_path):
    class Other(ToyModel):
        def explain_unsupported(self, *, num_views, layers):
            return "it has one layer" if layers else "it has one view"

    for fields, line in (
        ({"cr_ctc_scale": 0.2}, "train.cr_ctc_scale=0.2: it has one view; set it to 0"),
        ({"intermediate_ctc_layers": (3,)}, "train.intermediate_ctc_layers=(3,): it has one layer; name others, or ()"),
    ):
        with pytest.raises(ValueError, match=re.escape(line)):
            experiment.run(
                config=make_config(tmp_path, **fields), parts=make_parts(build_model=lambda **fields: Other()),
                workdir=str(tmp_path / "run"), mode="train",
            )  # fmt: skip
        assert not (tmp_path / "run/config.json").exists()
    config = make_config(tmp_path, cr_ctc_scale=0.2)
    config.model.mask_time_prob = 0.0
    with pytest.raises(ValueError, match="the two views of a row would be the same; set a model.mask_time_prob above"):
        experiment.run(config=config, parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")


FIGURES = ("loss", "wer", "cer", "num_words", "num_utterances")


@pytest.fixture(scope="module")
def averaged_run(tmp_path_factory):
    """A run with two sets and averages that stops early: no hypothesis is ever right, so nothing ever improves."""
    folder = tmp_path_factory.mktemp("averaged")
    config = make_config(folder, num_updates=20, ema_decay=0.9)
    config.eval.update({"every_updates": 2, "batch_size": 4, "best_metric_set": "dev", "early_stopping_patience": 2})
    for name in ("dev", "other"):
        config.data.eval[name] = base.get_eval_set(input=str(folder))
    run = {"config": config, "parts": make_parts(build_eval_data=ToyEvalData), "workdir": str(folder / "run")}
    outcome = experiment.run(**run, mode="train_and_eval", strategy_name="one_device")
    return folder / "run", run, outcome


def test_early_stopping_ends_a_run_with_status_0_and_so_does_the_same_command_again(averaged_run):
    workdir, run, outcome = averaged_run
    assert outcome.exit_status == 0
    assert tf.train.latest_checkpoint(str(workdir / "checkpoints")).endswith("ckpt-6")
    before = (workdir / "metrics.jsonl").read_text()
    again = experiment.run(**run, mode="train_and_eval")
    assert again.exit_status == 0
    assert (workdir / "metrics.jsonl").read_text() == before
    for found in (outcome, again):
        assert {name: values["wer"] for name, values in found.metrics.items()} == dict.fromkeys(
            ("dev", "dev-ema", "other", "other-ema"), 1.0
        )


def test_every_set_has_lines_and_predictions_of_raw_and_of_averaged_weights(averaged_run):
    workdir, _, _ = averaged_run
    evaluations = [line for line in lines(workdir) if line["split"] != "train"]
    names = ["dev", "other", "dev-ema", "other-ema"]
    assert [(line["step"], line["split"]) for line in evaluations] == [(step, n) for step in (2, 4, 6) for n in names]
    losses = {line["split"]: line["loss"] for line in evaluations[-4:]}
    assert losses["dev"] == losses["other"] != losses["dev-ema"] == losses["other-ema"]
    assert sorted(path.name for path in (workdir / "eval").iterdir()) == sorted(names)
    page = (workdir / "report.html").read_text()
    assert "Weights of update 6" in page and "Against update 4" in page and page.count("<h2>") == 3 + len(names)
    assert "speaker-0" in page and page.count("<audio") == 4 * int(evaluations[0]["num_utterances"])
    # Equal rates: the CER decides, then the later evaluation, and of one evaluation the raw weights are preferred.
    own = [line for line in evaluations if line["split"].startswith("dev")]
    best = min(own, key=lambda line: (line["cer"], -line["step"], line["split"] != "dev"))
    record = json.loads((workdir / "best/best.json").read_text())
    assert record == {
        "metric": "dev/wer", "value": 1.0, "step": best["step"], "tie_value": best["cer"],
        "weights": "raw" if best["split"] == "dev" else "ema",
    }  # fmt: skip


@pytest.mark.parametrize("weights", ["raw", "ema"])
def test_eval_mode_repeats_the_figures_of_the_weights_it_is_told(averaged_run, tmp_path, weights):
    workdir, run, _ = averaged_run
    wanted = {line["split"]: line for line in lines(workdir) if line["step"] == 6}
    outcome = experiment.run(
        **{**run, "workdir": str(tmp_path / "elsewhere")},
        mode="eval",
        checkpoint=str(workdir / "checkpoints/ckpt-6"),
        weights=weights,
    )
    for name in ("dev", "other"):
        split = name if weights == "raw" else f"{name}-ema"
        found, source = outcome.metrics[split], wanted[split]
        assert {key: found[key] for key in FIGURES} == {key: source[key] for key in FIGURES}
    assert outcome.folder.startswith(str(tmp_path / "elsewhere/eval_of"))
    assert (Path(outcome.folder) / "report.html").is_file()


@pytest.fixture
def held_saves(monkeypatch):
    """Saves in the background write nothing before the event is set; lists when each was let pass."""
    event, passed, copy_values = threading.Event(), [], background_save.CopyValues.__call__

    def held(self, tensors):
        event.clear()
        copies = copy_values(self, tensors)
        passed.append(event.wait(300.0))
        return copies

    monkeypatch.setattr(background_save.CopyValues, "__call__", held)
    yield event, passed
    event.set()


def evaluating_config(folder, *, in_background):
    config = make_config(folder, num_updates=6, ema_decay=0.9)
    config.eval.update({"every_updates": 2, "batch_size": 4, "best_metric_set": "dev"})
    config.data.eval["dev"] = base.get_eval_set(input=str(folder))
    config.checkpoint.update({"background": in_background, "keep": 9})
    return config


def test_a_run_that_saves_beside_the_training_is_the_run_that_waits(tmp_path, held_saves, monkeypatch):
    event, passed = held_saves
    save_best = writers.SaveBest.__call__

    def save_best_then_let_pass(self, output):
        save_best(self, output)  # swaps the averages into the model, saves, and swaps them back
        event.set()

    monkeypatch.setattr(writers.SaveBest, "__call__", save_best_then_let_pass)
    for name in ("beside", "waiting"):
        outcome = experiment.run(
            config=evaluating_config(tmp_path, in_background=name == "beside"),
            parts=make_parts(build_eval_data=ToyEvalData),
            workdir=str(tmp_path / name), mode="train_and_eval", strategy_name="one_device",
        )  # fmt: skip
        assert outcome.exit_status == 0
    # Each checkpoint was written after the evaluation that followed it, or it would have waited in vain.
    assert passed == [True] * 3
    beside, waiting = ({} for _ in range(2))
    for name, found in (("beside", beside), ("waiting", waiting)):
        for path in [*(tmp_path / name / "checkpoints").iterdir(), *(tmp_path / name / "best").iterdir()]:
            if path.name not in ("checkpoint", "environment.json") and not path.name.endswith("manifest.json"):
                found[f"{path.parent.name}/{path.name}"] = path.read_bytes()
    assert sum(name.startswith("checkpoints/") for name in beside) == 6 and beside == waiting
    assert reproducible_lines(tmp_path / "beside") == reproducible_lines(tmp_path / "waiting")
    for path in manifest.list_checkpoints(tmp_path / "beside/checkpoints"):
        assert manifest.read_manifest(path) and manifest.find_damage(path) is None


def test_a_signal_waits_for_the_save_under_way_and_for_its_own(tmp_path, held_saves):
    event, passed = held_saves

    class Stop(StopAt):
        def __call__(self, output=None):
            try:
                super().__call__(output)
            except StopTraining:
                assert manifest.list_checkpoints(tmp_path / "run/checkpoints") == []
                threading.Timer(0.2, event.set).start()
                raise

    # Asked after update 1, after the loop of two, which is then saved, and after update 3.
    outcome = experiment.run(
        config=make_config(tmp_path), parts=make_parts(), workdir=str(tmp_path / "run"), mode="train",
        strategy_name="one_device", stop=Stop(3),
    )  # fmt: skip
    assert outcome.exit_status == 143 and passed == [True]
    paths = manifest.list_checkpoints(tmp_path / "run/checkpoints")
    assert [path.rpartition("/")[2] for path in paths] == ["ckpt-2", "ckpt-3"]
    assert all(manifest.read_manifest(path) and manifest.find_damage(path) is None for path in paths)


@pytest.mark.parametrize("num_updates", [6, 2])
def test_a_disk_too_full_for_a_save_in_the_background_ends_the_run_with_one_line(tmp_path, monkeypatch, num_updates):
    copy_values = background_save.CopyValues.__call__

    def fail(self, tensors):
        copy_values(self, tensors)
        raise tf.errors.ResourceExhaustedError(None, None, f"{tmp_path}/part-0; No space left on device")

    monkeypatch.setattr(background_save.CopyValues, "__call__", fail)
    config = make_config(tmp_path, num_updates=num_updates)
    with pytest.raises(
        WorkdirError, match="run: cannot be written: .*No space left on device; existing checkpoints"
    ) as caught:
        experiment.run(config=config, parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")
    assert "\n" not in str(caught.value)
    # Not a loop more than the one under way: without a checkpoint, all of it would be for nothing.
    assert [line["step"] for line in lines(tmp_path / "run")] in ([2], [2, 4])
    assert list((tmp_path / "run/checkpoints").glob("ckpt*")) == []


def test_several_hosts_and_a_run_that_is_told_so_save_while_training_waits(tmp_path, monkeypatch):
    assert runtime.is_one_host(tf.distribute.OneDeviceStrategy("/cpu:0"))
    copied = []
    monkeypatch.setattr(background_save.CopyValues, "__call__", lambda self, tensors: copied.append(1))
    config = make_config(tmp_path)
    config.checkpoint.background = False
    run = {"config": config, "parts": make_parts(), "workdir": str(tmp_path / "run"), "mode": "train"}
    assert experiment.run(**run).exit_status == 0
    config.checkpoint.background = True
    monkeypatch.setattr(runtime, "is_one_host", lambda strategy: False)
    config.train.num_updates = 8
    assert experiment.run(**{**run, "workdir": str(tmp_path / "several")}).exit_status == 0
    assert copied == []


def values_of(workdir, step):
    reader = tf.train.load_checkpoint(str(workdir / f"checkpoints/ckpt-{step}"))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    assert len(names) > 10
    return {name: reader.get_tensor(name).tobytes() for name in names if not name.startswith("save_counter")}


def train_toy(folder, name, *, stop=None, **train):
    return experiment.run(
        config=make_config(folder, **train), parts=make_parts(), workdir=str(folder / name), mode="train",
        strategy_name="one_device", stop=stop,
    )  # fmt: skip


def test_a_finished_run_says_so_and_a_constant_one_goes_on_as_if_it_had_been_longer_from_the_start(tmp_path, caplog):
    constant = {"schedule": "constant", "hold_updates": 0}
    train_toy(tmp_path, "long", num_updates=10, **constant)
    train_toy(tmp_path, "run", num_updates=6, **constant)
    with caplog.at_level("WARNING", logger="absl"):
        assert train_toy(tmp_path, "run", num_updates=6, **constant).exit_status == 0
    (line,) = (record.getMessage() for record in caplog.records if "nothing to train" in record.getMessage())
    assert f"{tmp_path}/run has done its 6 updates" in line and "--config.train.num_updates=12" in line
    assert train_toy(tmp_path, "run", num_updates=10, **constant).exit_status == 0
    assert values_of(tmp_path / "run", 10) == values_of(tmp_path / "long", 10)
    assert json.loads((tmp_path / "run/config.json").read_text())["train"]["num_updates"] == 10
    # Not back, for what was trained under the longer one; and the same command again is as it was.
    with pytest.raises(WorkdirError, match="train.num_updates was 10, is 6"):
        train_toy(tmp_path, "run", num_updates=6, **constant)
    assert train_toy(tmp_path, "run", num_updates=10, **constant).exit_status == 0


@pytest.mark.parametrize(
    ("recorded", "limits"), [({"accum_steps": 2}, {}), ({"accum_steps": 1}, {"microbatch_rows": 3})]
)
def test_a_workdir_that_counted_microbatches_goes_on_and_is_evaluated(tmp_path, caplog, recorded, limits):
    """Written by an older version: no limit of rows or seconds, and four rows in `accum_steps` microbatches."""
    caplog.set_level("INFO", logger="absl")
    fields = {"schedule": "constant", "hold_updates": 0, **limits}
    parts = make_parts(build_eval_data=ToyEvalData)
    workdir = tmp_path / "run"
    run = {"parts": parts, "workdir": str(workdir), "strategy_name": "one_device"}
    experiment.run(config=make_config(tmp_path, num_updates=2, **fields), mode="train", **run)
    path = workdir / "config.json"
    older = json.loads(path.read_text())
    for name in ("microbatch_rows", "microbatch_secs"):
        del older["train"][name]
    older["train"].update(recorded)
    path.write_text(json.dumps(older))

    config = make_config(tmp_path, num_updates=4, **fields)
    config.data.eval["dev"] = base.get_eval_set(input=str(tmp_path))
    config.eval.best_metric_set = "dev"
    assert experiment.run(config=config, mode="eval", **run).metrics["dev"]["num_utterances"] > 0
    assert experiment.run(config=config, mode="train", **run).exit_status == 0
    assert [line["step"] for line in lines(workdir) if line["split"] == "train"] == [2, 4]
    assert json.loads(path.read_text())["train"]["microbatch_rows"] == config.train.microbatch_rows
    assert "accum_steps" not in json.loads(path.read_text())["train"]
    rows = 4 // recorded["accum_steps"]
    assert f"train.microbatch_rows was {rows}, is {config.train.microbatch_rows}" in caplog.text


def test_a_run_of_a_version_without_augmentation_goes_on_as_long_as_it_is_off(tmp_path):
    constant = {"schedule": "constant", "hold_updates": 0}
    train_toy(tmp_path, "run", num_updates=4, **constant)
    path = tmp_path / "run/config.json"
    recorded = json.loads(path.read_text())
    del recorded["data"]["augment"]
    path.write_text(json.dumps(recorded))
    config = make_config(tmp_path, num_updates=6, **constant)
    config.data.augment.noise_prob = 0.5
    run = {"parts": make_parts(), "workdir": str(tmp_path / "run"), "mode": "train", "strategy_name": "one_device"}
    with pytest.raises(WorkdirError, match="data.augment.noise_prob was 0.0, is 0.5; undo"):
        experiment.run(config=config, **run)
    assert train_toy(tmp_path, "run", num_updates=6, **constant).exit_status == 0
    # Nothing is altered, whatever its strength would be.
    config.data.augment.update({"noise_prob": 0.0, "noise_source": "moved", "gain_db": (-1.0, 1.0)})
    assert experiment.run(config=config, **run).exit_status == 0


def test_a_run_whose_decay_has_begun_is_not_made_longer_and_one_whose_has_not_is(tmp_path, caplog):
    schedule = {"schedule": "tri_stage", "warmup_updates": 1, "hold_updates": 2}
    train_toy(tmp_path, "run", num_updates=6, **schedule)
    with caplog.at_level("WARNING", logger="absl"):
        train_toy(tmp_path, "run", num_updates=6, **schedule)
    (line,) = (record.getMessage() for record in caplog.records if "nothing to train" in record.getMessage())
    assert f"--workdir=ANOTHER --config.model.init={tmp_path}/run" in line and "num_updates=12" not in line
    before = sorted(path.name for path in (tmp_path / "run").rglob("*"))
    message = r"was 6, is 10, and .*run is at update 6: .*tri_stage.*--config.model.init="
    with pytest.raises(ValueError, match=message) as caught:
        train_toy(tmp_path, "run", num_updates=10, **schedule)
    assert "\n" not in str(caught.value) and sorted(path.name for path in (tmp_path / "run").rglob("*")) == before
    # Stopped after two updates, at the peak.
    train_toy(tmp_path, "long", num_updates=10, **schedule)
    assert train_toy(tmp_path, "early", num_updates=6, stop=StopAt(2), **schedule).exit_status == 143
    assert train_toy(tmp_path, "early", num_updates=10, **schedule).exit_status == 0
    assert values_of(tmp_path / "early", 10) == values_of(tmp_path / "long", 10)


def test_a_contradiction_in_the_schedule_is_named_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match="train.warmup_ratio=0.1 and train.warmup_updates=1 are both set"):
        train_toy(tmp_path / "nowhere", "run", warmup_ratio=0.1)


def test_a_signal_is_heard_in_a_loop_in_the_graph_and_leaves_no_trace(tmp_path, monkeypatch):
    """Five updates are one loop; each part of it has one update here, as where an update takes two seconds."""
    monkeypatch.setattr(interruptible_loop, "_PART_SECS", 0.0)

    def run(name, *, in_graph=True, stop=None):
        config = make_config(tmp_path, log_every_updates=5, num_updates=5)
        config.checkpoint.every_updates = 5
        config.runtime.loop_in_graph = in_graph
        return experiment.run(
            config=config, parts=make_parts(), workdir=str(tmp_path / name), mode="train",
            strategy_name="one_device", stop=stop,
        )  # fmt: skip

    run("by call", in_graph=False)
    for n in (1, 3):
        assert run(f"stopped{n}", stop=StopAt(n)).exit_status == 143
        (path,) = manifest.list_checkpoints(tmp_path / f"stopped{n}/checkpoints")
        assert path.endswith(f"ckpt-{n}")
        assert run(f"stopped{n}").exit_status == 0
        assert reproducible_lines(tmp_path / f"stopped{n}") == reproducible_lines(tmp_path / "by call")
        assert values_of(tmp_path / f"stopped{n}", 5) == values_of(tmp_path / "by call", 5)


class BusyStop(StopAt):
    """A signal comes after update 3, and no time is left: what `run` does while the main thread is in update 4."""

    def __init__(self, while_busy):
        super().__init__(99)
        self._while_busy, self.rescue, self.note = while_busy, None, None

    def __call__(self, output=None):
        self._calls += 1
        if self._calls == 3:
            thread = threading.Thread(target=self._while_busy, args=(self,))
            thread.start()
            thread.join()
            self.exit_status = 143
            raise Killed


class Killed(BaseException):
    """Stands in for os._exit."""


def test_what_is_saved_from_beside_is_what_a_stop_there_saves_and_the_next_start_says_so(tmp_path, caplog):
    def while_busy(stop):
        assert 0 < stop.rescue_secs() < 10
        stop.note("SIGTERM (not done after 27 s)")
        stop.rescue()
        stop.rescue()  # nothing is left to save

    config = {"log_every_updates": 4, "num_updates": 6, "ema_decay": 0.9}
    with pytest.raises(Killed):
        train_toy(tmp_path, "beside", stop=BusyStop(while_busy), **config)
    assert train_toy(tmp_path, "stopped", stop=StopAt(3), **config).exit_status == 143
    assert values_of(tmp_path / "beside", 3) == values_of(tmp_path / "stopped", 3)
    path = str(tmp_path / "beside/checkpoints/ckpt-3")
    assert manifest.find_damage(path) is None and manifest.read_manifest(path)
    with caplog.at_level("INFO", logger="absl"):
        assert train_toy(tmp_path, "beside", **config).exit_status == 0
    said = [line for line in caplog.messages if "continuing at update 3 of 6" in line]
    assert len(said) == 1 and "was stopped by SIGTERM (not done after 27 s) at 2" in said[0]
    assert train_toy(tmp_path, "stopped", **config).exit_status == 0
    assert reproducible_lines(tmp_path / "beside") == reproducible_lines(tmp_path / "stopped")
    assert values_of(tmp_path / "beside", 6) == values_of(tmp_path / "stopped", 6)


def test_a_state_that_changes_while_it_is_copied_is_not_saved_and_the_stop_saves_by_itself(tmp_path, monkeypatch):
    versions = iter([(3, 0, 0), None])
    monkeypatch.setattr(trainer.Trainer, "settled_version", lambda self: next(versions))

    def while_busy(stop):
        stop.rescue()
        assert manifest.list_checkpoints(tmp_path / "run/checkpoints") == []
        assert not list((tmp_path / "run/checkpoints").glob("*_temp"))

    class Stop(BusyStop):
        def __call__(self, output=None):
            try:
                super().__call__(output)
            except Killed:
                raise StopTraining("stopped by SIGTERM") from None

    config = {"log_every_updates": 4, "num_updates": 6}
    assert train_toy(tmp_path, "run", stop=Stop(while_busy), **config).exit_status == 143
    assert train_toy(tmp_path, "stopped", stop=StopAt(3), **config).exit_status == 143
    assert values_of(tmp_path / "run", 3) == values_of(tmp_path / "stopped", 3)


def test_a_stop_in_good_order_is_named_by_the_next_start(tmp_path, caplog):
    assert train_toy(tmp_path, "run", stop=StopAt(3)).exit_status == 143
    with caplog.at_level("INFO", logger="absl"):
        train_toy(tmp_path, "run")
    (line,) = (line for line in caplog.messages if "continuing at update 3 of 6" in line)
    assert "was stopped by SIGTERM at 2" in line and "with all its updates saved" in line
    caplog.clear()
    with caplog.at_level("INFO", logger="absl"):
        train_toy(tmp_path, "run")
    assert not any("stopped by" in line for line in caplog.messages)  # a note is read once


def test_another_set_under_the_same_name_starts_a_new_comparison(tmp_path, caplog):
    class Other(ToyEvalData):
        digest = "b" * 16

    config = evaluating_config(tmp_path, in_background=False)
    config.train.num_updates = 4
    run = {"config": config, "workdir": str(tmp_path / "run"), "mode": "train_and_eval"}
    experiment.run(**run, parts=make_parts(build_eval_data=ToyEvalData))
    best = tmp_path / "run/best"
    step = json.loads((best / "best.json").read_text())["step"]  # no hypothesis is ever right, so the CER decides
    experiment.run(**run, parts=make_parts(build_eval_data=Other))
    found = [(line["step"], line["set_digest"][0]) for line in lines(tmp_path / "run") if line["split"] == "dev"]
    assert found == [(2, "a"), (4, "a"), (4, "b")]
    assert json.loads((best / "best.json").read_text())["step"] == 4
    assert f"the evaluation set of dev/wer has changed since update {step}" in caplog.text
