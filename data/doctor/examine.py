"""Examines the data of a config before training, all of it or a sample.

`examine` runs every check; training itself runs only the cheap ones, in `data.doctor.text_checks`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from data.batches.corpora import FIRST
from data.batches.datasets import EvalData, TrainData
from data.corpus.unlisted_audio import unlisted_audio
from data.doctor import text_checks
from data.doctor.audio_checks import CLIPPED_RATIO, MIN_ACTIVE_RATIO, SILENT_PEAK, AudioStatistics, measure_audio
from data.doctor.cleaning import clean
from data.doctor.clips import collect_clips, collect_examples
from data.doctor.findings import AUDIO_OF, Finding, advise, allow, find, find_shared, merge, sort, without_explained
from data.doctor.opened_sets import DatasetSpec, OpenedSet, evaluation_sets, open_all, trained_sets
from data.doctor.preflight import LEAKS, TRAIN, check_corpus, check_leaks
from data.doctor.report import DoctorReport, Memory, SetStatistics
from data.doctor.sample import choose_utterances
from data.doctor.statistics import (
    MemoryFn,
    TimeFn,
    axis_ends,
    plan_statistics,
    predict_memory,
    predict_time,
    set_statistics,
    set_words,
    vocabulary_use,
)
from data.doctor.text_checks import Corpus, FramesFn
from data.doctor.transcript_scores import ScoreFn, check_transcripts
from data.text.tokenizer import CharTokenizer


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Options of the doctor: what it knows of the model, the machine and the config.

    Attributes:
        tokenizer: Tokenizer of the model.
        text_normalization: Normalization style of `normalize_transcript`.
        frames_fn: Returns the model's frames of rows of so many samples.
        memory_fn: Predicts the memory of a batch.
        time_fn: Predicts the training time.
        available_bytes: Memory of the machine or the device; None if unknown.
        speed_factors: Factors of the speed perturbation in training.
        min_duration_secs: Shortest utterance of training.
        max_duration_secs: Longest utterance of training; 0 = no limit.
        allow_train_eval_overlap: Allows evaluation utterances in training.
        max_hours: Limit of the audio to decode of each set; 0 = all. Beyond it, the sample is the same each time, and
            utterances that share length and text with another, possible duplicates, are added.
        num_workers: Number of threads that decode; None = one for each processor core.
        frozen_random: Message about frozen weights that nothing has trained; "" = none.
        device_faults: Messages about GPUs that TensorFlow cannot use.
        keeps_head: Whether training starts from a trained head, whose vocabulary the run must keep.
        score_fn: Scores transcripts against their audio with a trained model; None = no model.
        score_normalization: Normalization style of the texts of that model.
    """

    tokenizer: CharTokenizer
    text_normalization: str
    frames_fn: FramesFn
    memory_fn: MemoryFn = lambda rows, samples, training: None
    time_fn: TimeFn = lambda shapes, updates_per_epoch: None
    available_bytes: int | None = None
    speed_factors: Sequence[float] = (1.0,)
    min_duration_secs: float = 0.0
    max_duration_secs: float = 0.0
    allow_train_eval_overlap: bool = False
    max_hours: float = 0.0
    num_workers: int | None = None
    frozen_random: str = ""
    device_faults: Sequence[str] = ()
    keeps_head: bool = False
    score_fn: ScoreFn | None = None
    score_normalization: str = ""


def examine(*, sets: Sequence[DatasetSpec], **fields: Any) -> DoctorReport:
    """Examines the data of a config.

    Args:
        sets: The training corpora, whose name is empty, the first one first, and the evaluation sets.
        **fields: Fields of `DoctorOptions`.
    """
    options = DoctorOptions(**fields)
    tokenizer, text_normalization = options.tokenizer, options.text_normalization
    opened = open_all(sets)
    _measure_texts(opened, options)
    _measure_all(opened, options)
    _check_transcripts(opened, options)
    data = next((data for one in opened for _, data in one.data if isinstance(data, TrainData)), None)
    trained = _measure_training_texts(opened, data, options)
    memory = _predict_memory(opened, options)
    findings = _gather_findings(opened, options)
    if trained is not None and data is not None and data.made_vocab:
        findings += text_checks.check_rare_characters(trained, tokenizer)
    findings += _check_config(memory, options)
    findings = sort(without_explained(merge(advise(findings, keeps_head=options.keeps_head))))
    plan = plan_statistics(data.plan, options.frames_fn) if data else None
    spoken = [*([trained] if trained else []), *_corpora(evaluation_sets(opened))]
    return DoctorReport(
        findings=findings,
        sets=_gather_statistics(opened, options.frames_fn),
        plan=plan,
        vocabulary=vocabulary_use(spoken, tokenizer) if trained else None,
        memory=memory,
        words=set_words(spoken, text_normalization=text_normalization, trained=trained),
        time=predict_time(plan, options.time_fn) if plan else None,
        clips=collect_clips(findings, _corpora(opened)),
        texts=_find_texts(findings, _corpora(opened)),
        cleaned=clean(opened, findings),
        examples=collect_examples([(item.name or TRAIN, data) for item, data in _list_data(opened)]),
    )


