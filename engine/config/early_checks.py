"""Checks what can be known without TensorFlow, so that it is told in under two seconds: values, paths, extras."""

from __future__ import annotations

import dataclasses
import glob
import importlib.util
import math
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from common.nearest import name_nearest, near_path
from common.weight_names import repository_hint
from engine.config.output_formats import EXPORT_FORMATS, choose_format

_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_CONFIG_FILE = "config.json"
_MOST_COMMAS = 8  # in the name of an input
# The extra that each optional package belongs to, by what asks for it.
_EXTRAS = {
    "--mode=serve": ("serve", ("tornado",)),
    "decode.method=lexicon": ("lm", ("flashlight",)),
    "--export_formats=tflite": ("tflite", ("ai_edge_litert",)),
    "--export_formats=onnx": ("onnx", ("onnx", "onnxruntime", "tf2onnx")),
}


@dataclasses.dataclass(frozen=True)
class _Rule:
    """What a field may hold.

    Attributes:
        holds: Whether it may hold a value.
        wanted: What is wanted, in words.
    """

    holds: Callable[[Any], bool]
    wanted: str


def _at_least(low: float, *, zero: str = "") -> _Rule:
    return _Rule(lambda value: value >= low, f"{low:g} or more" + (f"; 0 = {zero}" if zero else ""))


def _between(low: float, high: float, *, below: bool = False) -> _Rule:
    return _Rule(
        lambda value: low <= value < high if below else low <= value <= high,
        f"{low:g} to {'less than ' if below else ''}{high:g}",
    )


def _one_of(*choices: str) -> _Rule:
    return _Rule(lambda value: value in choices, f"one of {', '.join(choices)}")


_ABOVE_0 = _Rule(lambda value: value > 0, "a number above 0")
_DROPOUT = _between(0, 1, below=True)

# Scheme, host and port, as browsers send it: without a path.
_ORIGIN = re.compile(r"https?://[^/?#@,*\s]+")

# Of model, data, decode and serve; the numbers of the training loop are `engine.config.validation`'.
_RULES: dict[str, _Rule] = {
    "model.source": _one_of("native", "hub"),
    "model.fused_ops": _one_of("auto", "on", "off"),
    "model.hidden_dropout": _DROPOUT,
    "model.attention_dropout": _DROPOUT,
    "model.activation_dropout": _DROPOUT,
    "model.feature_projection_dropout": _DROPOUT,
    "model.final_dropout": _DROPOUT,
    "model.layer_drop": _DROPOUT,
    "model.mask_time_prob": _between(0, 1),
    "model.mask_time_length": _at_least(1),
    "model.mask_feature_prob": _between(0, 1),
    "model.mask_feature_length": _at_least(1),
    "data.on_rate_mismatch": _one_of("resample", "refuse"),
    "data.num_buckets": _at_least(1),
    "data.bucket_boundaries_samples": _Rule(
        lambda value: all(low < high for low, high in zip((0, *value), value, strict=False)),
        "rising numbers of samples above 0",
    ),
    "data.min_duration_secs": _at_least(0),
    "data.max_duration_secs": _at_least(0, zero="no limit"),
    "data.concat_max_utterances": _at_least(1),
    "data.concat_max_secs": _at_least(0, zero="no limit"),
    "data.concat_gap_secs": _at_least(0),
    "data.speed_factors": _Rule(
        lambda value: bool(value) and all(0 < speed < math.inf for speed in value), "one or more numbers above 0"
    ),
    "data.max_batch_secs": _at_least(0, zero="train.global_batch_size rows instead"),
    "data.row_multiple": _at_least(1),
    "data.doctor_max_hours": _at_least(0, zero="no limit"),
    "data.num_parallel_calls": _at_least(1),
    "data.prefetch_batches": _at_least(1),
    "data.eval.*.concat_max_utterances": _at_least(1),
    "data.eval.*.concat_gap_secs": _at_least(0),
    "decode.beam_size": _at_least(1),
    "decode.beam_tokens": _at_least(0, zero="all"),
    "decode.beam_threshold": _ABOVE_0,
    "decode.num_hypotheses": _at_least(1),
    "decode.lm_weight": _Rule(lambda value: 0 <= value < math.inf, "a number of 0 or more"),
    "decode.word_score": _Rule(math.isfinite, "a finite number"),
    "decode.hot_word_score": _Rule(math.isfinite, "a finite number"),
    "serve.host": _Rule(bool, "an address, such as 127.0.0.1"),
    "serve.port": _between(0, 65_535),
    "serve.name": _Rule(
        lambda value: bool(value) and not set("/: ") & set(value), "a part of a URL: no slash, colon or space"
    ),
    "serve.cors_origins": _Rule(
        lambda value: value in ("", "*") or all(map(_ORIGIN.fullmatch, value.split(","))),
        "*, or origins with commas between them, such as https://a.example,http://localhost:3000",
    ),
    **{
        f"serve.{name}": _ABOVE_0
        for name in (
            "batch_size", "max_pending", "max_connections", "max_body_mb", "max_json_mb", "max_audio_secs",
            "body_timeout_secs", "answer_timeout_secs", "idle_timeout_secs",
        )
    },
}  # fmt: skip


