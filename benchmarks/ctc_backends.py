"""Compares the CTC loss's back ends on one device: exactness, kernels, and the time of loss and gradient.

    python -m benchmarks.ctc_backends --device=cpu
    python -m benchmarks.ctc_backends --device=gpu --rows=8 --repeats=50

Logits are random. Errors are those of the gradient against float64, at a scale at which a model guesses (1) and at one
at which it is sure and wrong (30). `launches` is what the device is told to run for one batch: the kernels that XLA has
made, or TensorFlow's operations where nothing is compiled. Results: docs/decisions/0011.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import tensorflow as tf

from benchmarks import ctc_error
from models.ctc import loss as ctc
from models.ops.devices import device_type

_LossFn: TypeAlias = Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
_SCALES = (1.0, 30.0)
_COLUMNS = ("back end", *(f"gradient error, scale {scale:g}" for scale in _SCALES), "launches", "ms", "compile, s")
# Instructions of HLO and operations of TensorFlow that run nothing.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}
_FREE_OPS = {"Const", "Placeholder", "Identity", "IdentityN", "NoOp", "Shape", "_Arg", "_Retval", "StopGradient"}
_LOOPS = ("While", "StatelessWhile")
_CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?:\(.*?\)|\S+) ([a-z][\w\-]*)\(")


def losses_of(backend: str) -> _LossFn:
    """Returns a loss of full rows, (logits [B, F, V], labels [B, L]) -> [B], by one of our back ends."""

    def compute(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        num_rows, num_frames, _ = logits.shape
        num_labels = labels.shape[1]
        lengths = tf.fill([num_rows], num_frames), labels, tf.fill([num_rows], num_labels)
        return ctc.ctc_loss(logits, *lengths, backend=backend)

    return compute


# Name -> loss, and whether the table is about all of it compiled by XLA.
KINDS: dict[str, tuple[_LossFn, bool]] = {
    **{name: (losses_of(name), False) for name in ctc.BACKENDS},
    "tf.nn.ctc_loss, dense, by XLA": (ctc_error.dense, True),
    "tf.nn.ctc_loss, sparse, on the host": (ctc_error.sparse, False),
}


def count_kernels(hlo: str) -> int:
    """Returns how many kernels a program of XLA runs, with a loop's as often as it goes round.

    Args:
        hlo: Text of the optimized program.
    """
    computations: dict[str, list[str]] = {}
    name = entry = ""
    for line in hlo.splitlines():
        if line.endswith("{") and (start := re.match(r"(ENTRY )?%?([\w.\-]+) \(", line)):
            name = start[2]
            entry = name if start[1] else entry
            computations[name] = []
        elif name:
            computations[name].append(line)

    def called(line: str, kind: str) -> str:
        found = re.search(rf"{kind}=%?([\w.\-]+)", line)
        return found[1] if found else ""

    def count(name: str) -> int:
        return sum(_runs(line, called, count, computations) for line in computations[name])

    return count(entry)


def _runs(
    line: str,
    called: Callable[[str, str], str],
    count: Callable[[str], int],
    computations: Mapping[str, list[str]],
) -> int:
    """Returns the kernels that an instruction runs."""
    if not (found := _INSTRUCTION.match(line)) or found[1] in _FREE:
        return 0
    if found[1] == "call":
        return count(called(line, "to_apply"))
    if found[1] != "while":
        return 1
    condition = called(line, "condition")
    return _trip_count(line, condition, computations) * (count(called(line, "body")) + count(condition))


def _trip_count(line: str, condition: str, computations: Mapping[str, list[str]]) -> int:
    """Returns how often a loop goes round: XLA says it, or its condition compares a counter with a constant."""
    if known := re.search(r'"known_trip_count":\{"n":"(\d+)"', line):
        return int(known[1])
    lines = list(computations[condition])
    for other in computations[condition]:
        if inner := re.search(r"calls=%?([\w.\-]+)", other):
            lines += computations[inner[1]]
    limits = [int(found[1]) for text in lines if (found := re.search(r"s32\[\]\S* constant\((\d+)\)", text))]
    if not limits:
        raise ValueError(f"how often does this loop go round? {line.strip()[:200]}")
    return max(limits)


def count_operations(function: tf.types.experimental.ConcreteFunction, *, num_steps: int) -> int:
    """Returns how many of TensorFlow's operations a graph runs, if each of its loops goes round `num_steps` times."""
    graph = function.graph.as_graph_def()
    library = {definition.signature.name: definition.node_def for definition in graph.library.function}

    def count(nodes: Iterable[Any]) -> int:
        return sum(runs(node) for node in nodes)

    def runs(node: Any) -> int:
        if node.op in _LOOPS:
            return num_steps * sum(count(library[node.attr[part].func.name]) for part in ("cond", "body"))
        if node.op in _CALLS:
            return count(library[node.attr["f"].func.name])
        return 0 if node.op in _FREE_OPS else count(library[node.op]) if node.op in library else 1

    return count(graph.node)


