"""The command line before TensorFlow is imported: help, versions, the config, and what is wrong, in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# An import of what is None fails, with a traceback and status 1.
WITHOUT_TENSORFLOW = (
    "import runpy, sys; sys.modules['tensorflow'] = None; sys.argv = sys.argv[1:]; sys.path.insert(0, '');"
    "runpy.run_path(sys.argv[0], run_name='__main__')"
)
DEBUG = "--config=configs/debug.py:{0}/corpus"


def without_tensorflow(arguments: list[str], *, program: str = "run.py") -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TENSORFLOW, program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def refusal(arguments: list[str], *, program: str = "run.py") -> str:
    done = without_tensorflow(arguments, program=program)
    assert done.returncode == 2, done.stderr[-3000:]
    assert (done.stdout, done.stderr.count("\n")) == ("", 1)
    return done.stderr


def answer(arguments: list[str]) -> str:
    done = without_tensorflow(arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-3000:]
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.json").write_text("{}")
    (tmp_path / "a.wav").touch()
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--workdri=x", DEBUG], "--workdri: no such flag; did you mean --workdir?"),
        (["--num_updates=5", DEBUG], "--num_updates: no such flag; did you mean --config.train.num_updates"),
        (["--mode=trian"], "--mode=trian: no such value; did you mean train?"),
        (["--help", "--mode=trian"], "--mode=trian: no such value; did you mean train?"),
        (["--mode=config"], "--config is missing: for example --config=configs/base.py"),
        (["--mode=serve", "--serve.prt=1"], "--serve.prt: serve has no field 'prt'; did you mean --serve.port?"),
        (["--window_secs=abc"], "--window_secs=abc: wanted a number"),
        (["--flagfile={0}/nowhere"], "Unable to open flagfile"),
        (["train"], "unexpected argument train: a mode is named by a flag, --mode=train"),
        (["--mode=transcribe", "--inputs=a.wav", "b.wav"], "unexpected argument b.wav: every option is --NAME=VALUE"),
        (["--mode=train"], "--config is missing: for example --config=configs/base.py"),
        (["--config=configs/debgu.py"], "--config=configs/debgu.py: no such file; did you mean configs/debug.py?"),
        ([DEBUG, "--config.data.augment.noise_prob=1.5"], "data.augment.noise_prob=1.5: wanted a number, 0 to 1"),
        (
            [DEBUG, "--config.data.eval.unseen_voices.augment.noise_snr_db=9,3"],
            "data.eval.unseen_voices.augment.noise_snr_db=(9.0, 3.0): the lower end comes first: (3, 9)",
        ),
        ([DEBUG, "--config.data.augment.room_source={0}/rms"], "room_source={0}/rms: no such folder or list"),
        ([DEBUG, "--config.train.lr=1"], "did you mean --config.train.learning_rate?"),
        ([DEBUG, "--config.train.num_updates=abc"], "num_updates=abc: wanted a whole number, such as 20"),
        ([DEBUG, "--config.data.num_buckets=0"], "data.num_buckets=0: wanted 1 or more"),
        ([DEBUG, "--config.decode.method=lexcon"], "decode.method='lexcon': no such value; did you mean lexicon?"),
        ([DEBUG, "--config.data.text_normalization=unicode+nubers"],
         "data.text_normalization='unicode+nubers': no option 'nubers'; did you mean numbers?"),
        ([DEBUG, "--config.eval.normalizers=plain=unicode,raw"], "eval.normalizers='raw': wanted NAME=STYLE"),
        ([DEBUG, "--config.data.eval.mine.input={0}/b"], "data.eval.mine.input={0}/b: no such corpus"),
        (["--config=configs/debug.py:{0}/corpsu"], "data.train.input={0}/corpsu: no such corpus; did you mean {0}/c"),
        ([DEBUG, "--workdir={0}/a.wav"], "--workdir={0}/a.wav: is a file; name a folder"),
        ([DEBUG, "--workdir={0}/w", "--config.model.init={0}/rnu"], "model.init={0}/rnu: no such weights; did you"),
        ([DEBUG, "--workdir={0}/rnu", "--mode=eval"], "--workdir={0}/rnu: no such run; did you mean {0}/run?"),
        ([DEBUG, "--workdir={0}/run", "--mode=eval", "--decode={0}/d.json"], "--decode={0}/d.json: not a readable"),
        (["--mode=transcribe", "--checkpoint={0}/rnu", "--inputs={0}/a.wav", "--output={0}/o.txt"],
         "--checkpoint={0}/rnu: no such folder or checkpoint; did you mean {0}/run?"),
        (["--mode=transcribe", "--checkpoint={0}/run", "--inputs={0}/a.flac", "--output={0}/o.txt"],
         "{0}/a.flac: no such file or folder; did you mean {0}/a.wav?"),
        (["--mode=transcribe", "--checkpoint={0}/run", "--inputs={0}/a.wav", "--output={0}/a.wav/o.txt"],
         "--output={0}/a.wav/o.txt: {0}/a.wav cannot be written (it is a file)"),
        (["--mode=export", "--checkpoint={0}/run", "--output={0}/a.wav"], "--output={0}/a.wav: is a file; name"),
        (["--mode=report", "--inputs={0}/rnu"], "{0}/rnu: no such file or folder; did you mean {0}/run?"),
    ],
)  # fmt: skip
def test_a_wrong_command_is_a_line_before_tensorflow_is_imported(folder, arguments, line):
    said = refusal([argument.format(folder) for argument in arguments])
    assert said.startswith("error: ")
    assert line.format(folder) in said


@pytest.mark.parametrize(
    ("module", "arguments", "line"),
    [
        ("data/prepare.py", ["--frmat=jsonl"], "unrecognized arguments: --frmat; did you mean --format?"),
        ("data/prepare.py", ["--format=jsonl", "--input={0}/x", "--output={0}/o"], "no manifest {0}/x"),
        ("data/download.py", ["--split=dev-claen", "--output=x"], "did you mean dev-clean"),
        ("models/convert.py", ["--inptu=x"], "unrecognized arguments: --inptu; did you mean --input"),
        ("models/convert.py", ["--input={0}/x", "--output={0}/o"], "{0}/x/config.json: no such file"),
        ("models/hub_export.py", ["--input={0}/rnu", "--output={0}/o"], "{0}/rnu: no such folder; did you mean {0}/r"),
        ("models/hub_export.py", ["--input=x", "--output=x", "--precison=x"], "--precison; did you mean --precision?"),
    ],
)
def test_the_other_commands_do_the_same(folder, module, arguments, line):
    assert line.format(folder) in refusal([argument.format(folder) for argument in arguments], program=module)


def test_help_and_version_need_no_config_and_no_tensorflow():
    assert "--mode=MODE" in answer(["--help"])
    assert answer(["--help", "--mode=align"]) == answer(["--mode", "align", "-h"])
    version, tensorflow, devices = answer(["--version"]).splitlines()
    assert re.fullmatch(r"earshot [\d.]+, commit (unknown|[0-9a-f]{40}(\+changes)?)", version)
    assert re.fullmatch(r"Python 3\.\d+\.\d+, TensorFlow 2\.\d+\.\d+", tensorflow)
    assert re.match(r"devices: CPU \(\d+ cores?\)", devices)


def test_a_printed_config_is_taken_back_as_it_is(folder):
    (folder / "tuned.json").write_text('{"lm_weight": 0.5}')
    arguments = [
        DEBUG.format(folder),
        "--config.data.bucket_boundaries_samples=16000,32000",
        "--config.data.eval.mine.input=a b.jsonl",
        "--config.data.eval.mine.speakers=0012,x y",
        f"--decode={folder}/tuned.json",
        f"--workdir={folder}/w",
    ]
    printed = answer([*arguments, "--mode=config"])
    assert not (folder / "w").exists()
    lines = printed.splitlines()
    for line in (
        DEBUG.format(folder),
        f"--workdir={folder}/w",
        "--config.data.bucket_boundaries_samples=(16000, 32000)",
        "--config.data.eval.mine.input=a b.jsonl",
        "--config.data.eval.mine.speakers=('0012', 'x y')",
        "--config.decode.lm_weight=0.5",
    ):
        assert line in lines
    (folder / "saved.flags").write_text(printed)
    assert answer([f"--flagfile={folder}/saved.flags", "--mode=config"]) == printed
    changed = answer([f"--flagfile={folder}/saved.flags", "--mode=config", "--config.seed=7"])
    assert "# configs/base.py: 0\n--config.seed=7\n" in changed
