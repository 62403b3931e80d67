"""A wrong flag of `python -m PACKAGE.MODULE` is one line with the nearest right ones."""

from __future__ import annotations

import pytest

from common.arguments import Parser

STYLES = "argument --style: invalid choice: '{}' (choose from 'librispeech', 'unicode')"


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--inptu=a"], "unrecognized arguments: --inptu; did you mean --input?"),
        (
            ["--input=a", "--style=librispeach"],
            STYLES.format("librispeach") + "; did you mean librispeech?",
        ),
        (["--input=a", "--style", "x"], STYLES.format("x")),
        (["--input=a", "--count=abc"], "argument --count: invalid int value: 'abc'; wanted a whole number"),
        (["--input=a", "--share=abc"], "argument --share: invalid float value: 'abc'; wanted a number"),
        ([], "the following arguments are required: --input"),
        (["--input=a", "b"], "unrecognized arguments: b"),
        (["--input"], "argument --input: expected one argument"),
    ],
)
def test_wrong_flags_are_a_line(argv, line):
    parser = Parser(prog="tool")
    parser.add_argument("--input", required=True)
    parser.add_argument("--style", choices=("librispeech", "unicode"))
    parser.add_argument("--count", type=int)
    parser.add_argument("--share", type=float)
    with pytest.raises(ValueError) as raised:
        parser.parse_args(argv)
    assert str(raised.value) == f"{line} (--help lists the flags)"


def test_right_flags_are_parsed_in_every_spelling():
    parser = Parser(prog="tool")
    parser.add_argument("--input", required=True)
    parser.add_argument("--to_hf", action="store_true")
    parser.add_argument("words", nargs="*")
    assert vars(parser.parse_args(["--input", "a", "--to_hf"])) == {"input": "a", "to_hf": True, "words": []}
    assert vars(parser.parse_args(["--inp=a", "--", "--x"])) == {"input": "a", "to_hf": False, "words": ["--x"]}
