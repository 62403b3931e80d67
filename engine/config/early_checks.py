"""Checks paths and optional packages before TensorFlow is imported, so that an error shows within two seconds."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from common import storage
from common import workdir_layout as layout
from common.near_files import describe_near
from common.nearest import name_nearest
from common.split_paths import STDIN, join_split_paths
from common.spread_paths import is_spread
from common.weight_names import repository_hint
from engine.common.journal import journal_path
from engine.config.extras import EXTRAS, check_extra
from engine.config.fields_of_run import VOCAB_UNITS
from engine.config.output_formats import EXPORT_FORMATS, choose_format
from engine.config.recorded_run import run_folder

# The form of --inputs of --mode=average that names checkpoints by their number.
AVERAGE_CHOICE = re.compile(r"(last|best):(\d+)")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://")
_TRAINING_MODES = ("train", "train_and_eval", "verify_resume")
_EVALUATING_MODES = ("train_and_eval", "verify_resume", "eval", "continuous_eval")
TRAIN_FROM_RANDOM = (
    "train the whole model from random weights, which takes far more data, with --config.model.init= "
    "--config.model.freeze_feature_encoder=False"
)
_WRITES_FOLDER = ("align", "segment", "export", "average")


def check_run(
    fields: Mapping[str, Any], *, mode: str, workdir: str, checkpoint: str, presets: Sequence[str], weights: str = ""
) -> None:
    """Checks the paths that a mode of one run reads or writes.

    Args:
        fields: The fields of the config.
        mode: A mode that takes --workdir.
        workdir: The folder of the run.
        checkpoint: The value of --checkpoint.
        presets: The names of architectures.
        weights: The value of --weights.

    Raises:
        ValueError: A path is missing or cannot be written; names it, and what was meant or what makes it.
    """
    check_folder("--workdir", workdir)
    data, trains = fields["data"], mode in _TRAINING_MODES
    if trains:
        _check_corpus("data.train", data["train"], data["prepare_command"])
        for name, one in data.get("more_train", {}).items():
            _check_corpus(f"data.more_train.{name}", one, data["prepare_command"])
    if trains or mode == "doctor":  # the doctor reports a missing corpus among its findings
        _check_model(fields["model"], presets)
        _check_init(fields["model"]["init"], workdir)
    if mode == "doctor":
        _check_scoring(checkpoint, weights)
    for name in _evaluated_sets(fields, mode):
        _check_corpus(f"data.eval.{name}", data["eval"][name], data["prepare_command"])
    _check_vocab(data["vocab"], own="" if trains or mode == "doctor" else _find_own_vocab(workdir, checkpoint))
    if mode in ("eval", "tune_lm"):
        _check_weights(workdir, checkpoint)


def _check_scoring(checkpoint: str, weights: str) -> None:
    """Checks the recognizer with which the doctor scores transcripts."""
    if checkpoint:
        check_checkpoint(checkpoint)
        _check_has_config(checkpoint)
    elif weights:
        raise ValueError(f"--weights={weights}: chooses weights of --checkpoint, which is missing; give both or none")


def _check_weights(workdir: str, checkpoint: str) -> None:
    """Checks that the run to evaluate exists."""
    if checkpoint:
        check_checkpoint(checkpoint)
    elif not is_there(workdir):
        raise ValueError(
            f"--workdir={workdir}: no such run{describe_near(workdir)}; train it first, or name one with --workdir or "
            "--checkpoint"
        )


def _check_model(model: Mapping[str, Any], presets: Sequence[str]) -> None:
    """Checks that the preset or the SavedModel of a config exists."""
    if model["source"] == "hub":
        _check_handle(model["hub_handle"])
    elif model["preset"] not in presets and not is_there(model["preset"]):
        raise ValueError(
            f"model.preset={model['preset']!r}: neither a name nor a config.json"
            f"{name_nearest(model['preset'], presets)}"
        )


def _check_handle(handle: str) -> None:
    if not handle:
        raise ValueError("model.hub_handle is empty: with model.source=hub it names a SavedModel, a URL or a folder")
    if not is_there(handle):
        raise ValueError(f"model.hub_handle={handle}: no such folder{describe_near(handle)}")


def _check_init(init: str, workdir: str) -> None:
    """Checks that initial weights exist; a run that resumes no longer needs them."""
    if init and not has_checkpoints(workdir) and not is_checkpoint(init):
        raise ValueError(describe_missing_weights(init))


def _find_own_vocab(workdir: str, checkpoint: str) -> str:
    """Returns the vocabulary of the run whose weights are used, as `engine.config.builders.build_tokenizer` does."""
    # A URL is not searched: that would import TensorFlow.
    folder = checkpoint if is_url(checkpoint) else run_folder(checkpoint)
    return storage.join(folder or workdir, layout.VOCAB_FILE)


def _check_vocab(vocab: str, *, own: str) -> None:
    """Checks that a vocabulary exists.

    Args:
        vocab: The value of data.vocab.
        own: The vocabulary of the run, which wins over data.vocab where it exists; "" = a new run has none.
    """
    if vocab in ("", *VOCAB_UNITS) or (own and is_there(own)) or is_there(vocab):
        return
    raise ValueError(f"data.vocab={vocab}: no such file{describe_near(vocab)}; make one with python -m data.vocab")


def _evaluated_sets(fields: Mapping[str, Any], mode: str) -> list[str]:
    """Returns the names of the evaluation sets that a mode reads."""
    sets = fields["data"]["eval"]
    if mode == "tune_lm":
        return [name for name in [fields["eval"]["best_metric_set"]] if name in sets]
    return list(sets) if mode in _EVALUATING_MODES else []


def reads_set(fields: Mapping[str, Any], mode: str, group: str) -> bool:
    """Tells whether a mode reads a set.

    Args:
        fields: The fields of the config.
        mode: The value of --mode.
        group: "data" for the training corpora, or "data.eval.NAME".
    """
    if group == "data":
        return mode in (*_TRAINING_MODES, "doctor")
    return mode == "doctor" or group.removeprefix("data.eval.") in _evaluated_sets(fields, mode)


def _check_corpus(group: str, fields: Mapping[str, Any], prepare_command: str) -> None:
    """Checks that the corpus of one set exists.

    Args:
        group: The name of the set's fields, such as "data.train".
        fields: The set's fields.
        prepare_command: The value of data.prepare_command.
    """
    path = fields["input"]
    if not path:
        raise ValueError(f"{group}.input is empty: name the folder or file of the corpus, --config.{group}.input=PATH")
    if (asked := f"format={fields.get('format')}") in EXTRAS:
        check_extra(asked)
    if not is_spread(path) and not is_there(path):
        raise ValueError(f"{group}.input={path}: {describe_missing_corpus(path, prepare_command)}")


def check_decode(decode: Mapping[str, Any]) -> None:
    """Checks that the files of `config.decode` exist and that the packages of its method are installed.

    Raises:
        ValueError: A file is missing, or a package is not installed.
    """
    for name in ("lm", "lexicon"):
        if decode.get(name) and not is_there(decode[name]):
            raise ValueError(f"decode.{name}={decode[name]}: no such file{describe_near(decode[name])}")
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
        mode: transcribe, pseudo_label, align, segment, export, average, serve or report.
        checkpoint: The value of --checkpoint.
        inputs: The values of --inputs.
        output: The value of --output.
        formats: The values of --export_formats.
        output_format: The value of --output_format.

    Raises:
        ValueError: A path is missing or cannot be written, or an extra is not installed.
    """
    if mode == "serve":
        check_extra("--mode=serve")
    _check_formats(formats)
    if mode != "report":
        check_checkpoint(checkpoint)
        _check_has_config(checkpoint)
    if mode == "average":
        _check_averaged(inputs)
    if mode in ("transcribe", "align", "segment", "pseudo_label") and not inputs:
        raise ValueError("--inputs is empty: give audio files or folders, separated by commas, or - for standard input")
    for path in join_split_paths(inputs) if mode != "average" else ():
        _check_input(path, wanted="workdirs" if mode == "report" else "audio files or folders")
    _check_output(mode, output, output_format)


