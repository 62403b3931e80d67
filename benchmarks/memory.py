"""Compares the prediction of `models.memory_estimate` with the peak memory of training processes.

    python -m benchmarks.memory --corpus=LIBRISPEECH [--settings=0,1]

It trains two updates of configs/librispeech_sample.py for each setting in a separate process, and prints its peak
resident memory beside the prediction. LIBRISPEECH is a folder of splits that includes train-clean-5.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile

from models.memory_estimate import measure_model
from models.wav2vec2.model import build_model

# preset, rows of a microbatch, seconds, precision, frozen feature encoder
SETTINGS = (
    ("base", 1, 15.4, "mixed_bfloat16", True),
    ("base", 2, 15.4, "mixed_bfloat16", True),
    ("base", 1, 15.4, "float32", True),
    ("base", 1, 8.0, "float32", True),
    ("base", 1, 15.4, "mixed_bfloat16", False),
    ("tiny", 16, 15.4, "float32", False),
    ("tiny", 4, 8.0, "float32", False),
    ("base", 4, 15.4, "mixed_bfloat16", True),
    ("base", 2, 15.4, "float32", False),
    ("large_lv60", 1, 15.4, "mixed_bfloat16", True),
)


def peak_bytes(corpus: str, setting: tuple[str, int, float, str, bool]) -> int:
    """Returns the peak resident memory of a run of two updates."""
    preset, rows, secs, precision, frozen = setting
    samples = round(secs * 16_000)
    with tempfile.TemporaryDirectory() as workdir:
        start = []
        if frozen:  # a run refuses to freeze random weights, so give it some; their values do not matter
            build_model(preset=preset, vocab_size=32).save_pretrained(f"{workdir}/weights")
            start = [f"--config.model.init={workdir}/weights"]
        with subprocess.Popen(
            [
                sys.executable, "run.py", f"--config=configs/librispeech_sample.py:{corpus}",
                f"--workdir={workdir}/run", "--mode=train", *start,
                f"--config.model.preset={preset}", f"--config.train.precision={precision}",
                f"--config.model.freeze_feature_encoder={frozen}", f"--config.train.global_batch_size={2 * rows}",
                f"--config.train.microbatch_rows={rows}", "--config.train.num_updates=2",
                f"--config.data.bucket_boundaries_samples=({samples},)",
                f"--config.data.max_duration_secs={secs}", f"--config.data.min_duration_secs={max(0.1, secs - 4)}",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:  # fmt: skip
            # wait4 returns the usage of this child alone, RUSAGE_CHILDREN that of the largest child so far.
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"run.py ended with {process.returncode} for {setting}")
    return usage.ru_maxrss * 1024


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", required=True)
    parser.add_argument("--settings", default="", help="numbers of the settings, with commas between (default: all)")
    flags = parser.parse_args()
    print("| preset | rows x s | precision | frozen | measured GiB | predicted GiB |\n|---|---|---|---|---|---|")
    chosen = [int(number) for number in flags.settings.split(",") if number] or range(len(SETTINGS))
    for setting in (SETTINGS[number] for number in chosen):
        preset, rows, secs, precision, frozen = setting
        estimate = measure_model(
            source="native", preset=preset, hub_handle="", vocab_size=32, precision=precision,
            freeze_feature_encoder=frozen,
        )  # fmt: skip
        predicted = estimate.memory_bytes(rows, round(secs * 16_000), True) or 0
        measured = peak_bytes(flags.corpus, setting)
        print(
            f"| {preset} | {rows} x {secs} | {precision} | {frozen} | {measured / 2**30:.2f} | "
            f"{predicted / 2**30:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
