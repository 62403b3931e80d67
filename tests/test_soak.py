"""A server among hostile clients for a minute: good ones are answered in time, nothing grows, nothing is logged."""

from __future__ import annotations

import io
import itertools
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile

from benchmarks.served import Served, serving
from data.synthetic import write_synthetic_corpus
from tests.fuzz.mutations import mutate_bytes, mutate_json
from tests.helpers.hostile_requests import hostile_heads, json_bombs

ROOT = Path(__file__).resolve().parents[1]
SOAK_SECS = 75.0
NUM_GOOD, NUM_HOSTILE = 3, 6
PREDICT = "/v1/models/earshot:predict"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory) -> Path:
    """A run of one update."""
    folder = tmp_path_factory.mktemp("soak")
    corpus = write_synthetic_corpus(
        output=folder / "corpus", num_train=4, num_eval=2, num_train_speakers=2, num_eval_speakers=2
    )
    fields = {"num_updates": 1, "warmup_updates": 0, "hold_updates": 0, "global_batch_size": 4}
    done = subprocess.run(
        [sys.executable, "run.py", f"--config=configs/debug.py:{corpus}", f"--workdir={folder / 'run'}",
         "--mode=train", *(f"--config.train.{name}={value}" for name, value in fields.items())],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "run"


def encode(waveform: np.ndarray, rate: int, **format: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, waveform, rate, **format)
    return file.getvalue()


def audio_bombs() -> list[bytes]:
    """Recordings whose samples take thousands of times the memory of their bytes."""
    silence = np.zeros((2_000_000, 8), np.int16)
    vorbis = io.BytesIO()
    with soundfile.SoundFile(vorbis, "w", 192_000, 255, format="OGG", subtype="VORBIS") as file:
        for _ in range(60):
            file.write(np.zeros((48_000, 255), np.float32))
    return [encode(silence, 655_350, format="FLAC"), vorbis.getvalue()]


def ask_raw(served: Served, raw: bytes) -> int:
    """Returns the status that a request is answered with, 0 where the server hangs up."""
    with socket.create_connection(served.address, timeout=60) as connection:
        try:
            connection.sendall(raw)
            answer = connection.recv(100)
        except (ConnectionResetError, BrokenPipeError):
            return 0
    return int(answer.split()[1]) if answer else 0


@pytest.mark.slow
def test_good_clients_are_served_in_time_among_hostile_ones(run_folder):  # noqa: C901, two kinds of clients inside
    tone = encode(np.sin(np.arange(24_000) * 0.1) * 0.3, 16_000, format="WAV")
    bombs = [*json_bombs(4_000_000).values(), *json_bombs(15_000_000).values()]
    recordings = [
        encode(np.random.default_rng(0).normal(size=8_000) * 0.1, 16_000, format=name)
        for name in ("WAV", "FLAC", "OGG", "MP3", "AIFF")
    ]
    heads = [head.replace(b"/models/toy", b"/models/earshot") for head in hostile_heads().values()]
    heavy = audio_bombs()
    fields = {"instances": [{"waveform": [0.5, -0.25] * 200, "lengths": 400}]}
    waits: list[float] = []
    faults: list[str] = []
    numbers = itertools.count()

    with serving(str(run_folder), body_timeout_secs=5, idle_timeout_secs=3) as served:
        process = psutil.Process(served.process.pid)
        deadline = time.monotonic() + SOAK_SECS

        def be_good() -> None:
            while time.monotonic() < deadline:
                begin = time.monotonic()
                status, found = served.ask(tone)
                waits.append(time.monotonic() - begin)
                if status != 200 or found["duration"] != 1.5:
                    faults.append(f"a good client was answered {status} {found}")
                time.sleep(0.05)

        def be_hostile() -> None:
            while time.monotonic() < deadline:
                number = next(numbers)
                rng = random.Random(number)
                kind = number % 40
                if kind == 0:
                    status, _ = served.ask(rng.choice(bombs), PREDICT)
                elif kind == 1:
                    status, _ = served.ask(rng.choice(heavy))
                elif kind < 12:
                    status, _ = served.ask(mutate_json(rng, fields) or b"x", PREDICT)
                elif kind < 24:
                    status, _ = served.ask(mutate_bytes(rng, rng.choice(recordings)) or b"x")
                elif kind == 24:
                    served.stop_sending(answer=False)
                    continue
                else:
                    status = ask_raw(served, rng.choice(heads))
                if status >= 500 and status != 503:
                    faults.append(f"hostile request {number} was answered {status}")

        threads = [threading.Thread(target=be_good) for _ in range(NUM_GOOD)]
        threads += [threading.Thread(target=be_hostile) for _ in range(NUM_HOSTILE)]
        for thread in threads:
            thread.start()
        time.sleep(SOAK_SECS / 3)  # what stays open and is cached is there by then
        before = process.memory_info().rss
        for thread in threads:
            thread.join(SOAK_SECS + 120)
            assert not thread.is_alive()
        time.sleep(4)  # idle connections are hung up on
        _, state = served.ask(None, "/healthz")
        assert (state["pending"], state["connections"]) == (0, 1)
        assert process.memory_info().rss - before < 400e6
        assert process.num_fds() < 60
    assert faults == []
    assert next(numbers) > 300 and len(waits) > 100
    assert np.percentile(waits, 99) < 3.0, np.percentile(waits, [50, 90, 99, 100])
    p50, p99 = np.percentile(waits, [50, 99]).round(3)
    print(f"{next(numbers)} hostile requests, {len(waits)} good ones, p50 {p50} s, p99 {p99} s")
    assert served.exit_status == 143  # and no traceback: `serving` looks for one
