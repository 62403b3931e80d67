r"""Merges marks of wrong transcripts, which report.html and doctor.html export, into a manifest.

python -m data.apply_corrections --input=train.jsonl --corrections=marks-base.jsonl [--output=corrected.jsonl]

A transcript with a correction gets it; one without is left out. The manifest is replaced as a whole, its other lines
stay as they are, and what was changed is kept beside it in NAME.changes.jsonl. The same command again changes nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from common import storage
from common.json_files import MalformedFileError, parse_object
from common.near_files import describe_near
from data.command import Parser, comma_list, run_command
from data.common.errors import InputError
from data.common.files import only_writer, write_text_atomic
from data.corpus.corrections import Mark, Merged, changes_path, merge_marks, read_marks
from data.corpus.faults import Fault
from data.corpus.manifest import MANIFEST_FORMATS, ONE_FILE_FORMATS, format_jsonl, read_fields, read_utterances
from data.corpus.records import iterate_lines
from data.corpus.utterance import suffix

_NUM_NAMED = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(prog="data.apply_corrections", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--input", required=True, help="manifest to correct")
    add("--corrections", required=True, help="comma-separated files of exported marks")
    add("--output", default="", help="manifest to write (default: --input itself)")
    add("--set", default="", help="merge the marks of this set of the run only, such as train or dev")
    add("--format", default="", choices=("", *MANIFEST_FORMATS), help="format (default: by the ending of --input)")
    add("--text_column", default="", help="key or column of the transcripts (default: text or another known one)")
    add("--split", default="", help="part of a corpus that is no single manifest (default: all)")
    return run_command(parser, _apply, argv)


def _apply(flags: argparse.Namespace) -> None:
    path, output, format = flags.input, flags.output or flags.input, _choose_format(flags)
    marks, faults = read_marks(comma_list(flags.corrections), flags.set)
    folder = os.path.dirname(output) or "."
    if not storage.is_remote(folder):
        os.makedirs(folder, exist_ok=True)
    with only_writer(folder, wait_secs=5.0):
        changed = _read_changes(changes_path(output))
        if format in ONE_FILE_FORMATS:
            content, merged = merge_marks(path, marks, changed, flags.text_column)
        else:
            content, merged = _merge_corpus(flags, format, marks, changed)
        if merged.changes:  # first, so that nothing is lost if the process ends in between
            new = [change for change in merged.changes if change not in changed]
            _write_changes(changes_path(output), [*changed, *new])
        if merged.changes or output != path:
            write_text_atomic(output, content)
    _print_summary(output, merged, [*faults, *merged.faults])


def _choose_format(flags: argparse.Namespace) -> str:
    """Returns the format of the corpus to correct; raises InputError if the flags do not go with it."""
    format = flags.format or suffix(flags.input).removeprefix(".")
    if format in ONE_FILE_FORMATS:
        _check_manifest(flags.input, flags.output or flags.input, format, flags.split)
    elif not flags.format or not flags.output.endswith(".jsonl"):
        raise InputError(
            f"{flags.input} is no .jsonl, .csv or .tsv manifest: give its --format, and an --output.jsonl for the "
            "corrected corpus"
        )
    return format


def _check_manifest(path: str, output: str, format: str, split: str) -> None:
    """Checks that a single manifest can be corrected and written to `output`.

    Raises:
        InputError: If it cannot.
    """
    if not storage.is_file(path):
        raise InputError(f"no manifest {path}: give the path of a file{describe_near(path)}")
    if split:
        raise InputError(f"--split={split}: {path} is a single manifest, which is corrected as a whole: leave it out")
    if not path.lower().endswith(f".{format}"):
        raise InputError(f"{path} does not end with .{format}: rename it, or give its --format")
    if os.path.splitext(output)[1] != os.path.splitext(path)[1]:
        raise InputError(f"--output={output}: a corrected manifest has the format and the ending of --input")
    if os.path.dirname(os.path.abspath(output)) != os.path.dirname(os.path.abspath(path)):
        raise InputError(f"--output={output}: is in another folder than {path}, to which its paths are relative")


def _merge_corpus(
    flags: argparse.Namespace, format: str, marks: dict[str, Mark], changed: Sequence[dict[str, Any]]
) -> tuple[str, Merged]:
    """Merges marks into a corpus that is no single manifest, and returns it as a JSON-lines manifest."""
    faults: list[Fault] = []
    merged, kept, missing = Merged(), [], dict(marks)
    utterances = read_utterances(
        format=format, input=flags.input, split=flags.split, text_column=flags.text_column, report=faults.append
    )
    for utterance in utterances:
        text: str | None = utterance.text
        if mark := missing.pop(utterance.utterance_id, None):
            text = merged.merge(mark, utterance.text, "")
        if text is not None:
            kept.append(dataclasses.replace(utterance, text=text))
    merged.miss(missing.values(), flags.input, changed)
    for fault in faults:
        print(f"data.apply_corrections: warning: {fault.message}", file=sys.stderr)
    fields = read_fields(kept, format=format, input=flags.input, split=flags.split)
    return format_jsonl(flags.output, kept, fields), merged


def _read_changes(path: str) -> list[dict[str, Any]]:
    if not storage.is_file(path):
        return []
    try:
        return [parse_object(line, f"{path}:{number}") for number, line in iterate_lines(path)]
    except MalformedFileError as error:
        raise InputError(f"{error}; it keeps what was changed before: mend it, or move it away") from error


def _write_changes(path: str, changes: Sequence[Mapping[str, Any]]) -> None:
    write_text_atomic(path, "".join(json.dumps(change, ensure_ascii=False) + "\n" for change in changes))


def _print_summary(output: str, merged: Merged, faults: Sequence[str]) -> None:
    counts = f"{len(merged.corrected)} corrected, {len(merged.left_out)} left out"
    before = f", {len(merged.before)} merged before" if merged.before else ""
    kept = f"; what was there is in {changes_path(output)}" if merged.changes else ""
    print(f"{output}: {counts}{before}{kept}")
    if faults:
        for line in faults[1:_NUM_NAMED]:
            print(f"data.apply_corrections: {line}", file=sys.stderr)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise InputError(f"{faults[0]}{more}")


if __name__ == "__main__":
    sys.exit(main())
