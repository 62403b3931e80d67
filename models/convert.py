"""Converts models between Hugging Face folders and folders of this project.

python -m models.convert --input=HF_DIR_OR_NAME --output=DIR [--vocab=vocab.json]
python -m models.convert --input=MMS_DIR --output=DIR --target_lang=fra
python -m models.convert --input=DIR --output=HF_DIR --to_hf
python -m models.convert --input=WORKDIR --output=HF_DIR --to_adapter --target_lang=fra
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import json_files
from common.arguments import Parser
from common.special_tokens import TOKENIZER_FILE
from common.tensorflow_environment import set_tensorflow_defaults
from common.weight_names import is_weight_name, repository_hint, split_language
from models.hugging_face import config as hf_config
from models.hugging_face import files, languages
from models.hugging_face import names as hf_names
from models.hugging_face.card import compose_card_of
from models.hugging_face.matching import Report, canonical_names, match
from models.hugging_face.model_types import MODEL_TYPES
from models.wav2vec2.config import Wav2Vec2Config
from models.weights import named_weights
from models.weights.tensor_files import open_tensors, save_tensors

# Lies beside our weights and records what `to_hf` needs.
ORIGIN_FILE = "origin.json"
_CARD = "README.md"


def from_hf(
    *,
    input: str | os.PathLike[str],
    output: str | os.PathLike[str],
    vocab: str | os.PathLike[str] = "",
    allow_missing: Sequence[str] = (),
    allow_unexpected: Sequence[str] = (),
    target_lang: str = "",
) -> Report:
    """Converts a Hugging Face folder of a wav2vec 2.0 or HuBERT model to a folder of ours.

    Args:
        input: Folder with config.json and model.safetensors (whole or sharded) or pytorch_model.bin.
            `models.hugging_face.files` describes the files of the tokenizer and the feature extractor.
        output: Folder to write.
        vocab: vocab.json of a new alphabet, which gets a new head; "" takes the input's.
        allow_missing: Patterns of tensors that may be missing and get random values. The head (as a whole) and the mask
            embedding always may.
        allow_unexpected: Patterns of tensors to drop. Those that only pretraining uses are always dropped.
        target_lang: Language whose adapter and head are read from a checkpoint of several, as MMS has them; "" takes
            the one that its tokenizer names.

    Returns:
        The outcome for each tensor.

    Raises:
        FileNotFoundError: If config.json or the weights are absent.
        ValueError: If the architecture is not supported, or tensors are missing, unexpected, of another shape or
            damaged; nothing is written.
    """
    folder = Path(input)
    if not folder.is_dir() and (hint := repository_hint(os.fspath(input))):
        raise FileNotFoundError(f"{folder}: no such folder{hint}")
    config, fields = hf_config.read_hf_config(folder / "config.json")
    normalizes, preprocessing = files.read_preprocessing(folder, config.front_end)
    config = dataclasses.replace(config, normalize_waveform=normalizes)
    with contextlib.ExitStack() as stack:
        language = languages.choose_language(folder, target_lang, config, has_vocab=bool(vocab))
        tensors = languages.open_language(open_tensors(folder, stack), folder, target_lang, stack)
        try:
            names = canonical_names(list(tensors))
            fresh_head = bool(vocab) or not any(name in names for name in hf_names.HEAD)
            vocabulary = _new_vocabulary(folder, vocab, fields, language) if fresh_head else None
            config = languages.fit_head(config, tensors, names)
            if vocabulary is not None:
                config = dataclasses.replace(config, vocab_size=len(vocabulary.ids))
            report = match(
                config=config,
                names=names,
                shapes={name: tensor.shape for name, tensor in tensors.items()},
                fresh_head=fresh_head,
                allow_missing=allow_missing,
                allow_unexpected=allow_unexpected,
            )
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
        if not fresh_head:
            rows = config.vocab_size
            vocabulary = files.folder_vocabulary(folder, num_rows=rows, config=fields, target_lang=language)
        report.understood.append(f"   audio: {preprocessing}")
        if language:
            report.understood.append(f"language: {language}")
        _report_text(report, folder, vocabulary, fresh_head=fresh_head)

        def value_of(entry: hf_names.Entry) -> np.ndarray | None:
            if entry.theirs[0] not in report.loaded:
                return None
            return entry.join([tensors[names[name]].read() for name in entry.theirs])

        _write_ours(report, value_of, Path(output), vocabulary, fields["model_type"])
    return report


def _new_vocabulary(
    folder: Path, vocab: str | os.PathLike[str], fields: Mapping[str, Any], language: str
) -> files.Vocabulary | None:
    """Reads the vocabulary of a new head: `vocab`, or else the folder's; None if there is neither."""
    if vocab:
        return files.read_vocabulary(vocab)
    return files.folder_vocabulary(folder, num_rows=0, config=fields, target_lang=language)


