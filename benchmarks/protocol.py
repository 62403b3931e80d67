"""How a benchmark talks to its two sides: a process each, one line of JSON per question and answer.

Processes of their own because the reference has another environment, and because peak memory is a process's. NumPy is
all that this file needs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """What a side builds.

    Attributes:
        task: "train" or "infer".
        precision: "float32" or "mixed_bfloat16" (the reference: autocast).
        device: "cpu" or "gpu".
        batches: .npz file of `cases.save`.
        model: Of ours: fields of `models.wav2vec2.model.build_model`; of the reference: its config's.
    """

    task: str
    precision: str
    device: str
    batches: str
    model: Mapping[str, Any]


class Side(Protocol):
    """What answers in the process."""

    def run_once(self) -> dict[str, float]:
        """One pass over all batches: {"secs", "figure"}."""

    def ceiling(self) -> float:
        """Measured FLOP/s of a large matrix product."""


class Worker:
    """The asking end."""

    def __init__(self, *, python: str | os.PathLike[str], module: str, arguments: Mapping[str, Any]) -> None:
        """Starts `python -m module` and has it build what `arguments` say.

        Raises:
            RuntimeError: If it dies; with the end of what it wrote.
        """
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        if arguments.get("device") == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""
        self._process = subprocess.Popen(
            [str(python), "-m", module], cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if not sys.stderr.isatty() else None, text=True,
        )  # fmt: skip
        try:
            self.ask("build", **arguments)
        except BaseException:
            self.close()
            raise

    def ask(self, question: str, **arguments: Any) -> Any:
        """Asks and waits for the answer.

        Raises:
            RuntimeError: If the process dies.
        """
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write(json.dumps({"question": question, "arguments": arguments}) + "\n")
            self._process.stdin.flush()
            # Libraries may print: an answer is the line that begins as one.
            for line in self._process.stdout:
                if line.startswith('{"answer":'):
                    return json.loads(line)["answer"]
        except BrokenPipeError:
            pass
        stderr = self._process.stderr.read()[-2000:] if self._process.stderr else ""
        raise RuntimeError(f"the process of {' '.join(map(str, self._process.args))} has died\n{stderr}")

    def resident_bytes(self) -> int:
        """What the process holds of the memory now; 0 once it has ended. Linux alone."""
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """Ends the process at once, whatever it is doing; a question under way gets a RuntimeError."""
        self._process.kill()

    def close(self) -> None:
        """Ends the process."""
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream:
                # A question that a dead process never read is still in the buffer.
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        self._process.terminate()
        self._process.wait()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def serve(side_class: Callable[..., Side], *, versions: Callable[[], str]) -> None:
    """The answering end: reads questions from standard input until it is closed."""
    side: Side | None = None
    for line in sys.stdin:
        asked = json.loads(line)
        question, arguments = asked["question"], asked["arguments"]
        if question == "build":
            side = side_class(**arguments)
            answer: Any = True
        elif question == "versions":
            answer = json.loads(versions())
        elif question == "peak_memory":
            answer = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        elif question == "ceiling" and side is not None:
            answer = side.ceiling()
        elif question == "profile" and side is not None:
            answer = side.profile(**arguments)  # type: ignore[attr-defined]
        elif side is not None:
            answer = side.run_once()
        print(json.dumps({"answer": answer}), flush=True)
