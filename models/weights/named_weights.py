"""Turns the name of published weights into a local folder: downloads once, converts once, keeps both in a cache.

hf://OWNER/NAME[@REVISION]                                a model of the Hugging Face Hub
kaggle://OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]        a SavedModel of Kaggle Models, formerly TensorFlow Hub
https://HOST/NAME.tar.gz                                  an archive (.tar, .tar.gz, .tgz, .zip) of any such folder
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import http.client
import json
import logging
import os
import re
import shutil
import sys
import tarfile
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from common import json_files
from common.weight_names import HUGGING_FACE, KAGGLE, archive_suffix, is_weight_name

CACHE_VARIABLE = "EARSHOT_CACHE"
_FORMAT = 1  # of converted folders: raised when the converter writes other numbers, so that old ones are left alone
_METADATA = (
    "config.json",
    "vocab.json",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "processor_config.json",
)
# The first that a model has is fetched, and no other.
_WEIGHTS = (
    ("model.safetensors",),
    ("model.safetensors.index.json", "model-*.safetensors"),
    ("pytorch_model.bin",),
)
_BLOCK_BYTES = 2**20
_TIMEOUT_SECS = 60.0  # of a silent server
_CONTENT_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")

Convert = Callable[[Path, Path], None]


def local_folder(name: str, *, convert: Convert) -> str:
    """Returns a local folder of weights that a model can start from; a path is returned as it is.

    Args:
        name: a path, or one of the forms above.
        convert: writes a folder of ours from a Hugging Face folder: `convert(input, output)`.

    Raises:
        ValueError: the name is malformed, or what it stands for cannot be used.
        OSError: it cannot be fetched or stored. Both are one line that says what to do.
    """
    if not is_weight_name(name):
        return name
    folder = fetch(name)
    if _is_hugging_face(folder):
        return os.fspath(_converted(name, folder, convert))
    return os.fspath(folder)


def fetch(name: str) -> Path:
    """Downloads what a name stands for, unless the cache has it, and returns the folder as it was published."""
    if name.startswith(HUGGING_FACE):
        return _fetch_hugging_face(name)
    if name.startswith(KAGGLE):
        return _fetch_kaggle(name)
    return _fetch_archive(name)


def cache_folder() -> Path:
    """Returns the folder for archives and converted weights: $EARSHOT_CACHE, or earshot in the user's cache folder."""
    if folder := os.environ.get(CACHE_VARIABLE):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "earshot")


def _fetch_hugging_face(name: str) -> Path:
    from huggingface_hub import HfApi, constants, snapshot_download
    from huggingface_hub import errors as hub_errors

    repository, _, revision = name.removeprefix(HUGGING_FACE).partition("@")
    if not _REPOSITORY.fullmatch(repository):
        raise ValueError(
            f"{name}: not a name of the Hugging Face Hub; write hf://OWNER/NAME or hf://OWNER/NAME@REVISION"
        )
    try:
        with _quiet("huggingface_hub"):
            try:
                patterns = _needed_files(HfApi().list_repo_files(repository, revision=revision or None), name)
            except ValueError:
                raise
            except Exception as error:  # of any transport library: their families differ from version to version
                if not _is_unreachable(error):
                    raise
                return _cached_model(name, repository, revision)
            return Path(snapshot_download(repository, revision=revision or None, allow_patterns=patterns))
    except hub_errors.GatedRepoError as error:
        raise OSError(
            f"{name}: its owner asks for consent; accept the terms on {constants.ENDPOINT}/{repository}, then log in "
            "with `hf auth login` or set HF_TOKEN"
        ) from error
    except hub_errors.RevisionNotFoundError as error:
        raise OSError(f"{name}: the model has no revision {revision!r}; give a branch, a tag or a commit") from error
    except hub_errors.RepositoryNotFoundError as error:
        raise OSError(
            f"{name}: no such model on {constants.ENDPOINT}, or a private one; check the name, or log in with "
            "`hf auth login` or HF_TOKEN"
        ) from error
    except hub_errors.LocalEntryNotFoundError as error:
        raise OSError(
            f"{name}: {constants.ENDPOINT} cannot be reached and the cache does not have the whole model; connect to "
            "the network, unset HF_HUB_OFFLINE, and run the same command again"
        ) from error
    except hub_errors.HfHubHTTPError as error:
        raise OSError(f"{name}: {constants.ENDPOINT} answers {_status_of(error)}") from error
    except OSError as error:
        raise _storage_error(name, error) from error
    except ValueError:
        raise
    except Exception as error:  # what the library's transports raise is not one family
        raise OSError(f"{name}: the download broke off ({_one_line(error)}); run the same command again") from error


def _cached_model(name: str, repository: str, revision: str) -> Path:
    """Returns what an earlier download left whole, without the network."""
    from huggingface_hub import errors as hub_errors
    from huggingface_hub import snapshot_download

    for patterns in _WEIGHTS:
        with contextlib.suppress(hub_errors.LocalEntryNotFoundError):
            wanted = [*_METADATA, *patterns]
            folder = Path(
                snapshot_download(repository, revision=revision or None, allow_patterns=wanted, local_files_only=True)
            )
            if (folder / patterns[0]).is_file():
                return folder
    raise hub_errors.LocalEntryNotFoundError(name)


