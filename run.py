"""Runs Earshot from the command line: reads flags and config, builds the parts and calls one mode.

python run.py --config=configs/base.py [--workdir=runs/base] [--mode=train_and_eval] [--strategy=auto]
python run.py --mode=transcribe --checkpoint=WORKDIR --inputs=a.wav,b.flac,dir/ --output=out.jsonl
"""

from __future__ import annotations

import dataclasses
import functools
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging
from ml_collections import config_flags

from common.readable import describe_error
from common.streams import outlive_readers
from common.tensorflow_environment import set_tensorflow_defaults
from configs.base import get_config, get_decode, get_eval_set, get_serve, get_train_set
from engine.common.signals import StopOnSignal
from engine.config import config_file, early_checks, field_flags, field_rules
from engine.config.decode import give_decode
from engine.config.flags import check_arguments, check_flags, default_workdir, explain_flag_error, list_given
from engine.config.help import describe_flags, find_answer
from engine.config.modes import MODES, RUN_MODES
from engine.config.text_styles import check_text_styles
from engine.console.log import configure_logging

if TYPE_CHECKING:
    from engine.protocols import Components

set_tensorflow_defaults()  # nothing above imports TensorFlow

_MODE = flags.DEFINE_enum("mode", "train_and_eval", list(MODES), "What to do.")
_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; by default runs/NAME of the config.")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "", "Recognizer: a workdir, a checkpoint, an exported folder, or hf://OWNER/NAME."
)
_WEIGHTS = flags.DEFINE_enum(
    "weights", "", ["", "raw", "ema"], "Weights of a checkpoint that has both; by default raw, or those of best/."
)
_INPUTS = flags.DEFINE_list(
    "inputs",
    [],
    "Audio files, folders and patterns, with commas between; - for standard input. Workdirs for report. For "
    "pseudo_label manifests (.jsonl, .csv, .tsv) and folders of prepared shards too; for average last:N, best:N or "
    "checkpoints.",
)
_OUTPUT = flags.DEFINE_string("output", "", "File or folder to write.")
_OUTPUT_FORMAT = flags.DEFINE_string(
    "output_format", "", "jsonl, tsv, txt, srt or vtt, where the ending of --output names none."
)
_EXPORT_FORMATS = flags.DEFINE_list(
    "export_formats", [], "Formats beside the SavedModel: tflite_float32, tflite_float16, tflite_dynamic, onnx."
)
_WINDOW_SECS = flags.DEFINE_float(
    "window_secs",
    None,
    "Seconds of audio to read at once; longer recordings are cut. By default 30, or the length of the training rows if "
    "that is shorter and the training began from random weights.",
    lower_bound=1.0,
)
_JIT_COMPILE = flags.DEFINE_bool(
    "jit_compile",
    False,
    "Whether XLA compiles recognition as a whole, for many hours of audio on a GPU: each of four lengths of rows takes "
    "half a minute or more to compile.",
)
_DECODE = flags.DEFINE_string(
    "decode", "", "JSON file of config.decode's fields, as --mode=tune_lm writes it; its fields win."
)
_HOT_WORDS = flags.DEFINE_list("hot_words", [], "Words to prefer, as decode.hot_words; turns greedy into beam search.")
_STRATEGIES = ["auto", "one_device", "mirrored", "multi_worker", "tpu"]
_STRATEGY = flags.DEFINE_enum(
    "strategy", "auto", _STRATEGIES, "Devices: auto takes a TPU if one answers, else all GPUs, else the CPU."
)
_TPU = flags.DEFINE_string("tpu", "", "TPU to run on: its name, HOST:PORT, or local.")
# The doctor has the same lines in its report; the others compute nothing themselves.
_MODES_WITHOUT_DEVICES = ("doctor", "report", "verify_resume")
_CONFIG_HELP = "Config file, FILE.py or FILE.py:ARGUMENT; --config.FIELD=VALUE changes a field."
_SERVE_HELP = "Fields of configs.base.get_serve, set one by one: --serve.port=8501."


