"""Exit status and the one line of the command lines."""

from __future__ import annotations

import argparse

import pytest

from data.command import Parser, add_corpus_flags, check_normalization, comma_list, run_command
from data.common.errors import InputError


def make_parser() -> Parser:
    parser = Parser(prog="tool")
    add_corpus_flags(parser, ("jsonl", "csv"))
    return parser


def test_flags_reach_the_command() -> None:
    seen: list[argparse.Namespace] = []
    assert run_command(make_parser(), seen.append, ["--format=csv", "--input=a b.csv"]) == 0
    assert vars(seen[0]) == {
        "format": "csv",
        "input": "a b.csv",
        "split": "",
        "text_column": "",
        "speakers": "",
        "exclude_speakers": "",
        "text_normalization": "librispeech",
    }


@pytest.mark.parametrize(
    ("argv", "reason"),
    [
        (["--format=csv"], "the following arguments are required: --input"),
        (["--format=csv", "--input=a", "--text_normalization=x"], "invalid choice: 'x'"),
        (["--format=csv", "--input=a", "--text_normalization=auto"], "invalid choice: 'auto'"),
        (["--format=csv", "--input=a", "--text_normalization=unicode+numbers"], "add it, such as +language=en"),
        (["--format=csv", "--input=a", "--bogus"], "unrecognized arguments: --bogus"),
    ],
)
def test_bad_flags_are_one_line(argv: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(make_parser(), lambda flags: None, argv) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("tool: ")
    assert reason in err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("no file\nx"), 2, "tool: no file x\n"),
        (PermissionError(13, "Permission denied", "x"), 2, "Permission denied: 'x'\n"),
        (KeyboardInterrupt(), 130, "tool: interrupted\n"),
    ],
)
def test_errors_of_the_command(
    error: BaseException, status: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command(flags: argparse.Namespace) -> None:
        raise error

    assert run_command(make_parser(), command, ["--format=csv", "--input=a"]) == status
    assert capsys.readouterr().err.endswith(line)


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    def command(flags: argparse.Namespace) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(make_parser(), command, ["--format=csv", "--input=a"])


def test_comma_list() -> None:
    assert comma_list("") == ()
    assert comma_list("a, b,") == ("a", "b")


HINDI = "\u0928\u092e\u0938\u094d\u0924\u0947"


def test_a_normalization_for_english_warns_of_another_language_once() -> None:
    line = check_normalization({"a": "HELLO", "b": f"{HINDI} \u0967"}, "librispeech")
    assert "1 of 2 transcripts have letters outside A to Z, first b (\u0928)" in line
    assert "give --text_normalization=unicode" in line and "\n" not in line
    assert check_normalization({"b": HINDI}, "unicode") == check_normalization({"b": HINDI}, "none") == ""


def test_a_name_or_two_in_english_are_no_other_language() -> None:
    texts = {str(i): "THE QUICK BROWN FOX" for i in range(20)}
    assert check_normalization({**texts, "x": "M\u00dcLLER"}, "librispeech") == ""
    assert check_normalization({}, "librispeech") == check_normalization({"a": ""}, "librispeech") == ""


@pytest.mark.parametrize(
    ("text", "normalization", "advice"),
    [
        ("\u0967\u0968 12", "librispeech", "give --text_normalization=unicode"),
        ("...", "unicode", "check the transcripts"),
    ],
)
def test_a_normalization_that_leaves_nothing_is_refused(text: str, normalization: str, advice: str) -> None:
    with pytest.raises(InputError, match=f"leaves nothing of 2 transcripts, first a .*: {advice}"):
        check_normalization({"a": text, "b": text, "c": ""}, normalization)
