"""Composes the README.md of an exported model: metadata that the Hugging Face Hub reads, then text."""

from __future__ import annotations

import dataclasses
import json
import string
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from common import storage
from common.json_files import MalformedFileError, field, parse_object
from common.weight_names import hub_repository
from common.workdir_layout import METRICS_FILE

_TASK = "automatic-speech-recognition"
_METRICS = {"wer": "word error rate (%)", "cer": "character error rate (%)"}


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The error rates of a model on one evaluation set.

    Attributes:
        name: name of the set.
        wer: word error rate, 1 = 100 %.
        cer: character error rate, 1 = 100 %.
        num_words: reference words.
        num_utterances: utterances.
    """

    name: str
    wer: float
    cer: float
    num_words: int
    num_utterances: int


def read_evaluations(workdir: str, step: int) -> list[Evaluation]:
    """Reads the last evaluation of each set at one update from a run's metrics.jsonl; [] without that file.

    Args:
        workdir: folder of the run.
        step: update of the weights.

    Raises:
        MalformedFileError: If a line is damaged; names the line.
    """
    path = storage.join(workdir, METRICS_FILE)
    found: dict[str, Evaluation] = {}
    for where, line in _read_lines(path) if storage.is_file(path) else ():
        if line.get("step") != step or any(line.get(name) is None for name in _METRICS):
            continue
        name = field(line, "split", str, where)
        wer, cer = (field(line, metric, float, where) for metric in _METRICS)
        num_words, num_utterances = (field(line, count, float, where) for count in ("num_words", "num_utterances"))
        found[name] = Evaluation(name, wer, cer, round(num_words), round(num_utterances))
    return list(found.values())


def _read_lines(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    lines = storage.read_bytes(path).split(b"\n")
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            if line.strip():
                yield where, parse_object(line, where)
        except MalformedFileError:
            if number < len(lines):  # else the run was killed while it wrote this line
                raise


def compose_card(
    *,
    name: str,
    library: str,
    tags: Sequence[str],
    tokens: Collection[str],
    init: str,
    evaluations: Sequence[Evaluation],
    summary: Sequence[str],
    usage: Sequence[str],
    more: Mapping[str, Sequence[str]],
) -> str:
    """Returns a model card: YAML metadata with the results in the Hub's model-index form, then text.

    Args:
        name: name of the model, such as that of its folder.
        library: library that loads it, as the Hub calls it.
        tags: words to find it by.
        tokens: tokens of its vocabulary; the English alphabet alone makes it an English model.
        init: the weights that training started from, as config.model.init has them; "" = none are known.
        evaluations: error rates; those of a model that nobody has evaluated are [].
        summary: lines that say what the model is.
        usage: lines that say how to call it, with a snippet that runs.
        more: lines of further sections, by heading.
    """
    letters = {token for token in tokens if len(token) == 1 and token.isalpha()}
    metadata: dict[str, Any] = {
        "license": "unknown",
        "language": ["en" if letters == set(string.ascii_uppercase) else "und"],
        "library_name": library,
        "pipeline_tag": _TASK,
        "tags": [_TASK, "speech", *tags],
    }
    if repository := hub_repository(init):
        metadata["base_model"] = repository
    if evaluations:
        metadata["metrics"] = list(_METRICS)
        metadata["model-index"] = [{"name": name, "results": [_result(found) for found in evaluations]}]
    lines = ["---", "# Set license and language: they are the owner's to say; und is an undetermined language."]
    lines += [*_yaml(metadata), "---", "", f"# {name}", "", *summary, ""]
    for heading, content in {"Usage": usage, "Error rates": _table(evaluations), **more}.items():
        lines += [f"## {heading}", "", *content, ""]
    return "\n".join(lines)


def _result(found: Evaluation) -> dict[str, Any]:
    return {
        "task": {"type": _TASK, "name": "Speech recognition"},
        "dataset": {"type": found.name, "name": found.name},
        "metrics": [
            {"type": metric, "name": title, "value": round(100 * getattr(found, metric), 3)}
            for metric, title in _METRICS.items()
        ],
    }


def _yaml(value: Any) -> Iterator[str]:
    """Yields the lines of a mapping or a list in YAML's block style; JSON texts are YAML scalars."""
    for key, child in value.items() if isinstance(value, dict) else ((None, child) for child in value):
        head = "-" if key is None else f"{key}:"
        if not isinstance(child, dict | list):
            yield f"{head} {json.dumps(child, ensure_ascii=False)}"
            continue
        lines = [f"  {line}" for line in _yaml(child)]
        if key is None:
            yield f"- {lines[0].lstrip()}"
            yield from lines[1:]
        else:
            yield head
            yield from lines


def _table(evaluations: Sequence[Evaluation]) -> list[str]:
    if not evaluations:
        return ["Not measured in the run that it comes from."]
    rows = [
        f"| {found.name} | {100 * found.wer:.2f} % | {100 * found.cer:.2f} % | {found.num_words} | "
        f"{found.num_utterances} |"
        for found in evaluations
    ]
    return ["| set | WER | CER | words | utterances |", "|---|---|---|---|---|", *rows]