@dataclasses.dataclass(frozen=True)
class _Command:
    """Holds what the command line asks for, before TensorFlow is imported.

    Attributes:
        mode: A key of `MODES`.
        config: The config after all flags; None without --config.
        workdir: Folder of the run; "" where the mode has none.
        decode_defaults: Every field of config.decode with its default.
        decode_given: The fields of config.decode that the command line gives.
    """

    mode: str
    config: Any
    workdir: str
    decode_defaults: dict[str, Any]
    decode_given: dict[str, Any]


def main(argv: list[str], stop: StopOnSignal) -> int:
    """Runs one mode and returns the exit status; `stop` hears the signals."""
    check_arguments(argv[1:])
    check_flags(_MODE.value, [name for name in list_given(_own_flags(), flags.FLAGS) if name != "mode"])
    configure_logging()
    command = _read_command()
    check_early(command)
    if command.mode == "config":
        return _print_config(command)
    # A wrong flag, value or path does not wait for TensorFlow: nothing above imports it.
    parts = _build_parts()
    from engine.common.out_of_memory import explained_out_of_memory
    from engine.distributed.gpus import find_gpu_faults

    if command.mode not in _MODES_WITHOUT_DEVICES:
        for line in find_gpu_faults():
            logging.warning("%s", line)
    with explained_out_of_memory(lambda evaluates: _advise(command, evaluates)):
        return _run_mode(command, parts, stop)


def _advise(command: _Command, evaluates: bool) -> str:
    """Returns what to lower where memory is used up, and the largest batch that is foreseen."""
    from engine.config import memory
    from models.memory_estimate import measure_model

    foreseen = ""
    if command.config is not None and command.mode in RUN_MODES:
        foreseen = memory.foresee(
            command.config,
            run=_CHECKPOINT.value or command.workdir,
            training=memory.is_training(command.mode, evaluates=evaluates),
            measure_model=measure_model,
        )
    return memory.advise(command.mode, evaluates=evaluates, foreseen=foreseen, config=command.config)


def _read_command() -> _Command:
    config, defaults = flags.FLAGS.config, get_decode().to_dict()
    decode_given = give_decode(
        {} if config is None else config.decode.to_dict(),
        known=defaults,
        path=_DECODE.value,
        hot_words=_HOT_WORDS.value,
    )
    workdir = _WORKDIR.value
    if config is not None:
        config.decode.update(decode_given)
        workdir = workdir or default_workdir(flags.FLAGS["config"].config_filename, config.get("name", ""))
    return _Command(_MODE.value, config, workdir, defaults, decode_given)


def _print_config(command: _Command) -> int:
    from engine.modes import config

    return config.run(
        config=command.config.to_dict(),
        base=get_config().to_dict(),
        sets={field_flags.EVAL: get_eval_set().to_dict(), field_flags.MORE_TRAIN: get_train_set().to_dict()},
        source=flags.FLAGS["config"].config_filename,
        workdir=command.workdir,
    )


def _build_parts() -> Components:
    """Returns what data and models contribute to the engine."""
    from data.audio.decoding import normalize_waveform
    from data.audio.streaming import duration_samples, stream_audio
    from data.batches.datasets import build_eval_data, build_train_data
    from data.common.page import page_environment
    from data.corpus.references import find_reference
    from data.doctor.preflight import check_before_training
    from data.shards.records import encode_flac
    from data.text.normalization import normalize_transcript
    from data.text.tokenizer import load_tokenizer
    from data.unlabelled.listing import UnlabelledCorpus
    from engine.protocols import Components
    from models.architecture import find_architecture
    from models.build import build_model
    from models.convert import fetch_weights
    from models.ctc import alignment, greedy, loss, word_alignment
    from models.search.build import build_search

    return Components(
        build_tokenizer=load_tokenizer,
        build_train_data=build_train_data,
        build_eval_data=build_eval_data,
        find_architecture=find_architecture,
        build_model=build_model,
        count_samples=duration_samples,
        stream_audio=stream_audio,
        normalize_waveform=normalize_waveform,
        find_reference=find_reference,
        normalize_text=normalize_transcript,
        loss_fn=loss.ctc_loss,
        feasible_fn=loss.feasible,
        decoder=greedy.greedy_decode,
        span_decoder=alignment.greedy_spans,
        span_graph_decoder=greedy.greedy_decode_spans,
        aligner=alignment.forced_align,
        word_aligner=word_alignment.align_words,
        encode_flac=encode_flac,
        page_environment=page_environment,
        build_search=build_search,
        preflight=check_before_training,
        open_unlabelled=UnlabelledCorpus,
        fetch_weights=fetch_weights,
    )


