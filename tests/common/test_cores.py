"""How many cores a process may use: those of its affinity, and no more than its container's quota."""

from __future__ import annotations

import os

import pytest

from common.cores import count_cores


@pytest.mark.parametrize(
    ("quota", "wanted"),
    [("max 100000\n", 16), ("400000 100000\n", 4), ("150000 100000\n", 2), ("9900000 100000\n", 16), ("", 16)],
)
def test_a_containers_quota_lowers_the_number_of_cores(tmp_path, monkeypatch, quota, wanted):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    (tmp_path / "cpu.max").write_text(quota)
    assert count_cores(quota_file=str(tmp_path / "cpu.max")) == wanted


def test_without_a_quota_the_affinity_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert count_cores(quota_file=str(tmp_path / "none")) == 3
