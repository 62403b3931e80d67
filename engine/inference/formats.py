"""Transcripts as files: JSON-lines, tab-separated values, plain text, SubRip and WebVTT subtitles."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.common import files
from engine.inference.words import Timed

if TYPE_CHECKING:  # it imports TensorFlow
    from engine.inference.transcriber import Transcript

TSV_COLUMNS = ("audio_filepath", "start", "end", "confidence", "text")

# What subtitle guidelines ask for: two lines of 42 characters, seven seconds, a new cue after a pause.
_LINE_CHARACTERS = 42
_CUE_SECS = 7.0
_PAUSE_SECS = 0.8
_SHORTEST_CUE_SECS = 0.5


def transcript_record(transcript: Transcript, name: str) -> dict[str, Any]:
    """Returns the object of one recording, without its words.

    Args:
        transcript: The recognized words and their scores.
        name: Name of the recording, for whoever reads the object.
    """
    record: dict[str, Any] = {
        "audio_filepath": name,
        "text": transcript.text,
        "duration": round(transcript.duration_secs, 4),
        "confidence": round(transcript.confidence, 4),
    }
    if transcript.alternatives:
        record["nbest"] = [{"text": other.text, "score": round(other.score, 4)} for other in transcript.alternatives]
    return record


def add_words(record: dict[str, Any], words: Sequence[Timed]) -> dict[str, Any]:
    """Returns the whole object of one recording: its record, and each word with times and confidence."""
    return {**record, "words": [word.to_dict() for word in words]}


def format_transcript(record: dict[str, Any], words: Sequence[Timed], *, format: str) -> str:
    """Returns the transcript of one recording as text.

    Args:
        record: The object of the recording, as `transcript_record` returns it.
        words: Its words.
        format: "json", "txt", "srt" or "vtt".
    """
    if format == "json":
        return json.dumps(add_words(record, words), ensure_ascii=False)
    if format == "txt":
        return f"{record['text']}\n"
    return subtitles(words, format=format)


def write_transcripts(
    output: str | os.PathLike[str],
    *,
    format: str,
    records: Sequence[dict[str, Any]],
    words: Sequence[Sequence[Timed]],
    targets: Sequence[str] = (),
) -> None:
    """Writes transcripts, each file atomically.

    Args:
        output: File; for subtitles it is not used, `targets` says where they go.
        format: One of `engine.config.output_formats.TRANSCRIPT_FORMATS`.
        records: An object for each recording, with audio_filepath, text, duration and confidence.
        words: The words of each.
        targets: The file of each recording's subtitles, as `subtitle_paths` returns them.
    """
    if format == "jsonl":
        files.write_jsonl_atomic(
            output, [add_words(record, found) for record, found in zip(records, words, strict=True)]
        )
    elif format == "tsv":
        files.write_text_atomic(output, _tsv(records, words))
    elif format == "txt":
        lines = [format_transcript(record, found, format="txt") for record, found in zip(records, words, strict=True)]
        files.write_text_atomic(output, "".join(lines))
    else:
        for target, found in zip(targets, words, strict=True):
            files.write_text_atomic(target, subtitles(found, format=format))


def subtitle_paths(output: str, paths: Sequence[str], *, format: str) -> list[str]:
    """Returns the subtitle file of each recording.

    Args:
        output: File for one recording; folder for several, or if it is one.
        paths: The recordings.
        format: Ending of the files.

    Raises:
        ValueError: Two recordings would have the same file.
    """
    is_folder = os.path.isdir(output) or output.endswith(os.sep) or not output.lower().endswith(f".{format}")
    if len(paths) == 1 and not is_folder:
        return [output]
    if not is_folder:
        raise ValueError(f"--output={output}: {len(paths)} recordings need a folder for their .{format} files")
    found: dict[str, str] = {}
    for path in paths:
        target = os.path.join(output, f"{Path(path).stem}.{format}")
        if target in found:
            raise ValueError(f"{found[target]} and {path} would both be written to {target}; transcribe them apart")
        found[target] = path
    return list(found)


def subtitles(words: Sequence[Timed], *, format: str) -> str:
    """Returns the words as the text of a subtitle file, "srt" or "vtt"."""
    cues = split_cues(words)
    timed = []
    for number, cue in enumerate(cues, start=1):
        # A word of one frame would flash: it stays until it can be read, or the next cue comes.
        end_secs = max(cue[-1].end_secs, cue[0].start_secs + _SHORTEST_CUE_SECS)
        if number < len(cues):
            end_secs = min(end_secs, cues[number][0].start_secs)
        timed.append((cue[0].start_secs, end_secs, _wrap([_escape(word.text, format) for word in cue])))
    return _format_cues(timed, format)


def subtitles_of_texts(texts: Sequence[Timed], *, format: str) -> str:
    """Returns texts, a cue each, as the text of a subtitle file, "srt" or "vtt"."""
    return _format_cues([(one.start_secs, one.end_secs, [_escape(one.text, format)]) for one in texts], format)


def _format_cues(cues: Sequence[tuple[float, float, Sequence[str]]], format: str) -> str:
    """Returns cues, each with its start, its end and its lines, as the text of a file."""
    lines = ["WEBVTT", ""] if format == "vtt" else []
    for number, (start_secs, end_secs, text) in enumerate(cues, start=1):
        if format == "srt":
            lines.append(str(number))
        lines += [f"{_clock(start_secs, format)} --> {_clock(end_secs, format)}", *text, ""]
    return "".join(f"{line}\n" for line in lines)


def split_cues(words: Sequence[Timed]) -> list[list[Timed]]:
    """Groups words to cues: two lines at most, seven seconds at most, a new one after a pause."""
    cues: list[list[Timed]] = []
    for word in words:
        if cues:
            cue = cues[-1]
            lines = _wrap([other.text for other in (*cue, word)])
            if (
                max(map(len, lines)) <= _LINE_CHARACTERS
                and word.end_secs - cue[0].start_secs <= _CUE_SECS
                and word.start_secs - cue[-1].end_secs <= _PAUSE_SECS
            ):
                cue.append(word)
                continue
        cues.append([word])
    return cues


def _wrap(texts: Sequence[str]) -> list[str]:
    """One line, or two of about the same length."""
    whole = " ".join(texts)
    if len(whole) <= _LINE_CHARACTERS or len(texts) == 1:
        return [whole]
    breaks = [(" ".join(texts[:i]), " ".join(texts[i:])) for i in range(1, len(texts))]
    return list(min(breaks, key=lambda pair: max(map(len, pair))))


def _clock(secs: float, format: str) -> str:
    millis = round(secs * 1000)
    comma = "," if format == "srt" else "."
    return f"{millis // 3_600_000:02d}:{millis // 60_000 % 60:02d}:{millis // 1000 % 60:02d}{comma}{millis % 1000:03d}"


def _escape(text: str, format: str) -> str:
    # WebVTT is markup; SubRip has no way to write a character otherwise.
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") if format == "vtt" else text


def _tsv(records: Sequence[dict[str, Any]], words: Sequence[Sequence[Timed]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_MINIMAL)
    writer.writerow(TSV_COLUMNS)
    for record, found in zip(records, words, strict=True):
        start = f"{found[0].start_secs:.3f}" if found else ""
        end = f"{found[-1].end_secs:.3f}" if found else ""
        writer.writerow([record["audio_filepath"], start, end, f"{record['confidence']:.4f}", record["text"]])
    return text.getvalue()
