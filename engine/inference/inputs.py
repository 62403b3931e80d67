"""Finds the recordings to transcribe among files, folders, patterns and standard input."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from absl import logging

from common.audio_kinds import (
    AUDIO_SUFFIXES,
    HEAD_BYTES,
    AudioKind,
    can_read,
    conversion_command,
    has_media_extra,
    identify,
)
from common.split_paths import STDIN, join_split_paths

# Other endings of readable recordings, and endings of unreadable ones whose content is not recognized.
_RARE_SUFFIXES = (".snd", ".wave", ".bwf", ".aifc", ".voc", ".gsm")
_FOREIGN_SUFFIXES = (".raw", ".pcm", ".sln", ".vox", ".m4a", ".mp4", ".webm", ".aac", ".amr", ".wma", ".mkv", ".mov")
_NUM_NAMED = 5


def find_audio(inputs: Sequence[str]) -> list[str]:
    """Returns the audio files among `inputs`, in order and each once; reports on stderr what it ignores in a folder.

    Args:
        inputs: Files of any name, folders (searched recursively, through links, for `AUDIO_SUFFIXES` and other files
            with audio content; hidden files are ignored), patterns with * ? [ ] and **, or "-" for standard input. A
            name with commas may have been split at them.

    Raises:
        ValueError: A path does not exist or is not a file, a pattern matches nothing, or a folder holds no audio.
    """
    found: dict[str, None] = {}
    for path in join_split_paths(inputs):
        found.update(dict.fromkeys(_expand(path)))
    if not found:
        raise ValueError("--inputs is empty: give audio files or folders, separated by commas, or - for standard input")
    return list(found)


def _expand(path: str) -> list[str]:
    """Returns the audio files that a path, a folder or a pattern stands for."""
    if path == STDIN or os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        return _search(path)
    if os.path.exists(path):
        raise ValueError(f"{path}: a pipe or a device, not a file; copy it to a file, or give - for standard input")
    if not glob.has_magic(path):
        raise ValueError(f"{path}: no such file or folder; give audio files or folders to --inputs")
    matches = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
    if not matches:
        raise ValueError(f"{path}: no file matches this pattern; check it, and quote it in the shell")
    return matches


def _search(root: str) -> list[str]:
    """Returns the recordings below a folder, sorted."""
    found: list[str] = []
    foreign: dict[str, str] = {}
    others: Counter[str] = Counter()
    for path in _walk(root, foreign):
        obstacle = _find_obstacle(path)
        if obstacle == "":
            found.append(path)
        elif obstacle is not None:
            foreign[path] = obstacle
        else:
            others[_suffix(path) or "without a suffix"] += 1
    others.pop(".txt", None)  # transcripts beside the audio
    note = _describe_ignored(foreign, others)
    if not found:
        raise ValueError(f"{root}: no {', '.join(AUDIO_SUFFIXES)} file in this folder{note and f'; it holds {note}'}")
    if note:
        print(f"{root}: ignored {note}", file=sys.stderr)
    return sorted(found)


def _walk(root: str, foreign: dict[str, str]) -> Iterator[str]:
    """Yields the files below a folder without hidden ones; follows links to folders, each folder once.

    Args:
        root: The folder.
        foreign: Gets {path: reason} of folders that cannot be read.
    """

    def skip(error: OSError) -> None:
        foreign[str(error.filename)] = f"a folder that cannot be read: {error.strerror}"

    seen: set[tuple[int, int]] = set()
    roots = deque([root])
    while roots:
        for folder, subfolders, names in os.walk(roots.popleft(), onerror=skip):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            # After everything else here: a path without links is the better name of a file.
            roots += (path for name in subfolders if os.path.islink(path := os.path.join(folder, name)))
            yield from (os.path.join(folder, name) for name in names if not name.startswith("."))  # macOS: ._NAME


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _find_obstacle(path: str) -> str | None:
    """Returns why a recording cannot be read, "" if it can; None if the file is not a recording."""
    if os.path.exists(path) and not os.path.isfile(path):
        return "a pipe or a device"
    if _suffix(path) in AUDIO_SUFFIXES + _RARE_SUFFIXES:
        return ""
    kind = _kind(path)
    if can_read(kind):
        return ""
    if (kind is not None and kind.is_audio) or _suffix(path) in _FOREIGN_SUFFIXES:
        return kind.name if kind is not None else "not a format that can be read"
    return None


def _kind(path: str) -> AudioKind | None:
    try:
        with open(path, "rb") as file:
            return identify(file.read(HEAD_BYTES))
    except OSError:
        return None  # the reader reports the error


def _describe_ignored(foreign: dict[str, str], others: Counter[str]) -> str:
    parts = []
    if foreign:
        named = [f"{path} ({what})" for path, what in sorted(foreign.items())[:_NUM_NAMED]]
        more = f" and {len(foreign) - _NUM_NAMED} more" if len(foreign) > _NUM_NAMED else ""
        first = next((path for path, what in sorted(foreign.items()) if os.path.isfile(path)), "")
        extra = "; pip install -e '.[media]' to read M4A, WebM, AMR and video" if not has_media_extra() else ""
        advice = f"{extra}; to convert, for example: {conversion_command(first)}" if first else ""
        parts.append(f"{len(foreign)} that cannot be read: {', '.join(named)}{more}{advice}")
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(_NUM_NAMED))
        parts.append(f"{others.total()} other file(s) ({kinds})")
    return "; ".join(parts)


def log_skipped(path: str, error: Exception) -> str:
    """Logs that a recording is skipped and returns the reason."""
    logging.error("%s is skipped: %s", path, error)
    return str(error)


def report_skipped(reasons: Mapping[str, str]) -> int:
    """Prints the recordings that were skipped, {path: reason}, and returns the exit status: 2 if there are any."""
    for path, reason in reasons.items():
        print(f"error: {path} was skipped: {reason}", file=sys.stderr)
    return 2 if reasons else 0


@contextmanager
def readable_paths(paths: Sequence[str]) -> Iterator[list[str]]:
    """Yields the paths with "-" replaced by a temporary file of standard input."""
    if STDIN not in paths:
        yield list(paths)
        return
    # A file, because the header is read before the samples, and more than once.
    with tempfile.NamedTemporaryFile(prefix="earshot-stdin-", suffix=".audio") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield [file.name if path == STDIN else path for path in paths]
