"""Finds and drops markup in brackets, such as <noise> or [laughter], which transcripts have and nobody speaks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from common.text_style import BRACKETS, parse_text_style

# Text in brackets without a bracket of the kind inside: <unk>, [laughter], (noise), {um}. "a < b > c" is no tag.
_KINDS = {
    "<>": r"<[^<>\s][^<>]{0,40}>",
    "[]": r"\[[^\[\]]{1,40}\]",
    "()": r"\([^()]{1,40}\)",
    "{}": r"\{[^{}]{1,40}\}",
}


@lru_cache(maxsize=16)
def _pattern(brackets: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(_KINDS[pair] for pair in brackets))


def find_markup(text: str, brackets: Sequence[str] = BRACKETS) -> list[str]:
    """Returns the text in brackets, such as <COMMA>, [noise] or (laughter), which usually is not spoken."""
    return _pattern(tuple(brackets)).findall(text if text.isascii() else unicodedata.normalize("NFKC", text))


def drop_markup(text: str, style: str) -> str:
    """Returns a transcript without the markup that a style drops; unchanged if it has none."""
    brackets = parse_text_style(style).drop_markup
    if not brackets or not find_markup(text, brackets):
        return text
    pattern = _pattern(brackets)
    text = unicodedata.normalize("NFKC", text)
    while pattern.search(text):  # <noise> in [the <noise> of cars]
        text = pattern.sub(" ", text)
    return " ".join(text.split())


def dropped_markup(text: str, style: str) -> list[str]:
    """Returns the markup of a transcript that a style drops."""
    brackets = parse_text_style(style).drop_markup
    return find_markup(text, brackets) if brackets else []
