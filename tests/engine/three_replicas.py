"""Trains, evaluates and follows a training on three logical CPUs, in a process of its own: WORKDIR.

The tests' own process has two, and TensorFlow fixes that number when it starts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from configs import base
from engine import experiment
from tests.helpers.experiment_toys import ToyEvalData, make_config, make_parts


def main(workdir: Path) -> None:
    """Prints the batches and rates of each mode as JSON."""
    batch_sizes = []

    class NotedEvalData(ToyEvalData):
        def __init__(self, **fields):
            batch_sizes.append(fields["batch_size"])
            super().__init__(**fields)

    config = make_config(workdir, global_batch_size=6)
    config.runtime.num_virtual_devices = 3
    config.eval.update({"every_updates": 3, "batch_size": 4, "best_metric_set": "dev", "idle_timeout_secs": 0.01})
    config.data.eval["dev"] = base.get_eval_set(input=str(workdir))
    run = {"parts": make_parts(build_eval_data=NotedEvalData), "workdir": str(workdir / "run")}
    found = {}
    for mode, accum_steps in (("train_and_eval", 1), ("eval", 7), ("continuous_eval", 7)):
        config.train.accum_steps = accum_steps  # 7 would do for no training batch of 6 rows
        outcome = experiment.run(**run, config=config, mode=mode, strategy_name="mirrored")
        found[mode] = outcome.metrics["dev"]["num_utterances"], outcome.metrics["dev"]["loss"]
    try:
        experiment.run(**run, config=config, mode="train", strategy_name="mirrored")
    except ValueError as error:
        found["refused"] = str(error)
    print(json.dumps({**found, "batch_sizes": batch_sizes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
