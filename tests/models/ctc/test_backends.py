"""The back ends of the CTC loss: each as exact as float64, on all kinds of rows, on one device and on two replicas.

cuDNN's kernel runs on GPUs alone. TensorFlow's kernel for CPUs, which is as inexact, stands in for it here.
"""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.ctc_error import oracle
from models.ctc import cudnn
from models.ctc import loss as ctc
from models.ops import devices
from tests.helpers.device_graph import operations
from tests.models.ctc.test_loss import check_row

OURS = ("scan", "host", "xla", "blocks")
NUM_FRAMES, NUM_LABELS, VOCAB_SIZE = 41, 9, 6  # not a multiple of a block, and two blocks and a bit
# Kinds of rows; infeasible, no_frames and empty are what a kernel need not take.
PLAIN, REPEATS, EMPTY, ONE, SHORT, INFEASIBLE, NO_FRAMES, FULL = range(8)


def example(scale, blank_id=0, seed=0):
    """One row of each kind. What is past a row's lengths is not a number, or an invalid id."""
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(8, NUM_FRAMES, VOCAB_SIZE))).astype(np.float32)
    frames = np.array([NUM_FRAMES, 33, 20, NUM_FRAMES, 7, 10, 0, 16], np.int32)
    others = [token for token in range(VOCAB_SIZE) if token != blank_id]
    labels = rng.choice(others, size=(8, NUM_LABELS)).astype(np.int32)
    lengths = np.array([9, 9, 0, 1, 3, 6, 4, 8], np.int32)
    labels[REPEATS] = others[0]
    labels[INFEASIBLE] = others[1]  # six labels and five repeats in ten frames
    labels[FULL] = others[2]  # eight labels and seven repeats in sixteen frames
    for row in range(8):
        logits[row, frames[row] :] = np.nan
        labels[row, lengths[row] :] = (-1, 10**6)[row % 2]
    return logits, frames, labels, lengths


@functools.cache
def function(backend, blank_id, is_whole=False):
    @tf.function(autograph=False, jit_compile=is_whole)
    def run(logits, *more):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            losses = ctc.ctc_loss(logits, *more, blank_id=blank_id, backend=backend)
            weighted = losses * tf.range(1.0, tf.cast(tf.shape(losses)[0], tf.float32) + 1.0)
        return losses, tape.gradient(weighted, logits)

    return run


def run(backend, logits, *more, blank_id=0, is_whole=False):
    """Losses, and each row's gradient, from a graph in which the rows have different weights."""
    losses, gradient = function(backend, blank_id, is_whole)(tf.constant(logits), *map(tf.constant, more))
    return losses.numpy(), gradient.numpy() / np.arange(1, len(logits) + 1)[:, np.newaxis, np.newaxis]


@pytest.fixture
def cpu_kernel(monkeypatch):
    """TensorFlow's CTC kernel for CPUs, whose blank is the last token, in place of the one for GPUs."""

    def kernel(inputs, labels_indices, labels_values, sequence_length):
        losses, gradient = tf.raw_ops.CTCLoss(
            inputs=tf.roll(inputs, -1, axis=2), labels_indices=labels_indices, labels_values=labels_values - 1,
            sequence_length=sequence_length,
        )  # fmt: skip
        return losses, tf.roll(gradient, 1, axis=2)

    monkeypatch.setattr(cudnn, "kernel", kernel)
    function.cache_clear()
    yield
    function.cache_clear()


@pytest.mark.parametrize("blank_id", [0, 2])
@pytest.mark.parametrize("backend", OURS[1:])
def test_every_kind_of_row_is_as_exact_as_float64_and_padding_counts_for_nothing(backend, blank_id):
    for scale in (0.1, 1.0, 10.0, 100.0):
        logits, frames, labels, lengths = example(scale, blank_id)
        losses, gradient = run(backend, logits, frames, labels, lengths, blank_id=blank_id)
        for row in range(8):
            assert not gradient[row, frames[row] :].any()
            if row in (INFEASIBLE, NO_FRAMES):
                assert losses[row] == 0.0 and not gradient[row].any()
                continue
            found = losses[row], gradient[row, : frames[row]]
            check_row(logits[row, : frames[row]], labels[row, : lengths[row]], *found, blank_id=blank_id)


