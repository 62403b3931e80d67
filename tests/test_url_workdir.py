"""A URL as workdir, on TensorFlow's file system in memory: all that a run does, and nothing on the local disk."""

from __future__ import annotations

import dataclasses
import json

import pytest
import tensorflow as tf

from common import storage
from common import workdir_layout as layout
from configs import base
from engine import experiment
from engine.checkpointing.restore import restore_weights
from engine.common import files
from engine.config import recorded_run
from engine.modes import export, report, transcribe
from tests.engine.inference import test_loading
from tests.engine.inference.test_loading import trained  # noqa: F401 - a fixture
from tests.engine.modes.test_export import parts  # noqa: F401 - a fixture
from tests.engine.test_experiment import StopAt
from tests.helpers.engine_toys import ToyModel
from tests.helpers.experiment_toys import CLOCK, ToyEvalData, make_config, make_parts


def make_run(folder, workdir):
    config = make_config(folder, ema_decay=0.9)
    config.eval.update({"every_updates": 2, "batch_size": 4, "best_metric_set": "dev", "idle_timeout_secs": 0.01})
    config.checkpoint.keep = 9
    config.data.eval["dev"] = base.get_eval_set(input=str(folder))
    return {"config": config, "parts": make_parts(build_eval_data=ToyEvalData), "workdir": workdir}


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    """The workdir of a run that a signal has stopped and the same command has finished, saved in the background."""
    folder = tmp_path_factory.mktemp("url")
    run = make_run(folder, f"ram://{folder.name}/deep/run")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        stopped = experiment.run(**run, mode="train_and_eval", strategy_name="one_device", stop=StopAt(8))
        assert stopped.exit_status == 143
        assert experiment.run(**run, mode="train_and_eval", strategy_name="one_device").exit_status == 0
    assert list(folder.iterdir()) == []
    return run["workdir"]


