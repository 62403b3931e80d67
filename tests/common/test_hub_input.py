"""What a SavedModel says about its input."""

from __future__ import annotations

import pytest

from common.hub_input import INPUT_FILE, hub_normalizes
from common.json_files import MalformedFileError


def test_only_a_folder_that_says_otherwise_is_not_normalized(tmp_path):
    assert hub_normalizes("https://example.com/model/1") and hub_normalizes("") and hub_normalizes(str(tmp_path))
    (tmp_path / INPUT_FILE).write_text('{"normalize_waveform": false}')
    assert not hub_normalizes(str(tmp_path))
    (tmp_path / INPUT_FILE).write_text("{}")
    assert hub_normalizes(str(tmp_path))
    for content in ("[", '{"normalize_waveform": 0}'):
        (tmp_path / INPUT_FILE).write_text(content)
        with pytest.raises(MalformedFileError, match=INPUT_FILE):
            hub_normalizes(str(tmp_path))
