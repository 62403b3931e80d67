r"""Makes a vocabulary from a corpus's transcripts.

python -m data.vocab --format=jsonl --input=manifest.jsonl --text_normalization=unicode \
    --output=vocab.json [--pieces=500 --pieces_type=unigram]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from common.sentence_pieces import train_pieces
from data.command import Parser, add_corpus_flags, check_normalization, comma_list, run_command
from data.common.errors import InputError
from data.corpus.faults import Fault
from data.open_corpus import FORMATS, open_source
from data.text.normalization import normalize_transcript
from data.text.tokenizer import CharTokenizer, build_vocab


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status."""
    parser = Parser(prog="data.vocab", description=(__doc__ or "").split("\n")[0])
    add_corpus_flags(parser, FORMATS)
    parser.add_argument("--output", required=True, help="vocab.json to write")
    parser.add_argument("--pieces", type=int, default=0, help="train this many SentencePiece pieces; 0 = characters")
    parser.add_argument("--pieces_type", choices=("unigram", "bpe"), default="unigram", help="used with --pieces")
    return run_command(parser, _make, argv)


def _make(flags: argparse.Namespace) -> None:
    faults: list[Fault] = []
    source = open_source(
        format=flags.format,
        input=flags.input,
        split=flags.split,
        text_column=flags.text_column,
        speakers=comma_list(flags.speakers),
        exclude_speakers=comma_list(flags.exclude_speakers),
        report=faults.append,
    )
    if faults:  # bad audio does not matter here; python -m data.prepare and training report it
        count = sum(len(fault.details) for fault in faults)
        print(f"data.vocab: warning: {count} bad utterances left out; {faults[0].message}", file=sys.stderr)
    foreign = check_normalization(dict(zip(source.utterance_ids, source.texts, strict=True)), flags.text_normalization)
    if foreign:
        print(f"data.vocab: warning: {foreign}", file=sys.stderr)
    texts = tqdm(source.texts, desc="vocab", unit="utt", disable=None)
    normalized = (normalize_transcript(text, flags.text_normalization) for text in texts)
    tokenizer = _train_pieces(normalized, flags) if flags.pieces else CharTokenizer(tokens=build_vocab(normalized))
    tokenizer.save(flags.output)
    print(f"{flags.output}: {tokenizer.num_tokens} tokens from {len(source.texts)} transcripts")


def _train_pieces(texts: Iterable[str], flags: argparse.Namespace) -> CharTokenizer:
    try:
        pieces = train_pieces(texts, size=flags.pieces, kind=flags.pieces_type)
    except ValueError as error:
        raise InputError(f"--pieces={flags.pieces}: {error}") from error
    return CharTokenizer(tokens=pieces.tokens, special_tokens=pieces.roles, pieces=pieces)


if __name__ == "__main__":
    sys.exit(main())