@pytest.fixture(autouse=True)
def nothing_local(tmp_path, monkeypatch):
    """No folder such as gs:/ may come into being."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    yield
    assert list((tmp_path / "here").iterdir()) == []


def test_the_run_is_the_run_on_a_disk_bit_by_bit(url, tmp_path):
    local = make_run(tmp_path, str(tmp_path / "run"))
    assert experiment.run(**local, mode="train_and_eval", strategy_name="one_device").exit_status == 0

    def lines(workdir):
        found = files.read_jsonl(storage.join(workdir, "metrics.jsonl"))
        return [{name: value for name, value in line.items() if name not in CLOCK} for line in found]

    assert lines(url) == lines(local["workdir"])
    for name in ("best/best.json", "eval/dev/predictions.jsonl", "eval/dev-ema/history/4.jsonl", "vocab.json"):
        assert storage.read_bytes(storage.join(url, name)) == storage.read_bytes(storage.join(local["workdir"], name))
    for folder, step in (("checkpoints", 6), ("best", 6)):
        there, here = (
            tf.compat.v1.train.NewCheckpointReader(storage.join(w, folder, f"ckpt-{step}"))
            for w in (url, local["workdir"])
        )
        names = [name for name in here.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
        assert len(names) > 2
        for name in names:
            if not name.startswith("save_counter"):
                assert there.get_tensor(name).tobytes() == here.get_tensor(name).tobytes(), name
    paths = layout.list_checkpoints(storage.join(url, "checkpoints"))
    assert {"2", "4", "6"} <= {path.rpartition("-")[2] for path in paths}
    assert all(layout.run_id_of(path) == layout.read_run_id(url) for path in paths)
    assert {"report.html", "tensorboard", "environment.json", "finished.json"} <= set(storage.list_names(url))
    assert b"Weights of update 6" in storage.read_bytes(storage.join(url, "report.html"))


def test_it_is_evaluated_also_from_beside_and_reported(url, tmp_path, capsys):
    run = make_run(tmp_path, url)
    before = len(files.read_jsonl(storage.join(url, "metrics.jsonl")))
    assert experiment.run(**run, mode="eval", weights="ema", checkpoint=f"{url}/checkpoints/ckpt-4").exit_status == 0
    assert (
        len(files.read_jsonl(storage.join(url, "metrics.jsonl"))) == before
    )  # an older one does not stand for the run
    assert len(files.read_jsonl(storage.join(url, "eval_of/ckpt-4/metrics.jsonl"))) == 1
    # As training names them: the raw weights have the plain names.
    assert storage.list_names(storage.join(url, "eval_of/ckpt-4/eval")) == ["dev-ema"]
    assert experiment.run(**run, mode="continuous_eval").exit_status == 0
    assert storage.is_file(storage.join(url, "continuous_eval/best/best.json"))
    elsewhere = {**run, "workdir": f"{url}-elsewhere"}
    assert experiment.run(**elsewhere, mode="eval", checkpoint=url).exit_status == 0
    (name,) = storage.list_names(f"{url}-elsewhere/eval_of")
    assert storage.is_file(f"{url}-elsewhere/eval_of/{name}/eval/dev/predictions.jsonl")
    assert report.run(parts=run["parts"], inputs=[url]) == 0
    assert f"written to {url}/report.html" in capsys.readouterr().out


def test_a_fresh_start_in_a_used_url_sets_the_earlier_run_aside(tmp_path):
    run = make_run(tmp_path, f"ram://{tmp_path.name}/run")
    run["config"].train.num_updates = 2
    run["config"].train.warmup_updates = run["config"].train.hold_updates = 0
    assert experiment.run(**run, mode="train_and_eval").exit_status == 0
    first = layout.read_run_id(run["workdir"])
    storage.remove_tree(storage.join(run["workdir"], "checkpoints"))
    assert experiment.run(**run, mode="train").exit_status == 0
    earlier = storage.join(run["workdir"], "earlier_runs/1")
    assert layout.read_run_id(earlier) == first != layout.read_run_id(run["workdir"])
    assert layout.find_checkpoint(earlier) == f"{earlier}/best/ckpt-2"
    assert layout.find_checkpoint(run["workdir"]) == f"{run['workdir']}/checkpoints/ckpt-2"
    restore_weights(ToyModel(), earlier)


def test_it_transcribes_and_is_exported(trained, parts, tmp_path):  # noqa: F811
    workdir, text = trained
    url = f"ram://{tmp_path.name}/run"
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            target = storage.join(url, path.relative_to(tmp_path / "run").as_posix())
            storage.make_dirs(storage.parent(target))
            storage.write_bytes(target, path.read_bytes())
    (tmp_path / "a.wav").touch()
    arguments = {"checkpoint": url, "inputs": [str(tmp_path / "a.wav")]}
    output = tmp_path / "out.jsonl"
    assert transcribe.run(parts=test_loading.make_parts(), output=str(output), **arguments) == 0
    assert json.loads(output.read_text())["text"] == text
    assert export.run(parts=parts, output=str(tmp_path / "exported"), **arguments) == 0
    assert json.loads((tmp_path / "exported/export.json").read_text())["checkpoint"] == "best/ckpt-1"
    assert recorded_run.load_run(f"{url}/best/ckpt-1")[1] == url


def test_weights_to_start_from_may_lie_behind_a_url(url, tmp_path):
    run = make_run(tmp_path, f"ram://{tmp_path.name}/run")
    run["config"].model.init = url
    assert experiment.run(**run, mode="train").exit_status == 0


@pytest.mark.parametrize("mode", ["train", "eval", "continuous_eval"])
@pytest.mark.parametrize("workdir", ["foo://bucket/run", "gs:/bucket/run"])
def test_a_place_that_cannot_be_written_is_one_line_before_anything_is_read(tmp_path, mode, workdir):
    run = make_run(tmp_path / "no-corpus", workdir)
    run["parts"] = dataclasses.replace(run["parts"], build_tokenizer=lambda path: pytest.fail("something was read"))
    with pytest.raises((OSError, ValueError), match=r"foo://bucket/run|gs:/bucket/run") as caught:
        experiment.run(**run, mode=mode)
    assert "\n" not in str(caught.value)
