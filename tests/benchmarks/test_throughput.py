"""The two speed benchmarks at tiny sizes: what they run, what they report, and the search for rows that fit.

The reference's part needs an interpreter with PyTorch: EARSHOT_REFERENCE_PYTHON, or this one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
import threading

import numpy as np
import pytest

from benchmarks import cases, inference_throughput, measure, train_throughput
from models.wav2vec2.config import preset

TINY = ["--preset=tiny", "--precisions=float32", "--repeats=1", "--num_samples=8000", "--rows=1"]
REFERENCE = os.environ.get("EARSHOT_REFERENCE_PYTHON") or (sys.executable if importlib.util.find_spec("torch") else "")


def records_of(module, tmp_path, *arguments):
    output = tmp_path / "out.json"
    assert module.main([*TINY, f"--output={output}", *arguments]) == 0
    return json.loads(output.read_text())


@pytest.mark.parametrize("is_compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_our_training_is_measured_without_a_reference(tmp_path, capsys, is_compiled):
    side = "ours, compiled" if is_compiled else "ours"
    flags = ["--ours=compiled"] if is_compiled else []
    found = records_of(train_throughput, tmp_path, "--cases=full", "--no_reference", *flags)
    (record,) = found["records"]
    assert (record["case"], record["side"], record["device"]) == ("1 rows of 8,000 samples", side, "cpu")
    assert record["audio_secs_per_sec"] > 0 and record["peak_memory_bytes"] > 2**28
    assert 0 < record["ceiling_ratio"] < 1
    assert found["command"].startswith("python -m benchmarks.train_throughput --preset=tiny")
    printed = capsys.readouterr().out
    assert f"{side}: {sys.executable} -m benchmarks.our_worker: train, float32, cpu, compile={is_compiled}" in printed
    assert f"\n{side}: tensorflow {record['versions']['tensorflow']}, " in printed


def test_a_gpu_that_is_not_there_is_one_line(tmp_path, capsys):
    assert train_throughput.main([*TINY, "--cases=full", "--device=gpu", "--no_reference"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("TensorFlow sees no GPU")


@pytest.mark.skipif(not REFERENCE, reason="no interpreter with PyTorch: set EARSHOT_REFERENCE_PYTHON")
def test_inference_is_measured_beside_the_reference(tmp_path):
    arguments = ["--full", "--batch_sizes", f"--reference_python={REFERENCE}"]
    ours, theirs = records_of(inference_throughput, tmp_path, *arguments)["records"]
    assert [record["side"] for record in (ours, theirs)] == ["ours", "reference"]
    assert ours["audio_secs"] == theirs["audio_secs"] == 0.5
    assert theirs["versions"]["torch"] and theirs["audio_secs_per_sec"] > 0
    assert ours["matrix_product_flops_per_sec"] == theirs["matrix_product_flops_per_sec"]


@pytest.mark.skipif(not REFERENCE, reason="no interpreter with PyTorch: set EARSHOT_REFERENCE_PYTHON")
@pytest.mark.parametrize("task", ["train", "infer"])
@pytest.mark.parametrize("name", ["w2v_bert_base", "wavlm_base", "conformer_rel_pos"])
def test_the_reference_of_each_kind_of_network_runs(tmp_path, task, name):
    small = {"hidden_size": 32, "num_layers": 1, "num_heads": 2, "intermediate_size": 32, "layer_drop": 0.0}
    batch = cases.make_batch([np.ones(9_000), np.ones(7_000)], [np.array([4, 5]), np.array([6])])
    case = measure.Case(name=name, task=task, precision="float32", ours=[batch], theirs=[batch], flops=1.0)
    setup = measure.Setup(
        config=preset(name, **small), model={}, device="cpu", num_repeats=1, references=[], reference_python=REFERENCE
    )
    with setup.start(measure.THEIRS, case, str(tmp_path)) as worker:
        assert np.isfinite(worker.ask("run_once")["figure"])


@pytest.mark.skipif(not REFERENCE, reason="no interpreter with PyTorch: set EARSHOT_REFERENCE_PYTHON")
@pytest.mark.slow
def test_training_is_measured_beside_the_reference_with_and_without_compilation(tmp_path):
    arguments = ["--cases=full", "--references", "eager", "compiled", f"--reference_python={REFERENCE}"]
    sides = [record["side"] for record in records_of(train_throughput, tmp_path, *arguments)["records"]]
    # Compiling needs a C++ compiler.
    assert sides in (["ours", "reference", "reference, compiled"], ["ours", "reference"])


def test_a_gpu_has_its_own_cases(monkeypatch):
    seen = []
    for module, name in ((train_throughput, "train_throughput"), (inference_throughput, "inference_throughput")):
        monkeypatch.setattr(module, "run", lambda arguments, made, argv, name: seen.append((arguments, made)) or 0)
        arguments = ["--cases=full"] if name == "train_throughput" else ["--full", "--batch_sizes"]
        assert module.main(["--device=gpu", "--precisions=bf16", "--preset=tiny", "--num_samples=800", *arguments]) == 0
    assert [[case.name for case in made] for _, made in seen] == [
        ["8 rows of 800 samples"], ["1 rows of 800 samples", "8 rows of 800 samples", "32 rows of 800 samples"]
    ]  # fmt: skip
    # As many rows in all, whatever the size of a batch.
    rows = [[sum(len(batch.lengths) for batch in case.ours) for case in made] for _, made in seen]
    assert rows == [[64], [32, 32, 32]]


def test_only_measured_variants_of_the_reference_are_tried_for_rows_that_fit(monkeypatch):
    tried = []
    monkeypatch.setattr(measure, "measure", lambda case, setup: [{"side": side} for side in ("ours", "reference")])
    monkeypatch.setattr(measure, "find_most_rows", lambda case, setup, **limits: tried.extend(setup.references) or [])
    monkeypatch.setattr(measure, "report", lambda records, **fields: None)
    flags = ["--references", "eager", "compiled", "--fit", "--fit_gib=1"]
    assert train_throughput.main([*TINY, "--cases=full", *flags]) == 0
    assert tried == ["reference"]


class Trial:
    """A side that needs 1 GB and a tenth for each row, on a device of 4 GB, or some more beyond 20 rows."""

    tried: list[tuple[str, int]] = []
    extra = 0.0

    def __init__(self, side, rows):
        self.tried.append((side, rows))
        self.rows = rows

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        """Nothing to end."""

    def ask(self, question):
        needed = 1.0 + 0.1 * self.rows + self.extra * (self.rows > 20)
        if question == "run_once" and needed > 4.0:
            raise RuntimeError("OOM")
        return round(needed * 2**30)


@pytest.mark.parametrize(
    ("extra", "most", "tried"), [(0.0, 30, [4, 8, 30]), (0.2, 27, [4, 8, 30, 27]), (9.0, 8, [4, 8, 30, 27, 24])]
)
def test_the_rows_that_fit_are_foreseen_and_tried(monkeypatch, extra, most, tried):
    monkeypatch.setattr(Trial, "tried", [])
    monkeypatch.setattr(Trial, "extra", extra)
    monkeypatch.setattr(measure.Setup, "start", lambda self, side, case, folder: Trial(side, len(case.ours[0].lengths)))
    batch = cases.noise_batch(num_rows=4, num_samples=800)
    case = measure.Case(name="four", task="train", precision="float32", ours=[batch], theirs=[batch], flops=1.0)
    config, model = measure.benchmark_config("tiny")
    setup = measure.Setup(config=config, model=model, device="gpu", num_repeats=1, references=[])
    (found,) = measure.find_most_rows(case, setup, limit_bytes=4 * 2**30)
    assert (found["side"], found["rows_that_fit"]) == ("ours", most)
    assert Trial.tried == [("ours", rows) for rows in tried]


def test_the_better_variant_of_the_reference_counts():
    batch = cases.noise_batch(num_rows=2, num_samples=16_000)
    case = measure.Case(name="two", task="train", precision="float32", ours=[batch], theirs=[batch], flops=4e9)

    def record(side, secs):
        passes = [{"secs": secs, "cpu_secs": secs}]
        return measure.summarize(
            case=case, side=side, passes=passes, peak_memory_bytes=2**30, ceiling=1e10, versions={"x": "1"}
        )

    table = measure.table([record(measure.OURS, 1.0), record(measure.THEIRS, 4.0), record(measure.COMPILED, 2.0)])
    ours, eager, compiled = table.splitlines()[2:]
    assert "| **2.00** |" in ours and "**" not in eager + compiled


class Waiting:
    """A side that answers at once, or only when it is killed."""

    def __init__(self, is_slow):
        self._killed = threading.Event()
        if not is_slow:
            self.ask = lambda question: {"secs": 1.0, "figure": 2.0}

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        """Nothing to end."""

    def ask(self, question):
        assert self._killed.wait(timeout=30)
        raise RuntimeError("killed")

    def kill(self):
        self._killed.set()


def test_a_side_that_takes_too_long_is_left_out(monkeypatch, capsys):
    monkeypatch.setattr(measure.Setup, "start", lambda self, side, case, folder: Waiting(side == measure.OURS_COMPILED))
    batch = cases.noise_batch(num_rows=1, num_samples=800)
    case = measure.Case(name="one", task="train", precision="float32", ours=[batch], theirs=[batch], flops=1.0)
    config, model = measure.benchmark_config("tiny")
    setup = measure.Setup(
        config=config, model=model, device="gpu", num_repeats=1, references=[], start_secs=0.5,
        ours=[measure.OURS, measure.OURS_COMPILED],
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        started = measure.start_sides(case, setup, "", stack)
        assert list(started) == [measure.OURS] and started[measure.OURS].first["figure"] == 2.0
        assert "ours, compiled is left out: it was not ready after" in capsys.readouterr().err
        with pytest.raises(RuntimeError, match="one: no side was ready"):
            measure.start_sides(case, dataclasses.replace(setup, ours=[measure.OURS_COMPILED]), "", stack)
