"""Compares transcription speed with the reference.

    python -m benchmarks.inference_throughput [--quick] [--output=F.json]

It transcribes utterances of a LibriSpeech split, one by one and in batches of similar lengths, and optionally full rows
of 246,000 samples, from padded waveforms in memory to the best token of each frame.

    python -m benchmarks.inference_throughput --device=gpu --full --batch_sizes [--reference_python=python3]

compares full rows on a GPU, 1, 8 and 32 at a time, without a corpus. Seconds of audio a second are the RTFx.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import numpy as np

from benchmarks import cases, flops, measure, speech
from benchmarks.train_throughput import add_common_flags, add_profile_flags, profile, run
from engine.inference import grouping
from engine.inference.row_runner import PADDING_SAMPLES
from models.wav2vec2.config import Wav2Vec2Config

_GPU_SIZES = [1, 8, 32]


def make_cases(arguments: argparse.Namespace, config: Wav2Vec2Config) -> list[measure.Case]:
    """Returns the cases that the flags select."""
    batches: list[tuple[str, list[cases.Batch], list[cases.Batch]]] = []
    if arguments.full:
        for rows_at_once in arguments.rows or (_GPU_SIZES if arguments.device == "gpu" else [2]):
            # As many rows with any size, so that a pass takes long enough to be timed.
            num_batches = _GPU_SIZES[-1] // rows_at_once if arguments.device == "gpu" else 1
            full = [
                cases.noise_batch(num_rows=rows_at_once, num_samples=arguments.num_samples, seed=seed)
                for seed in range(max(num_batches, 1))
            ]
            batches.append((f"{rows_at_once} rows of {arguments.num_samples:,} samples", full, full))
    sizes = arguments.batch_sizes
    if sizes is None:
        sizes = _GPU_SIZES if arguments.device == "gpu" else [1, 8]
    if sizes:
        for size in sizes:
            count = max(8 if arguments.quick else 24, size)
            rows, labels, _ = speech.load_rows(
                root=arguments.corpus, split=arguments.split, count=count, batch_size=size
            )
            # Widths that the transcriber uses.
            boundaries = range(PADDING_SAMPLES, max(map(len, rows)) + 2 * PADDING_SAMPLES, PADDING_SAMPLES)
            ours = [
                cases.make_batch(
                    [rows[i] for i in members],
                    [labels[i] for i in members],
                    num_samples=cases.round_up(max(len(rows[i]) for i in members), boundaries),
                )
                for group in cases.group([len(row) for row in rows], size)
                for members in _like_lengths(group, rows)
            ]
            theirs = speech.grouped(rows, labels, batch_size=size)
            batches.append((f"{len(rows)} utterances of {arguments.split}, {size} at a time", ours, theirs))
    return [
        measure.Case(
            name=name,
            task="infer",
            precision=measure.PRECISIONS[precision],
            ours=ours,
            theirs=theirs,
            flops=sum(flops.inference_flops(config, int(n), num_rows=len(b.lengths)) for b in ours for n in b.lengths),
        )
        for precision in arguments.precisions
        for name, ours, theirs in batches
    ]


def _like_lengths(members: Sequence[int], rows: Sequence[np.ndarray]) -> list[list[int]]:
    """Returns a batch as the transcriber splits it."""
    lengths = [len(rows[i]) for i in members]
    groups = grouping.group_by_length(lengths, grouping.suitable_grouping())
    return [[members[i] for i in group] for group in groups]


def main(argv: Sequence[str]) -> int:
    """Runs the command and returns its exit status."""
    parser = argparse.ArgumentParser(prog="benchmarks.inference_throughput", description=__doc__)
    add_common_flags(parser)
    parser.add_argument(
        "--batch_sizes",
        nargs="*",
        type=int,
        help="of the real case; by default 1 8, on a GPU 1 8 32; none leaves it out",
    )
    parser.add_argument("--full", action="store_true", help="full rows as well")
    parser.add_argument("--split", default="test-clean", help="split of the utterances")
    add_profile_flags(parser)
    arguments = parser.parse_args(argv)
    config, _ = measure.benchmark_config(arguments.preset)
    try:
        made = make_cases(arguments, config)
        if arguments.profile:
            return profile(arguments, made)
        return run(arguments, made, argv, "inference_throughput")
    except (ValueError, OSError, RuntimeError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
