r"""Writes a corpus as indexed TFRecord shards at 16 kHz: about 115 MB per hour of audio, 60 MB as FLAC.

python -m data.prepare --format=librispeech --input=LibriSpeech --split=train-clean-100 \
    --output=shards/train-clean-100 [--payload=flac] [--shard_mb=128] [--runner=beam]

Input and output may be URLs such as gs://bucket/folder. After an interruption, run the same command again: it keeps the
finished shards whose checksums are right, and writes nothing if all are finished.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence

from common.tensorflow_environment import set_tensorflow_defaults
from common.text_style import text_base
from data.audio.decoding import SAMPLE_RATE
from data.command import Parser, add_corpus_flags, check_normalization, comma_list, run_command
from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.manifest import MANIFEST_FORMATS, read_utterances
from data.corpus.utterance import Utterance
from data.shards.beam_runner import BeamRunner
from data.shards.local_runner import LocalRunner
from data.shards.preparation import SHARD_MB, Prepared, write_tfrecords
from data.shards.records import PAYLOADS
from data.text.normalization import has_digits

_NUM_NAMED = 10


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(prog="data.prepare", description=(__doc__ or "").split("\n")[0])
    add_corpus_flags(parser, MANIFEST_FORMATS)
    add = parser.add_argument
    add("--output", required=True, help="folder or URL of the shards, one corpus each")
    add("--num_shards", type=int, help="number of files (default: by --shard_mb)")
    add("--shard_mb", type=float, help=f"size of a file in 10^6 bytes (default: {SHARD_MB:g})")
    add(
        "--payload",
        default=PAYLOADS[0],
        choices=PAYLOADS,
        help="how audio is stored: as samples, or as FLAC of about half the size, which keeps the original file if it "
        "is 16 kHz mono FLAC and else re-encodes losslessly (default: pcm16)",
    )
    add("--max_unreadable_ratio", type=float, default=0.01, help="largest ratio of bad utterances (default: 0.01)")
    add("--num_workers", type=int, help="processes (default: all cores)")
    add(
        "--on_rate_mismatch",
        default="resample",
        choices=("resample", "refuse"),
        help="what to do with audio that is not sampled at 16 kHz (default: resample)",
    )
    add("--runner", default="local", choices=("local", "beam"), help="where shards are written (default: local)")
    add("--beam_options", default="", help='flags of Apache Beam in one string, "--runner=DataflowRunner ..."')
    return run_command(parser, _prepare, argv)


def _prepare(flags: argparse.Namespace) -> None:
    # Set before the first shard imports TensorFlow, whose messages on stderr do not help.
    set_tensorflow_defaults(log_level="2")
    if flags.num_shards is not None and flags.shard_mb is not None:
        raise InputError("--num_shards and --shard_mb contradict each other: give one of them")
    if not 0 <= flags.max_unreadable_ratio < 1:
        raise InputError(f"--max_unreadable_ratio is {flags.max_unreadable_ratio}, wanted 0 or more and less than 1")
    runner = _make_runner(flags)
    faults: dict[str, tuple[str, str]] = {}

    def note(fault: Fault) -> None:
        for name, what in fault.details.items():
            faults.setdefault(name, (fault.code, fault.message if len(fault.details) == 1 else f"{name}: {what}"))

    utterances = read_utterances(
        format=flags.format,
        input=flags.input,
        split=flags.split,
        text_column=flags.text_column,
        speakers=comma_list(flags.speakers),
        exclude_speakers=comma_list(flags.exclude_speakers),
        report=note,
    )
    _warn_of_texts(utterances, flags.text_normalization)
    conflicts = {u.utterance_id: u.duration_conflict for u in utterances if u.duration_conflict}
    if conflicts:
        name, what = next(iter(conflicts.items()))
        _warn(
            f"{len(conflicts)} durations in the manifest contradict the files, first {name} ({what}): the files "
            "decide, and an utterance without an offset is a whole file"
        )
    prepared = write_tfrecords(
        utterances=utterances,
        output=flags.output,
        num_shards=flags.num_shards,
        shard_mb=SHARD_MB if flags.shard_mb is None else flags.shard_mb,
        split=flags.split,
        text_normalization=flags.text_normalization,
        payload=flags.payload,
        on_rate_mismatch=flags.on_rate_mismatch,
        faults=faults,
        max_unreadable_ratio=flags.max_unreadable_ratio,
        runner=runner,
    )
    _print_summary(flags, prepared)


def _make_runner(flags: argparse.Namespace) -> BeamRunner | LocalRunner:
    if flags.runner == "local":
        return LocalRunner(num_workers=flags.num_workers)
    try:
        options = shlex.split(flags.beam_options)
    except ValueError as error:
        raise InputError(f"--beam_options={flags.beam_options!r} cannot be split into flags: {error}") from error
    return BeamRunner(options=options)


def _warn_of_texts(utterances: Sequence[Utterance], normalization: str) -> None:
    foreign = check_normalization({u.utterance_id: u.text for u in utterances}, normalization)
    if foreign:
        _warn(foreign)
    elif text_base(normalization) == "librispeech":
        with_digits = [u.utterance_id for u in utterances if has_digits(u.text, normalization)]
        if with_digits:
            _warn(
                f"digits are dropped from {len(with_digits)} transcripts, first {with_digits[0]}: "
                "spell them out, or give --text_normalization=unicode"
            )


def _print_summary(flags: argparse.Namespace, prepared: Prepared) -> None:
    skipped = prepared.skipped
    if skipped:
        _warn(f"{len(skipped)} bad utterances left out, all named in index.json:")
        for name, why in list(skipped.items())[:_NUM_NAMED]:
            _warn(f"  {name}: {why.removeprefix(f'{name} ')}")  # the message of a bad line begins with its place
    encoded = f", {prepared.num_encoded} re-encoded" if flags.payload == "flac" and prepared.num_encoded else ""
    print(
        f"{flags.output}: {prepared.num_utterances} utterances, {prepared.num_samples / SAMPLE_RATE / 3600:.2f} h, "
        f"{prepared.num_shards} shards{encoded}{f', {len(skipped)} left out' if skipped else ''}"
        f"{'' if prepared.num_written else ' (finished before)'}"
    )


def _warn(line: str) -> None:
    print(f"data.prepare: warning: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
