"""Loads the config that --config names, with the sets that other flags add to it."""

from __future__ import annotations

import contextlib
import inspect
import os
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict

from common import renamed
from common.near_files import describe_near
from common.nearest import name_nearest, nearest_names
from engine.config.field_flags import (
    EVAL,
    MORE_TRAIN,
    SET_GROUPS,
    FlagError,
    check_fields,
    iterate_fields,
    iterate_flags,
    list_fields,
    split_name,
    write_tuples,
)


class ConfigParser(flags.ArgumentParser):
    """Parses --config=FILE.py[:ARGUMENT] and checks --config.FIELD=VALUE; takes the place of ml_collections' parser.

    parser = ConfigParser(template=get_config(), new_eval_set=get_eval_set, new_train_set=get_train_set)
    given = parser.prepare(argv)
    config_flags.DEFINE_config_file("config", sys_argv=given)
    flags.FLAGS["config"].parser = parser
    flags.FLAGS(given)
    """

    def __init__(
        self, *, template: ConfigDict, new_eval_set: Callable[[], ConfigDict], new_train_set: Callable[[], ConfigDict]
    ) -> None:
        """Stores what a config must look like.

        Args:
            template: A config with every field.
            new_eval_set: Makes an evaluation set with every field.
            new_train_set: Makes a training corpus with every field.
        """
        self._template = template
        self._new_set = {EVAL: new_eval_set, MORE_TRAIN: new_train_set}
        self._config: ConfigDict | None = None

    def prepare(self, argv: Sequence[str]) -> list[str]:
        """Loads the config, makes the sets that flags name, and returns the flags as absl understands them.

        Args:
            argv: The command line, its program first.

        Raises:
            FlagError: The config or a flag for one of its fields is wrong.
        """
        given = _rename_flags(argv)
        paths = [value for _, name, value in iterate_flags(given) if name == "config"]
        _check_order(given)
        if not paths or paths[-1] is None:
            return given
        self._config = config = load_config(paths[-1])
        try:
            _rename_fields(config)
        except TypeError as error:
            raise FlagError(f"--config={paths[-1]}: {error}") from error
        _refuse_accum_steps(paths[-1], config, given)
        _add_later_fields(config)
        _check_shape(paths[-1], config, self._template, {name: new() for name, new in self._new_set.items()})
        given = _clear_sets(config, given)
        for position, name, _ in iterate_fields("config", given):
            given[position] = self._add_set(config, name, given[position])
        return write_tuples(given, check_fields("config", config, given))

    def _add_set(self, config: ConfigDict, name: str, flag: str) -> str:
        """Adds the set that a flag names to the config; returns the flag as ml_collections understands it.

        Args:
            config: The config, which is changed.
            name: The dotted field that the flag sets.
            flag: The word of the command line.
        """
        parts = split_name(name)
        sets = ".".join(parts[:2])
        if sets not in self._new_set or len(parts) < 4:
            return flag
        set_name, field = parts[2], ".".join(parts[3:])
        known = config.data[parts[1]]
        if set_name not in known:
            if set_name.isidentifier() and field in list_fields(new := self._new_set[sets]()):
                known[set_name] = new
        elif not set_name.isidentifier():
            # ml_collections reads a hyphen in a name as a minus; written as a key it is part of the name.
            return flag.replace(name, f"{sets}[{set_name!r}].{field}", 1)
        return flag

    def parse(self, argument: str) -> ConfigDict:
        """Returns the config that `prepare` has loaded, locked."""
        assert self._config is not None, argument
        return self._config.lock()

    def flag_type(self) -> str:
        """Returns what --help says of the value."""
        return "config file"


def _rename_flags(argv: Sequence[str]) -> list[str]:
    """Returns the command line with the new names of renamed fields, and reports each."""
    given = list(argv)
    for position, name, _ in iterate_fields("config", given):
        if (new := renamed.rename_path(name)) != name:
            renamed.tell(f"--config.{name}", f"--config.{new}")
            given[position] = given[position].replace(name, new, 1)
    return given


def _check_order(given: Sequence[str]) -> None:
    """Refuses flags for fields of a config that stand before --config, or without it."""
    fields = list(iterate_fields("config", given))
    configs = [(position, value) for position, name, value in iterate_flags(given) if name == "config"]
    if not fields:
        return
    if not configs or configs[-1][1] is None:
        raise FlagError(
            f"--config.{fields[0][1]}: changes a field of a config, and --config is missing: for example "
            "--config=configs/base.py"
        )
    if fields[0][0] < configs[0][0]:
        raise FlagError(f"{given[fields[0][0]]}: stands before the config that it changes; put --config first")


