"""Reads how transcripts are written: a style and its options in one text, such as "unicode+language=tr+numbers"."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from common.nearest import name_nearest

AUTO = "auto"  # stands for a style to choose from the texts
STYLES = ("librispeech", "unicode", "none")
OPTIONS = ("language", "numbers", "drop_markup", "keep_case", "keep_punctuation")
BRACKETS = ("<>", "[]", "()", "{}")
_LANGUAGE = re.compile(r"([A-Za-z]{2,3})(?:[-_]([A-Za-z]{2}))?")


@dataclass(frozen=True)
class TextStyle:
    """Describes how transcripts are written.

    Attributes:
        base: One of `STYLES`, or `AUTO`.
        language: Code such as tr or pt_BR, for upper and lower case and for number words; "" = no particular one.
        numbers: Whether digits become words.
        drop_markup: The brackets whose content is dropped, of `BRACKETS`.
        keep_case: Whether letters keep their case.
        keep_punctuation: Whether punctuation stays.
    """

    base: str
    language: str = ""
    numbers: bool = False
    drop_markup: tuple[str, ...] = ()
    keep_case: bool = False
    keep_punctuation: bool = False


@lru_cache(maxsize=64)
def parse_text_style(text: str) -> TextStyle:
    """Reads a style with its options.

    Args:
        text: A base style, then options with a + before each: language=CODE, numbers, drop_markup or
            drop_markup=BRACKETS, keep_case, keep_punctuation.

    Raises:
        ValueError: Says what is wrong, without the name of the field.
    """
    base, *given = text.split("+")
    if base not in (*STYLES, AUTO):
        raise ValueError(f"no such value{name_nearest(base, (AUTO, *STYLES))}")
    options: dict[str, str] = {}
    for option in given:
        name, equals, value = option.partition("=")
        if name not in OPTIONS:
            raise ValueError(f"no option {name!r}{name_nearest(name, OPTIONS)}")
        if name in options:
            raise ValueError(f"the option {name} is given twice")
        if equals and not value:
            raise ValueError(f"the option {option} has no value")
        if equals and name not in ("language", "drop_markup"):
            raise ValueError(f"the option {name} takes no value")
        options[name] = value
    style = TextStyle(
        base=base,
        language=_read_language(options),
        numbers="numbers" in options,
        drop_markup=_read_brackets(options),
        keep_case="keep_case" in options,
        keep_punctuation="keep_punctuation" in options,
    )
    _check_together(style)
    return style


def text_base(text: str) -> str:
    """Returns the base style of a style with its options."""
    return text.partition("+")[0]


def with_base(text: str, base: str) -> str:
    """Returns a style with its options on another base."""
    return "+".join([base, *text.split("+")[1:]])


def main_language(language: str) -> str:
    """Returns the code of a language without its country: pt of pt_BR."""
    return language.partition("_")[0]


def _read_language(options: dict[str, str]) -> str:
    if "language" not in options:
        return ""
    found = _LANGUAGE.fullmatch(options["language"])
    if not found:
        raise ValueError(f"language={options['language']}: wanted a code such as tr, lt or pt_BR")
    return found[1].lower() + (f"_{found[2].upper()}" if found[2] else "")


def _read_brackets(options: dict[str, str]) -> tuple[str, ...]:
    if "drop_markup" not in options:
        return ()
    value = options["drop_markup"] or "".join(BRACKETS)
    found = tuple(pair for pair in BRACKETS if pair in value)
    if sorted(value) != sorted("".join(found)):
        raise ValueError(f"drop_markup={value}: wanted pairs of brackets out of {' '.join(BRACKETS)}, such as <>[]")
    return found


def _check_together(style: TextStyle) -> None:
    if style.base == "librispeech" and (style.keep_case or style.keep_punctuation):
        name = "keep_case" if style.keep_case else "keep_punctuation"
        raise ValueError(f"librispeech is upper case without punctuation and takes no {name}; write unicode+{name}")
    if style.base == "none" and (style.keep_case or style.keep_punctuation):
        raise ValueError("none keeps case and punctuation anyway; leave the option out")
    if style.numbers and not style.language and style.base != "librispeech":
        raise ValueError("numbers are words of a language; add it, such as +language=en")
