"""Composes the output of --help and --version: the modes, their flags and examples, and the versions in use."""

from __future__ import annotations

import glob
import importlib.metadata
import platform
import textwrap
from collections.abc import Iterable, Mapping, Sequence

from absl.flags import Flag

from common.cores import count_cores
from common.nearest import name_nearest
from engine.common.source_tree import find_commit
from engine.config.field_flags import FlagError, iterate_flags
from engine.config.modes import MODES

_WIDTH = 110
_ASKS_FOR_HELP = {"help", "helpshort", "h"}
# Flags that most commands need; --helpfull has the others.
_COMMON_FLAGS = ("config", "workdir", "checkpoint", "inputs", "output", "strategy")


def describe_flags(own: Iterable[Flag]) -> dict[str, str]:
    """Returns the help sentence of each flag that run.py defines, with the values that it takes."""
    texts = {}
    for flag in own:
        choices = getattr(flag.parser, "enum_values", ())
        sentence = flag.help.removeprefix(f"<{'|'.join(choices)}>: ")  # absl's way to show them
        texts[flag.name] = f"{sentence} Values: {', '.join(filter(None, choices))}." if choices else sentence
    return texts


def find_answer(argv: Sequence[str], flags: Mapping[str, str]) -> str:
    """Returns the text that --help or --version asks for; "" if the command line has neither.

    Args:
        argv: The command line, its program first.
        flags: The help sentence of each flag of run.py.

    Raises:
        FlagError: --mode names no mode.
    """
    given = {name: value for _, name, value in iterate_flags(argv)}
    if "version" in given:
        return describe_version()
    if not _ASKS_FOR_HELP & given.keys():
        return ""
    mode = given.get("mode")
    if mode is None:
        return describe_modes(flags)
    if mode not in MODES:
        raise FlagError(f"--mode={mode}: no such value{name_nearest(mode, MODES)}")
    return describe_mode(mode, flags)


def describe_modes(flags: Mapping[str, str]) -> str:
    """Returns the help on run.py: each mode with its sentence, and the flags that most commands need."""
    return "\n".join(
        [
            "Fine-tunes wav2vec 2.0 into a speech recognizer.",
            "",
            "  python run.py --config=configs/NAME.py [--mode=MODE] [--workdir=FOLDER] [--config.FIELD=VALUE ...]",
            "",
            "Modes; `python run.py --help --mode=MODE` describes one:",
            *_table({name: mode.summary for name, mode in MODES.items()}),
            "",
            "Flags that most commands need:",
            *_table({f"--{name}": flags[name] for name in _COMMON_FLAGS}),
            "",
            "configs/base.py explains every field of a config. --helpfull lists every flag, --version the versions.",
        ]
    )


def describe_mode(name: str, flags: Mapping[str, str]) -> str:
    """Returns the help on one mode: what it reads and writes, its flags, and an example.

    Args:
        name: A key of `MODES`.
        flags: The help sentence of each flag of run.py.
    """
    mode = MODES[name]
    known = {f"--{flag}": text for flag, text in flags.items() if flag in mode.flags}
    return "\n".join(
        [
            f"--mode={name}: {mode.summary}",
            "",
            *_table({"Reads": mode.reads, "Writes": mode.writes}),
            "",
            "Flags:",
            *_table(known),
            "",
            "Example:",
            f"  {mode.example}",
        ]
    )


def _table(rows: Mapping[str, str]) -> list[str]:
    """Returns the rows in two columns, the second one wrapped."""
    width = max(map(len, rows))
    lines = []
    for name, text in rows.items():
        first, *rest = textwrap.wrap(text, _WIDTH - width - 4)
        lines += [f"  {name:{width}}  {first}", *(f"  {'':{width}}  {line}" for line in rest)]
    return lines


def describe_version() -> str:
    """Returns the versions of the program, its commit, Python and TensorFlow, and the devices of this machine."""
    return "\n".join(
        [
            f"earshot {_installed('earshot')}, commit {find_commit() or 'unknown'}",
            f"Python {platform.python_version()}, TensorFlow {_installed('tensorflow')}",
            f"devices: {_describe_devices()}",
        ]
    )


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "(not installed)"


def _describe_devices() -> str:
    """Returns the devices that TensorFlow can use; it is imported only where the machine has an accelerator."""
    cores = count_cores()
    found = [f"CPU ({cores} {'core' if cores == 1 else 'cores'})"]
    if glob.glob("/dev/nvidia[0-9]*") or glob.glob("/dev/accel*") or glob.glob("/dev/kfd"):
        found += _list_accelerators()
    return ", ".join(found)


def _list_accelerators() -> list[str]:
    try:
        import tensorflow as tf
    except ImportError as error:
        return [f"accelerators unknown (TensorFlow cannot be imported: {error})"]
    devices = [device for kind in ("GPU", "TPU") for device in tf.config.list_physical_devices(kind)]
    names = [
        f"{device.device_type} {tf.config.experimental.get_device_details(device).get('device_name', device.name)}"
        for device in devices
    ]
    return names or ["accelerators that this TensorFlow cannot use (pip install -e '.[gpu]' for CUDA)"]