def _check_averaged(inputs: Sequence[str]) -> None:
    """Checks that --inputs names checkpoints to average, or how many of a run's own."""
    if not inputs:
        raise ValueError("--inputs is empty: name the checkpoints to average, last:5, best:5, or their paths")
    if len(inputs) == 1 and AVERAGE_CHOICE.fullmatch(inputs[0]):
        return
    for path in inputs:
        if not is_checkpoint(path):
            raise ValueError(
                f"--inputs={path}: no such checkpoint{describe_near(path)}; write last:5, best:5, or the paths of "
                "checkpoints"
            )


def _check_formats(formats: Sequence[str]) -> None:
    """Checks that the formats of an export exist and that their converters are installed."""
    for name in formats:
        if name not in EXPORT_FORMATS:
            raise ValueError(f"--export_formats={name}: no such format{name_nearest(name, EXPORT_FORMATS)}")
        check_extra("--export_formats=onnx" if name == "onnx" else "--export_formats=tflite")


def _check_has_config(checkpoint: str) -> None:
    """Checks that a checkpoint belongs to a run or an export, as `engine.config.recorded_run.load_run` looks for it."""
    names = (layout.CONFIG_FILE, "saved_model.pb")
    if not is_url(checkpoint) and not any(layout.find_above(checkpoint, name) for name in names):
        raise ValueError(
            f"--checkpoint={checkpoint}: no {layout.CONFIG_FILE} there or above; give the workdir of a training run"
        )


def _check_input(path: str, *, wanted: str) -> None:
    """Checks that an input is a path, a pattern that matches something, or standard input."""
    if is_there(path) or path == STDIN:
        return
    if not glob.has_magic(path):
        raise ValueError(f"{path}: no such file or folder{describe_near(path)}; give {wanted} to --inputs")
    if not any(glob.iglob(path, recursive=True)):
        raise ValueError(f"{path}: no file matches this pattern; check it, and quote it in the shell")


