"""Fetches models of the Hugging Face Hub through its library: its cache, its login, its offline mode."""

from __future__ import annotations

import contextlib
import fnmatch
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.readable import describe_error
from common.weight_names import HUGGING_FACE, split_language
from models.weights.cache import quiet, storage_error

# Files beside the weights that the converter reads.
METADATA = (
    "config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
# The first that a model has is fetched, and no other.
_WEIGHTS: tuple[tuple[str, ...], ...] = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
    ("pytorch_model.bin.index.json", "pytorch_model-*.bin"),
    ("tf_model.h5",),
    ("tf_model.h5.index.json", "tf_model-*.h5"),
)
# Of a model without config.json: a checkpoint of fairseq or fairseq2 with its dictionary or tokenizer.
_CHECKPOINT = ("*.pt", "*.model", "dict.*.txt")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def fetch_model(name: str) -> Path:
    """Downloads the files of a model that the converter reads, unless the cache has them, and returns their folder.

    Args:
        name: hf://OWNER/NAME or hf://OWNER/NAME@REVISION; #LANG behind it adds the adapter of a language.

    Raises:
        ValueError: The name is malformed, or the model has no weights that can be read.
        OSError: The model cannot be fetched or stored.
    """
    model, language = split_language(name)
    repository, _, revision = model.removeprefix(HUGGING_FACE).partition("@")
    if not _REPOSITORY.fullmatch(repository) or not (language or "#" not in name):
        raise ValueError(
            f"{name}: not a name of the Hugging Face Hub; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION, and #LANG "
            "behind it for a language of MMS"
        )
    import huggingface_hub.utils.logging  # noqa: F401 - sets the level that `quiet` changes; the package is lazy

    try:
        with quiet("huggingface_hub"):
            return _download(name, repository, revision, adapter_files(language))
    except ValueError:
        raise
    except Exception as error:  # the library's transports raise more than one family
        raise _explain(error, name, repository, revision) from error


def adapter_files(language: str) -> tuple[str, ...]:
    """Returns the names that the adapter of a language can have; none without a language."""
    return (f"adapter.{language}.safetensors", f"adapter.{language}.bin") if language else ()


def _download(name: str, repository: str, revision: str, adapters: Sequence[str]) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    try:
        listed = HfApi().list_repo_files(repository, revision=revision or None)
        patterns = [*_needed_files(listed, name), *[file for file in adapters if file in listed][:1]]
    except ValueError:
        raise
    except Exception as error:  # of any transport library: their families differ from version to version
        if not _is_unreachable(error):
            raise
        return _cached_model(name, repository, revision, adapters)
    return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))


def _explain(error: Exception, name: str, repository: str, revision: str) -> OSError:
    """Returns an error of one line for an error of the library: what is wrong, and what to do."""
    from huggingface_hub import constants, errors

    # Subclasses come before their base classes.
    reasons = {
        errors.GatedRepoError: f"its owner asks for consent; accept the terms on {constants.ENDPOINT}/{repository}, "
        "then log in with `hf auth login` or set HF_TOKEN",
        errors.RevisionNotFoundError: f"the model has no revision {revision!r}; give a branch, a tag or a commit",
        errors.RepositoryNotFoundError: f"no such model on {constants.ENDPOINT}, or a private one; check the name, or "
        "log in with `hf auth login` or HF_TOKEN",
        errors.LocalEntryNotFoundError: f"{constants.ENDPOINT} cannot be reached and the cache does not have the whole "
        "model; connect to the network, unset HF_HUB_OFFLINE, and run the same command again",
        errors.HfHubHTTPError: f"{constants.ENDPOINT} answers {_status_of(error)}",
    }
    for kind, reason in reasons.items():
        if isinstance(error, kind):
            return OSError(f"{name}: {reason}")
    if isinstance(error, OSError):
        return storage_error(name, error)
    return OSError(f"{name}: the download broke off ({describe_error(error, 200)}); run the same command again")


def _cached_model(name: str, repository: str, revision: str, adapters: Sequence[str]) -> Path:
    """Returns the folder of a model that an earlier download completed, without the network."""
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import snapshot_download

    for patterns in (*_WEIGHTS, _CHECKPOINT):
        with contextlib.suppress(hub_errors.LocalEntryNotFoundError):
            wanted = [*METADATA, *patterns, *adapters]
            folder = Path(
                snapshot_download(repository, revision=revision or None, allow_patterns=wanted, local_files_only=True)
            )
            if any(folder.glob(patterns[0])) and (patterns != _CHECKPOINT or not (folder / "config.json").exists()):
                return folder
    raise hub_errors.LocalEntryNotFoundError(name)


def _needed_files(files: Sequence[str], name: str) -> list[str]:
    """Returns the patterns of the files that the converter reads, out of the names of all files of a model."""
    for patterns in _WEIGHTS:
        if patterns[0] in files:
            return [*(file for file in METADATA if file in files), *patterns]
    if "config.json" not in files and fnmatch.filter(files, _CHECKPOINT[0]):
        return list(_CHECKPOINT)
    shown = ", ".join(sorted(files)[:8]) or "none"
    raise ValueError(
        f"{name}: no weights that can be read ({', '.join(patterns[0] for patterns in (*_WEIGHTS, _CHECKPOINT))}); "
        f"its files: {shown}"
    )


def _is_unreachable(error: Exception) -> bool:
    """Returns whether a server did not answer, as opposed to refusing the request."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is None or status >= 500


def _status_of(error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 429:
        return "429 (too many requests); wait some minutes and run the same command again, or log in with HF_TOKEN"
    if status in (401, 403):
        return f"{status} (no permission); log in with `hf auth login` or set HF_TOKEN"
    return f"{status}; run the same command again later"
