"""The mode doctor: what it hands over, and how it ends."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from configs import base
from engine.modes import doctor
from tests.helpers.experiment_toys import Letters, ToyTrainData, make_config, make_parts


def run(config, tmp_path, *, num_errors=0, seen=None, strategy_name="one_device", parts=None):
    seen = {} if seen is None else seen

    def examine(**fields):
        seen.update(fields)
        return SimpleNamespace(num_errors=num_errors, lines=lambda: ["a line", f"{num_errors} errors"])

    return doctor.run(
        config=config,
        parts=make_parts(find_architecture=lambda **fields: {}, **(parts or {})),
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


def test_the_texts_decide_what_the_config_leaves_to_them_before_anything_is_examined(tmp_path):
    class Decided(ToyTrainData):
        tokenizer, text_style, updates_per_epoch = Letters(), "unicode", 5

        def __init__(self, **fields):
            assert (fields["tokenizer"], fields["text_style"]) == (None, "auto")
            fields["report"](("a fault",))

    styles, heard, seen = [], [], {}
    config = make_config(tmp_path)
    config.data.update({"vocab": "auto", "text_style": "auto"})
    config.data.eval["dev"] = base.get_eval_set(input=str(tmp_path))
    config.eval.best_of = "dev"
    parts = {"build_train_data": Decided, "build_eval_data": lambda **fields: styles.append(fields["text_style"])}
    assert run(config, tmp_path, seen=seen, parts=parts) == 0
    assert (seen["text_style"], seen["tokenizer"]) == ("unicode", Decided.tokenizer)
    train, dev = seen["sets"]
    assert isinstance(train.build(heard.append), Decided) and heard == [("a fault",)]
    dev.build(heard.append)
    assert styles == ["unicode"]


def test_where_training_cannot_be_opened_the_other_sets_are_examined_all_the_same(tmp_path):
    seen = {}
    config = make_config(tmp_path / "absent")
    config.data.update({"vocab": "auto", "text_style": "auto"})
    run(config, tmp_path, seen=seen)
    assert seen["text_style"] == "unicode" and isinstance(seen["tokenizer"], Letters)
    with pytest.raises(ValueError, match="no such corpus"):
        seen["sets"][0].build(lambda fault: None)
