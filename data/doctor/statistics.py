"""The doctor's figures: spread of the sets, padding of the plan, cover of the vocabulary, memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from data.audio.decoding import SAMPLE_RATE
from data.batches.plan import BatchPlan, padding_share
from data.doctor.audio_checks import Sounds
from data.doctor.examination import Histogram, Memory, PlanFigures, SetFigures, Shape, Vocabulary
from data.doctor.text_checks import Corpus, FramesFn
from data.text.labels import most_common_unknown
from data.text.tokenizer import CharTokenizer

# (rows, samples of a row, training) -> bytes, None where the model cannot say.
MemoryFn = Callable[[int, int, bool], int | None]


def set_figures(
    corpus: Corpus, sounds: Sounds, *, fields: Mapping[str, Any], frames_fn: FramesFn, num_left_out: int
) -> SetFigures:
    """The figures of one set.

    Args:
        corpus: its utterances.
        sounds: of those that were listened to.
        fields: format, input and split of the config.
        frames_fn: the model's frames of so many samples.
        num_left_out: utterances that its limits leave out.
    """
    labels = corpus.labels
    frames = np.maximum(frames_fn(corpus.source.num_samples), 1)
    rates = labels.num_labels / np.maximum(corpus.secs, 1e-3)
    where = f"{fields['format']} {fields['input']}"
    return SetFigures(
        name=corpus.name,
        corpus=f"{where}, {fields['split']}" if fields.get("split") else where,
        num_utterances=len(corpus.secs),
        hours=float(corpus.secs.sum()) / 3600,
        num_speakers=len(set(corpus.source.speaker_ids) - {""}),
        num_words=labels.num_words,
        num_characters=int(labels.num_labels.sum()),
        num_left_out=num_left_out,
        num_listened=len(sounds.indices),
        histograms=[
            Histogram.of("duration, s", corpus.secs, low=0.0),
            Histogram.of("characters", labels.num_labels, low=0.0),
            Histogram.of("characters a second", rates, low=0.0, high=40.0),
            Histogram.of("labels, % of the frames", 100 * labels.num_needed_frames / frames, low=0.0, high=100.0),
            Histogram.of("level, dB of full scale", sounds.level_db, low=-60.0, high=0.0),
            Histogram.of("sound, % of the time", 100 * sounds.active_share, low=0.0, high=100.0),
        ],
    )


def plan_figures(plan: BatchPlan, frames_fn: FramesFn) -> PlanFigures:
    """Shapes and padding of the first epoch's batches."""
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
                    padding_share=1.0 - int(audio[padded == boundary].sum()) / (num_rows * boundary),
                )
            )
    return PlanFigures(plan.updates_per_epoch, plan.num_rows, padding_share(plan, 0), shapes)


def predict_memory(
    name: str, plan: BatchPlan, num_parts: int, memory_fn: MemoryFn, available_bytes: int | None
) -> Memory:
    """Predicts the memory of a set's largest microbatch.

    Args:
        name: the evaluation set's, "" for training.
        plan: of the set.
        num_parts: microbatches of an update, over all replicas.
        memory_fn: the model's prediction.
        available_bytes: of the machine; None where unknown.
    """
    shapes = [
        (max(1, rows // num_parts), samples)
        for rows, samples in zip(plan.bucket_rows, plan.bucket_boundaries, strict=True)
    ]
    # Where batches go by seconds, a bucket of shorter rows can hold more samples than the last one.
    rows, samples = max(shapes, key=lambda shape: (memory_fn(shape[0], shape[1], not name) or 0, shape[1]))
    what = f"evaluation {name}" if name else "training"
    return Memory(what, rows, samples / SAMPLE_RATE, memory_fn(rows, samples, not name), available_bytes)


def vocabulary(corpora: Sequence[Corpus], tokenizer: CharTokenizer) -> Vocabulary:
    """How the texts of the first corpus, the training set's, use the vocabulary."""
    train, *others = corpora
    counts = train.labels.token_counts
    elsewhere = np.sum([corpus.labels.token_counts for corpus in others], axis=0) if others else np.zeros_like(counts)
    pieces = tokenizer.pieces
    tokens = {index: token for index, token in enumerate(tokenizer.tokens) if pieces[index]}
    new = [pieces[index] for index in tokens if elsewhere[index] and not counts[index]]
    return Vocabulary(
        counts={token: int(counts[index]) for index, token in tokens.items()},
        # Joining brings delimiters that no single text has.
        unused=[token for index, token in tokens.items() if not counts[index] and pieces[index] != " "],
        unknown=most_common_unknown(train.labels),
        unknown_share=train.labels.unknown_share,
        only_in_evaluation="".join(piece for piece in new if piece != " "),
    )
