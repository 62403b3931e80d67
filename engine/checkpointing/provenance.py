"""Records where a checkpoint comes from, and checks that a run may continue from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import logging

from engine.workdir.folder import WorkdirError, package_versions

_DATA_WORDS = {
    "num_utterances": "number of utterances",
    "num_samples": "total number of samples",
    "ids": "ids or their order",
    "lengths": "durations",
    "texts": "transcripts",
    "augment": "the strengths of data.augment, or the names of its noises and impulse responses",
}


def describe(*, config: Mapping[str, Any], data: Mapping[str, Any], run_id: str = "") -> dict[str, Any]:
    """Returns the manifest's fields about the origin of a checkpoint.

    Args:
        config: Config of the run.
        data: Fingerprint of the training corpus.
        run_id: Id of the run; "" if unknown in this process.
    """
    about = {"config": config, "packages": package_versions(), "data": dict(data)}
    return {**about, "run_id": run_id} if run_id else about


def check(checkpoint: str, manifest: Mapping[str, Any] | None, about: Mapping[str, Any]) -> None:
    """Checks that a run continues with its own data, and warns if package versions have changed.

    Args:
        checkpoint: Path of the checkpoint to continue from, for messages.
        manifest: Manifest of the checkpoint; None if it has none and nothing can be compared.
        about: Result of `describe` for this run.

    Raises:
        WorkdirError: The checkpoint belongs to another run, or the training data have changed; names the difference.
    """
    run_id = (manifest or {}).get("run_id", "")
    if run_id and about.get("run_id", run_id) != run_id:
        raise WorkdirError(
            f"{checkpoint}: belongs to run {run_id}, the workdir to run {about['run_id']} (run.json); move it away, or "
            "choose another workdir and start from its weights with --config.model.init"
        )
    if manifest is None:
        logging.warning("%s has no manifest: cannot check that the training data are unchanged", checkpoint)
        return
    changed = [
        f"{_DATA_WORDS[name]} ({before} then, {now} now)" if isinstance(now, int) else _DATA_WORDS[name]
        for name, before, now in _changes(manifest, about, "data")
        if name in _DATA_WORDS
    ]
    if changed:
        where = _changed_corpora(manifest, about)
        raise WorkdirError(
            f"{checkpoint}: the training data{where} have changed since it was saved: {', '.join(changed)}; restore "
            "the corpus, or choose another workdir and start from these weights with --config.model.init"
        )
    _warn_of_packages(manifest, about)


def _warn_of_packages(manifest: Mapping[str, Any], about: Mapping[str, Any]) -> None:
    packages = [f"{name} {before} then, {now} now" for name, before, now in _changes(manifest, about, "packages")]
    if packages:
        logging.warning(
            "package versions have changed since the last checkpoint; results may not be bit-identical: %s",
            "; ".join(packages),
        )


def _changed_corpora(manifest: Mapping[str, Any], about: Mapping[str, Any]) -> str:
    """Returns the names of the corpora that have changed, for a run with several."""
    before, now = (one["data"].get("corpora") for one in (manifest, about))
    if not isinstance(before, Mapping) or not isinstance(now, Mapping):
        return ""
    changed = [name for name in (*now, *before) if before.get(name) != now.get(name)]
    return f" ({', '.join(dict.fromkeys(changed))})" if changed else ""


def _changes(manifest: Mapping[str, Any], about: Mapping[str, Any], group: str) -> list[tuple[str, Any, Any]]:
    """Returns (name, old value, new value) of a group's fields that both have and that differ."""
    before = manifest.get(group)
    if not isinstance(before, Mapping):  # damaged by hand
        return []
    return [(name, before[name], now) for name, now in about[group].items() if name in before and before[name] != now]
