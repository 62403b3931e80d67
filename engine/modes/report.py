"""Runs `--mode=report`: writes the report of one workdir again, or compares several workdirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from common import json_files, storage
from common.readable import describe_error
from common.split_paths import join_split_paths
from common.workdir_layout import COMPARISON_FILE, REPORT_FILE, VOCAB_FILE
from engine.common import files
from engine.config import builders, recorded_run
from engine.protocols import Components, EvalData
from engine.report.comparison import compare_runs, describe, read_runs, render_comparison
from engine.report.page import TEMPLATES
from engine.report.writer import write_report

_LARGEST_OPTION = 1e6
_NUM_UTTERANCES, _MAX_AUDIO_MB = 100, 8.0  # for runs of older versions, which have no such fields


def run(*, parts: Components, inputs: Sequence[str], output: str = "") -> int:
    """Writes the page, prints its path and returns the exit status.

    Args:
        parts: Callables of data and models, to open the evaluation sets for their audio and to render pages.
        inputs: Workdirs; one gives its report, several give their comparison.
        output: File to write; "" = report.html or comparison.html in the first workdir.

    Raises:
        ValueError: A workdir holds nothing to report.
    """
    if not inputs:
        raise ValueError("--mode=report needs --inputs=WORKDIR, or --inputs=RUN_A,RUN_B to compare runs")
    inputs = join_split_paths(inputs)
    runs = read_runs(inputs)
    if len(inputs) > 1:
        sets = compare_runs(runs)
        page = render_comparison(environment=parts.page_environment(TEMPLATES), runs=runs, sets=sets)
        path = output or storage.join(inputs[0], COMPARISON_FILE)
        files.write_text_atomic(path, page)
        print(f"\n{describe(sets)}\n\nwritten to {path}")
        return 0
    config, workdir = recorded_run.load_run(inputs[0])
    step, metrics = _last_evaluation(runs[0].lines, list(runs[0].predictions))
    if not metrics:
        raise ValueError(f"{workdir}: its metrics.jsonl has no evaluation; evaluate it with --mode=eval")
    path = write_report(
        workdir=workdir,
        training_workdir=workdir,
        step=step,
        metrics={
            name: {key: value for key, value in line.items() if key not in ("step", "split")}
            for name, line in metrics.items()
        },
        data=_open_sets(config, parts, workdir, list(metrics)),
        page_environment=parts.page_environment,
        max_utterances=_option(config, "report_utterances", int, 0) or _NUM_UTTERANCES,
        max_audio_mb=_option(config, "report_max_audio_mb", float, _MAX_AUDIO_MB),
        path=output or storage.join(workdir, REPORT_FILE),
    )
    print(f"\nwritten to {path}")
    return 0


def _option(config: Any, name: str, kind: type, default: Any) -> Any:
    """Returns eval.NAME of a run; the default if it is missing or a report cannot use it."""
    group = config.to_dict().get("eval")
    value = group.get(name, default) if isinstance(group, dict) else default
    if json_files.is_kind(value, kind) and 0 <= value <= _LARGEST_OPTION:
        return value
    shown = json_files.describe(value)
    logging.warning("eval.%s is %s in config.json of the run; the report takes %s", name, shown, default)
    return default


def _open_sets(config: Any, parts: Components, workdir: str, names: Sequence[str]) -> dict[str, EvalData]:
    """Opens the evaluated sets by the names of their metrics; a set that no longer exists is logged and left out."""
    opened: dict[str, EvalData] = {}
    try:
        tokenizer = parts.build_tokenizer(storage.join(workdir, VOCAB_FILE))
        # Short names first: dev-clean is a set of its own, not a way of decoding dev.
        bases = sorted(config.data.eval, key=len)
    # Any error, here and below: a page without audio is better than none.
    except Exception as error:
        logging.warning("no audio in the report: %s", describe_error(error))
        return opened
    for base in bases:
        own = [name for name in names if name == base or name.startswith(f"{base}-")]
        try:
            data = builders.build_eval_set(config, parts, tokenizer, base) if own else None
        except Exception as error:
            logging.warning("no audio of %s in the report: %s", base, describe_error(error))
            continue
        if data is not None:
            opened |= dict.fromkeys(own, data)
    return opened


def _last_evaluation(
    lines: Sequence[Mapping[str, Any]], names: Sequence[str]
) -> tuple[int, dict[str, Mapping[str, Any]]]:
    """Returns the update of the last evaluation in metrics.jsonl, and {set: line} of its sets among `names`."""
    last = {line["split"]: line for line in lines if line.get("split") in names}
    if not last:
        return 0, {}
    step = next(line["step"] for line in reversed(lines) if line.get("split") in last)
    return step, {name: line for name, line in last.items() if line["step"] == step}
