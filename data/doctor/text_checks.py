"""Checks texts, lengths, speaking rates, sample rates and leaks without decoding audio."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.readable import shorten
from common.spacing import unspaced_length
from data.audio.decoding import SAMPLE_RATE
from data.batches.rows import samples_at_speed
from data.corpus.sources import Source, duration_conflicts
from data.doctor.findings import Finding, find
from data.text.labels import Labels, measure_labels
from data.text.markup import drop_markup, dropped_markup, find_markup
from data.text.normalization import describe_character
from data.text.tokenizer import UNKNOWN, CharTokenizer

FramesFn = Callable[[np.ndarray], np.ndarray]
"""int64 [N] samples -> int [N] frames, by the arithmetic of the model's convolutions."""

# A short utterance consists mostly of its edges, which count as eight labels, half a second of reading.
_EDGE_LABELS = 8
_MIN_RATE_RATIO = 3.0
_MIN_RATE_SPREADS = 6.0
_MIN_FOR_RATES = 10
# Below this rank correlation, texts of different lengths do not belong to their audio.
_MIN_CORRELATION = 0.4
_MIN_LENGTH_SPREAD = 0.3
_MIN_FOR_CORRELATION = 20
# How pandas, R and Python write a cell without value; lower-case "null" and "none" are words of single-word corpora.
_MISSING_CELLS = ("nan", "NaN", "NA", "N/A", "<NA>", "None")
# In so many labels even the rarest letter of a language occurs more than twice; what does not is rather a typing error.
_MIN_LABELS_FOR_RARE = 10_000
_MOST_OF_RARE = 2
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True)
class Corpus:
    """A set of utterances with its labels measured.

    Attributes:
        name: "train" or "eval NAME".
        source: Utterances.
        labels: Measurements of their texts.
        speed_factors: Factors of the speed perturbation.
        text_normalization: Style of the texts.
    """

    name: str
    source: Source
    labels: Labels
    speed_factors: Sequence[float] = (1.0,)
    text_normalization: str = "none"

    @classmethod
    def measure(
        cls,
        name: str,
        source: Source,
        *,
        tokenizer: CharTokenizer,
        text_normalization: str,
        speed_factors: Sequence[float] = (1.0,),
    ) -> Corpus:
        """Measures the texts of a source."""
        labels = measure_labels(source.texts, tokenizer=tokenizer, text_normalization=text_normalization)
        return cls(name, source, labels, tuple(speed_factors), text_normalization)

    @property
    def secs(self) -> np.ndarray:
        """Returns durations, float64 [N]."""
        return self.source.num_samples / SAMPLE_RATE

    def find(self, code: str, indices: np.ndarray | Sequence[int], what: Callable[[int], str]) -> list[Finding]:
        """Returns a finding about the utterances at `indices`."""
        return find(code, self.name, {self.source.utterance_ids[int(i)]: what(int(i)) for i in indices})

    def quote(self, index: int) -> str:
        """Returns the transcript of an utterance, or its beginning, in quotation marks."""
        return repr(shorten(self.source.texts[index], _SHOWN_CHARACTERS))


def check_texts(corpus: Corpus) -> list[Finding]:
    """Returns empty texts, unknown or dropped characters, and markup that nobody speaks."""
    texts, labels, style = corpus.source.texts, corpus.labels, corpus.text_normalization
    empty = np.flatnonzero(labels.num_labels == 0)
    digits = [index for index in labels.digits if labels.num_labels[index]]
    markup = {index: found for index, text in enumerate(texts) if (found := find_markup(drop_markup(text, style)))}
    missing = [index for index, text in enumerate(texts) if text.strip() in _MISSING_CELLS]
    broken = [index for index, text in enumerate(texts) if "\n" in text.strip()]
    return [
        *corpus.find("empty_text", empty, lambda i: corpus.quote(i) if texts[i].strip() else ""),
        *corpus.find(
            "unknown_characters",
            list(labels.unknown),
            lambda i: " ".join(describe_character(character) for character in labels.unknown[i]),
        ),
        *corpus.find("lost_digits", digits, corpus.quote),
        *corpus.find("lost_symbols", list(labels.lost_symbols), lambda i: " ".join(labels.lost_symbols[i])),
        *corpus.find("markup", list(markup), lambda i: shorten(" ".join(markup[i]), _SHOWN_CHARACTERS)),
        *corpus.find("missing_cells", missing, lambda i: repr(texts[i])),
        *corpus.find("line_breaks", broken, corpus.quote),
    ]


