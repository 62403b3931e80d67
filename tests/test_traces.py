"""A run over batches of several shapes is traced once, and compiles each region once for each bucket."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.autograph.core.ag_ctx import Status, control_status_ctx
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from data.batches.pipeline import BatchMaker, build_dataset
from data.batches.plan import BatchPlan
from data.text.tokenizer import load_tokenizer
from engine.distributed import strategy
from engine.evaluation.evaluator import Evaluator, RowFunctions
from engine.training.optimizer import build_optimizer
from engine.training.options import TrainerOptions
from engine.training.trainer import Trainer
from models.ctc import greedy
from models.ctc import loss as ctc
from models.wav2vec2.model import build_model
from tests.helpers import equivalence

BOUNDARIES = (3200, 4800, 6400)
# Wide models run with regions; this one is told to.
MODEL = {**equivalence.MODEL, "num_layers": 1, "layer_drop": 0.0, "fused_ops": "on"}
# The event of XLA's CPU compiler, one a program.
COMPILATION = "CpuCompiler::CompileCpuExecutable"


class Data:
    """Three buckets of noise: what the evaluator wants to know of a set, and the trainer's dataset."""

    def __init__(self, num_rows):
        source = equivalence.NoiseSource(12)
        source.num_samples = np.repeat(BOUNDARIES, 4)
        plan = BatchPlan(
            num_samples=source.num_samples, global_batch_size=num_rows, seed=3, bucket_boundaries=BOUNDARIES
        )
        self.num_batches = plan.updates_per_epoch
        self.widths = [plan.batch(update).padded_samples for update in range(2 * self.num_batches)]
        self.references = dict(enumerate(source.texts))
        self.utterance_ids = dict(enumerate(source.utterance_ids))
        self._fields = {
            "source": source,
            "plan": plan,
            "tokenizer": load_tokenizer(""),
            "text_normalization": "librispeech",
        }

    def dataset(self, context, start_update=None):
        length = {"num_updates": self.num_batches} if start_update is None else {"start_update": start_update}
        return build_dataset(BatchMaker(**self._fields), num_parallel_calls=2, prefetch=4, **length)


class Counter:
    """Counts how often TensorFlow traces the loss, and what XLA compiles."""

    def __init__(self, folder: Path):
        self.num_traces = 0
        self.num_compilations = 0
        self._folder = folder

    def loss(self, *arguments):
        self.num_traces += 1  # Python runs while a graph is traced, and only then
        assert control_status_ctx().status == Status.DISABLED, "AutoGraph doubles the time that tracing takes"
        return ctc.ctc_loss(*arguments)

    @contextlib.contextmanager
    def compilations(self):
        trace = self._folder / str(len(list(self._folder.iterdir())))
        options = tf.profiler.experimental.ProfilerOptions(python_tracer_level=0, device_tracer_level=0)
        with tf.profiler.experimental.Profile(str(trace), options):
            yield
        space = xplane_pb2.XSpace()
        space.ParseFromString(next(trace.glob("plugins/profile/*/*.xplane.pb")).read_bytes())
        self.num_compilations = sum(
            plane.event_metadata[event.metadata_id].name == COMPILATION
            for plane in space.planes
            for line in plane.lines
            for event in line.events
        )


@pytest.fixture(scope="module")
def model():
    return build_model(preset="tiny", vocab_size=32, **MODEL)


def test_training_compiles_once_for_each_bucket_and_traces_once(model, tmp_path):
    data, counter = Data(num_rows=2), Counter(tmp_path)
    trainer = Trainer(
        strategy=strategy.build_strategy("one_device"),
        model=model,
        optimizer=build_optimizer(name="adamw", learning_rate=1e-3),
        global_step=tf.Variable(0, dtype=tf.int64),
        dataset_fn=data.dataset,
        loss_fn=counter.loss,
        feasible_fn=ctc.feasible,
        options=TrainerOptions(),
    )
    compiled: dict[int, list[int]] = {}
    for width in data.widths:
        with counter.compilations():
            trainer.train(tf.constant(1))
        compiled.setdefault(width, []).append(counter.num_compilations)
    assert counter.num_traces == 1
    assert sorted(compiled) == sorted(BOUNDARIES)
    # A bucket met again costs nothing.
    first, *others = [counts[0] for counts in compiled.values()]
    assert first > 0 and all(0 < other <= first for other in others)
    assert not any(sum(counts[1:]) for counts in compiled.values())


def test_evaluation_compiles_once_for_each_bucket_and_traces_once(model, tmp_path):
    # Not the rows of the other test: a process compiles a shape once.
    data, counter = Data(num_rows=4), Counter(tmp_path)
    evaluator = Evaluator(
        name="noise",
        strategy=strategy.build_strategy("one_device"),
        model=model,
        data=data,
        functions=RowFunctions(loss_fn=counter.loss, feasible_fn=ctc.feasible, decoder=greedy.greedy_decode),
        tokenizer=load_tokenizer(""),
        num_logged=3,
    )
    passes = []
    for _ in range(2):
        with counter.compilations():
            evaluator.evaluate_all()
        passes.append(counter.num_compilations)
    assert counter.num_traces == 1
    # The convolutions' norms and GELUs: three each, in three buckets.
    assert 0 < passes[0] <= 2 * 3 * len(BOUNDARIES) and passes[1] == 0
