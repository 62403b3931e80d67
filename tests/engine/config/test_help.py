"""What --help says of run.py and of each mode."""

import shlex

import pytest

from engine.config import help as help_texts
from engine.config.field_flags import FlagError
from engine.config.modes import MODES

SENTENCES = {name: f"Sentence on {name}." for mode in MODES.values() for name in mode.flags}


def test_the_help_lists_every_mode_with_its_sentence():
    text = help_texts.find_answer(["run.py", "--help"], SENTENCES)
    for name, mode in MODES.items():
        assert f"\n  {name} " in text and mode.summary.split()[0] in text
    assert all(len(line) <= 120 for line in text.splitlines())


@pytest.mark.parametrize("name", MODES)
def test_the_help_on_a_mode_has_just_its_flags_and_an_example_that_uses_them(name):
    text = help_texts.find_answer(["run.py", f"--mode={name}", "--help"], SENTENCES)
    shown = {line.split()[0].removeprefix("--") for line in text.split("Flags:")[1].splitlines() if "Sentence" in line}
    assert shown == MODES[name].flags
    *_, example = text.splitlines()
    words = [word for word in shlex.split(example) if word.startswith("--")]
    used = {word.removeprefix("--").partition("=")[0].partition(".")[0] for word in words}
    assert used <= MODES[name].flags | {"mode"}
    assert f"--mode={name}" in words or name == "train_and_eval"
    assert f"Reads   {MODES[name].reads.split()[0]}" in text


def test_other_commands_are_not_answered_and_a_wrong_mode_is_named():
    assert help_texts.find_answer(["run.py", "--mode=align", "--output=--help"], SENTENCES) == ""
    assert help_texts.find_answer(["run.py", "--helpfull"], SENTENCES) == ""
    with pytest.raises(FlagError, match="--mode=algin: no such value; did you mean align"):
        help_texts.find_answer(["run.py", "--help", "--mode=algin"], SENTENCES)


def test_the_devices_of_a_machine_with_an_accelerator_are_asked_of_tensorflow(monkeypatch):
    monkeypatch.setattr(help_texts.glob, "glob", lambda pattern: ["/dev/nvidia0"] if "nvidia" in pattern else [])
    monkeypatch.setattr(help_texts, "_list_accelerators", lambda: ["GPU NVIDIA Something"])
    assert help_texts.describe_version().endswith(", GPU NVIDIA Something")