def check_rare_characters(corpus: Corpus, tokenizer: CharTokenizer) -> list[Finding]:
    """Returns the characters that occur once or twice in a large set whose texts made the vocabulary.

    A given vocabulary has rare characters because somebody knows that the language has them.
    """
    counts, first = corpus.labels.token_counts, corpus.labels.first_texts
    if counts.sum() < _MIN_LABELS_FOR_RARE:
        return []
    rare = [i for i in np.flatnonzero((counts > 0) & (counts <= _MOST_OF_RARE)) if tokenizer.tokens[i] != UNKNOWN]
    return find(
        "rare_characters",
        corpus.name,
        {
            describe_character(tokenizer.tokens[i]): f"{'once' if counts[i] == 1 else 'twice'}, first "
            f"{corpus.source.utterance_ids[first[i]]}"
            for i in rare
        },
    )


def check_writing(corpus: Corpus) -> list[Finding]:
    """Returns notes about the writing of a set: characters and markup not read as written, digits, missing spaces."""
    return [
        *find("read_otherwise", corpus.name, _describe_reread(corpus)),
        *find("dropped_markup", corpus.name, _describe_dropped_markup(corpus)),
        *corpus.find("kept_digits", corpus.labels.kept_digits, corpus.quote),
        *_check_spaces(corpus),
    ]


def _check_spaces(corpus: Corpus) -> list[Finding]:
    length = unspaced_length(corpus.source.texts)
    return find("unspaced_text", corpus.name, {"all": f"{length:.1f} characters between two spaces"} if length else {})


def check_listed_durations(corpus: Corpus) -> list[Finding]:
    """Returns the utterances whose manifest gives another duration than their file has."""
    return find("wrong_duration", corpus.name, duration_conflicts(corpus.source))


def check_fit(corpus: Corpus, frames_fn: FramesFn) -> list[Finding]:
    """Returns utterances whose labels do not fit the model's frames, at the slowest or at the fastest speed."""
    labels, num_samples = corpus.labels, corpus.source.num_samples
    needed = labels.num_needed_frames
    slow, fast = (
        frames_fn(samples_at_speed(num_samples, speed))
        for speed in (min(corpus.speed_factors), max(corpus.speed_factors))
    )
    # Without labels, one frame is enough.
    never, sometimes = needed > slow, np.maximum(needed, 1) > fast
    never |= slow < 1

    def what(frames: np.ndarray) -> Callable[[int], str]:
        return lambda i: f"{labels.num_labels[i]} labels, {labels.num_repeats[i]} repeats, {frames[i]} frames"

    return [
        *corpus.find("labels_do_not_fit", np.flatnonzero(never), what(slow)),
        *corpus.find("labels_fit_slow_only", np.flatnonzero(sometimes & ~never), what(fast)),
    ]


def check_sample_rates(corpus: Corpus) -> list[Finding]:
    """Returns recordings at other rates than most of the set, and those that are resampled."""
    rates = corpus.source.sample_rates
    values, counts = np.unique(rates, return_counts=True)
    usual = int(values[np.argmax(counts)])
    findings = corpus.find("mixed_rates", np.flatnonzero(rates != usual), lambda i: f"{rates[i]:,} Hz, not {usual:,}")
    if usual != SAMPLE_RATE:
        findings += corpus.find("resampled", np.flatnonzero(rates == usual), lambda i: f"{usual:,} Hz")
    return findings


def check_speaking_rates(corpus: Corpus) -> list[Finding]:
    """Returns utterances that are far faster or slower than the set, and sets with shifted transcripts.

    The rate is (labels + 8) / seconds. An utterance is an outlier if its rate differs from the set's median by a factor
    of 3 and by 6 robust standard deviations (1.4826 times the median absolute deviation of the logarithm). Both are
    needed, because single words or concatenated digits have a wide spread and read sentences a narrow one. Transcripts
    are shifted if texts and audio vary in length without correlation; the spread is then so wide that no single
    utterance is an outlier.
    """
    num_labels, secs = corpus.labels.num_labels, corpus.secs
    spoken = np.flatnonzero((num_labels > 0) & (secs > 0))
    findings: list[Finding] = []
    if len(spoken) < _MIN_FOR_RATES:
        return findings
    rates = np.log((num_labels[spoken] + _EDGE_LABELS) / secs[spoken])
    median, spread = robust_spread(rates)
    limit = max(np.log(_MIN_RATE_RATIO), _MIN_RATE_SPREADS * spread)
    usual = float(np.median(num_labels[spoken] / secs[spoken]))
    findings += corpus.find(
        "speaking_rate",
        spoken[np.abs(rates - median) > limit],
        lambda i: f"{num_labels[i]} characters in {secs[i]:.2f} s; the set has {usual:.1f} a second",
    )
    lengths = np.log(num_labels[spoken])
    varies = min(lengths.std(), np.log(secs[spoken]).std()) > _MIN_LENGTH_SPREAD
    if varies and len(spoken) >= _MIN_FOR_CORRELATION:
        correlation = float(np.corrcoef(_ranks(num_labels[spoken]), _ranks(secs[spoken]))[0, 1])
        if correlation < _MIN_CORRELATION:
            what = f"rank correlation {correlation:.2f} over {len(spoken):,} utterances, wanted at least 0.4"
            findings += find("unrelated_transcripts", corpus.name, {"all": what})
    return findings


