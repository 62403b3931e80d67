"""The mode doctor: what it hands over, and how it ends."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from engine import doctor
from tests.experiment_toys import make_config, make_parts


def run(config, tmp_path, *, num_errors=0, seen=None, strategy_name="one_device"):
    seen = {} if seen is None else seen

    def examine(**fields):
        seen.update(fields)
        return SimpleNamespace(num_errors=num_errors, lines=lambda: ["a line", f"{num_errors} errors"])

    return doctor.run(
        config=config,
        parts=make_parts(find_architecture=lambda **fields: {}),
        workdir=str(tmp_path / "run"),
        strategy_name=strategy_name,
        measure_model=lambda **fields: SimpleNamespace(
            num_frames="frames", memory_bytes={name: fields[name] for name in ("keep_copy", "regions", "recompute")}
        ),
        set_type=lambda **fields: SimpleNamespace(**fields),
        examine=examine,
        write_report=lambda examination, folder, *, title: seen.update(folder=folder, title=title),
    )


@pytest.mark.parametrize(("num_errors", "status"), [(0, 0), (3, 2)])
def test_errors_end_with_status_2(tmp_path, capsys, num_errors, status):
    seen = {}
    config = make_config(tmp_path, accum_steps=2)
    config.model.regions, config.model.recompute = "off", True
    assert run(config, tmp_path, num_errors=num_errors, seen=seen) == status
    assert capsys.readouterr().out.splitlines() == ["a line", f"{num_errors} errors"]
    assert (seen["folder"], seen["title"]) == (str(tmp_path / "run"), "run")
    (train,) = seen["sets"]
    assert (train.name, train.num_parts, train.fields["input"]) == ("", 2, str(tmp_path))
    assert seen["frames_fn"] == "frames"
    assert seen["memory_fn"] == {"keep_copy": True, "regions": "off", "recompute": True}
    assert seen["available_bytes"] > 2**28


def test_random_weights_that_stay_frozen_are_a_finding(tmp_path):
    config, seen = make_config(tmp_path), {}
    run(config, tmp_path, seen=seen)
    assert seen["frozen_random"] == ""
    config.model.freeze_feature_encoder = True
    run(config, tmp_path, seen=seen)
    assert seen["frozen_random"].startswith("model.freeze_feature_encoder=True, but model.init is empty")


def test_one_process_examines_for_all_workers_and_waits_for_none(tmp_path, monkeypatch):
    workers = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    seen = {}
    assert run(make_config(tmp_path, accum_steps=2), tmp_path, seen=seen, strategy_name="multi_worker") == 0
    assert seen["sets"][0].num_parts == 4  # microbatches of an update, over both


def test_a_missing_corpus_is_the_sets_own_fault_and_names_the_command(tmp_path):
    seen = {}
    config = make_config(tmp_path / "absent")
    config.data.make_command = "make speech"
    run(config, tmp_path, seen=seen)
    with pytest.raises(ValueError, match="no such corpus; make it with: make speech"):
        seen["sets"][0].build(lambda fault: None)
