"""One conversion, as the process that `engine.inference.portable.convert` starts: FOLDER NAME OUTPUT.

Its last line on standard output is the reason where it fails.
"""

from __future__ import annotations

import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

_OPSET = 17


def convert(folder: str, name: str) -> bytes:
    """Returns the content of a converted model's file.

    Args:
        folder: As `engine.inference.portable.save_portable` wrote it.
        name: One of `engine.inference.portable.FILES`.
    """
    if name == "onnx":
        import tf2onnx

        loaded = tf.saved_model.load(folder)  # kept: its variables live as long as it does
        signature = [tf.TensorSpec([1, None], tf.float32, name="waveform")]
        proto, _ = tf2onnx.convert.from_function(
            loaded.logits, input_signature=signature, opset=_OPSET, custom_op_handlers={"Erfc": (_erfc, [])}
        )
        return proto.SerializeToString()
    converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=["serving_default"])
    if name != "tflite_float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if name == "tflite_float16":
        converter.target_spec.supported_types = [tf.float16]
    return converter.convert()


def _erfc(ctx: Any, node: Any, name: str, args: Any) -> Any:
    """erfc(x) as 1 - erf(x): TensorFlow's GELU has the one, ONNX but the other."""
    erf = ctx.make_node("Erf", [node.input[0]])
    one = ctx.make_const(f"{name}_one", np.float32(1))
    node.type, node.domain = "Sub", ""
    ctx.replace_inputs(node, [one.output[0], erf.output[0]])
    return node


def main(folder: str, name: str, output: str) -> int:
    """Writes the file and returns 0; or says why not and returns 1."""
    try:
        Path(output).write_bytes(convert(folder, name))
    # Converters raise what they like.
    except Exception as error:
        print((str(error).strip().splitlines() or [type(error).__name__])[0])
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