def robust_spread(values: np.ndarray) -> tuple[float, float]:
    """Returns the median, and the standard deviation that a normal distribution of this width would have."""
    median = float(np.median(values))
    return median, 1.4826 * float(np.median(np.abs(values - median)))


def check_durations(
    name: str, left_out_secs: Mapping[str, float], *, min_secs: float, max_secs: float
) -> list[Finding]:
    """Returns utterances that training leaves out because of their duration."""
    short = {key: f"{secs:.2f} s" for key, secs in left_out_secs.items() if secs < min_secs}
    long = {key: f"{secs:.2f} s" for key, secs in left_out_secs.items() if key not in short}
    return [
        *find("too_short", name, {k: f"{what}, limit {min_secs:g} s" for k, what in short.items()}),
        *find("too_long", name, {k: f"{what}, limit {max_secs:g} s" for k, what in long.items()}),
    ]


def check_ids(train: Corpus, evaluation: Corpus) -> list[Finding]:
    """Returns evaluation utterances that have the id of a training utterance.

    With the same length, it is the same recording; otherwise two folders have files of the same name.
    """
    known = {name: i for i, name in enumerate(train.source.utterance_ids)}
    twins = {i: known[name] for i, name in enumerate(evaluation.source.utterance_ids) if name in known}
    ours, theirs = evaluation.source.num_samples, train.source.num_samples
    leaked = [i for i, twin in twins.items() if ours[i] == theirs[twin]]
    named_alike = [i for i, twin in twins.items() if ours[i] != theirs[twin]]
    return [
        *evaluation.find("id_leak", leaked, lambda i: f"{evaluation.secs[i]:.2f} s"),
        *evaluation.find(
            "shared_id", named_alike, lambda i: f"{evaluation.secs[i]:.2f} s, {train.secs[twins[i]]:.2f} s in train"
        ),
    ]


def check_speakers(train: Corpus, evaluation: Corpus, leaked_ids: set[str]) -> list[Finding]:
    """Returns evaluation speakers who are also in training, apart from utterances that leaked as a whole."""
    trained = set(train.source.speaker_ids) - {""}
    pairs = zip(evaluation.source.speaker_ids, evaluation.source.utterance_ids, strict=True)
    heard = Counter(speaker for speaker, name in pairs if speaker in trained and name not in leaked_ids)
    return find(
        "speaker_leak", evaluation.name, {name: f"{count:,} utterances" for name, count in sorted(heard.items())}
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks with ties at their mean, float64 [N]."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _describe_reread(corpus: Corpus) -> dict[str, str]:
    """Describes each replaced or dropped character, replaced ones first, then by frequency."""
    found = sorted(corpus.labels.reread.items(), key=lambda item: (not item[1][0].strip(), -item[1][1], item[0]))
    described = {}
    for character, (read, count, first) in found:
        how = f"read as {read}" if read.strip() else "dropped, a space in its place" if read else "dropped"
        where = f"{count:,} text{'s' * (count != 1)}, first {corpus.source.utterance_ids[first]}"
        described[describe_character(character)] = f"{how}; {where}"
    return described


def _describe_dropped_markup(corpus: Corpus) -> dict[str, str]:
    """Describes each kind of markup that the style drops, the most frequent first."""
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for name, text in zip(corpus.source.utterance_ids, corpus.source.texts, strict=True):
        for kind in set(dropped_markup(text, corpus.text_normalization)):
            counts[kind] += 1
            first.setdefault(kind, name)
    return {
        shorten(kind, _SHOWN_CHARACTERS): f"{count:,} text{'s' * (count != 1)}, first {first[kind]}"
        for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    }
