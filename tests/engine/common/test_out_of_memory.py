"""Memory that is used up, in the words of the libraries that report it, and what the one line about it says."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine import experiment
from engine.checkpointing import manifest
from engine.common.out_of_memory import OutOfMemoryError, describe, explained_out_of_memory, is_out_of_memory
from tests.helpers.engine_toys import toy_loss
from tests.helpers.experiment_toys import make_config, make_parts, reproducible_lines

EXHAUSTED, INTERNAL = tf.errors.ResourceExhaustedError, tf.errors.InternalError


def error_of(kind, text):
    return kind(None, None, text)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            error_of(
                EXHAUSTED,
                "{{function_node f}} OOM when allocating tensor with shape[16,12,768,768] and type float on "
                "/job:localhost/replica:0/task:0/device:GPU:1 by allocator GPU_1_bfc [Op:f]",
            ),
            "out of memory on GPU 1 (a tensor of shape [16,12,768,768] did not fit)",
        ),
        (
            error_of(EXHAUSTED, "OOM when allocating tensor with shape[8] on /device:CPU:0 by allocator mklcpu"),
            "out of memory on this machine (a tensor of shape [8] did not fit)",
        ),
        (
            error_of(EXHAUSTED, "Out of memory while trying to allocate 1100585369600 bytes. [Op:__inference_g_40]"),
            "out of memory on this machine (1100585369600 bytes did not fit)",
        ),
        (
            error_of(INTERNAL, "Failed copying input tensor from CPU:0 to GPU:0: Dst tensor is not initialized."),
            "out of memory on GPU 0",
        ),
        (error_of(INTERNAL, "cudaSetDevice() failed: CUDA_ERROR_OUT_OF_MEMORY: out of memory"), "out of memory on the"),
        (error_of(INTERNAL, "cublas error: CUBLAS_STATUS_ALLOC_FAILED"), "out of memory on the GPU"),
        (
            MemoryError("Unable to allocate 512. TiB for an array"),
            "out of memory on this machine (512. TiB did not fit",
        ),
        (RuntimeError("std::bad_alloc"), "out of memory on this machine"),
    ],
)
def test_every_allocators_words_become_one_line(error, line):
    assert is_out_of_memory(error)
    assert describe(error).startswith(line)
    with pytest.raises(OutOfMemoryError, match="; lower it$") as caught, explained_out_of_memory(lambda _: "lower it"):
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        error_of(EXHAUSTED, "runs/a/part-0; No space left on device"),
        error_of(EXHAUSTED, "Too many open files"),
        error_of(INTERNAL, "cuLaunchKernel failed with CUDA_ERROR_INVALID_HANDLE"),
        RuntimeError("out of range"),
        ValueError("out of memory"),
    ],
)
def test_other_errors_stay_what_they_are(error):
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, explained_out_of_memory(lambda _: "lower it"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    "use_up",
    [
        # TensorFlow tries again for ten seconds.
        pytest.param(lambda: tf.zeros([2**46]), marks=pytest.mark.slow),
        pytest.param(
            tf.function(lambda: tf.reduce_sum(tf.sort(tf.ones([2**19, 2**19]))), jit_compile=True, autograph=False),
            marks=pytest.mark.slow,
        ),
        lambda: np.zeros([2**46]),
        lambda: list(tf.data.Dataset.range(1).map(lambda i: tf.numpy_function(lambda _: np.zeros(2**46), [i], float))),
    ],
    ids=["operation", "compiled", "numpy", "input pipeline"],
)
def test_what_the_libraries_raise_here_is_known(use_up):
    wanted = pytest.raises(OutOfMemoryError, match="^out of memory on this machine .*; lower it")
    with wanted, explained_out_of_memory(lambda _: "lower it"):
        use_up()


def test_a_training_that_runs_out_of_memory_continues_with_the_same_command(tmp_path):
    is_greedy = tf.Variable(False)

    def greedy_loss(*arguments):
        size = tf.where(is_greedy, tf.constant(2**46, tf.int64), 1)
        return toy_loss(*arguments) + 0.0 * tf.zeros([size])[0]

    class TurnsGreedy:
        """Asks for too much after the save of update 2."""

        requested, exit_status, within_secs, note, rescue, rescue_secs = False, 0, 0.0, None, None, None

        def __call__(self, output=None):
            if manifest.list_checkpoints(tmp_path / "run/checkpoints"):
                is_greedy.assign(True)

        def defer(self, **fields):
            """Nothing to defer."""

    def train(workdir, **fields):
        config = make_config(tmp_path)
        config.checkpoint.background = False
        with explained_out_of_memory(lambda evaluates: f"evaluating: {evaluates}"):
            return experiment.run(
                config=config, parts=make_parts(loss_fn=greedy_loss), workdir=str(workdir), mode="train",
                strategy_name="one_device", **fields,
            )  # fmt: skip

    with pytest.raises(OutOfMemoryError, match="^out of memory on this machine.*; evaluating: False$"):
        train(tmp_path / "run", stop=TurnsGreedy())
    paths = manifest.list_checkpoints(tmp_path / "run/checkpoints")
    assert paths and all(manifest.find_damage(path) is None for path in paths)
    is_greedy.assign(False)
    for workdir in ("run", "straight"):
        assert train(tmp_path / workdir).exit_status == 0
    assert reproducible_lines(tmp_path / "run") == reproducible_lines(tmp_path / "straight")
