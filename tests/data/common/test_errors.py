"""InputError."""

from __future__ import annotations

import pytest

from data.common.errors import InputError


def test_is_a_value_error_with_its_line() -> None:
    with pytest.raises(ValueError, match="^no folder x: check the path$"):
        raise InputError("no folder x: check the path")
