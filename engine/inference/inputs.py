"""What is to be transcribed: files, folders, patterns, and standard input."""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

AUDIO_EXTENSIONS = (".flac", ".wav", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64")
STDIN = "-"


def find_audio(inputs: Sequence[str]) -> list[str]:
    """Returns the audio files among `inputs`, in order and each once.

    Args:
        inputs: Files of any name, folders (searched to the bottom for `AUDIO_EXTENSIONS`), patterns with * ? [ ] and
            **, or "-" for standard input.

    Raises:
        ValueError: A path does not exist, a pattern fits nothing, or a folder holds no audio.
    """
    found: dict[str, None] = {}
    for path in inputs:
        if path == STDIN or os.path.isfile(path):
            found[path] = None
        elif os.path.isdir(path):
            inside = sorted(
                os.path.join(folder, name)
                for folder, _, names in os.walk(path)
                for name in names
                if name.lower().endswith(AUDIO_EXTENSIONS)
            )
            if not inside:
                raise ValueError(f"{path}: no {', '.join(AUDIO_EXTENSIONS)} file in this folder")
            found.update(dict.fromkeys(inside))
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
