"""Faults that are named before anything slow begins."""

from __future__ import annotations

import contextlib
import json

import pytest

from common import storage
from configs import base, debug, hub_tutorial, quickstart
from engine import experiment
from engine.config import field_rules, validation
from tests.helpers.engine_toys import ToyModel
from tests.helpers.experiment_toys import make_config, make_parts


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("eval.batch_size", 0, "eval.batch_size=0: wanted 1 or more"),
        ("train.num_updates", 0, "train.num_updates=0: wanted 1 or more"),
        ("train.log_every_updates", 0, "train.log_every_updates=0: wanted 1 or more"),
        (
            "eval.best_metric_set",
            "other",
            "eval.best_metric_set='other' names no evaluation set; data.eval has dev_clean",
        ),
    ],
)
def test_fields_that_do_not_fit_each_other_are_named(field, value, message):
    config = base.get_config()
    validation.check_fields(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        validation.check_fields(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.num_updates", "many", "train.num_updates='many': wanted a whole number, 1 or more"),
        ("train.num_updates", 2.5, "train.num_updates=2.5: wanted a whole number, 1 or more"),
        ("train.num_updates", True, "train.num_updates=True: wanted a whole number, 1 or more"),
        ("train.microbatch_rows", 0, "train.microbatch_rows=0: wanted 1 or more"),
        ("train.microbatch_secs", -1.0, "train.microbatch_secs=-1.0: wanted 0 or more; 0 = train.microbatch_rows rows"),
        ("train.learning_rate", float("nan"), "train.learning_rate=nan: wanted a number above 0"),
        ("train.learning_rate", -1.0, "train.learning_rate=-1.0: wanted a number above 0"),
        ("train.learning_rate", float("inf"), "train.learning_rate=inf: wanted a number above 0"),
        ("train.warmup_updates", -1, "train.warmup_updates=-1: wanted 0 or more"),
        ("train.warmup_ratio", 1.5, "train.warmup_ratio=1.5: wanted 0 to 1"),
        ("train.beta_2", 1.0, "train.beta_2=1.0: wanted 0 to less than 1"),
        ("train.ema_decay", -0.1, "train.ema_decay=-0.1: wanted 0 to less than 1"),
        ("train.clip_norm", None, "train.clip_norm=None: wanted a number, 0 or more"),
        (
            "train.precision",
            "float64",
            "train.precision='float64': wanted one of float32, mixed_bfloat16",
        ),
        (
            "train.schedule",
            "step",
            "train.schedule='step': no such value; there is constant, linear",
        ),
        ("eval.early_stopping_patience", -1, "eval.early_stopping_patience=-1: wanted 0 or more"),
        ("eval.batch_size", (8,), r"eval.batch_size=\(8,\): wanted a whole number, 1 or more"),
        ("checkpoint.every_updates", 0, "checkpoint.every_updates=0: wanted 1 or more"),
        ("checkpoint.background", "yes", "checkpoint.background='yes': wanted one of True, False"),
        ("runtime.stop_within_secs", -1.0, "runtime.stop_within_secs=-1.0: wanted 0 or more"),
        ("runtime.num_virtual_devices", "all", "runtime.num_virtual_devices='all': wanted a whole number, 0 or more"),
        ("data.max_unreadable_ratio", 5.0, "data.max_unreadable_ratio=5.0: wanted 0 to 1"),
        ("seed", -1, "seed=-1: wanted 0 to 4294967295"),
    ],
)
def test_a_value_that_a_field_cannot_have_is_named_before_anything_is_read(tmp_path, field, value, message):
    config = make_config(tmp_path / "nowhere")
    *groups, name = field.split(".")
    place = config
    for group in groups:
        place = place[group]
    del place[name]  # so that it may get another type
    place[name] = value
    with pytest.raises(ValueError, match=message) as caught:
        experiment.run(config=config, parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")
    assert "\n" not in str(caught.value) and not (tmp_path / "run").exists()


def test_a_config_without_a_field_or_a_group_is_told_where_to_get_it(tmp_path):
    for missing, name in (("train.beta_1", "train.beta_1"), ("runtime", "runtime.num_virtual_devices")):
        config = make_config(tmp_path)
        group, _, field = missing.partition(".")
        if field:
            del config[group][field]
        else:
            del config[group]
        with pytest.raises(ValueError, match=f"the config has no field {name}: start it from configs.base.get_config"):
            validation.check_values(config)
    config = make_config(tmp_path)
    for name in ("warmup_ratio", "hold_ratio", "loss_divisor", "microbatch_rows", "microbatch_secs"):
        del config.train[name]
    del config.runtime["stop_within_secs"]
    validation.check_values(config)  # as older configs are


def test_every_number_of_a_run_is_checked():
    """A field that is added to these groups is added to the table, or to this list with a reason."""
    config = base.get_config()
    for group in ("train", "eval", "checkpoint", "runtime"):
        for name, value in config[group].items():
            if isinstance(value, (bool, int, float)):
                assert f"{group}.{name}" in {"train.schedule", *field_rules.TRAINING_RULES}, name


def test_a_config_object_that_counts_microbatches_is_told_what_counts_now():
    config = base.get_config()
    config.train.accum_steps = 8
    with pytest.raises(ValueError, match="^train.accum_steps=8: how many .*; write train.microbatch_rows=4 instead"):
        validation.check_values(config)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.num_buckets", 8, "data.num_buckets=8: a TPU needs rows of one length; set data.num_buckets=1"),
        ("train.precision", "mixed_float16", "a TPU has no float16; set mixed_bfloat16 or float32"),
        ("model.fused_ops", "on", "model.fused_ops=on: a TPU compiles the step as a whole; set auto or off"),
        ("runtime.ctc_backend", "host", "runtime.ctc_backend=host: a TPU cannot compute it; set auto, scan or blocks"),
    ],
)
def test_what_a_tpu_cannot_run_is_refused(field, value, message):
    config = base.get_config()
    config.data.num_buckets = 1
    validation.check_tpu(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        validation.check_tpu(config)


def test_a_missing_corpus_names_the_command_that_makes_it(tmp_path):
    config = make_config(tmp_path / "nowhere")
    command = f"python -m data.synthetic --output={tmp_path / 'nowhere'}"
    config.data.prepare_command = command
    with pytest.raises(ValueError, match=f"nowhere: no such corpus; make it with: {command}"):
        experiment.run(config=config, parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")
    assert not (tmp_path / "run/config.json").exists()


@pytest.mark.parametrize("module", [base, hub_tutorial, debug, quickstart])
def test_the_corpora_of_a_config_are_made_by_its_command_and_another_path_is_not(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where none of the corpora is
    config = module.get_config()
    for fields in (config.data.train, *config.data.eval.values()):
        with pytest.raises(ValueError, match="no such corpus; make it with: python -m data"):
            validation.check_corpus(config, fields)
    (tmp_path / "train.jsonl").touch()
    for path in ("trian.jsonl", "datasets/mine.jsonl", "runs/other", "mine/datasets/librispeech"):
        config.data.train.input = path
        with pytest.raises(ValueError, match=f"^{path}: no such corpus; (did you mean .*; )?check the path") as caught:
            validation.check_corpus(config, config.data.train)
        assert "python -m" not in str(caught.value)
        assert ("did you mean train.jsonl?" in str(caught.value)) == (path == "trian.jsonl")


def test_missing_weights_name_the_command_that_converts_them(tmp_path):
    config = make_config(tmp_path)
    config.model.init = str(tmp_path / "weights")
    wanted = r"^model.init=.*weights: no such weights; .*python -m models.convert"
    with pytest.raises(ValueError, match=wanted) as found:
        experiment.run(config=config, parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")
    # What it says of random weights is a run that learns.
    assert str(found.value).endswith("--config.model.init= --config.model.freeze_feature_encoder=False")


def frozen(folder, **fields):
    config = make_config(folder)
    config.model.update({"freeze_feature_encoder": True, **fields})
    return config


def test_random_weights_that_stay_frozen_are_refused_before_anything_is_written_and_told_what_to_set(tmp_path):
    with pytest.raises(ValueError, match=r"model.freeze_feature_encoder=True, but model.init is empty: .*") as found:
        experiment.run(config=frozen(tmp_path), parts=make_parts(), workdir=str(tmp_path / "run"), mode="train")
    assert "--config.model.init=WEIGHTS" in str(found.value) and "\n" not in str(found.value)
    assert "--config.model.init= --config.model.freeze_feature_encoder=False" in str(found.value)
    assert not (tmp_path / "run/config.json").exists()
    assert validation.find_frozen_random(frozen(tmp_path, init=str(tmp_path / "weights"))) == ""
    assert validation.find_frozen_random(frozen(tmp_path, source="hub", hub_handle="X")) == ""


def test_a_run_that_began_frozen_goes_on_with_a_warning(tmp_path, monkeypatch, caplog):
    run = {"config": frozen(tmp_path), "parts": make_parts(), "workdir": str(tmp_path / "run"), "mode": "train"}
    with monkeypatch.context() as patch:
        patch.setattr(validation, "find_frozen_random", lambda config: "")
        assert experiment.run(**run).exit_status == 0
    assert experiment.run(**run).exit_status == 0
    assert "the feature encoder would stay random for ever" in caplog.text


def test_a_feature_encoder_that_was_random_and_frozen_all_along_is_found_however_many_runs_ago(tmp_path):
    for name, model in {
        "first": {"init": "", "freeze_feature_encoder": True},
        "second": {"init": str(tmp_path / "first/best"), "freeze_feature_encoder": True},
        "trained": {"init": "", "freeze_feature_encoder": False},
        "loop": {"init": str(tmp_path / "loop"), "freeze_feature_encoder": True},
        "hub": {"init": "", "freeze_feature_encoder": True, "source": "hub"},
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps({"model": model}))
    fault = validation.find_frozen_random(frozen(tmp_path, init=str(tmp_path / "second/best/ckpt-2")))
    assert f"the run in {tmp_path / 'first'} began with random weights" in fault
    for name in ("trained", "loop", "hub", "converted"):
        assert validation.find_frozen_random(frozen(tmp_path, init=str(tmp_path / name))) == ""
    open_again = frozen(tmp_path, init=str(tmp_path / "second"), freeze_feature_encoder=False)
    assert validation.find_frozen_random(open_again) == ""


def test_an_encoder_that_is_held_back_while_random_is_a_warning_and_refused_where_it_never_trains(tmp_path, caplog):
    config = frozen(tmp_path, freeze_feature_encoder=False, freeze_encoder_updates=5)
    validation.check_frozen(config)
    assert "train the head on an encoder that is random" in caplog.text
    config.model.freeze_encoder_updates = config.train.num_updates
    with pytest.raises(ValueError, match="freeze_encoder_updates=6 of train.num_updates=6, but model.init is empty"):
        validation.check_frozen(config)


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
    validation.check_row_lengths(config, 246_000)
    # Played slowly a recording is longer; the limit given is rounded down.
    config.data.speed_factors = (0.9, 1.0)
    with pytest.raises(ValueError, match="set 13.837 or less"):
        validation.check_row_lengths(config, 246_000)
    config.data.max_duration_secs = 13.8
    config.data.concat_max_utterances = 3
    with pytest.raises(ValueError, match="data.concat_max_secs=0: .*set 15.375 or less"):
        validation.check_row_lengths(config, 246_000)
    config.data.concat_max_secs = 15.0
    validation.check_row_lengths(config, 246_000)
    # The silence of augmentation is part of the row.
    config.data.augment.update({"silence_prob": 0.1, "silence_secs": (0.0, 0.5)})
    with pytest.raises(ValueError, match="data.max_duration_secs=13.8: .*set 12.937 or less"):
        validation.check_row_lengths(config, 246_000)
    config.data.augment.silence_prob = 0.0
    config.data.max_duration_secs = 0.0
    with pytest.raises(ValueError, match="data.max_duration_secs=0:"):
        validation.check_row_lengths(config, 246_000)
    validation.check_row_lengths(config, 0)


class Alphabet:
    def __init__(self, tokens):
        self.token_strings, self.num_tokens, self.blank_id = tokens.replace("_", " "), len(tokens), tokens.find("_")


def test_a_head_of_another_alphabet_is_not_taken_over(tmp_path):
    def build(path):
        return Alphabet(open(path, encoding="utf-8").read())

    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    (run / "vocab.json").write_text("_ABC")
    for init in (run, run / "best", run / "best" / "ckpt-1"):
        validation.check_head(str(init), tokenizer=Alphabet("_ABC"), build_tokenizer=build)
        with pytest.raises(ValueError, match=r"run/vocab.json, has 'B' as token 2 and that of data.vocab 'X'"):
            validation.check_head(str(init), tokenizer=Alphabet("_AXC"), build_tokenizer=build)
        # The same characters, but another token is the blank.
        with pytest.raises(ValueError, match="has its blank at 0 and that of data.vocab at -1"):
            validation.check_head(str(init), tokenizer=Alphabet(" ABC"), build_tokenizer=build)
        with pytest.raises(ValueError, match=r"has 4 tokens and that of data.vocab 3; set data.vocab=\S+"):
            validation.check_head(str(init), tokenizer=Alphabet("_AB"), build_tokenizer=build)
    # A run goes on with what it began with.
    for tokens, message in (("_ABC", ""), ("_AXC", "no longer the one that it began with"), (" ABC", "blank at 0")):
        refused = pytest.raises(ValueError, match=message) if message else contextlib.nullcontext()
        with refused:
            validation.check_same_vocabulary(str(run), tokenizer=Alphabet(tokens), build_tokenizer=build)
    validation.check_same_vocabulary(str(tmp_path), tokenizer=Alphabet("_"), build_tokenizer=build)
    validation.check_head(str(tmp_path / "bare" / "x" / "ckpt-1"), tokenizer=Alphabet("_"), build_tokenizer=build)


def test_a_run_at_a_url_keeps_its_vocabulary_too(tmp_path):
    run = f"ram://{tmp_path.name}"
    storage.make_dirs(run)
    storage.write_bytes(f"{run}/vocab.json", b"_ABC")

    def build(path):
        return Alphabet(storage.read_bytes(path).decode())

    validation.check_same_vocabulary(run, tokenizer=Alphabet("_ABC"), build_tokenizer=build)
    with pytest.raises(ValueError, match="no longer the one that it began with"):
        validation.check_same_vocabulary(run, tokenizer=Alphabet("_AXC"), build_tokenizer=build)


@pytest.mark.parametrize(
    ("updates", "epochs"),
    [
        ("train.num_updates", "train.num_epochs"),
        ("eval.every_updates", "eval.every_epochs"),
        ("checkpoint.every_updates", "checkpoint.every_epochs"),
    ],
)
def test_updates_and_epochs_of_the_same_are_one_or_the_other(updates, epochs):
    config = base.get_config()
    config.update_from_flattened_dict({updates: 0, epochs: 2.5})
    validation.check_values(config)
    config.update_from_flattened_dict({updates: 7})
    with pytest.raises(ValueError, match=f"{epochs}=2.5 and {updates}=7 are both set; set one of them to 0"):
        validation.check_values(config)
    config.update_from_flattened_dict({epochs: -1.0})
    with pytest.raises(ValueError, match=f"^{epochs}=-1.0: wanted 0 or more"):
        validation.check_values(config)
    group, _, name = epochs.partition(".")
    config.update_from_flattened_dict({epochs: 0.0})
    del config[group][name]
    validation.check_values(config)  # as older configs are


@pytest.mark.parametrize("field", ["data.train.input", "model.init"])
def test_a_url_of_a_kind_that_is_not_known_is_one_line(tmp_path, field):
    config = make_config(tmp_path)
    config.update_from_flattened_dict({field: "nowhere://bucket/x"})
    with pytest.raises(OSError, match="cannot use nowhere://bucket/x: File system scheme 'nowhere' not implemented"):
        validation.check_inputs(config, config.model.init, evaluate=False)


def test_a_further_corpus_cannot_have_the_name_of_the_first():
    config = base.get_config()
    config.data.more_train.train = config.data.train
    with pytest.raises(ValueError, match=r"^data\.more_train\.train: data\.train has this name"):
        validation.check_fields(config)
