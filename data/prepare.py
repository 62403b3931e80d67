"""Writes a corpus as TFRecord shards: decoded, at 16 kHz, indexed, about 115 MB an hour.

python -m data.prepare --source=librispeech --input=LibriSpeech --split=train-clean-100 \\
    --output=shards/train-clean-100 --num_shards=64

The same command again continues after an interruption and returns at once when all is done.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from data.command import Parser, add_corpus_flags, comma_list, run_command
from data.manifest import MANIFEST_FORMATS, read_utterances
from data.text import has_digits
from data.tfrecord import write_tfrecords


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    parser = Parser(prog="data.prepare", description=(__doc__ or "").split("\n")[0])
    add_corpus_flags(parser, MANIFEST_FORMATS)
    parser.add_argument("--output", required=True, help="folder of the shards, one corpus each")
    parser.add_argument("--num_shards", type=int, default=8, help="number of files (default: 8)")
    parser.add_argument(
        "--num_workers", type=int, default=None, help="threads (default: all cores)"
    )
    parser.add_argument(
        "--on_rate_mismatch",
        default="resample",
        choices=("resample", "refuse"),
        help="what to do with audio that does not have 16 kHz (default: resample)",
    )
    return run_command(parser, _prepare, argv)


def _prepare(flags: argparse.Namespace) -> None:
    # TensorFlow, imported by the first shard, says nothing of use on stderr.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    utterances = read_utterances(
        format=flags.source,
        input=flags.input,
        split=flags.split,
        speakers=comma_list(flags.speakers),
        exclude_speakers=comma_list(flags.exclude_speakers),
    )
    if flags.normalization == "librispeech":
        with_digits = [u.utterance_id for u in utterances if has_digits(u.text)]
        if with_digits:
            print(
                f"data.prepare: warning: digits are dropped from {len(with_digits)} transcripts, "
                f"first {with_digits[0]}: spell them out, or give --normalization=unicode",
                file=sys.stderr,
            )
    written = write_tfrecords(
        utterances=utterances,
        output=flags.output,
        num_shards=flags.num_shards,
        split=flags.split,
        text_style=flags.normalization,
        on_rate_mismatch=flags.on_rate_mismatch,
        num_workers=flags.num_workers,
    )
    hours = sum(utterance.duration_secs for utterance in utterances) / 3600
    print(
        f"{flags.output}: {len(utterances)} utterances, {hours:.2f} h, {flags.num_shards} shards"
        f"{'' if written else ' (finished before)'}"
    )


if __name__ == "__main__":
    sys.exit(main())
