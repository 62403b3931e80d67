"""Reads --config and checks the flags that change its fields; a wrong one is one line with the nearest right ones."""

from __future__ import annotations

import ast
import inspect
import math
import os
import re
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_path

from common import renamed
from common.nearest import name_nearest, near_path, nearest_names

# Fields whose default is empty, and so does not tell what they hold.
_ELEMENTS: dict[str, type] = {"bucket_boundaries_samples": int}
_EVAL = "data.eval"


class FlagError(flags.Error):
    """A wrong flag, said in one line. absl puts no words of its own before an error of this kind."""


class ConfigParser(flags.ArgumentParser):
    """Parses --config=FILE.py[:ARGUMENT] and checks --config.FIELD=VALUE; takes the place of ml_collections' parser.

    parser = ConfigParser(template=get_config(), new_eval_set=get_eval_set)
    given = parser.prepare(argv)
    config_flags.DEFINE_config_file("config", sys_argv=given)
    flags.FLAGS["config"].parser = parser
    flags.FLAGS(given)
    """

    def __init__(self, *, template: ConfigDict, new_eval_set: Callable[[], ConfigDict]) -> None:
        """Stores what a config must look like.

        Args:
            template: A config with every field.
            new_eval_set: Makes an evaluation set with every field.
        """
        self._template = template
        self._new_eval_set = new_eval_set
        self._config: ConfigDict | None = None

    def prepare(self, argv: Sequence[str]) -> list[str]:
        """Loads the config, makes the evaluation sets that flags name, and returns the flags as absl understands them.

        Args:
            argv: The command line, its program first.

        Raises:
            FlagError: The config or a flag for one of its fields is wrong.
        """
        given = list(argv)
        path = [value for _, name, value in iterate_flags(given) if name == "config"]
        for position, name, _ in iterate_fields("config", given):
            if (new := renamed.rename_path(name)) != name:
                renamed.tell(f"--config.{name}", f"--config.{new}")
                given[position] = given[position].replace(name, new, 1)
        fields = list(iterate_fields("config", given))
        if not path or path[-1] is None:
            if fields:
                raise FlagError(
                    f"--config.{fields[0][1]}: changes a field of a config, and --config is missing: for example "
                    "--config=configs/base.py"
                )
            return given
        first = next(position for position, name, _ in iterate_flags(given) if name == "config")
        if fields and fields[0][0] < first:
            raise FlagError(f"{given[fields[0][0]]}: stands before the config that it changes; put --config first")
        self._config = config = load_config(path[-1])
        _rename_fields(config)
        _check_shape(path[-1], config, self._template, self._new_eval_set())
        for position in reversed([position for position, name, value in fields if (name, value) == (_EVAL, "{}")]):
            # Done here, because absl would do it after the new sets were made.
            config.data.eval = ConfigDict()
            del given[position : position + (1 if "=" in given[position] else 2)]
        for position, name, _ in iterate_fields("config", given):
            parts = _split(name)
            if ".".join(parts[:2]) != _EVAL or len(parts) != 4:
                continue
            if parts[2] in config.data.eval:
                # ml_collections takes the hyphen in a set's name for a minus, but not in its way to write a key.
                if not parts[2].isidentifier():
                    given[position] = given[position].replace(name, f"{_EVAL}[{parts[2]!r}].{parts[3]}", 1)
            elif parts[2].isidentifier() and parts[3] in self._new_eval_set():
                config.data.eval[parts[2]] = self._new_eval_set()
        return _with_literals("config", given, check_fields("config", config, given))

    def parse(self, argument: str) -> ConfigDict:
        """Returns the config that `prepare` has loaded, locked."""
        assert self._config is not None, argument
        return self._config.lock()

    def flag_type(self) -> str:
        """Returns what --help says of the value."""
        return "config file"


