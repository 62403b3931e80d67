"""Defines every kind of finding with its severity, its title and the advice for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """Severity of a finding: fix an error, check a warning, know a note."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Check(NamedTuple):
    """One kind of finding.

    Attributes:
        severity: Default severity.
        title: What is wrong; it follows "N:" in messages.
        advice: What to do; it follows "To do:".
    """

    severity: Severity
    title: str
    advice: str


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

SUSPECT = "suspect_transcript"
# Stands in a detail before the id of the utterance that has the same audio.
AUDIO_OF = "the audio of "

CHECKS: dict[str, Check] = {
    "unusable_corpus": Check(_E, "the corpus cannot be opened", "fix what the line says and run the doctor again"),
    "bad_record": Check(_E, "lines of the manifest that cannot be read", "fix the lines"),
    "missing_audio": Check(_E, "transcripts without audio", "fetch the files again, or remove the transcripts"),
    "missing_transcript": Check(
        _E, "audio without transcript", "add the transcripts, or list only files that have one"
    ),
    "bad_segment": Check(
        _E, "segments outside their recordings", "give offset and duration in seconds within the named file"
    ),
    "wrong_duration": Check(
        _W,
        "durations in the manifest that differ from the files",
        "check that the files are the right ones and complete; a segment needs an offset; durations are in seconds",
    ),
    "unlisted_audio": Check(
        _W,
        "audio files beside the manifest that it does not list",
        "list them; nothing if they are not part of the set",
    ),
    "duplicate_id": Check(_E, "ids that occur more than once", "give every utterance its own utterance_id"),
    "unreadable_audio": Check(
        _E, "audio that cannot be used", "convert each file or fetch it again, as its message says"
    ),
    "empty_audio": Check(_E, "audio without samples", "record it again, or remove the utterances"),
    "damaged_shard": Check(_E, "shards that have changed since they were written", "run python -m data.prepare again"),
    "wrong_rate": Check(
        _E,
        "audio with another rate than 16 kHz, which data.on_rate_mismatch refuses",
        "convert the files, or set --config.data.on_rate_mismatch=resample",
    ),
    "mixed_rates": Check(
        _W,
        "audio with another rate than the rest of the set",
        "check that they belong to the set: resampled telephone speech lacks the upper band",
    ),
    "resampled": Check(_N, "audio that is resampled to 16 kHz", "nothing if the whole corpus has this rate"),
    "silent_audio": Check(_E, "silent audio", "check that the right files are listed, or remove the utterances"),
    "mostly_silent": Check(_W, "audio that is mostly silent", "trim it, or check the transcripts"),
    "clipped_audio": Check(_W, "clipped audio", "listen; convert the originals again with less gain if you have them"),
    "cancelling_channels": Check(
        _W,
        "audio whose channels cancel each other, so that only one of them is used",
        "nothing if one channel is enough; else invert the other channel, or store only the right one",
    ),
    "too_short": Check(
        _W,
        "shorter than data.min_duration_secs and left out of training",
        "lower the limit if they should be trained on",
    ),
    "too_long": Check(
        _W, "longer than data.max_duration_secs and left out of training", "cut the audio, or raise the limit"
    ),
    "empty_text": Check(_E, "transcripts without text", "add the text, or remove the utterances"),
    "unknown_characters": Check(
        _E,
        "text with characters that are not in the vocabulary",
        "make a vocabulary with python -m data.vocab, choose data.text_normalization, or spell the words out",
    ),
    "rare_characters": Check(
        _W,
        "characters that occur once or twice in the training set, too rarely to be learned",
        "correct typing errors; words with the other characters will be recognized wrong",
    ),
    "lost_digits": Check(
        _W,
        "text with digits, which the librispeech style drops",
        "spell out the numbers as they are spoken, or let num2words do it: "
        "--config.data.text_normalization=librispeech+numbers (pip install -e '.[numbers]')",
    ),
    "lost_symbols": Check(
        _W, "text with spoken symbols, which data.text_normalization drops", "spell them out as they are spoken"
    ),
    "markup": Check(
        _W,
        "text with markup in brackets, which is trained as if it were spoken",
        "drop it with +drop_markup behind data.text_normalization (+drop_markup=<>[] for these brackets alone), or "
        "spell out what is spoken",
    ),
    "dropped_markup": Check(
        _N, "markup that data.text_normalization drops", "nothing if nobody speaks it; else name other brackets"
    ),
    "kept_digits": Check(
        _N,
        "text with digits, which are characters of their own in this style",
        "nothing if the model shall write digits; else let num2words spell the numbers out: +language=CODE+numbers "
        "behind data.text_normalization (pip install -e '.[numbers]')",
    ),
    "missing_cells": Check(
        _W, "text that programs write for a missing cell", "add the text; nothing if it is really spoken"
    ),
    "line_breaks": Check(
        _W,
        "text of more than one line",
        "check the table for an open quotation mark, which swallows the rows below it",
    ),
    "read_otherwise": Check(
        _N,
        "characters that data.text_normalization replaces or drops",
        "nothing if that is intended; else change the texts, or choose another data.text_normalization",
    ),
    "unspaced_text": Check(
        _N,
        "text without spaces between words",
        "read the CER, by which eval.best_metric=auto decides: a whole sentence counts as one word, and any error in "
        "it makes its WER 100 %",
    ),
    "labels_do_not_fit": Check(
        _E,
        "labels that do not fit the frames: CTC needs one for each label and one between equal neighbors",
        "check transcript and audio, or remove the utterances; training skips them",
    ),
    "labels_fit_slow_only": Check(
        _N,
        "labels that fit the frames only at the slower data.speed_factors",
        "nothing: rows at the other factors are skipped and counted",
    ),
    "speaking_rate": Check(
        _W,
        "implausible speaking rates: three times faster or slower than the set, and far outside its spread",
        "listen: the transcript probably belongs to other audio, or one of the two is cut",
    ),
    SUSPECT: Check(
        _W,
        "transcripts that the model of --checkpoint does not find in their audio, worst first",
        "listen in doctor.html and mark the wrong ones there; python -m data.apply_corrections merges the marks",
    ),
    "unrelated_transcripts": Check(
        _E,
        "the lengths of the transcripts are unrelated to those of the audio",
        "check whether the lists are shifted against each other",
    ),
    "duplicate_audio": Check(
        _W, "repeated audio with the same text", "keep one of each, unless the repetition is intended"
    ),
    "contradicting_transcripts": Check(
        _E, "repeated audio with different transcripts", "keep the right one and remove the others"
    ),
    "overlapping_segments": Check(
        _W,
        "segments that overlap with another one of the same recording",
        "check their starts and ends; nothing if people speak at the same time, or if the overlap is intended",
    ),
    "slow_segments": Check(
        _W,
        "segments of an MP3, an M4A or a video, which is decoded from its beginning for each of them",
        "convert long recordings to FLAC or WAV, or pack the corpus with python -m data.prepare",
    ),
    "id_leak": Check(
        _E,
        "evaluation utterances that are trained on (same id, same length)",
        "remove them from one of the two, or set --config.data.allow_train_eval_overlap if that is intended",
    ),
    "audio_leak": Check(
        _E,
        "evaluation utterances that are trained on (same audio, another id)",
        "remove them from one of the two, or set --config.data.allow_train_eval_overlap if that is intended",
    ),
    "segment_leak": Check(
        _E,
        "evaluation utterances of which a part is trained on (same recording, overlapping segments)",
        "remove them from one of the two, or set --config.data.allow_train_eval_overlap if that is intended",
    ),
    "shared_utterances": Check(
        _W,
        "utterances that an earlier training corpus has, too",
        "remove them from one of the two; to hear a corpus more often, raise its weight",
    ),
    "shared_id": Check(_W, "ids that training uses for other audio", "give every utterance its own id"),
    "speaker_leak": Check(
        _W,
        "evaluation speakers who are also in training",
        "nothing if you evaluate known speakers; else exclude them (data.train.exclude_speakers)",
    ),
    "memory": Check(
        _W,
        "the largest batch is predicted to need more memory than is available",
        "lower train.microbatch_rows (or train.microbatch_secs), set model.gradient_checkpointing, or lower "
        "data.max_duration_secs",
    ),
    "unused_gpu": Check(_W, "GPUs that TensorFlow cannot use", "do what the line says, or expect the speed of a CPU"),
    "frozen_random": Check(_E, "frozen weights that nothing has trained", "set the fields that the line names"),
    "sampled": Check(
        _N,
        "utterances whose audio was not decoded",
        "raise --config.data.doctor_max_hours (0 = all) to check every recording",
    ),
}
# Findings that only repeat another one: a recording without speech also has an odd speaking rate.
EXPLAINED_BY = {
    "speaking_rate": (
        "labels_do_not_fit",
        "labels_fit_slow_only",
        "silent_audio",
        "mostly_silent",
        "unreadable_audio",
        "contradicting_transcripts",
        "wrong_duration",
    ),
    "unlisted_audio": ("missing_transcript",),
}
# What the checks of two sets find of utterances that are in both.
_SHARED = ("id_leak", "audio_leak", "segment_leak")
_SHOWN_DETAILS = 3
# Utterances of a finding on the page; doctor.json has them all. Suspect transcripts are there to be corrected.
_ON_PAGE, _SUSPECTS_ON_PAGE = 200, 2_000
# Replaces the advice to make a new vocabulary: the rows of the head belong to the old one.
_ADVICE_FOR_KEPT_HEAD = (
    "model.init_head=True keeps the head of model.init, and with it its vocabulary: choose data.text_normalization so "
    "that the texts use its characters, or spell the words out with them; for other characters train a new head, "
    "--config.model.init_head=False with a vocabulary of these texts (python -m data.vocab)"
)


