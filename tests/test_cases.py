"""Inputs that failed once, of ../shared/cases: each must give what its expected.txt says. Minutes, so `slow`.

Each run.sh is run as it is, but in a copy of its folder and of the names that have moved since it was written.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

import run as program
from common.audio_kinds import has_media_extra
from configs import debug
from data.audio.decoding import load_waveform, read_header
from data.audio.streaming import stream_audio
from data.open_corpus import open_source
from data.synthetic import write_synthetic_corpus
from engine.checkpointing.best import BestCheckpoint
from engine.config import builders
from tests.fuzz.__main__ import judge
from tests.fuzz.targets import build_targets

ROOT = Path(__file__).resolve().parents[1]
CASES = ROOT.parent / "shared/cases"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CASES.is_dir(), reason="../shared/cases is not here"),
]

_MOVED = {
    "from data.audio import load_waveform, normalize_waveform": (
        "from data.audio.decoding import load_waveform, normalize_waveform"
    ),
    "from data.text import normalize_transcript": "from data.text.normalization import normalize_transcript",
    "from data.manifest import read_jsonl": (
        "from data.corpus.manifest import read_utterances; "
        "read_jsonl = lambda path: read_utterances(format='jsonl', input=path, report=lambda fault: None)"
    ),
    "from engine.collapse import CollapseWatch": "from engine.actions.collapse import CollapseWatch",
    "engine/early_stopping.py": "engine/actions/early_stopping.py",
}
_MEDIA = has_media_extra()
# Exit statuses of the commands that run.sh shows, and patterns of what they say.
CASES_EXPECTED: dict[str, tuple[list[int], list[str]]] = {
    "appledouble-files": ([0, 0], [": 8 utterances,", "^0 errors, 0 warnings", "^8 of 8 files"]),
    "comma-in-file-name": ([0], ["^1 of 1 files"]),
    "concatenated-mp3-and-ogg": (
        [2],
        [rf"error: .*{name} was skipped: .*holds more audio than" for name in ("two.mp3", "two.ogg", "two_vorbis.ogg")]
        + [r"^data\.prepare: .*two\.mp3 holds more audio than its header says"],
    ),
    "duration-null": ([0], [": 12 utterances,", "^0 errors, 0 warnings"]),
    "float-wav-beyond-full-scale": ([0], [r"(?s)(recording: 1\.000; .*){3}"]),
    "folder-skips-without-a-word": (
        [0],
        [f'"audio_filepath": ".*/in/{name}"' for name in ("a.wav", "voice.oga", "call.sph", "Hello, world.wav")]
        + ["/in/linked/b.wav", "^7 of 7 files" if _MEDIA else "^5 of 5 files"],
    ),
    "gsm-wav": ([0, 0], ["^12 of 12 files", ": 12 utterances,", "^0 errors, 0 warnings", "/p: 12 utterances"]),
    "hf-added-tokens-without-logits": ([0], ["text: 32 tokens", "note: left out, .*no row for them: '<s>', '</s>'"]),
    "hf-pad-token-named-otherwise": ([0, 0], [r"the blank is '\[PAD\]' \(id 0\), unknown '\[UNK\]'", "^update 20/20"]),
    "json-array-manifest": ([2], ["is one JSON array; write one object a line", "^1 error, 0 warnings"]),
    "m4a-webm-advice": (
        ([0], ["^3 of 3 files"]) if _MEDIA else ([2], [rf"{name} .*ffmpeg -i" for name in ("m4a", "webm", "mp3")])
    ),
    "markup-is-trained-as-words": ([0], ["^WARNING .*12: text with markup in brackets", "^0 errors, 1 warning"]),
    "mp3-in-wav": ([0], ["^1 of 1 files"]),
    "nemo-offset-ignored": ([0], [": 6 utterances,", "^0 errors, 0 warnings"]),
    "no-spaces-no-wer": ([], [r"configs/base\.py:.*best_metric = .*cer"]),
    "raw-extension-traceback": (
        [2, 2], ["^1 of 2 files", r"error: .*a\.raw was skipped: .*has no header", "^ERROR .*a.raw has no header"],
    ),
    "text-nan": ([2], ["^ERROR .*4: audio without transcript", "^1 error, 0 warnings", r"^\['"]),
    "truncated-wav-and-ogg": (
        [2],
        [rf"error: .*cut\.{name} was skipped" for name in ("wav", "ogg", "flac")]
        + [r"cut\.wav ends early", r"^data\.prepare: .*cut\.wav ends early"],
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout whose runs/ has the corpus of configs/debug.py and a recognizer with random weights."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("run.py", "common", "configs", "data", "engine", "models"):
        (folder / name).symlink_to(ROOT / name)
    write_synthetic_corpus(output=folder / "runs/debug-corpus", num_train=64, num_eval=16)
    workdir = folder / "runs/debug"
    workdir.mkdir()
    config, parts = debug.get_config(), program._build_parts()
    (workdir / "config.json").write_text(json.dumps(config.to_dict()))
    tokenizer = parts.build_tokenizer("")
    tokenizer.save(str(workdir / "vocab.json"))
    model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=model), directory=workdir / "best", global_step=tf.Variable(1)
    ).save_if_better(0.1, metric="dev/wer")
    return folder


def environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "EARSHOT": str(checkout), "PY": sys.executable, "CKPT": "runs/debug", "PYTHONPATH": "."}


@pytest.mark.parametrize("name", CASES_EXPECTED)
def test_what_failed_once_gives_what_is_expected(name, checkout, tmp_path):
    statuses, patterns = CASES_EXPECTED[name]
    shutil.copy(CASES / "config.py", tmp_path)
    folder = shutil.copytree(CASES / name, tmp_path / name)
    script = (folder / "run.sh").read_text()
    os.chmod(folder, 0o755)
    os.chmod(folder / "run.sh", 0o755)
    (folder / "run.sh").write_text(functools.reduce(lambda text, old: text.replace(old, _MOVED[old]), _MOVED, script))
    link = folder / "in/linked"
    if link.is_file():  # a copy without links holds what it points to
        os.chmod(folder / "in", 0o755)
        target = link.read_text()
        link.unlink()
        link.symlink_to(target)
    done = subprocess.run(
        ["bash", str(folder / "run.sh")], env=environment(checkout), capture_output=True, text=True, timeout=1500
    )
    said = done.stdout + done.stderr
    assert [int(status) for status in re.findall(r"^rc=(\d+)$", said, re.MULTILINE)] == statuses, said
    assert "Traceback" not in said
    for pattern in patterns:
        assert re.search(pattern, said, re.MULTILINE), f"{pattern}\n{said}"
    if name == "no-spaces-no-wer":
        assert "learning" not in said  # no advice at a CER of 30 %
    if name == "text-nan":
        assert "'nan'" not in said.lower()
    if name == "json-array-manifest":
        assert said.count("ERROR") == 1


def test_no_case_is_without_an_expectation():
    assert {path.parent.name for path in CASES.glob("*/run.sh")} == set(CASES_EXPECTED)


def test_the_offset_of_a_manifest_is_where_its_audio_is_read():
    path = CASES / "nemo-offset-ignored/train.jsonl"
    source = open_source(format="jsonl", input=path, split="")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(lines) == 6 and any(line["offset"] for line in lines)
    for index, line in enumerate(lines):
        whole = load_waveform(str(path.parent / line["audio_filepath"]))
        num_samples = round(16_000 * line["duration"])
        assert len(source.read_waveform(index)) == pytest.approx(num_samples, abs=1) and num_samples < len(whole)


# The prefix of a file of fuzz/text -> a target of tests.fuzz, and the file of it that is damaged.
_PLACES = {
    "csv": ("manifest-csv", "m.csv"),
    "decode": ("decode", "decode.json"),
    "hfconfig": ("hugging-face-config", "config.json"),
    "index": ("index", "index.json"),
    "jsonl": ("manifest-jsonl", "m.jsonl"),
    "ourconfig": ("our-config", "config.json"),
    "runcfg": ("run-config", "config.json"),
    "runcfg_pretrained": ("run-config", "config.json"),
    "vocab": ("vocab", "vocab.json"),
    "added": ("hugging-face-files", "added_tokens.json"),
    "hfvocab": ("hugging-face-files", "vocab.json"),
    "prep": ("hugging-face-files", "preprocessor_config.json"),
}
_TEXTS = sorted((CASES / "fuzz/text").iterdir()) if (CASES / "fuzz/text").is_dir() else []


@pytest.mark.parametrize("path", _TEXTS, ids=lambda path: path.name)
def test_a_mutated_file_is_read_or_refused_in_one_line_that_names_it(path, tmp_path):
    target_name, name = _PLACES[path.name.partition("-")[0]]
    target = build_targets()[target_name]
    target.make(tmp_path)
    shutil.copyfile(path, tmp_path / name)
    begin = time.monotonic()
    try:
        target.read(tmp_path)
    except Exception as error:
        assert not judge(error, tmp_path, target), repr(error)
    assert time.monotonic() - begin < 30


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("flac_length/bad.flac", "ends early or is damaged: its header promises 34359754239 samples"),
        ("truncated_audio/trunc.wav", "ends early: 10551 of 31742 bytes"),
        ("truncated_audio/full.wav", ""),
    ],
)
def test_audio_is_read_whole_or_refused_by_every_reader(name, refusal):
    path = str(CASES / "fuzz" / name)
    for read in (read_header, load_waveform, lambda path: sum(map(len, stream_audio(path)))):
        if refusal:
            with pytest.raises(ValueError, match=refusal) as caught:
                read(path)
            assert "\n" not in str(caught.value)
        else:
            read(path)


@pytest.fixture(scope="module")
def port(checkout):
    """A server of its own process."""
    command = [sys.executable, "run.py", "--mode=serve", "--checkpoint=runs/debug", "--serve.port=0"]
    with subprocess.Popen(command, cwd=checkout, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                if found := re.search(r"^serving .*:(\d+)$", line):
                    break
            yield found.group(1)
        finally:
            process.terminate()
            assert process.wait(60) == 143


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("idna", "200|400"), ("undefined", "200|400"), ("truncated_wav", "400"), ("length4300", r"4\d\d"),
        ("emptyrows", "400|413"), ("rowbomb", "400|413"), ("flac", "400|413"), ("vorbis", "400|413"),
    ],
)  # fmt: skip
def test_a_hostile_request_is_refused_soon_and_the_server_goes_on(name, status, port):
    bombs = CASES / "fuzz/server/bombs.py"
    for kind, wanted in ((name, status), ("idna", "200|400")):
        done = subprocess.run(
            # The largest takes its sender minutes to make.
            [sys.executable, str(bombs), port, kind],
            capture_output=True,
            text=True,
            timeout=1500,
        )
        assert done.returncode == 0, done.stderr
        found = re.search(r"bytes: (\d+) .* ([\d.]+) s$|HTTP/1.1 (\d+)", done.stdout.strip())
        assert re.fullmatch(wanted, found.group(1) or found.group(3)), done.stdout
        assert float(found.group(2) or 0) < 60
