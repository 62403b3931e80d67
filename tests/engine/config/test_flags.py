"""A flag that a mode does not read is refused; every flag of run.py is read by some mode."""

import ast
from pathlib import Path

import pytest
from absl import flags

from engine.config.flags import check_arguments, check_flags, default_workdir, explain_flag_error
from engine.config.modes import FLAGS_OF_MODE

ROOT = Path(__file__).parents[3]
RUN = ast.parse((ROOT / "run.py").read_text(encoding="utf-8"))


def test_what_a_mode_reads_is_taken_and_what_it_does_not_is_named_with_who_does():
    check_flags("transcribe", ["checkpoint", "inputs", "output", "hot_words", "window_secs"])
    check_flags("export", ["checkpoint"])
    with pytest.raises(ValueError, match="--config is missing: for example"):
        check_flags("tune_lm", ["workdir"])
    with pytest.raises(ValueError, match=r"=train does not read --hot_words \(for eval \| tune_lm \| transcribe \|"):
        check_flags("train", ["config", "hot_words"])
    with pytest.raises(
        ValueError, match=r"export does not read --workdir \(for train_and_eval .*\), --decode \(for eval "
    ):
        check_flags("export", ["workdir", "checkpoint", "decode"])


def test_the_table_has_every_flag_and_every_mode_of_the_command():
    calls = [node for node in ast.walk(RUN) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    defined = {call.args[0].value for call in calls if call.func.attr.startswith("DEFINE_")}
    assert {name for names in FLAGS_OF_MODE.values() for name in names} == defined - {"mode"}
    modules = {path.stem for path in (ROOT / "engine/modes").glob("*.py")} - {"__init__"}
    assert set(FLAGS_OF_MODE) == modules | {"train", "eval", "train_and_eval"}


def test_default_workdir_is_named_after_the_config():
    assert default_workdir("configs/digits.py:../corpora/fsdd") == "runs/digits"
    assert default_workdir("configs/base.py") == "runs/base"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("workdri", "--workdri: no such flag; did you mean --workdir?"),
        ("updates", "--updates: no such flag; did you mean --config.train.updates or --config.verify.updates?"),
        ("confg.seed", "--confg.seed: no such flag; did you mean --config.seed?"),
        ("zzz", "--zzz: no such flag; there is --workdir, --mode"),
    ],
)  # fmt: skip
def test_an_unknown_flag_is_answered_with_the_nearest_flags_and_fields(name, line):
    fields = ["config.seed", "config.train.updates", "config.verify.updates"]
    error = flags.UnrecognizedFlagError(name)
    assert explain_flag_error(error, names=["workdir", "mode"], fields=fields) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("flag --mode=trian: value should be one of <train|eval>", "--mode=trian: no such value; did you mean train?"),
        ("flag --a=x: could not convert string to float: 'x'", "--a=x: wanted a number"),
        ("flag --a=x: invalid literal for int() with base 10: 'x'", "--a=x: wanted a whole number"),
        ("flag --a=0.1: 0.1 is not number >= 1.0", "--a=0.1: wanted 1.0 or more"),
        ("flag --serve=x: Overriding serve is not allowed.", "--serve=x: set its fields one by one, such as --serve"),
        ("Missing value for flag --mode", "Missing value for flag --mode"),
    ],
)
def test_a_value_that_absl_refuses_is_told_in_words(text, line):
    assert explain_flag_error(flags.IllegalFlagValueError(text), names=[], fields=[]).startswith(line)


def test_words_that_belong_to_no_flag_are_refused():
    check_arguments([])
    with pytest.raises(ValueError, match="^unexpected argument train: a mode is named by a flag, --mode=train"):
        check_arguments(["train", "--mode=eval"])
    with pytest.raises(ValueError, match="^unexpected argument b.wav: every option is --NAME=VALUE, and several"):
        check_arguments(["b.wav"])