def _needed_files(files: Sequence[str], name: str) -> list[str]:
    """Returns the patterns of the files that the converter reads, out of the names of all files of a model."""
    for patterns in _WEIGHTS:
        if patterns[0] in files:
            return [*(file for file in _METADATA if file in files), *patterns]
    shown = ", ".join(sorted(files)[:8]) or "none"
    raise ValueError(
        f"{name}: no weights that can be read ({', '.join(patterns[0] for patterns in _WEIGHTS)}); its files: {shown}"
    )


def _is_unreachable(error: Exception) -> bool:
    """Returns whether a server did not answer, rather than answered with a refusal."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status is None or status >= 500


def _status_of(error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status == 429:
        return "429 (too many requests); wait some minutes and run the same command again, or log in with HF_TOKEN"
    if status in (401, 403):
        return f"{status} (no permission); log in with `hf auth login` or set HF_TOKEN"
    return f"{status}; run the same command again later"


def _fetch_kaggle(name: str) -> Path:
    handle = name.removeprefix(KAGGLE).strip("/")
    if len(handle.split("/")) not in (4, 5):
        raise ValueError(
            f"{name}: not a name of Kaggle Models; write {KAGGLE}OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]"
        )
    try:
        import kagglehub
        from kagglehub import exceptions as kaggle_errors
    except ImportError as error:
        raise ValueError(f"{name}: kaggle:// needs kagglehub; pip install 'earshot[kaggle]'") from error
    try:
        folder = Path(kagglehub.model_download(handle))
    except kaggle_errors.UnauthenticatedError as error:
        raise OSError(
            f"{name}: Kaggle asks who you are; set KAGGLE_API_TOKEN, or put kaggle.json into ~/.kaggle"
        ) from error
    except kaggle_errors.KaggleApiHTTPError as error:
        raise OSError(f"{name}: Kaggle answers {_kaggle_status(error)}") from error
    except ValueError as error:
        raise ValueError(f"{name}: {_one_line(error)}") from error
    except OSError as error:  # requests' connection errors are among them
        if error.errno == errno.ENOSPC:
            raise _storage_error(name, error) from error
        raise OSError(
            f"{name}: cannot be fetched ({_one_line(error)}); check the network; a name with its version, "
            f"{KAGGLE}{'/'.join(handle.split('/')[:4])}/1, is taken from the cache without one"
        ) from error
    except Exception as error:
        raise OSError(f"{name}: the download failed ({_one_line(error)}); run the same command again") from error
    return _inner_folder(folder)


def _kaggle_status(error: Any) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"{status}: no such model, or one whose terms you have to accept on its page first; log in with kaggle.json"
        )
    if status == 404:
        return "404: no such model; check owner, model, framework, variation and version"
    if status == 429:
        return "429 (too many requests); wait some minutes and run the same command again"
    return f"{status}; run the same command again later"


def _fetch_archive(url: str) -> Path:
    """Downloads and unpacks an archive; its content names the folder, the URL and its ETag find it again."""
    cache = cache_folder() / "archives"
    note = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
    known = _read_note(note, cache)
    headers = {"If-None-Match": known.etag} if known is not None and known.etag else {}
    try:
        with contextlib.closing(_open(url, headers)) as response:
            if response.status == http.client.NOT_MODIFIED and known is not None:
                return known.folder
            with _temporary_folder(cache) as temporary:
                archive = temporary / f"archive{archive_suffix(url)}"
                digest = _download(response, archive, url)
                content = temporary / "content"
                _unpack(archive, content, url)
                folder = _keep(content, cache / digest)
            etag = response.headers.get("ETag", "")
    except urllib.error.URLError as error:
        if known is not None:
            return known.folder
        raise OSError(f"{url}: cannot be fetched ({_one_line(error.reason)}); check the network") from error
    except OSError as error:
        if str(error).startswith(url):
            raise
        raise _storage_error(url, error) from error
    text = {"url": url, "etag": etag, "sha256": digest}
    _write_note(note, text)
    return _inner_folder(folder)


@dataclasses.dataclass(frozen=True)
class _Note:
    """An archive that the cache has."""

    etag: str
    folder: Path


def _read_note(path: Path, cache: Path) -> _Note | None:
    try:
        fields = json_files.read_object(path)
        folder = cache / json_files.field(fields, "sha256", str, os.fspath(path))
        etag = json_files.field(fields, "etag", str, os.fspath(path))
    except (OSError, ValueError):
        return None
    return _Note(etag, _inner_folder(folder)) if folder.is_dir() else None


def _write_note(path: Path, fields: Mapping[str, str]) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(fields), encoding="utf-8")
    os.replace(temporary, path)


def _open(url: str, headers: Mapping[str, str]) -> http.client.HTTPResponse:
    request = urllib.request.Request(url, headers={"User-Agent": "earshot", **headers})
    try:
        return urllib.request.urlopen(request, timeout=_TIMEOUT_SECS)
    except urllib.error.HTTPError as error:
        if error.code == http.client.NOT_MODIFIED:
            return error  # type: ignore[return-value]
        raise OSError(f"{url}: the server answers {error.code} ({error.reason}); {_remedy(url, error.code)}") from error


def _remedy(url: str, status: int) -> str:
    if hint := kaggle_name(url):
        return f"TensorFlow Hub has moved: give {hint}"
    return {
        401: "fetch it by hand and give the folder",
        403: "fetch it by hand and give the folder",
        404: "check the address",
        429: "wait some minutes and run the same command again",
    }.get(status, "run the same command again later")


def kaggle_name(url: str) -> str:
    """Returns the kaggle:// name of a handle of tfhub.dev; "" for any other address."""
    parts = urllib.parse.urlsplit(url)
    path = parts.path.strip("/").split("/")
    if parts.hostname != "tfhub.dev" or len(path) < 2:
        return ""
    owner, model, version = path[0], path[1], path[-1] if path[-1].isdigit() else "1"
    variation = "-".join(path[1:-1] if path[-1].isdigit() and len(path) > 2 else path[1:])
    return f"{KAGGLE}{owner}/{model}/tensorFlow2/{variation}/{version}"


