"""OpenAI's form of a transcription request, of its answers and of its errors.

https://platform.openai.com/docs/api-reference/audio/createTranscription says what clients send and expect. Fields that
only steer a model of another kind (prompt, temperature, language, chunking_strategy) are checked and ignored. Fields
that ask for something in the answer that is not there (stream, include[]) are refused.
"""

from __future__ import annotations

import dataclasses
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from engine.inference.formats import format_transcript, split_cues, transcript_record
from engine.inference.serving.answers import CONTENT_TYPES, Answer, RefusedError, one_line
from engine.inference.serving.uploads import Form
from engine.inference.transcriber import Transcript
from engine.inference.words import SMALLEST_PROB, Timed, text_confidence

RESPONSE_FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
_GRANULARITIES = ("word", "segment")
_MISSING, _UNSUPPORTED = "missing_required_parameter", "unsupported_parameter"
_LONGEST_LANGUAGE = 35  # characters of a language tag, RFC 5646


@dataclasses.dataclass(frozen=True)
class Options:
    """The fields of a request that change its answer.

    Attributes:
        response_format: One of `RESPONSE_FORMATS`.
        language: Language that the client names; repeated in verbose_json.
        granularities: Lists that verbose_json has: "word", "segment" or both.
    """

    response_format: str = "json"
    language: str = ""
    granularities: tuple[str, ...] = ("segment",)


def read_form(form: Form, *, served_model: str) -> tuple[str, bytes, Options]:
    """Returns name and content of the recording in a form, and the options beside it.

    Args:
        form: The parsed body.
        served_model: Name of the model, for the message to a client that names none.

    Raises:
        RefusedError: The form has not exactly one file, or a field cannot be used.
    """
    if not form.files:
        message = 'the form has no file; send the recording as a part "file" with a file name: curl -F file=@speech.wav'
        raise _invalid("file", message, _MISSING)
    if len(form.files) > 1:
        raise _invalid("file", f"the form has {len(form.files)} files; send one recording a request")
    (file,) = form.files
    if file.field != "file":
        raise _invalid("file", f'the recording is the part "{one_line(file.field)}"; name it "file"', _MISSING)
    if not file.content:
        raise _invalid("file", f"{file.name or 'the file'} is empty; send a recording")
    return file.name, file.content, parse_fields(form.fields, served_model=served_model)


def parse_fields(fields: Mapping[str, Sequence[str]], *, served_model: str) -> Options:
    """Returns the options that the text fields of a form ask for; of a repeated field the last one counts.

    Args:
        fields: Values of each field.
        served_model: Name of the model, for the message to a client that names none.

    Raises:
        RefusedError: Names the field that cannot be used.
    """
    last = {name: values[-1].strip() for name, values in fields.items() if values}
    if not last.get("model"):
        raise _invalid("model", f'"model" is missing; this server has one model: model={served_model}', _MISSING)
    response_format = last.get("response_format") or "json"
    if response_format not in RESPONSE_FORMATS:
        raise _invalid(
            "response_format", f"unknown response_format {response_format!r}; use one of {', '.join(RESPONSE_FORMATS)}"
        )
    _check_ignored(last)
    _check_unsupported(last)
    return Options(response_format, last.get("language", ""), _granularities(fields, response_format))


def format_answer(transcript: Transcript, options: Options) -> Answer:
    """Returns the answer that holds a transcript in the format that was asked for."""
    if options.response_format in ("text", "srt", "vtt"):
        format = {"text": "txt"}.get(options.response_format, options.response_format)
        text = format_transcript(transcript_record(transcript, ""), transcript.words, format=format)
        return Answer(200, text.encode(), CONTENT_TYPES[format])
    found: dict[str, Any] = {"text": transcript.text}
    if options.response_format == "verbose_json":
        found = {
            "task": "transcribe",
            "language": options.language,
            "duration": round(transcript.duration_secs, 4),
            "text": transcript.text,
        }
        if "word" in options.granularities:
            found["words"] = [
                {"word": word.text, "start": round(word.start_secs, 3), "end": round(word.end_secs, 3)}
                for word in transcript.words
            ]
        if "segment" in options.granularities:
            cues = split_cues(transcript.words)
            found["segments"] = [_segment(number, cue) for number, cue in enumerate(cues)]
    return Answer(200, json.dumps(found, ensure_ascii=False).encode())


