"""Who may import whom: the table of the design, checked over the syntax tree of every file."""

from __future__ import annotations

import ast
import configparser
import re
import sys
from collections.abc import Iterator, Mapping
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
    "ai_edge_litert": ("engine/inference/export/portable.py",),
    "apache_beam": ("data/shards/beam_runner.py",),
    "av": ("data/audio/media_file.py",),
    "espeakng_loader": ("data/synthesis/espeak.py",),
    "flashlight": ("models/search/lexicon_beam.py",),
    "huggingface_hub": ("data/corpus/hub_datasets.py", "models/weights/hugging_face_hub.py"),
    "jinja2": ("data", "engine"),
    "jiwer": ("benchmarks", "engine"),
    "kagglehub": ("models/weights/kaggle.py",),
    "matplotlib": ("benchmarks",),
    # In engine: the files between a config and the explicit arguments of everything below (docs/decisions/0034).
    "ml_collections": (
        "configs",
        "engine/config/builders.py",
        "engine/config/compilation.py",
        "engine/config/config_file.py",
        "engine/config/field_flags.py",
        "engine/config/fields_of_run.py",
        "engine/config/plan.py",
        "engine/config/recorded_run.py",
        "engine/config/validation.py",
        "engine/experiment.py",
        "engine/modes/continuous_eval.py",
        "engine/modes/doctor.py",
        "engine/modes/eval.py",
        "engine/modes/export.py",
        "engine/modes/train.py",
        "engine/modes/tune_lm.py",
        "engine/modes/verify_resume.py",
        "run",
    ),
    "h5py": ("models/weights/keras_files.py",),
    "ml_dtypes": ("models/weights/unpickling.py",),
    "num2words": ("data/text/numbers.py",),
    "numpy": _CODE,
    "onnx": ("engine/inference/export/portable_converter.py",),
    "onnxruntime": ("engine/inference/export/portable.py",),
    "orbit": ("engine",),
    "psutil": ("benchmarks",),
    "pyarrow": ("benchmarks", "data/archives/parquet.py", "data/archives/tables.py", "data/corpus/tables.py"),
    "safetensors": ("models/weights/tensor_files.py",),
    "sentencepiece": ("common/sentence_pieces.py",),
    "scipy": ("data/augmentation/filters.py", "data/augmentation/noise.py", "engine/report/statistics.py"),
    "soundfile": ("benchmarks", "data"),
    "soxr": ("data",),
    "tensorflow": _SHARED,
    "tensorflow_hub": ("models/hub/model.py",),
    "tf2onnx": ("engine/inference/export/portable.py", "engine/inference/export/portable_converter.py"),
    "tf_keras": ("benchmarks", "engine", "models", "run"),
    "tornado": (
        "engine/inference/serving/handlers.py",
        "engine/inference/serving/http_server.py",
        "engine/inference/serving/uploads.py",
    ),
    "torch": ("benchmarks/plain_torch.py", "benchmarks/reference_worker.py"),
    "transformers": ("benchmarks/reference_worker.py",),
    "tqdm": ("benchmarks", "data", "engine", "models"),
    # Only to write the kernels out (docs/decisions/0099).
    "triton": ("models/ops/gpu_attention/generate.py", "models/ops/gpu_attention/kernels.py"),
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


def import_violations(path: str, name: str) -> Iterator[str]:
    """Yields what is wrong with the import of a name in a file."""
    part, package = path.split("/")[0].removesuffix(".py"), name.split(".")[0]
    if package in OURS:
        if not any(is_inside(name, allowed) for allowed in ALLOWED[part]):
            yield f"{part} may not import {name}"
    elif package == "keras" or is_inside(name, "tensorflow.keras"):
        yield f"imports {name}, which is Keras 3; import tf_keras"
    elif package not in sys.stdlib_module_names and part != "tests":
        if package not in HOMES:
            yield f"{package} has no home; give it one in tests/test_imports.py"
        elif not any(path == home or part == home for home in HOMES[package]):
            yield f"{package} belongs in {', '.join(HOMES[package])} alone"
    if part == "configs" and package not in (*OURS, *HOMES, *sys.stdlib_module_names):
        yield f"a config may import ml_collections and configs.base, not {name}"
    if name in ("importlib.import_module", "importlib.util.spec_from_file_location"):
        yield "imports by a string; pass the object as an argument"


