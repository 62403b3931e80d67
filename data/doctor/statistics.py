"""Computes the doctor's statistics: histograms, batches, words, vocabulary, memory and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from common.readable import shorten
from data.audio.decoding import SAMPLE_RATE
from data.batches.plan import BatchPlan, padding_ratio
from data.doctor.audio_checks import AudioStatistics
from data.doctor.report import (
    Histogram,
    Memory,
    PlanStatistics,
    SetStatistics,
    SetWords,
    Shape,
    TrainingTime,
    Vocabulary,
    round_up,
)
from data.doctor.text_checks import Corpus, FramesFn
from data.text.labels import most_common_unknown
from data.text.normalization import normalize_transcript
from data.text.tokenizer import CharTokenizer

MemoryFn = Callable[[int, int, bool], int | None]
"""(rows, samples of a row, training) -> bytes; None if there is no estimate for the model."""

RowsFn = Callable[[int, int], int]
"""(rows of an update over all replicas, samples of a row) -> rows that one device computes at a time."""

TimeFn = Callable[[Sequence[tuple[int, int, float]], int], tuple[int, float, float, str] | None]
"""((rows, samples of a padded row, seconds of audio in them) of each shape of an epoch, updates of an epoch) ->
updates of the run, lowest and highest time in seconds, how it was predicted; None if it cannot be predicted."""

_MAX_WORDS = 50
_LONGEST_WORD = 60  # characters; text without spaces is one word


def axis_ends(corpora: Sequence[Corpus]) -> tuple[float, float]:
    """Returns the ends of the axes of durations and of characters, which the histograms of all sets share."""
    secs = max((float(corpus.secs.max(initial=0.0)) for corpus in corpora), default=0.0)
    labels = max((float(corpus.labels.num_labels.max(initial=0)) for corpus in corpora), default=0.0)
    return round_up(secs), round_up(labels)


def set_statistics(
    corpus: Corpus,
    audio: AudioStatistics,
    *,
    fields: Mapping[str, Any],
    frames_fn: FramesFn,
    num_left_out: int,
    ends: tuple[float, float],
) -> SetStatistics:
    """Computes the statistics of one set.

    Args:
        corpus: Utterances of the set.
        audio: Measurements of the decoded utterances.
        fields: Format, input and split of the config.
        frames_fn: Returns the model's frames of rows of so many samples.
        num_left_out: Utterances outside the allowed durations.
        ends: Ends of the axes of durations and characters, from `axis_ends`.
    """
    labels = corpus.labels
    frames = np.maximum(frames_fn(corpus.source.num_samples), 1)
    rates = labels.num_labels / np.maximum(corpus.secs, 1e-3)
    where = f"{fields['format']} {fields['input']}"
    return SetStatistics(
        name=corpus.name,
        corpus=f"{where}, {fields['split']}" if fields.get("split") else where,
        num_utterances=len(corpus.secs),
        hours=float(corpus.secs.sum()) / 3600,
        num_speakers=len(set(corpus.source.speaker_ids) - {""}),
        num_words=labels.num_words,
        num_characters=int(labels.num_labels.sum()),
        num_left_out=num_left_out,
        num_listened=len(audio.indices),
        histograms=[
            Histogram.of("duration, s", corpus.secs, low=0.0, high=ends[0]),
            Histogram.of("characters", labels.num_labels, low=0.0, high=ends[1]),
            Histogram.of("characters a second", rates, low=0.0, high=40.0),
            Histogram.of("labels, % of the frames", 100 * labels.num_needed_frames / frames, low=0.0, high=100.0),
            Histogram.of("level, dB of full scale", audio.level_db, low=-60.0, high=0.0),
            Histogram.of("sound, % of the time", 100 * audio.active_ratio, low=0.0, high=100.0),
        ],
    )


def plan_statistics(plan: BatchPlan, frames_fn: FramesFn) -> PlanStatistics:
    """Computes shapes and padding of the first epoch's batches."""
    padded, rows, sizes = plan.padded_samples(0), plan.row_samples(0), plan.batch_rows(0)
    audio = np.add.reduceat(rows, np.cumsum(sizes) - sizes)
    shapes = []
    for boundary in plan.bucket_boundaries:
        num_batches = int((padded == boundary).sum())
        if num_batches:
            num_rows = int(sizes[padded == boundary].sum())
            shapes.append(
                Shape(
                    padded_secs=boundary / SAMPLE_RATE,
                    num_frames=int(frames_fn(np.array([boundary]))[0]),
                    num_batches=num_batches,
                    num_rows=num_rows,
                    padding_ratio=1.0 - int(audio[padded == boundary].sum()) / (num_rows * boundary),
                )
            )
    return PlanStatistics(plan.updates_per_epoch, plan.num_rows, padding_ratio(plan, 0), shapes)