def check_values(fields: Mapping[str, Any], *, choices: Mapping[str, Sequence[str]], prefix: str = "") -> None:
    """Checks that each field of a config holds what it may hold.

    Args:
        fields: Nested fields.
        choices: Of fields whose values data and models define, the allowed ones, by dotted name.
        prefix: What stands before each name in `fields`, such as "serve.".

    Raises:
        ValueError: Names the field, its value and what was wanted.
    """
    allowed = {name.removeprefix(prefix): value for name, value in choices.items() if name.startswith(prefix)}
    rules = {name.removeprefix(prefix): rule for name, rule in _RULES.items() if name.startswith(prefix)}
    for name, value in _flatten(fields):
        pattern = re.sub(r"^data\.eval\.[^.]+\.", "data.eval.*.", name)
        if pattern in allowed and value not in allowed[pattern]:
            raise ValueError(f"{prefix}{name}={value!r}: no such value{name_nearest(str(value), allowed[pattern])}")
        if pattern in rules and not rules[pattern].holds(value):
            raise ValueError(f"{prefix}{name}={value!r}: wanted {rules[pattern].wanted}")
    data = fields.get("data", {})
    if data and 0 < data["max_duration_secs"] < data["min_duration_secs"]:
        raise ValueError(
            f"data.max_duration_secs={data['max_duration_secs']:g} is less than data.min_duration_secs="
            f"{data['min_duration_secs']:g}: no utterance is between them"
        )


def _flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def check_run(fields: Mapping[str, Any], *, mode: str, workdir: str, checkpoint: str, presets: Sequence[str]) -> None:
    """Checks the paths of a run, as far as its mode reads them.

    Args:
        fields: The config.
        mode: One that takes --workdir.
        workdir: The run's folder.
        checkpoint: As --checkpoint.
        presets: The names of architectures.

    Raises:
        ValueError: A path is missing or cannot be written; names it, and what was meant or what makes it.
    """
    check_folder("--workdir", workdir)
    model, data = fields["model"], fields["data"]
    trains = mode in ("train", "train_and_eval", "verify_resume")
    if trains or mode == "doctor":
        if mode != "doctor":  # which names what is missing among its findings
            _check_corpus("data.train.input", data["train"]["input"], data["prepare_command"])
        if model["source"] == "hub":
            _check_handle(model["hub_handle"])
        elif model["preset"] not in presets and not is_there(model["preset"]):
            raise ValueError(
                f"model.preset={model['preset']!r}: neither a name nor a config.json"
                f"{name_nearest(model['preset'], presets)}"
            )
        # A run that goes on does not need what it started from.
        if model["init"] and not has_checkpoints(workdir) and not _is_checkpoint(model["init"]):
            raise ValueError(
                f"model.init={model['init']}: no such weights{near_path(model['init'])}"
                f"{repository_hint(model['init'])}; convert a Hugging Face folder with: python -m models.convert "
                f"--input=HF_FOLDER --output={model['init']}; or train from random weights with "
                "--config.model.init= --config.model.freeze_feature_encoder=False"
            )
    if trains and mode != "train" or mode in ("eval", "continuous_eval", "tune_lm"):
        names = [fields["eval"]["best_metric_set"]] if mode == "tune_lm" else list(data["eval"])
        for name in names:
            if name in data["eval"]:
                _check_corpus(f"data.eval.{name}.input", data["eval"][name]["input"], data["prepare_command"])
    has_own_vocab = not trains and mode != "doctor" and is_there(os.path.join(workdir, "vocab.json"))
    if data["vocab"] not in ("", "auto") and not has_own_vocab and not is_there(data["vocab"]):
        raise ValueError(
            f"data.vocab={data['vocab']}: no such file{near_path(data['vocab'])}; make one with python -m data.vocab"
        )
    if mode in ("eval", "tune_lm"):
        if checkpoint:
            check_checkpoint(checkpoint)
        elif not is_there(workdir):
            raise ValueError(
                f"--workdir={workdir}: no such run{near_path(workdir)}; train it first, or name one with --workdir or "
                "--checkpoint"
            )


