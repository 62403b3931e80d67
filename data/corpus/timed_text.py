"""Reads the text of files with times: SubRip, WebVTT, Praat's TextGrid and ELAN's EAF."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

from data.common.errors import InputError

# Endings of the files beside a recording that hold its text with times, best first.
SUFFIXES = (".vtt", ".srt", ".TextGrid", ".eaf")
_TIMES = re.compile(r"^\s*(?:\d+:)?\d+:\d+[.,]\d+\s*-->")
_TAGS = re.compile(r"<[^>]*>")
_INTERVAL_TIER = "IntervalTier"


def read_text(path: Path) -> str:
    """Returns the text of a file in any of these formats without its times.

    Of a TextGrid or EAF with several tiers it is the one with the most letters.

    Raises:
        InputError: The file cannot be read or has another format; names it.
    """
    try:
        text = _decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    suffix = path.suffix.lower()
    if suffix in (".srt", ".vtt"):
        return _subtitle_text(text)
    if suffix == ".textgrid":
        return _textgrid_text(text, path)
    return _eaf_text(text, path)


def _decode(data: bytes) -> str:
    """Decodes UTF-16, which Praat writes where it needs more than Latin letters, and else UTF-8."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", errors="replace")
    return data.decode("utf-8-sig", errors="replace")


def _subtitle_text(text: str) -> str:
    lines: list[str] = []
    is_cue = False
    for line in text.splitlines():
        if _TIMES.match(line):
            is_cue = True
        elif not line.strip():
            is_cue = False
        elif is_cue:  # numbers, notes and styles stand outside of cues
            lines.append(html.unescape(_TAGS.sub("", line)).strip())
    return " ".join(lines)


def _textgrid_text(text: str, path: Path) -> str:
    if "ooTextFile" not in text[:200]:
        raise InputError(f"{path}: is no TextGrid; write it with Praat as a text file, long or short")
    # In both of Praat's text formats the labels of a tier are the strings after its name.
    strings = [match.replace('""', '"') for match in re.findall(r'"((?:[^"]|"")*)"', text)]
    tiers: list[list[str]] = []
    places = [i for i, string in enumerate(strings) if string in (_INTERVAL_TIER, "TextTier")]
    for begin, end in zip(places, [*places[1:], len(strings)], strict=True):
        tiers.append(strings[begin + 2 : end])
    return _richest(tiers)


def _eaf_text(text: str, path: Path) -> str:
    try:
        if "<!ENTITY" in text:
            raise ElementTree.ParseError("it declares entities")
        root = ElementTree.fromstring(text.encode("utf-8"))
        times = {slot.get("TIME_SLOT_ID"): int(slot.get("TIME_VALUE", "0")) for slot in root.iter("TIME_SLOT")}
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # a time or an encoding that is unknown
        raise InputError(f"{path}: is no EAF: {error}") from error
    tiers = []
    for tier in root.iter("TIER"):
        found = [
            (times.get(one.get("TIME_SLOT_REF1"), 0), "".join(one.itertext()).strip())
            for one in tier.iter("ALIGNABLE_ANNOTATION")
        ]
        tiers.append([label for _, label in sorted(found, key=lambda pair: pair[0])])
    return _richest(tiers)


def _richest(tiers: Sequence[Sequence[str]]) -> str:
    texts = [" ".join(label for label in tier if label.strip()) for tier in tiers]
    return max(texts, key=len, default="")
