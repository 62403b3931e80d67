"""Real processes that form one run over the loopback: starts them, collects what they say, never waits for ever."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def start_workers(commands: Sequence[Sequence[str]], folder: Path, *, missing: int = 0) -> list[subprocess.Popen]:
    """Starts one Python process per command, each with its TF_CONFIG; what they say goes to FOLDER/worker-N.log.

    Args:
        commands: What follows the interpreter, for each.
        folder: Of the logs.
        missing: Workers beside them that TF_CONFIG lists and nobody starts.
    """
    sockets = [socket.socket() for _ in range(len(commands) + missing)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    # All are held until all are known, so that they differ; between here and the worker another process may take one.
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    processes = []
    for index, command in enumerate(commands):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        environment = {**os.environ, "TF_CONFIG": json.dumps(task), "TF_CPP_MIN_LOG_LEVEL": "3"}
        with open(folder / f"worker-{index}.log", "ab") as log:
            processes.append(
                subprocess.Popen(
                    [sys.executable, *command], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
                )
            )
    return processes


def finish_workers(processes: Sequence[subprocess.Popen], folder: Path, *, timeout_secs: float) -> list[int]:
    """Waits for the processes and returns their exit statuses; none outlives the call."""
    try:
        return [process.wait(timeout=timeout_secs) for process in processes]
    except subprocess.TimeoutExpired:
        for process in processes:
            process.kill()
        pytest.fail("workers still run: " + "\n".join(said(folder, i)[-2000:] for i in range(len(processes))))
    finally:
        for process in processes:
            # SIGTERM would not do: TensorFlow's preemption notifier catches it.
            process.kill()
            process.wait()


def said(folder: Path, index: int) -> str:
    """What worker `index` has printed so far."""
    return (folder / f"worker-{index}.log").read_text(errors="replace")


def run_workers(commands: Sequence[Sequence[str]], folder: Path, *, timeout_secs: float = 240.0) -> None:
    """Runs the processes to their end; once more if another process of the machine took a port meanwhile."""
    for attempt in (1, 2, 3):
        statuses = finish_workers(start_workers(commands, folder), folder, timeout_secs=timeout_secs)
        if not any(statuses):
            return
        texts = [said(folder, index) for index in range(len(commands))]
        if attempt == 3 or not any("cannot listen on port" in text for text in texts):
            pytest.fail(f"workers ended with {statuses}:\n" + "\n".join(text[-3000:] for text in texts))
