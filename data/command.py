"""Shared flags and error handling of the commands `python -m data....`; bad input is one line and status 2."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence

from common.arguments import Parser
from common.json_files import MalformedFileError
from common.readable import describe_error
from common.text_style import STYLES, text_base
from data.common.errors import InputError
from data.corpus.records import excerpt
from data.text.normalization import normalize_transcript
from data.text.numbers import check_text_style

# Largest ratio of letters outside A to Z in a corpus that counts as English with foreign names.
MAX_FOREIGN_LETTERS = 0.01


def add_corpus_flags(parser: argparse.ArgumentParser, formats: Sequence[str]) -> None:
    """Adds --format, --input, --split, --text_column, --speakers, --exclude_speakers and --text_normalization."""
    parser.add_argument("--format", required=True, help=f"format: {', '.join(formats)}")
    parser.add_argument("--input", required=True, help="folder or file of the corpus")
    parser.add_argument("--split", default="", help="part of the corpus (default: all)")
    parser.add_argument("--text_column", default="", help="key or column of the transcripts (default: known names)")
    parser.add_argument("--speakers", default="", help="comma-separated speakers to keep (default: all)")
    parser.add_argument("--exclude_speakers", default="", help="comma-separated speakers to drop")
    parser.add_argument(
        "--text_normalization",
        default="librispeech",
        type=_text_style,
        help=f"how transcripts are written: {', '.join(STYLES)}, with options such as unicode+language=tr+numbers "
        "(default: librispeech)",
    )


def _text_style(value: str) -> str:
    if (base := text_base(value)) not in STYLES:
        raise argparse.ArgumentTypeError(f"invalid choice: {base!r} (choose from {', '.join(STYLES)})")
    try:
        check_text_style(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{value!r}: {error}") from error
    return value


def check_normalization(texts: Mapping[str, str], normalization: str) -> str:
    """Returns a one-line warning if --text_normalization does not fit the letters of a corpus, else "".

    Args:
        texts: Utterance id -> transcript as read.
        normalization: Value of the flag.

    Raises:
        InputError: If it leaves nothing of any transcript.
    """
    is_english = text_base(normalization) == "librispeech"
    advice = "give --text_normalization=unicode" if is_english else "check the transcripts"
    spoken = {name: text for name, text in texts.items() if text.strip()}
    if spoken and not any(normalize_transcript(text, normalization) for text in spoken.values()):
        name, text = next(iter(spoken.items()))
        raise InputError(
            f"--text_normalization={normalization} leaves nothing of {len(spoken)} transcripts, first {name} "
            f"({excerpt(text)}): {advice}"
        )
    if not is_english:
        return ""
    foreign = {name: found for name, text in spoken.items() if not text.isascii() and (found := _foreign_letters(text))}
    num_letters = sum(map(str.isalpha, "".join(spoken.values())))
    if sum(map(len, foreign.values())) <= MAX_FOREIGN_LETTERS * num_letters:
        return ""
    name, letters = next(iter(foreign.items()))
    return (
        f"--text_normalization={normalization} is for English, and {len(foreign)} of {len(texts)} transcripts have "
        f"letters outside A to Z, first {name} ({letters[0]}); it writes upper case and drops digits: {advice}"
    )


def _foreign_letters(text: str) -> str:
    return "".join(letter for letter in text if letter.isalpha() and not letter.isascii())


def comma_list(value: str) -> tuple[str, ...]:
    """Splits a comma-separated list; returns () for ""."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def run_command(
    parser: Parser,
    command: Callable[[argparse.Namespace], None],
    argv: Sequence[str] | None = None,
) -> int:
    """Parses the flags and runs a command.

    Args:
        parser: Flags of the command.
        command: Function that does the work; raises InputError or OSError for bad input.
        argv: Flags; None = those of the process.

    Returns:
        Exit status: 0, 2 after one line on stderr about bad usage or input, or 130 if interrupted.
    """
    try:
        command(_parse(parser, argv))
    except (InputError, MalformedFileError, OSError) as error:
        print(f"{parser.prog}: {describe_error(error)}", file=sys.stderr)
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
