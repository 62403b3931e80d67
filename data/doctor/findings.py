"""What the doctor can find: every kind of problem with its severity, its name and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple


class Severity(StrEnum):
    """How bad a problem is: an error must be mended, a warning looked at, a note known."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


class Check(NamedTuple):
    """One kind of problem.

    Attributes:
        severity: how bad it is.
        title: what is wrong, after "N utterances:".
        advice: what to do about it.
    """

    severity: Severity
    title: str
    advice: str


_E, _W, _N = Severity.ERROR, Severity.WARNING, Severity.NOTE

CHECKS: dict[str, Check] = {
    "unusable_corpus": Check(_E, "the corpus cannot be opened", "mend what the line says, then ask again"),
    "bad_record": Check(_E, "lines of the manifest that cannot be read", "mend the lines"),
    "missing_audio": Check(_E, "transcripts without audio", "fetch the files again, or remove the transcripts"),
    "missing_transcript": Check(
        _E, "audio without transcript", "add the transcripts, or list those alone that have one"
    ),
    "bad_segment": Check(
        _E, "segments that are not in their recordings", "give offset and duration in seconds, of the file named"
    ),
    "wrong_duration": Check(
        _W,
        "durations in the manifest that contradict the files",
        "see that the files are the right ones, and whole; a segment needs an offset; durations are seconds",
    ),
    "unlisted_audio": Check(
        _W, "audio files beside the manifest's that it does not list", "list them, or nothing if they are not meant"
    ),
    "duplicate_id": Check(_E, "ids that occur more than once", "give every utterance its own utterance_id"),
    "unreadable_audio": Check(
        _E, "audio that cannot be used", "do what is said of each: convert, fetch or make it again"
    ),
    "empty_audio": Check(_E, "audio without samples", "record again, or remove the utterances"),
    "damaged_shard": Check(_E, "shards that are not as they were written", "run python -m data.prepare again"),
    "wrong_rate": Check(
        _E,
        "audio with another rate than 16 kHz, which data.on_rate_mismatch refuses",
        "convert the files, or set --config.data.on_rate_mismatch=resample",
    ),
    "mixed_rates": Check(
        _W,
        "audio with another rate than the rest of the set",
        "see that they belong there: resampled telephone speech lacks the upper band",
    ),
    "resampled": Check(_N, "audio that is resampled to 16 kHz", "nothing, if the whole corpus is like that"),
    "silent_audio": Check(
        _E, "audio in which nothing is to be heard", "see that the right files are listed; leave the utterances out"
    ),
    "mostly_silent": Check(_W, "audio that is silent for the most part", "trim it, or check the transcripts"),
    "clipped_audio": Check(
        _W, "clipped audio", "listen; convert the originals again with less gain if there are any, else let it be"
    ),
    "cancelling_channels": Check(
        _W,
        "audio whose channels cancel each other, of which one alone is used",
        "nothing, if one channel is enough; else turn the sign of the other, or store the one that is meant",
    ),
    "too_short": Check(
        _W, "shorter than data.min_duration_secs and left out of training", "nothing, or lower the limit"
    ),
    "too_long": Check(
        _W, "longer than data.max_duration_secs and left out of training", "cut the audio, or raise the limit"
    ),
    "empty_text": Check(_E, "transcripts without text", "add the text, or remove the utterances"),
    "unknown_characters": Check(
        _E,
        "text with characters that are not in the vocabulary",
        "make a vocabulary with python -m data.vocab, choose data.text_style, or spell the words out",
    ),
    "rare_characters": Check(
        _W,
        "characters that the training set has once or twice, too rarely to be learned",
        "mend them where they are typing errors; else nothing, their words will be read wrong",
    ),
    "lost_digits": Check(
        _W, "text with digits, which the librispeech style drops", "spell the numbers out as they are spoken"
    ),
    "lost_symbols": Check(
        _W, "text with symbols that are spoken, which data.text_style drops", "spell them out as they are spoken"
    ),
    "markup": Check(
        _W,
        "text with markup in brackets, whose letters are trained as words",
        "take it out of the transcripts, or spell out what is spoken",
    ),
    "missing_cells": Check(
        _W, "text that is how programs write a missing cell", "add the text; nothing, if that is what is spoken"
    ),
    "line_breaks": Check(
        _W,
        "text of more than one line",
        "see that no quotation mark is left open in the table: it swallows the rows below it",
    ),
    "read_otherwise": Check(
        _N,
        "characters that data.text_style makes others of, or drops",
        "nothing, if the texts are to be read so; else write them otherwise, or choose another data.text_style",
    ),
    "unspaced_text": Check(
        _N,
        "text without spaces between words",
        "read the CER: a whole sentence counts as one word here, and any error in it makes its WER 100 %",
    ),
    "labels_do_not_fit": Check(
        _E,
        "labels that cannot fit the frames: CTC needs one for each label and one between equal neighbours",
        "check transcript and audio, or remove the utterances; training skips them",
    ),
    "labels_fit_slow_only": Check(
        _N,
        "labels that fit the frames only at the slower data.speed_factors",
        "nothing: rows at the others are skipped, and counted",
    ),
    "speaking_rate": Check(
        _W,
        "implausible speaking rates: three times faster or slower than the set, and far outside its spread",
        "listen: the transcript probably belongs to other audio, or one of them is cut",
    ),
    "unrelated_transcripts": Check(
        _E,
        "the lengths of the transcripts have nothing to do with those of the audio",
        "see whether the lists are shifted against each other",
    ),
    "duplicate_audio": Check(_W, "the same audio with the same text again", "keep one of each, or let it be"),
    "contradicting_transcripts": Check(
        _E, "the same audio with different transcripts", "find out which is right and remove the others"
    ),
    "id_leak": Check(
        _E,
        "evaluation utterances that are trained on (same id, same length)",
        "take them out of one of the two, or set --config.data.allow_leak if that is meant",
    ),
    "audio_leak": Check(
        _E,
        "evaluation utterances that are trained on (same audio, another id)",
        "take them out of one of the two, or set --config.data.allow_leak if that is meant",
    ),
    "shared_id": Check(_W, "ids that training has too, for other audio", "give every utterance an id of its own"),
    "speaker_leak": Check(
        _W,
        "evaluation speakers who are heard in training",
        "nothing, if known speakers are what you evaluate; else exclude them (data.train.exclude_speakers)",
    ),
    "memory": Check(
        _W,
        "the largest batch is predicted to need more memory than there is",
        "raise train.accum_steps, lower data.max_duration_secs or train.global_batch_size",
    ),
    "frozen_random": Check(_E, "frozen weights that nothing has trained", "set the fields that the line names"),
    "sampled": Check(
        _N,
        "utterances whose audio was not listened to",
        "raise --config.data.doctor_max_hours (0 = all) to look at every recording",
    ),
}
# What is no second problem where the first is known: of a recording that holds no speech, the speaking rate.
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
_SHOWN_DETAILS = 3


