"""Who may import whom: the table of the design, checked over the syntax tree of every file."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
OURS = ("benchmarks", "common", "configs", "data", "engine", "models", "run", "tests")

# What a part of the project may import of the project; a dotted name stands for that module alone.
ALLOWED = {
    "configs": ("configs.base",),
    "common": ("common",),
    "data": ("common", "data"),
    "models": ("common", "models"),
    "engine": ("common", "engine"),
    "run": ("common", "configs", "data", "engine", "models"),
    "benchmarks": ("benchmarks", "common", "configs", "data", "engine", "models"),
    "tests": OURS,
}

# The home of every third-party package: folders and files that may import it (tests always may).
_CODE = ("benchmarks", "data", "engine", "models", "run")
_SHARED = (*_CODE, "common")
HOMES = {
    "absl": _SHARED,
    "ai_edge_litert": ("engine/inference/portable.py",),
    "apache_beam": ("data/beam_runner.py",),
    "espeakng_loader": ("data/espeak.py",),
    "flashlight": ("models/lm_beam.py",),
    "huggingface_hub": ("models/named_weights.py",),
    "jinja2": ("data", "engine"),
    "jiwer": ("benchmarks", "engine"),
    "kagglehub": ("models/named_weights.py",),
    "matplotlib": ("benchmarks",),
    # In engine: the files between a config and the explicit arguments of everything below (docs/decisions/0034).
    "ml_collections": (
        "configs", "engine/checks.py", "engine/config_file.py", "engine/doctor.py", "engine/experiment.py",
        "engine/startup.py", "engine/tune_lm.py", "engine/unpack.py", "engine/verify_resume.py", "run",
    ),
    "ml_dtypes": ("models/torch_files.py",),
    "numpy": _CODE,
    "onnx": ("engine/inference/portable_converter.py",),
    "onnxruntime": ("engine/inference/portable.py",),
    "orbit": ("engine",),
    "psutil": ("benchmarks",),
    "safetensors": ("models/convert.py",),
    "scipy": ("engine/report/statistics.py",),
    "soundfile": ("benchmarks", "data"),
    "soxr": ("data",),
    "tensorflow": _SHARED,
    "tensorflow_hub": ("models/hub.py",),
    "tf2onnx": ("engine/inference/portable.py", "engine/inference/portable_converter.py"),
    "tf_keras": ("benchmarks", "engine", "models", "run"),
    "tornado": ("engine/inference/http_server.py", "engine/inference/uploads.py"),
    "torch": ("benchmarks/reference_worker.py", "models/convert.py"),
    "transformers": ("benchmarks/reference_worker.py",),
    "tqdm": ("benchmarks", "data", "engine", "models"),
}
# Names on PyPI where they differ from the import.
REQUIREMENTS = {
    "absl": "absl-py",
    "ai_edge_litert": "ai-edge-litert",
    "apache_beam": "apache-beam",
    "espeakng_loader": "espeakng-loader",
    "flashlight": "flashlight-text",
    "ml_collections": "ml-collections",
    "orbit": "tf-models-official",
    "tensorflow_hub": "tensorflow-hub",
    "xdist": "pytest-xdist",
}


def imported_names(path: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of every import, wherever it stands; `from a import b` is a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:
                base = Path(path).parent.parts
                base = base[: len(base) - (node.level - 1)]
                module = ".".join([*base, module] if module else base)
            for alias in node.names:
                yield node.lineno, f"{module}.{alias.name}"


def is_inside(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def tensorflow_aliases(tree: ast.AST) -> set[str]:
    """Names that stand for TensorFlow or a part of it, such as tf."""
    aliases = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if is_inside(alias.name, "tensorflow"):
                    aliases.add(alias.asname or "tensorflow")
        elif isinstance(node, ast.ImportFrom) and is_inside(node.module or "", "tensorflow"):
            aliases.update(alias.asname or alias.name for alias in node.names)
    return aliases


def root_name(node: ast.expr) -> str:
    """`tf` for tf.compat.v2.keras; empty if the chain does not begin with a name."""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def find_violations(path: str, source: str) -> list[str]:
    """What a file does against the rules.

    Args:
        path: relative to the root, with slashes; decides which rules hold.
        source: its text.

    Returns:
        Lines "path:line: what is wrong", in the order of the lines.
    """
    tree = ast.parse(source)
    part = path.split("/")[0].removesuffix(".py")
    found: list[tuple[int, str]] = []
    for line, name in imported_names(path, tree):
        package = name.split(".")[0]
        if package in OURS:
            if not any(is_inside(name, allowed) for allowed in ALLOWED[part]):
                found.append((line, f"{part} may not import {name}"))
        elif package == "keras" or is_inside(name, "tensorflow.keras"):
            found.append((line, f"imports {name}, which is Keras 3; import tf_keras"))
        elif package not in sys.stdlib_module_names and part != "tests":
            if package not in HOMES:
                found.append((line, f"{package} has no home; give it one in tests/test_imports.py"))
            elif not any(path == home or part == home for home in HOMES[package]):
                found.append((line, f"{package} belongs in {', '.join(HOMES[package])} alone"))
        if part == "configs" and package not in (*OURS, *HOMES, *sys.stdlib_module_names):
            found.append((line, f"a config may import ml_collections and configs.base, not {name}"))
        if name in ("importlib.import_module", "importlib.util.spec_from_file_location"):
            found.append((line, "imports by a string; pass the object as an argument"))
    aliases = tensorflow_aliases(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            if node.attr == "keras" and root_name(node) in aliases:
                found.append((node.lineno, "tf.keras is Keras 3; use tf_keras"))
            elif node.attr in ("import_module", "spec_from_file_location"):
                found.append((node.lineno, "imports by a string; pass the object as an argument"))
        elif isinstance(node, ast.Name) and node.id == "__import__":
            found.append((node.lineno, "imports by a string; pass the object as an argument"))
    return [f"{path}:{line}: {what}" for line, what in sorted(found)]


def project_files() -> list[Path]:
    files = [path for part in OURS for path in (ROOT / part).rglob("*.py")]
    return sorted([*files, *ROOT.glob("*.py")])


def missing_tests(root: Path) -> list[str]:
    """Modules of data, models and engine without tests/<package>/test_<module>.py."""
    missing = []
    for part in ("common", "data", "models", "engine"):
        for path in sorted((root / part).rglob("*.py")):
            module = path.relative_to(root)
            test = Path("tests") / module.with_name(f"test_{module.name}")
            if module.name != "__init__.py" and not (root / test).is_file():
                missing.append(f"{module} has no {test}")
    return missing


def test_every_file_of_the_project_keeps_the_import_rules():
    files = project_files()
    assert ROOT / "data" / "errors.py" in files and Path(__file__).resolve() in files
    violations = [
        violation
        for path in files
        for violation in find_violations(
            path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        )
    ]
    assert violations == []


def test_every_module_has_its_test_file():
    assert missing_tests(ROOT) == []


def test_every_imported_package_is_declared_in_setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    lines = config["options"]["install_requires"].splitlines()
    for extra in config["options.extras_require"].values():
        lines += extra.splitlines()
    declared = {re.split(r"[\[<>=~!; ]", line.strip())[0] for line in lines}
    used = {
        name.split(".")[0]
        for path in project_files()
        for _, name in imported_names(
            path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8"))
        )
    }
    third_party = used - set(OURS) - set(sys.stdlib_module_names)
    assert {"numpy", "pytest"} <= third_party
    assert {REQUIREMENTS.get(name, name) for name in third_party} <= declared


@pytest.mark.parametrize(
    ("path", "source", "expected"),
    [
        ("configs/digits.py", "from data import text", "configs may not import data.text"),
        ("configs/digits.py", "import configs.debug", "configs may not import configs.debug"),
        ("configs/digits.py", "from configs import debug", "configs may not import configs.debug"),
        ("configs/digits.py", "import numpy", "numpy belongs in"),
        ("data/plan.py", "import models.ctc", "data may not import models.ctc"),
        ("data/plan.py", "from engine.metrics import rate", "data may not import engine.metrics"),
        ("data/plan.py", "def f():\n    from configs import base", "data/plan.py:2: data may not"),
        ("data/plan.py", "from ..engine import files", "data may not import engine.files"),
        ("data/plan.py", "import orbit", "orbit belongs in engine alone"),
        ("models/ctc.py", "from data.text import CharTokenizer", "models may not import data.text"),
        ("models/ctc.py", "from engine import files", "models may not import engine.files"),
        ("models/ctc.py", "from configs import base", "models may not import configs.base"),
        ("models/ctc.py", "from orbit import Controller", "orbit belongs in engine alone"),
        ("models/ctc.py", "import soundfile", "soundfile belongs in benchmarks, data alone"),
        ("models/ctc.py", "import tensorflow_hub as hub", "belongs in models/hub.py alone"),
        ("models/ctc.py", "import safetensors.numpy", "belongs in models/convert.py alone"),
        ("models/ctc.py", "import ml_collections", "ml_collections belongs in configs"),
        ("engine/trainer.py", "import data", "engine may not import data"),
        ("engine/trainer.py", "import models.ctc as ctc", "engine may not import models.ctc"),
        ("engine/trainer.py", "from configs.base import get_config", "may not import configs.base"),
        ("engine/trainer.py", "import run", "engine may not import run"),
        ("engine/trainer.py", "import ml_collections", "engine/verify_resume.py, run alone"),
        (
            "engine/trainer.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from models import ctc",
            "engine/trainer.py:3: engine may not import models.ctc",
        ),
        ("engine/inference/serve.py", "import soundfile", "soundfile belongs in"),
        ("engine/inference/serve.py", "from ...data import audio", "may not import data.audio"),
        ("benchmarks/step.py", "from run import main", "benchmarks may not import run.main"),
        ("run.py", "import benchmarks.step", "run may not import benchmarks.step"),
        ("run.py", "from tests.data import test_text", "run may not import tests.data.test_text"),
        ("run.py", "import orbit", "orbit belongs in engine alone"),
        ("data/text.py", "import torch", "torch belongs in benchmarks/reference_worker.py, models/convert.py alone"),
        ("data/text.py", "import transformers", "transformers belongs in benchmarks/reference_worker.py alone"),
        ("models/ctc.py", "import keras", "imports keras, which is Keras 3"),
        ("models/ctc.py", "from tensorflow import keras", "imports tensorflow.keras"),
        ("models/ctc.py", "import tensorflow.keras.layers as l", "imports tensorflow.keras.layers"),
        ("models/ctc.py", "import tensorflow as tf\ntf.keras.Model()", "ctc.py:2: tf.keras is"),
        ("models/ctc.py", "import tensorflow\ntensorflow.keras", "ctc.py:2: tf.keras is Keras 3"),
        ("models/ctc.py", "import tensorflow as t\nt.compat.v1.keras.x", "tf.keras is Keras 3"),
        ("models/ctc.py", "from tensorflow import compat as c\nc.v2.keras", "tf.keras is Keras 3"),
        ("tests/models/test_ctc.py", "import tensorflow as tf\ntf.keras", "tf.keras is Keras 3"),
        ("engine/files.py", "import importlib\nimportlib.import_module(x)", "imports by a string"),
        ("engine/files.py", "from importlib import import_module", "imports by a string"),
        ("engine/files.py", "__import__(name)", "imports by a string"),
    ],
)
def test_checker_finds(path, source, expected):
    violations = find_violations(path, source)
    assert len(violations) == 1
    assert expected in violations[0]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("configs/digits.py", "import os\nimport ml_collections\nfrom configs import base"),
        ("configs/digits.py", "from configs.base import get_config as base_config"),
        ("data/pipeline.py", "import tensorflow as tf\nimport numpy as np\nfrom data import plan"),
        ("data/audio.py", "import soundfile\nimport soxr\nfrom . import errors"),
        ("models/wav2vec2.py", "import tf_keras\ntf_keras.Model\nfrom models import ctc"),
        ("models/hub.py", "import tensorflow_hub as hub"),
        ("models/convert.py", "from safetensors.numpy import load_file"),
        ("engine/experiment.py", "import ml_collections\nimport orbit\nimport jiwer"),
        ("engine/inference/serve.py", "from engine.files import x\nfrom .. import files"),
        ("engine/workdir.py", "import importlib.metadata\nimportlib.metadata.version('x')"),
        ("run.py", "from data import text\nfrom models import ctc\nfrom engine import experiment"),
        ("benchmarks/step.py", "import soundfile\nfrom models import ctc\nfrom data import plan"),
        ("tests/test_run.py", "import run\nimport orbit\nimport pytest\nimport torch"),
        ("models/ctc.py", "class A:\n    keras = 1\nA.keras\nself.tf.keras = A().keras"),
    ],
)
def test_checker_lets_pass(path, source):
    assert find_violations(path, source) == []


def test_checker_names_every_violation_in_order():
    source = "import engine\nimport numpy\nfrom models import ctc, hub\n"
    assert find_violations("data/x.py", source) == [
        "data/x.py:1: data may not import engine",
        "data/x.py:3: data may not import models.ctc",
        "data/x.py:3: data may not import models.hub",
    ]


def test_missing_test_files_are_found_in_subpackages_too(tmp_path):
    for name in (
        "data/__init__.py", "data/a.py", "data/b.py", "engine/report/page.py", "models/c.py",
        "tests/data/test_a.py", "tests/engine/test_page.py", "tests/models/test_c.py",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert missing_tests(tmp_path) == [
        "data/b.py has no tests/data/test_b.py",
        "engine/report/page.py has no tests/engine/report/test_page.py",
    ]
