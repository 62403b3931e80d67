"""The GPU kernels of attention: where they are called, and what can be shown of them without a GPU."""

from __future__ import annotations

import json
import re
import subprocess

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from benchmarks.reference import ROOT, environment_python
from common import gpu_capability
from common.whole_compilation import compile_whole
from models.ops.gpu_attention import attention as kernels
from models.ops.gpu_attention.programs import BACKWARD, FORWARD
from models.ops.keyed_random import UpdateRandom, _bits_of
from models.ops.operations import PLAIN, Operations
from models.wav2vec2.model import build_model
from tests.helpers.device_graph import operations

CUSTOM_CALL = "XlaCustomCallV2"
GPUS = ("one", "another")


@pytest.fixture
def gpu(monkeypatch):
    """Lets compiled functions be traced as on a GPU with the kernels; none of them can run."""
    monkeypatch.setattr(kernels, "_has_kernels", lambda: True)
    # Traces of other tests hold other calls.
    monkeypatch.setattr(kernels, "attention", tf.function(kernels.attention.python_function, autograph=False))


def trace_model(*, num_samples, precision="mixed_bfloat16", wrap=compile_whole, **fields):
    """Returns the operations of a training pass of two small layers with heads of 64 channels."""
    small = {"num_layers": 2, "hidden_size": 128, "num_heads": 2, "intermediate_size": 64, "fused_ops": "off", **fields}
    model = build_model(preset="tiny", vocab_size=8, precision=precision, **small)

    def compute(waveform, lengths):
        random = UpdateRandom(seed=0, update=tf.constant(0), row_ids=tf.range(2))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(waveform, lengths, training=True, random=random))
        return tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")

    specs = tf.TensorSpec([2, num_samples], tf.float32), tf.TensorSpec([2], tf.int32)
    return [op for _, op in operations(wrap(compute).get_concrete_function(*specs))]


def plain_calls(monkeypatch):
    calls, plain = [], Operations.attention
    monkeypatch.setattr(
        Operations, "attention", lambda self, *args, **more: calls.append(1) or plain(self, *args, **more)
    )
    return calls


@pytest.mark.parametrize("layer_drop", [0.0, 0.1])
def test_every_layer_of_a_compiled_step_calls_them_at_each_length(monkeypatch, gpu, layer_drop):
    calls = plain_calls(monkeypatch)
    for num_samples in (4000, 6000, 8000):
        found = trace_model(num_samples=num_samples, layer_drop=layer_drop)
        assert [op.type for op in found].count(CUSTOM_CALL) >= 2  # layers share a trace
    assert not calls


@pytest.mark.parametrize(
    "fields",
    [{"num_samples": None}, {"num_samples": 4000, "num_heads": 4}, {"num_samples": 4000, "precision": "float32"},
     {"num_samples": 4000, "wrap": tf.function}],
    ids=["unknown length", "heads of 32 channels", "float32", "not compiled"],
)  # fmt: skip
def test_everything_else_is_written_out(monkeypatch, gpu, fields):
    calls = plain_calls(monkeypatch)
    assert not [op for op in trace_model(**fields) if op.type == CUSTOM_CALL]
    assert len(calls) == 2


@pytest.mark.parametrize("rate", [0.0, 0.1])
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_a_call_fits_its_program(gpu, rate, dtype):
    random = UpdateRandom(seed=0, update=tf.constant(0), row_ids=tf.range(3))

    def compute(qkv):
        with tf.GradientTape() as tape:
            tape.watch(qkv)
            context = PLAIN.packed_attention(qkv, tf.zeros([3, 1, 1, 130]), random, rate=rate, stream=1)
        return tape.gradient(context, qkv)

    graph = compile_whole(compute).get_concrete_function(tf.TensorSpec([3, 130, 3, 2, 64], dtype))
    calls = {}
    for _, op in operations(graph):
        if op.type == CUSTOM_CALL:
            config = op.get_attr("backend_config").decode()
            calls[re.search(r'name = "(\w+)"', config)[1]] = op, config
    assert set(calls) == {FORWARD.kernel, BACKWARD.kernel}
    names = {tf.bfloat16: "bf16", tf.float16: "f16", tf.float32: "f32", tf.int32: "i32", tf.uint32: "i32"}
    for program in (FORWARD, BACKWARD):
        op, config = calls[program.kernel]
        # XLA passes pointers to the operands, then to the results.
        pointers = re.findall(r"%arg\d+: !tt\.ptr<(\w+)>", config.split("attributes")[0])
        assert pointers == [names[x.dtype] for x in (*op.inputs, *op.outputs)]
        assert f"grid_x = {-(-130 // program.block)} : i32, grid_y = 6 : i32" in config
        assert (("arith.shrui" in config) == (rate > 0)) and "loc(" not in config
        assert ("bf16" in config) == (dtype == tf.bfloat16)


