"""Runs `--mode=config`: prints the config that a command would use, as flags that --flagfile takes back."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from common import storage
from common import workdir_layout as layout
from common.text_style import text_base
from engine.config.field_flags import SET_GROUPS
from engine.config.field_rules import EPOCHS_OF, flatten
from engine.config.fields_of_run import AUTO, VOCAB_UNITS


def run(
    *,
    config: Mapping[str, Any],
    base: Mapping[str, Any],
    sets: Mapping[str, Mapping[str, Any]],
    source: str,
    workdir: str,
) -> int:
    """Prints every field of a config with its value, and returns the exit status.

    Args:
        config: The fields after all flags.
        base: The fields of configs/base.py; a field with another value gets a comment with the value in `base`.
        sets: The defaults of other sets: {"data.eval": fields of get_eval_set, "data.more_train": of get_train_set}.
        source: The value of --config.
        workdir: The folder of the run. Values that the run has resolved, such as the vocabulary, appear in comments.
    """
    path = storage.join(workdir, layout.CONFIG_FILE)
    recorded = layout.read_config(path) if storage.is_file(path) else {}
    print("\n".join(config_lines(config, base, sets, source=source, workdir=workdir, recorded=recorded)))
    return 0


def config_lines(
    config: Mapping[str, Any],
    base: Mapping[str, Any],
    sets: Mapping[str, Mapping[str, Any]],
    *,
    source: str,
    workdir: str,
    recorded: Mapping[str, Any],
) -> Iterator[str]:
    """Yields the lines of `run`; `recorded` is the config.json of the workdir, {} without one."""
    yield "# python run.py --flagfile=FILE takes these lines back; --mode and other flags may follow it."
    yield f"--config={source}"
    yield f"--workdir={workdir}"
    fields, defaults = dict(flatten(config)), dict(flatten(base))
    resolved = dict(flatten(recorded))
    for name, value in fields.items():
        default = _default_of(name, defaults, sets)
        if value != default:
            yield f"# configs/base.py: {_written(default)}"
        if note := _resolve(name, fields, resolved, workdir):
            yield f"# resolves to {note}"
        line = f"--config.{_flag_of(name)}={_written(value)}"
        # A run writes model.architecture itself. A flag file cannot hold a value of several lines.
        is_flag = name in defaults or name.startswith(tuple(f"{group}." for group in sets))
        yield line if is_flag and "\n" not in line else f"# {line!r}"


def _default_of(name: str, defaults: Mapping[str, Any], sets: Mapping[str, Mapping[str, Any]]) -> Any:
    group, _, field = _split_set(name)
    return dict(flatten(sets[group])).get(field) if group and name not in defaults else defaults.get(name)


def _flag_of(name: str) -> str:
    """Returns the flag of a field; the name of a set becomes a key if it is not an identifier."""
    group, set_name, field = _split_set(name)
    if not group:
        return name
    return name if set_name.isidentifier() else f"{group}[{set_name!r}].{field}"


def _split_set(name: str) -> tuple[str, str, str]:
    """Splits data.eval.NAME.FIELD into data.eval, NAME and FIELD, which may be in a group; "" for other fields."""
    group = next((group for group in SET_GROUPS if name.startswith(f"{group}.")), "")
    set_name, _, field = name.removeprefix(f"{group}.").partition(".")
    return (group, set_name, field) if group else ("", "", "")


def _written(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)


def _resolve(name: str, fields: Mapping[str, Any], recorded: Mapping[str, Any], workdir: str) -> str:
    """Returns the value of a field that the data or the weights decide; "" for any other field."""
    if epochs := fields.get(EPOCHS_OF.get(name, ""), 0.0):
        return _resolve_epochs(name, epochs, recorded, workdir)
    if name == "data.text_normalization" and text_base(fields[name]) == AUTO:
        return _resolve_text_normalization(recorded.get(name, AUTO), workdir)
    if name == "data.vocab" and (units := VOCAB_UNITS.get(fields[name])):
        return os.path.join(workdir, layout.VOCAB_FILE) if recorded else f"the {units} of the training texts"
    if fields[name] != AUTO:
        return ""
    if name == "model.preset":
        return f"the architecture of {fields['model.init']}" if fields["model.init"] else "base"
    return ""  # depends on the device, such as model.fused_ops


def _resolve_text_normalization(recorded: str, workdir: str) -> str:
    if text_base(recorded) == AUTO:
        return "what the training texts suggest"
    return f"{recorded}, as the run in {workdir} has found"


def _resolve_epochs(name: str, epochs: float, recorded: Mapping[str, Any], workdir: str) -> str:
    """Returns the value of a field that counts updates, where another one counts epochs."""
    if recorded.get(EPOCHS_OF[name]) == epochs and name in recorded:
        return f"{recorded[name]}, as the run in {workdir} has counted"
    return f"{epochs:g} epochs, counted when the training data is read"
