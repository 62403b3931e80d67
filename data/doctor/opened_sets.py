"""Opens the sets that the doctor examines, despite their faults."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from common.readable import describe_error
from data.batches.corpora import FIRST, TrainCorpus
from data.batches.datasets import EvalData, TrainData
from data.corpus.faults import Fault, Report
from data.corpus.sources import Source
from data.doctor.audio_checks import AudioStatistics
from data.doctor.findings import Finding, find
from data.doctor.preflight import train_name
from data.doctor.statistics import RowsFn
from data.doctor.text_checks import Corpus
from data.shards.index import verify_shards
from data.text.tokenizer import CharTokenizer


@dataclass(frozen=True)
class DatasetSpec:
    """One set of a config.

    Attributes:
        name: Name of the evaluation set, "" for a training corpus.
        fields: Config fields format, input, split, text_column, speakers, exclude_speakers and held_out_ratio.
        build: Opens the set and reports its faults.
        rows_at_once: Returns the rows of an update that one device computes at a time.
        corpus: Name of the training corpus among several, all of which `build` opens.
    """

    name: str
    fields: Mapping[str, Any]
    build: Callable[[Report], TrainData | EvalData]
    rows_at_once: RowsFn
    corpus: str = FIRST

    @property
    def utterances_key(self) -> tuple[str, ...]:
        """Returns a key that is equal for evaluation sets with the same utterances."""
        names = ("format", "input", "split", "text_column", "speakers", "exclude_speakers", "held_out_ratio")
        return ("" if self.name else self.corpus, *(str(self.fields.get(name, "")) for name in names))


@dataclass
class OpenedSet:
    """One set, or several with the same utterances, and what the checks have found so far."""

    name: str
    fields: Mapping[str, Any]
    corpus_name: str  # of a training corpus, "" of an evaluation set
    data: list[tuple[DatasetSpec, TrainData | EvalData]] = field(default_factory=list)
    corpus: Corpus | None = None
    audio: AudioStatistics | None = None
    findings: list[Finding] = field(default_factory=list)

    def measure(self, *, tokenizer: CharTokenizer, text_normalization: str, speed_factors: Sequence[float]) -> None:
        """Measures the texts of the set; only training has other speeds than 1."""
        self.corpus = Corpus.measure(
            self.name,
            self.source,
            tokenizer=tokenizer,
            text_normalization=text_normalization,
            speed_factors=speed_factors if self.corpus_name else (1.0,),
        )

    @property
    def trained(self) -> TrainCorpus | None:
        """Returns the training corpus, None for an evaluation set or without data."""
        data = self.data[0][1] if self.data else None
        return data.corpora[self.corpus_name] if isinstance(data, TrainData) else None

    @property
    def source(self) -> Source:
        """Returns the utterances of the set, which must be open."""
        trained = self.trained
        return self.data[0][1].source if trained is None else trained.source


def trained_sets(opened: Sequence[OpenedSet]) -> list[OpenedSet]:
    """Returns the training corpora that could be opened."""
    return [one for one in opened if one.corpus_name and one.corpus]


def evaluation_sets(opened: Sequence[OpenedSet]) -> list[OpenedSet]:
    """Returns the evaluation sets that could be opened."""
    return [one for one in opened if one.corpus and not one.corpus_name]


def open_all(sets: Sequence[DatasetSpec]) -> list[OpenedSet]:
    """Opens every set despite its faults; evaluation sets with the same utterances become one."""
    groups: dict[tuple[str, ...], list[DatasetSpec]] = defaultdict(list)
    for item in sets:
        groups[item.utterances_key].append(item)
    # A bad line of a manifest that several sets share is one problem.
    told: set[tuple[str, ...]] = set()
    return [_open(group, told) for group in groups.values()]


def _open(group: Sequence[DatasetSpec], told: set[tuple[str, ...]]) -> OpenedSet:
    """Opens sets with the same utterances; `told` gets the faults, which are not repeated."""
    fields = group[0].fields
    corpus = "" if group[0].name else group[0].corpus
    name = train_name(corpus) if corpus else f"eval {', '.join(item.name for item in group)}"
    one = OpenedSet(name, fields, corpus)
    for item in group:
        faults: list[Fault] = []
        try:
            one.data.append((item, item.build(faults.append)))
        except (ValueError, OSError) as error:
            one.findings += find("unusable_corpus", one.name, {item.name or one.name: describe_error(error)})
        if item is group[0]:
            one.findings += _describe_faults(one, faults, told)
    if fields["format"] == "tfrecord" and one.data:
        _check_shards(one)
    return one


def _check_shards(one: OpenedSet) -> None:
    """Finds all damaged shards by their checksums, where opening the set stops at the first."""
    damaged = verify_shards(one.fields["input"], split=one.fields.get("split", ""))
    others = [finding for finding in one.findings if finding.code != "damaged_shard"]
    one.findings = others + find("damaged_shard", one.name, damaged)


def _describe_faults(one: OpenedSet, faults: Sequence[Fault], told: set[tuple[str, ...]]) -> list[Finding]:
    findings: list[Finding] = []
    for fault in faults:
        place = (fault.code, str(one.fields["input"]), str(one.fields.get("split", "")))
        details = {key: what for key, what in fault.details.items() if (*place, key) not in told}
        told |= {(*place, key) for key in details}
        findings += find(fault.code, one.name, details)
    return findings
