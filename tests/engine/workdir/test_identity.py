"""A workdir holds one run: what an earlier one left is set aside, what is of another is neither read nor written."""

from __future__ import annotations

import json
import shutil

import pytest
import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from configs import base
from engine import experiment
from engine.common import files
from engine.workdir import identity
from engine.workdir.folder import WorkdirError
from engine.workdir.identity import RunFiles, begin_run, claim_output, evaluation_folder
from tests.helpers.experiment_toys import ToyEvalData, ToyTrainData, make_config, make_parts


def make_run(folder, name="run", *, seed=0, parts=None, **train):
    config = make_config(folder, num_updates=4, ema_decay=0.5, **train)
    config.seed = seed
    config.eval.update({"every_updates": 2, "batch_size": 4, "best_metric_set": "dev", "report_utterances": 3})
    config.data.eval["dev"] = base.get_eval_set(input=str(folder))
    parts = parts or make_parts(build_eval_data=ToyEvalData)
    return {"config": config, "parts": parts, "workdir": storage.join(folder, name), "strategy_name": "one_device"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with everything that a run leaves; tests copy it."""
    run = make_run(tmp_path_factory.mktemp("finished"))
    assert experiment.run(**run, mode="train_and_eval").exit_status == 0
    return run["workdir"]


@pytest.fixture
def used(finished, tmp_path):
    """A copy of the finished run, its id, and the arguments of the run in it."""
    run = make_run(tmp_path)
    shutil.copytree(finished, run["workdir"])
    run["config"].data.train.input = run["config"].data.eval.dev.input = str(tmp_path)
    return run, layout.read_run_id(finished)


def names(folder):
    return set(storage.list_names(folder)) - {".lock"}


def test_the_id_of_a_run_is_in_its_workdir_and_in_every_checkpoint_and_stays_on_resume(used):
    run, run_id = used
    workdir = run["workdir"]
    paths = [path for name in ("best", "checkpoints") for path in layout.list_checkpoints(f"{workdir}/{name}")]
    assert len(run_id) == 16 and len(paths) == 3
    assert {layout.run_id_of(path) for path in paths} == {run_id}
    assert experiment.run(**run, mode="train_and_eval").exit_status == 0
    assert layout.read_run_id(workdir) == run_id and "earlier_runs" not in names(workdir)


def test_a_fresh_start_sets_aside_all_that_the_earlier_run_left_as_a_workdir_of_its_own(used, caplog):
    run, old_id = used
    workdir = run["workdir"]
    for name in ("decode.json", "skipped_updates.jsonl", "comparison.html"):
        files.write_text_atomic(f"{workdir}/{name}", "{}\n")
    files.write_text_atomic(f"{workdir}/continuous_eval/metrics.jsonl", "{}\n")
    files.write_text_atomic(f"{workdir}/notes.txt", "mine")
    before = names(workdir)
    shutil.rmtree(f"{workdir}/checkpoints")
    run["config"].seed = 7
    assert experiment.run(**run, mode="train").exit_status == 0
    new_id = layout.read_run_id(workdir)
    assert new_id not in ("", old_id)
    # Nothing but its own lines, and no best weights, as it was never evaluated.
    assert {line["split"] for line in files.read_jsonl(f"{workdir}/metrics.jsonl")} == {"train"}
    assert names(workdir) == {
        "checkpoints", "config.json", "earlier_runs", "environment.json", "finished.json", "metrics.jsonl",
        "notes.txt", "run.json", "tensorboard", "vocab.json",
    }  # fmt: skip
    assert layout.find_checkpoint(workdir) == f"{workdir}/checkpoints/ckpt-4"
    earlier = f"{workdir}/earlier_runs/1"
    assert names(earlier) == before - {"checkpoints", "notes.txt"}
    assert layout.read_run_id(earlier) == old_id
    assert layout.find_checkpoint(earlier) == f"{earlier}/best/ckpt-4"
    (line,) = [message for message in caplog.messages if "moved the files of an earlier run" in message]
    assert earlier in line and "best, continuous_eval, eval, metrics.jsonl" in line and "\n" not in line


def test_a_start_that_was_refused_or_made_nothing_leaves_nothing_to_set_aside(tmp_path):
    workdir = str(tmp_path / "run")
    first = begin_run(workdir, is_fresh=True)
    (tmp_path / "run/config.json").write_text("{}")
    for name in ("checkpoints", "best", "tensorboard"):
        (tmp_path / "run" / name).mkdir()
    assert begin_run(workdir, is_fresh=True) not in ("", first)
    assert "earlier_runs" not in names(workdir)


def test_weights_to_start_from_are_not_set_aside_from_under_the_run(used):
    run, _ = used
    workdir = run["workdir"]
    shutil.rmtree(f"{workdir}/checkpoints")
    run["config"].model.init = workdir
    before = names(workdir)
    with pytest.raises(WorkdirError, match=r"best/ckpt-4 \(model.init\) is from an earlier run in the same workdir"):
        experiment.run(**run, mode="train")
    assert names(workdir) == before


def test_a_run_goes_on_from_a_copy_of_its_checkpoints_alone_under_its_own_id(used, tmp_path):
    run, run_id = used
    shutil.copytree(f"{run['workdir']}/checkpoints", tmp_path / "copy/checkpoints")
    assert experiment.run(**{**run, "workdir": str(tmp_path / "copy")}, mode="train").exit_status == 0
    assert layout.read_run_id(tmp_path / "copy") == run_id


def test_checkpoints_and_best_weights_of_another_run_are_not_taken_for_ones_own(used, tmp_path, caplog):
    run, _ = used
    workdir = run["workdir"]
    other = make_run(tmp_path, "other", seed=3)
    assert experiment.run(**other, mode="train_and_eval").exit_status == 0
    shutil.rmtree(f"{workdir}/best")
    shutil.copytree(f"{other['workdir']}/best", f"{workdir}/best")
    assert layout.find_checkpoint(workdir) == f"{workdir}/checkpoints/ckpt-4"
    assert experiment.run(**run, mode="train_and_eval").exit_status == 0
    assert layout.list_checkpoints(f"{workdir}/earlier_runs/1/best") and "belongs to another run" in caplog.text
    shutil.rmtree(f"{workdir}/checkpoints")
    shutil.copytree(f"{other['workdir']}/checkpoints", f"{workdir}/checkpoints")
    with pytest.raises(WorkdirError, match=r"ckpt-4: belongs to run \w+, the workdir to run \w+ \(run.json\)"):
        experiment.run(**run, mode="train")


def test_an_evaluation_of_another_runs_weights_leaves_this_run_as_it_is(used, finished, tmp_path):
    run, _ = used
    workdir = run["workdir"]
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    figures = experiment.run(**run, mode="eval", checkpoint=finished).metrics
    assert {path: path.read_bytes() for path in before} == before
    (output,) = (tmp_path / "run/eval_of").iterdir()
    assert output.name.startswith("run-")
    (line,) = files.read_jsonl(output / "metrics.jsonl")
    assert (line["split"], line["step"], line["wer"]) == ("dev", 4, figures["dev"]["wer"])
    assert (output / "eval/dev/predictions.jsonl").exists() and (output / "report.html").exists()
    # A checkpoint of its own, wherever in the workdir, is its own.
    for own in ("", workdir, f"{workdir}/best", f"{workdir}/checkpoints/ckpt-4"):
        assert evaluation_folder(workdir, own) == workdir
    shutil.copytree(finished, f"{workdir}/earlier_runs/1")
    assert evaluation_folder(workdir, f"{workdir}/earlier_runs/1") != workdir


def test_an_evaluation_of_an_older_checkpoint_does_not_stand_for_the_run(used, tmp_path):
    run, _ = used
    workdir = run["workdir"]
    (older, newest) = layout.list_checkpoints(f"{workdir}/checkpoints")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    outcome = experiment.run(**run, mode="eval", checkpoint=older)
    assert {path: path.read_bytes() for path in before} == before
    output = tmp_path / "run/eval_of/ckpt-2"
    assert outcome.folder == str(output)
    (line,) = files.read_jsonl(output / "metrics.jsonl")
    assert (line["step"], line["wer"]) == (2, outcome.metrics["dev"]["wer"])
    assert (output / "eval/dev/predictions.jsonl").exists() and (output / "report.html").exists()
    # Without best/ the newest is the run's own, and a checkpoint of that folder that another one has replaced is not.
    shutil.copytree(f"{workdir}/best", f"{workdir}/damaged")
    assert evaluation_folder(workdir, f"{workdir}/damaged/ckpt-4") == f"{workdir}/eval_of/damaged_ckpt-4"
    shutil.rmtree(f"{workdir}/best")
    assert evaluation_folder(workdir, newest) == evaluation_folder(workdir, workdir) == workdir
    assert evaluation_folder(workdir, f"{older}.index") == str(output)


def test_another_runs_weights_are_evaluated_with_its_own_vocabulary(used, finished):
    run, _ = used
    asked = []
    parts = make_parts(
        build_eval_data=ToyEvalData,
        build_tokenizer=lambda path: asked.append(path) or make_parts().build_tokenizer(path),
    )
    experiment.run(**{**run, "parts": parts}, mode="eval", checkpoint=f"{finished}/checkpoints/ckpt-4")
    assert asked == [f"{finished}/vocab.json"]


def test_results_beside_a_training_belong_to_the_run_they_are_of(tmp_path, caplog):
    output = str(tmp_path / "continuous_eval")
    claim_output(output, "")
    claim_output(output, "one")
    files.write_jsonl_atomic(f"{output}/metrics.jsonl", [{"step": 2, "split": "dev"}])
    claim_output(output, "one")
    assert names(output) == {"metrics.jsonl", "run.json"}
    claim_output(output, "two")
    assert names(output) == {"earlier_runs", "run.json"} and layout.read_run_id(output) == "two"
    assert "has results of another run, one; moved them" in caplog.text


@pytest.mark.parametrize(
    ("when", "how"),
    [
        ("updates", "removed"),
        ("updates", "moved"),
        ("evaluation", "removed"),
        ("save", "removed"),
        ("save", "another run"),
    ],
)
def test_a_workdir_that_goes_away_in_mid_run_ends_it_and_is_not_made_again(  # noqa: C901, each way to go away
    tmp_path, monkeypatch, when, how
):
    workdir = tmp_path / "run"
    done = []

    def take_away():
        if done:
            return
        done.append(1)
        if how == "removed":
            shutil.rmtree(workdir)
        elif how == "moved":
            workdir.rename(tmp_path / "moved")
        else:
            (workdir / "run.json").write_text(json.dumps({"run_id": "other"}))

    class Train(ToyTrainData):
        def unreadable(self, before_update):
            if when == "updates" and before_update == 2:
                take_away()  # after this loop's look: the next thing that looks must find it
            return []

    class Eval(ToyEvalData):
        def dataset(self, context):
            if when == "evaluation":
                take_away()
            return super().dataset(context)

    run = make_run(tmp_path, parts=make_parts(build_train_data=Train, build_eval_data=Eval))
    if when == "save":  # after the loop's last look, before its checkpoint
        run["config"].eval.every_updates = 0
        append = files.append_jsonl

        def then_take_away(path, *records):
            append(path, *records)
            take_away()

        monkeypatch.setattr(files, "append_jsonl", then_take_away)
    wanted = r"run: the folder (has been|now belongs to).*stops at update \d; updates since the last checkpoint are"
    with pytest.raises(WorkdirError, match=wanted) as found:
        experiment.run(**run, mode="train_and_eval")
    assert "\n" not in str(found.value)
    if how != "another run":
        left = {path.name for path in workdir.rglob("*") if path.is_file()} if workdir.exists() else set()
        assert not left & {"metrics.jsonl", "config.json", "report.html", "predictions.jsonl", "best.json", "run.json"}
        assert not [name for name in left if name.startswith("ckpt")]


def test_a_run_of_a_version_without_ids_gets_one_on_resume(used):
    run, _ = used
    workdir = run["workdir"]
    storage.remove(f"{workdir}/run.json")
    for folder in ("best", "checkpoints"):
        for path in layout.list_checkpoints(f"{workdir}/{folder}"):
            manifest = layout.read_object(f"{path}.manifest.json")
            del manifest["run_id"]
            files.write_json_atomic(f"{path}.manifest.json", manifest)
    assert layout.find_checkpoint(workdir) == f"{workdir}/best/ckpt-4"
    assert experiment.run(**run, mode="train").exit_status == 0
    assert len(layout.read_run_id(workdir)) == 16 and layout.find_checkpoint(workdir) == f"{workdir}/best/ckpt-4"


def test_the_look_itself_tells_removed_from_taken(tmp_path):
    look = RunFiles(str(tmp_path), "one", tf.Variable(5, dtype=tf.int64))
    files.write_json_atomic(tmp_path / "run.json", {"run_id": "one"})
    look()
    files.write_json_atomic(tmp_path / "run.json", {"run_id": "two"})
    with pytest.raises(WorkdirError, match="now belongs to run two .* stops at update 5"):
        look()
    (tmp_path / "run.json").unlink()
    with pytest.raises(WorkdirError, match="has been removed or moved"):
        look()
    assert identity.find_run_id(str(tmp_path)) == ""