def _clear_sets(config: ConfigDict, given: Sequence[str]) -> list[str]:
    """Empties the groups of sets that a flag such as --config.data.eval={} names, and returns the other flags.

    absl would empty them after `ConfigParser.prepare` has added the new sets.
    """
    given = list(given)
    asked = [(at, name) for at, name, value in iterate_fields("config", given) if name in SET_GROUPS and value == "{}"]
    for position, name in reversed(asked):
        config.data[name.removeprefix("data.")] = ConfigDict()
        del given[position : position + (1 if "=" in given[position] else 2)]
    return given


def load_config(argument: str) -> ConfigDict:
    """Runs a config's Python file and returns what its get_config() returns, unlocked.

    Args:
        argument: FILE.py, or FILE.py:ARGUMENT for a get_config that takes one.

    Raises:
        FlagError: There is no such file, it does not run, or it does not return a config.
    """
    path, colon, given = argument.partition(":")
    arguments = [given] if colon else []
    try:
        _check_is_file(path)
        get_config = _load_get_config(path)
        _check_arguments(get_config, path, arguments)
        config = _run_code(path, lambda: get_config(*arguments))
    except _ConfigError as error:
        raise FlagError(f"--config={argument}: {error}") from error.__cause__
    if not isinstance(config, ConfigDict):
        raise FlagError(
            f"--config={argument}: get_config() returns {type(config).__name__}, not a ConfigDict; start from "
            "configs.base.get_config()"
        )
    return ConfigDict(config).unlock()


class _ConfigError(ValueError):
    """Says what is wrong with a config file, without its name."""


def _check_is_file(path: str) -> None:
    if not path:
        raise _ConfigError("is empty; name a config, for example --config=configs/base.py")
    if os.path.isdir(path):
        known = [os.path.join(path, name) for name in sorted(os.listdir(path)) if name.endswith(".py")]
        raise _ConfigError("is a folder" + (f"; it has {', '.join(known)}" if known else "; name a config's file"))
    if not os.path.exists(path):
        in_configs = os.path.join("configs", f"{path}.py")
        is_name = os.path.exists(in_configs)
        raise _ConfigError("no such file" + (f"; did you mean {in_configs}?" if is_name else describe_near(path)))


def _load_get_config(path: str) -> Callable[..., Any]:
    """Runs a config's file and returns its function get_config."""
    module = types.ModuleType("earshot_config")
    module.__file__ = path
    sys.modules[module.__name__] = module  # dataclasses look up their module

    def run() -> None:
        with open(path, "rb") as file:
            exec(compile(file.read(), path, "exec"), module.__dict__)

    _run_code(path, run)
    get_config = vars(module).get("get_config")
    if not callable(get_config):
        near = nearest_names("get_config", (name for name, value in vars(module).items() if callable(value)))
        hint = f"; did you mean {near[0]}?" if near else ", so it is no config"
        raise _ConfigError(f"has no function get_config(){hint}")
    return get_config


def _check_arguments(get_config: Callable[..., Any], path: str, arguments: Sequence[str]) -> None:
    """Checks that get_config takes the argument after the colon, or needs none."""
    signature = inspect.signature(get_config)
    try:
        signature.bind(*arguments)
    except TypeError as error:
        takes = list(signature.parameters)
        if arguments and not takes:
            raise _ConfigError(f"this config takes nothing after a colon; write --config={path}") from error
        raise _ConfigError(f"this config wants its {', '.join(takes)}: --config={path}:{takes[0].upper()}") from error


def _run_code(path: str, function: Callable[[], Any]) -> Any:
    """Calls a function that runs code of a config's file; its errors get the line of the file."""
    try:
        return function()
    except SyntaxError as error:
        if error.filename not in (None, path):  # a module that the config imports
            raise _ConfigError(_describe(error, path)) from error
        where = f" (line {error.lineno})"
        raise _ConfigError(f"is not valid Python: {error.msg}{where}" if error.lineno else error.msg) from error
    except Exception as error:
        raise _ConfigError(_describe(error, path)) from error


def _rename_fields(config: ConfigDict, prefix: str = "config.") -> None:
    """Gives the new names to fields that a config sets by their old ones, and reports each."""
    for name, value in list(config.items(preserve_field_references=True)):
        if isinstance(value, ConfigDict):
            _rename_fields(value, f"{prefix}{name}.")  # a group keeps its name: a set may be called "regions"
        elif name in renamed.FIELDS:
            new = renamed.FIELDS[name]
            renamed.tell(f"{prefix}{name}", f"{prefix}{new}")
            with config.unlocked():
                del config[name]
                config[new] = value


