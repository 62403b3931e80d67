r"""Writes examples of augmentation to listen to, the original beside each, and says what was done.

python -m data.augment_examples --format=jsonl --input=manifest.jsonl --output=examples \
    [--noise_source=musan] [--room_source=RIRS] [--augment noise_prob=1 noise_snr_db=0,10]

Without --augment each kind is applied alone at its default strength, and then all of them together at random.
`--mode=doctor` has examples of a config on its page.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from common import storage
from common.nearest import name_nearest
from data.augmentation.augmenter import Augmenter
from data.augmentation.draws import TRAINING
from data.augmentation.examples import NUM_EXAMPLES, Example, make_examples
from data.augmentation.options import CODECS, KINDS, AugmentOptions, check_augment
from data.command import Parser, comma_list, run_command
from data.common.errors import InputError
from data.corpus.faults import Fault
from data.corpus.sources import Source
from data.open_corpus import FORMATS, open_source

_FIELDS = {field.name: field.default for field in dataclasses.fields(AugmentOptions)}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(prog="data.augment_examples", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--format", required=True, help=f"format: {', '.join(FORMATS)}")
    add("--input", required=True, help="folder or file of the corpus")
    add("--split", default="", help="part of the corpus (default: all)")
    add("--output", required=True, help="folder of the examples")
    add("--num_examples", type=int, default=NUM_EXAMPLES, help=f"number of examples (default: {NUM_EXAMPLES})")
    add("--seed", type=int, default=0, help="seed of what is drawn (default: 0)")
    add("--noise_source", default="", help="folder or list of noise, or MUSAN (default: generated noise)")
    add("--room_source", default="", help="folder or list of impulse responses (default: simulated rooms)")
    add("--augment", nargs="+", default=[], metavar="FIELD=VALUE", help="fields of config.data.augment")
    return run_command(parser, _write, argv)


def _write(flags: argparse.Namespace) -> None:
    fields = _read_fields(flags)
    faults: list[Fault] = []
    source = open_source(format=flags.format, input=flags.input, split=flags.split, report=faults.append)
    if faults:
        print(f"data.augment_examples: warning: bad utterances left out; {faults[0].message}", file=sys.stderr)
    examples = list(_make(source, flags, fields))
    if not examples:
        raise InputError(f"{flags.input}: no utterance can be read and altered; python -m data.prepare tells why")
    os.makedirs(flags.output, exist_ok=True)
    for number, example in enumerate(examples, start=1):
        original, altered = (
            storage.join(flags.output, f"{number:02d}-{kind}.flac") for kind in ("original", "altered")
        )
        storage.write_bytes(original, example.original)
        storage.write_bytes(altered, example.altered)
        print(f"{altered}: {example.utterance_id}: {example.what}")


def _read_fields(flags: argparse.Namespace) -> dict[str, Any]:
    """Returns the fields of `AugmentOptions` that the flags give.

    Raises:
        InputError: If a flag or a field is out of range; names it.
    """
    if flags.num_examples < 1 or flags.seed < 0:
        raise InputError("--num_examples must be 1 or more, and --seed 0 or more")
    sources = {"noise_source": flags.noise_source, "room_source": flags.room_source}
    fields = {**sources, **dict(_read_field(word) for word in flags.augment)}
    check_augment(fields, "augment")
    if flags.augment and not AugmentOptions(**fields).is_on:
        probs = ", ".join(f"{kind}_prob" for kind in KINDS)
        raise InputError(f"--augment sets no probability above 0: set one of {probs}")
    return fields


def _make(source: Source, flags: argparse.Namespace, fields: dict[str, Any]) -> Iterator[Example]:
    """Yields the examples, of the chosen kinds, or of each kind in turn and then of all."""
    wanted = [(fields, flags.num_examples)] if flags.augment else _list_kinds(fields, flags.num_examples)
    for number, (chosen, count) in enumerate(wanted):
        augmenter = Augmenter(
            options=AugmentOptions(**chosen), source=source, seed=flags.seed + number, purpose=TRAINING
        )
        yield from make_examples(source, augmenter, count=count)


def _list_kinds(fields: dict[str, Any], num_examples: int) -> list[tuple[dict[str, Any], int]]:
    """Returns fields and a number of examples for each kind and codec alone, and for the rest all of them."""
    alone: list[dict[str, Any]] = [{f"{kind}_prob": 1.0} for kind in KINDS if kind != "telephone"]
    alone += [{"telephone_prob": 1.0, "telephone_codecs": (codec,)} for codec in CODECS]
    together = {f"{kind}_prob": 0.4 for kind in KINDS}
    counted = [(kinds, 1) for kinds in alone[:num_examples]]
    if num_examples > len(alone):
        counted.append((together, num_examples - len(alone)))
    return [({**fields, **kinds}, count) for kinds, count in counted]


def _read_field(word: str) -> tuple[str, Any]:
    """Reads FIELD=VALUE as a field of `AugmentOptions`, of the type of its default."""
    name, equals, text = word.partition("=")
    if name not in _FIELDS:
        raise InputError(f"--augment {word}: no such field{name_nearest(name, _FIELDS)}")
    if not equals:
        raise InputError(f"--augment {word}: has no value; write {name}=VALUE")
    if isinstance(_FIELDS[name], str):
        return name, text
    if name == "telephone_codecs":
        return name, comma_list(text)
    try:
        value = ast.literal_eval(text)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):  # all that it is documented to raise
        value = text  # refused with the name of the field
    return name, value


if __name__ == "__main__":
    sys.exit(main())