def find_violations(path: str, source: str) -> list[str]:
    """What a file does against the rules.

    Args:
        path: relative to the root, with slashes; decides which rules hold.
        source: its text.

    Returns:
        Lines "path:line: what is wrong", in the order of the lines.
    """
    tree = ast.parse(source)
    found: list[tuple[int, str]] = []
    for line, name in imported_names(path, tree):
        found += [(line, what) for what in import_violations(path, name)]
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


# Modules that belong to no package: public commands, which keep their paths, and the entries to a root.
FLAT = {
    "data": {
        "apply_corrections",
        "augment_examples",
        "command",
        "download",
        "open_corpus",
        "prepare",
        "split",
        "synthetic",
        "vocab",
    },
    "models": {"architecture", "build", "convert", "hub_export", "memory_estimate"},
    "engine": {"experiment", "protocols"},
}


def package_of(path: str) -> str:
    """The room of a file: data/audio for data/audio/decoding.py, data/vocab for data/vocab.py."""
    parts = path.split("/")
    return "/".join(parts[:2]) if len(parts) > 2 else path.removesuffix(".py")


def package_graph(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Which room imports which, from {path: source}."""
    module_of = {path.removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources}
    graph: dict[str, set[str]] = {}
    for path, source in sources.items():
        for _, name in imported_names(path, ast.parse(source)):
            target = module_of.get(name) or module_of.get(name.rpartition(".")[0])
            if target is not None and package_of(target) != package_of(path):
                graph.setdefault(package_of(path), set()).add(package_of(target))
    return graph


def find_circle(graph: Mapping[str, set[str]]) -> list[str]:
    """A way that leads back to where it began, or []."""
    done: set[str] = set()

    def visit(package: str, way: list[str]) -> list[str]:
        if package in way:
            return [*way[way.index(package) :], package]
        if package in done:
            return []
        for target in sorted(graph.get(package, ())):
            if circle := visit(target, [*way, package]):
                return circle
        done.add(package)
        return []

    for package in sorted(graph):
        if circle := visit(package, []):
            return circle
    return []


def test_every_file_of_the_project_keeps_the_import_rules():
    files = project_files()
    assert ROOT / "data" / "common" / "errors.py" in files and Path(__file__).resolve() in files
    violations = [
        violation
        for path in files
        for violation in find_violations(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8"))
    ]
    assert violations == []


def test_packages_import_each_other_in_no_circle():
    sources = {
        path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
        for part in FLAT
        for path in (ROOT / part).rglob("*.py")
    }
    graph = package_graph(sources)
    assert "data/audio" in graph["data/batches"]
    assert find_circle(graph) == []


def test_a_circle_is_found():
    sources = {
        "data/a/x.py": "from data.b import y",
        "data/b/y.py": "import data.c.z",
        "data/c/z.py": "from data.a.x import name",
        "data/d/w.py": "from data.d import v\nfrom data.a import x",
        "data/d/v.py": "",
    }
    assert find_circle(package_graph(sources)) == ["data/a", "data/b", "data/c", "data/a"]
    del sources["data/c/z.py"]
    assert find_circle(package_graph(sources)) == []


@pytest.mark.parametrize("part", FLAT)
def test_only_commands_and_entries_stand_beside_the_packages(part):
    assert {path.stem for path in (ROOT / part).glob("*.py")} - {"__init__"} == FLAT[part]


@pytest.mark.parametrize("part", FLAT)
def test_each_package_says_in_a_sentence_what_belongs_there(part):
    for path in (ROOT / part).rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path
    folders = {path.parent for path in (ROOT / part).rglob("*.py")}
    assert {folder for folder in folders if not (folder / "__init__.py").is_file()} == set()


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
        for _, name in imported_names(path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
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
        ("data/batches/plan.py", "import models.ctc", "data may not import models.ctc"),
        ("data/batches/plan.py", "from engine.metrics import rate", "data may not import engine.metrics"),
        ("data/batches/plan.py", "def f():\n    from configs import base", "data/batches/plan.py:2: data may not"),
        ("data/batches/plan.py", "from ...engine import files", "data may not import engine.files"),
        ("data/batches/plan.py", "import orbit", "orbit belongs in engine alone"),
        ("models/ctc/loss.py", "from data.text import CharTokenizer", "models may not import data.text"),
        ("models/ctc/loss.py", "from engine import files", "models may not import engine.files"),
        ("models/ctc/loss.py", "from configs import base", "models may not import configs.base"),
        ("models/ctc/loss.py", "from orbit import Controller", "orbit belongs in engine alone"),
        ("models/ctc/loss.py", "import soundfile", "soundfile belongs in benchmarks, data alone"),
        ("models/ctc/loss.py", "import tensorflow_hub as hub", "belongs in models/hub/model.py alone"),
        ("models/ctc/loss.py", "import safetensors.numpy", "belongs in models/weights/tensor_files.py alone"),
        ("models/ctc/loss.py", "import ml_collections", "ml_collections belongs in configs"),
        ("engine/training/trainer.py", "import data", "engine may not import data"),
        ("engine/training/trainer.py", "import models.ctc as ctc", "engine may not import models.ctc"),
        ("engine/training/trainer.py", "from configs.base import get_config", "may not import configs.base"),
        ("engine/training/trainer.py", "import run", "engine may not import run"),
        ("engine/training/trainer.py", "import ml_collections", "engine/modes/verify_resume.py, run alone"),
        (
            "engine/training/trainer.py",
            "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from models import ctc",
            "engine/training/trainer.py:3: engine may not import models.ctc",
        ),
        ("engine/modes/serve.py", "import soundfile", "soundfile belongs in"),
        ("engine/modes/serve.py", "from ...data import audio", "may not import data.audio"),
        ("benchmarks/step.py", "from run import main", "benchmarks may not import run.main"),
        ("run.py", "import benchmarks.step", "run may not import benchmarks.step"),
        ("run.py", "from tests.data import test_text", "run may not import tests.data.test_text"),
        ("run.py", "import orbit", "orbit belongs in engine alone"),
        (
            "data/vocab.py",
            "import torch",
            "belongs in benchmarks/plain_torch.py, benchmarks/reference_worker.py",
        ),
        ("data/vocab.py", "import transformers", "transformers belongs in benchmarks/reference_worker.py alone"),
        ("models/ctc/loss.py", "import keras", "imports keras, which is Keras 3"),
        ("models/ctc/loss.py", "from tensorflow import keras", "imports tensorflow.keras"),
        ("models/ctc/loss.py", "import tensorflow.keras.layers as l", "imports tensorflow.keras.layers"),
        ("models/ctc/loss.py", "import tensorflow as tf\ntf.keras.Model()", "loss.py:2: tf.keras is"),
        ("models/ctc/loss.py", "import tensorflow\ntensorflow.keras", "loss.py:2: tf.keras is Keras 3"),
        ("models/ctc/loss.py", "import tensorflow as t\nt.compat.v1.keras.x", "tf.keras is Keras 3"),
        ("models/ctc/loss.py", "from tensorflow import compat as c\nc.v2.keras", "tf.keras is Keras 3"),
        ("tests/models/ctc/test_loss.py", "import tensorflow as tf\ntf.keras", "tf.keras is Keras 3"),
        ("engine/common/files.py", "import importlib\nimportlib.import_module(x)", "imports by a string"),
        ("engine/common/files.py", "from importlib import import_module", "imports by a string"),
        ("engine/common/files.py", "__import__(name)", "imports by a string"),
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
        ("data/batches/pipeline.py", "import tensorflow as tf\nimport numpy as np\nfrom data import plan"),
        ("data/audio/decoding.py", "import soundfile\nimport soxr\nfrom . import errors"),
        ("models/wav2vec2/model.py", "import tf_keras\ntf_keras.Model\nfrom models import ctc"),
        ("models/hub/model.py", "import tensorflow_hub as hub"),
        ("models/weights/tensor_files.py", "from safetensors.numpy import load_file"),
        ("engine/experiment.py", "import ml_collections\nimport orbit\nimport jiwer"),
        ("engine/modes/serve.py", "from engine.files import x\nfrom .. import files"),
        ("engine/workdir.py", "import importlib.metadata\nimportlib.metadata.version('x')"),
        ("run.py", "from data import text\nfrom models import ctc\nfrom engine import experiment"),
        ("benchmarks/step.py", "import soundfile\nfrom models import ctc\nfrom data import plan"),
        ("tests/test_run.py", "import run\nimport orbit\nimport pytest\nimport torch"),
        ("models/ctc/loss.py", "class A:\n    keras = 1\nA.keras\nself.tf.keras = A().keras"),
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
