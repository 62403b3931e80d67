"""What a checkpoint says about where it comes from, and whether a run may go on from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from absl import logging

from engine.workdir import WorkdirError, package_versions

_DATA_WORDS = {
    "num_utterances": "number of utterances",
    "num_samples": "samples in all",
    "ids": "ids or their order",
    "lengths": "durations",
    "texts": "transcripts",
}


def describe(*, config: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what goes into a checkpoint's manifest.

    Args:
        config: Of the run.
        data: Fingerprint of the training corpus.
    """
    return {"config": config, "packages": package_versions(), "data": dict(data)}


def check(checkpoint: str, manifest: Mapping[str, Any] | None, about: Mapping[str, Any]) -> None:
    """Checks that a run goes on with the data that it began with, and says so where the packages are others.

    Args:
        checkpoint: Path of the checkpoint to continue from; for the message.
        manifest: Its manifest; None where it has none, and nothing can be compared.
        about: `describe` of this run.

    Raises:
        WorkdirError: The training corpus is another one; says in what.
    """
    if manifest is None:
        logging.warning("%s has no manifest: whether the training data are the same cannot be told", checkpoint)
        return
    before, now = manifest.get("data", {}), about["data"]
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
    packages = manifest.get("packages", {})
    others = [
        f"{name} {packages[name]} then, {version} now"
        for name, version in about["packages"].items()
        if name in packages and packages[name] != version
    ]
    if others:
        logging.warning("the run goes on with other packages, so perhaps not to the last digit: %s", "; ".join(others))
