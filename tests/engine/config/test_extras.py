"""Which optional packages count as installed."""

from __future__ import annotations

import sys

from engine.config.extras import is_installed


def test_a_package_that_is_blocked_is_not_installed(monkeypatch):
    assert is_installed("json")
    assert not is_installed("no_such_package")
    monkeypatch.setitem(sys.modules, "tornado", None)
    assert not is_installed("tornado")