def written_out(qkv, key_bias, *, rate, keys):
    """What the kernels compute, by the plain operations."""
    query, key, value = tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4]))
    logits = tf.cast(tf.matmul(query, key, transpose_b=True), tf.float32) / 8.0 + key_bias
    probs = kernels.dropped(tf.cast(tf.nn.softmax(logits), qkv.dtype), rate, keys)
    return tf.transpose(tf.matmul(probs, value), [0, 2, 1, 3])


@tf.custom_gradient
def without_gradient(x):
    return x, lambda upstream: upstream * np.nan


def test_a_trial_tells_right_from_wrong(monkeypatch):
    wrong = {
        "right": lambda qkv, key_bias, rate, keys: written_out(qkv, key_bias, rate=rate, keys=keys),
        "other numbers": lambda qkv, key_bias, rate, keys: written_out(qkv, key_bias, rate=rate, keys=keys + 1),
        "no mask": lambda qkv, key_bias, rate, keys: written_out(qkv, 0.0, rate=rate, keys=keys),
        "no number": lambda qkv, key_bias, rate, keys: written_out(qkv, np.nan, rate=rate, keys=keys),
        "no gradient": lambda qkv, key_bias, rate, keys: without_gradient(
            written_out(qkv, key_bias, rate=rate, keys=keys)
        ),
    }
    found = {}
    monkeypatch.setattr(kernels, "gpus_run_triton", lambda: True)
    for name, function in wrong.items():
        monkeypatch.setattr(kernels, "attention", tf.function(function, autograph=False))
        found[name] = kernels._has_kernels.__wrapped__()
    assert found == {name: name == "right" for name in wrong}


def emulated(program, operands, results, *, drops):
    """Computes what a kernel writes, from what it reads, by TensorFlow's operations."""
    qkv, key_bias, keys, sizes, factors, *more = operands
    query, key, value = (tf.cast(x, tf.float32) for x in tf.unstack(tf.transpose(qkv, [2, 0, 3, 1, 4])))
    logits = tf.matmul(query, key, transpose_b=True) * factors[1] + key_bias[:, tf.newaxis, tf.newaxis]
    lse = tf.reduce_logsumexp(logits, axis=-1)
    is_kept = kernels_bits(keys, sizes) if drops else tf.ones_like(logits, tf.bool)
    if program is FORWARD:
        context = tf.matmul(tf.where(is_kept, tf.nn.softmax(logits), 0.0), value) * factors[2]
        return [tf.cast(tf.transpose(context, [0, 2, 1, 3]), qkv.dtype), lse / np.log(2.0)]
    lse, along, upstream = more
    probs = tf.exp(logits - lse[..., tf.newaxis] * np.log(2.0))
    upstream = tf.cast(tf.transpose(upstream, [0, 2, 1, 3]), tf.float32) * (factors[2] if drops else 1.0)
    to_probs = tf.where(is_kept, tf.matmul(upstream, value, transpose_b=True), 0.0)
    to_logits = probs * (to_probs - along[..., tf.newaxis] * (factors[2] if drops else 1.0)) * factors[1]
    to_value = tf.matmul(tf.where(is_kept, probs, 0.0), upstream, transpose_a=True)
    parts = tf.matmul(to_logits, key), tf.matmul(to_logits, query, transpose_a=True), to_value
    return [tf.cast(tf.transpose(tf.stack(parts), [1, 3, 0, 2, 4]), qkv.dtype)]


