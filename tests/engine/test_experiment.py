"""The config's checks, and what a run does before and around its first update; whole runs are in tests/test_run.py."""

from __future__ import annotations

import json
import shutil

import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from configs import base
from engine import experiment
from engine.checkpoints import BestCheckpoint
from engine.protocols import Parts
from tests.engine_toys import ToyModel, toy_dataset_fn, toy_decoder, toy_feasible, toy_loss


class Letters:
    num_tokens = 6

    def decode(self, ids):
        return "".join("_abcde"[i] for i in ids)

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            json.dump({}, file)


class ToyTrainData:
    num_utterances, duration_secs, updates_per_epoch, num_left_out = 8, 20.0, 1, 0

    def __init__(self, **fields):
        self.dataset = toy_dataset_fn(fields["global_batch_size"])


def make_parts(**overrides):
    parts = {
        "build_tokenizer": lambda path: Letters(),
        "build_train_data": ToyTrainData,
        "build_eval_data": lambda **fields: pytest.fail("no evaluation set was configured"),
        "build_model": lambda **fields: ToyModel(),
        "find_reference": lambda path, text_style: None,
        "load_waveform": lambda path, on_rate_mismatch: pytest.fail("nothing to load"),
        "loss_fn": toy_loss,
        "feasible_fn": toy_feasible,
        "decoder": toy_decoder,
    }
    return Parts(**{**parts, **overrides})


def make_config(corpus, **train) -> ConfigDict:
    config = base.get_small_config()
    config.data.train.input = str(corpus)
    config.train.update(
        {"global_batch_size": 4, "num_updates": 6, "log_every_updates": 2, "warmup_updates": 1, "hold_updates": 1}
    )
    config.train.update(train)
    config.checkpoint.every_updates = 2
    config.checkpoint.keep = 2
    return config


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_train_mode_needs_no_evaluation_set(tmp_path):
    workdir = tmp_path / "run"
    outcome = experiment.run(
        config=make_config(tmp_path), parts=make_parts(), workdir=str(workdir), mode="train", strategy_name="one_device"
    )
    assert (outcome.exit_status, outcome.figures) == (0, {})
    assert [line["step"] for line in lines(workdir)] == [2, 4, 6]
    assert sorted(path.name for path in (workdir / "checkpoints").glob("*.index")) == ["ckpt-4.index", "ckpt-6.index"]


def test_too_many_unreadable_rows_stop_the_run_with_status_2_and_a_checkpoint(tmp_path):
    def spoiled(update, rows):
        from tests.engine_toys import toy_batch

        batch = toy_batch(update, rows)
        if update >= 2:
            batch["weight"][:2] = 0.0
        return batch

    class Spoiled(ToyTrainData):
        def __init__(self, **fields):
            self.dataset = toy_dataset_fn(fields["global_batch_size"], make=spoiled)

    config = make_config(tmp_path)
    config.data.max_bad_share = 0.2
    workdir = tmp_path / "run"
    outcome = experiment.run(
        config=config, parts=make_parts(build_train_data=Spoiled), workdir=str(workdir), mode="train"
    )
    # Updates 2 and 3 bring 4 bad rows of 16: a quarter.
    assert outcome.exit_status == 2
    assert [(line["step"], line["num_bad"]) for line in lines(workdir)] == [(2, 0), (4, 4)]
    assert (workdir / "checkpoints/ckpt-4.index").exists()


def test_weights_of_another_run_are_the_start_with_or_without_its_head(tmp_path):
    donor = ToyModel(seed=5)
    BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=donor),
        directory=tmp_path / "donor/best",
        global_step=tf.Variable(3, dtype=tf.int64),
    ).save_if_better(0.5, metric="dev/wer")
    for with_head in (True, False):
        model, fresh = ToyModel(seed=1), ToyModel(seed=1)
        experiment._initialize(model, str(tmp_path / "donor"), with_head=with_head)
        assert (model.encoder.kernel.numpy() == donor.encoder.kernel.numpy()).all()
        wanted = donor if with_head else fresh
        assert (model.head.kernel.numpy() == wanted.head.kernel.numpy()).all()


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


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.global_batch_size", 5, "train.global_batch_size=5 must be a multiple of replicas x train.accum_steps"),
        ("eval.batch_size", 3, "eval.batch_size=3 must be a multiple of the 2 replicas"),
        ("train.num_updates", 0, "train.num_updates must be at least 1, got 0"),
        ("train.log_every_updates", 0, "train.log_every_updates must be at least 1, got 0"),
        ("eval.best_of", "other", "eval.best_of='other' names no evaluation set; data.eval has dev-clean"),
    ],
)
def test_fields_that_do_not_fit_each_other_are_named(field, value, message):
    config = base.get_config()
    config.train.accum_steps = 1
    experiment.check(config, num_replicas=2)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        experiment.check(config, num_replicas=2)


