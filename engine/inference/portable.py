"""A recognizer for phones and for ONNX: from one waveform to its logits; the text is made outside.

Strings do not go into these formats without TensorFlow's own kernels, so what converts is the acoustic model with the
normalization before it: waveform [1, T] float32 at 16 kHz, any T of at least one frame -> logits [1, F, V].
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

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
_OPSET = 17


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


def build_portable(model: AcousticModel) -> tf.Module:
    """Wraps a float32 model into a module whose `logits` takes waveform [1, T] and returns {"logits": [1, F, V]}."""

    def logits(waveform: tf.Tensor) -> dict[str, tf.Tensor]:
        # One row without padding: neither lengths nor float64 are needed.
        centred = waveform - tf.reduce_mean(waveform, axis=1, keepdims=True)
        variance = tf.reduce_mean(tf.square(centred), axis=1, keepdims=True)
        normalized = centred * tf.math.rsqrt(variance + 1e-7)
        return {"logits": tf.cast(model(normalized, tf.shape(waveform)[1:], training=False), tf.float32)}

    module = tf.Module()
    module.weights = list(model.variables)
    signature = [tf.TensorSpec([1, None], tf.float32, name="waveform")]
    module.logits = tf.function(logits, input_signature=signature, autograph=False)
    return module


def convert(module: tf.Module, name: str) -> bytes:
    """Converts what `build_portable` made.

    Args:
        module: As there.
        name: One of `FILES`.

    Returns:
        The file's content.

    Raises:
        ValueError: It does not convert.
    """
    try:
        return _to_onnx(module) if name == "onnx" else _to_tflite(module, name)
    # Converters raise what they like.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ValueError(
            f"the model does not convert to {name} ({reason}); leave it out of --export_formats, nothing was written"
        ) from error


def _to_tflite(module: tf.Module, name: str) -> bytes:
    converter = tf.lite.TFLiteConverter.from_concrete_functions([module.logits.get_concrete_function()], module)
    if name != "tflite_float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "tflite_float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _to_onnx(module: tf.Module) -> bytes:
    import tf2onnx

    signature = module.logits.input_signature
    proto, _ = tf2onnx.convert.from_function(
        module.logits, input_signature=signature, opset=_OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
    )
    return proto.SerializeToString()


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> Any:
    """erfc(x) as 1 - erf(x): TensorFlow's GELU has the one, ONNX but the other."""
    erf = ctx.make_node("Erf", [node.input[0]])
    one = ctx.make_const(f"{name}_one", np.float32(1))
    node.type, node.domain = "Sub", ""
    ctx.replace_inputs(node, [one.output[0], erf.output[0]])
    return node


def load_portable(content: bytes, name: str) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a converted model as a function: waveform float32 [T] -> logits float32 [F, V].

    Args:
        content: Of the file.
        name: One of `FILES`.
    """
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return lambda waveform: session.run(["logits"], {"waveform": waveform[np.newaxis]})[0][0]
    from ai_edge_litert.interpreter import Interpreter

    # From a file: it is mapped, not copied.
    with tempfile.NamedTemporaryFile(prefix="earshot-", suffix=".tflite") as file:
        file.write(content)
        file.flush()
        interpreter = Interpreter(model_path=file.name, num_threads=os.cpu_count())
    waveform_index = interpreter.get_input_details()[0]["index"]
    logits_index = interpreter.get_output_details()[0]["index"]

    def run(waveform: np.ndarray) -> np.ndarray:
        interpreter.resize_tensor_input(waveform_index, [1, len(waveform)])
        interpreter.allocate_tensors()
        interpreter.set_tensor(waveform_index, waveform[np.newaxis])
        interpreter.invoke()
        return interpreter.get_tensor(logits_index)[0]

    return run