def _report_text(report: Report, folder: Path, vocabulary: files.Vocabulary | None, *, fresh_head: bool) -> None:
    """Adds to the report which text the model writes."""
    if vocabulary is not None:
        report.understood.append(f"    text: {vocabulary.describe()}")
        report.notes += [*vocabulary.notes, *files.text_notes(folder, vocabulary)]
    elif not fresh_head:
        report.notes.append(f"no {files.VOCAB_FILE}, so the tokens of the head are unknown; a run needs data.vocab")


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
    from models.wav2vec2.model import Wav2Vec2ForCTC  # imports TensorFlow, so not before flags are checked

    folder, target = Path(input), Path(output)
    model = Wav2Vec2ForCTC.from_pretrained(folder)
    model_type = model_type or _origin_type(folder / ORIGIN_FILE) or hf_config.usual_type(model.config)
    vocab = folder / files.VOCAB_FILE
    vocabulary = files.read_vocabulary(vocab) if vocab.is_file() else None
    texts = _hf_texts(model.config, vocabulary, model_type)
    report = Report(model.config)
    variables = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    tensors = {}
    for entry in hf_names.name_table(model.config):
        for name, tensor in entry.split(variables[entry.ours].numpy()).items():
            tensors[hf_names.full_name(name, model_type=model_type)] = tensor
            report.loaded[name] = tensor.size
    target.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target))
    try:
        save_tensors(tensors, temporary)
        for name, content in texts.items():
            files.write_json(temporary / name, content)
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
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
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
    from models.wav2vec2.model import Wav2Vec2ForCTC  # imports TensorFlow, so not before flags are checked

    folder, target_lang = Path(input), languages.check_language(target_lang)
    vocab = folder / files.VOCAB_FILE
    vocabulary = files.read_vocabulary(vocab) if vocab.is_file() else None
    model = Wav2Vec2ForCTC.from_pretrained(folder)
    variables = {variable.name.removesuffix(":0"): variable.numpy() for variable in model.variables}
    written = languages.save_adapter(variables, model.config, vocabulary, Path(output), target_lang)
    return Report(model.config, loaded=written)


def _origin_type(origin: Path) -> str:
    """Returns the type that the model came as, "" if the file does not exist or does not say."""
    if not origin.is_file():
        return ""
    return json_files.optional_field(json_files.read_object(origin), "model_type", str, os.fspath(origin), "")


def _hf_texts(config: Wav2Vec2Config, vocabulary: files.Vocabulary | None, model_type: str) -> dict[str, Any]:
    """Returns the JSON files of a Hugging Face folder, name -> content."""
    blank_id = vocabulary.blank_id if vocabulary is not None else 0
    fields = hf_config.to_hf(config, model_type=model_type, blank_id=blank_id)
    texts: dict[str, Any] = {files.PREPROCESSOR_FILE: files.preprocessor_fields(config), "config.json": fields}
    if vocabulary is not None:
        texts[files.VOCAB_FILE] = vocabulary.ids
        texts[TOKENIZER_FILE] = files.tokenizer_fields(vocabulary)
        texts[files.SPECIAL_TOKENS_FILE] = files.special_tokens_map(vocabulary)
        fields.update({f"{role}_id": vocabulary.id_of(role) for role in ("bos_token", "eos_token")})
    return texts


