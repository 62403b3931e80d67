"""Scores an evaluation a second time with its texts written in another way, as a set of its own name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from engine.evaluation.metrics import TranscriptionScore

NormalizeFn = Callable[[str, str], str]
"""(text, style) -> the text as the style writes it."""

_NAME = re.compile(r"[A-Za-z0-9_]+")


def read_normalizers(entries: Sequence[str]) -> dict[str, str]:
    """Returns the styles of eval.normalizers by name.

    Args:
        entries: NAME=STYLE each, such as "plain=unicode+drop_markup".

    Raises:
        ValueError: An entry has another form, or a name is given twice.
    """
    found: dict[str, str] = {}
    for entry in entries:
        name, equals, style = str(entry).partition("=")
        where = f"eval.normalizers={entry!r}"
        if not equals or not _NAME.fullmatch(name) or not style:
            raise ValueError(
                f"{where}: wanted NAME=STYLE, such as plain=unicode+drop_markup, with a name of letters, digits and "
                "underscores"
            )
        if name in found:
            raise ValueError(f"{where}: the name {name} is given twice")
        found[name] = style
    return found


def normalized_name(set_name: str, normalizer: str) -> str:
    """Returns the name under which the metrics of a set with the texts of a normalizer are reported."""
    return f"{set_name}-{normalizer}"


def rescore(
    score: TranscriptionScore, references: Mapping[str, str], style: str, normalize: NormalizeFn
) -> TranscriptionScore:
    """Returns the score of the same transcriptions with reference and hypothesis in another style.

    Args:
        score: Score of an evaluation.
        references: Utterance id -> transcript in this style.
        style: How the texts are written.
        normalize: Writes a hypothesis in a style.
    """
    found = TranscriptionScore()
    for utterance_id, hypothesis in score.hypotheses():
        found.add(utterance_id, references[utterance_id], normalize(hypothesis, style))
    return found
