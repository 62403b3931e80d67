"""Faults that are named before anything slow begins."""

from __future__ import annotations

import contextlib

import pytest

from configs import base
from engine import checks, experiment
from tests.engine_toys import ToyModel
from tests.experiment_toys import make_config, make_parts


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("train.global_batch_size", 5, "train.global_batch_size=5 must be a multiple of replicas x train.accum_steps"),
        ("eval.batch_size", 0, "eval.batch_size must be at least 1, got 0"),
        ("train.num_updates", 0, "train.num_updates must be at least 1, got 0"),
        ("train.log_every_updates", 0, "train.log_every_updates must be at least 1, got 0"),
        ("eval.best_of", "other", "eval.best_of='other' names no evaluation set; data.eval has dev_clean"),
    ],
)
def test_fields_that_do_not_fit_each_other_are_named(field, value, message):
    config = base.get_config()
    config.train.accum_steps = 1
    checks.check_fields(config, num_replicas=2)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        checks.check_fields(config, num_replicas=2)


def test_batches_by_seconds_need_a_multiple_that_can_be_shared_out():
    config = base.get_config()
    config.train.accum_steps, config.data.max_batch_secs, config.data.row_multiple = 2, 400.0, 8
    config.train.global_batch_size = 5  # not used
    checks.check_fields(config, num_replicas=4)
    config.data.row_multiple = 6
    with pytest.raises(ValueError, match="data.row_multiple=6 must be a multiple of replicas x .* = 4 x 2"):
        checks.check_fields(config, num_replicas=4)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.num_buckets", 8, "data.num_buckets=8: a TPU needs rows of one length; set data.num_buckets=1"),
        ("train.precision", "mixed_float16", "a TPU has no float16; set mixed_bfloat16 or float32"),
        ("model.regions", "on", "model.regions=on: a TPU compiles the step as a whole; set auto or off"),
    ],
)
def test_what_a_tpu_cannot_run_is_refused(field, value, message):
    config = base.get_config()
    config.data.num_buckets = 1
    checks.check_tpu(config)
    config.update_from_flattened_dict({field: value})
    with pytest.raises(ValueError, match=message):
        checks.check_tpu(config)


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
    checks.check_row_lengths(config, 246_000)
    # Played slowly a recording is longer; the limit given is rounded down.
    config.data.speed_factors = (0.9, 1.0)
    with pytest.raises(ValueError, match="set 13.837 or less"):
        checks.check_row_lengths(config, 246_000)
    config.data.max_duration_secs = 13.8
    config.data.join_max_utterances = 3
    with pytest.raises(ValueError, match="data.join_max_secs=0: .*set 15.375 or less"):
        checks.check_row_lengths(config, 246_000)
    config.data.join_max_secs = 15.0
    checks.check_row_lengths(config, 246_000)
    config.data.max_duration_secs = 0.0
    with pytest.raises(ValueError, match="data.max_duration_secs=0:"):
        checks.check_row_lengths(config, 246_000)
    checks.check_row_lengths(config, 0)


def test_a_head_of_another_alphabet_is_not_taken_over(tmp_path):
    class Alphabet:
        def __init__(self, tokens):
            self.pieces, self.num_tokens, self.blank_id = tokens.replace("_", " "), len(tokens), tokens.find("_")

    def build(path):
        return Alphabet(open(path, encoding="utf-8").read())

    run = tmp_path / "run"
    (run / "best").mkdir(parents=True)
    (run / "vocab.json").write_text("_ABC")
    for init in (run, run / "best", run / "best" / "ckpt-1"):
        checks.check_head(str(init), tokenizer=Alphabet("_ABC"), build_tokenizer=build)
        with pytest.raises(ValueError, match=r"run/vocab.json, has 'B' as token 2 and that of data.vocab 'X'"):
            checks.check_head(str(init), tokenizer=Alphabet("_AXC"), build_tokenizer=build)
        # The same characters, but another token is the blank.
        with pytest.raises(ValueError, match="has its blank at 0 and that of data.vocab at -1"):
            checks.check_head(str(init), tokenizer=Alphabet(" ABC"), build_tokenizer=build)
        with pytest.raises(ValueError, match=r"has 4 tokens and that of data.vocab 3; set data.vocab=\S+"):
            checks.check_head(str(init), tokenizer=Alphabet("_AB"), build_tokenizer=build)
    # A run goes on with what it began with.
    for tokens, message in (("_ABC", ""), ("_AXC", "no longer the one that it began with"), (" ABC", "blank at 0")):
        refused = pytest.raises(ValueError, match=message) if message else contextlib.nullcontext()
        with refused:
            checks.check_same_vocabulary(str(run), tokenizer=Alphabet(tokens), build_tokenizer=build)
    checks.check_same_vocabulary(str(tmp_path), tokenizer=Alphabet("_"), build_tokenizer=build)
    checks.check_head(str(tmp_path / "bare" / "x" / "ckpt-1"), tokenizer=Alphabet("_"), build_tokenizer=build)
