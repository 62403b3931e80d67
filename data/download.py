"""Downloads and extracts a LibriSpeech split from OpenSLR, resumable and checksummed.

    python -m data.download --split=dev-clean --output=DIR [--keep_archive] [--base_url=URL]

The split is written to DIR/LibriSpeech/dev-clean; read it with `--input=DIR/LibriSpeech --split=dev-clean`. Run the
same command again to resume an interrupted download; a finished split is left alone. An existing archive
DIR/dev-clean.tar.gz is used instead of a download. Archives have 0.13 GB (dev-clean-2) to 30 GB (train-other-500);
extracting takes as much again.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import http.client
import os
import re
import shutil
import sys
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from tqdm import tqdm

from common.storage import is_remote
from data.command import Parser, run_command
from data.common.errors import InputError
from data.common.files import only_writer

BASE_URL = "https://www.openslr.org/resources"
CORPUS = "LibriSpeech"  # top folder of every archive, also those of resource 31
TIMEOUT_SECS = 30.0
MAX_RETRIES = 6  # tries in a row without a new byte; with the back-off about a minute
MAX_WAIT_SECS = 60.0
_CHUNK_BYTES = 1 << 16  # most that a broken connection loses


@dataclass(frozen=True)
class Archive:
    """A published SPLIT.tar.gz.

    Attributes:
        resource: Number of the OpenSLR resource.
        md5: MD5 sum in hexadecimal.
        num_utterances: Number of utterances in it.
    """

    resource: int
    md5: str
    num_utterances: int


SPLITS: Mapping[str, Archive] = {
    "dev-clean": Archive(12, "42e2234ba48799c1f50f24a7926300a1", 2703),
    "dev-other": Archive(12, "c8d0bcc9cca99d4f8b62fcc847357931", 2864),
    "test-clean": Archive(12, "32fa31d27d2e1cad72775fee3f4849a9", 2620),
    "test-other": Archive(12, "fb5a50374b501bb3bac4815ee91d3135", 2939),
    "train-clean-100": Archive(12, "2a93770f6d5c6c964bc36631d331a522", 28539),
    "train-clean-360": Archive(12, "c0e676e450a7ff2f54aeade5171606fa", 104014),
    "train-other-500": Archive(12, "d1a0fd59409feb2c614ce4d30c387708", 148688),
    "dev-clean-2": Archive(31, "6d7ab67ac6a1d2c993d050e16d61080d", 1089),
    "train-clean-5": Archive(31, "5df7d4e78065366204ca6845bb08f490", 1519),
}


def fetch_split(
    *,
    split: str,
    output: str | os.PathLike[str],
    keep_archive: bool = False,
    base_url: str = BASE_URL,
    splits: Mapping[str, Archive] = SPLITS,
    backoff_secs: float = 1.0,
) -> bool:
    """Downloads and extracts OUTPUT/LibriSpeech/SPLIT, completely or not at all.

    Temporary files are in OUTPUT/LibriSpeech/.SPLIT.download. After a failure the part of the archive downloaded so far
    stays there for the next call.

    Args:
        split: Key of `splits`.
        output: Folder, made if absent.
        keep_archive: Whether to keep the archive as OUTPUT/SPLIT.tar.gz.
        base_url: Server; the archive is downloaded from BASE_URL/RESOURCE/SPLIT.tar.gz.
        splits: Published archives.
        backoff_secs: Wait before the first retry, doubled for each further one that brings no new byte.

    Returns:
        False if the split was finished before.

    Raises:
        InputError: If there is no such split or file, no network or too little disk space, or the archive has a wrong
            checksum (it is deleted), an unsafe member or a wrong number of utterances.
    """
    if split not in splits:
        raise InputError(f"no split {split!r}: choose one of {', '.join(splits)}")
    published = splits[split]
    _check_arguments(output, base_url)
    target = Path(output, CORPUS, split)
    work = target.with_name(f".{split}.download")
    if target.exists():
        _check_count(target, published, "move it away and run the same command again")
        if work.is_dir():  # left over from a call that was killed at its end
            with only_writer(work):
                shutil.rmtree(work)
        return False
    work.mkdir(parents=True, exist_ok=True)
    try:
        with only_writer(work):
            kept = Path(output, f"{split}.tar.gz")
            archive = kept if kept.is_file() else work / kept.name
            if not archive.is_file():
                part = work / f"{kept.name}.part"
                url = f"{base_url.rstrip('/')}/{published.resource}/{kept.name}"
                _download(url, part, backoff_secs)
                os.replace(part, archive)
            _check_md5(archive, published.md5, delete=archive != kept)
            if keep_archive and archive != kept:
                archive = Path(shutil.move(archive, kept))  # may be another disk
            _install(archive, target, work / "tree", published)
            shutil.rmtree(work)
    finally:
        with suppress(OSError):  # if it is not empty, the next call resumes from it
            work.rmdir()
    return True


def _check_arguments(output: str | os.PathLike[str], base_url: str) -> None:
    if is_remote(output):  # pathlib would make a folder named "gs:"
        raise InputError(
            f"--output is {os.fspath(output)}: give a local folder, then let data.prepare write to the URL"
        )
    if not base_url.startswith(("http://", "https://")):
        raise InputError(f"--base_url is {base_url!r}: it must begin with https:// or http://")
    if not hasattr(tarfile, "data_filter"):
        raise InputError("this Python cannot extract archives safely: use 3.11.4 or later")


def count_utterances(folder: Path) -> int:
    """Counts the transcript lines under FOLDER/SPEAKER/CHAPTER whose .flac file exists."""
    count = 0
    for transcripts in folder.glob("*/*/*.trans.txt"):
        names = set(os.listdir(transcripts.parent))
        lines = transcripts.read_text(encoding="utf-8", errors="replace").splitlines()
        count += sum(f"{line.split()[0]}.flac" in names for line in lines if line.strip())
    return count


class _TransferError(Exception):
    """A transfer failed in a way that a retry may fix."""


class _UnreachableError(_TransferError):
    """The server could not be reached at all."""


def _download(url: str, part: Path, backoff_secs: float) -> None:
    """Downloads `part` to its full length, over as many connections as it takes.

    Gives up at once if the server was never reached, because then the address or the network is wrong, and else after
    `MAX_RETRIES` tries in a row without a new byte.
    """
    failures, largest, answered = 0, _size(part), False
    while True:
        try:
            _transfer(url, part)
            return
        except _TransferError as error:
            answered = answered or not isinstance(error, _UnreachableError)
            size = _size(part)
            failures = 1 if size > largest else failures + 1
            largest = max(size, largest)
            if not answered or failures > MAX_RETRIES:
                tries = f" ({failures} tries)" if failures > 1 else ""
                resume = f" to continue after {size:,} bytes" if size else ""
                advice = f"check the network, then run the same command again{resume}"
                raise InputError(f"{error}{tries}: {advice}") from error
            wait = min(backoff_secs * 2 ** (failures - 1), MAX_WAIT_SECS)
            if sys.stderr.isatty():
                print(f"{error}: trying again in {wait:.0f} s", file=sys.stderr)
            time.sleep(wait)


def _transfer(url: str, part: Path) -> None:
    """Requests what `part` lacks and appends it.

    Raises:
        _TransferError: If a retry may help.
        InputError: If a retry will not help.
    """
    offset = _size(part)
    headers = {"User-Agent": "earshot"} | ({"Range": f"bytes={offset}-"} if offset else {})
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECS)
    except urllib.error.HTTPError as error:
        with error:
            return _judge_refusal(url, part, error)
    except urllib.error.URLError as error:
        raise _UnreachableError(f"cannot reach {url} ({error.reason})") from error
    except (http.client.InvalidURL, ValueError) as error:
        raise InputError(f"{url} is not a valid address ({error}): check --base_url") from error
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(f"{url} does not answer ({error})") from error
    with response:
        mode, total = _judge_answer(url, part, response)
        start = offset if mode == "ab" else 0  # the server may ignore Range
        with part.open(mode) as file, _bar(part.stem, total, start) as bar:
            while chunk := _read(url, response):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) < total:
        raise _TransferError(f"{url} was cut off after {_size(part):,} of {total:,} bytes")


def _read(url: str, response: Any) -> bytes:
    # A `try` for the network alone, because a full disk is an OSError too, but not a reason to retry.
    try:
        return response.read(_CHUNK_BYTES)
    except (OSError, http.client.HTTPException) as error:
        raise _TransferError(f"the connection to {url} broke ({error})") from error


def _judge_refusal(url: str, part: Path, error: urllib.error.HTTPError) -> None:
    """Returns if the error means that `part` is complete; raises otherwise."""
    answer = f"{url} answers {error.code} {error.reason}"
    if error.code == 416:  # the server has nothing after our last byte
        size = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
        if size and int(size[1]) == _size(part):
            return
        part.unlink(missing_ok=True)  # longer than the archive, so not a part of it
        raise _TransferError(answer)
    if error.code >= 500 or error.code in (408, 429):
        raise _TransferError(answer)
    raise InputError(f"{answer}: check --base_url, or name a mirror with it")


def _judge_answer(url: str, part: Path, response: Any) -> tuple[str, int | None]:
    """Returns the mode to open `part` with after a 200 or 206, and the length of the archive in bytes if known."""
    offset = _size(part)
    resumes = response.status == 206
    content_range = response.headers.get("Content-Range", "")
    fits = content_range.startswith(f"bytes {offset}-") if resumes else response.status == 200
    if not fits:
        answer = f"{response.status} {content_range or response.reason}"
        raise InputError(f"{url} answers {answer} to a request from byte {offset}: name a mirror with --base_url")
    mode, start = ("ab", offset) if resumes else ("wb", 0)
    if response.length is None:  # the checksum will tell whether it is complete
        return mode, None
    total = start + response.length
    if total < offset:  # probably a login page of the network, so keep the part
        here = f"fewer than the {offset:,} that are here"
        raise InputError(f"{url} has {total:,} bytes, {here}: check the network, or delete {part}")
    free, needed = shutil.disk_usage(part.parent).free, 2 * total - offset  # FLAC hardly compresses
    if needed > free:
        room = f"{free / 1e9:.1f} GB free, {needed / 1e9:.1f} GB needed to fetch and extract"
        raise InputError(f"{part.parent.parent} has {room}: make room, or choose another --output")
    return mode, total


def _check_md5(archive: Path, md5: str, *, delete: bool) -> None:
    """Raises InputError if the checksum is wrong; with `delete` it deletes the archive first."""
    digest = hashlib.md5(usedforsecurity=False)
    with archive.open("rb") as file, _bar("checksum", _size(archive)) as bar:
        while chunk := file.read(16 * _CHUNK_BYTES):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != md5:
        advice = "delete it, or move it away"
        if delete:
            archive.unlink()
            advice = "deleted it; run the same command again"
        raise InputError(f"{archive} has MD5 {digest.hexdigest()} instead of the published {md5}: {advice}")


def _install(archive: Path, target: Path, tree: Path, published: Archive) -> None:
    """Extracts into the temporary folder `tree`, checks the number of utterances and moves the split to `target`."""
    shutil.rmtree(tree, ignore_errors=True)  # left over from a call that was killed
    try:
        _extract(archive, tree)
        split = tree / CORPUS / target.name
        _check_count(split, published, f"is {archive} the right archive?")
        for path in (tree / CORPUS).iterdir():  # README.TXT, SPEAKERS.TXT ..., which all archives contain
            if path.is_file() and not (target.parent / path.name).exists():
                os.replace(path, target.parent / path.name)
        os.rename(split, target)
    finally:
        shutil.rmtree(tree, ignore_errors=True)


def _extract(archive: Path, tree: Path) -> None:
    tree.mkdir()
    try:
        with (
            archive.open("rb") as raw,
            tarfile.open(fileobj=raw, mode="r:gz") as tar,
            _bar("extracting", _size(archive)) as bar,
        ):
            for member in tar:
                tar.extract(member, tree, filter=_only_the_corpus)
                bar.update(raw.tell() - bar.n)
    except tarfile.FilterError as error:
        raise InputError(f"refused to extract {archive}: {error}") from error
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{archive} is not a tar.gz archive ({error}): delete it") from error


def _only_the_corpus(member: tarfile.TarInfo, destination: str) -> tarfile.TarInfo | None:
    """Lets the extraction write only plain files and folders of LibriSpeech inside `destination`."""
    if not (member.isfile() or member.isdir()):
        raise InputError(f"refused to extract {member.name!r}: it is a link or a device")
    if PurePosixPath(member.name).parts[:1] != (CORPUS,):
        raise InputError(f"refused to extract {member.name!r}: it is not in {CORPUS}/")
    return tarfile.data_filter(member, destination)


def _check_count(folder: Path, published: Archive, advice: str) -> None:
    found, wanted = count_utterances(folder), published.num_utterances
    if found != wanted:
        raise InputError(f"{folder} has {found:,} utterances instead of the published {wanted:,}: {advice}")


def _bar(desc: str, total: int | None, initial: int = 0) -> tqdm:
    """Returns a progress bar of bytes, which is silent if stderr is not a terminal."""
    return tqdm(desc=desc, total=total, initial=initial, unit="B", unit_scale=True, disable=None)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def main(
    argv: Sequence[str] | None = None,
    *,
    splits: Mapping[str, Archive] = SPLITS,
    backoff_secs: float = 1.0,
) -> int:
    """Runs the command and returns its exit status; `splits` and `backoff_secs` are those of `fetch_split`."""

    def download(flags: argparse.Namespace) -> None:
        fetched = fetch_split(**vars(flags), splits=splits, backoff_secs=backoff_secs)
        corpus = Path(flags.output, CORPUS)
        count = f"{splits[flags.split].num_utterances} utterances"
        usage = f"read it with --format=librispeech --input={corpus} --split={flags.split}"
        print(f"{corpus / flags.split}: {count}{'' if fetched else ' (finished before)'}; {usage}")

    parser = Parser(prog="data.download", description=(__doc__ or "").split("\n")[0])
    add = parser.add_argument
    add("--split", required=True, choices=splits, help="part of LibriSpeech")
    add("--output", required=True, help=f"folder for {CORPUS}/SPLIT, made if absent")
    add("--keep_archive", action="store_true", help="keep the archive as OUTPUT/SPLIT.tar.gz")
    add("--base_url", default=BASE_URL, help=f"address of a mirror's resources (default: {BASE_URL})")
    return run_command(parser, download, argv)


if __name__ == "__main__":
    sys.exit(main())