def _measure_texts(opened: Sequence[OpenedSet], options: DoctorOptions) -> None:
    """Measures the texts of each set that could be opened, and checks what needs no audio."""
    for one in opened:
        if one.data:
            one.measure(
                tokenizer=options.tokenizer,
                text_normalization=options.text_normalization,
                speed_factors=options.speed_factors,
            )
            one.findings += [*_check_without_audio(one, options.frames_fn), *_check_limits(one, options)]


def _measure_training_texts(
    opened: Sequence[OpenedSet], data: TrainData | None, options: DoctorOptions
) -> Corpus | None:
    """Returns the texts of all training corpora together, None without any."""
    if data is None or len(data.corpora) == 1:
        return next(iter(_corpora(trained_sets(opened))), None)
    return Corpus.measure(
        TRAIN, data.source, tokenizer=options.tokenizer, text_normalization=options.text_normalization
    )


def _check_transcripts(opened: Sequence[OpenedSet], options: DoctorOptions) -> None:
    """Adds the transcripts that a trained model does not find in their audio; nothing without a model."""
    if options.score_fn is None:
        return
    for one in opened:
        if one.corpus and one.audio:
            one.findings += check_transcripts(one.corpus, one.audio, options.score_fn, options.score_normalization)


def _find_texts(findings: Sequence[Finding], corpora: Sequence[Corpus]) -> dict[tuple[str, str], str]:
    """Returns (set, utterance id) -> transcript of the utterances with findings on the page."""
    texts = {one.name: dict(zip(one.source.utterance_ids, one.source.texts, strict=True)) for one in corpora}
    shown = ((item.where, key) for item in findings for key in list(item.details)[: item.max_shown])
    return {(where, key): texts[where][key] for where, key in shown if key in texts.get(where, {})}


def _corpora(opened: Sequence[OpenedSet]) -> list[Corpus]:
    return [one.corpus for one in opened if one.corpus]


def _check_limits(one: OpenedSet, options: DoctorOptions) -> list[Finding]:
    if one.trained is None:
        return []
    return text_checks.check_durations(
        one.name,
        one.trained.left_out_secs,
        min_secs=options.min_duration_secs,
        max_secs=options.max_duration_secs,
    )


def _predict_memory(opened: Sequence[OpenedSet], options: DoctorOptions) -> list[Memory]:
    return [
        predict_memory(item.name, data.plan, item.rows_at_once, options.memory_fn, options.available_bytes)
        for item, data in _list_data(opened)
    ]


def _list_data(opened: Sequence[OpenedSet]) -> list[tuple[DatasetSpec, TrainData | EvalData]]:
    """Returns the data of each set; of training once, because its corpora have one plan and one augmentation."""
    return [(item, data) for one in opened for item, data in one.data if item.name or item.corpus == FIRST]


def _check_config(memory: Sequence[Memory], options: DoctorOptions) -> list[Finding]:
    """Returns the findings about the config and the machine."""
    return [
        *find("memory", "config", {item.what: item.describe() for item in memory if item.is_too_much}),
        *find("frozen_random", "config", {"model": options.frozen_random} if options.frozen_random else {}),
        *find("unused_gpu", "machine", {message: "" for message in options.device_faults}),
    ]


def _gather_findings(opened: Sequence[OpenedSet], options: DoctorOptions) -> list[Finding]:
    """Returns the findings of all sets, about their audio and about leaks between them too."""
    findings = [item for one in opened for item in one.findings]
    for one in opened:
        if one.corpus and one.audio:
            findings += _check_audio(one, one.corpus, one.audio)
    trained = trained_sets(opened)
    for one in evaluation_sets(opened):
        findings += [finding for train in trained for finding in _check_leaks(train, one)]
    for number, one in enumerate(trained):
        findings += find_shared(one.name, {earlier.name: _check_leaks(earlier, one) for earlier in trained[:number]})
    return allow(findings, LEAKS) if options.allow_train_eval_overlap else findings


def _gather_statistics(opened: Sequence[OpenedSet], frames_fn: FramesFn) -> list[SetStatistics]:
    ends = axis_ends(_corpora(opened))
    return [
        set_statistics(
            one.corpus,
            one.audio,
            fields=one.fields,
            frames_fn=frames_fn,
            num_left_out=0 if one.trained is None else one.trained.num_left_out,
            ends=ends,
        )
        for one in opened
        if one.corpus and one.audio
    ]


