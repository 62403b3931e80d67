"""What is visible decides."""

from __future__ import annotations

import pytest
import tensorflow as tf

from models.ops.devices import on_cpu


@pytest.mark.parametrize(("visible", "wanted"), [("CPU", True), ("GPU", False), ("TPU", False)])
def test_an_accelerator_is_where_the_work_goes(monkeypatch, visible, wanted):
    monkeypatch.setattr(tf.config, "list_logical_devices", lambda kind=None: ["one"] if kind == visible else [])
    assert on_cpu() is wanted
