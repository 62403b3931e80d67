"""Checks the flags that set fields of a config; a wrong flag is one line with the nearest right ones."""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from common.nearest import nearest_names

# Fields with an empty default, which does not show the type of their elements.
_ELEMENTS: dict[str, type] = {"bucket_boundaries_samples": int, "intermediate_ctc_layers": int}
# Groups of named sets, which flags can add to.
EVAL, MORE_TRAIN = "data.eval", "data.more_train"
SET_GROUPS = (EVAL, MORE_TRAIN)


class FlagError(flags.Error):
    """A wrong flag, described in one line. absl prints this kind of error without a prefix of its own."""


def iterate_flags(argv: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """Yields the position, name and value of each flag; the value may be the next word.

    This function does not know which flags take no value: it yields the next word, or None, as their value.
    """
    for i, word in enumerate(argv):
        if word == "--":
            return
        if i and re.match("--?[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            following = argv[i + 1] if i + 1 < len(argv) else None
            yield i, name, value if equals else following


def iterate_fields(group: str, argv: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """Yields the position, dotted field and value of each flag --GROUP.FIELD=VALUE; --noGROUP.FIELD has "false"."""
    for i, name, value in iterate_flags(argv):
        if name.startswith(f"{group}."):
            yield i, name.removeprefix(f"{group}."), value
        elif name.startswith(f"no{group}."):
            yield i, name.removeprefix(f"no{group}."), "false"


def check_fields(group: str, config: ConfigDict, argv: Sequence[str]) -> dict[int, tuple[Any, ...]]:
    """Checks the name and the type of every flag for a field of a config.

    Args:
        group: The flag of the config, such as "config".
        config: The config, with its defaults.
        argv: The command line.

    Returns:
        {position: tuple} of each flag for a field that holds a tuple.

    Raises:
        FlagError: A field does not exist, or its value is of another type.
    """
    tuples = {}
    for position, name, value in iterate_fields(group, argv):
        example = _find_field(group, config, name)
        if isinstance(example, bool) and "=" not in argv[position]:
            continue  # --GROUP.FIELD, --noGROUP.FIELD
        if value is None:
            raise FlagError(f"--{group}.{name}: has no value; write --{group}.{name}=VALUE")
        where = f"--{group}.{name}={value}"
        if isinstance(example, ConfigDict):
            if value == "{}":
                continue
            raise FlagError(f"{where}: is a group of fields; set them one by one: {_list_fields(group, name, example)}")
        if isinstance(example, tuple):
            kind = type(example[0]) if example else _ELEMENTS.get(name.rpartition(".")[2], str)
            tuples[position] = _read_tuple(where, value, kind)
        else:
            _check_scalar(where, value, example)
    return tuples


def _find_field(group: str, config: ConfigDict, name: str) -> Any:
    """Returns the value of a field.

    Raises:
        FlagError: There is none of this name; names the nearest ones, here and elsewhere.
    """
    value: Any = config
    at = group
    for part in split_name(name):
        if not isinstance(value, ConfigDict):
            raise FlagError(f"--{group}.{name}: {at} is a single value without fields; write --{at}=VALUE")
        if part not in value:
            sets = at.removeprefix(f"{group}.")
            is_set = sets in SET_GROUPS
            hint = _describe_set(group, sets, name, part) if is_set else _nearest_fields(group, config, value, at, part)
            raise FlagError(f"--{group}.{name}: {at} has no field {part!r}{hint}")
        value, at = value[part], f"{at}.{part}"
    return value


def _nearest_fields(group: str, config: ConfigDict, place: ConfigDict, at: str, name: str) -> str:
    """Returns the end of the message for a field that does not exist.

    Args:
        group: The flag of the config, such as "config".
        config: The whole config.
        place: The group of the config where the field was looked for.
        at: The dotted name of `place`.
        name: The name that `place` does not have.
    """
    near = [f"{at}.{other}" for other in nearest_names(name, place)]
    if near := near or fields_named_like(name, [f"{group}.{path}" for path in list_fields(config)]):
        return f"; did you mean --{' or --'.join(near[:3])}?"
    return f"; it has {', '.join(place) or 'none'}"


def fields_named_like(name: str, fields: Sequence[str]) -> list[str]:
    """Returns the dotted fields whose last part is a name or, if there are none, is most like it; best first."""
    leaf_of = {field: field.rpartition(".")[2] for field in fields}
    alike = [name] if name in leaf_of.values() else nearest_names(name, leaf_of.values())
    return [field for leaf in alike for field in fields if leaf_of[field] == leaf]


def split_name(name: str) -> list[str]:
    """Returns the parts of a dotted name; a part may be written as a key, data.eval['dev-clean'].input."""
    try:
        parts = config_path.split(name)
    except ValueError:
        return name.split(".")
    return list(parts) if all(isinstance(part, str) for part in parts) else name.split(".")


def _describe_set(group: str, sets: str, name: str, part: str) -> str:
    """Returns the end of the message for a set of `sets` that a flag cannot add."""
    flag = f"--{group}.{sets}"
    if not part.isidentifier():
        written = re.sub(r"\W", "_", part)
        return f"; a set's name has letters, digits and underscores alone: {flag}.{written}.input=PATH"
    field = name.removeprefix(f"{sets}.{part}").lstrip(".")
    if not field:
        return f"; a new set is made by setting its fields: {flag}.{part}.input=PATH {flag}.{part}.format=FORMAT"
    return f"; a new set is made by its fields, and {field!r} is none: {flag}.{part}.input=PATH"


def _list_fields(group: str, name: str, fields: ConfigDict) -> str:
    return ", ".join(f"--{group}.{name}.{field}" for field in fields) or f"--{group}.{name}.NAME.FIELD=VALUE"


def list_fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields the dotted name of every field of a config."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from list_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _check_scalar(where: str, text: str, example: Any) -> None:
    """Raises FlagError if a text is not a value of the type of `example`."""
    parsers: dict[type, tuple[flags.ArgumentParser, str]] = {
        bool: (flags.BooleanParser(), "True or False"),
        int: (flags.IntegerParser(), f"a whole number, such as {example}"),
        float: (flags.FloatParser(), f"a number, such as {example}"),
    }
    if type(example) not in parsers:
        return
    parser, wanted = parsers[type(example)]
    try:
        is_right = not (isinstance(value := parser.parse(text), float) and math.isnan(value))
    except (ValueError, TypeError, OverflowError):
        is_right = False
    if not is_right:
        raise FlagError(f"{where}: wanted {wanted}")


def _read_tuple(where: str, text: str, kind: type) -> tuple[Any, ...]:
    """Reads a tuple: a Python literal, or its elements with commas between them.

    Args:
        where: The flag with its value, for the message.
        text: The value of the flag.
        kind: The type of the elements: str, int or float.

    Raises:
        FlagError: An element is of another type.
    """
    elements = _read_literal(text)
    if kind is str:
        return _read_words(text, elements)
    if elements is None:
        elements = (text,) if text.strip() else ()
    if not all(_is_number(element, kind) for element in elements):
        wanted = "whole numbers, such as 160000,246000" if kind is int else "numbers, such as 0.9,1.0,1.1"
        raise FlagError(f"{where}: wanted {wanted}")
    return tuple(kind(element) for element in elements)


def _read_words(text: str, elements: tuple[Any, ...] | None) -> tuple[str, ...]:
    """Returns the elements of a literal if all are strings; otherwise the text between the commas."""
    if elements is not None and all(isinstance(element, str) for element in elements):
        return elements
    # A speaker may be called 0012 or 1e3, which must stay text.
    return tuple(word.strip(" '\"") for word in text.strip("()[]").split(",") if word)


def _read_literal(text: str) -> tuple[Any, ...] | None:
    """Returns the elements of a Python literal, a single value as a tuple of one; None if the text is no literal."""
    try:
        value = ast.literal_eval(text)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _is_number(value: object, kind: type) -> bool:
    numbers = (int,) if kind is int else (int, float)
    return isinstance(value, numbers) and not isinstance(value, bool)


def write_tuples(argv: Sequence[str], tuples: dict[int, tuple[Any, ...]]) -> list[str]:
    """Returns the command line with each tuple as a Python literal, which ml_collections reads unambiguously.

    The elements of a flag that is given more than once are joined, in the place of the last.
    """
    names = {position: argv[position].partition("=")[0].lstrip("-") for position in tuples}
    together: dict[str, tuple[Any, ...]] = {}
    for position in sorted(tuples):
        together[names[position]] = together.get(names[position], ()) + tuples[position]
    last = {name: position for position, name in sorted(names.items())}
    written, skip = [], False
    for position, word in enumerate(argv):
        if skip:
            skip = False
            continue
        if position not in tuples:
            written.append(word)
            continue
        skip = "=" not in word  # its value is the next word
        if last[names[position]] == position:
            written.append(f"--{names[position]}={together[names[position]]!r}")
    return written
