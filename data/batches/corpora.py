"""Opens the corpora of a training, and decides how often an epoch goes through each of several."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from absl import logging

from data.audio.decoding import SAMPLE_RATE
from data.batches.options import DataOptions, TrainOptions
from data.common.errors import InputError
from data.corpus.faults import Report
from data.corpus.held_out import split_held_out
from data.corpus.sources import Source, Span, duration_conflicts, listed_utterances, segment_starts, spans
from data.corpus.utterance import Fields, Utterance
from data.open_corpus import open_source

# The name of the corpus of config.data.train among those of config.data.more_train.
FIRST = "train"


class SubsetSource:
    """A `Source` of some utterances of another source, renumbered from 0."""

    def __init__(self, *, source: Source, indices: np.ndarray):
        """Selects the utterances of `source` at `indices`, int64 [N], in that order."""
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64)
        self.utterance_ids: Sequence[str] = [source.utterance_ids[i] for i in self._indices]
        self.texts: Sequence[str] = [source.texts[i] for i in self._indices]
        self.speaker_ids: Sequence[str] = [source.speaker_ids[i] for i in self._indices]
        self.num_samples = source.num_samples[self._indices]
        self.sample_rates = source.sample_rates[self._indices]
        kept = set(self.utterance_ids)
        self.segment_starts = {name: start for name, start in segment_starts(source).items() if name in kept}
        self.duration_conflicts = {name: what for name, what in duration_conflicts(source).items() if name in kept}

    @property
    def utterances(self) -> Sequence[Utterance]:
        """Returns the utterances as they are listed; () if the source is no list of files."""
        found = listed_utterances(self._source)
        return [found[i] for i in self._indices] if found else ()

    @property
    def fields(self) -> dict[str, Fields]:
        """Utterance id -> further fields of its manifest."""
        fields: dict[str, Fields] = getattr(self._source, "fields", {})
        return {name: fields[name] for name in self.utterance_ids if name in fields}

    @property
    def spans(self) -> Sequence[Span | None]:
        """Returns where the audio of each utterance is stored."""
        found = spans(self._source)
        return [found[i] for i in self._indices]

    def read_waveform(self, index: int) -> np.ndarray:
        """Returns the samples of an utterance at 16 kHz."""
        return self._source.read_waveform(int(self._indices[index]))

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the recording of an utterance as it is stored."""
        return self._source.read_recording(int(self._indices[index]))


