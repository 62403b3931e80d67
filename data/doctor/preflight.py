"""Runs the cheap checks before the first update of a training and refuses a corpus that would spoil it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from absl import logging

from data.batches.corpora import FIRST
from data.batches.datasets import EvalData, TrainData
from data.common.errors import InputError
from data.doctor import segment_checks, text_checks
from data.doctor.findings import (
    Finding,
    Severity,
    advise,
    allow,
    choose_advice,
    find,
    find_shared,
    sort,
    without_explained,
)
from data.doctor.text_checks import Corpus, FramesFn
from data.text.labels import most_common_unknown
from data.text.tokenizer import CharTokenizer

TRAIN = "train"
LEAKS = ("id_leak", "audio_leak", "segment_leak", "shared_id", "speaker_leak")
# Ratios of the training set beyond which a run cannot succeed. Characters: English text has about 0.1 % unknown
# characters (names) in an English vocabulary, German text 2 %.
MAX_UNKNOWN_LABELS = 0.01
MAX_SPOILED_UTTERANCES = 0.1


def check_before_training(
    *,
    train_data: TrainData,
    eval_data: Mapping[str, EvalData],
    tokenizer: CharTokenizer,
    text_normalization: str,
    frames_fn: FramesFn,
    speed_factors: Sequence[float] = (1.0,),
    allow_train_eval_overlap: bool = False,
    keeps_head: bool = False,
) -> list[Finding]:
    """Runs the checks that need no audio, logs what they find, and refuses what would spoil the run.

    Args:
        train_data: Training set.
        eval_data: Evaluation sets by name.
        tokenizer: Tokenizer of the model.
        text_normalization: Normalization style of `normalize_transcript`.
        frames_fn: Returns the model's frames of rows of so many samples.
        speed_factors: Factors of the speed perturbation in training.
        allow_train_eval_overlap: Allows evaluation utterances in training.
        keeps_head: Whether training starts from a trained head, whose vocabulary the run must keep.

    Returns:
        The findings, worst first.

    Raises:
        InputError: More than 1 % of the characters are not in the vocabulary, more than a tenth of the utterances have
            no text or do not fit their frames, or training has an evaluation utterance.
    """
    measure = partial(Corpus.measure, tokenizer=tokenizer, text_normalization=text_normalization)
    # Each by itself: an evaluation set has the ids of its own corpus, and a small corpus can be wrong as a whole.
    trained = [
        measure(train_name(name), corpus.source, speed_factors=speed_factors)
        for name, corpus in train_data.corpora.items()
    ]
    found = [item for train in trained for item in check_corpus(train, frames_fn)]
    found += _check_shared(trained)
    if train_data.made_vocab:  # of the texts of all corpora
        whole = trained[0] if len(trained) == 1 else measure(TRAIN, train_data.source)
        found += text_checks.check_rare_characters(whole, tokenizer)
    for name, data in eval_data.items():
        found += _check_evaluation_set(measure(f"eval {name}", data.source), trained, frames_fn)
    found = advise(allow(found, LEAKS) if allow_train_eval_overlap else found, keeps_head=keeps_head)
    findings = sort(without_explained(found))
    for item in findings:
        if item.severity != Severity.NOTE:
            logging.warning("%s", item.line())
    for train in trained:
        _refuse_spoiled(train, findings, keeps_head=keeps_head)
    _refuse_leaks(findings)
    return findings


def _check_evaluation_set(corpus: Corpus, trained: Sequence[Corpus], frames_fn: FramesFn) -> list[Finding]:
    return [
        *text_checks.check_texts(corpus),
        *text_checks.check_listed_durations(corpus),
        *text_checks.check_fit(corpus, frames_fn),
        *(item for train in trained for item in check_leaks(train, corpus)),
    ]


def check_corpus(corpus: Corpus, frames_fn: FramesFn) -> list[Finding]:
    """Returns the findings about a training corpus, or another set by itself, that need no audio."""
    return [
        *text_checks.check_texts(corpus),
        *text_checks.check_listed_durations(corpus),
        *text_checks.check_fit(corpus, frames_fn),
        *text_checks.check_sample_rates(corpus),
        *text_checks.check_speaking_rates(corpus),
        *segment_checks.check_overlaps(corpus),
        *segment_checks.check_seeking(corpus),
    ]


def check_leaks(train: Corpus, other: Corpus, *, same_audio: Mapping[str, str] | None = None) -> list[Finding]:
    """Returns what a training corpus has of another set, too; an utterance is named once, by the closest match.

    Args:
        train: Training corpus.
        other: Evaluation set, or a later training corpus.
        same_audio: Utterance of the other set -> how its audio is in training; None if nothing was decoded.
    """
    found = text_checks.check_ids(train, other)
    leaked = {key for item in found if item.code == "id_leak" for key in item.details}
    heard = {key: what for key, what in (same_audio or {}).items() if key not in leaked}
    leaked |= heard.keys()
    shared = segment_checks.check_shared_segments(train, other, leaked)
    leaked |= {key for item in shared for key in item.details}
    found += find("audio_leak", other.name, heard)
    return [*found, *shared, *text_checks.check_speakers(train, other, leaked)]


def train_name(corpus: str) -> str:
    """Returns the name of a training corpus in findings: "train", or "train NAME" for one of data.more_train."""
    return TRAIN if corpus == FIRST else f"{TRAIN} {corpus}"


def _refuse_leaks(findings: Sequence[Finding]) -> None:
    """Raises InputError if training has an evaluation utterance and that is not allowed."""
    for item in findings:
        if item.code == "id_leak" and item.severity == Severity.ERROR:
            raise InputError(item.line())


def _check_shared(trained: Sequence[Corpus]) -> list[Finding]:
    """Returns the utterances of each training corpus that an earlier one has, too."""
    return [
        item
        for number, train in enumerate(trained)
        for item in find_shared(train.name, {one.name: check_leaks(one, train) for one in trained[:number]})
    ]


def _refuse_spoiled(train: Corpus, findings: Sequence[Finding], *, keeps_head: bool) -> None:
    """Raises InputError if too many characters or utterances of a training corpus cannot be learned."""
    advice = "; --mode=doctor lists them all"
    which = train.name.removeprefix(TRAIN)  # " NAME" of one of several corpora
    if train.labels.unknown_ratio > MAX_UNKNOWN_LABELS:
        raise InputError(
            f"{100 * train.labels.unknown_ratio:.1f} % of the characters of the training set{which} are not in the "
            f"vocabulary ({most_common_unknown(train.labels)}), at most {100 * MAX_UNKNOWN_LABELS:g} % can be learned "
            f"around: {choose_advice('unknown_characters', keeps_head=keeps_head)}{advice}"
        )
    spoiled = {
        key
        for item in findings
        if item.where == train.name and item.code in ("empty_text", "labels_do_not_fit")
        for key in item.details
    }
    total = len(train.source.utterance_ids)
    if len(spoiled) > MAX_SPOILED_UTTERANCES * total:
        raise InputError(
            f"{len(spoiled):,} of {total:,} training utterances{which and f' of{which}'} have no text or more labels "
            f"than frames, first {min(spoiled)}: are these the transcripts of this audio?{advice}"
        )