def _download(response: http.client.HTTPResponse, target: Path, url: str) -> str:
    """Writes the body of an answer to a file and returns its SHA-256."""
    promised = int(response.headers.get("Content-Length") or 0) or None
    digest, size = hashlib.sha256(), 0
    try:
        with (
            open(target, "wb") as file,
            tqdm(total=promised, unit="B", unit_scale=True, desc=Path(url).name, file=sys.stderr) as bar,
        ):
            while block := response.read(_BLOCK_BYTES):
                file.write(block)
                digest.update(block)
                size += len(block)
                bar.update(len(block))
    except (http.client.IncompleteRead, ConnectionError, TimeoutError) as error:
        raise OSError(f"{url}: the connection broke after {size} bytes; run the same command again") from error
    if promised is not None and size != promised:
        raise OSError(f"{url}: the connection broke after {size} of {promised} bytes; run the same command again")
    return digest.hexdigest()


def _unpack(archive: Path, target: Path, url: str) -> None:
    """Unpacks files that stay inside the target; links out of it, devices and absolute names are refused."""
    target.mkdir()
    try:
        if archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                file.extractall(target)
        else:
            with tarfile.open(archive) as file:
                file.extractall(target, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise ValueError(f"{url}: not an archive that can be unpacked ({_one_line(error)})") from error


def _converted(name: str, folder: Path, convert: Convert) -> Path:
    """Converts a Hugging Face folder once; the same content is found again whatever it was called."""
    target = cache_folder() / "converted" / f"{_FORMAT}-{_content_key(folder)}"
    if target.is_dir():
        return target
    try:
        with _temporary_folder(target.parent) as temporary:
            convert(folder, temporary / "weights")
            return _keep(temporary / "weights", target)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    except OSError as error:
        raise _storage_error(name, error) from error


def _content_key(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name in _METADATA or path.suffix in (".safetensors", ".bin") or path.name.endswith(".index.json"):
            # The Hub's cache names a file by the hash of its content and links to it.
            name = path.resolve().name
            content = name if _CONTENT_HASH.fullmatch(name) else _digest_of(path)
            digest.update(f"{path.name}\0{content}\0".encode())
    return digest.hexdigest()[:32]


def _digest_of(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_hugging_face(folder: Path) -> bool:
    try:
        return "model_type" in json_files.read_object(folder / "config.json")
    except (OSError, ValueError):
        return False


def _inner_folder(folder: Path) -> Path:
    """Steps into the one folder that an archive holds, as most do."""
    children = list(folder.iterdir()) if folder.is_dir() else []
    return children[0] if len(children) == 1 and children[0].is_dir() else folder


@contextlib.contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".making-", dir=parent))
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _keep(made: Path, target: Path) -> Path:
    """Gives a finished folder its name; where another process was faster, its folder stands."""
    try:
        os.rename(made, target)
    except OSError:
        if not target.is_dir():
            raise
    return target


@contextlib.contextmanager
def _quiet(library: str) -> Iterator[None]:
    """Leaves a library its progress bars, and keeps its log lines back: what is wrong is said in one line here."""
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _storage_error(name: str, error: OSError) -> OSError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        place = error.filename or cache_folder()
        return OSError(
            error.errno, f"{name}: no room on the disk of {place}; free some, or set {CACHE_VARIABLE} and HF_HOME"
        )
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return OSError(
            error.errno, f"{name}: cannot write to {error.filename}; set {CACHE_VARIABLE} and HF_HOME elsewhere"
        )
    return OSError(f"{name}: {_one_line(error)}")


def _one_line(error: object) -> str:
    text = " ".join(str(error).split())
    return text[:200] or type(error).__name__
