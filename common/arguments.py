"""Parses the flags of the commands `python -m PACKAGE.MODULE`; a wrong flag is one line with the nearest right ones."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from common import renamed
from common.nearest import name_nearest, nearest_names

_CHOICE = re.compile(r"argument (--\w+): invalid choice: (.*) \(choose from .*", flags=re.DOTALL)
_TYPE = re.compile(r"argument (--\w+): invalid (int|float) value: (.*)", flags=re.DOTALL)
_WANTED = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """An argument parser that raises a ValueError of one line instead of printing a page of usage."""

    def error(self, message: str) -> NoReturn:
        """Raises ValueError with the message of argparse, and the nearest choices."""
        if found := _CHOICE.match(message):
            (action,) = (action for action in self._actions if found[1] in action.option_strings)
            choices = [str(choice) for choice in action.choices or ()]
            near = nearest_names(found[2][1:-1], choices)
            # Versions of Python quote the choices differently.
            message = f"argument {found[1]}: invalid choice: {found[2]} (choose from {', '.join(map(repr, choices))})"
            message += f"; did you mean {' or '.join(near)}?" if near else ""
        elif found := _TYPE.match(message):
            message += f"; wanted {_WANTED[found[2]]}"
        raise ValueError(f"{message} (--help lists the flags)")

    def _rename(self, flag: str) -> str:
        """Returns a flag under its new name, and tells it if this parser has that."""
        name, equals, value = flag.partition("=")
        new = renamed.FLAGS.get(name.removeprefix("--")) if name.startswith("--") else None
        if new is None or f"--{new}" not in self._option_string_actions:
            return flag
        renamed.tell(name, f"--{new}")
        return f"--{new}{equals}{value}"

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        """Parses flags, and reports a misspelled flag instead of the required one that seems to be missing.

        Raises:
            ValueError: If a flag or its value is wrong.
        """
        given = [self._rename(flag) for flag in (sys.argv[1:] if args is None else args)]
        known = [name for action in self._actions for name in action.option_strings if name.startswith("--")]
        for flag in given:
            name = flag.split("=", maxsplit=1)[0]
            if flag == "--":
                break
            if re.fullmatch(r"--\w[\w-]*", name) and not any(
                other == name or (self.allow_abbrev and other.startswith(name)) for other in known
            ):
                self.error(f"unrecognized arguments: {name}{name_nearest(name, known)}")
        return super().parse_args(given, namespace)