def load_config(argument: str) -> ConfigDict:
    """Runs a config's Python file and returns what its get_config() returns.

    Args:
        argument: FILE.py, or FILE.py:ARGUMENT for a get_config that takes one.

    Raises:
        FlagError: There is no such file, it does not run, or it does not return a config.
    """
    path, colon, given = argument.partition(":")

    def refuse(reason: str) -> NoReturn:
        raise FlagError(f"--config={argument}: {reason}")

    if not path:
        refuse("is empty; name a config, for example --config=configs/base.py")
    if os.path.isdir(path):
        known = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".py")]
        refuse("is a folder" + (f"; it has {', '.join(known)}" if known else "; name a config's file"))
    if not os.path.exists(path):
        in_configs = os.path.join("configs", f"{path}.py")
        refuse("no such file" + (f"; did you mean {in_configs}?" if os.path.exists(in_configs) else near_path(path)))
    module = types.ModuleType("earshot_config")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look their module up
    try:
        with open(path, "rb") as file:
            exec(compile(file.read(), path, "exec"), module.__dict__)
    except SyntaxError as error:
        refuse(f"is not valid Python: {error.msg} (line {error.lineno})" if error.lineno else f"{error.msg}")
    except Exception as error:
        refuse(_describe(error, path))
    get_config = vars(module).get("get_config")
    if not callable(get_config):
        near = nearest_names("get_config", (name for name, value in vars(module).items() if callable(value)))
        refuse("has no function get_config()" + (f"; did you mean {near[0]}?" if near else ", so it is no config"))
    try:
        inspect.signature(get_config).bind(*([given] if colon else []))
    except TypeError:
        takes = [name for name in inspect.signature(get_config).parameters]
        if colon and not takes:
            refuse(f"this config takes nothing after a colon; write --config={path}")
        refuse(f"this config wants its {', '.join(takes)}: --config={path}:{takes[0].upper()}")
    try:
        config = get_config(*([given] if colon else []))
    except Exception as error:
        refuse(_describe(error, path))
    if not isinstance(config, ConfigDict):
        refuse(f"get_config() returns {type(config).__name__}, not a ConfigDict; start from configs.base.get_config()")
    return config


def _rename_fields(config: ConfigDict, prefix: str = "config.") -> None:
    """Gives fields that a config sets by their old names the new ones, and tells each."""
    for name, value in list(config.items(preserve_field_references=True)):
        if isinstance(value, ConfigDict):
            _rename_fields(value, f"{prefix}{name}.")
        if name in renamed.FIELDS:
            new = renamed.FIELDS[name]
            renamed.tell(f"{prefix}{name}", f"{prefix}{new}")
            with config.unlocked():
                del config[name]
                config[new] = value


def _describe(error: Exception, path: str) -> str:
    """Returns the kind and the text of an error that a config raises, and the config's line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{type(error).__name__}: {error}" + (f" (line {lines[-1]})" if lines else "")


def _check_shape(path: str, config: ConfigDict, template: ConfigDict, eval_set: ConfigDict) -> None:
    """Refuses a config that lacks a field of `template`, or has one that nothing reads: a misspelled one.

    Raises:
        FlagError: Names the field.
    """

    def compare(found: ConfigDict, wanted: ConfigDict, where: str) -> None:
        for name in found:
            if name not in wanted:
                raise FlagError(f"--config={path}: sets {where}{name}, which is no field{name_nearest(name, wanted)}")
        for name in wanted:
            if name not in found:
                raise FlagError(
                    f"--config={path}: lacks the field {where}{name}; start from configs.base.get_config(), and "
                    "evaluation sets from configs.base.get_eval_set()"
                )
            full = f"{where}{name}"
            if isinstance(found[name], ConfigDict) != isinstance(wanted[name], ConfigDict):
                raise FlagError(f"--config={path}: {full} must {_is_group(wanted[name])}")
            if full == _EVAL:
                for set_name, fields in found[name].items():
                    if not isinstance(fields, ConfigDict):
                        raise FlagError(
                            f"--config={path}: {full}.{set_name} must be one of configs.base.get_eval_set()"
                        )
                    compare(fields, eval_set, f"{full}.{set_name}.")
            elif isinstance(found[name], ConfigDict) and full != "model.architecture":
                compare(found[name], wanted[name], f"{full}.")

    compare(config, template, "")


def _is_group(value: Any) -> str:
    return "be a group of fields" if isinstance(value, ConfigDict) else "be a value, not a group of fields"


def iterate_flags(argv: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """Yields position, name and value of each flag; a value that stands in the next word is taken from there.

    Whether a flag takes a value is not known here: that of a flag which takes none is the next flag, or None.
    """
    for i, word in enumerate(argv):
        if word == "--":
            return
        if i and re.match("--?[A-Za-z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            following = argv[i + 1] if i + 1 < len(argv) else None
            yield i, name, value if equals else following


def iterate_fields(group: str, argv: Sequence[str]) -> Iterator[tuple[int, str, str | None]]:
    """Yields position, dotted field and value of each flag --GROUP.FIELD=VALUE; of --noGROUP.FIELD, "false"."""
    for i, name, value in iterate_flags(argv):
        if name.startswith(f"{group}."):
            yield i, name.removeprefix(f"{group}."), value
        elif name.startswith(f"no{group}."):
            yield i, name.removeprefix(f"no{group}."), "false"


def check_fields(group: str, config: ConfigDict, argv: Sequence[str]) -> dict[int, tuple[Any, ...]]:
    """Checks name and type of every flag for a field of a config.

    Args:
        group: The flag of the config, such as "config".
        config: The config, with its defaults.
        argv: The command line.

    Returns:
        Of each flag for a tuple, by position, the tuple that it means.

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
    for part in _split(name):
        if not isinstance(value, ConfigDict):
            raise FlagError(f"--{group}.{name}: {at} is a single value without fields; write --{at}=VALUE")
        if part not in value:
            if at == f"{group}.{_EVAL}":
                hint = _hint_of_set(group, name, part)
            else:
                paths = [f"{group}.{path}" for path in list_fields(config)]
                same = [path for path in paths if path.rpartition(".")[2] == part]
                near = [f"{at}.{other}" for other in nearest_names(part, value)] or same
                near = near or [
                    path for path in paths if path.rpartition(".")[2] in nearest_names(part, _leaves(paths))
                ]
                hint = (
                    f"; did you mean --{' or --'.join(near[:3])}?" if near else f"; it has {', '.join(value) or 'none'}"
                )
            raise FlagError(f"--{group}.{name}: {at} has no field {part!r}{hint}")
        value, at = value[part], f"{at}.{part}"
    return value