def _run_mode(command: _Command, parts: Components, stop: StopOnSignal) -> int:  # noqa: C901, one branch a mode
    """Calls the mode that is asked for: engine/modes/NAME.py, or for training and evaluation engine/experiment.py."""
    from engine.inference.loading import ReadingOptions
    from engine.modes import align, average, export, pseudo_label, report, segment, transcribe, tune_lm, verify_resume

    checkpoint = parts.fetch_weights(_CHECKPOINT.value)
    files: dict[str, Any] = {"inputs": _INPUTS.value, "output": _OUTPUT.value}
    trained: dict[str, Any] = {"parts": parts, "checkpoint": checkpoint, "weights": _WEIGHTS.value}
    run: dict[str, Any] = {"config": command.config, "workdir": command.workdir}
    reading = ReadingOptions(
        window_secs=_WINDOW_SECS.value,
        jit_compile=_JIT_COMPILE.value,
        decode_defaults=command.decode_defaults,
        decode_given=command.decode_given,
    )
    match command.mode:
        case "average":
            return average.run(**trained, **files)
        case "align":
            return align.run(**trained, **files, stop=stop)
        case "export":
            return export.run(**trained, **files, formats=_EXPORT_FORMATS.value)
        case "transcribe":
            return transcribe.run(**trained, **files, reading=reading, output_format=_OUTPUT_FORMAT.value, stop=stop)
        case "segment":
            config = get_config() if command.config is None else command.config
            cutting = {"options": config.segment.to_dict(), "window_secs": _WINDOW_SECS.value}
            return segment.run(**trained, **files, **cutting, stop=stop)
        case "pseudo_label":
            config = get_config() if command.config is None else command.config
            options, devices = config.pseudo_label.to_dict(), config.runtime.num_virtual_devices
            more: dict[str, Any] = {"strategy_name": _STRATEGY.value, "num_virtual_devices": devices, "stop": stop}
            return pseudo_label.run(**trained, **files, reading=reading, options=options, **more)
        case "serve":
            from engine.modes import serve  # its web server is an extra

            return serve.run(**trained, reading=reading, options=flags.FLAGS.serve.to_dict(), stop=stop)
        case "report":
            return report.run(**files, parts=parts)
        case "tune_lm":
            return tune_lm.run(**trained, **run, output=_OUTPUT.value)
        case "verify_resume":
            return verify_resume.run(**run, command=[sys.executable, *sys.argv])
        case "doctor":
            return _run_doctor(run, trained)
        case _:
            return _train_and_evaluate(run, trained, mode=command.mode, stop=stop)


def _run_doctor(run: Mapping[str, Any], trained: Mapping[str, Any]) -> int:
    from data.doctor.examine import DatasetSpec, examine
    from data.doctor.html_report import write_report
    from engine.modes import doctor
    from models.memory_estimate import measure_model

    return doctor.run(
        **run,
        **trained,
        strategy_name=_STRATEGY.value,
        measure_model=measure_model,
        set_type=DatasetSpec,
        examine=examine,
        write_report=write_report,
    )


def _train_and_evaluate(run: Mapping[str, Any], trained: Mapping[str, Any], *, mode: str, stop: StopOnSignal) -> int:
    from common import storage
    from common.workdir_layout import REPORT_FILE
    from engine import experiment
    from engine.console.error_table import error_table

    outcome = experiment.run(**run, **trained, mode=mode, strategy_name=_STRATEGY.value, tpu=_TPU.value, stop=stop)
    if outcome.metrics:
        print(f"\n{error_table(outcome.metrics)}\n")
        if storage.is_file(page := storage.join(outcome.folder or run["workdir"], REPORT_FILE)):
            print(f"report: {page}\n")
    return outcome.exit_status


