"""Makes environments for other packages, such as PyTorch and transformers, once in the temporary folder."""

from __future__ import annotations

import configparser
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def reference_python() -> Path:
    """Returns the interpreter of the reference's environment, see `environment_python`."""
    return environment_python("reference", "safetensors", "numpy")


def environment_python(extra: str, *more: str) -> Path:
    """Returns the interpreter of an environment, installing it (2 to 5 GB) if it is absent.

    Args:
        extra: Name of the extra in setup.cfg whose packages it has.
        *more: Further packages.

    Raises:
        OSError: If it cannot be installed; names the step that failed.
    """
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    packages = [*setup["options.extras_require"][extra].split(), *more]
    key = hashlib.sha256(repr((packages, sys.version_info)).encode()).hexdigest()[:12]
    environment = Path(tempfile.gettempdir()) / f"earshot-reference-{key}"
    python, done = environment / "bin" / "python", environment / ".installed"
    if not done.is_file():
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-compile", *packages], check=True)
        except subprocess.CalledProcessError as error:
            raise OSError(
                f"the environment {environment} of {extra} cannot be made: {error}; look at the message above, "
                "check the network and the free disk space (5 GB)"
            ) from error
        done.touch()
    return python