def _split(name: str) -> list[str]:
    """Returns the parts of a dotted name; a part may be written as a key, data.eval['dev-clean'].input."""
    try:
        parts = config_path.split(name)
    except ValueError:
        return name.split(".")
    return list(parts) if all(isinstance(part, str) for part in parts) else name.split(".")


def _hint_of_set(group: str, name: str, part: str) -> str:
    """Returns what is wrong with a flag for an evaluation set that could not be made."""
    flag = f"--{group}.{_EVAL}"
    if not part.isidentifier():
        written = re.sub(r"\W", "_", part)
        return f"; a set's name has letters, digits and underscores alone: {flag}.{written}.input=PATH"
    field = name.removeprefix(f"{_EVAL}.{part}").lstrip(".")
    if not field:
        return f"; a new set is made by setting its fields: {flag}.{part}.input=PATH {flag}.{part}.format=FORMAT"
    return f"; a new set is made by its fields, and {field!r} is none: {flag}.{part}.input=PATH"


def _list_fields(group: str, name: str, fields: ConfigDict) -> str:
    return ", ".join(f"--{group}.{name}.{field}" for field in fields) or f"--{group}.{name}.NAME.FIELD=VALUE"


def _leaves(paths: Sequence[str]) -> list[str]:
    return [path.rpartition(".")[2] for path in paths]


def list_fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    """Yields the dotted name of every field of a config."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from list_fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _check_scalar(where: str, text: str, example: Any) -> None:
    """Raises FlagError where a text is no value of the type of `example`."""
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
    """Reads a tuple: as Python writes one, or its elements with commas between.

    Raises:
        FlagError: An element is of another type.
    """
    try:
        value = ast.literal_eval(text)
        elements = tuple(value) if isinstance(value, tuple | list) else (value,)
        is_literal = kind is not str or all(isinstance(element, str) for element in elements)
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        elements, is_literal = (), False
    if kind is str:
        # A speaker called 0012 or 1e3 is no number.
        return elements if is_literal else tuple(word.strip(" '\"") for word in text.strip("()[]").split(",") if word)
    if text.strip() and not elements and text.strip() not in ("()", "[]"):
        elements = (text,)
    numbers = int if kind is int else (int, float)
    if any(isinstance(element, bool) or not isinstance(element, numbers) for element in elements):
        wanted = "whole numbers, such as 160000,246000" if kind is int else "numbers, such as 0.9,1.0,1.1"
        raise FlagError(f"{where}: wanted {wanted}")
    return tuple(kind(element) for element in elements)


def _with_literals(group: str, argv: Sequence[str], tuples: dict[int, tuple[Any, ...]]) -> list[str]:
    """Returns the command line with each tuple as a literal, which ml_collections reads in one way alone.

    A flag given more than once stands for all its elements, in the place of the last.
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
