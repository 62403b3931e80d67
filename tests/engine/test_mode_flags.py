"""A flag that a mode does not read is refused; every flag of run.py is read by some mode."""

import ast
from pathlib import Path

import pytest

from engine.mode_flags import FLAGS_OF_MODE, check_flags

RUN = ast.parse((Path(__file__).parents[2] / "run.py").read_text(encoding="utf-8"))


def test_what_a_mode_reads_is_taken_and_what_it_does_not_is_named_with_who_does():
    check_flags("transcribe", ["checkpoint", "inputs", "output", "hot_words", "window_secs"])
    check_flags("export", ["checkpoint"])
    with pytest.raises(ValueError, match="--config is missing: for example"):
        check_flags("tune_lm", ["workdir"])
    with pytest.raises(ValueError, match=r"=train does not read --hot_words is for eval \| tune_lm \| transcribe \|"):
        check_flags("train", ["config", "hot_words"])
    with pytest.raises(ValueError, match=r"export does not read --workdir is for train .*; --decode is for eval "):
        check_flags("export", ["workdir", "checkpoint", "decode"])


def test_the_table_has_every_flag_and_every_mode_of_the_command():
    calls = [node for node in ast.walk(RUN) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    defined = {call.args[0].value for call in calls if call.func.attr.startswith("DEFINE_")}
    assert {name for names in FLAGS_OF_MODE.values() for name in names} == defined - {"mode"}
    words = {node.value for node in ast.walk(RUN) if isinstance(node, ast.Constant)}
    assert set(FLAGS_OF_MODE) <= words