def _launches(name: str, batch: tuple[tf.Tensor, tf.Tensor]) -> int:
    loss_fn, is_compiled = KINDS[name]
    if name in ("xla", "blocks") or is_compiled:
        run = ctc_error.with_gradient(loss_fn, jit_compile=True)
        return count_kernels(run.experimental_get_compiler_ir(*batch)(stage="optimized_hlo"))
    run = ctc_error.with_gradient(loss_fn)
    return count_operations(run.get_concrete_function(*batch), num_steps=batch[0].shape[1])


def measure(name: str, size: tuple[int, int, int, int], *, num_repeats: int) -> list[str]:
    """Returns a row of the table for one of `KINDS`.

    Args:
        name: Key of `KINDS`.
        size: Rows, frames, labels and tokens.
        num_repeats: Number of timed calls, of which the fastest counts.
    """
    loss_fn, is_compiled = KINDS[name]
    run, errors = ctc_error.with_gradient(loss_fn, jit_compile=is_compiled), []
    compile_secs = 0.0
    for scale in _SCALES:
        batch = ctc_error.make_batch(*size, scale)
        start = time.perf_counter()
        found = run(*batch)[1].numpy()
        compile_secs = max(compile_secs, time.perf_counter() - start)
        _, wanted = ctc_error.oracle(batch[0][0].numpy(), batch[1][0].numpy())
        errors.append(f"{np.linalg.norm(found[0] - wanted) / np.linalg.norm(wanted):.1e}")
    batch, times = ctc_error.make_batch(*size, _SCALES[0]), []
    for _ in range(num_repeats):
        start = time.perf_counter()
        run(*batch)[1].numpy()
        times.append(time.perf_counter() - start)
    return [name, *errors, f"{_launches(name, batch):,}", f"{1000 * min(times):.1f}", f"{compile_secs:.1f}"]


def table(size: tuple[int, int, int, int], *, num_repeats: int, names: Iterable[str] = tuple(KINDS)) -> Iterator[str]:
    """Yields the lines of the table; a back end that this device cannot run has a line that says so."""
    yield "| " + " | ".join(_COLUMNS) + " |"
    yield "|---" * len(_COLUMNS) + "|"
    for name in names:
        try:
            row = measure(name, size, num_repeats=num_repeats)
        except tf.errors.OpError as error:
            reason = (error.message.splitlines() or [type(error).__name__])[0]
            row = [name, f"cannot run here: {reason[:100]}", *[""] * (len(_COLUMNS) - 2)]
        yield "| " + " | ".join(row) + " |"


def main(argv: list[str]) -> None:
    """Prints the table of one device."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--rows", type=int, default=8, help="rows of a microbatch")
    parser.add_argument("--frames", type=int, default=749, help="frames of a row; 749 are 15 s")
    parser.add_argument("--labels", type=int, default=200, help="labels of a row")
    parser.add_argument("--tokens", type=int, default=32, help="size of the vocabulary")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls, of which the fastest counts")
    parser.add_argument("--backends", default=";".join(KINDS), help="rows of the table, with semicolons between")
    flags = parser.parse_args(argv)
    names = flags.backends.split(";")
    if unknown := [name for name in names if name not in KINDS]:
        parser.error(f"--backends: no {unknown[0]!r}; there are {'; '.join(KINDS)}")
    if flags.device == "cpu":
        tf.config.set_visible_devices([], "GPU")
    elif device_type() != "GPU":
        parser.error("--device=gpu: TensorFlow sees no GPU")
    size = flags.rows, flags.frames, flags.labels, flags.tokens
    print(f"{flags.device}: {flags.rows} rows of {flags.frames} frames, {flags.labels} labels, {flags.tokens} tokens\n")
    with tf.device(f"{flags.device}:0"):
        for line in table(size, num_repeats=flags.repeats, names=names):
            print(line, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