def kernels_bits(keys, sizes):
    return _bits_of(keys, keys.shape[-1]) >= tf.bitcast(sizes[2], tf.uint32)


OTHER_MODELS = (
    {"attention_dropout": 0.7},
    {"gradient_checkpointing": True},
    {"lora_rank": 2},
    {"stable_layer_norm": True},
)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"layer_drop": 0.5},
        *(pytest.param(fields, marks=pytest.mark.slow) for fields in OTHER_MODELS),
    ],
    ids=lambda fields: next(iter(fields), "base"),
)
def test_a_model_trains_as_without_them(monkeypatch, request, fields):
    waveform = tf.constant(np.random.default_rng(0).normal(size=[2, 6000]), tf.float32)
    calls = []

    def gradients():
        tf_keras.utils.set_random_seed(0)
        small = {"num_layers": 2, "hidden_size": 128, "num_heads": 2, "intermediate_size": 64, "fused_ops": "off"}
        more = {"attention_dropout": 0.2, "layer_drop": 0.0, **fields}
        model = build_model(preset="tiny", vocab_size=8, precision="mixed_bfloat16", **small, **more)

        def compute():
            random = UpdateRandom(seed=0, update=tf.constant(0), row_ids=tf.constant([3, 5]))
            with tf.GradientTape() as tape:
                logits = model(waveform, tf.constant([6000, 4000]), training=True, random=random)
                loss = tf.reduce_sum(tf.square(tf.cast(logits, tf.float32)))
            return [loss, *tape.gradient(loss, model.trainable_variables, unconnected_gradients="zero")]

        return [x.numpy().astype(np.float32) for x in compile_whole(compute)()]

    wanted = gradients()
    request.getfixturevalue("gpu")
    monkeypatch.setattr(kernels, "_run", lambda *args, **more: calls.append(1) or emulated(*args, **more))
    found = gradients()
    assert calls
    for ours, theirs in zip(found, wanted, strict=True):
        assert np.linalg.norm(ours - theirs) <= 0.03 * np.linalg.norm(theirs) + 1e-4


def test_a_compiler_without_them_costs_one_line(monkeypatch, caplog):
    monkeypatch.setattr(kernels, "gpus_run_triton", lambda: True)
    assert not kernels._has_kernels.__wrapped__()  # a CPU's compiler knows no such call
    assert "attention's GPU kernels fail a trial, so compiled steps do without them" in caplog.text


def test_old_gpus_are_not_asked(monkeypatch):
    assert not gpu_capability.gpus_run_triton()  # there is none
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: list(GPUS))
    for capabilities, expected in ((((8, 0), (9, 0)), True), (((9, 0), (7, 5)), False), (((9, 0), None), False)):
        found = {
            gpu: {"compute_capability": each} if each else {} for gpu, each in zip(GPUS, capabilities, strict=True)
        }
        monkeypatch.setattr(tf.config.experimental, "get_device_details", found.get)
        assert gpu_capability.gpus_run_triton() == expected


@pytest.mark.skipif(not tf.config.list_physical_devices("GPU"), reason="runs on a GPU alone")
def test_a_gpu_passes_the_trial():
    assert kernels._error_of_trial() < 0.02


@pytest.mark.slow
def test_interpreted_they_equal_attention_in_float64():
    command = [environment_python("kernels"), "-m", "tests.golden.interpret_attention"]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    cases = json.loads(done.stdout)
    assert len(cases) == 12
    for case in cases:
        assert max(case["errors"]) < 2e-3, case  # float16 rounds by 5e-4; gradients over three frames nearly cancel


@pytest.mark.slow
def test_the_programs_are_those_of_the_source():
    code = "from models.ops.gpu_attention import generate; print(generate.differing_files())"
    done = subprocess.run(
        [environment_python("kernels"), "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
