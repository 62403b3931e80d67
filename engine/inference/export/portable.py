"""Converts a model to TFLite and ONNX: from one waveform to its logits, without text.

These formats have no strings without TensorFlow's own kernels. So the converted graph is the acoustic model, with
normalization if the model needs it: waveform [1, T] float32 at 16 kHz, any T of at least one frame -> logits [1, F, V].
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from engine.protocols import AcousticModel

# Name of each format's file.
FILES = {
    "tflite_float32": "model-float32.tflite",
    "tflite_float16": "model-float16.tflite",  # weights in half precision, arithmetic in single
    "tflite_dynamic": "model-dynamic.tflite",  # weights in 8 bits, activations as they come
    "onnx": "model.onnx",
}
WAVEFORM = tf.TensorSpec([1, None], tf.float32, name="waveform")
_BYTES_PER_WEIGHT = {"tflite_float32": 4, "tflite_float16": 2, "tflite_dynamic": 1, "onnx": 4}
_LARGEST_FILE = 2**31  # bytes; the limit of flatbuffers and protocol buffers
_ROOT = os.fspath(Path(__file__).resolve().parents[3])  # the folder of `engine`


def check_formats(formats: Sequence[str]) -> None:
    """Checks that formats exist and that their packages are installed.

    Raises:
        ValueError: A format cannot be used; names the first.
    """
    for name in formats:
        if name not in FILES:
            raise ValueError(f"--export_formats={name}: no such format; choose among {', '.join(FILES)}")
        try:
            if name == "onnx":
                import onnxruntime
                import tf2onnx

                del onnxruntime, tf2onnx
            else:
                import ai_edge_litert.interpreter  # noqa: F401
        except ImportError as error:
            extra = "onnx" if name == "onnx" else "tflite"
            raise ValueError(
                f"--export_formats={name}: needs {error.name}, which is not installed: pip install -e '.[{extra}]'"
            ) from error


def build_portable(model: AcousticModel, *, normalize: bool = True) -> tf.Module:
    """Wraps a float32 model into a module whose `logits` takes waveform [1, T] and returns {"logits": [1, F, V]}.

    Args:
        model: Model with its weights.
        normalize: Whether the row is normalized to zero mean and unit variance before the model.
    """

    def logits(waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        if normalize:  # one row without padding needs neither lengths nor float64
            centred = waveform - tf.reduce_mean(waveform, axis=1, keepdims=True)
            variance = tf.reduce_mean(tf.square(centred), axis=1, keepdims=True)
            waveform = centred * tf.math.rsqrt(variance + 1e-7)
        return {"logits": tf.cast(model(waveform, tf.shape(waveform)[1:], training=False), tf.float32)}

    module = tf.Module()
    module.weights = list(model.variables)
    module.logits = tf.function(logits, input_signature=[WAVEFORM], autograph=False)
    return module


def save_portable(module: tf.Module, folder: Path) -> None:
    """Writes the result of `build_portable` as a SavedModel, which `convert` reads."""
    tf.saved_model.save(module, os.fspath(folder), signatures={"serving_default": module.logits})


def check_sizes(formats: Sequence[str], *, num_weights: int) -> None:
    """Checks that formats can hold a number of weights.

    Raises:
        ValueError: A format cannot; names the first.
    """
    for name in formats:
        num_bytes = num_weights * _BYTES_PER_WEIGHT[name]
        if num_bytes >= _LARGEST_FILE:
            raise ValueError(
                f"--export_formats={name}: the weights take {num_bytes / 1e9:.1f} GB, but such a file holds 2 GB at "
                "most; leave it out"
            )


def convert(folder: Path, name: str, output: Path) -> None:
    """Converts the result of `save_portable` in a separate process.

    The converters need several times the model's memory and do not free all of it: four formats of a large model in one
    process needed more than 22 GiB. A converter that crashes or runs out of memory must not end the export.

    Args:
        folder: Folder written by `save_portable`.
        name: One of `FILES`.
        output: File to write.

    Raises:
        ValueError: The model does not convert.
    """
    folders = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    # This process already holds the GPU's memory.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders), "CUDA_VISIBLE_DEVICES": "-1"}
    command = [
        sys.executable,
        "-m",
        "engine.inference.export.portable_converter",
        os.fspath(folder),
        name,
        os.fspath(output),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace")
    if done.returncode == 0 and output.is_file():
        return
    if done.returncode < 0:
        reason = f"the converter was ended by {signal.Signals(-done.returncode).name}"
        if done.returncode == -signal.SIGKILL:
            reason += ": most likely the machine has too little memory"
    else:
        reason = (done.stdout.strip().splitlines() or [f"the converter ended with {done.returncode}"])[-1][:200]
    raise ValueError(
        f"the model does not convert to {name} ({reason}); leave it out of --export_formats, nothing was written"
    )


def load_portable(path: Path, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a converted model as a function: waveform float32 [T] -> logits float32 [F, V].

    Args:
        path: Path of the file.
        name: One of `FILES`.
    """
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
        return lambda waveform: session.run(["logits"], {"waveform": waveform[np.newaxis]})[0][0]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=os.fspath(path), num_threads=os.cpu_count())
    waveform_index = interpreter.get_input_details()[0]["index"]
    logits_index = interpreter.get_output_details()[0]["index"]

    def run(waveform: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(waveform_index, [1, len(waveform)])
        interpreter.allocate_tensors()
        interpreter.set_tensor(waveform_index, waveform[np.newaxis])
        interpreter.invoke()
        return interpreter.get_tensor(logits_index)[0]

    return run