class JoinedSource:
    """A `Source` of the utterances of several named sources, one source after the other.

    Ids and speakers get the name of their source, "NAME:ID", so that those of two corpora never collide.
    """

    def __init__(self, sources: Mapping[str, Source]):
        """Lists the utterances of `sources`, in their order."""
        self._sources = list(sources.values())
        self._ends = np.cumsum([len(source.utterance_ids) for source in self._sources])
        utterance_ids: list[str] = []
        texts: list[str] = []
        speaker_ids: list[str] = []
        self.segment_starts: dict[str, int] = {}
        self.duration_conflicts: dict[str, str] = {}
        for name, source in sources.items():
            utterance_ids += [f"{name}:{key}" for key in source.utterance_ids]
            texts += source.texts
            speaker_ids += [f"{name}:{speaker}" if speaker else "" for speaker in source.speaker_ids]
            self.segment_starts |= {f"{name}:{key}": start for key, start in segment_starts(source).items()}
            self.duration_conflicts |= {f"{name}:{key}": what for key, what in duration_conflicts(source).items()}
        self.utterance_ids: Sequence[str] = utterance_ids
        self.texts: Sequence[str] = texts
        self.speaker_ids: Sequence[str] = speaker_ids
        self.num_samples = np.concatenate([source.num_samples for source in self._sources])
        self.sample_rates = np.concatenate([source.sample_rates for source in self._sources])

    @property
    def spans(self) -> Sequence[Span | None]:
        """Returns where the audio of each utterance is stored."""
        return [span for source in self._sources for span in spans(source)]

    def corpora_of(self, indices: np.ndarray) -> np.ndarray:
        """Returns the number of the source of each utterance, int64 [N]."""
        return np.searchsorted(self._ends, indices, side="right")

    def _locate(self, index: int) -> tuple[Source, int]:
        number = int(self.corpora_of(np.array(index)))
        source = self._sources[number]
        return source, int(index) - int(self._ends[number]) + len(source.utterance_ids)

    def read_waveform(self, index: int) -> np.ndarray:
        """Returns the samples of an utterance at 16 kHz."""
        source, place = self._locate(index)
        return source.read_waveform(place)

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the recording of an utterance as it is stored."""
        source, place = self._locate(index)
        return source.read_recording(place)


@dataclasses.dataclass(frozen=True)
class TrainCorpus:
    """One corpus of a training.

    Attributes:
        name: "train" for config.data.train, or the name in config.data.more_train.
        source: Its utterances.
        weight: Its weight among several.
        left_out_secs: Utterance id -> duration of each utterance that is too short or too long.
    """

    name: str
    source: Source
    weight: float = 1.0
    left_out_secs: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def num_left_out(self) -> int:
        """Returns the number of utterances that are too short or too long."""
        return len(self.left_out_secs)

    @property
    def secs(self) -> float:
        """Returns the duration of all utterances."""
        return float(self.source.num_samples.sum()) / SAMPLE_RATE


def open_corpora(options: TrainOptions, report: Report) -> list[TrainCorpus]:
    """Opens the corpora of a training without the utterances that they hold out.

    Args:
        options: Corpora and batches.
        report: Called with each fault of single utterances; the fault names the corpus where there are several.

    Raises:
        InputError: If a corpus cannot be read; names it where there are several.
        ValueError: If one of `options.more` has the name of the first corpus.
    """
    if FIRST in options.more:
        raise ValueError(f"more={list(options.more)} must not have {FIRST!r}, the first corpus")
    fields: dict[str, TrainOptions] = {FIRST: options}
    for name, changes in options.more.items():
        fields[name] = dataclasses.replace(options, **changes)
    found = []
    for name, one in fields.items():
        with _named(options, name):
            source = open_corpus(one, lambda fault, name=name: report(fault._replace(corpus=name)))  # type: ignore[misc]
            if one.held_out_ratio:
                source = SubsetSource(source=source, indices=split(source, one, warn=True)[0])
            found.append(TrainCorpus(name, source, one.weight))
    return found


@contextlib.contextmanager
def _named(options: TrainOptions, name: str) -> Iterator[None]:
    """Adds the field of a corpus to the errors about it where there are several."""
    try:
        yield
    except InputError as error:
        if not options.more:
            raise
        field = "data.train" if name == FIRST else f"data.more_train.{name}"
        raise InputError(f"{field}: {error}", code=error.code) from error


def limit_durations(corpus: TrainCorpus, options: TrainOptions) -> TrainCorpus:
    """Leaves out the utterances of a corpus that are too short or too long.

    Raises:
        InputError: If none is left.
    """
    source = corpus.source
    durations = source.num_samples / SAMPLE_RATE
    longest = options.max_duration_secs or float("inf")
    is_kept = (durations >= options.min_duration_secs) & (source.num_samples > 0) & (durations <= longest)
    if is_kept.all():
        return corpus
    left_out = np.flatnonzero(~is_kept).tolist()
    logging.warning(
        "%d of %d training utterances%s are shorter than %g s or longer than %g s and left out, first %s",
        len(left_out),
        len(is_kept),
        f" of {corpus.name}" if options.more else "",
        options.min_duration_secs,
        longest,
        source.utterance_ids[left_out[0]],
    )
    if not is_kept.any():
        fields = options.more.get(corpus.name, {})
        with _named(options, corpus.name):
            raise InputError(
                f"{fields.get('input', options.input)}: every utterance is outside data.min_duration_secs="
                f"{options.min_duration_secs:g} and data.max_duration_secs={options.max_duration_secs:g}: change the "
                "limits or the corpus"
            )
    return dataclasses.replace(
        corpus,
        source=SubsetSource(source=source, indices=np.flatnonzero(is_kept)),
        left_out_secs={source.utterance_ids[i]: float(durations[i]) for i in left_out},
    )


def choose_passes(secs: Sequence[float], weights: Sequence[float], *, alpha: float) -> tuple[float, ...]:
    """Returns how often an epoch goes through each corpus.

    Corpus i makes up p_i of the audio, with p_i proportional to weight_i * secs_i ** alpha; without weights that is the
    temperature sampling of multilingual models (docs/decisions/0054). An epoch has as much audio as all corpora
    together, so with alpha 1 and equal weights it goes through each of them once.

    Args:
        secs: Durations of the corpora, above 0.
        weights: Weights of the corpora, above 0.
        alpha: Exponent in [0, 1]: 1 keeps the corpora as large as they are, 0 makes them equally large.
    """
    # Relative to the longest: a power of thousands of hours must not lose digits.
    relative = np.array(secs, dtype=np.float64) / max(secs)
    passes = np.array(weights, dtype=np.float64) * relative ** (alpha - 1.0)
    return tuple((passes * relative.sum() / (passes * relative).sum()).tolist())


def open_corpus(options: DataOptions, report: Report) -> Source:
    """Opens the corpus of a set with all its utterances."""
    return open_source(
        format=options.format,
        input=options.input,
        split=options.split,
        text_column=options.text_column,
        speakers=options.speakers,
        exclude_speakers=options.exclude_speakers,
        on_rate_mismatch=options.on_rate_mismatch,
        report=report,
    )


def split(source: Source, options: DataOptions, *, warn: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices that stay and those that are held out."""
    return split_held_out(
        speaker_ids=source.speaker_ids,
        utterance_ids=source.utterance_ids,
        ratio=options.held_out_ratio,
        where=str(options.input),
        warn=warn,
    )
