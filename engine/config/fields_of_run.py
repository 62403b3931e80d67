"""Fills in the fields of a config that are left to the run: those that its weights, data or texts decide."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from absl import logging
from ml_collections import ConfigDict

from common.text_style import AUTO, text_base
from engine.config.recorded_run import read_adaptation, read_run_field
from engine.evaluation.best_metric import choose_metric

if TYPE_CHECKING:  # its module imports TensorFlow, and --mode=config does without
    from engine.protocols import Components, EvalData, TrainData

# Values of data.vocab that leave the vocabulary to the training texts, and what its tokens are.
VOCAB_UNITS = {AUTO: "characters", "words": "words"}


def with_architecture(config: ConfigDict, parts: Components, *, init: str = "", run: str = "") -> ConfigDict:
    """Returns the config with `model.architecture` filled in where `model.preset` does not name one.

    The config in a workdir then describes its architecture even when the initial weights are gone.

    Args:
        config: The config, see configs/base.py.
        parts: Callables of data and models, of which `find_architecture` is called.
        init: Weights to start from; "" = none.
        run: A workdir, or a checkpoint in one, whose architecture is recorded already.

    Raises:
        ValueError: No architecture is found, or the preset and the weights contradict each other.
    """
    if config.model.get("source", "native") != "native":
        return config
    found = ConfigDict(config.to_dict())
    found.model.architecture = parts.find_architecture(preset=config.model.preset, init=init, run=run)
    return found.lock()


def with_adaptation(config: ConfigDict, *, run: str) -> ConfigDict:
    """Returns the config with the LoRA or bottleneck adapters that trained weights have.

    Args:
        config: The config, see configs/base.py.
        run: A workdir, or a checkpoint in one, to evaluate.
    """
    found = ConfigDict(config.to_dict())
    found.model.update(read_adaptation(run))
    return found.lock()


def with_text_normalization(config: ConfigDict, *, run: str) -> ConfigDict:
    """Returns the config with the text normalization that a run chose for "auto".

    Args:
        config: The config, see configs/base.py.
        run: A workdir, or a checkpoint in one.

    Raises:
        ValueError: There is no such run.
    """
    if text_base(config.data.text_normalization) != AUTO:
        return config
    found = ConfigDict(config.to_dict())
    found.data.text_normalization = read_run_field(run, "data", "text_normalization", str)
    return found.lock()


def with_recorded(config: ConfigDict, parts: Components, *, run: str) -> ConfigDict:
    """Returns the config with all that a trained run has decided: text normalization, architecture and adaptation.

    Args:
        config: The config, see configs/base.py.
        parts: Callables of data and models, of which `find_architecture` is called.
        run: A workdir, or a checkpoint in one, to evaluate.

    Raises:
        ValueError: There is no such run, or its architecture and the config contradict each other.
    """
    config = with_text_normalization(config, run=run)
    return with_adaptation(with_architecture(config, parts, run=run), run=run)


def with_data(config: ConfigDict, data: TrainData, *, run: str = "") -> ConfigDict:
    """Returns the config with the fields that the training data decides: text normalization, and epochs in updates.

    Args:
        config: The config, see configs/base.py.
        data: The training data.
        run: The workdir of a run that resumes; "" = a new run.
    """
    found = ConfigDict(config.to_dict())
    if text_base(found.data.text_normalization) == AUTO:
        found.data.text_normalization = data.text_normalization
    for group in (found.eval, found.checkpoint):
        if epochs := group.get("every_epochs", 0.0):
            group.every_updates = _count_updates(epochs, data)
    if epochs := found.train.get("num_epochs", 0.0):
        # Keep the recorded number even if the data has changed: the check of its fingerprint gives the better error.
        is_recorded = bool(run) and read_run_field(run, "train", "num_epochs", float) == epochs
        found.train.num_updates = (
            read_run_field(run, "train", "num_updates", int) if is_recorded else _count_updates(epochs, data)
        )
    return found.lock()


def _count_updates(epochs: float, data: TrainData) -> int:
    return max(1, round(epochs * data.updates_per_epoch))


def choose_best_metric(config: ConfigDict, eval_data: Mapping[str, EvalData]) -> str:
    """Returns the error rate that decides about checkpoints, "wer" or "cer"; the texts of its set decide "auto"."""
    name = config.eval.best_metric_set
    given = config.eval.get("best_metric", AUTO)  # runs of older versions have no such field
    metric = choose_metric(given, eval_data[name].references.values() if name in eval_data else ())
    if metric != given and metric != "wer":
        logging.info("eval.best_metric=%s is %s: the texts of %s have no spaces between words", given, metric, name)
    return metric
