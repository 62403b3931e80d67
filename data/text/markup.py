"""Finds and drops markup in brackets, such as <noise> or [laughter], which transcripts have and nobody speaks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from common.text_style import BRACKETS, parse_text_style

# Text in brackets without a bracket of the kind inside: <unk>, [laughter], (noise), {um}. "a < b > c" is no tag.
_KINDS = {
    "<>": r"<[^<>\s][^<>]{0,%s}>",
    "[]": r"\[[^\[\]]{1,%s}\]",
    "()": r"\([^()]{1,%s}\)",
    "{}": r"\{[^{}]{1,%s}\}",
}
_USUAL = "40"  # longer text in brackets, which a style does not name, is rather a remark in a sentence


@lru_cache(maxsize=16)
def _pattern(brackets: Sequence[str], most_characters: str = "") -> re.Pattern[str]:
    return re.compile("|".join(_KINDS[pair] % most_characters for pair in brackets))


def find_markup(text: str) -> list[str]:
    """Returns the text in brackets, such as <COMMA>, [noise] or (laughter), which usually is not spoken."""
    return _pattern(BRACKETS, _USUAL).findall(_compatible(text))


def dropped_markup(text: str, style: str) -> list[str]:
    """Returns the markup of a transcript that a style drops."""
    brackets = parse_text_style(style).drop_markup
    return _pattern(brackets).findall(_compatible(text)) if brackets else []


def drop_markup(text: str, style: str) -> str:
    """Returns a transcript without the markup that a style drops; unchanged if it has none."""
    if not dropped_markup(text, style):
        return text
    pattern, text = _pattern(parse_text_style(style).drop_markup), _compatible(text)
    while pattern.search(text):  # <noise> in [the <noise> of cars]
        text = pattern.sub(" ", text)
    return " ".join(text.split())


def _compatible(text: str) -> str:
    """Returns a text with ordinary brackets in place of those of full width."""
    return text if text.isascii() else unicodedata.normalize("NFKC", text)
