"""Profiles an update: sums up the kernels of TensorFlow's trace by region of the network.

`benchmarks.train_throughput --profile=FOLDER` makes the trace on one thread, where kernels run one after another. So
their times add up to the processor time of the pass, and other load on the machine affects all alike.
"""

from __future__ import annotations

import collections
import dataclasses
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import cases, pictures, protocol
from benchmarks.measure import Case

# The first pattern that matches the name of an operation is its region. Names of the backward pass contain those of the
# forward pass.
REGIONS = (
    ("feature encoder", r"feature_encoder/"),
    ("positional convolution", r"positional_convolution"),
    ("attention: projections", r"_attention_(qkv|qk|value|position|out)/"),
    ("attention: softmax, dropout, context", r"_attention/"),
    ("feed-forward", r"_(intermediate|output)/|encoder_layers_\d+_(first|second)/"),
    ("convolution module", r"encoder_layers_\d+_convolution(_gated|_out)?/"),
    ("norms, residuals", r"_norm/|encoder/norm|encoder_layers_\d+/|^AddN"),
    # Before the loss, because the name of the model contains "ctc".
    ("projection, masks, head", r"feature_projection|wav2vec2_for_ctc|/head/"),
    ("CTC", r"CTC|ctc|log_softmax|SparseTo|boolean_mask"),
    ("optimizer", r"Adam|global_norm|clip|ResourceApply"),
)
# Operations with the name of a layer but not of a part.
_WHOLE_LAYER = "norms, residuals"
_OTHER = "other"
# TensorFlow calls the gradient of a fused operation without the name of its layer, so its content identifies it.
_NAMELESS = re.compile(r"^(?:gradients/|cond/)*(?:Stateful)?PartitionedCall(?:_\d+)?(?=/|$)")
_CONTENTS = (
    ("attention: softmax, dropout, context", r"BatchMatMul|logits_backward|probs_dropped"),
    ("convolution module", r"Depthwise|glu_(forward|backward)"),
    ("feed-forward", r"(gelu|swish)_(forward|backward)"),
    ("norms, residuals", r"norm_(forward|backward)|add_forward|_drop_"),
)
_PRODUCT = re.compile(r"MatMul|Conv2[Dd]|Einsum|FFT")
_OPERATION = re.compile(r"^([\w/\-.]+):([A-Za-z_]\w*)$")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One run of a kernel, or of a function that calls kernels.

    Attributes:
        thread: Thread that it ran on.
        start: Start in picoseconds.
        end: End in picoseconds; it includes all kernels in between on the same thread.
        name: Name of the operation; "" for a part of a compiled program.
        kind: Type of the operation.
        module: Compiled program that it is a part of; "" for none.
    """

    thread: str
    start: int
    end: int
    name: str
    kind: str
    module: str = ""


@dataclasses.dataclass(frozen=True)
class RegionTime:
    """Seconds of a region, in total and in matrix products and convolutions."""

    region: str
    secs: float
    product_secs: float


def measure(
    case: Case, *, device: str, model: Mapping[str, Any], trace: str, num_warm_up: int = 2
) -> tuple[list[RegionTime], float]:
    """Returns the times of the regions in our pass over a case, and the processor seconds of the whole pass.

    Args:
        case: Case to run.
        device: "cpu" or "gpu".
        model: Fields of `models.wav2vec2.model.build_model`.
        trace: Folder for TensorFlow's trace.
        num_warm_up: Passes before the trace, in which TensorFlow traces and compiles.
    """
    with tempfile.TemporaryDirectory() as folder:
        batches = str(Path(folder) / "batches.npz")
        cases.save(batches, case.ours)
        spec = protocol.Spec(task=case.task, precision=case.precision, device=device, batches=batches, model=model)
        arguments = {**dataclasses.asdict(spec), "num_threads": 1}
        with protocol.Worker(python=sys.executable, module="benchmarks.our_worker", arguments=arguments) as worker:
            for _ in range(num_warm_up):
                worker.ask("run_once")
            answer = worker.ask("profile", folder=trace)
    return attribute(read_kernels(trace)), answer["cpu_secs"]


def read_kernels(folder: str | os.PathLike[str]) -> list[Kernel]:
    """Reads the newest trace of `tf.profiler.experimental` in `folder`.

    Raises:
        OSError: If there is none.
    """
    # Imported here, because the rest of this module does not need TensorFlow.
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    paths = sorted(Path(folder).glob("plugins/profile/*/*.xplane.pb"))
    if not paths:
        raise OSError(f"{folder} has no trace (plugins/profile/*/*.xplane.pb)")
    space = xplane_pb2.XSpace()
    space.ParseFromString(paths[-1].read_bytes())
    kernels = []
    for plane in space.planes:
        names = {key: value.name for key, value in plane.stat_metadata.items()}
        for line in plane.lines:
            for event in line.events:
                title = plane.event_metadata[event.metadata_id].name
                stats = {names[s.metadata_id]: s.str_value or names.get(s.ref_value, "") for s in event.stats}
                operation = _OPERATION.match(title)
                if operation:
                    name, kind = operation.groups()
                elif title == "ExecutorState::ProcessAsync::Start":
                    name, kind = stats.get("name", ""), stats.get("kernel_type", "")
                elif stats.get("hlo_module"):
                    name, kind = "", ""
                else:
                    continue
                end = event.offset_ps + event.duration_ps
                kernels.append(Kernel(line.name, event.offset_ps, end, name, kind, stats.get("hlo_module", "")))
    return kernels


def attribute(kernels: Iterable[Kernel]) -> list[RegionTime]:
    """Sums up the times by region, largest first, without counting nested kernels twice."""
    secs = self_times(kernels)
    contents: dict[str, list[str]] = collections.defaultdict(list)
    for kernel, caller, _ in secs:
        root = _NAMELESS.match(kernel.name or caller)
        if root:
            contents[root.group()].append(f"{kernel.kind} {kernel.module}")
    # Parts of compiled programs also run on threads without a caller; the owner of the program identifies them.
    owners: dict[str, str] = {}
    for kernel, caller, _ in secs:
        if kernel.module and caller:
            owners.setdefault(kernel.module, _region(caller, contents))
    totals: dict[str, float] = collections.defaultdict(float)
    products: dict[str, float] = collections.defaultdict(float)
    for kernel, caller, own in secs:
        name = kernel.name or caller
        region = _region(name, contents) if name else owners.get(kernel.module, _by_contents([kernel.module]))
        if region == _WHOLE_LAYER and "gelu_" in kernel.module:
            region = "feed-forward"  # the only GELU of a layer
        totals[region] += own
        if _PRODUCT.search(kernel.kind):
            products[region] += own
    found = [RegionTime(region, total, products[region]) for region, total in totals.items()]
    return sorted(found, key=lambda one: -one.secs)


def self_times(kernels: Iterable[Kernel]) -> list[tuple[Kernel, str, float]]:
    """Returns each kernel, its innermost named operation, and its seconds without nested kernels."""
    threads: dict[str, list[Kernel]] = collections.defaultdict(list)
    for kernel in kernels:
        threads[kernel.thread].append(kernel)
    found = []
    for members in threads.values():
        inside: list[float] = []
        stack: list[tuple[Kernel, int]] = []
        members.sort(key=lambda kernel: (kernel.start, -kernel.end))
        callers = []
        for position, kernel in enumerate(members):
            while stack and stack[-1][0].end <= kernel.start:
                stack.pop()
            if stack:
                inside[stack[-1][1]] += kernel.end - kernel.start
            callers.append(next((outer.name for outer, _ in reversed(stack) if outer.name), ""))
            inside.append(0.0)
            stack.append((kernel, position))
        for kernel, caller, used in zip(members, callers, inside, strict=True):
            found.append((kernel, caller, max(0.0, kernel.end - kernel.start - used) / 1e12))
    return found


def _region(name: str, contents: dict[str, list[str]]) -> str:
    root = _NAMELESS.match(name)
    if root:
        return _by_contents(contents[root.group()])
    return next((region for region, pattern in REGIONS if re.search(pattern, name)), _OTHER)


def _by_contents(kinds: Sequence[str]) -> str:
    joined = "\n".join(kinds)
    return next((region for region, pattern in _CONTENTS if re.search(pattern, joined)), _OTHER)


def table(times: Sequence[RegionTime], *, pass_secs: float) -> str:
    """Returns a Markdown table; its last row is the time outside of kernels (TensorFlow's executor, Python)."""
    rest = max(0.0, pass_secs - sum(one.secs for one in times))
    lines = ["| region | ms | share | products and convolutions, ms | all else, ms |", "|---|---|---|---|---|"]
    rows = [*times, RegionTime("between kernels", rest, 0.0)]
    total = RegionTime("**all**", sum(one.secs for one in rows), sum(one.product_secs for one in rows))
    for one in [*rows, total]:
        lines.append(
            f"| {one.region} | {1e3 * one.secs:.0f} | {100 * one.secs / total.secs:.1f} % | "
            f"{1e3 * one.product_secs:.0f} | {1e3 * (one.secs - one.product_secs):.0f} |"
        )
    return "\n".join(lines)


def draw(times: Sequence[RegionTime], path: str | os.PathLike[str], *, title: str) -> None:
    """Draws an SVG with a bar for each region, with products dark and the rest light."""
    shown = [one for one in reversed(times) if one.secs > 0]
    names = [one.region for one in shown]
    products = [1e3 * one.product_secs for one in shown]
    others = [1e3 * (one.secs - one.product_secs) for one in shown]
    with pictures.panels(path, count=1, width=7.0, height=0.9 + 0.28 * len(shown)) as (panel,):
        panel.barh(names, products, color=pictures.DARK, label="matrix products and convolutions")
        bars = panel.barh(names, others, left=products, color=pictures.LIGHT, label="all else")
        panel.bar_label(bars, [f"{1e3 * one.secs:.0f} ms" for one in shown], padding=3)
        panel.set_title(title)
        panel.set_xlabel("processor time of one pass, ms")
        panel.margins(x=0.16)  # space for the label of the longest bar
        panel.spines[["top", "right"]].set_visible(False)
        panel.legend(loc="lower right", frameon=False)