@pytest.mark.parametrize("blank_id", [0, 2])
def test_cudnns_kernel_gets_rows_that_it_can_take_and_its_results_are_put_back(cpu_kernel, blank_id):
    """To 1e-4: TensorFlow's own precision at a scale of 1 (docs/results/0141)."""
    logits, frames, labels, lengths = example(1.0, blank_id)
    losses, gradient = run("cudnn", logits, frames, labels, lengths, blank_id=blank_id)
    wanted = run("scan", logits, frames, labels, lengths, blank_id=blank_id)
    np.testing.assert_allclose(losses, wanted[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted[1], rtol=0, atol=1e-4)
    assert losses[[INFEASIBLE, NO_FRAMES]].tolist() == [0.0, 0.0] and losses[EMPTY] > 10.0


def test_labels_that_cudnn_cannot_hold_are_computed_in_blocks(cpu_kernel, monkeypatch):
    monkeypatch.setattr(cudnn, "MAX_LABELS", NUM_LABELS - 1)
    logits, frames, labels, lengths = example(100.0)
    found, wanted = (run(backend, logits, frames, labels, lengths) for backend in ("cudnn", "blocks"))
    np.testing.assert_array_equal(found[0], wanted[0])  # where the kernel is off by a tenth
    np.testing.assert_array_equal(found[1], wanted[1])
    lengths = np.minimum(lengths, NUM_LABELS - 1)  # they fit, though their tensor is as wide as before
    kernels = []
    monkeypatch.setattr(
        cudnn, "kernel", lambda **fields: kernels.append(fields) or (fields["inputs"][0, :, 0], fields["inputs"])
    )
    function.cache_clear()
    run("cudnn", logits, frames, labels, lengths)
    assert kernels


@pytest.mark.parametrize("backend", [*OURS[1:], "cudnn"])
def test_logits_that_are_not_finite_show_in_their_own_row_alone(backend, cpu_kernel):
    logits, frames, labels, lengths = example(1.0)
    before = run(backend, logits, frames, labels, lengths)
    labels[ONE, 0] = 3
    logits[PLAIN, 5, 4] = np.nan
    logits[ONE, :, 3] = -np.inf  # the label's token: no path is left
    logits[SHORT, :, [token for token in range(1, 6) if token not in labels[SHORT, :3]]] = -np.inf
    losses, gradient = run(backend, logits, frames, labels, lengths)
    assert np.isnan(losses[PLAIN]) and losses[ONE] == np.inf
    others = [REPEATS, EMPTY, FULL]
    np.testing.assert_allclose(losses[others], before[0][others], rtol=1e-6)
    np.testing.assert_allclose(gradient[others], before[1][others], atol=1e-6)
    wanted, wanted_gradient = oracle(logits[SHORT, :7], labels[SHORT, :3])
    assert losses[SHORT] == pytest.approx(wanted, rel=1e-5)
    np.testing.assert_allclose(gradient[SHORT, :7], wanted_gradient, atol=1e-5)


@pytest.mark.parametrize("backend", ["xla", "blocks"])
def test_long_rows_are_as_exact(backend):
    rng = np.random.default_rng(1)
    logits = (3.0 * rng.normal(size=(1, 768, 32))).astype(np.float32)
    labels = rng.integers(1, 32, (1, 200)).astype(np.int32)
    losses, gradient = run(backend, logits, [768], labels, [200])
    check_row(logits[0], labels[0], losses[0], gradient[0])


def test_a_sure_and_right_model_has_an_exact_small_loss_in_blocks():
    labels = np.random.default_rng(0).integers(1, VOCAB_SIZE, (1, NUM_LABELS)).astype(np.int32)
    logits = np.random.default_rng(1).normal(size=(1, NUM_FRAMES, VOCAB_SIZE)).astype(np.float32)
    path = np.zeros(NUM_FRAMES, np.int64)
    path[: 3 * NUM_LABELS] = np.stack([labels[0], labels[0], 0 * labels[0]], axis=1).ravel()
    for lead in (12.0, 20.0):
        sure = logits.copy()
        sure[0, np.arange(NUM_FRAMES), path] += lead
        losses, gradient = run("blocks", sure, [NUM_FRAMES], labels, [NUM_LABELS])
        check_row(sure[0], labels[0], losses[0], gradient[0])


def test_blocks_inside_a_compiled_step_are_the_same():
    rows = example(1.0)
    for found, wanted in zip(run("blocks", *rows, is_whole=True), run("blocks", *rows), strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("backend", ["host", "blocks"])
def test_on_two_replicas_each_computes_its_own_rows(backend, two_replicas):
    """Under tf.distribute, the host's operations are on the CPU whatever device the replica is on."""
    rows = [tf.constant(value) for value in example(1.0)]

    @tf.function(autograph=False)
    def step():
        def compute():
            replica = tf.distribute.get_replica_context().replica_id_in_sync_group
            logits, *more = (tf.gather(x, 4 * replica + tf.range(4)) for x in rows)
            with tf.GradientTape() as tape:
                tape.watch(logits)
                losses = ctc.ctc_loss(logits, *more, backend=backend)
            return losses, tape.gradient(losses, logits)

        return [two_replicas.experimental_local_results(x) for x in two_replicas.run(compute)]

    losses, gradient = (tf.concat(parts, axis=0).numpy() for parts in step())
    wanted = run("scan", *example(1.0))
    np.testing.assert_allclose(losses, wanted[0], rtol=1e-6)
    np.testing.assert_allclose(gradient, wanted[1], atol=1e-6)
    places = {op.device for _, op in operations(step.get_concrete_function()) if op.type.endswith("While")}
    assert backend != "host" or (places and all(place.endswith("CPU:0") for place in places))


def test_auto_goes_by_the_kind_of_device_and_an_unknown_name_is_refused(monkeypatch):
    rows = [tf.constant(value) for value in example(1.0)]
    for kind, backend in (("CPU", "scan"), ("GPU", "blocks"), ("TPU", "scan")):
        monkeypatch.setattr(ctc, "device_type", lambda kind=kind: kind)
        np.testing.assert_array_equal(ctc.ctc_loss(*rows), ctc.ctc_loss(*rows, backend=backend))
    with pytest.raises(ValueError, match="auto or one of scan, host, xla, blocks, cudnn, got 'dense'"):
        ctc.ctc_loss(*rows, backend="dense")


def test_the_kind_of_device_is_that_of_the_accelerator(monkeypatch):
    for kind in ("CPU", "GPU", "TPU"):
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda asked, kind=kind: [kind] * (asked == kind))
        assert devices.device_type() == kind and devices.on_cpu() == (kind == "CPU")
