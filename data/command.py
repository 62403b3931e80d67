"""What the command lines `python -m data....` share: bad input is one line and status 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from common.arguments import Parser
from common.json_files import MalformedFileError
from data.errors import InputError
from data.text import TEXT_STYLES


def add_corpus_flags(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """Adds --source, --input, --split, --speakers, --exclude_speakers and --normalization."""
    parser.add_argument("--source", required=True, help=f"format: {', '.join(formats)}")
    parser.add_argument("--input", required=True, help="folder or file of the corpus")
    parser.add_argument("--split", default="", help="part of the corpus (default: all)")
    parser.add_argument("--speakers", default="", help="keep these alone, with commas between")
    parser.add_argument("--exclude_speakers", default="", help="drop these, with commas between")
    parser.add_argument(
        "--normalization",
        default="librispeech",
        choices=TEXT_STYLES,
        help="how transcripts are written (default: librispeech)",
    )


def comma_list(value: str) -> tuple[str, ...]:
    """The parts of "a,b"; empty for ""."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def run_command(
    parser: Parser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the flags and runs a command.

    Args:
        parser: the command's flags.
        command: the work; raises InputError or OSError where the input is bad.
        argv: flags; None takes the process's.

    Returns:
        Exit status: 0 done, 2 bad usage or input after one line on stderr, 130 interrupted.
    """
    try:
        command(_parse(parser, argv))
    except (InputError, MalformedFileError, OSError) as error:
        print(f"{parser.prog}: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        return 130
    return 0


def _parse(parser: Parser, argv: Sequence[str] | None) -> argparse.Namespace:
    try:
        return parser.parse_args(argv)
    except ValueError as error:
        raise InputError(str(error)) from error
