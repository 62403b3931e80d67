"""Fetches archives of weights over https, and keeps each under the hash of its content."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import hashlib
import http.client
import json
import lzma
import os
import sys
import tarfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from common import json_files
from common.readable import describe_error
from common.weight_names import CHECKPOINT_SUFFIX, archive_suffix
from models.weights.cache import cache_folder, inner_folder, keep, storage_error, temporary_folder
from models.weights.kaggle import kaggle_name

_BLOCK_BYTES = 2**20
_TIMEOUT_SECS = 60.0  # of a silent server


def fetch_archive(url: str) -> Path:
    """Downloads and unpacks an archive into a folder named by its hash; the URL and its ETag find it again."""
    cache = cache_folder() / "archives"
    note = cache / f"{hashlib.sha256(url.encode()).hexdigest()[:32]}.json"
    known = _read_note(note, cache)
    headers = {"If-None-Match": known.etag} if known is not None and known.etag else {}
    try:
        with contextlib.closing(_open(url, headers)) as response:
            if response.status == http.client.NOT_MODIFIED and known is not None:
                return known.folder
            with temporary_folder(cache) as temporary:
                archive = temporary / f"archive{archive_suffix(url)}"
                digest = _download(response, archive, url)
                content = temporary / "content"
                _unpack(archive, content, url)
                folder = keep(content, cache / digest)
            etag = response.headers.get("ETag", "")
    except urllib.error.URLError as error:
        if known is not None:
            return known.folder
        raise OSError(f"{url}: cannot be fetched ({describe_error(error.reason, 200)}); check the network") from error
    except OSError as error:
        if str(error).startswith(url):
            raise
        raise storage_error(url, error) from error
    text = {"url": url, "etag": etag, "sha256": digest}
    _write_note(note, text)
    return inner_folder(folder)


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
    return _Note(etag, inner_folder(folder)) if folder.is_dir() else None


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


# Errors of unpacking a file that is damaged, encrypted or not an archive. BadGzipFile is an OSError, which would
# otherwise be reported as an error of the disk.
_DAMAGED = (
    tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, ValueError,
    RuntimeError,
)  # fmt: skip


def _unpack(archive: Path, target: Path, url: str) -> None:
    """Unpacks files that stay inside the target; links out of it, devices and absolute names are refused."""
    target.mkdir()
    try:
        if archive.suffix == CHECKPOINT_SUFFIX:
            os.replace(archive, target / Path(urllib.parse.urlsplit(url).path).name)
        elif archive.suffix == ".zip":
            with zipfile.ZipFile(archive) as file:
                file.extractall(target)
        else:
            with tarfile.open(archive) as file:
                file.extractall(target, filter="data")
                # A tar ends before the checksum of the gzip around it: only reading on to the end compares that.
                while file.fileobj is not None and file.fileobj.read(_BLOCK_BYTES):
                    pass
    except _DAMAGED as error:
        raise ValueError(f"{url}: not an archive that can be unpacked ({describe_error(error, 200)})") from error