def predict_memory(
    name: str, plan: BatchPlan, rows_at_once: RowsFn, memory_fn: MemoryFn, available_bytes: int | None
) -> Memory:
    """Predicts the memory of a set's largest microbatch.

    Args:
        name: Name of the evaluation set, "" for training.
        plan: Batches of the set.
        rows_at_once: Returns the rows of an update that one device computes at a time.
        memory_fn: Predicts the memory of a batch.
        available_bytes: Memory of the machine; None if unknown.
    """
    shapes = [
        (rows_at_once(rows, samples), samples)
        for rows, samples in zip(plan.bucket_rows, plan.bucket_boundaries, strict=True)
    ]
    # Where batches go by seconds, a bucket of shorter rows can hold more samples than the last one.
    rows, samples = max(shapes, key=lambda shape: (memory_fn(shape[0], shape[1], not name) or 0, shape[1]))
    what = f"evaluation {name}" if name else "training"
    return Memory(what, rows, samples / SAMPLE_RATE, memory_fn(rows, samples, not name), available_bytes)


def predict_time(plan: PlanStatistics, time_fn: TimeFn) -> TrainingTime | None:
    """Predicts the training time from the batches of the first epoch."""
    shapes = [(shape.num_rows, round(shape.padded_secs * SAMPLE_RATE), _audio_secs(shape)) for shape in plan.shapes]
    predicted = time_fn(shapes, plan.updates_per_epoch)
    return TrainingTime(*predicted) if predicted else None


def _audio_secs(shape: Shape) -> float:
    return shape.num_rows * shape.padded_secs * (1.0 - shape.padding_ratio)


def set_words(corpora: Sequence[Corpus], *, text_normalization: str, trained: Corpus | None) -> list[SetWords]:
    """Counts the words of each set, and those of them that training never has.

    Args:
        corpora: Sets to count, the training set included.
        text_normalization: Normalization of the texts.
        trained: The training set; None if it could not be opened, and nothing is then called unseen.
    """
    known = _count_words(trained, text_normalization) if trained else None
    found = []
    for corpus in corpora:
        counts = known if known is not None and corpus is trained else _count_words(corpus, text_normalization)
        unseen: Counter[str] = Counter()
        if known is not None:
            unseen = Counter({word: count for word, count in counts.items() if word not in known})
        found.append(
            SetWords(
                name=corpus.name,
                num_words=counts.total(),
                num_distinct=len(counts),
                frequent=_most_common(counts),
                num_unseen=unseen.total(),
                num_unseen_distinct=len(unseen),
                unseen=_most_common(unseen),
            )
        )
    return found


def _count_words(corpus: Corpus, text_normalization: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for text in corpus.source.texts:
        counts.update(normalize_transcript(text, text_normalization).split())
    return counts


def _most_common(counts: Counter[str]) -> list[tuple[str, int]]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MAX_WORDS]
    return [(shorten(word, _LONGEST_WORD), count) for word, count in ordered]


def vocabulary_use(corpora: Sequence[Corpus], tokenizer: CharTokenizer) -> Vocabulary:
    """Computes how the texts of the first corpus, the training set, use the vocabulary."""
    train, *others = corpora
    counts = train.labels.token_counts
    elsewhere = sum((corpus.labels.token_counts for corpus in others), np.zeros_like(counts))
    tokens = {index: token for index, token in enumerate(tokenizer.tokens) if tokenizer.token_strings[index]}
    # Utterance concatenation adds delimiters that no single text has.
    letters = {index: token for index, token in tokens.items() if tokenizer.token_strings[index] != " "}
    return Vocabulary(
        counts={token: int(counts[index]) for index, token in tokens.items()},
        unused=[token for index, token in letters.items() if not counts[index]],
        unknown=most_common_unknown(train.labels),
        unknown_ratio=train.labels.unknown_ratio,
        only_in_evaluation="".join(
            tokenizer.token_strings[index] for index in letters if elsewhere[index] and not counts[index]
        ),
    )