def _refuse_accum_steps(path: str, config: ConfigDict, given: Sequence[str]) -> None:
    """Refuses train.accum_steps, in the config or as a flag, and says what to write for the config with its flags.

    Raises:
        FlagError: Names the field that replaces it.
    """
    fields = config.to_dict()
    flag_values = {name: value or "" for _, name, value in iterate_fields("config", given)}
    is_flag = "train.accum_steps" in flag_values
    if not isinstance(fields.get("train"), dict) or not (is_flag or "accum_steps" in fields["train"]):
        return
    for name in ("train.accum_steps", "train.global_batch_size", "data.max_batch_secs"):
        group, _, field = name.partition(".")
        if name in flag_values and isinstance(fields.get(group), dict):
            with contextlib.suppress(ValueError):  # a wrong value has an error of its own, once this one is mended
                fields[group][field] = float(flag_values[name])
    value = flag_values.get("train.accum_steps", fields["train"].setdefault("accum_steps", None))
    where = f"--config.train.accum_steps={value}:" if is_flag else f"--config={path}: sets train.accum_steps={value};"
    raise FlagError(f"{where} {renamed.explain_accum_steps(fields, '--config.' if is_flag else 'config.')}")


def _add_later_fields(config: ConfigDict) -> None:
    """Adds later fields to the sets of older configs that configs.base.get_train_set() and others did not make."""
    data = config.get("data", ConfigDict())
    train = data.get("train")
    with config.unlocked():
        if isinstance(train, ConfigDict) and "weight" not in train:
            train.weight = 1.0
        for one in (train, *_sets_of(data, MORE_TRAIN), *_sets_of(data, EVAL)):
            if isinstance(one, ConfigDict) and "text_column" not in one:
                one.text_column = ""


def _sets_of(data: ConfigDict, group: str) -> list[Any]:
    sets = data.get(group.removeprefix("data."))
    return list(sets.values()) if isinstance(sets, ConfigDict) else []


def _describe(error: Exception, path: str) -> str:
    """Returns the kind and the text of an error that a config raises, and the config's line."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
    return f"{type(error).__name__}: {error}" + (f" (line {lines[-1]})" if lines else "")


def _check_shape(path: str, config: ConfigDict, template: ConfigDict, sets: Mapping[str, ConfigDict]) -> None:
    """Refuses a config that lacks a field of `template`, or has one that nothing reads, such as a misspelled one.

    Raises:
        FlagError: Names the field.
    """
    try:
        _compare(config, template, sets, "")
    except _ConfigError as error:
        raise FlagError(f"--config={path}: {error}") from None


def _compare(found: ConfigDict, wanted: ConfigDict, sets: Mapping[str, ConfigDict], where: str) -> None:
    """Compares the fields of a group of a config with those that it must have, and those of the groups in it."""
    for name in found:
        if name not in wanted:
            raise _ConfigError(f"sets {where}{name}, which is no field{name_nearest(name, wanted)}")
    for name in wanted:
        if name not in found:
            raise _ConfigError(
                f"lacks the field {where}{name}; start from configs.base.get_config(), and evaluation sets from "
                "configs.base.get_eval_set()"
            )
        full = f"{where}{name}"
        if isinstance(found[name], ConfigDict) != isinstance(wanted[name], ConfigDict):
            raise _ConfigError(f"{full} must {_is_group(wanted[name])}")
        if found[name] is None:
            raise _ConfigError(f"sets {full} to None instead of a value such as {type(wanted[name])()!r}")
        if full in sets:
            _compare_sets(full, found[name], sets[full])
        elif isinstance(found[name], ConfigDict) and full != "model.architecture":
            _compare(found[name], wanted[name], sets, f"{full}.")


def _compare_sets(group: str, sets: ConfigDict, wanted: ConfigDict) -> None:
    maker = "get_eval_set" if group == EVAL else "get_train_set"
    for name, fields in sets.items():
        if not isinstance(fields, ConfigDict):
            raise _ConfigError(f"{group}.{name} must be one of configs.base.{maker}()")
        _compare(fields, wanted, {}, f"{group}.{name}.")


def _is_group(value: Any) -> str:
    return "be a group of fields" if isinstance(value, ConfigDict) else "be a value, not a group of fields"
