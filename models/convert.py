"""Converts published models to folders of this project, and those to Hugging Face folders.

python -m models.convert --input=HF_DIR_OR_NAME --output=DIR [--vocab=vocab.json]
python -m models.convert --input=FAIRSEQ.pt --output=DIR [--preset=NAME]
python -m models.convert --input=MMS_DIR --output=DIR --target_lang=fra
python -m models.convert --input=DIR --output=HF_DIR --to_hf
python -m models.convert --input=WORKDIR --output=HF_DIR --to_adapter --target_lang=fra
python -m models.convert --input=WORKDIR --output=PEFT_DIR --to_peft           LoRA or bottleneck adapters alone
python -m models.convert --input=BASE --peft=PEFT_DIR --output=DIR             and with the base model again
python -m models.convert --input=WORKDIR --output=DIR --merge                  LoRA merged into the weights
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import json_files
from common.arguments import Parser
from common.readable import describe_error
from common.tensorflow_environment import set_tensorflow_defaults
from common.weight_names import is_weight_name, split_language
from models.fairseq.checkpoint import find_checkpoint, open_checkpoint
from models.hugging_face import config as hf_config
from models.hugging_face import files, languages, peft
from models.hugging_face import names as hf_names
from models.hugging_face.adapted import to_peft, with_adapter
from models.hugging_face.card import compose_card_of
from models.hugging_face.matching import Report, canonical_names, match
from models.hugging_face.model_types import MODEL_TYPES
from models.hugging_face.native import ValueOf, read_native, write_native
from models.hugging_face.source import Source, open_folder
from models.wav2vec2.config import Wav2Vec2Config
from models.weights import named_weights
from models.weights.cache import temporary_folder
from models.weights.tensor_files import save_tensors

_CARD = "README.md"
# Flags of the conversions that exclude each other.
_KINDS = ("to_hf", "to_peft", "to_adapter", "peft", "merge")


def from_hf(
    *,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    vocab: str | os.PathLike[str] = "",
    preset: str = "",
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    target_lang: str = "",
    adapter: peft.Adapter | None = None,
) -> Report:
    """Converts a published model of the wav2vec 2.0 family to a folder of ours.

    Args:
        input: Hugging Face folder with config.json and model.safetensors, pytorch_model.bin or tf_model.h5, whole or
            sharded; or a .pt of fairseq or fairseq2, or a folder with one.
        output: Folder to write.
        vocab: vocab.json of a new alphabet, which gets a new head; "" takes the input's.
        preset: Architecture of a .pt that does not tell it, a name or a config.json.
        allow_missing: Patterns of tensors that may be missing and get random values. The head (as a whole) and the mask
            embedding always may.
        allow_unexpected: Patterns of tensors to drop. Those that only pretraining or another task uses always are.
        target_lang: Language whose adapter and head are read from a checkpoint of several, as MMS has them; "" takes
            the one that its tokenizer names.
        adapter: Adapter to put into the weights.

    Returns:
        The outcome for each tensor.

    Raises:
        FileNotFoundError: If config.json or the weights are absent.
        ValueError: If the architecture is not supported, or tensors are missing, unexpected, of another shape or
            damaged; nothing is written.
    """
    if adapter is not None:
        vocab = vocab or adapter.vocab or ""
    with contextlib.ExitStack() as stack:
        source = _open_source(Path(input), stack, preset=preset, target_lang=target_lang, has_vocab=bool(vocab))
        config, tensors = source.config, source.tensors
        try:
            names = canonical_names(list(tensors))
            fresh_head = bool(vocab) or not any(name in names for name in hf_names.HEAD)
            vocabulary = None
            if fresh_head:
                vocabulary = files.read_vocabulary(vocab) if vocab else source.read_vocabulary(0)
            if vocabulary is not None:
                config = dataclasses.replace(config, vocab_size=len(vocabulary.ids))
            report = match(
                config=config,
                names=names,
                shapes={name: tensor.shape for name, tensor in tensors.items()},
                fresh_head=fresh_head,
                allow_missing=allow_missing,
                allow_unexpected=(*allow_unexpected, *source.unused),
            )
        except ValueError as error:
            raise ValueError(f"{source.path}: {error}") from error
        if not fresh_head:
            vocabulary = source.read_vocabulary(config.vocab_size)
        report.understood.append(f"   audio: {source.preprocessing}")
        if source.language:
            report.understood.append(f"language: {source.language}")
        _report_text(report, source, vocabulary, fresh_head=fresh_head)

        def value_of(entry: hf_names.Entry) -> np.ndarray | None:
            if entry.theirs[0] not in report.loaded:
                return None
            return entry.join([tensors[names[name]].read() for name in entry.theirs])

        values: ValueOf = value_of if adapter is None else with_adapter(adapter, report, value_of)
        write_native(Path(output), report=report, value_of=values, vocabulary=vocabulary, model_type=source.model_type)
    return report


def _open_source(path: Path, stack: contextlib.ExitStack, *, preset: str, target_lang: str, has_vocab: bool) -> Source:
    checkpoint = find_checkpoint(path)
    if checkpoint is not None:
        if target_lang:
            raise ValueError(f"{path}: --target_lang belongs to an MMS folder of Hugging Face; leave it out")
        return open_checkpoint(checkpoint, preset=preset)
    if preset:
        raise ValueError(f"{path}: --preset belongs to a .pt of fairseq or fairseq2; config.json tells it here")
    return open_folder(path, stack, target_lang=target_lang, has_vocab=has_vocab)


def _report_text(report: Report, source: Source, vocabulary: files.Vocabulary | None, *, fresh_head: bool) -> None:
    """Adds to the report which text the model writes."""
    if vocabulary is not None:
        report.understood.append(f"    text: {vocabulary.describe()}")
        report.notes += [*vocabulary.notes, *source.text_notes(vocabulary)]
    elif not fresh_head:
        report.notes.append(f"no {files.VOCAB_FILE}, so the tokens of the head are unknown; a run needs data.vocab")


def fetch_weights(name: str) -> str:
    """Fetches and converts published weights once, and returns their local folder; returns a path unchanged."""

    def convert(source: Path, target: Path) -> None:
        from_hf(input=source, output=target, target_lang=split_language(name)[1])

    return named_weights.local_folder(name, convert=convert)


def merge(
    *, input: str | os.PathLike[str], output: str | os.PathLike[str], adapter: peft.Adapter | None = None
) -> Report:
    """Writes a folder of ours with LoRA, of the input's own or in `adapter`, merged into the weights.

    Args:
        input: Written by `from_hf` or `Wav2Vec2ForCTC.save_pretrained`, or the workdir of a run.
        output: Folder to write.
        adapter: Adapter to put into the weights; its head and vocabulary replace the input's.

    Returns:
        The written tensors, as `loaded`.

    Raises:
        FileNotFoundError: If the input lacks its config or its weights.
        ValueError: If they are damaged, or the adapter is for other weights.
    """
    model = read_native(Path(input), merge=True)
    report, vocabulary = Report(model.config), model.vocabulary
    table = [*hf_names.name_table(model.config), *hf_names.adaptation_table(model.config)]
    report.loaded |= {name: entry.size // len(entry.theirs) for entry in table for name in entry.theirs}
    values: ValueOf = model.value_of
    if adapter is not None:
        if model.config.bottleneck_size:
            raise ValueError(f"{input}: has bottleneck adapters already; give --input the base model without them")
        values = with_adapter(adapter, report, model.value_of)
        if adapter.vocab is not None:
            vocabulary = files.read_vocabulary(adapter.vocab)
            report.config = dataclasses.replace(report.config, vocab_size=len(vocabulary.ids))
    write_native(Path(output), report=report, value_of=values, vocabulary=vocabulary, model_type=model.model_type)
    return report


def to_hf(*, input: str | os.PathLike[str], output: str | os.PathLike[str], model_type: str = "") -> Report:
    """Converts a folder of ours to one that `transformers` loads.

    Args:
        input: Written by `from_hf` or `Wav2Vec2ForCTC.save_pretrained`.
        output: Folder to write: config.json, model.safetensors, preprocessor_config.json, README.md (a model card,
            unless there is one), and with a vocabulary vocab.json, tokenizer_config.json and special_tokens_map.json.
        model_type: One of `models.hugging_face.model_types.MODEL_TYPES`; "" is what the model came as, else the first
            that can have this architecture.

    Returns:
        The written tensors, as `loaded`.

    Raises:
        FileNotFoundError: If the input lacks its config or its weights.
        ValueError: If they are damaged, or the type cannot have this architecture.
    """
    folder, target = Path(input), Path(output)
    model = read_native(folder, merge=True)
    if model.config.is_adapted:
        raise ValueError(
            f"{folder}: transformers has no bottleneck adapters; save them alone with --to_peft, or export the model "
            "with python run.py --mode=export"
        )
    model_type, vocabulary = model_type or model.model_type, model.vocabulary
    texts = _hf_texts(model.config, vocabulary, model_type)
    tensors = model.tensors_of(hf_names.name_table(model.config))
    report = Report(model.config, loaded={name: tensor.size for name, tensor in tensors.items()})
    with temporary_folder(target) as temporary:
        save_tensors(
            {hf_names.full_name(name, model_type=model_type): tensor for name, tensor in tensors.items()}, temporary
        )
        for name, content in texts.items():
            files.write_json(temporary / name, content)
        if vocabulary is not None:
            files.write_vocabulary(temporary, vocabulary)
            if vocabulary.pieces:
                report.notes.append("transformers writes \u2581 where a piece begins a word; replace it by a space")
        if not (target / _CARD).exists():  # it may have been edited by hand
            card = compose_card_of(
                folder,
                name=target.resolve().name,
                vocabulary=vocabulary,
                model_type=model_type,
                num_parameters=sum(report.loaded.values()),
            )
            (temporary / _CARD).write_text(card, encoding="utf-8")
        for path in temporary.iterdir():
            os.replace(path, target / path.name)
    return report


def to_adapter(*, input: str | os.PathLike[str], output: str | os.PathLike[str], target_lang: str) -> Report:
    """Writes the attention adapters and the head of a folder of ours as adapter.LANG.safetensors.

    Args:
        input: Written by `from_hf`, or the workdir of a run.
        output: Folder to write, such as a copy of the published checkpoint. Its vocab.json, if there is one, has an
            object for each language and gets one more.
        target_lang: Code of the language.

    Returns:
        The written tensors, as `loaded`.

    Raises:
        FileNotFoundError: If the input lacks its config or its weights.
        ValueError: If they are damaged, have no adapters, or the output's vocab.json is of one language.
    """
    target_lang = languages.check_language(target_lang)
    model = read_native(Path(input))
    if model.config.is_adapted:
        raise ValueError(f"{input}: has LoRA or bottleneck adapters beside those of the language; use --to_peft")
    return Report(model.config, loaded=languages.save_adapter(model, Path(output), target_lang))


def _hf_texts(config: Wav2Vec2Config, vocabulary: files.Vocabulary | None, model_type: str) -> dict[str, Any]:
    """Returns the JSON files of a Hugging Face folder beside those of its vocabulary, name -> content."""
    blank_id = vocabulary.blank_id if vocabulary is not None else 0
    fields = hf_config.to_hf(config, model_type=model_type, blank_id=blank_id)
    texts: dict[str, Any] = {files.PREPROCESSOR_FILE: files.preprocessor_fields(config), "config.json": fields}
    if vocabulary is not None:
        texts[files.SPECIAL_TOKENS_FILE] = files.special_tokens_map(vocabulary)
        fields.update({f"{role}_id": vocabulary.id_of(role) for role in ("bos_token", "eos_token")})
    return texts


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 2 after one line on stderr."""
    parser = Parser(prog="models.convert", description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--input", required=True, help="folder or .pt of fairseq to read, or hf://OWNER/NAME")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--to_hf", action="store_true", help="convert a folder of ours to Hugging Face")
    parser.add_argument("--to_adapter", action="store_true", help="write adapter.LANG.safetensors of --target_lang")
    parser.add_argument("--target_lang", default="", help="language of an MMS checkpoint, such as fra")
    parser.add_argument("--to_peft", action="store_true", help="write LoRA or bottleneck adapters alone, as PEFT does")
    parser.add_argument("--peft", default="", help="folder of --to_peft, or of PEFT, to put into the weights")
    parser.add_argument("--merge", action="store_true", help="write a run's weights with LoRA merged into them")
    parser.add_argument("--model_type", default="", choices=("", *MODEL_TYPES), help="used with --to_hf and --to_peft")
    parser.add_argument("--vocab", default="", help="vocab.json of a new alphabet, which gets a new head")
    parser.add_argument("--preset", default="", help="architecture of a .pt that does not tell it")
    parser.add_argument("--allow_missing", default="", help="comma-separated names or patterns that may be missing")
    parser.add_argument("--allow_unexpected", default="", help="comma-separated names or patterns to drop")
    set_tensorflow_defaults()
    try:
        flags = parser.parse_args(argv)
        report = _convert(flags)
    except (ValueError, OSError) as error:
        print(f"models.convert: {describe_error(error)}", file=sys.stderr)
        return 2
    print(f"{flags.input} -> {flags.output}")
    print("\n".join(report.lines()))
    return 0


def _convert(flags: argparse.Namespace) -> Report:
    """Runs the conversion that the flags ask for."""
    kinds = [name for name in _KINDS if getattr(flags, name)]
    if len(kinds) > 1:
        raise ValueError(f"--{kinds[0]} and --{kinds[1]} are different conversions; give one of them")
    if flags.target_lang and kinds and kinds != ["to_adapter"]:
        raise ValueError(f"--{kinds[0]} takes the whole model; leave out --target_lang")
    if flags.to_hf:
        return to_hf(input=flags.input, output=flags.output, model_type=flags.model_type)
    if flags.to_peft:
        return to_peft(input=flags.input, output=flags.output, model_type=flags.model_type)
    if flags.to_adapter:
        return to_adapter(input=flags.input, output=flags.output, target_lang=flags.target_lang)
    if flags.merge:
        return merge(input=flags.input, output=flags.output)
    return _convert_to_ours(flags)


def _convert_to_ours(flags: argparse.Namespace) -> Report:
    """Writes a folder of ours from a published model, or from a base model and the adapter of --peft."""
    adapter = peft.read(Path(flags.peft)) if flags.peft else None
    source = named_weights.fetch(flags.input) if is_weight_name(flags.input) else flags.input
    config = Path(source, "config.json")
    if adapter is not None and config.is_file() and "model_type" not in json_files.read_object(config):
        return merge(input=source, output=flags.output, adapter=adapter)
    return from_hf(
        input=source,
        output=flags.output,
        vocab=flags.vocab,
        preset=flags.preset,
        allow_missing=_comma_list(flags.allow_missing),
        allow_unexpected=_comma_list(flags.allow_unexpected),
        target_lang=flags.target_lang or split_language(flags.input)[1],
        adapter=adapter,
    )


def _comma_list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


if __name__ == "__main__":
    sys.exit(main())
