"""A small real model on a small real pipeline, trained and evaluated under any strategy: what must come out the same.

As a program it does so in a process of its own, with as many logical CPUs as asked for, or as one of several workers:

    python -m tests.helpers.equivalence --output=FILE.npz --replicas=4 --cases=16:bucketed,3:padded --eval_batches=1,3,8
    TF_CONFIG=... python -m tests.helpers.equivalence --output=FILE.npz --strategy=multi_worker --cases=2:bucketed
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
import tf_keras

from data.batches.pipeline import BatchMaker, build_dataset
from data.batches.plan import BatchPlan
from data.text.tokenizer import load_tokenizer
from engine.distributed import cluster
from engine.distributed import strategy as runtime
from engine.evaluation.evaluator import Evaluator, RowFunctions
from engine.training.optimizer import build_optimizer
from engine.training.options import TrainerOptions
from engine.training.trainer import Trainer
from models.ctc import greedy
from models.ctc import loss as ctc
from models.wav2vec2.model import build_model

NUM_UPDATES = 5
GLOBAL_BATCH = 16
# Rows of an epoch: two full updates, and one of five rows: with two replicas and more, one of them gets none.
NUM_UTTERANCES = 37
BOUNDARIES = (3200, 6400)
MODEL = {
    "conv_dim": (16, 16, 16), "hidden_size": 32, "num_layers": 2, "num_heads": 2, "intermediate_size": 64,
    "pos_conv_kernel": 8, "pos_conv_groups": 2, "hidden_dropout": 0.1, "attention_dropout": 0.1,
    "activation_dropout": 0.1, "feature_projection_dropout": 0.1, "final_dropout": 0.1, "layer_drop": 0.3,
    "mask_time_prob": 0.3, "mask_time_length": 2, "mask_feature_prob": 0.2, "mask_feature_length": 4,
}  # fmt: skip


class NoiseSource:
    """Noise that speaks: utterances in memory, each a pure function of its index."""

    def __init__(self, num_utterances: int = NUM_UTTERANCES) -> None:
        rng = np.random.default_rng(5)
        self.num_samples = rng.integers(1600, BOUNDARIES[-1] + 1, num_utterances)
        self.utterance_ids = [f"noise-{i:02}" for i in range(num_utterances)]
        self.texts = ["".join(rng.choice(list("ABCDE "), size=int(n) // 1000)).strip() or "A" for n in self.num_samples]
        self.speaker_ids = [""] * num_utterances
        self.sample_rates = np.full(num_utterances, 16_000, np.int32)

    def read_waveform(self, index):
        rng = np.random.default_rng(index)
        return rng.normal(0.0, 0.1, self.num_samples[index]).astype(np.float32)


def make_dataset_fn(*, is_bucketed: bool, num_rows: int = GLOBAL_BATCH):
    """The rows of the plan, padded to their bucket or all to the longest one."""
    source = NoiseSource()
    plan = BatchPlan(num_samples=source.num_samples, global_batch_size=num_rows, seed=3, bucket_boundaries=BOUNDARIES)
    tokenizer = load_tokenizer("")
    longest_text = max(len(text) for text in source.texts)

    def dataset_fn(context, start_update):
        maker = BatchMaker(
            source=source,
            plan=plan,
            tokenizer=tokenizer,
            text_normalization="librispeech",
            num_replicas=context.num_replicas_in_sync,
            max_label_length=longest_text,
        )
        dataset = build_dataset(
            maker,
            num_input_pipelines=context.num_input_pipelines,
            input_pipeline_id=context.input_pipeline_id,
            start_update=start_update,
            num_parallel_calls=2,
            prefetch=4,
        )
        if is_bucketed:
            return dataset

        def widen(batch):
            missing = BOUNDARIES[-1] - tf.shape(batch["waveform"])[1]
            waveform = tf.pad(batch["waveform"], [[0, 0], [0, missing]])
            return {**batch, "waveform": tf.ensure_shape(waveform, [batch["waveform"].shape[0], BOUNDARIES[-1]])}

        return dataset.map(widen)

    return dataset_fn


def make_trainer(
    strategy, *, microbatch_rows: int = 0, is_bucketed: bool = True, precision: str = "float32", model=MODEL, **options
):
    """A trainer with everything on that could depend on the split: dropout, masks, layer drop, clipping."""
    with strategy.scope():
        tf_keras.utils.set_random_seed(1)
        model = build_model(**{"preset": "tiny", "vocab_size": 32, "precision": precision, **model})
        return Trainer(
            strategy=strategy,
            model=model,
            # A large epsilon: Adam divides by the gradient's size, so where the true gradient is zero (the keys' bias
            # has none, softmax does not see it) it would blow rounding errors up to whole steps.
            optimizer=build_optimizer(name="adamw", learning_rate=0.01, weight_decay=0.1, epsilon=7e-3),
            global_step=tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA),
            dataset_fn=options.pop("dataset_fn", None) or make_dataset_fn(is_bucketed=is_bucketed),
            loss_fn=options.pop("loss_fn", ctc.ctc_loss),
            feasible_fn=ctc.feasible,
            options=TrainerOptions(**{"microbatch_rows": microbatch_rows, "clip_norm": 1.0, "seed": 7, **options}),
        )


class NoiseEvalData:
    """An evaluation set as `data.batches.datasets.EvalData` makes it, over `NoiseSource`."""

    def __init__(self, batch_size: int, bucket_boundaries: tuple[int, ...] = BOUNDARIES) -> None:
        self._source = NoiseSource(13)
        self._plan = BatchPlan(
            num_samples=self._source.num_samples,
            global_batch_size=batch_size,
            seed=0,
            bucket_boundaries=bucket_boundaries,
            shuffle=False,
        )
        self.num_batches = self._plan.updates_per_epoch
        self.utterance_ids = dict(enumerate(self._source.utterance_ids))
        self.references = dict(enumerate(self._source.texts))

    def dataset(self, context):
        maker = BatchMaker(
            source=self._source,
            plan=self._plan,
            tokenizer=load_tokenizer(""),
            text_normalization="librispeech",
            num_replicas=context.num_replicas_in_sync,
        )
        return build_dataset(
            maker,
            num_input_pipelines=context.num_input_pipelines,
            input_pipeline_id=context.input_pipeline_id,
            num_updates=self.num_batches,
            num_parallel_calls=2,
            prefetch=4,
        )


def make_evaluator(
    strategy, model, *, batch_size: int, bucket_boundaries=BOUNDARIES, loss_fn=ctc.ctc_loss, jit_compile=False
) -> Evaluator:
    """Over `NoiseEvalData`; the batch is rounded up to a multiple of the replicas as engine/config/builders.py does."""
    replicas = strategy.num_replicas_in_sync
    with strategy.scope():
        return Evaluator(
            name="noise",
            strategy=strategy,
            model=model,
            data=NoiseEvalData(-(-batch_size // replicas) * replicas, bucket_boundaries),
            functions=RowFunctions(
                loss_fn=loss_fn, feasible_fn=ctc.feasible, decoder=greedy.greedy_decode, jit_compile=jit_compile
            ),
            tokenizer=load_tokenizer(""),
            num_logged=0,
        )


def evaluate(evaluator: Evaluator) -> tuple[str, float]:
    """Counts and texts of a whole evaluation, as JSON, and its loss."""
    metrics = evaluator.evaluate_all()
    counts = {name: metrics[name] for name in ("substitutions", "deletions", "insertions", "num_words")}
    return json.dumps({**counts, "predictions": evaluator.score.predictions()}, sort_keys=True), metrics["loss"]


def train(strategy, **options) -> tuple[list[np.ndarray], float]:
    """Weights, with `ema_decay` their averages behind them, and loss after five updates."""
    trainer = make_trainer(strategy, **options)
    metrics = trainer.train(tf.constant(NUM_UPDATES))
    averages = trainer.ema.shadows if trainer.ema is not None else []
    return [variable.numpy() for variable in (*trainer.model.trainable_variables, *averages)], metrics["loss"]


def largest_difference(found, wanted) -> float:
    """Largest difference of a weight, relative to the largest weight of its variable (or to 0.01, if that is more)."""
    return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 0.01)) for a, b in zip(found, wanted, strict=True))


def main(argv: list[str]) -> None:
    """Runs the cases and writes their weights, losses and evaluations."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True)
    parser.add_argument("--strategy", default="mirrored")
    parser.add_argument("--replicas", type=int, default=0)
    parser.add_argument("--cases", default="")
    parser.add_argument("--eval_batches", default="")
    parser.add_argument("--ema_decay", type=float, default=0.0)
    arguments = parser.parse_args(argv)
    runtime.configure_devices(num_virtual_devices=arguments.replicas)
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    strategy = runtime.build_strategy(arguments.strategy, start_secs=120.0)
    os.kill(os.getpid(), signal.SIGTERM)
    results: dict[str, np.ndarray] = {
        "num_replicas": np.array(strategy.num_replicas_in_sync),
        "heard": np.array(heard),
    }
    for case in filter(None, arguments.cases.split(",")):
        microbatch_rows, padding = case.split(":")
        weights, loss = train(
            strategy,
            microbatch_rows=int(microbatch_rows),
            is_bucketed=padding == "bucketed",
            ema_decay=arguments.ema_decay,
        )
        results |= {f"{case}/{i}": weight for i, weight in enumerate(weights)}
        results[f"{case}/loss"] = np.array(loss)
    if arguments.eval_batches:
        model = make_trainer(strategy).model
        for size in arguments.eval_batches.split(","):
            counts, _ = evaluate(make_evaluator(strategy, model, batch_size=int(size)))
            results[f"eval/{size}"] = np.array(counts)
    any_worker = cluster.AnyWorker(strategy)
    is_second = os.path.basename(arguments.output) == "1.npz"
    results["any_worker"] = np.array([any_worker(False), any_worker(is_second), any_worker(False)])
    cluster.gather_texts(strategy, "done")  # no worker leaves before the others have finished
    np.savez(Path(arguments.output), **results)


if __name__ == "__main__":
    main(sys.argv[1:])
