"""Runs our side of a benchmark, with the model, trainer and step of a real run."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from benchmarks import cases, protocol
from common.whole_compilation import compile_whole
from data.batches.pipeline import aligned_zeros
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
        num_replicas: int = 1, num_threads: int = 0, compile: bool = False,
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
            compile: Whether XLA compiles the update as a whole, as runtime.jit_compile=on does.

        Raises:
            RuntimeError: If TensorFlow sees no GPU and `device` is "gpu".
        """
        if device == "gpu" and not tf.config.list_physical_devices("GPU"):
            raise RuntimeError("TensorFlow sees no GPU")
        if num_threads:
            tf.config.threading.set_inter_op_parallelism_threads(num_threads)
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        tf_keras.utils.set_random_seed(0)
        self._batches = cases.load(batches)
        self._precision = precision
        self._device = device
        strategy.configure_devices(num_virtual_devices=num_replicas)
        self._strategy = strategy.build_strategy("mirrored" if num_replicas > 1 else "one_device")
        if compile:
            model = {**model, "fused_ops": "off"}  # as in a run, where a compiled step has no compiled parts
        with self._strategy.scope():
            self._model = build_model(precision=precision, freeze_feature_encoder=True, **model)
        self.trainer: Trainer | None = None
        if task == "train":
            self.trainer = self._make_trainer(microbatch_rows, num_replicas, jit_compile=compile)
        else:
            self._model.fix_weights()
            signature = [tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)]
            plain = functools.partial(tf.function, input_signature=signature, autograph=False)
            infer = (compile_whole if compile else plain)(self._decode)
            # As in the transcriber: groups of rows, as many at once as suits the device.
            self._rows = RowRunner(infer, suitable_grouping())

    def _make_trainer(self, microbatch_rows: int, num_replicas: int, *, jit_compile: bool) -> Trainer:
        rows = self._batches[0].waveform.shape[0] // num_replicas
        signature = {
            "waveform": tf.TensorSpec([rows, None], tf.float32),
            "waveform_lengths": tf.TensorSpec([rows], tf.int32),
            "labels": tf.TensorSpec([rows, None], tf.int32),
            "label_lengths": tf.TensorSpec([rows], tf.int32),
            "weight": tf.TensorSpec([rows], tf.float32),
            "utterance_index": tf.TensorSpec([rows], tf.int64),
        }

        parts = [
            [
                batch.waveform[first : first + rows],
                batch.lengths[first : first + rows],
                batch.labels[first : first + rows],
                batch.label_lengths[first : first + rows],
                np.ones(rows, np.float32),
                np.arange(first, first + rows),
            ]
            for batch in self._batches
            for first in range(0, batch.waveform.shape[0], rows)
        ]

        def read(number: np.int64) -> list[np.ndarray]:
            return [_aligned_copy(array) for array in parts[int(number) % len(parts)]]

        def make(number: tf.Tensor) -> dict[str, tf.Tensor]:
            tensors = tf.numpy_function(read, [number], [spec.dtype for spec in signature.values()], stateful=False)
            return {key: tf.ensure_shape(x, signature[key].shape) for key, x in zip(signature, tensors, strict=True)}

        def dataset_fn(context: tf.distribute.InputContext, start_update: int) -> tf.data.Dataset:
            options = tf.data.Options()
            options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
            numbers = tf.data.Dataset.range(np.iinfo(np.int64).max)
            # As in the pipeline of a run: batches are made beside the training.
            return numbers.map(make, num_parallel_calls=2).with_options(options).prefetch(4)

        with self._strategy.scope():
            return Trainer(
                strategy=self._strategy,
                model=self._model,
                optimizer=build_optimizer(name="adamw", learning_rate=1e-5, weight_decay=0.01),
                global_step=tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA),
                dataset_fn=dataset_fn,
                loss_fn=loss.ctc_loss,
                feasible_fn=loss.feasible,
                options=TrainerOptions(microbatch_rows=microbatch_rows, jit_compile=jit_compile),
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

    def peak_device_bytes(self) -> int | None:
        """Returns the peak memory of the GPU; None on a CPU."""
        return tf.config.experimental.get_memory_info("GPU:0")["peak"] if self._device == "gpu" else None

    def ceiling(self) -> float:
        """Returns the best rate of a large matrix product in this precision, in FLOP/s."""
        # On a GPU several products are queued, because starting one and waiting for it takes time as well.
        size, count = (8192, 16) if self._device == "gpu" else (2048, 1)
        dtype = tf.bfloat16 if self._precision == "mixed_bfloat16" else tf.float32
        with tf.device(f"/{self._device}:0"):
            a = tf.cast(tf.random.normal([size, size]), dtype)
            product = tf.function(lambda: tf.matmul(a, a)[0, 0])
            product()

            def once() -> float:
                start = time.perf_counter()
                results = [product() for _ in range(count)]
                results[-1].numpy()
                return (time.perf_counter() - start) / count

            return 2.0 * size**3 / min(once() for _ in range(8))


def _aligned_copy(array: np.ndarray) -> np.ndarray:
    copy = aligned_zeros(array.shape, array.dtype.type)
    copy[...] = array
    return copy


def _versions() -> str:
    return json.dumps({"tensorflow": tf.__version__, "tf_keras": tf_keras.__version__, "numpy": np.__version__})


if __name__ == "__main__":
    protocol.serve(Side, versions=_versions)
