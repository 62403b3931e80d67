"""Connects a benchmark with its two sides, which are processes that exchange lines of JSON.

Sides are separate processes because the reference has another environment, and because peak memory is measured per
process. This file needs only NumPy.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from common.tensorflow_environment import set_tensorflow_defaults

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """Specification of a side.

    Attributes:
        task: "train" or "infer".
        precision: "float32" or "mixed_bfloat16" (autocast in the reference).
        device: "cpu" or "gpu".
        batches: .npz file of `cases.save`.
        model: Fields of `models.wav2vec2.model.build_model`, or of the reference's config.
        compile: Whether the side is compiled as a whole: the reference by `torch.compile`, our update by XLA.
    """

    task: str
    precision: str
    device: str
    batches: str
    model: Mapping[str, Any]
    compile: bool = False


class Side(Protocol):
    """Interface of the object that answers in the process."""

    def run_once(self) -> dict[str, float]:
        """Runs one pass over all batches and returns {"secs", "figure"}."""

    def ceiling(self) -> float:
        """Returns the measured FLOP/s of a large matrix product."""

    def peak_device_bytes(self) -> int | None:
        """Returns the peak memory of the GPU; None on a CPU, where the peak of the process counts."""


class Worker:
    """A process that answers questions, seen from the benchmark."""

    def __init__(self, *, python: str | os.PathLike[str], module: str, arguments: Mapping[str, Any]) -> None:
        """Starts `python -m module`, which builds the model of `arguments`.

        Raises:
            RuntimeError: If it dies; the message has the end of its output.
        """
        set_tensorflow_defaults()
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        # TensorFlow itself may stand in a folder of the path, which another interpreter has no use for.
        path = os.environ.get("PYTHONPATH") if str(python) == sys.executable else None
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), path]))
        if arguments.get("device") == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        # Not a pipe, which is read after the end only: compilers can say more than one holds.
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [str(python), "-m", module], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._log if not sys.stderr.isatty() else None, text=True,
        )  # fmt: skip
        try:
            self.ask("build", **arguments)
        except BaseException:
            self.close()
            raise

    def ask(self, question: str, **arguments: Any) -> Any:
        """Sends a question and waits for the answer.

        Raises:
            RuntimeError: If the process dies.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"question": question, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
            # Libraries may print, so an answer is a line with this beginning.
            for line in self._process.stdout:
                if line.startswith('{"answer":'):
                    return json.loads(line)["answer"]
        except BrokenPipeError:
            pass
        self._process.wait()
        self._log.seek(0)
        stderr = self._log.read()[-2000:]
        raise RuntimeError(f"the process of {' '.join(map(str, self._process.args))} has died\n{stderr}")

    def resident_bytes(self) -> int:
        """Returns the resident memory of the process, or 0 after its end; Linux only."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """Kills the process; a pending question gets a RuntimeError."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream:
                # The buffer may still hold a question that a dead process never read.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def serve(side_class: Callable[..., Side], *, versions: Callable[[], str]) -> None:
    """Answers questions from standard input until it is closed."""
    side: Side | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        question, arguments = asked["question"], asked["arguments"]
        if question == "build":
            side = side_class(**arguments)
            answer: Any = True
        elif question == "versions":
            answer = json.loads(versions())
        elif question == "peak_memory" and side is not None:
            answer = side.peak_device_bytes() or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        elif question == "ceiling" and side is not None:
            answer = side.ceiling()
        elif question == "profile" and side is not None:
            answer = side.profile(**arguments)  # type: ignore[attr-defined]
        elif side is not None:
            answer = side.run_once()
        print(json.dumps({"answer": answer}), flush=True)
