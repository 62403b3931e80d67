"""What is to be transcribed: files, folders, patterns, and standard input."""

from __future__ import annotations

import glob
import itertools
import os
import shutil
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from common.audio_kinds import HEAD_BYTES, AudioKind, conversion_command, identify

AUDIO_EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64")
# What else names recordings that can be read; and, where the content does not tell, those that cannot.
_RARE_EXTENSIONS = (".oga", ".sph", ".snd", ".wave", ".bwf", ".aifc", ".voc", ".gsm")
_FOREIGN_EXTENSIONS = (".raw", ".pcm", ".sln", ".vox", ".m4a", ".mp4", ".webm", ".aac", ".amr", ".wma", ".mkv", ".mov")
STDIN = "-"
# Around the commas at which a value was split.
_JOINTS = (",", ", ", " ,", " , ")
_MOST_COMMAS = 8  # in one file name
_NUM_NAMED = 5


def find_audio(inputs: Sequence[str]) -> list[str]:
    """Returns the audio files among `inputs`, in order and each once; tells on stderr what of a folder is passed over.

    Args:
        inputs: Files of any name, folders (searched to the bottom, through links, for `AUDIO_EXTENSIONS` and for
            whatever begins as a recording does; hidden files apart), patterns with * ? [ ] and **, or "-" for standard
            input. A name with commas may have been split at them.

    Raises:
        ValueError: A path does not exist or is no file, a pattern fits nothing, or a folder holds no audio.
    """
    found: dict[str, None] = {}
    for path in join_split_paths(inputs):
        if path == STDIN or os.path.isfile(path):
            found[path] = None
        elif os.path.isdir(path):
            found.update(dict.fromkeys(_search(path)))
        elif os.path.exists(path):
            raise ValueError(f"{path}: a pipe or a device, not a file; copy it to a file, or give - for standard input")
        elif glob.has_magic(path):
            matches = sorted(name for name in glob.glob(path, recursive=True) if os.path.isfile(name))
            if not matches:
                raise ValueError(f"{path}: no file fits this pattern; check it, and quote it from the shell")
            found.update(dict.fromkeys(matches))
        else:
            raise ValueError(f"{path}: no such file or folder; give audio files or folders to --inputs")
    if not found:
        raise ValueError("--inputs is empty: give audio files or folders, separated by commas, or - for standard input")
    return list(found)


def join_split_paths(parts: Sequence[str]) -> list[str]:
    """Puts paths together again that were split at their commas.

    Args:
        parts: What stood between the commas of a value, without the spaces around it.

    Returns:
        The parts, neighbors joined where that makes a path that exists: the whole value if it is one, else as many
        paths as can be with the fewest that do not exist.
    """
    if len(parts) > 1 and (whole := _joined(parts)):
        return [whole]
    # For each part, from the last one on: paths that are missing from here on, and how the rest is divided.
    best: list[tuple[int, list[str]]] = [(0, [])]
    for start in reversed(range(len(parts))):
        here: tuple[int, list[str]] | None = None
        for count in range(1, min(_MOST_COMMAS + 1, len(parts) - start) + 1):
            path = _joined(parts[start : start + count])
            num_missing, rest = best[-count]
            if path and (here is None or num_missing < here[0]):
                here = num_missing, [path, *rest]
            if here is not None and here[0] == 0:
                break
        if here is None or best[-1][0] + 1 < here[0]:
            here = best[-1][0] + 1, [parts[start], *best[-1][1]]
        best.append(here)
    return best[-1][1]


def _joined(parts: Sequence[str]) -> str:
    """The parts as one path that exists or, being a pattern, fits something; "" if there is none."""
    num_commas = len(parts) - 1
    if num_commas <= 3:
        joints: Iterable[Sequence[str]] = itertools.product(_JOINTS, repeat=num_commas)
    else:  # one kind of comma throughout: not a thousand looks at the disk
        joints = ((joint,) * num_commas for joint in _JOINTS)
    for between in joints:
        path = parts[0] + "".join(joint + part for joint, part in zip(between, parts[1:], strict=True))
        if path == STDIN or os.path.exists(path) or (glob.has_magic(path) and glob.glob(path, recursive=True)):
            return path
    return ""


def _search(root: str) -> list[str]:
    """Recordings under a folder, sorted; linked folders are followed, each once."""
    found: list[str] = []
    foreign: dict[str, str] = {}
    others: Counter[str] = Counter()
    seen: set[tuple[int, int]] = set()
    roots = deque([root])

    def skip(error: OSError) -> None:
        foreign[str(error.filename)] = f"a folder that cannot be read: {error.strerror}"

    while roots:
        for folder, subfolders, names in os.walk(roots.popleft(), onerror=skip):
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                subfolders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
            # After all that lies here itself: a path without links names a file best.
            roots += (path for name in subfolders if os.path.islink(path := os.path.join(folder, name)))
            for name in names:
                path, suffix = os.path.join(folder, name), os.path.splitext(name)[1].lower()
                if name.startswith("."):  # macOS's ._NAME among them
                    continue
                if os.path.exists(path) and not os.path.isfile(path):
                    foreign[path] = "a pipe or a device"
                elif suffix in AUDIO_EXTENSIONS + _RARE_EXTENSIONS:
                    found.append(path)
                else:
                    kind = _kind(path)
                    if kind is not None and kind.is_readable:
                        found.append(path)
                    elif (kind is not None and kind.is_audio) or suffix in _FOREIGN_EXTENSIONS:
                        foreign[path] = kind.name if kind is not None else "not a format that can be read"
                    else:
                        others[suffix or "without a suffix"] += 1
    others.pop(".txt", None)  # transcripts beside the audio, which are read
    note = _describe_passed_over(foreign, others)
    if not found:
        raise ValueError(f"{root}: no {', '.join(AUDIO_EXTENSIONS)} file in this folder{note and f'; it holds {note}'}")
    if note:
        print(f"{root}: passed over {note}", file=sys.stderr)
    return sorted(found)


def _kind(path: str) -> AudioKind | None:
    try:
        with open(path, "rb") as file:
            return identify(file.read(HEAD_BYTES))
    except OSError:
        return None  # whoever reads it says why it cannot be read


def _describe_passed_over(foreign: dict[str, str], others: Counter[str]) -> str:
    pieces = []
    if foreign:
        named = [f"{path} ({what})" for path, what in sorted(foreign.items())[:_NUM_NAMED]]
        more = f" and {len(foreign) - _NUM_NAMED} more" if len(foreign) > _NUM_NAMED else ""
        first = next((path for path, what in sorted(foreign.items()) if os.path.isfile(path)), "")
        advice = f"; to convert, for example: {conversion_command(first)}" if first else ""
        pieces.append(f"{len(foreign)} that cannot be read: {', '.join(named)}{more}{advice}")
    if others:
        kinds = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common(_NUM_NAMED))
        pieces.append(f"{others.total()} other file(s) ({kinds})")
    return "; ".join(pieces)


@contextmanager
def readable_paths(paths: Sequence[str]) -> Iterator[list[str]]:
    """The same paths, with a temporary file of what comes from standard input in place of "-"."""
    if STDIN not in paths:
        yield list(paths)
        return
    # A file, because a header must be read before the samples, and more than once.
    with tempfile.NamedTemporaryFile(prefix="earshot-stdin-", suffix=".audio") as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        yield [file.name if path == STDIN else path for path in paths]
