"""Old spellings of fields and flags: they work, and one line names the new ones."""

from __future__ import annotations

import json

import pytest

from common import renamed
from common.arguments import Parser
from common.workdir_layout import read_config
from configs.base import get_config, get_eval_set, get_train_set
from engine.config.config_file import ConfigParser
from engine.config.field_flags import FlagError
from models.wav2vec2.config import Wav2Vec2Config

OLD_CONFIG = """
from configs import debug

def get_config():
    config = debug.get_config()
    config.data.make_command = "make it"
    config.eval.best_of = ""
    return config
"""


def make_reader():
    return ConfigParser(template=get_config(), new_eval_set=get_eval_set, new_train_set=get_train_set)


def test_every_new_name_is_a_field_of_a_config():
    config = get_config()
    sections = [config.model, config.data, config.train, config.eval, get_eval_set()]
    for new in renamed.FIELDS.values():
        assert any(new in section for section in sections), new
    for old in renamed.FIELDS:
        assert not any(old in section for section in sections), old


def test_a_flag_for_an_old_field_changes_the_new_one_and_says_so(capsys):
    reader = make_reader()
    given = reader.prepare(["run.py", "--config=configs/debug.py", "--config.data.text_style=unicode"])
    assert given[-1] == "--config.data.text_normalization=unicode"
    assert capsys.readouterr().err == (
        "--config.data.text_style is now spelled --config.data.text_normalization; the old spelling still works\n"
    )


def test_a_config_file_that_sets_old_fields_still_works(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(OLD_CONFIG)
    reader = make_reader()
    reader.prepare(["run.py", f"--config={path}"])
    config = reader.parse("")
    assert (config.data.prepare_command, config.eval.best_metric_set) == ("make it", "")
    assert "make_command" not in config.data
    assert "config.eval.best_of is now spelled config.eval.best_metric_set" in capsys.readouterr().err


def test_an_old_field_of_the_wrong_type_is_named_with_its_file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OLD_CONFIG.replace('"make it"', "3"))
    with pytest.raises(FlagError, match=r"mine\.py: .*'prepare_command'.* <class 'int'>"):
        make_reader().prepare(["run.py", f"--config={path}"])


def test_of_an_old_and_a_new_spelling_the_last_counts_as_for_any_flag_given_twice():
    given = ["run.py", "--config=configs/debug.py", "--config.data.text_style=unicode"]
    given = make_reader().prepare([*given, "--config.data.text_normalization=none"])
    assert given[-2:] == ["--config.data.text_normalization=unicode", "--config.data.text_normalization=none"]


def test_an_old_flag_of_a_command_sets_the_new_one(capsys):
    parser = Parser()
    parser.add_argument("--format")
    assert parser.parse_args(["--source=csv"]).format == "csv"
    assert parser.parse_args(["--source", "csv"]).format == "csv"
    assert capsys.readouterr().err.count("--source is now spelled --format") == 2


def test_a_flag_of_another_command_with_an_old_name_is_left_alone():
    parser = Parser()
    parser.add_argument("--source")
    assert parser.parse_args(["--source=x"]).source == "x"


def test_files_of_earlier_runs_are_read_under_the_new_names(tmp_path):
    path = tmp_path / "config.json"
    path.write_text('{"data": {"text_style": "none"}, "eval": {"best_of": "dev"}}')
    assert read_config(path) == {"data": {"text_normalization": "none"}, "eval": {"best_metric_set": "dev"}}
    assert Wav2Vec2Config.from_dict({"regions": "off", "recompute": True}).gradient_checkpointing


def test_an_evaluation_set_may_be_called_like_an_old_field(tmp_path, capsys):
    path = tmp_path / "mine.py"
    path.write_text(
        OLD_CONFIG.replace('eval.best_of = ""', "data.eval.regions = get_eval_set()").replace(
            "import debug", "import debug\nfrom configs.base import get_eval_set, get_train_set"
        )
    )
    reader = make_reader()
    reader.prepare(["run.py", f"--config={path}", "--config.data.eval.regions.split=north"])
    assert "regions" in reader.parse("").data.eval
    assert "regions" not in capsys.readouterr().err
    written = tmp_path / "config.json"
    written.write_text('{"data": {"eval": {"regions": {"join_gap_secs": 0.5}}}}')
    assert read_config(written) == {"data": {"eval": {"regions": {"concat_gap_secs": 0.5}}}}


@pytest.mark.parametrize("path", ["data.text_style", "text_style"])
def test_a_path_gets_its_last_part_renamed(path):
    assert renamed.rename_path(path) == path.replace("text_style", "text_normalization")


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--config=configs/base.py", "--config.train.accum_steps=8"], "--config.train.microbatch_rows=4 instead"),
        (
            ["--config=configs/base.py", "--config.train.global_batch_size=10", "--config.train.accum_steps", "4"],
            "--config.train.microbatch_rows=3 instead",
        ),
        (
            ["--config=configs/base.py", "--config.train.accum_steps=3", "--config.data.max_batch_secs=60"],
            "--config.train.microbatch_secs=20 instead",
        ),
        (["--config=configs/new_language.py", "--config.train.accum_steps=8"], "--config.train.microbatch_secs=10 in"),
        (["--config=configs/base.py", "--config.train.accum_steps=many"], "--config.train.microbatch_rows=N instead"),
        (["--config=configs/base.py", "--config.train.accum_steps=0"], "--config.train.microbatch_rows=N instead"),
    ],
)
def test_a_flag_that_counts_microbatches_is_told_what_to_write_for_the_config_with_its_flags(flags, wanted):
    with pytest.raises(FlagError, match=f"^--config.train.accum_steps=.*: how many .*; write {wanted}") as caught:
        make_reader().prepare(["run.py", *flags])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("train.accum_steps = 2", "sets train.accum_steps=2; how many .* write config.train.microbatch_rows=4 instead"),
        ("train.accum_steps = None", "sets train.accum_steps=None; .* write config.train.microbatch_rows=N instead"),
    ],
)
def test_a_config_file_that_counts_microbatches_is_told_what_to_write(tmp_path, line, wanted):
    path = tmp_path / "mine.py"
    path.write_text(OLD_CONFIG.replace('eval.best_of = ""', line))
    with pytest.raises(FlagError, match=rf"mine\.py: {wanted}"):
        make_reader().prepare(["run.py", f"--config={path}"])


@pytest.mark.parametrize(
    ("train", "data", "wanted"),
    [
        ({"global_batch_size": 32, "accum_steps": 8}, {"max_batch_secs": 0.0}, {"microbatch_rows": 4}),
        ({"global_batch_size": 5, "accum_steps": 2}, {}, {"microbatch_rows": 3}),
        ({"global_batch_size": 32, "accum_steps": 4}, {"max_batch_secs": 80.0}, {"microbatch_secs": 20.0}),
        ({"global_batch_size": 2, "accum_steps": 10**400}, {}, {}),
        ({"global_batch_size": "2", "accum_steps": 1}, {}, {}),
        ({"global_batch_size": 2, "accum_steps": 0}, {"max_batch_secs": float("nan")}, {}),
    ],
)
def test_the_record_of_an_older_run_holds_the_microbatch_of_one_device(tmp_path, train, data, wanted):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"train": train, "data": data}))
    found = read_config(path)["train"]
    del found["global_batch_size"]
    assert found == wanted