@dataclass(frozen=True)
class Finding:
    """One kind of problem in one set.

    Attributes:
        code: key of `CHECKS`.
        where: the set's name, such as "train".
        details: utterance id (or file, line, speaker, shard) -> what is wrong with it.
        severity: that of the check, unless a config says otherwise.
    """

    code: str
    where: str
    details: Mapping[str, str]
    severity: Severity

    @property
    def check(self) -> Check:
        return CHECKS[self.code]

    @property
    def count(self) -> int:
        return len(self.details)

    def line(self) -> str:
        """One line for a terminal: where, how many, what, the first of them, what to do."""
        shown = [f"{name} ({what})" if what else name for name, what in list(self.details.items())[:_SHOWN_DETAILS]]
        more = f" and {self.count - _SHOWN_DETAILS:,} more" if self.count > _SHOWN_DETAILS else ""
        names = " ".join(", ".join(shown).split())  # a file's name may hold line feeds
        return f"{self.where}: {self.count:,}: {self.check.title}: {names}{more}. To do: {self.check.advice}"


def find(code: str, where: str, details: Mapping[str, str]) -> list[Finding]:
    """A finding with the severity of its check; none where there is nothing to tell."""
    return [Finding(code, where, dict(details), CHECKS[code].severity)] if details else []


def allow(findings: Iterable[Finding], codes: Iterable[str]) -> list[Finding]:
    """The findings, with those of some codes turned into notes."""
    allowed = set(codes)
    return [replace(item, severity=Severity.NOTE) if item.code in allowed else item for item in findings]


def without_explained(findings: Iterable[Finding]) -> list[Finding]:
    """The findings, less what `EXPLAINED_BY` says is only another look of the same problem."""
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
    """One finding for each kind and set, wherever its utterances were found out."""
    merged: dict[tuple[str, str], Finding] = {}
    for item in findings:
        before = merged.get((item.code, item.where))
        merged[item.code, item.where] = replace(item, details={**before.details, **item.details}) if before else item
    return list(merged.values())


def sort(findings: Iterable[Finding]) -> list[Finding]:
    """Errors first, then warnings, then notes; inside these in the order of `CHECKS`."""
    severities, codes = list(Severity), list(CHECKS)
    return sorted(findings, key=lambda item: (severities.index(item.severity), codes.index(item.code)))


def count(findings: Iterable[Finding], severity: Severity) -> int:
    """How many findings have a severity."""
    return sum(item.severity == severity for item in findings)
