"""Checks that the packages of an extra are installed, without importing them."""

from __future__ import annotations

import importlib.util
import sys

# What the user asks for -> the extra to install and its packages.
EXTRAS = {
    "--mode=serve": ("serve", ("tornado",)),
    "format=arrow": ("parquet", ("pyarrow",)),
    "format=parquet": ("parquet", ("pyarrow",)),
    "decode.method=lexicon": ("lm", ("flashlight",)),
    "--export_formats=tflite": ("tflite", ("ai_edge_litert",)),
    "--export_formats=onnx": ("onnx", ("onnx", "onnxruntime", "tf2onnx")),
}


def check_extra(asked: str) -> None:
    """Checks that the packages of an extra are installed.

    Args:
        asked: What the user asks for, such as "--mode=serve".

    Raises:
        ValueError: Names the first missing package, and the extra to install.
    """
    extra, packages = EXTRAS[asked]
    for package in packages:
        if not is_installed(package):
            no_wheel = package == "flashlight" and sys.version_info >= (3, 13)
            reason = " with Python 3.11 or 3.12; for 3.13 there is no wheel yet" if no_wheel else ""
            raise ValueError(f"{asked} needs {package}, which is not installed: pip install -e '.[{extra}]'{reason}")


def is_installed(package: str) -> bool:
    """Tells whether a package can be found, without importing it."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False
