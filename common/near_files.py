"""Finds the file that a wrong path probably means: one with another suffix, case or Unicode form, or elsewhere."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePath

from common.nearest import nearest_names

_UNICODE_FORM = "its name in another Unicode form"
_MOST_ENTRIES = 20_000  # of a folder tree; a home directory has millions


class FileFinder:
    """Looks for files near paths that do not exist; each folder is listed once.

    For example, where ROOT/wav/a.FLAC is there:

        FileFinder("ROOT").describe("ROOT/clips/a.wav")  # "; ROOT/wav/a.FLAC lies near, in another folder"
    """

    def __init__(self, root: str | os.PathLike[str] = "", *, similar: bool = False):
        """Sets where to look.

        Args:
            root: local folder whose tree is searched where the path's own folder has nothing; "" searches no tree.
            similar: whether a name that is spelled nearly alike counts. It must not for recordings: 0001 is not 0002.
        """
        self._root = root
        self._similar = similar
        self._listings: dict[Path, list[str]] = {}
        self._tree: dict[str, str] | None = None

    def describe(self, path: str | os.PathLike[str]) -> str:
        """Returns the end of an error message about an absent local path; "" where nothing lies near."""
        found, difference = self.find(path)
        return f"; {found} lies near, {difference}" if found else ""

    def find(self, path: str | os.PathLike[str]) -> tuple[str, str]:
        """Returns the file or folder nearest to an absent local path and how it differs; two "" where there is none."""
        path = Path(path)
        here, rest = _split_at_first_absent(path)
        difference = ""
        while rest:
            name, *rest = rest
            names = self._list(here)
            if name not in names:
                match, why = _match(name, names, similar=self._similar)
                if not match:
                    break
                difference, name = why, match
            here /= name
            if not rest:
                return str(here), difference
        listed = self._list_tree() if self._root else {}
        for name, why in ((path.name, "in another folder"), (path.stem, "in another folder, another suffix")):
            if _key(name) in listed:
                return listed[_key(name)], why
        return "", ""

    def _list(self, folder: Path) -> list[str]:
        if folder not in self._listings:
            try:
                self._listings[folder] = sorted(os.listdir(folder))
            except OSError:
                self._listings[folder] = []
        return self._listings[folder]

    def _list_tree(self) -> dict[str, str]:
        """Returns the key of each file's name, and of its name without suffix -> its path, the first of each."""
        if self._tree is None:
            self._tree, count = {}, 0
            for folder, folders, names in os.walk(self._root or "."):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                count += len(names) + len(folders)
                if count > _MOST_ENTRIES:
                    break
                for name in sorted(names):
                    if not name.startswith("."):
                        path = os.path.join(folder, name)
                        self._tree.setdefault(_key(name), path)
                        self._tree.setdefault(_key(PurePath(name).stem), path)
        return self._tree


def describe_near(path: str | os.PathLike[str]) -> str:
    """Returns "; did you mean PATH?" for an absent path; "" for a URL, or where nothing lies near.

    Names the difference where the two paths look the same on a screen.
    """
    if "://" in os.fspath(path):
        return ""
    found, difference = FileFinder(similar=True).find(path)
    invisible = f" ({difference})" if _UNICODE_FORM in difference else ""
    return f"; did you mean {found}?{invisible}" if found else ""


def _split_at_first_absent(path: Path) -> tuple[Path, list[str]]:
    """Returns the nearest folder above `path` that exists, and the parts below it."""
    for folder in path.parents:
        try:
            if folder.is_dir():
                return folder, list(path.relative_to(folder).parts)
        except (OSError, ValueError):  # a name that is too long or has a NUL
            continue
    return Path(), []


def _match(name: str, names: Iterable[str], *, similar: bool) -> tuple[str, str]:
    names = [other for other in names if not other.startswith(".")]
    for other in names:
        if unicodedata.normalize("NFC", other) == unicodedata.normalize("NFC", name):
            return other, f"{_UNICODE_FORM} ({_form(other)}, not {_form(name)})"
    for other in names:
        if _key(other) == _key(name):
            return other, "in another case"
    for other in names:
        if _key(PurePath(other).stem) == _key(PurePath(name).stem):
            return other, "with another suffix"
    # Without suffixes: the names in one folder share theirs, which would make all of them alike.
    stems = {PurePath(other).stem: other for other in reversed(names)} if similar else {}
    close = nearest_names(PurePath(name).stem, reversed(stems))
    return (stems[close[0]], "with another name") if close else ("", "")


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _form(name: str) -> str:
    return next((form for form in ("NFC", "NFD") if unicodedata.is_normalized(form, name)), "mixed")
