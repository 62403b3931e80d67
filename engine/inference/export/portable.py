"""A recognizer for phones and for ONNX: from one waveform to its logits; the text is made outside.

Strings do not go into these formats without TensorFlow's own kernels, so what converts is the acoustic model, with the
normalization before it where the model has one: waveform [1, T] float32 at 16 kHz, any T of at least one frame ->
logits [1, F, V].
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

# File of each format.
FILES = {
    "tflite_float32": "model-float32.tflite",
    "tflite_float16": "model-float16.tflite",  # weights in half precision, arithmetic in single
    "tflite_dynamic": "model-dynamic.tflite",  # weights in 8 bits, activations as they come
    "onnx": "model.onnx",
}
WAVEFORM = tf.TensorSpec([1, None], tf.float32, name="waveform")
_BYTES_PER_WEIGHT = {"tflite_float32": 4, "tflite_float16": 2, "tflite_dynamic": 1, "onnx": 4}
_LARGEST_FILE = 2**31  # bytes: of a flatbuffer and of a protocol buffer
_ROOT = os.fspath(Path(__file__).resolve().parents[3])  # where `engine` is found


def check_formats(formats: Sequence[str]) -> None:
    """Refuses names that are none, and formats whose packages are not there; before anything is computed.

    Raises:
        ValueError: Names the first.
    """
    for name in formats:
        if name not in FILES:
            raise ValueError(f"--export_formats={name}: no such format; there are {', '.join(FILES)}")
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
        model: With its weights.
        normalize: Whether the row gets zero mean and unit variance first, or the model hears it as it is.
    """

    def logits(waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        if normalize:  # one row without padding: neither lengths nor float64 are needed
            centred = waveform - tf.reduce_mean(waveform, axis=1, keepdims=True)
            variance = tf.reduce_mean(tf.square(centred), axis=1, keepdims=True)
            waveform = centred * tf.math.rsqrt(variance + 1e-7)
        return {"logits": tf.cast(model(waveform, tf.shape(waveform)[1:], training=False), tf.float32)}

    module = tf.Module()
    module.weights = list(model.variables)
    module.logits = tf.function(logits, input_signature=[WAVEFORM], autograph=False)
    return module


def save_portable(module: tf.Module, folder: Path) -> None:
    """Writes what `build_portable` made as a SavedModel, from which `convert` reads it."""
    tf.saved_model.save(module, os.fspath(folder), signatures={"serving_default": module.logits})


def check_sizes(formats: Sequence[str], *, num_weights: int) -> None:
    """Refuses formats that cannot hold so many weights, before anything is converted.

    Raises:
        ValueError: Names the first.
    """
    for name in formats:
        num_bytes = num_weights * _BYTES_PER_WEIGHT[name]
        if num_bytes >= _LARGEST_FILE:
            raise ValueError(
                f"--export_formats={name}: {num_bytes / 1e9:.1f} GB of weights, and such a file holds 2 GB at most; "
                "leave it out"
            )


def convert(folder: Path, name: str, output: Path) -> None:
    """Converts what `save_portable` wrote, in a process of its own.

    The converters keep several times the model in memory and do not give all of it back: four formats of a large model
    in one process needed more than 22 GiB. And what ends one of them, a lack of memory or a fault of its own, must not
    take the export along.

    Args:
        folder: As there.
        name: One of `FILES`.
        output: File to write.

    Raises:
        ValueError: It does not convert.
    """
    folders = [_ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    # A GPU's memory belongs to this process already.
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
        path: The file.
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
