"""Changes the case of letters as a language does it, where that is not as Unicode does it for all languages.

The rules are those of Unicode's SpecialCasing.txt for Turkish, Azeri and Lithuanian.
"""

from __future__ import annotations

import re
import unicodedata

from common.text_style import main_language

_ACCENTS = "\u0300\u0301\u0303"  # grave, acute, tilde
_DOT = "\u0307"
_DOTTED = re.compile(f"(?<=[ij\u012f]){_DOT}")
_I_WITH_DOTS = re.compile(f"i{_DOT}+")
_CAPITAL_WITH_ACCENT = re.compile(f"([IJ]\u0328?)(?=[{_ACCENTS}])")
_DOT_WITHOUT_ACCENT = re.compile(f"(?<=i){_DOT}+(?![{_ACCENTS}])")


def is_turkic(language: str) -> bool:
    """Returns whether a language has a dotted and a dotless i: I is the capital of one and \u0130 of the other."""
    return main_language(language) in ("tr", "tur", "az", "aze")


def upper(text: str, language: str = "") -> str:
    """Returns a text in the normal form NFKC in upper case."""
    if is_turkic(language):
        text = text.replace("i", "\u0130")
    elif _is_lithuanian(language):
        text = _DOTTED.sub("", text)
    return text.upper()


def lower(text: str, language: str = "") -> str:
    """Returns a text in the normal form NFKC in lower case."""
    if is_turkic(language):
        text = text.replace("\u0130", "i").replace("I", "\u0131")
    elif _is_lithuanian(language):
        # An i keeps its dot below an accent.
        text = _CAPITAL_WITH_ACCENT.sub(rf"\1{_DOT}", unicodedata.normalize("NFD", text))
        return _DOT_WITHOUT_ACCENT.sub("", unicodedata.normalize("NFC", text).lower())
    # Lower-casing a capital I with a dot leaves the dot as a separate mark.
    return _I_WITH_DOTS.sub("i", text.lower())


def _is_lithuanian(language: str) -> bool:
    return main_language(language) in ("lt", "lit")