@dataclass(frozen=True)
class Finding:
    """All findings of one kind in one set.

    Attributes:
        code: Key of `CHECKS`.
        where: Name of the set, such as "train".
        details: Utterance id (or file, line, speaker, shard) -> what is wrong with it.
        severity: Severity of the check, unless a config changes it.
        advice: Advice of the check, unless a config changes it.
    """

    code: str
    where: str
    details: Mapping[str, str]
    severity: Severity
    advice: str

    @property
    def check(self) -> Check:
        """Returns the kind of the finding."""
        return CHECKS[self.code]

    @property
    def count(self) -> int:
        """Returns the number of utterances, files or lines."""
        return len(self.details)

    @property
    def max_shown(self) -> int:
        """Returns how many of the utterances, files or lines are on the page."""
        return _SUSPECTS_ON_PAGE if self.code == SUSPECT else _ON_PAGE

    def line(self) -> str:
        """Returns one line for a terminal: set, number, title, the first details and the advice."""
        shown = [f"{name} ({what})" if what else name for name, what in list(self.details.items())[:_SHOWN_DETAILS]]
        more = f" and {self.count - _SHOWN_DETAILS:,} more" if self.count > _SHOWN_DETAILS else ""
        names = " ".join(", ".join(shown).split())  # a file name may contain line feeds
        return f"{self.where}: {self.count:,}: {self.check.title}: {names}{more}. To do: {self.advice}"


