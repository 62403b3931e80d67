"""Flags for fields of a config, found and checked; those of --config are checked in test_config_file.py."""

from __future__ import annotations

import pytest

from configs.base import get_serve
from engine.config.field_flags import FlagError, check_fields, iterate_fields, list_fields


def test_flags_are_found_in_every_spelling():
    argv = ["run.py", "--serve.port=1", "-serve.name", "x", "--noserve.y", "--other=1", "--", "--serve.host=z"]
    assert list(iterate_fields("serve", argv)) == [(1, "port", "1"), (2, "name", "x"), (4, "y", "false")]


def test_other_groups_are_checked_alike():
    with pytest.raises(FlagError, match="^--serve.prt: serve has no field 'prt'; did you mean --serve.port?"):
        check_fields("serve", get_serve(), ["run.py", "--serve.prt=1"])
    assert check_fields("serve", get_serve(), ["run.py", "--serve.port=1"]) == {}
    assert {"port", "host", "max_pending"} <= set(list_fields(get_serve()))
