"""What a checkpoint says about where it comes from, and whether a run may go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import logging

from engine.workdir.folder import WorkdirError, package_versions

_DATA_WORDS = {
    "num_utterances": "number of utterances",
    "num_samples": "samples in all",
    "ids": "ids or their order",
    "lengths": "durations",
    "texts": "transcripts",
}


def describe(*, config: Mapping[str, Any], data: Mapping[str, Any], run_id: str = "") -> dict[str, Any]:
    """Returns what goes into a checkpoint's manifest.

    Args:
        config: Of the run.
        data: Fingerprint of the training corpus.
        run_id: As `run_identity.begin_run` returned it; "" = not known here.
    """
    about = {"config": config, "packages": package_versions(), "data": dict(data)}
    return {**about, "run_id": run_id} if run_id else about


def check(checkpoint: str, manifest: Mapping[str, Any] | None, about: Mapping[str, Any]) -> None:
    """Checks that a run goes on with the data that it began with, and says so where the packages are others.

    Args:
        checkpoint: Path of the checkpoint to continue from; for the message.
        manifest: Its manifest; None where it has none, and nothing can be compared.
        about: `describe` of this run.

    Raises:
        WorkdirError: The checkpoint is of another run, or the training corpus is another one; says in what.
    """
    run_id = (manifest or {}).get("run_id", "")
    if run_id and about.get("run_id", run_id) != run_id:
        raise WorkdirError(
            f"{checkpoint}: belongs to run {run_id}, the workdir to run {about['run_id']} (run.json); move it away, or "
            "choose another workdir and start from its weights with --config.model.init"
        )
    if manifest is None:
        logging.warning("%s has no manifest: whether the training data are the same cannot be told", checkpoint)
        return
    before, now = _mapping(manifest, "data"), about["data"]
    changed = [
        f"{word} ({before[name]} then, {now[name]} now)" if isinstance(now[name], int) else word
        for name, word in _DATA_WORDS.items()
        if name in before and name in now and before[name] != now[name]
    ]
    if changed:
        raise WorkdirError(
            f"{checkpoint}: the training data are not those that it was trained on: {', '.join(changed)} differ; bring "
            "back the corpus, or choose another workdir and start from these weights with --config.model.init"
        )
    packages = _mapping(manifest, "packages")
    others = [
        f"{name} {packages[name]} then, {version} now"
        for name, version in about["packages"].items()
        if name in packages and packages[name] != version
    ]
    if others:
        logging.warning("the run goes on with other packages, so perhaps not to the last digit: %s", "; ".join(others))


def _mapping(manifest: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a group of a manifest; an empty one where somebody has damaged it."""
    found = manifest.get(name, {})
    return found if isinstance(found, Mapping) else {}