def find(code: str, where: str, details: Mapping[str, str]) -> list[Finding]:
    """Returns a finding with the severity and the advice of its check; [] without details."""
    check = CHECKS[code]
    return [Finding(code, where, dict(details), check.severity, check.advice)] if details else []


def choose_advice(code: str, *, keeps_head: bool) -> str:
    """Returns what to do about the findings of a check.

    Args:
        code: Key of `CHECKS`.
        keeps_head: Whether training starts from a trained head, whose vocabulary the run must keep.
    """
    return _ADVICE_FOR_KEPT_HEAD if keeps_head and code == "unknown_characters" else CHECKS[code].advice


def advise(findings: Iterable[Finding], *, keeps_head: bool) -> list[Finding]:
    """Returns the findings with the advice of `choose_advice`."""
    return [replace(item, advice=choose_advice(item.code, keeps_head=keeps_head)) for item in findings]


def allow(findings: Iterable[Finding], codes: Iterable[str]) -> list[Finding]:
    """Returns the findings, with those of some codes turned into notes."""
    allowed = set(codes)
    return [replace(item, severity=Severity.NOTE) if item.code in allowed else item for item in findings]


def without_explained(findings: Iterable[Finding]) -> list[Finding]:
    """Returns the findings without those that another one explains, according to `EXPLAINED_BY`."""
    findings = list(findings)
    left = []
    for item in findings:
        causes = EXPLAINED_BY.get(item.code, ())
        found = [cause for cause in findings if cause.where == item.where and cause.code in causes]
        known = {key for cause in found for key in cause.details}
        details = {key: what for key, what in item.details.items() if key not in known}
        if details:
            left.append(replace(item, details=details))
    return left


def merge(findings: Iterable[Finding]) -> list[Finding]:
    """Joins findings of the same kind and set."""
    merged: dict[tuple[str, str], Finding] = {}
    for item in findings:
        before = merged.get((item.code, item.where))
        merged[item.code, item.where] = replace(item, details={**before.details, **item.details}) if before else item
    return list(merged.values())


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """Sorts errors first, then warnings, then notes; each in the order of `CHECKS`."""
    severities, codes = list(Severity), list(CHECKS)
    return sorted(findings, key=lambda item: (severities.index(item.severity), codes.index(item.code)))


def count(findings: Iterable[Finding], severity: Severity) -> int:
    """Counts the findings of a severity."""
    return sum(item.severity == severity for item in findings)


def find_shared(where: str, leaks: Mapping[str, Iterable[Finding]]) -> list[Finding]:
    """Returns one finding with the utterances of a training corpus that earlier ones have, too.

    Args:
        where: Name of the corpus.
        leaks: Name of each earlier corpus -> what the checks for leaks find between the two.
    """
    details: dict[str, str] = {}
    for train, found in leaks.items():
        for item in found:
            for key, what in item.details.items() if item.code in _SHARED else ():
                details.setdefault(key, f"in {train}: {what}")
    return find("shared_utterances", where, details)
