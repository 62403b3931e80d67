"""The documentation: links lead somewhere, commands have real flags, and those that can run here do run."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile

from common.renamed import FIELDS, FLAGS
from configs.base import get_config, get_eval_set, get_train_set
from data.synthetic import write_synthetic_corpus
from engine.config.flags import FLAGS_OF_MODE

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES += [
    page for folder in ("guide", "decisions", "results") for page in sorted((ROOT / "docs" / folder).glob("*.md"))
]
GUIDE = [page for page in PAGES if page.parent.name not in ("decisions", "results")]
# Programs that a reader has and this test does not start.
OTHERS = ("make", "curl", "python3", ".venv/bin/pip", ".venv/bin/tensorboard", ".ci/run")


def commands(page: Path) -> Iterator[tuple[str, str]]:
    """Yields each command of the fenced blocks, joined to one line, and the comment behind it."""
    for block in re.findall(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            command, _, comment = line.partition("  #")
            if re.match(r"(\S*python3? |make |curl |\.venv|\.ci)", command):
                yield command.strip(), comment.strip()
    # Tables of tasks hold commands too.
    for command in re.findall(r"\| `(python run\.py [^`\[]*)`", page.read_text(encoding="utf-8")):
        yield command, "in a table"


ALL = [(page, command, comment) for page in GUIDE for command, comment in commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_and_headings_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+://|mailto:", target):
            continue
        path, _, heading = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.*)", there.read_text(encoding="utf-8"), flags=re.M)
            assert heading in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], target


def has_field(path: str) -> bool:
    config = get_config()
    config.data.eval["any"], config.data.more_train["any"] = get_eval_set(), get_train_set()
    for part in re.sub(r"^data\.(eval|more_train)\.\w+", r"data.\1.any", path).split("."):
        if part not in config:
            return False
        config = config[part]
    return True


@pytest.mark.parametrize(("page", "command", "comment"), ALL, ids=[command[:70] for _, command, _ in ALL])
def test_a_command_of_the_guide_has_flags_that_exist(page, command, comment):
    words = shlex.split(command)
    if words[0] in OTHERS:
        if words[0] == "make":
            assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M), command
        return
    given = dict(word.removeprefix("--").partition("=")[::2] for word in words if word.startswith("--"))
    if words[1] == "run.py":
        mode = given.get("mode", "train_and_eval")
        names = {name for name in given if "." not in name} - {"mode", "help"}
        assert names <= FLAGS_OF_MODE[mode], command
        for name in given:
            if name.startswith("config."):
                assert has_field(name.removeprefix("config.")), name
        if config := given.get("config", "").partition(":")[0]:
            assert (ROOT / config).is_file() or "NAME" in config
    elif words[1:2] == ["-m"] and words[2].split(".")[0] in ("data", "models"):
        source = (ROOT / f"{words[2].replace('.', '/')}.py").read_text(encoding="utf-8")
        source += (ROOT / "data/command.py").read_text(encoding="utf-8")
        for name in given:
            assert f'"--{name}"' in source, name
    else:
        assert words[1:2] == ["-m"], command


def test_the_guide_has_no_old_names():
    old = re.compile(r"(?<![\w-])(" + "|".join([*(f"--{name}" for name in FLAGS), *FIELDS]) + r")(?![\w-])")
    for page in GUIDE:
        found = old.findall(page.read_text(encoding="utf-8"))
        assert not set(found) - {"recompute", "regions"}, (page, found)


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder that has what the guide's commands name: a trained run, recordings, manifests, a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("docs")
    for name in ("run.py", "configs", "common", "data", "engine", "models"):
        (folder / name).symlink_to(ROOT / name)
    corpus = write_synthetic_corpus(
        output=folder / "runs/debug-corpus", num_train=48, num_eval=6, num_train_speakers=6, num_eval_speakers=2
    )
    for done in (
        run(folder, "run.py", "--config=configs/debug.py", "--workdir=runs/base"),
        run(folder, "-m", "models.convert", "--input=runs/base", "--output=HF_FOLDER", "--to_hf"),
    ):
        assert done.returncode == 0, done.stderr[-2000:]
    shutil.copytree(folder / "runs/base", folder / "runs/other")
    recordings = sorted(corpus.glob("train/*/*/*.flac"))
    texts = dict(
        line.split(" ", maxsplit=1)
        for path in corpus.glob("train/*/*/*.trans.txt")
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    for name in ("folder", "hindi"):
        (folder / name).mkdir()
    for path in recordings[:3]:
        shutil.copy(path, folder / "folder")
        (folder / "folder" / path.with_suffix(".txt").name).write_text(texts[path.stem], encoding="utf-8")
    samples, rate = soundfile.read(recordings[0])
    soundfile.write(folder / "a.wav", samples, rate)
    shutil.copy(recordings[1], folder / "b.flac")
    rows = [{"audio_filepath": str(path), "text": texts[path.stem], "speaker": path.parts[-3]} for path in recordings]
    (folder / "hindi/all.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_commands_that_need_nothing_else_run_as_written(place):
    """In the order of the pages; those marked "needs", "until" or with a duration are for people with that."""
    failed = []
    for page, command, comment in ALL:
        words = shlex.split(command)
        if words[0] in OTHERS or re.match(r"needs|until|some|\d|in a table", comment) or "pytest" in words:
            continue
        done = run(place, *words[1:])
        if done.returncode:
            failed.append(f"{page.name}: {command}: {done.returncode} {done.stderr[-600:]}")
    assert not failed, "\n".join(failed)
