"""Runs our side of a benchmark, with the model, trainer and step of a real run."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks import cases, protocol
from engine.distributed import strategy
from engine.inference.grouping import suitable_grouping
from engine.inference.row_runner import RowRunner
from engine.training.optimizer import build_optimizer
from engine.training.options import TrainerOptions
from engine.training.trainer import Trainer
from models.ctc import loss
from models.ctc.greedy import greedy_decode
from models.wav2vec2.model import build_model


class Side:
    """A model with its batches."""

    def __init__(
        self, *, task: str, precision: str, device: str, batches: str, model: dict[str, Any], microbatch_rows: int = 0,
        num_replicas: int = 1, num_threads: int = 0,
    ) -> None:  # fmt: skip
        """Builds the model.

        Args:
            task: "train" or "infer".
            precision: Keras policy.
            device: "cpu" or "gpu".
            batches: .npz file of `cases.save`.
            model: Fields of `models.wav2vec2.model.build_model`.
            microbatch_rows: Rows that a replica computes at a time; 0 = all.
            num_replicas: Logical CPUs to train on.
            num_threads: Threads of TensorFlow's kernels; 0 = one for each processor.
        """
        if num_threads:
            tf.config.threading.set_inter_op_parallelism_threads(num_threads)
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf_keras.utils.set_random_seed(0)
        self._batches = cases.load(batches)
        self._precision = precision
        self._device = device
        strategy.configure_devices(num_virtual_devices=num_replicas)
        self._strategy = strategy.build_strategy("mirrored" if num_replicas > 1 else "one_device")
        with self._strategy.scope():
            self._model = build_model(precision=precision, freeze_feature_encoder=True, **model)
        self.trainer: Trainer | None = None
        if task == "train":
            self.trainer = self._make_trainer(microbatch_rows, num_replicas)
        else:
            self._model.fix_weights()
            infer = tf.function(self._decode, input_signature=[
                tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)
            ], autograph=False)  # fmt: skip
            # As in the transcriber: groups of rows, as many at once as suits the device.
            self._rows = RowRunner(infer, suitable_grouping())

    def _make_trainer(self, microbatch_rows: int, num_replicas: int) -> Trainer:
        rows = self._batches[0].waveform.shape[0] // num_replicas
        signature = {
            "waveform": tf.TensorSpec([rows, None], tf.float32),
            "waveform_lengths": tf.TensorSpec([rows], tf.int32),
            "labels": tf.TensorSpec([rows, None], tf.int32),
            "label_lengths": tf.TensorSpec([rows], tf.int32),
            "weight": tf.TensorSpec([rows], tf.float32),
            "utterance_index": tf.TensorSpec([rows], tf.int64),
        }

        def endless() -> Iterator[dict[str, np.ndarray]]:
            while True:
                for batch in self._batches:
                    for first in range(0, batch.waveform.shape[0], rows):
                        part = slice(first, first + rows)
                        yield {
                            "waveform": batch.waveform[part],
                            "waveform_lengths": batch.lengths[part],
                            "labels": batch.labels[part],
                            "label_lengths": batch.label_lengths[part],
                            "weight": np.ones(rows, np.float32),
                            "utterance_index": np.arange(first, first + rows),
                        }

        def dataset_fn(context: tf.distribute.InputContext, start_update: int) -> tf.data.Dataset:
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
            return tf.data.Dataset.from_generator(endless, output_signature=signature).with_options(options)

        with self._strategy.scope():
            return Trainer(
                strategy=self._strategy,
                model=self._model,
                optimizer=build_optimizer(name="adamw", learning_rate=1e-5, weight_decay=0.01),
                global_step=tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA),
                dataset_fn=dataset_fn,
                loss_fn=loss.ctc_loss,
                feasible_fn=loss.feasible,
                options=TrainerOptions(microbatch_rows=microbatch_rows),
            )

    def _decode(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return greedy_decode(self._model(waveform, lengths), self._model.output_lengths(lengths))

    def run_once(self) -> dict[str, float]:
        """Runs one pass over the batches and returns its time and a number to compare."""
        start, cpu_start = time.perf_counter(), time.process_time()
        if self.trainer is not None:
            figure = self.trainer.train(tf.constant(len(self._batches)))["loss"]
        else:
            begun = [self._rows.submit(batch.rows) for batch in self._batches]
            figure = sum(float(row.sum()) for collect in begun for row in collect())
        secs, cpu_secs = time.perf_counter() - start, time.process_time() - cpu_start
        return {"secs": secs, "cpu_secs": cpu_secs, "figure": float(figure)}

    def profile(self, folder: str) -> dict[str, float]:
        """Runs one pass with TensorFlow's profiler, which writes its trace to `folder`."""
        with tf.profiler.experimental.Profile(folder):
            return self.run_once()

    def ceiling(self) -> float:
        """Returns the best rate of a large matrix product in this precision, in FLOP/s."""
        size = 8192 if self._device == "gpu" else 2048
        dtype = tf.bfloat16 if self._precision == "mixed_bfloat16" else tf.float32
        with tf.device(f"/{self._device}:0"):
            a = tf.cast(tf.random.normal([size, size]), dtype)
            product = tf.function(lambda: tf.matmul(a, a)[0, 0])
            product()

            def once() -> float:
                start = time.perf_counter()
                product().numpy()
                return time.perf_counter() - start

            return 2.0 * size**3 / min(once() for _ in range(8))


def _versions() -> str:
    return json.dumps({"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__, "numpy": np.__version__})


if __name__ == "__main__":
    protocol.serve(Side, versions=_versions)