def check_decode(decode: Mapping[str, Any]) -> None:
    """Checks the files and the extra of `config.decode`.

    Raises:
        ValueError: A file is missing, or the extra is not installed.
    """
    for name in ("lm", "lexicon"):
        if decode.get(name) and not is_there(decode[name]):
            raise ValueError(f"decode.{name}={decode[name]}: no such file{near_path(decode[name])}")
    if decode.get("method") == "lexicon":
        check_extra("decode.method=lexicon")


def check_use(
    *,
    mode: str,
    checkpoint: str,
    inputs: Sequence[str],
    output: str,
    formats: Sequence[str] = (),
    output_format: str = "",
) -> None:
    """Checks the paths of a mode that uses a trained model, and the extras that it needs.

    Args:
        mode: One of transcribe, align, export, serve, report.
        checkpoint: As --checkpoint.
        inputs: As --inputs.
        output: As --output.
        formats: As --export_formats.
        output_format: As --output_format.

    Raises:
        ValueError: A path is missing or cannot be written, or an extra is not installed.
    """
    if mode == "serve":
        check_extra("--mode=serve")
    for name in formats:
        if name not in EXPORT_FORMATS:
            raise ValueError(f"--export_formats={name}: no such format{name_nearest(name, EXPORT_FORMATS)}")
        check_extra("--export_formats=onnx" if name == "onnx" else "--export_formats=tflite")
    if mode != "report":
        check_checkpoint(checkpoint)
        # Above a checkpoint as `engine.config.builders.load_run` looks for it.
        path = os.path.abspath(checkpoint)
        places = (path, os.path.dirname(path), os.path.dirname(os.path.dirname(path)))
        if not is_url(checkpoint) and not any(
            os.path.isfile(os.path.join(place, name)) for place in places for name in (_CONFIG_FILE, "saved_model.pb")
        ):
            raise ValueError(
                f"--checkpoint={checkpoint}: no {_CONFIG_FILE} there or above; give the workdir of a training run"
            )
    if mode in ("transcribe", "align") and not inputs:
        raise ValueError("--inputs is empty: give audio files or folders, separated by commas, or - for standard input")
    for number, path in enumerate(inputs):
        if _is_split(inputs, number):
            continue
        is_known = is_there(path) or path == "-" or (glob.has_magic(path) and any(glob.iglob(path, recursive=True)))
        if not is_known and not glob.has_magic(path):
            wanted = "workdirs" if mode == "report" else "audio files or folders"
            raise ValueError(f"{path}: no such file or folder{near_path(path)}; give {wanted} to --inputs")
        if not is_known:
            raise ValueError(f"{path}: no file fits this pattern; check it, and quote it from the shell")
    if not output and mode in ("transcribe", "align", "export"):
        wanted = "file to write, such as out.jsonl" if mode == "transcribe" else "folder to write"
        raise ValueError(f"--output is empty: name the {wanted}")
    if output and mode in ("align", "export"):
        check_folder("--output", output)
        if mode == "export" and os.path.isdir(output) and os.listdir(output):
            raise ValueError(f"--output={output}: is not empty; give --output a new folder")
    elif output:
        if mode == "transcribe":
            choose_format(output, output_format)
        check_file("--output", output)


def _is_split(parts: Sequence[str], number: int) -> bool:
    """Tells whether a part of a list is no path of its own, but a piece of one with commas in its name."""
    return any(
        os.path.exists(joint.join(parts[first:last]))
        for first in range(max(0, number - _MOST_COMMAS), number + 1)
        for last in range(max(number + 1, first + 2), min(len(parts), first + _MOST_COMMAS + 1) + 1)
        for joint in (",", ", ")
    )


