"""Finds the commit of the code that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def find_commit() -> str | None:
    """Returns the commit of this source tree, "+changes" added if files differ; None if unknown."""
    root = Path(__file__).resolve().parents[2]
    # Installed as a package, the code may lie inside somebody else's repository.
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": 10, "check": True}
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], **options)
        status = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], **options)
    except (OSError, subprocess.SubprocessError):
        return None
    return commit.stdout.strip() + ("+changes" if status.stdout.strip() else "")