def refuse(status: int, message: str, *, param: str = "", code: str = "") -> Answer:
    """Returns an error answer with a one-line message, in OpenAI's form.

    Args:
        status: HTTP status code.
        message: What is wrong and what to do.
        param: Field that is wrong; "" becomes null.
        code: Machine-readable kind of the error; "" becomes null.
    """
    kind = "invalid_request_error" if status < 500 else "server_error"
    error = {"message": one_line(message), "type": kind, "param": param or None, "code": code or None}
    return Answer(status, json.dumps({"error": error}).encode())


def describe_model(name: str, *, created: int) -> dict[str, Any]:
    """Returns the object of a model in OpenAI's list.

    Args:
        name: Name that the model is served under.
        created: Time that the server started, in seconds since 1970.
    """
    return {"id": name, "object": "model", "created": created, "owned_by": "earshot"}


def _check_ignored(fields: Mapping[str, str]) -> None:
    """Refuses values that no server could follow in fields that are ignored here."""
    language = fields.get("language", "")
    if len(language) > _LONGEST_LANGUAGE or not language.isprintable():
        raise _invalid("language", "language is no language code; send one such as en, or leave it out")
    temperature = fields.get("temperature", "")
    if temperature and not _is_temperature(temperature):
        raise _invalid("temperature", f"temperature is {temperature!r}; send a number from 0 to 1, or leave it out")


def _check_unsupported(fields: Mapping[str, str]) -> None:
    """Refuses fields that ask for something in the answer that is not there."""
    stream = fields.get("stream", "").lower()
    if stream not in ("", "false", "0"):
        wrong = "streaming is not supported" if stream in ("true", "1") else f"stream is {stream!r}"
        raise _invalid("stream", f"{wrong}; send stream=false, or leave it out", _UNSUPPORTED)
    for name in ("include[]", "include"):
        if fields.get(name):
            raise _invalid(name, f"{name}={fields[name]} is not supported; leave it out", _UNSUPPORTED)


def _granularities(fields: Mapping[str, Sequence[str]], response_format: str) -> tuple[str, ...]:
    name = next((name for name in ("timestamp_granularities[]", "timestamp_granularities") if fields.get(name)), "")
    if not name:
        return ("segment",)
    found = tuple(dict.fromkeys(value.strip() for value in fields[name]))
    if unknown := [value for value in found if value not in _GRANULARITIES]:
        raise _invalid(name, f"unknown granularity {unknown[0]!r}; use {' or '.join(_GRANULARITIES)}")
    if response_format != "verbose_json":
        raise _invalid(name, f"{name} needs response_format=verbose_json; {response_format} has no times to choose")
    return found


def _segment(number: int, words: Sequence[Timed]) -> dict[str, Any]:
    """Returns a segment; whisper's fields that CTC has no value for are those of speech without doubt."""
    text = " ".join(word.text for word in words)
    confidence = text_confidence(words)
    return {
        "id": number,
        "seek": 0,
        "start": round(words[0].start_secs, 3),
        "end": round(words[-1].end_secs, 3),
        "text": text,
        "tokens": [],
        "temperature": 0.0,
        "avg_logprob": round(math.log(max(confidence, SMALLEST_PROB)), 4),
        "compression_ratio": round(len(text.encode()) / len(zlib.compress(text.encode())), 4),
        "no_speech_prob": 0.0,
    }


def _is_temperature(text: str) -> bool:
    try:
        return 0 <= float(text) <= 1
    except ValueError:
        return False


def _invalid(param: str, message: str, code: str = "invalid_value") -> RefusedError:
    return RefusedError(400, message, param=param, code=code)
