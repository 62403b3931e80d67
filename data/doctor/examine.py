"""The doctor: reads a config's data before step 0, all of it or a sample, and says what is wrong with it.

`examine` is the whole of it; the cheap checks (`data.doctor.text_checks`) are those that training runs by itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from data.batches.datasets import EvalData, TrainData
from data.corpus.faults import Fault, Report
from data.corpus.unlisted_audio import unlisted_audio
from data.doctor import text_checks
from data.doctor.audio_checks import CLIPPED_SHARE, MIN_ACTIVE_SHARE, SILENT_PEAK, Sounds, listen
from data.doctor.examination import Examination
from data.doctor.findings import Finding, allow, find, merge, sort, without_explained
from data.doctor.preflight import LEAKS
from data.doctor.statistics import MemoryFn, plan_figures, predict_memory, set_figures, vocabulary
from data.doctor.text_checks import Corpus, FramesFn
from data.shards.index import verify_shards
from data.text.tokenizer import CharTokenizer, normalize_transcript

TRAIN = "train"


@dataclass(frozen=True)
class SetToExamine:
    """One set of a config.

    Attributes:
        name: "" for the training set, else the evaluation set's.
        fields: format, input, split, speakers, exclude_speakers, held_out_ratio.
        build: opens it; the report hears of faults.
        num_parts: microbatches of an update, over all replicas.
    """

    name: str
    fields: Mapping[str, Any]
    build: Callable[[Report], TrainData | EvalData]
    num_parts: int

    @property
    def utterances_key(self) -> tuple[str, ...]:
        """Equal where two evaluation sets hold the same utterances."""
        names = ("format", "input", "split", "speakers", "exclude_speakers", "held_out_ratio")
        return (str(not self.name), *(str(self.fields.get(name, "")) for name in names))


@dataclass
class _Opened:
    """A set, or several over the same utterances, on its way through the checks."""

    name: str
    fields: Mapping[str, Any]
    data: list[tuple[SetToExamine, TrainData | EvalData]] = field(default_factory=list)
    corpus: Corpus | None = None
    sounds: Sounds | None = None
    findings: list[Finding] = field(default_factory=list)


def examine(
    *,
    sets: Sequence[SetToExamine],
    tokenizer: CharTokenizer,
    text_style: str,
    frames_fn: FramesFn,
    memory_fn: MemoryFn = lambda rows, samples, training: None,
    available_bytes: int | None = None,
    speed_factors: Sequence[float] = (1.0,),
    min_duration_secs: float = 0.0,
    max_duration_secs: float = 0.0,
    allow_leak: bool = False,
    max_hours: float = 0.0,
    num_workers: int | None = None,
    frozen_random: str = "",
) -> Examination:
    """Examines the data of a config.

    Args:
        sets: The training set (its name is empty) and the evaluation sets.
        tokenizer: Of the model.
        text_style: `normalize_transcript`'s style.
        frames_fn: The model's frames of so many samples.
        memory_fn: Predicts the memory of a batch.
        available_bytes: Of the machine or the device; None where unknown.
        speed_factors: Of training.
        min_duration_secs: Of training.
        max_duration_secs: Of training; 0 = no limit.
        allow_leak: Lets evaluation utterances be in training.
        max_hours: Of audio to decode of each set; 0 = all. Beyond, the same random sample each time, and with it the
            utterances that share length and text with another: possible duplicates.
        num_workers: Threads that decode; None takes one a processor core.
        frozen_random: What the config freezes that nothing has trained, and what to set; "" = nothing.
    """
    opened = _open_all(sets)
    for one in opened:
        if one.data:
            item, data = one.data[0]
            one.corpus = Corpus.measure(
                one.name,
                data.source,
                tokenizer=tokenizer,
                text_style=text_style,
                speed_factors=(1.0,) if item.name else speed_factors,
            )
            one.findings += _check_without_audio(one, tokenizer, frames_fn)
            if isinstance(data, TrainData):
                limits = {"min_secs": min_duration_secs, "max_secs": max_duration_secs}
                one.findings += text_checks.check_durations(one.name, data.left_out_secs, **limits)
    _listen_all(opened, text_style=text_style, max_hours=max_hours, num_workers=num_workers)
    train = next((one for one in opened if one.name == TRAIN and one.corpus), None)
    findings = [item for one in opened for item in one.findings]
    for one in opened:
        if one.corpus and one.sounds:
            findings += _check_sounds(one, one.corpus, one.sounds)
        if train and one.corpus and one is not train:
            findings += _check_leaks(train, one)
    memory = [
        predict_memory(item.name, data.plan, item.num_parts, memory_fn, available_bytes)
        for one in opened
        for item, data in one.data
    ]
    findings += find("memory", "config", {item.what: item.describe() for item in memory if item.is_too_much})
    findings += find("frozen_random", "config", {"model": frozen_random} if frozen_random else {})
    findings = without_explained(merge(allow(findings, LEAKS) if allow_leak else findings))
    return Examination(
        findings=sort(findings),
        sets=[
            set_figures(
                one.corpus,
                one.sounds,
                fields=one.fields,
                frames_fn=frames_fn,
                num_left_out=getattr(one.data[0][1], "num_left_out", 0),
            )
            for one in opened
            if one.corpus and one.sounds
        ],
        plan=plan_figures(train.data[0][1].plan, frames_fn) if train else None,
        vocabulary=vocabulary([one.corpus for one in opened if one.corpus], tokenizer) if train else None,
        memory=memory,
    )


def _check_without_audio(one: _Opened, tokenizer: CharTokenizer, frames_fn: FramesFn) -> list[Finding]:
    assert one.corpus is not None
    unlisted = unlisted_audio(format=one.fields["format"], input=one.fields["input"])
    return [
        *text_checks.check_texts(one.corpus),
        *text_checks.check_writing(one.corpus),
        *(
            text_checks.check_rare_characters(one.corpus, tokenizer)
            if getattr(one.data[0][1], "made_vocab", False)
            else ()
        ),
        *text_checks.check_listed_durations(one.corpus),
        *text_checks.check_fit(one.corpus, frames_fn),
        *text_checks.check_sample_rates(one.corpus),
        *text_checks.check_speaking_rates(one.corpus),
        *find("unlisted_audio", one.name, unlisted),
    ]


def _open_all(sets: Sequence[SetToExamine]) -> list[_Opened]:
    """Opens every set past its faults; evaluation sets over the same utterances become one."""
    groups: dict[tuple[str, ...], list[SetToExamine]] = defaultdict(list)
    for item in sets:
        groups[item.utterances_key].append(item)
    opened: list[_Opened] = []
    told: set[tuple[str, ...]] = set()  # a bad line of a manifest that several sets share is one problem
    for group in groups.values():
        fields = group[0].fields
        name = f"eval {', '.join(item.name for item in group)}" if group[0].name else TRAIN
        one = _Opened(name, fields)
        opened.append(one)
        for item in group:
            faults: list[Fault] = []
            try:
                one.data.append((item, item.build(faults.append)))
            except (ValueError, OSError) as error:
                one.findings += find("unusable_corpus", one.name, {item.name or TRAIN: " ".join(str(error).split())})
            for fault in faults if item is group[0] else ():
                place = (fault.code, str(fields["input"]), str(fields.get("split", "")))
                details = {key: what for key, what in fault.details.items() if (*place, key) not in told}
                told |= {(*place, key) for key in details}
                one.findings += find(fault.code, one.name, details)
        if fields["format"] == "tfrecord" and one.data:
            one.findings = [finding for finding in one.findings if finding.code != "damaged_shard"]
            damaged = verify_shards(fields["input"], split=fields.get("split", ""))
            one.findings += find("damaged_shard", one.name, damaged)
    return opened


def _listen_all(opened: Sequence[_Opened], *, text_style: str, max_hours: float, num_workers: int | None) -> None:
    corpora = {number: one.corpus for number, one in enumerate(opened) if one.corpus}
    chosen = _choose(corpora, text_style, max_hours)
    with tqdm(total=sum(map(len, chosen.values())), desc="listening", unit="utt", disable=None) as bar:
        for number, corpus in corpora.items():
            indices = chosen[number]
            opened[number].sounds = listen(corpus.source, indices, advance=bar.update, num_workers=num_workers)
            total, hours = len(corpus.secs), float(corpus.secs[indices].sum()) / 3600
            if len(indices) < total:
                what = f"{total - len(indices):,} of {total:,}; {hours:.1f} h were listened to"
                opened[number].findings += find("sampled", corpus.name, {"the others": what})


def _choose(corpora: Mapping[int, Corpus], text_style: str, max_hours: float) -> dict[int, np.ndarray]:
    """Which utterances of each set to decode, int64, rising."""
    chosen: dict[int, np.ndarray] = {}
    for number, corpus in corpora.items():
        order = np.arange(len(corpus.secs))
        if max_hours and corpus.secs.sum() > max_hours * 3600:
            order = np.argsort(np.random.Philox(0).random_raw(len(order)), kind="stable")
            order = order[: max(1, int(np.searchsorted(np.cumsum(corpus.secs[order]), max_hours * 3600)))]
        chosen[number] = np.sort(order)
    if all(len(chosen[number]) == len(corpus.secs) for number, corpus in corpora.items()):
        return chosen
    # The same length and the same text: most of what is in there twice, and little else.
    alike: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for number, corpus in corpora.items():
        for index, text in enumerate(corpus.source.texts):
            key = int(corpus.source.num_samples[index]), normalize_transcript(text, text_style)
            alike[key].append((number, index))
    more: dict[int, list[int]] = defaultdict(list)
    for places in alike.values():
        for number, index in places if len(places) > 1 else ():
            more[number].append(index)
    return {number: np.union1d(found, np.array(more[number], dtype=np.int64)) for number, found in chosen.items()}


def _check_sounds(one: _Opened, corpus: Corpus, sounds: Sounds) -> list[Finding]:
    """What is to be heard: unreadable, silent, clipped and repeated recordings."""
    ids = corpus.source.utterance_ids
    findings: list[Finding] = []
    by_code: dict[str, dict[str, str]] = defaultdict(dict)
    for index, error in sounds.errors.items():
        by_code[error.code or "unreadable_audio"][ids[index]] = str(error)
    if any(item.code == "damaged_shard" for item in one.findings):
        by_code.clear()  # the shards are named already
    for code, details in by_code.items():
        findings += find(code, one.name, details)

    silent = sounds.peak < SILENT_PEAK
    quiet = ~silent & (sounds.active_share < MIN_ACTIVE_SHARE)
    clipped = ~silent & (sounds.clipped_share > CLIPPED_SHARE)
    position = {int(index): i for i, index in enumerate(sounds.indices)}

    def tell(code: str, is_found: np.ndarray, what: Callable[[int], str]) -> list[Finding]:
        return corpus.find(code, sounds.indices[is_found], lambda index: what(position[index]))

    findings += tell("silent_audio", silent, lambda i: _decibels(sounds.peak[i]))
    findings += tell("mostly_silent", quiet, lambda i: f"{100 * sounds.active_share[i]:.0f} % of it is sound")
    findings += tell("cancelling_channels", sounds.cancels, lambda i: "")
    findings += tell("clipped_audio", clipped, lambda i: f"{100 * sounds.clipped_share[i]:.1f} % of the samples")
    repeated, contradicting = {}, {}
    for places in _by_key(one).values():
        texts = {" ".join(corpus.source.texts[index].split()) for index in places}
        for index in places[1:] if len(places) > 1 else ():
            if len(texts) > 1:
                contradicting[ids[index]] = f"the audio of {ids[places[0]]}"
            else:
                repeated[ids[index]] = f"the audio of {ids[places[0]]}"
    findings += find("duplicate_audio", one.name, repeated)
    return findings + find("contradicting_transcripts", one.name, contradicting)


def _check_leaks(train: _Opened, one: _Opened) -> list[Finding]:
    assert train.corpus is not None and one.corpus is not None
    findings = text_checks.check_ids(train.corpus, one.corpus)
    leaked = {key for item in findings if item.code == "id_leak" for key in item.details}
    trained = {key: places[0] for key, places in _by_key(train).items()}
    heard = {
        one.corpus.source.utterance_ids[index]: f"the audio of {train.corpus.source.utterance_ids[trained[key]]}"
        for key, places in _by_key(one).items()
        for index in places
        if key in trained
    }
    heard = {key: what for key, what in heard.items() if key not in leaked}
    findings += find("audio_leak", one.name, heard)
    return findings + text_checks.check_speakers(train.corpus, one.corpus, leaked | heard.keys())


def _by_key(one: _Opened) -> dict[bytes, list[int]]:
    """Content key -> utterances, of recordings that hold something."""
    places: dict[bytes, list[int]] = defaultdict(list)
    if one.sounds is not None:
        for index, key, peak in zip(one.sounds.indices.tolist(), one.sounds.keys, one.sounds.peak, strict=True):
            if key and peak >= SILENT_PEAK:
                places[key].append(index)
    return places


def _decibels(magnitude: float) -> str:
    return f"peak at {20 * np.log10(magnitude):.0f} dB of full scale" if magnitude > 0 else "no signal"
