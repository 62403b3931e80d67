"""Tells whether texts are written without spaces between words, as Chinese, Japanese and Thai are, and divides them."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Iterable

# Han and kana; and with Thai, Lao, Burmese and Khmer: scripts that are written without spaces between words.
_EAST_ASIAN = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
_ANY = f"{_EAST_ASIAN}\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED = (re.compile(f"[{_EAST_ASIAN}]").findall, re.compile(f"[{_ANY}]").findall)
# One letter of these scripts, or a word of others, with the space before it.
_UNIT = re.compile(rf"\s*(?:[{_ANY}]|[^\s{_ANY}]+)")
# Mean length of a word beyond which texts are not divided into words: those of Chinese have 1.6 characters, of Thai 6.
_EAST_ASIAN_WORD, _OTHER_WORD = 4, 10
_MOST_TEXTS = 5_000


def unspaced_length(texts: Iterable[str]) -> float:
    """Returns the mean characters between two spaces of texts that have none between words; 0 for any other texts.

    Args:
        texts: Texts of one corpus; the first 5,000 that are not plain ASCII are looked at.
    """
    found = list(itertools.islice((text for text in texts if not text.isascii()), _MOST_TEXTS))
    num_east_asian, num_unspaced = (sum(len(find_all(text)) for text in found) for find_all in _UNSPACED)
    num_visible = sum(len("".join(text.split())) for text in found)
    num_words = sum(len(text.split()) for text in found)
    if not num_words or 2 * num_unspaced < num_visible:
        return 0.0
    limit = _EAST_ASIAN_WORD if 2 * num_east_asian > num_unspaced else _OTHER_WORD
    return num_visible / num_words if num_visible / num_words > limit else 0.0


def split_unspaced(text: str) -> list[str]:
    """Splits a text without spaces between words into letters; joined again, they are the text.

    A letter keeps the marks on it, a word of another script stays whole, and a space stays before what follows it.

    Args:
        text: A text that `unspaced_length` tells from others, without spaces at its ends.
    """
    units: list[str] = []
    for unit in _UNIT.findall(text):
        if units and unicodedata.category(unit[0]).startswith("M"):
            units[-1] += unit
        else:
            units.append(unit)
    return units
