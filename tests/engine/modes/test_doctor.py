"""The mode doctor: what it hands over, and how it ends."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from configs import base
from engine.common import files
from engine.modes import doctor
from tests.helpers.experiment_toys import Letters, ToyTrainData, make_config, make_parts


def run(config, tmp_path, *, num_errors=0, seen=None, strategy_name="one_device", parts=None, **more):
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
            num_frames="frames",
            training_flops=lambda num_samples: 2e9 * num_samples / 16_000,
            memory_bytes={
                name: fields[name] for name in ("keep_copy", "fused_ops", "gradient_checkpointing", "num_views")
            },
        ),
        set_type=lambda **fields: SimpleNamespace(**fields),
        examine=examine,
        write_report=lambda examination, folder, *, title: seen.update(folder=folder, title=title),
        **more,
    )


@pytest.mark.parametrize(("num_errors", "status"), [(0, 0), (3, 2)])
def test_errors_end_with_status_2(tmp_path, capsys, num_errors, status):
    seen = {}
    config = make_config(tmp_path, microbatch_rows=2, cr_ctc_scale=0.2)
    config.model.fused_ops, config.model.gradient_checkpointing = "off", True
    assert run(config, tmp_path, num_errors=num_errors, seen=seen) == status
    assert capsys.readouterr().out.splitlines() == ["a line", f"{num_errors} errors"]
    assert (seen["folder"], seen["title"]) == (str(tmp_path / "run"), "run")
    (train,) = seen["sets"]
    assert (train.name, train.rows_at_once(5, 40), train.fields["input"]) == ("", 2, str(tmp_path))
    assert seen["frames_fn"] == "frames"
    assert seen["memory_fn"] == {
        "keep_copy": True, "fused_ops": "off", "gradient_checkpointing": True, "num_views": 2
    }  # fmt: skip
    assert seen["available_bytes"] > 2**28 and seen["device_faults"] == []


HOUR = [(225, 256_000, 3600.0)]  # rows, padded samples, seconds of audio of an epoch


def predict(config, tmp_path, shapes=HOUR, **fields):
    seen = {}
    run(config, tmp_path, seen=seen, **fields)
    return seen["time_fn"](shapes, 10)


def test_the_training_time_follows_from_the_speed_that_the_workdir_has_measured(tmp_path):
    # The first loop compiles, the evaluation does not train.
    speeds = [("train", 1.0), ("train", 80.0), ("dev", 9.0), ("train", 100.0), ("train", None)]
    lines = [{"step": step, "split": split, "audio_secs_per_sec": speed} for step, (split, speed) in enumerate(speeds)]
    files.append_jsonl(tmp_path / "run" / "metrics.jsonl", *lines)
    config = make_config(tmp_path, num_updates=20)
    assert predict(config, tmp_path) == (
        20, 2 * 36.0, 2 * 45.0, "from 2 measurements in metrics.jsonl of this workdir"
    )  # fmt: skip


def test_the_training_time_of_a_new_run_is_estimated_from_the_models_operations(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "product_speed", lambda precision: {"float32": 100e9}[precision])
    num_updates, low, high, basis = predict(make_config(tmp_path, num_updates=20), tmp_path)
    # Two epochs of 3,600 s, padded by nothing, at 2 GFLOP a second: a small model.
    assert (num_updates, low, high) == (20, pytest.approx(2 * 7200 / 80), pytest.approx(2 * 7200 / 10))
    assert "2 billion operations per second of audio, at 10 to 80 % of a matrix product's 100 GFLOP/s" in basis
    assert predict(make_config(tmp_path), tmp_path, shapes=[]) is None


def test_a_damaged_metrics_file_costs_the_measured_speed_alone(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(doctor, "product_speed", lambda precision: 100e9)
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text("{\n")
    assert predict(make_config(tmp_path), tmp_path)[3].startswith("estimated before training")
    assert "metrics.jsonl, line 1" in caplog.text


def test_the_speed_of_a_product_is_measured():
    assert 1e8 < doctor.product_speed("mixed_bfloat16") < 1e16


def test_random_weights_that_stay_frozen_are_a_finding(tmp_path):
    config, seen = make_config(tmp_path), {}
    run(config, tmp_path, seen=seen)
    assert seen["frozen_random"] == ""
    config.model.freeze_feature_encoder = True
    run(config, tmp_path, seen=seen)
    assert seen["frozen_random"].startswith("model.freeze_feature_encoder=True, but model.init is empty")


def test_a_head_that_is_kept_is_known_to_the_examination(tmp_path):
    config, seen = make_config(tmp_path), {}
    config.model.init, config.model.init_head = str(tmp_path), True
    run(config, tmp_path, seen=seen)
    assert seen["keeps_head"] is True


def test_one_process_examines_for_all_workers_and_waits_for_none(tmp_path, monkeypatch):
    workers = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(workers))
    seen = {}
    assert run(make_config(tmp_path, microbatch_rows=2), tmp_path, seen=seen, strategy_name="multi_worker") == 0
    assert seen["sets"][0].rows_at_once(2, 40) == 1  # of a share of an update, over both


def test_a_missing_corpus_is_the_sets_own_fault_and_names_the_command(tmp_path):
    seen = {}
    config = make_config(tmp_path / "absent")
    config.data.prepare_command = "make speech"
    run(config, tmp_path, seen=seen)
    with pytest.raises(ValueError, match="no such corpus; make it with: make speech"):
        seen["sets"][0].build(lambda fault: None)


def test_the_texts_decide_what_the_config_leaves_to_them_before_anything_is_examined(tmp_path):
    class Decided(ToyTrainData):
        tokenizer, text_normalization, updates_per_epoch = Letters(), "unicode", 5

        def __init__(self, **fields):
            assert (fields["tokenizer"], fields["text_normalization"]) == (None, "auto")
            fields["report"](("a fault",))

    styles, heard, seen = [], [], {}
    config = make_config(tmp_path)
    config.data.update({"vocab": "auto", "text_normalization": "auto"})
    config.data.eval["dev"] = base.get_eval_set(input=str(tmp_path))
    config.eval.best_metric_set = "dev"
    parts = {
        "build_train_data": Decided,
        "build_eval_data": lambda **fields: styles.append(fields["text_normalization"]),
    }
    assert run(config, tmp_path, seen=seen, parts=parts) == 0
    assert (seen["text_normalization"], seen["tokenizer"]) == ("unicode", Decided.tokenizer)
    train, dev = seen["sets"]
    assert isinstance(train.build(heard.append), Decided) and heard == [("a fault",)]
    dev.build(heard.append)
    assert styles == ["unicode"]


def test_where_training_cannot_be_opened_the_other_sets_are_examined_all_the_same(tmp_path):
    seen = {}
    config = make_config(tmp_path / "absent")
    config.data.update({"vocab": "auto", "text_normalization": "auto"})
    run(config, tmp_path, seen=seen)
    assert seen["text_normalization"] == "unicode" and isinstance(seen["tokenizer"], Letters)
    with pytest.raises(ValueError, match="no such corpus"):
        seen["sets"][0].build(lambda fault: None)


def test_a_corpus_that_is_missing_does_not_keep_the_others_from_being_examined(tmp_path):
    class Mixed(ToyTrainData):
        def __init__(self, **fields):
            super().__init__(**fields)
            assert list(fields["more"]) == ["there"]
            fields["report"](SimpleNamespace(corpus="there"))

    seen, heard = {}, []
    config = make_config(tmp_path)
    for name, path in (("gone", tmp_path / "gone"), ("there", tmp_path)):
        config.data.more_train[name] = base.get_train_set(input=str(path))
    run(config, tmp_path, seen=seen, parts={"build_train_data": Mixed})
    sets = {one.corpus: one for one in seen["sets"] if not one.name}
    assert list(sets) == ["train", "gone", "there"]
    assert sets["train"].build(heard.append) is sets["there"].build(heard.append) and len(heard) == 1
    with pytest.raises(ValueError, match="gone: no such corpus"):
        sets["gone"].build(heard.append)


def test_where_the_first_corpus_is_missing_the_others_say_that_they_are_not_examined(tmp_path):
    seen = {}
    config = make_config(tmp_path / "absent")
    config.data.more_train.calls = base.get_train_set(input=str(tmp_path))
    run(config, tmp_path, seen=seen)
    first, calls = seen["sets"][:2]
    with pytest.raises(ValueError, match="no such corpus"):
        first.build(lambda fault: None)
    with pytest.raises(ValueError, match="calls is not examined, because the training data cannot be opened"):
        calls.build(lambda fault: None)


def test_a_checkpoint_scores_the_transcripts_with_its_own_text_rules(tmp_path, monkeypatch):
    seen, loaded = {}, []
    transcriber = SimpleNamespace(tokenizer=Letters())
    monkeypatch.setattr(doctor, "load_transcriber", lambda **fields: (loaded.append(fields), transcriber)[1])
    monkeypatch.setattr(doctor, "read_text_rules", lambda checkpoint: {"text_normalization": "unicode"})
    run(make_config(tmp_path), tmp_path, seen=seen)
    assert "score_fn" not in seen and not loaded
    run(make_config(tmp_path), tmp_path, seen=seen, checkpoint="runs/x", weights="ema")
    assert (loaded[0]["checkpoint"], loaded[0]["weights"]) == ("runs/x", "ema")
    assert list(seen["score_fn"]([])) == [] and seen["score_normalization"] == "unicode"
