"""What lies beside the weights in a Hugging Face folder: the vocabulary and the settings of the preprocessing."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from models.config import Wav2Vec2Config

VOCAB_FILE = "vocab.json"


def folder_vocab(folder: Path) -> dict[str, int] | None:
    """Returns the vocabulary of a Hugging Face folder, token -> id in the order of the ids, or None without one."""
    if not (folder / VOCAB_FILE).is_file():
        return None
    # Fine-tuned models of many languages keep <s> and </s> there.
    return read_vocab(folder / VOCAB_FILE, [folder / "added_tokens.json"])


def read_vocab(path: str | os.PathLike[str], more: Sequence[Path] = ()) -> dict[str, int]:
    """Returns token -> id in the order of the ids, which are 0 to N - 1.

    Args:
        path: vocab.json.
        more: Files that may exist and hold further tokens.

    Raises:
        FileNotFoundError: If there is no `path`.
        ValueError: If a file is not such an object or the ids have gaps.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; make one with python -m data.vocab")
    tokens: dict[str, Any] = {}
    for file in (Path(path), *(extra for extra in more if extra.is_file())):
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{file}: not JSON ({error}); make it again") from error
        if not isinstance(found, dict) or not all(type(index) is int for index in found.values()):
            raise ValueError(f"{file}: not an object of token -> id; give one of a single language with --vocab")
        tokens.update(found)
    if sorted(tokens.values()) != list(range(len(tokens))):
        raise ValueError(f"{path}: the ids are not 0 to {len(tokens) - 1}, each once; mend it")
    return dict(sorted(tokens.items(), key=lambda item: item[1]))


def preprocessing_notes(folder: Path) -> list[str]:
    """Returns sentences on what the folder's preprocessing does otherwise than ours.

    Raises:
        ValueError: If its sampling rate is not 16 kHz, or the file is not JSON.
    """
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return []
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        rate, normalizes = fields.get("sampling_rate", 16_000), fields.get("do_normalize", True)
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path}: not an object of fields ({error}); fetch it again or remove it") from error
    if rate != 16_000:
        raise ValueError(f"{path}: sampling_rate is {rate!r}; only 16000 is supported")
    return [] if normalizes else [f"{path} has do_normalize=false, but waveforms are always normalized here"]


def preprocessor_fields(config: Wav2Vec2Config) -> dict[str, Any]:
    """Returns preprocessor_config.json: the settings of our own preprocessing."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "do_normalize": True,
        "feature_size": 1,
        "padding_side": "right",
        "padding_value": 0.0,
        # Models with group norm were trained without a mask, and transformers' group norm takes no notice of it.
        "return_attention_mask": config.feature_norm == "layer",
        "sampling_rate": 16_000,
    }


def tokenizer_fields(tokens: dict[str, int]) -> dict[str, Any]:
    """Returns tokenizer_config.json for a vocabulary."""
    special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    found = {role: token for role, token in special.items() if token in tokens}
    return {"tokenizer_class": "Wav2Vec2CTCTokenizer", "word_delimiter_token": "|", "do_lower_case": False, **found}


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON; not atomically."""
    path.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
