"""The bar is silent where nobody watches."""

from __future__ import annotations

import io
import sys

from engine.progress import progress_bar


def test_bar_writes_nothing_to_a_pipe(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total=3, description="work", unit="file") as bar:
        bar.update(3)
    assert stream.getvalue() == ""


def test_bar_shows_rate_and_total_on_a_terminal(monkeypatch):
    stream = io.StringIO()
    stream.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar(total=4, description="work", unit="file", initial=1) as bar:
        bar.update(2)
        bar.refresh()
    assert "work" in stream.getvalue()
    assert "3/4" in stream.getvalue()
