"""Measures the time to the first batch and the memory when a run on 300,000 utterances resumes at update N.

    python -m benchmarks.resume --input=../shared/corpora/LibriSpeech [--num_utterances=300000] [--update=5000]

The corpus is an index of 300,000 utterances over the recordings and transcripts of train-clean-5 as FLAC. Each
recording is listed about 840 times with different names, so the index is as large as that of a real corpus while the
shard is small. Each case runs in a separate process, from the folder on disk to the first batch of audio: reading the
index, counting the labels of all transcripts, planning the epoch, decoding. `peak` is the resident memory of the whole
process, `before` the part of TensorFlow's import. Then the batches must equal those of a pipeline that never stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CASES: dict[str, dict] = {
    "32 rows": {},
    "400 s": {"max_batch_secs": 400.0, "row_multiple": 8, "max_duration_secs": 20.0},
    "400 s, three speeds": {
        "max_batch_secs": 400.0,
        "row_multiple": 8,
        "max_duration_secs": 20.0,
        "speed_factors": (0.9, 1.0, 1.1),
    },
    "400 s, three speeds, joined": {
        "max_batch_secs": 400.0,
        "row_multiple": 8,
        "speed_factors": (0.9, 1.0, 1.1),
        "concat_max_utterances": 3,
        "concat_max_secs": 20.0,
    },
}


def main() -> None:
    """Runs the benchmark and prints its measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", default="../shared/corpora/LibriSpeech", help="folder that holds train-clean-5")
    parser.add_argument("--num_utterances", type=int, default=300_000)
    parser.add_argument("--update", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=2, help="times each case is measured; the best one counts")
    parser.add_argument("--open", help="used by the command itself: measure this folder, and print JSON")
    parser.add_argument("--case", default="32 rows")
    parser.add_argument("--check", type=int, default=0, help="used by the command itself: batches to compare")
    flags = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if flags.open:
        print(json.dumps(_measure(flags.open, flags.case, flags.update, flags.check)))
        return
    with tempfile.TemporaryDirectory() as folder:
        size = _make_corpus(flags.input, folder, flags.num_utterances)
        print(f"index.json of {flags.num_utterances} utterances: {size / 1e6:.0f} MB; goes on at update {flags.update}")
        for case in CASES:
            command = [sys.executable, "-m", "benchmarks.resume", f"--open={folder}", f"--case={case}"]
            command += [f"--update={flags.update}"]
            runs = []
            for number in range(flags.rounds):
                done = subprocess.run(
                    [*command, *(["--check=3"] if number == 0 else [])], capture_output=True, text=True, check=True
                )
                runs.append(json.loads(done.stdout.splitlines()[-1]))
            best = min(runs, key=lambda run: run["total_secs"])
            print(
                f"{case}: open {best['open_secs']:.2f} s, dataset {best['dataset_secs']:.2f} s, first batch "
                f"{best['batch_secs']:.2f} s, total {best['total_secs']:.2f} s (processor {best['cpu_secs']:.2f} s); "
                f"memory before {best['before_mb']:.0f} MB, peak {best['peak_mb']:.0f} MB, so "
                f"{best['peak_mb'] - best['before_mb']:.0f} MB; epoch {best['epoch']}, {best['epoch_updates']} "
                f"updates; as never stopped: {runs[0]['same']}"
            )


def _make_corpus(source: str, output: str, num_utterances: int) -> int:
    """Writes train-clean-5 as a shard, repeats its records in the index, and returns the size of the index in bytes."""
    from data.corpus.manifest import read_librispeech
    from data.shards.preparation import write_tfrecords

    utterances = read_librispeech(source, "train-clean-5")
    write_tfrecords(utterances=utterances, output=output, num_shards=1, payload="flac", progress=False)
    path = Path(output) / "index.json"
    index = json.loads(path.read_text(encoding="utf-8"))
    count = index["num_utterances"]
    columns = {
        name: [values[number % count] for number in range(num_utterances)] for name, values in index["columns"].items()
    }
    columns["utterance_id"] = [f"{name}-{number // count:04d}" for number, name in enumerate(columns["utterance_id"])]
    # The number of speakers of LibriSpeech.
    columns["speaker_id"] = [f"{name}{number % 84:02d}" for number, name in enumerate(columns["speaker_id"])]
    index["columns"], index["num_utterances"] = columns, num_utterances
    index["shards"][0]["num_utterances"] = num_utterances
    path.write_text(json.dumps(index, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    return path.stat().st_size


def _measure(folder: str, case: str, update: int, num_checked: int) -> dict[str, float | bool]:
    import numpy as np
    import tensorflow as tf

    from benchmarks.speech import reading_options
    from data.batches.datasets import build_train_data
    from data.text.tokenizer import load_tokenizer

    context = tf.distribute.InputContext()
    arguments = {"global_batch_size": 32, "seed": 1, "max_duration_secs": 30.0, **CASES[case]}
    tokenizer = load_tokenizer()
    list(tf.data.Dataset.range(1).map(lambda x: x + 1))  # excludes the start of TensorFlow
    before = _status_mb("VmRSS")
    cpu, begin = time.process_time(), time.monotonic()
    arguments |= reading_options()
    data = build_train_data(
        tokenizer=tokenizer, text_normalization="librispeech", format="tfrecord", input=folder, **arguments
    )
    opened = time.monotonic()
    dataset = data.dataset(context, update)
    built = time.monotonic()
    iterator = iter(dataset)
    batch = next(iterator)
    end, cpu = time.monotonic(), time.process_time() - cpu
    peak = _status_mb("VmHWM")
    epoch, position = data.plan.locate(update)
    same = True
    if num_checked:
        # A pipeline that started five updates earlier, with prefetching.
        earlier = data.dataset(context, update - 5).skip(5).take(num_checked)
        resumed = [batch, *(next(iterator) for _ in range(num_checked - 1))]
        for one, other in zip(resumed, earlier, strict=True):
            same &= all(np.array_equal(one[key], other[key]) for key in one)
    return {
        "open_secs": opened - begin,
        "dataset_secs": built - opened,
        "batch_secs": end - built,
        "total_secs": end - begin,
        "cpu_secs": cpu,
        "before_mb": before,
        "peak_mb": peak,
        "epoch": epoch,
        "epoch_updates": len(data.plan.batch_rows(epoch)),
        "same": same,
    }


def _status_mb(field: str) -> float:
    """Returns the memory of this process; ru_maxrss would start with the peak of its parent."""
    with open("/proc/self/status", encoding="ascii") as file:
        return next(int(line.split()[1]) / 1e3 * 1.024 for line in file if line.startswith(field))


if __name__ == "__main__":
    main()
