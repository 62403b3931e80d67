"""Runs `--mode=pseudo_label`: transcribes audio without transcripts into a manifest to train on."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import os
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tensorflow as tf

from common.split_paths import join_split_paths
from engine.common import files
from engine.common.journal import journal_path
from engine.common.progress import progress_bar
from engine.common.signals import StopOnSignal
from engine.distributed import strategy as runtime
from engine.inference.inputs import find_audio
from engine.inference.loading import GREEDY, ReadingOptions, identify_weights, load_transcriber, read_text_rules
from engine.protocols import Components, UnlabelledCorpus
from engine.pseudo_labels import labeller as labellers
from engine.pseudo_labels.label_journal import LabelJournal
from engine.pseudo_labels.labeller import Labeller
from engine.pseudo_labels.labels import UNREADABLE
from engine.pseudo_labels.left_out import left_out_path
from engine.pseudo_labels.summary import Summary

_NUM_SHOWN = 10  # unreadable recordings printed; all are in the file of what was left out


@dataclasses.dataclass(frozen=True)
class _Todo:
    """A row that has no labels, or those of another version of its recording."""

    row: Any
    index: int
    version: dict[str, Any]


def run(
    *,
    parts: Components,
    checkpoint: str,
    inputs: Sequence[str],
    output: str,
    options: Mapping[str, Any],
    weights: str = "",
    reading: ReadingOptions = GREEDY,
    strategy_name: str = "auto",
    num_virtual_devices: int = 0,
    stop: StopOnSignal | None = None,
) -> int:
    """Labels recordings, prints what was kept, and returns the exit status: 2 if any could not be read or none is kept.

    The labels that are kept go to `output`, a manifest of format jsonl, and the others with the reason to the file of
    `left_out_path`, both at the end. Until then what is done is in OUTPUT.partial, from which the same command
    continues; it labels a row anew if the recording or its line in a manifest has changed since.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, a checkpoint inside one, or a folder that --mode=export wrote.
        inputs: Manifests, folders of prepared shards, audio files, folders and patterns.
        output: The manifest to write, with the suffix .jsonl.
        options: The fields of config.pseudo_label.
        weights: "raw", "ema" or "" for the checkpoint's own choice.
        reading: Length of the windows, what is compiled, and how to decode.
        strategy_name: "auto", "one_device" or "mirrored".
        num_virtual_devices: Number of logical devices that the first GPU becomes, or the CPU without one; 0 leaves it
            whole.
        stop: Listens for signals, which end this mode at once; None = nothing does.

    Raises:
        ValueError: An argument is missing or names nothing, or OUTPUT.partial belongs to another command.
    """
    partial = journal_path(output, mode="pseudo_label")
    if stop is not None:
        stop.at_once = f"the labels so far are in {partial}, and the same command continues there"
    runtime.configure_devices(num_virtual_devices=num_virtual_devices)
    strategy = _build_strategy(strategy_name)
    second = parts.fetch_weights(options["second_checkpoint"]) if options["second_checkpoint"] else ""
    how = reading.arguments_for(checkpoint)
    corpus = parts.open_unlabelled(join_split_paths(inputs), find_audio=find_audio, **read_text_rules(checkpoint))
    num_rows = corpus.count()
    load = functools.partial(
        _load,
        parts,
        checkpoint=checkpoint,
        second_checkpoint=second,
        weights=weights,
        options=options,
        output=output,
        strategy=strategy,
        reading=how,
        second_window_secs=reading.window_secs,
        jit_compile=reading.jit_compile,
    )
    settings = {
        **{name: value for name, value in options.items() if name != "batch_size"},
        "inputs": list(inputs),
        "checkpoint": identify_weights(checkpoint, weights),
        "second_checkpoint": identify_weights(second),
        **how,
    }
    with LabelJournal(partial, files.to_json_value(settings)) as journal:
        _check_inputs(corpus, journal, num_rows)
        todo = _find_todo(corpus, journal)
        if first := next(todo, None):
            _label_all(load(), itertools.chain([first], todo), journal, num_rows=num_rows)
        return _finish(journal, output)


def _build_strategy(name: str) -> tf.distribute.Strategy:
    """Builds the strategy of all local devices, or of one."""
    if name == "auto":
        # On a TPU, which "auto" would take, rows of any length would be compiled one by one.
        name = "mirrored" if len(tf.config.list_logical_devices("GPU")) > 1 else "one_device"
    return runtime.build_strategy(name)


def _load(
    parts: Components,
    *,
    checkpoint: str,
    second_checkpoint: str,
    weights: str,
    options: Mapping[str, Any],
    output: str,
    strategy: tf.distribute.Strategy,
    reading: Mapping[str, Any],
    second_window_secs: float | None,
    jit_compile: bool,
) -> Labeller:
    """Loads the recognizers of one view or two; each has windows that suit it, unless their length is given."""
    views: dict[str, Any] = {"count_samples": labellers.count_samples, "stream_audio": labellers.stream_audio}
    load = functools.partial(
        load_transcriber,
        parts=dataclasses.replace(parts, **views),
        batch_size=options["batch_size"] * strategy.num_replicas_in_sync,
        strategy=strategy,
        jit_compile=jit_compile,
        **reading,
    )
    first = load(checkpoint=checkpoint, weights=weights)
    second = first if options["second_speed"] != 1.0 else None
    return Labeller(
        transcriber=first,
        second=load(checkpoint=second_checkpoint, window_secs=second_window_secs) if second_checkpoint else second,
        options=options,
        output=output,
        num_replicas=strategy.num_replicas_in_sync,
    )


def _check_inputs(corpus: UnlabelledCorpus, journal: LabelJournal, num_rows: int) -> None:
    """Prints from which row on the command continues.

    Raises:
        ValueError: The inputs are not those of the journal's rows.
    """
    done = journal.num_done
    if not done:
        return
    last = next(itertools.islice(corpus, done - 1, None), None)
    if done > num_rows or last is None or last.name != journal.last_name:
        raise ValueError(
            f"{journal.path} holds {done} rows up to {journal.last_name}, and --inputs has other rows now: give the "
            "same inputs again, or delete the file to begin anew"
        )
    print(f"continues behind row {done} of {num_rows}, {journal.last_name}")
    if journal.num_unversioned:
        print(
            f"{journal.num_unversioned} rows of {journal.path} are from a version of this program that did not note "
            "the state of recordings: if some have changed, delete the file to begin anew"
        )


def _find_todo(corpus: UnlabelledCorpus, journal: LabelJournal) -> Iterator[_Todo]:
    """Yields the rows that the journal lacks, and those that have changed since."""
    done = journal.latest()
    for index, (row, version) in enumerate(corpus.with_versions()):
        before = next(done, None)
        if before is None or before.get("name") != row.name or before.get("version", version) != version:
            yield _Todo(row, index, version)


def _label_all(labeller: Labeller, todo: Iterator[_Todo], journal: LabelJournal, *, num_rows: int) -> None:
    """Labels rows and keeps them in the journal; a signal may end this at any time."""
    start_secs, audio_secs = time.monotonic(), 0.0
    num_before, num_changed = journal.num_done, 0
    taken: deque[_Todo] = deque()

    def take() -> Iterator[Any]:
        for one in todo:
            taken.append(one)
            yield one.row

    with progress_bar(total=num_rows, description="pseudo_label", unit="utt", initial=num_before) as bar:
        for some in labeller.split(take()):
            done = []
            for row in labeller.label(some):
                one = taken.popleft()
                done.append({**row, "index": one.index, "version": one.version})
            journal.append(done)
            num_changed += sum(row["index"] < num_before for row in done)
            audio_secs += sum(row["audio_secs"] for row in done)
            bar.set_postfix_str(f"RTFx {audio_secs / (time.monotonic() - start_secs):.1f}", refresh=False)
            bar.update(journal.num_done - bar.n)
    elapsed_secs = time.monotonic() - start_secs
    if num_changed:
        print(f"{num_changed} of the earlier rows had changed and were labelled anew")
    print(f"{audio_secs / 3600:.2f} h of audio in {elapsed_secs:.0f} s (RTFx {audio_secs / elapsed_secs:.1f})")


def _finish(journal: LabelJournal, output: str) -> int:
    """Writes both files from the journal, prints the summary, and returns the exit status."""
    summary = Summary()
    unreadable: list[str] = []
    for row in journal.latest():
        for label in row["labels"]:
            summary.add(label)
            if label["reason"] == UNREADABLE and len(unreadable) < _NUM_SHOWN:
                unreadable.append(f"{label['audio_filepath']} was skipped: {label['detail']}")
    left_out = left_out_path(output)
    files.write_jsonl_atomic(left_out, _labels(journal, kept=False))
    files.write_jsonl_atomic(output, _labels(journal, kept=True))
    os.unlink(journal.path)
    print("\n".join(summary.lines()))
    print(f"\nkept: {output}\nleft out, with the reason: {left_out}")
    if summary.num_unreadable > _NUM_SHOWN:
        unreadable.append(f"and {summary.num_unreadable - _NUM_SHOWN} more are in {left_out}")
    if not summary.num_kept:
        unreadable.append("no label was kept: lower the bounds of config.pseudo_label, or train the recognizer longer")
    for line in unreadable:
        print(f"error: {line}", file=sys.stderr)
    return 2 if unreadable else 0


def _labels(journal: LabelJournal, *, kept: bool) -> Iterator[dict[str, Any]]:
    """Yields the lines of the manifest, or those of the file of what was left out."""
    hidden = {"reference_errors", "reference_chars"} | ({"reason"} if kept else set())
    for row in journal.latest():
        for label in row["labels"]:
            if kept == (not label["reason"]):
                yield {name: value for name, value in label.items() if name not in hidden}
