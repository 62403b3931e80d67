"""Faults: the strict way to hear of them."""

from __future__ import annotations

import pytest

from data.common.errors import InputError
from data.corpus.faults import Fault, refuse


def test_the_strict_report_raises_the_line_and_keeps_the_kind() -> None:
    with pytest.raises(InputError, match="^a.wav is empty: remove it$") as caught:
        refuse(Fault("empty_audio", "a.wav is empty: remove it", {"a": "0 samples"}))
    assert caught.value.code == "empty_audio"