def _check_without_audio(one: OpenedSet, frames_fn: FramesFn) -> list[Finding]:
    assert one.corpus is not None
    unlisted = unlisted_audio(**{name: one.fields.get(name, "") for name in ("format", "input", "text_column")})
    return [
        *check_corpus(one.corpus, frames_fn),
        *text_checks.check_writing(one.corpus),
        *find("unlisted_audio", one.name, unlisted),
    ]


def _measure_all(opened: Sequence[OpenedSet], options: DoctorOptions) -> None:
    """Decodes and measures the recordings of each set, or a sample of them."""
    corpora = {number: one.corpus for number, one in enumerate(opened) if one.corpus}
    chosen = choose_utterances(corpora, options.text_normalization, options.max_hours)
    with tqdm(total=sum(map(len, chosen.values())), desc="listening", unit="utt", disable=None) as bar:
        for number, corpus in corpora.items():
            indices = chosen[number]
            opened[number].audio = measure_audio(
                corpus.source, indices, advance=bar.update, num_workers=options.num_workers
            )
            total, hours = len(corpus.secs), float(corpus.secs[indices].sum()) / 3600
            if len(indices) < total:
                what = f"{total - len(indices):,} of {total:,}; {hours:.1f} h were listened to"
                opened[number].findings += find("sampled", corpus.name, {"the others": what})


def _check_audio(one: OpenedSet, corpus: Corpus, audio: AudioStatistics) -> list[Finding]:
    """Returns unreadable, silent, clipped and repeated recordings."""
    silent = audio.peak < SILENT_PEAK
    quiet = ~silent & (audio.active_ratio < MIN_ACTIVE_RATIO)
    clipped = ~silent & (audio.clipped_ratio > CLIPPED_RATIO)
    position = {int(index): i for i, index in enumerate(audio.indices)}

    def tell(code: str, is_found: np.ndarray, what: Callable[[int], str]) -> list[Finding]:
        return corpus.find(code, audio.indices[is_found], lambda index: what(position[index]))

    return [
        *_check_readable(one, corpus, audio),
        *tell("silent_audio", silent, lambda i: _decibels(audio.peak[i])),
        *tell("mostly_silent", quiet, lambda i: f"{100 * audio.active_ratio[i]:.0f} % of it is sound"),
        *tell("cancelling_channels", audio.cancels, lambda i: ""),
        *tell("clipped_audio", clipped, lambda i: f"{100 * audio.clipped_ratio[i]:.1f} % of the samples"),
        *_check_repeated(one, corpus),
    ]


def _check_readable(one: OpenedSet, corpus: Corpus, audio: AudioStatistics) -> list[Finding]:
    if any(item.code == "damaged_shard" for item in one.findings):
        return []  # that finding names the shards already
    by_code: dict[str, dict[str, str]] = defaultdict(dict)
    for index, error in audio.errors.items():
        by_code[error.code or "unreadable_audio"][corpus.source.utterance_ids[index]] = str(error)
    return [item for code, details in by_code.items() for item in find(code, one.name, details)]


def _check_repeated(one: OpenedSet, corpus: Corpus) -> list[Finding]:
    ids, texts = corpus.source.utterance_ids, corpus.source.texts
    repeated: dict[str, str] = {}
    contradicting: dict[str, str] = {}
    for first, *others in _by_key(one).values():
        is_same = len({" ".join(texts[index].split()) for index in (first, *others)}) == 1
        for index in others:
            (repeated if is_same else contradicting)[ids[index]] = f"{AUDIO_OF}{ids[first]}"
    return [
        *find("duplicate_audio", one.name, repeated),
        *find("contradicting_transcripts", one.name, contradicting),
    ]


def _check_leaks(train: OpenedSet, one: OpenedSet) -> list[Finding]:
    assert train.corpus is not None and one.corpus is not None
    ids, train_ids = one.corpus.source.utterance_ids, train.corpus.source.utterance_ids
    trained = _by_key(train)
    heard = {
        ids[index]: f"{AUDIO_OF}{train_ids[trained[key][0]]}"
        for key, places in _by_key(one).items()
        if key in trained
        for index in places
    }
    return check_leaks(train.corpus, one.corpus, same_audio=heard)


def _by_key(one: OpenedSet) -> dict[bytes, list[int]]:
    """Maps content keys to utterances; silent recordings are excluded."""
    places: dict[bytes, list[int]] = defaultdict(list)
    if one.audio is not None:
        for index, key, peak in zip(one.audio.indices.tolist(), one.audio.keys, one.audio.peak, strict=True):
            if key and peak >= SILENT_PEAK:
                places[key].append(index)
    return places


def _decibels(magnitude: float) -> str:
    return f"peak at {20 * np.log10(magnitude):.0f} dB of full scale" if magnitude > 0 else "no signal"