def test_a_missing_corpus_names_the_command_that_makes_it(tmp_path):
    config = make_config(tmp_path / "nowhere")
    config.data.make_command = "python -m data.synthetic --output=X"
    with pytest.raises(ValueError, match="nowhere: no such corpus; make it with: python -m data.synthetic --output=X"):
        experiment.run(config=config, parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")
    assert not (tmp_path / "run/config.json").exists()


def test_missing_weights_name_the_command_that_converts_them(tmp_path):
    config = make_config(tmp_path)
    config.model.init = str(tmp_path / "weights")
    with pytest.raises(ValueError, match=r"weights: no such weights \(model.init\); .*python -m models.convert"):
        experiment.run(config=config, parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")


def test_default_workdir_is_named_after_the_config():
    assert experiment.default_workdir("configs/digits.py:../corpora/fsdd") == "runs/digits"
    assert experiment.default_workdir("configs/base.py") == "runs/base"


def test_load_run_finds_the_config_of_a_checkpoint_inside_a_workdir(tmp_path):
    (tmp_path / "run/best").mkdir(parents=True)
    (tmp_path / "run/config.json").write_text('{"seed": 7}')
    for path in ("run", "run/best", "run/best/ckpt-3"):
        config, workdir = experiment.load_run(str(tmp_path / path))
        assert (config.seed, workdir) == (7, str(tmp_path / "run"))
    with pytest.raises(ValueError, match="no config.json"):
        experiment.load_run(str(tmp_path / "elsewhere/x/y"))
    with pytest.raises(ValueError, match="--checkpoint is empty"):
        experiment.load_run("")


def test_rows_that_the_model_cannot_take_are_ruled_out_before_anything_is_written(tmp_path):
    class Fixed(ToyModel):
        max_training_samples = 246_000

    config = make_config(tmp_path)
    config.data.max_duration_secs = 15.5
    parts = make_parts(build_model=lambda **fields: Fixed())
    with pytest.raises(ValueError, match=r"data.max_duration_secs=15.5: .* at most 246000 samples; set 15.375 or less"):
        experiment.run(config=config, parts=parts, workdir=str(tmp_path / "run"), mode="train")
    assert not (tmp_path / "run/config.json").exists()

    config.data.max_duration_secs = 15.375
    experiment._check_row_lengths(config, 246_000)
    # Played slowly a recording is longer; the limit given is rounded down.
    config.data.speed_factors = (0.9, 1.0)
    with pytest.raises(ValueError, match="set 13.837 or less"):
        experiment._check_row_lengths(config, 246_000)
    config.data.max_duration_secs = 13.8
    config.data.join_max_utterances = 3
    with pytest.raises(ValueError, match="data.join_max_secs=0: .*set 15.375 or less"):
        experiment._check_row_lengths(config, 246_000)
    config.data.join_max_secs = 15.0
    experiment._check_row_lengths(config, 246_000)
    config.data.max_duration_secs = 0.0
    with pytest.raises(ValueError, match="data.max_duration_secs=0:"):
        experiment._check_row_lengths(config, 246_000)
    experiment._check_row_lengths(config, 0)


def test_a_run_from_before_there_were_sources_is_native(tmp_path):
    config = make_config(tmp_path)
    config.model.source, config.model.hub_handle = "hub", "X"
    seen = []
    parts = make_parts(build_model=lambda **fields: seen.append((fields["source"], fields["hub_handle"])))
    experiment.build_model(config, parts, num_tokens=6)
    old = ConfigDict(config.to_dict())
    del old.model["source"], old.model["hub_handle"]
    experiment.build_model(old, parts, num_tokens=6)
    assert seen == [("hub", "X"), ("native", "")]


def test_training_does_not_ask_for_the_evaluation_corpora(tmp_path):
    config = make_config(tmp_path)
    config.data.eval["dev"] = base.get_eval_set(input=str(tmp_path / "nowhere"))
    config.eval.best_of = "dev"
    run = {"config": config, "parts": make_parts(), "workdir": str(tmp_path / "run")}
    assert experiment.run(**run, mode="train").exit_status == 0
    with pytest.raises(ValueError, match="nowhere: no such corpus"):
        experiment.run(**run, mode="train_and_eval")