def _check_output(mode: str, output: str, output_format: str) -> None:
    """Checks that --output is given where the mode needs it, and can be written."""
    if not output and mode in ("transcribe", "align", "segment", "export", "pseudo_label", "average"):
        wanted = "folder to write" if mode in _WRITES_FOLDER else "file to write, such as out.jsonl"
        raise ValueError(f"--output is empty: name the {wanted}")
    if not output:
        return
    if mode in _WRITES_FOLDER:
        check_folder("--output", output)
        is_interrupted = mode == "segment" and os.path.exists(journal_path(output, mode=mode))
        if mode != "align" and not is_interrupted and os.path.isdir(output) and os.listdir(output):
            raise ValueError(f"--output={output}: is not empty; give --output a new folder")
        return
    if mode == "transcribe":
        choose_format(output, output_format)
    check_file("--output", output)


def check_checkpoint(checkpoint: str) -> None:
    """Checks that --checkpoint names something that exists.

    Raises:
        ValueError: It is empty, or nothing exists there.
    """
    if not checkpoint:
        raise ValueError("--checkpoint is empty: give the workdir of a training run")
    if not is_checkpoint(checkpoint):
        raise ValueError(
            f"--checkpoint={checkpoint}: no such folder or checkpoint{describe_near(checkpoint)}"
            f"{repository_hint(checkpoint)}; give the workdir of a training run (it has a {layout.CONFIG_FILE}), a "
            "checkpoint inside one, or an exported folder"
        )


def is_url(path: str) -> bool:
    """Tells whether a path is a URL, which only TensorFlow can read."""
    return bool(_URL.match(path))


def is_there(path: str) -> bool:
    """Tells whether a path exists; a URL is assumed to."""
    return is_url(path) or os.path.exists(path)


def has_checkpoints(workdir: str) -> bool:
    """Tells whether a run has saved a checkpoint; a URL is assumed to have one."""
    return is_url(workdir) or bool(layout.list_checkpoints(storage.join(workdir, layout.CHECKPOINTS_FOLDER)))


def check_folder(flag: str, path: str) -> None:
    """Checks that a folder can be written to, or created.

    Args:
        flag: The flag that names the folder, for the message.
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
    """Checks that a file can be written in its folder, which is created if it is missing.

    Raises:
        ValueError: The folder cannot be written.
    """
    if not is_url(path):
        _check_writable(flag, path, os.path.dirname(path) or ".")


def _check_writable(flag: str, path: str, folder: str) -> None:
    """Tries to write a file into a folder, or into its nearest parent that exists."""
    above = os.path.abspath(folder)
    while not os.path.lexists(above) and os.path.dirname(above) != above:
        above = os.path.dirname(above)
    try:
        with tempfile.TemporaryFile(dir=above):
            pass
    except OSError as error:
        reason = "it is a file" if os.path.isfile(above) else (error.strerror or str(error)).lower()
        raise ValueError(f"{flag}={path}: {above} cannot be written ({reason}); name another folder") from error


def is_checkpoint(path: str) -> bool:
    """Tells whether a path is a folder or a checkpoint; a URL is assumed to be one."""
    return is_there(path) or os.path.exists(f"{path}.index")


def describe_missing_corpus(path: str, prepare_command: str) -> str:
    """Returns the message for a missing corpus, without the name of its field.

    Args:
        path: The path of the corpus.
        prepare_command: The value of config.data.prepare_command.
    """
    return f"no such corpus{describe_near(path)}; {how_to_make(path, prepare_command)}"


def how_to_make(path: str, prepare_command: str) -> str:
    """Returns "make it with: COMMAND" where the config's command makes a corpus, else "check the path".

    Args:
        path: The path of the corpus.
        prepare_command: The value of config.data.prepare_command; it makes the config's own corpus, not a user's.
    """
    if "--output=" not in prepare_command:
        return f"make it with: {prepare_command}" if prepare_command else "check the path"
    wanted = os.path.normpath(path)
    is_made = re.search(rf"(?<![\w./-]){re.escape(wanted)}(?![\w.-])", prepare_command) is not None
    for made in map(os.path.normpath, re.findall(r"--output=(\S+?)[,;]?(?:\s|$)", prepare_command)):
        # A file in an output folder, such as datasets/mine.jsonl, is the user's own.
        is_inside = wanted.startswith(made + os.sep) and not os.path.splitext(wanted)[1]
        is_made |= is_inside or made.startswith(wanted + os.sep)
    return f"make it with: {prepare_command}" if is_made else "check the path"


def describe_missing_weights(init: str) -> str:
    """Returns the message for a model.init that names no weights."""
    return (
        f"model.init={init}: no such weights{describe_near(init)}{repository_hint(init)}; convert a Hugging Face "
        f"folder with: python -m models.convert --input=HF_FOLDER --output={init}; or {TRAIN_FROM_RANDOM}"
    )
