"""Checks the flags of run.py: one that the mode does not read is refused, before TensorFlow starts."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

from absl import flags

from common.nearest import name_nearest, nearest_names
from engine.config.field_flags import fields_named_like
from engine.config.modes import FLAGS_OF_MODE, RUN_MODES


def check_flags(mode: str, given: Iterable[str]) -> None:
    """Refuses flags that the mode does not read, and a run without its config.

    Args:
        mode: A key of `engine.config.modes.MODES`.
        given: The names of run.py's flags on the command line, without fields of the config.

    Raises:
        ValueError: Names the flags, and the modes that read them.
    """
    given = list(given)
    unread = [name for name in given if name not in FLAGS_OF_MODE[mode]]
    if unread:
        reasons = []
        for name in unread:
            readers = [other for other, known in FLAGS_OF_MODE.items() if name in known]
            reasons.append(f"--{name} (for {' | '.join(readers)})")
        raise ValueError(f"--mode={mode} does not read {', '.join(reasons)}: leave it out, or set another --mode")
    if "config" not in given and mode in RUN_MODES:
        raise ValueError("--config is missing: for example --config=configs/base.py")


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuses words on the command line that belong to no flag.

    Args:
        arguments: The words that absl left over, without the program.

    Raises:
        ValueError: Names the first word and what was probably meant.
    """
    if not arguments:
        return
    word = arguments[0]
    if word in FLAGS_OF_MODE:
        raise ValueError(f"unexpected argument {word}: a mode is named by a flag, --mode={word}")
    raise ValueError(
        f"unexpected argument {word}: every option is --NAME=VALUE, and several values of one have commas between "
        "them, without spaces"
    )


def list_given(own: Iterable[flags.Flag], values: flags.FlagValues) -> list[str]:
    """Returns the names of run.py's flags that stand on the command line, "serve" for each of its fields.

    Args:
        own: The flags that run.py defines.
        values: All parsed flags.
    """
    given = [flag.name for flag in own if flag.present]
    fields = [name for name in values if name.startswith("serve.") and values[name].present]
    return given + ["serve"] * bool(fields)


def explain_flag_error(error: Exception, *, names: Iterable[str], fields: Iterable[str]) -> str:
    """Returns the error message for a flag that absl refuses, with the nearest right ones.

    Args:
        error: What absl raised.
        names: The flags of run.py.
        fields: The flags for fields of a config, such as "config.seed".
    """
    if isinstance(error, flags.UnrecognizedFlagError):
        name, fields, names = error.flagname, list(fields), list(names)
        near = nearest_names(name, names) + fields_named_like(name.rpartition(".")[2], fields)
        hint = f"; did you mean --{' or --'.join(near[:3])}?" if near else f"; there is --{', --'.join(names)}"
        return f"--{name}: no such flag{hint}"
    return _translate(str(error))


def _translate(text: str) -> str:
    """Returns an error message of absl in the words of this program."""
    if found := re.fullmatch(r"flag --(\w+)=(.*?): value should be one of <(.*)>", text, flags=re.DOTALL):
        return f"--{found[1]}={found[2]}: no such value{name_nearest(found[2], found[3].split('|'))}"
    if found := re.fullmatch(r"flag (--[\w.]+=.*?): (could not convert|invalid literal).*", text, flags=re.DOTALL):
        return f"{found[1]}: wanted a {'whole ' if found[2] == 'invalid literal' else ''}number"
    if found := re.fullmatch(r"flag --serve=(.*?): Overriding serve is not allowed.", text, flags=re.DOTALL):
        return f"--serve={found[1]}: set its fields one by one, such as --serve.port=8501"
    if found := re.fullmatch(r"flag (--\w+=.*?): .* is not number >= (.*)", text, flags=re.DOTALL):
        return f"{found[1]}: wanted {found[2]} or more"
    return text


def default_workdir(config_path: str, name: str = "") -> str:
    """Returns runs/NAME for a config of that name, or for configs/NAME.py with or without an argument after a colon.

    Args:
        config_path: The value of --config.
        name: The config's field `name`; "" = it has none.
    """
    file = os.path.basename(config_path.split(":", maxsplit=1)[0]).removesuffix(".py")
    return os.path.join("runs", name or file)