def check_early(command: _Command) -> None:
    """Checks values, paths and extras before TensorFlow is imported.

    Raises:
        ValueError: Something cannot be used as given.
    """
    from data.augmentation.options import augment_groups, check_augment
    from data.open_corpus import FORMATS
    from data.text.numbers import check_text_style
    from models.search.options import METHODS
    from models.wav2vec2.presets import PRESETS

    mode, config = command.mode, command.config
    choices = dict.fromkeys(("data.train.format", "data.more_train.*.format", "data.eval.*.format"), FORMATS)
    field_rules.check_values({"decode": command.decode_given}, choices={"decode.method": METHODS})
    if config is not None:
        fields = config.to_dict()
        field_rules.check_values(fields, choices=choices)
        check_text_styles(fields, functools.partial(check_text_style, is_used=mode != "config"))
        for group, augment in augment_groups(fields):
            check_augment(augment, group, is_read=early_checks.reads_set(fields, mode, group.removesuffix(".augment")))
    if mode == "config":  # which opens nothing
        return
    early_checks.check_decode(command.decode_given)
    if mode == "serve":
        field_rules.check_values(flags.FLAGS.serve.to_dict(), prefix="serve.")
    if mode == "tune_lm" and _OUTPUT.value:
        early_checks.check_file("--output", _OUTPUT.value)
    if mode in RUN_MODES:
        early_checks.check_run(
            config.to_dict(),
            mode=mode,
            workdir=command.workdir,
            checkpoint=_CHECKPOINT.value,
            weights=_WEIGHTS.value,
            presets=["auto", *PRESETS],
        )
    else:
        early_checks.check_use(
            mode=mode,
            checkpoint=_CHECKPOINT.value,
            inputs=_INPUTS.value,
            output=_OUTPUT.value,
            formats=_EXPORT_FORMATS.value,
            output_format=_OUTPUT_FORMAT.value,
        )
    if mode == "pseudo_label":
        from engine.pseudo_labels.early_checks import check_pseudo_label

        check_pseudo_label(
            {} if config is None else config.pseudo_label.to_dict(),
            strategy=_STRATEGY.value,
            inputs=_INPUTS.value,
            output=_OUTPUT.value,
        )


def _own_flags() -> list[flags.Flag]:
    """Returns the flags that this file defines."""
    return flags.FLAGS.get_key_flags_for_module(sys.argv[0])


def _parse_flags(argv: list[str]) -> list[str]:
    template = get_config()
    try:
        given = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        if answer := find_answer(given, {"config": _CONFIG_HELP, **describe_flags(_own_flags()), "serve": _SERVE_HELP}):
            print(answer)
            sys.exit(0)
        parser = config_file.ConfigParser(template=template, new_eval_set=get_eval_set, new_train_set=get_train_set)
        given = parser.prepare(given)
        field_flags.check_fields("serve", get_serve(), given)
        # Not where the other flags are: ml_collections reads the command line where it defines these.
        config_flags.DEFINE_config_file("config", None, _CONFIG_HELP, sys_argv=given)
        config_flags.DEFINE_config_dict("serve", get_serve(), _SERVE_HELP, sys_argv=given)
        flags.FLAGS["config"].parser = parser
        return flags.FLAGS(given)
    # What absl and ml_collections raise; where they have a riddle, `explain_flag_error` has words.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        names = [flag.name for flag in _own_flags()]
        fields = [f"config.{name}" for name in field_flags.list_fields(template)]
        fields += [f"serve.{name}" for name in field_flags.list_fields(get_serve())]
        sys.exit(_refuse(ValueError(explain_flag_error(error, names=names, fields=fields))))


def _main(argv: list[str]) -> None:
    """Turns faults of the input into one line and status 2; anything else is a bug and keeps its traceback."""
    with StopOnSignal(watch_to_the_end=True) as stop:
        try:
            status = main(argv, stop)
        except (ValueError, OSError) as error:
            logging.debug("where it happened", exc_info=True)  # --verbosity=1
            status = _refuse(error)
        except KeyboardInterrupt:  # a second Ctrl-C
            status = stop.exit_status or 128 + signal.SIGINT
        except Exception:
            # A signal may break what was going on when it came: that is no bug.
            if not stop.requested:
                raise
            logging.debug("what the signal broke", exc_info=True)
            status = stop.exit_status
    sys.exit(status)


def _refuse(error: Exception) -> int:
    print(f"error: {describe_error(error)}", file=sys.stderr)
    return getattr(error, "exit_status", 2)


if __name__ == "__main__":
    # A training must not end unsaved because the reader of its output has.
    outlive_readers()
    app.run(_main, flags_parser=_parse_flags)
