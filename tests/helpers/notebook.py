"""Executes docs/tutorial.ipynb; as a program (`python -m tests.helpers.notebook`), keeps the outputs in the file."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
TUTORIAL = ROOT / "docs/tutorial.ipynb"


def execute(path: Path, *, timeout_secs: float = 1_800) -> Any:
    """Runs all cells from top to bottom in a new kernel.

    Args:
        path: The notebook; nothing is written to it.
        timeout_secs: Longest time for a cell.

    Returns:
        The notebook (nbformat.NotebookNode) with its outputs.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed; its message has the cell and the traceback.
    """
    import nbclient
    import nbformat

    notebook = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        notebook,
        timeout=timeout_secs,
        resources={"metadata": {"path": str(path.parent)}},
        # The environment that runs this, whatever kernels Jupyter knows of.
        kernel_name="python3",
    ).execute()
    return notebook


def without_audio(notebook: Any) -> Any:
    """Returns the notebook with its audio players replaced by a line: no audio is committed."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "<audio" in data.get("text/html", ""):
                data["text/html"] = "<em>Here is an audio player once you run this cell.</em>"
        # When it ran says nothing, and would change with every execution.
        cell.metadata.pop("execution", None)
    return notebook


def main() -> int:
    """Executes the tutorial in place; atomic."""
    import nbformat

    notebook = without_audio(execute(TUTORIAL))
    partial = TUTORIAL.with_suffix(".partial")
    nbformat.write(notebook, partial)
    os.replace(partial, TUTORIAL)
    print(f"executed {len(notebook.cells)} cells of {TUTORIAL.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
