"""Trains, resumes and evaluates on 1 to 8 of eight logical CPUs, in a process of its own: WORKDIR.

The tests' own process has two, and TensorFlow fixes that number when it starts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from absl import logging

from configs import base
from engine import experiment
from engine.distributed import strategy as runtime
from tests import conftest
from tests.engine.training.test_trainer import make_trainer
from tests.helpers.engine_toys import toy_batch, toy_dataset_fn, toy_varying_dataset_fn
from tests.helpers.experiment_toys import ToyEvalData, ToyTrainData, make_config, make_parts, reproducible_lines

NUM_ROWS = 10
# Two updates each: replicas, microbatch_rows, gradient_checkpointing.
CHAIN = ((1, 10, False), (3, 2, False), (8, 1, True), (2, 3, True))
# Replicas, and what a replica computes at a time; of the toy's rows, 0.0075 s is three.
SPLITS = (
    (1, {"microbatch_rows": 3}),
    (1, {"microbatch_secs": 0.0075}),
    (3, {"microbatch_rows": 3}),
    (4, {}),
    (8, {"microbatch_rows": 1}),
)
VARYING = (10, 3, 1, 12)


def make_strategy(num_replicas):
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    if num_replicas == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    # Without collectives: their groups have one size for a whole process.
    return tf.distribute.MirroredStrategy(devices[:num_replicas], tf.distribute.ReductionToOneDevice())


def spoiled_batch(update, num_rows):
    """Of each update a row that cannot be read and one that is too short; the second one is left over, as at an end."""
    batch = toy_batch(update, num_rows, num_real=num_rows if update != 1 else max(num_rows - 3, 1))
    if num_rows > 4:
        batch["weight"][2] = 0.0
        batch["waveform_lengths"][2] = 0
        batch["waveform_lengths"][4] = 8
    return batch


def measure(trainer, num_updates):
    metrics = trainer.train(tf.constant(num_updates))
    values = [*trainer.model.trainable_variables, *trainer.ema.shadows]
    return {
        "weights": np.concatenate([value.numpy().ravel() for value in values]).tolist(),
        "digest": int(trainer.data_digest.numpy()),
        "metrics": {k: v for k, v in metrics.items() if k not in ("input_stall_ratio", "audio_secs_per_sec")},
    }


def train_on_every_split():
    """Three updates of a fixed number of rows on every split, and four of a varying one on some."""
    fixed = toy_dataset_fn(NUM_ROWS, make=spoiled_batch, num_updates=3)
    varying = toy_varying_dataset_fn(VARYING.__getitem__, make=spoiled_batch, num_updates=4)
    options = {"ema_decay": 0.5, "clip_norm": 1.0, "max_consecutive_skips": 3}
    found = []
    for dataset_fn, num_updates, splits in ((fixed, 3, SPLITS), (varying, 4, SPLITS[1:3])):
        for num_replicas, limit in ((1, {}), *splits):
            trainer = make_trainer(make_strategy(num_replicas), dataset_fn=dataset_fn, **options, **limit)
            found.append({"split": [num_replicas, limit, num_updates], **measure(trainer, num_updates)})
    return found


def run(workdir, config, num_replicas, mode="train", **parts):
    experiment.runtime.build_strategy = lambda *_, **__: make_strategy(num_replicas)
    return experiment.run(config=config, parts=make_parts(**parts), workdir=str(workdir), mode=mode)


class SpoiledTrainData(ToyTrainData):
    def __init__(self, **fields):
        self.dataset = toy_dataset_fn(fields["global_batch_size"], make=spoiled_batch)


def constant_config(folder, **train):
    """A config that may be made longer at any time."""
    fields = {"global_batch_size": NUM_ROWS, "schedule": "constant", "hold_updates": 0, "ema_decay": 0.5}
    config = make_config(folder, **fields, **train)
    config.data.max_unreadable_ratio = 1.0
    return config


def resume_on_others(folder):
    """A workdir whose process has other devices each time, beside one that stays on a single device."""
    for number, (num_replicas, rows, is_checkpointed) in enumerate(CHAIN, start=1):
        config = constant_config(folder, num_updates=2 * number, microbatch_rows=rows)
        config.model.gradient_checkpointing = is_checkpointed
        run(folder / "moved", config, num_replicas, build_train_data=SpoiledTrainData)
    config = constant_config(folder, num_updates=2 * len(CHAIN), microbatch_rows=4)
    run(folder / "stayed", config, 1, build_train_data=SpoiledTrainData)
    found = {}
    for name in ("moved", "stayed"):
        reader = tf.train.load_checkpoint(str(folder / name / "checkpoints" / f"ckpt-{2 * len(CHAIN)}"))
        names = [key for key, shape in reader.get_variable_to_shape_map().items() if key.split("/")[0] in "model ema"]
        found[name] = {
            "weights": {key: reader.get_tensor(key).ravel().tolist() for key in names},
            "lines": reproducible_lines(folder / name),
        }
    found["config"] = json.loads((folder / "moved" / "config.json").read_text())["train"]
    return found


def evaluate(folder, num_replicas):
    """What each mode finds, and with what batches, where a training batch of six rows is no multiple of anything."""
    batch_sizes = []

    class NotedEvalData(ToyEvalData):
        def __init__(self, **fields):
            batch_sizes.append(fields["batch_size"])
            super().__init__(**fields)

    config = make_config(folder, global_batch_size=7, microbatch_rows=2)
    config.eval.update({"every_updates": 3, "batch_size": 4, "best_metric_set": "dev", "idle_timeout_secs": 0.01})
    config.data.eval["dev"] = base.get_eval_set(input=str(folder))
    found = {}
    for mode in ("train_and_eval", "eval", "continuous_eval"):
        config.train.global_batch_size = 7 if mode == "train_and_eval" else 1
        outcome = run(folder / f"run-{num_replicas}", config, num_replicas, mode, build_eval_data=NotedEvalData)
        found[mode] = outcome.metrics["dev"]["num_utterances"], outcome.metrics["dev"]["loss"]
    return {**found, "batch_sizes": batch_sizes}


def main(folder: Path) -> None:
    """Prints what came out as JSON."""
    runtime.configure_devices(num_virtual_devices=8)
    conftest._stop_tuning(tf)
    logging.set_verbosity(logging.INFO)
    found = {"splits": train_on_every_split(), "resumed": resume_on_others(folder)}
    found["evaluated"] = {number: evaluate(folder, number) for number in (3, 8)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
