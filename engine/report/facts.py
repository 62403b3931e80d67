"""Reads the facts of a run that head its report: headline tiles, the config in short, and every config field."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import logging

from common import storage
from common import workdir_layout as layout
from common.json_files import is_kind
from common.readable import duration, rounded, shorten
from engine.report.sets import SetReport
from engine.report.statistics import Interval
from engine.workdir.folder import flatten_config
from engine.workdir.records import TRAIN_SPLIT

UNKNOWN = "unknown"
_LONGEST_VALUE = 300  # characters
_MAX_FIELDS = 500


@dataclasses.dataclass(frozen=True)
class Tile:
    """One headline number of the page.

    Attributes:
        name: Metric, such as "WER".
        value: Value with its unit, or `UNKNOWN`.
        detail: What the value refers to.
    """

    name: str
    value: str
    detail: str


@dataclasses.dataclass(frozen=True)
class RunFacts:
    """Config and environment of a run, as its workdir holds them.

    Attributes:
        config: Content of config.json; {} if it cannot be read.
        environment: Content of environment.json; {} if it cannot be read.
    """

    config: Mapping[str, Any]
    environment: Mapping[str, Any]

    @classmethod
    def read(cls, workdir: str | os.PathLike[str]) -> RunFacts:
        """Reads the facts of a workdir; a file that is absent or damaged leaves them unknown."""
        return cls(
            config=_read(storage.join(workdir, layout.CONFIG_FILE), layout.read_config),
            environment=_read(storage.join(workdir, layout.ENVIRONMENT_FILE), layout.read_object),
        )

    def field(self, name: str) -> Any:
        """Returns the config field of a dotted name; None if the config does not have it."""
        value: Any = self.config
        for part in name.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def fields(self) -> dict[str, str]:
        """Returns every config field by its dotted name, as JSON text of bounded length."""
        shown = {name: _short(value) for name, value in flatten_config(self.config).items()}
        return dict(list(shown.items())[:_MAX_FIELDS])

    def summary(self) -> dict[str, str]:
        """Returns the facts that a reader asks for first, by name; a fact that is not recorded is `UNKNOWN`."""
        updates = _count(self.field("train.num_updates"))
        return {
            "command": self._command(),
            "commit": _text(self.environment.get("commit")),
            "model": _text(self.field("model.preset")),
            "started from": _text(self.field("model.init"), empty="random weights"),
            "trained on": self._corpora(),
            "learning rate": self._learning_rate(),
            "batch": self._batch(),
            "updates": updates,
            "precision": _text(self.field("train.precision")),
            "seed": _count(self.field("seed")),
            "devices": self._devices(),
            "TensorFlow": _text(_member(self.environment.get("packages"), "tensorflow")),
        }

    def _command(self) -> str:
        words = self.environment.get("command")
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return UNKNOWN
        return _short(shlex.join(["python", *words]))

    def _corpora(self) -> str:
        more = self.field("data.more_train")  # runs of older versions have one corpus
        found = [_member(fields, "input") for fields in more.values()] if isinstance(more, Mapping) else []
        inputs = [self.field("data.train.input"), *found]
        return _text(", ".join(text for text in inputs if isinstance(text, str)))

    def _learning_rate(self) -> str:
        peak, schedule = self.field("train.learning_rate"), self.field("train.schedule")
        if not is_kind(peak, float):
            return UNKNOWN
        parts = [rounded(peak), *([schedule] if is_kind(schedule, str) else [])]
        warmup = self.field("train.warmup_updates")
        if is_kind(warmup, int) and warmup:
            parts.append(f"{warmup:,} warmup updates")
        return _short(", ".join(parts))

    def _batch(self) -> str:
        rows, secs = self.field("train.global_batch_size"), self.field("data.max_batch_secs")
        if not is_kind(rows, int):
            return UNKNOWN
        limit = f", at most {rounded(secs)} s of audio" if is_kind(secs, float) and secs else ""
        return f"{rows:,} rows per update{limit}"

    def _devices(self) -> str:
        names = self.environment.get("devices")
        if not isinstance(names, list) or not names:
            return UNKNOWN
        kinds = [str(name).removeprefix("/physical_device:").partition(":")[0] for name in names]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
        cores = self.environment.get("num_cpus")
        return _short(f"{counts} ({cores} cores)" if is_kind(cores, int) else counts)


def headline(
    facts: RunFacts, sets: Sequence[SetReport], lines: Iterable[Mapping[str, Any]], *, step: int
) -> list[Tile]:
    """Returns the tiles of a report: error rates of its main set, and what training took.

    Args:
        facts: Config and environment of the run.
        sets: Evaluated sets; the main one is config.eval.best_metric_set, or the first.
        lines: Lines of metrics.jsonl.
        step: Update of the evaluated weights.
    """
    loops = [line for line in lines if line.get("split") == TRAIN_SPLIT and line["step"] <= step]
    audio, secs = _training_totals(loops)
    speed = f"{rounded(audio / secs)} s of audio per second" if secs else "no training in metrics.jsonl"
    return [
        *_rate_tiles(sets, facts.field("eval.best_metric_set")),
        Tile("Audio", _hours(audio) if audio else UNKNOWN, "trained on, repeats included"),
        Tile("Updates", f"{step:,}", f"of {_count(facts.field('train.num_updates'))}"),
        Tile("Time", duration(secs) if secs else UNKNOWN, f"{speed}, evaluations excluded" if secs else speed),
        _parameter_tile(facts.environment),
    ]


def differing_fields(runs: Mapping[str, RunFacts]) -> list[tuple[str, list[str]]]:
    """Returns the config fields that differ between runs, and their value in each run.

    Args:
        runs: Facts by the name of the run; a field that a run does not have is a dash.
    """
    flat = [flatten_config(facts.config) for facts in runs.values()]
    names = sorted(set().union(*flat))
    rows = [(name, [fields.get(name, "–") for fields in flat]) for name in names]
    differing = [(name, [_short(value) for value in values]) for name, values in rows if len(set(values)) > 1]
    return differing[:_MAX_FIELDS]


def _short(text: str) -> str:
    return shorten(text, _LONGEST_VALUE)


def _training_totals(loops: Iterable[Mapping[str, Any]]) -> tuple[float, float]:
    """Sums audio and time of training loops, in seconds; a loop without both numbers does not count."""
    audio = secs = 0.0
    for line in loops:
        heard, speed = line.get("audio_secs") or 0.0, line.get("audio_secs_per_sec") or 0.0
        if is_kind(heard, float) and is_kind(speed, float) and speed > 0:
            audio += heard
            secs += heard / speed
    return audio, secs


def _rate_tiles(sets: Sequence[SetReport], main: object) -> list[Tile]:
    """Returns the error rates of the main set, or of the first if none has its name; [] if it has no utterances."""
    one = next((one for one in sets if one.name == main), sets[0] if sets else None)
    if one is None or not one.num_utterances:
        return []
    tiles = [
        Tile("WER", f"{100 * one.words.rate:.2f} %", _rate_detail(one.name, one.interval)),
        Tile("CER", f"{100 * one.char_rate:.2f} %", _rate_detail(one.name, one.char_interval)),
    ]
    return sorted(tiles, key=lambda tile: tile.name.lower() != one.metric)  # the rate that decides comes first


def _parameter_tile(environment: Mapping[str, Any]) -> Tile:
    total: Any = environment.get("num_parameters")
    trained: Any = environment.get("num_trained")
    if not is_kind(total, int):
        return Tile("Parameters", UNKNOWN, "not recorded in environment.json")
    value = next((f"{total / unit:.3g} {name}" for unit, name in ((1e9, "G"), (1e6, "M")) if total >= unit), "")
    detail = "all trained" if trained == total else f"{_count(trained)} trained"
    return Tile("Parameters", value or f"{total:,}", detail)


def _rate_detail(name: str, interval: Interval | None) -> str:
    if interval is None:
        return name
    return f"{name}, 95\N{NO-BREAK SPACE}%:\N{NO-BREAK SPACE}{100 * interval.low:.2f} to {100 * interval.high:.2f}"


def _hours(secs: float) -> str:
    return f"{secs / 3600:.3g} h" if secs >= 3600 else f"{secs / 60:.3g} min"


def _count(value: Any) -> str:
    return f"{value:,}" if is_kind(value, int) else UNKNOWN


def _text(value: Any, *, empty: str = UNKNOWN) -> str:
    if not isinstance(value, str):
        return UNKNOWN
    return _short(value) if value else empty


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _read(path: str, read: Any) -> Mapping[str, Any]:
    if not storage.is_file(path):
        return {}
    try:
        return read(path)
    except (ValueError, OSError) as error:
        logging.warning("the report leaves facts about the run unknown: %s", error)
        return {}
