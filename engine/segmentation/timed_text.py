"""Formats utterances with their times: SubRip, WebVTT, Praat's TextGrid and ELAN's EAF."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from engine.inference.formats import subtitles_of_texts
from engine.inference.textgrid import textgrid
from engine.inference.words import Timed

SUFFIXES = {"srt": ".srt", "vtt": ".vtt", "textgrid": ".TextGrid", "eaf": ".eaf"}
_EAF_TIER = "utterances"


def format_utterances(utterances: Sequence[Timed], *, format: str, duration_secs: float, audio_name: str) -> str:
    """Returns utterances as the text of a file.

    Args:
        utterances: Texts with times, in order, without overlaps.
        format: A key of `SUFFIXES`.
        duration_secs: Duration of the recording, in seconds.
        audio_name: Name of the recording, for an EAF.
    """
    if format == "textgrid":
        return textgrid(utterances, duration_secs=duration_secs)
    if format == "eaf":
        return _eaf(utterances, audio_name)
    return subtitles_of_texts(utterances, format=format)


def _eaf(utterances: Sequence[Timed], audio_name: str) -> str:
    root = ElementTree.Element(
        "ANNOTATION_DOCUMENT", AUTHOR="", DATE="1970-01-01T00:00:00Z", FORMAT="3.0", VERSION="3.0"
    )
    header = ElementTree.SubElement(root, "HEADER", MEDIA_FILE="", TIME_UNITS="milliseconds")
    ElementTree.SubElement(header, "MEDIA_DESCRIPTOR", MEDIA_URL=audio_name, MIME_TYPE="audio/*")
    order = ElementTree.SubElement(root, "TIME_ORDER")
    tier = ElementTree.SubElement(root, "TIER", LINGUISTIC_TYPE_REF="default-lt", TIER_ID=_EAF_TIER)
    for number, one in enumerate(utterances):
        slots = [f"ts{2 * number + 1}", f"ts{2 * number + 2}"]
        for slot, secs in zip(slots, (one.start_secs, one.end_secs), strict=True):
            ElementTree.SubElement(order, "TIME_SLOT", TIME_SLOT_ID=slot, TIME_VALUE=str(round(1000 * secs)))
        annotation = ElementTree.SubElement(
            ElementTree.SubElement(tier, "ANNOTATION"), "ALIGNABLE_ANNOTATION",
            ANNOTATION_ID=f"a{number + 1}", TIME_SLOT_REF1=slots[0], TIME_SLOT_REF2=slots[1],
        )  # fmt: skip
        ElementTree.SubElement(annotation, "ANNOTATION_VALUE").text = one.text
    ElementTree.SubElement(
        root, "LINGUISTIC_TYPE", GRAPHIC_REFERENCES="false", LINGUISTIC_TYPE_ID="default-lt", TIME_ALIGNABLE="true"
    )
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'
