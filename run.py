"""Flags to config to parts to one call: the command line of Earshot.

python run.py --config=configs/base.py [--workdir=runs/base] [--mode=train_and_eval] [--strategy=auto]
python run.py --mode=transcribe --checkpoint=WORKDIR --inputs=a.wav,b.flac,dir/ --output=out.jsonl
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

# Before TensorFlow starts: its notes on CUDA libraries that a CPU machine lacks would bury ours.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow imports the Keras that `tf.keras` would be: Keras 3, and with it scikit-learn, for nobody.
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from absl import app, flags, logging
from ml_collections import config_flags

from common.streams import outlive_readers
from configs.base import get_config, get_decode, get_eval_set, get_serve
from engine.common.signals import StopOnSignal
from engine.config import config_file, early_checks
from engine.config.decode import give_decode
from engine.config.flags import (
    RUN_MODES,
    check_arguments,
    check_flags,
    default_workdir,
    explain_flag_error,
)
from engine.console.log import configure_logging

_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of the run; default runs/NAME of the config.")
_MODES = ["train", "eval", "train_and_eval", "continuous_eval", "doctor", "verify_resume"]
_MODES += ["transcribe", "align", "export", "serve", "tune_lm", "report"]
_MODE = flags.DEFINE_enum("mode", "train_and_eval", _MODES, "What to do.")
_STRATEGIES = ["auto", "one_device", "mirrored", "multi_worker", "tpu"]
_STRATEGY = flags.DEFINE_enum("strategy", "auto", _STRATEGIES, "Where it runs.")
_TPU = flags.DEFINE_string("tpu", "", "TPU to run on: its name, HOST:PORT, or local.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "Workdir or checkpoint to evaluate or transcribe with.")
_WEIGHTS = flags.DEFINE_enum("weights", "", ["", "raw", "ema"], "Of a checkpoint with both; default: raw, or best/'s.")
_INPUTS = flags.DEFINE_list("inputs", [], "Audio files, folders, patterns; - for standard input. Of report: workdirs.")
_OUTPUT = flags.DEFINE_string("output", "", "Transcripts (.jsonl, .tsv, .txt, .srt, .vtt), exported folder, or page.")
_DECODE = flags.DEFINE_string("decode", "", "JSON of config.decode's fields, as --mode=tune_lm writes; they win.")
_HOT_WORDS = flags.DEFINE_list("hot_words", [], "Words to prefer; like decode.hot_words, and no longer greedy.")
_WINDOW_SECS = flags.DEFINE_float("window_secs", 30.0, "Longest piece at once; best as in training.", lower_bound=1.0)
_EXPORT_FORMATS = flags.DEFINE_list(
    "export_formats", [], "Beside the SavedModel: tflite_float32, tflite_float16, tflite_dynamic, onnx."
)
_OUTPUT_FORMAT = flags.DEFINE_string("output_format", "", "Format, where the output's name tells none.")


def main(argv: list[str], stop: StopOnSignal) -> int:
    """Runs one mode and returns the exit status; `stop` hears the signals."""
    check_arguments(argv[1:])
    check_flags(_MODE.value, [name for name in _given_flags() if name != "mode"])
    configure_logging()
    has_config = flags.FLAGS.config is not None
    decode_defaults = get_decode().to_dict()
    decode_given = give_decode(
        flags.FLAGS.config.decode.to_dict() if has_config else {},
        known=decode_defaults,
        path=_DECODE.value,
        hot_words=_HOT_WORDS.value,
    )
    if has_config:
        flags.FLAGS.config.decode.update(decode_given)
    workdir = _WORKDIR.value
    if has_config and not workdir:
        workdir = default_workdir(flags.FLAGS["config"].config_filename, flags.FLAGS.config.get("name", ""))
    check_early(workdir, decode_given)
    # Here and not above: a wrong flag, value or path should not wait for TensorFlow.
    from common import storage
    from common.workdir_layout import REPORT_FILE
    from data.audio.decoding import normalize_waveform
    from data.audio.streaming import duration_samples, stream_audio
    from data.batches.datasets import EvalData, TrainData
    from data.common.page import page_environment
    from data.corpus.references import find_reference
    from data.doctor.examine import SetToExamine, examine
    from data.doctor.html_report import write_report
    from data.doctor.preflight import check_before_training
    from data.text.tokenizer import load_tokenizer
    from engine import experiment
    from engine.console.error_table import error_table
    from engine.inference import loading
    from engine.modes import align, doctor, export, report, tune_lm, verify_resume
    from engine.protocols import Components
    from models.architecture import find_architecture
    from models.build import build_model
    from models.convert import fetch_weights
    from models.ctc import alignment, greedy, loss
    from models.memory_estimate import measure_model
    from models.search.build import build_search

    parts = Components(
        build_tokenizer=load_tokenizer,
        build_train_data=TrainData,
        build_eval_data=EvalData,
        find_architecture=find_architecture,
        build_model=build_model,
        count_samples=duration_samples,
        stream_audio=stream_audio,
        normalize_waveform=normalize_waveform,
        find_reference=find_reference,
        loss_fn=loss.ctc_loss,
        feasible_fn=loss.feasible,
        decoder=greedy.greedy_decode,
        span_decoder=alignment.greedy_spans,
        span_graph_decoder=greedy.greedy_decode_spans,
        aligner=alignment.forced_align,
        page_environment=page_environment,
        build_search=build_search,
        preflight=check_before_training,
        fetch_weights=fetch_weights,
    )
    checkpoint = parts.fetch_weights(_CHECKPOINT.value)
    if _MODE.value == "export":
        return export.run(
            parts=parts,
            checkpoint=checkpoint,
            inputs=_INPUTS.value,
            output=_OUTPUT.value,
            weights=_WEIGHTS.value,
            formats=_EXPORT_FORMATS.value,
        )
    if _MODE.value == "serve":
        from engine.modes import serve  # its web server is an extra

        return serve.run(
            parts=parts,
            checkpoint=checkpoint,
            options=flags.FLAGS.serve.to_dict(),
            stop=stop,
            weights=_WEIGHTS.value,
            window_secs=_WINDOW_SECS.value,
            decode_defaults=decode_defaults,
            decode_given=decode_given,
        )
    if _MODE.value == "report":
        return report.run(parts=parts, inputs=_INPUTS.value, output=_OUTPUT.value)
    if _MODE.value == "align":
        return align.run(
            parts=parts,
            checkpoint=checkpoint,
            inputs=_INPUTS.value,
            output=_OUTPUT.value,
            weights=_WEIGHTS.value,
        )
    if _MODE.value == "transcribe":
        return loading.run(
            parts=parts,
            checkpoint=checkpoint,
            inputs=_INPUTS.value,
            output=_OUTPUT.value,
            output_format=_OUTPUT_FORMAT.value,
            window_secs=_WINDOW_SECS.value,
            weights=_WEIGHTS.value,
            decode_defaults=decode_defaults,
            decode_given=decode_given,
        )
    config = flags.FLAGS.config
    if _MODE.value == "verify_resume":
        return verify_resume.run(config=config, command=[sys.executable, *sys.argv], workdir=workdir)
    if _MODE.value == "doctor":
        return doctor.run(
            config=config,
            parts=parts,
            workdir=workdir,
            strategy_name=_STRATEGY.value,
            measure_model=measure_model,
            set_type=SetToExamine,
            examine=examine,
            write_report=write_report,
        )
    if _MODE.value == "tune_lm":
        return tune_lm.run(
            config=config,
            parts=parts,
            workdir=workdir,
            checkpoint=checkpoint,
            weights=_WEIGHTS.value,
            output=_OUTPUT.value,
        )
    outcome = experiment.run(
        config=config,
        parts=parts,
        workdir=workdir,
        mode=_MODE.value,
        strategy_name=_STRATEGY.value,
        tpu=_TPU.value,
        checkpoint=checkpoint,
        stop=stop,
        weights=_WEIGHTS.value,
    )
    if outcome.metrics:
        print(f"\n{error_table(outcome.metrics)}\n")
        if storage.is_file(page := storage.join(workdir, REPORT_FILE)):
            print(f"report: {page}\n")
    return outcome.exit_status


def check_early(workdir: str, decode_given: Mapping[str, Any]) -> None:
    """Checks values, paths and extras before TensorFlow is imported.

    Args:
        workdir: The run's folder; "" where the mode has none.
        decode_given: The fields of config.decode that the command line gives.

    Raises:
        ValueError: Something cannot be used as given.
    """
    from data.open_corpus import FORMATS
    from data.text.tokenizer import TEXT_STYLES
    from models.search.build import METHODS
    from models.wav2vec2.presets import PRESETS

    choices = {"data.text_style": ("auto", *TEXT_STYLES), "data.train.format": FORMATS, "data.eval.*.format": FORMATS}
    mode, config = _MODE.value, flags.FLAGS.config
    early_checks.check_values({"decode": decode_given}, choices={"decode.method": METHODS})
    if config is not None:
        early_checks.check_values(config.to_dict(), choices=choices)
    early_checks.check_decode(decode_given)
    if workdir and mode in RUN_MODES:
        early_checks.check_run(
            config.to_dict(), mode=mode, workdir=workdir, checkpoint=_CHECKPOINT.value, presets=["auto", *PRESETS]
        )
    if mode == "serve":
        early_checks.check_values(flags.FLAGS.serve.to_dict(), choices={}, prefix="serve.")
    if mode == "tune_lm" and _OUTPUT.value:
        early_checks.check_file("--output", _OUTPUT.value)
    if mode not in RUN_MODES:
        early_checks.check_use(
            mode=mode,
            checkpoint=_CHECKPOINT.value,
            inputs=_INPUTS.value,
            output=_OUTPUT.value,
            formats=_EXPORT_FORMATS.value,
            output_format=_OUTPUT_FORMAT.value,
        )


def _given_flags() -> list[str]:
    """Names of this file's flags that stand on the command line; `serve` for each of its fields."""
    given = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0]) if flag.present]
    fields = [name for name in flags.FLAGS if name.startswith("serve.") and flags.FLAGS[name].present]
    return given + ["serve"] * bool(fields)


def _parse_flags(argv: list[str]) -> list[str]:
    template = get_config()
    try:
        given = flags.FLAGS.read_flags_from_files(argv, force_gnu=False)
        parser = config_file.ConfigParser(template=template, new_eval_set=get_eval_set)
        given = parser.prepare(given)
        config_file.check_fields("serve", get_serve(), given)
        # Not where the other flags are: ml_collections reads the command line where it defines these.
        config_flags.DEFINE_config_file(
            "config", None, "Config file; --config.FIELD=VALUE changes a field.", sys_argv=given
        )
        config_flags.DEFINE_config_dict("serve", get_serve(), "Fields of configs.base.get_serve.", sys_argv=given)
        flags.FLAGS["config"].parser = parser
        return flags.FLAGS(given)
    # What absl and ml_collections raise; where they have a riddle, `explain_flag_error` has words.
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError) as error:
        names = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
        fields = [f"config.{name}" for name in config_file.list_fields(template)]
        fields += [f"serve.{name}" for name in config_file.list_fields(get_serve())]
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
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return getattr(error, "exit_status", 2)


if __name__ == "__main__":
    # A training must not end unsaved because the reader of its output has.
    outlive_readers()
    app.run(_main, flags_parser=_parse_flags)