def check_checkpoint(checkpoint: str) -> None:
    """Checks that something lies at --checkpoint.

    Raises:
        ValueError: It is empty, or nothing does.
    """
    if not checkpoint:
        raise ValueError("--checkpoint is empty: give the workdir of a training run")
    if not _is_checkpoint(checkpoint):
        raise ValueError(
            f"--checkpoint={checkpoint}: no such folder or checkpoint{near_path(checkpoint)}"
            f"{repository_hint(checkpoint)}; give the workdir of a training run (it has a {_CONFIG_FILE}), a "
            "checkpoint inside one, or an exported folder"
        )


def check_extra(asked: str) -> None:
    """Checks that the packages of an extra are installed.

    Args:
        asked: A key of the table of extras: what the user has asked for.

    Raises:
        ValueError: Names the first that is missing, and the extra to install.
    """
    extra, packages = _EXTRAS[asked]
    for package in packages:
        if not is_installed(package):
            no_wheel = package == "flashlight" and sys.version_info >= (3, 13)
            reason = " with Python 3.11 or 3.12; for 3.13 there is no wheel yet" if no_wheel else ""
            raise ValueError(f"{asked} needs {package}, which is not installed: pip install -e '.[{extra}]'{reason}")


def is_installed(package: str) -> bool:
    """Tells whether a package can be found, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def is_url(path: str) -> bool:
    """Tells whether a path is a URL, which only TensorFlow can look at."""
    return bool(_URL.match(path))


def is_there(path: str) -> bool:
    """Tells whether a path exists; of a URL it is taken for granted."""
    return is_url(path) or os.path.exists(path)


def has_checkpoints(workdir: str) -> bool:
    """Tells whether a run has saved a checkpoint; of a URL it is taken for granted."""
    return is_url(workdir) or bool(glob.glob(os.path.join(glob.escape(workdir), "checkpoints", "*.index")))


def check_folder(flag: str, path: str) -> None:
    """Checks that a folder can be written, or made.

    Args:
        flag: The flag that names it.
        path: The folder.

    Raises:
        ValueError: It is a file, or cannot be written.
    """
    if is_url(path):
        return
    if os.path.lexists(path) and not os.path.isdir(path):
        raise ValueError(f"{flag}={path}: is a file; name a folder")
    _check_writable(flag, path, path)


def check_file(flag: str, path: str) -> None:
    """Checks that a file can be written in its folder, which is made if it is missing.

    Raises:
        ValueError: The folder cannot be written.
    """
    if not is_url(path):
        _check_writable(flag, path, os.path.dirname(path) or ".")


def _check_writable(flag: str, path: str, folder: str) -> None:
    """Tries to write into a folder, or into the nearest one above that exists."""
    above = os.path.abspath(folder)
    while not os.path.lexists(above) and os.path.dirname(above) != above:
        above = os.path.dirname(above)
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        reason = "it is a file" if os.path.isfile(above) else (error.strerror or str(error)).lower()
        raise ValueError(f"{flag}={path}: {above} cannot be written ({reason}); name another folder") from error


def _is_checkpoint(path: str) -> bool:
    return is_there(path) or os.path.exists(f"{path}.index")


def _check_corpus(field: str, path: str, prepare_command: str) -> None:
    if not path:
        raise ValueError(f"{field} is empty: name the folder or file of the corpus, --config.{field}=PATH")
    if is_there(path):
        return
    raise ValueError(f"{field}={path}: no such corpus{near_path(path)}; {how_to_make(path, prepare_command)}")


def how_to_make(path: str, prepare_command: str) -> str:
    """Returns the command that makes a missing corpus, where the config's command makes this one, or what to do.

    Args:
        path: Of the corpus.
        prepare_command: As config.data.prepare_command; about the config's own corpus, not about a user's.
    """
    if "--output=" not in prepare_command:
        return f"make it with: {prepare_command}" if prepare_command else "check the path"
    for made in re.findall(r"--output=(\S+?)[,;]?(?:\s|$)", prepare_command):
        made, wanted = os.path.normpath(made), os.path.normpath(path)
        if made == wanted or made.startswith(wanted + os.sep) or wanted.startswith(made + os.sep):
            return f"make it with: {prepare_command}"
    return "check the path"


def _check_handle(handle: str) -> None:
    if not handle:
        raise ValueError("model.hub_handle is empty: with model.source=hub it names a SavedModel, a URL or a folder")
    if not is_there(handle):
        raise ValueError(f"model.hub_handle={handle}: no such folder{near_path(handle)}")