def fetch_weights(name: str) -> str:
    """Fetches and converts published weights once, and returns their local folder; returns a path unchanged."""

    def convert(source: Path, target: Path) -> None:
        from_hf(input=source, output=target, target_lang=split_language(name)[1])

    return named_weights.local_folder(name, convert=convert)


def _write_ours(
    report: Report,
    value_of: Callable[[hf_names.Entry], np.ndarray | None],
    output: Path,
    vocabulary: files.Vocabulary | None,
    model_type: str,
) -> None:
    """Builds the model, assigns the values of its variables and writes the folder."""
    from models.wav2vec2.model import Wav2Vec2ForCTC  # imports TensorFlow, so not before the files are checked

    model = Wav2Vec2ForCTC(config=report.config)
    variables = {variable.name.removesuffix(":0"): variable for variable in model.variables}
    for entry in hf_names.name_table(report.config):
        value = value_of(entry)
        if value is not None:
            variables[entry.ours].assign(value)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".saving-", dir=output) as temporary:
        vocab, origin = Path(temporary, files.VOCAB_FILE), Path(temporary, ORIGIN_FILE)
        if vocabulary is not None:
            files.write_json(vocab, vocabulary.ids)
            files.write_json(Path(temporary, TOKENIZER_FILE), files.tokenizer_fields(vocabulary))
        files.write_json(
            origin, {"model_type": model_type, "fresh": list(report.fresh), "dropped": list(report.dropped)}
        )
        (output / ORIGIN_FILE).unlink(missing_ok=True)
        model.save_pretrained(output, vocab=vocab if vocabulary is not None else "")
        os.replace(origin, output / ORIGIN_FILE)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 2 after one line on stderr."""
    parser = Parser(prog="models.convert", description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--input", required=True, help="folder to read, or hf://OWNER/NAME")
    parser.add_argument("--output", required=True, help="folder to write")
    parser.add_argument("--to_hf", action="store_true", help="convert a folder of ours to Hugging Face")
    parser.add_argument("--to_adapter", action="store_true", help="write adapter.LANG.safetensors of --target_lang")
    parser.add_argument("--target_lang", default="", help="language of an MMS checkpoint, such as fra")
    parser.add_argument("--model_type", default="", choices=("", *MODEL_TYPES), help="used with --to_hf")
    parser.add_argument("--vocab", default="", help="vocab.json of a new alphabet, which gets a new head")
    parser.add_argument("--allow_missing", default="", help="comma-separated names or patterns that may be missing")
    parser.add_argument("--allow_unexpected", default="", help="comma-separated names or patterns to drop")
    set_tensorflow_defaults()
    try:
        flags = parser.parse_args(argv)
        if flags.to_hf and (flags.to_adapter or flags.target_lang):
            raise ValueError("--to_hf writes the whole model; leave out --target_lang and --to_adapter")
        if flags.to_adapter:
            report = to_adapter(input=flags.input, output=flags.output, target_lang=flags.target_lang)
        elif flags.to_hf:
            report = to_hf(input=flags.input, output=flags.output, model_type=flags.model_type)
        else:
            report = from_hf(
                input=named_weights.fetch(flags.input) if is_weight_name(flags.input) else flags.input,
                output=flags.output,
                vocab=flags.vocab,
                allow_missing=_comma_list(flags.allow_missing),
                allow_unexpected=_comma_list(flags.allow_unexpected),
                target_lang=flags.target_lang or split_language(flags.input)[1],
            )
    except (ValueError, OSError) as error:
        print(f"models.convert: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{flags.input} -> {flags.output}")
    print("\n".join(report.lines()))
    return 0


def _comma_list(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


if __name__ == "__main__":
    sys.exit(main())
