"""Subtitles and annotations beside recordings."""

from __future__ import annotations

import pytest

from data.common.errors import InputError
from data.corpus.timed_text import read_text


@pytest.mark.parametrize(
    "content",
    [
        '<A><TIME_SLOT TIME_SLOT_ID="t" TIME_VALUE="soon"/></A>',
        '<?xml version="1.0" encoding="foo"?><A/>',
        '<?xml version="1.0" encoding="shift_jis"?><A/>',
        "<A>",
    ],
)
def test_a_damaged_eaf_is_one_line(tmp_path, content):
    path = tmp_path / "a.eaf"
    path.write_text(content)
    with pytest.raises(InputError, match=r"a\.eaf: is no EAF: ") as caught:
        read_text(path)
    assert "\n" not in str(caught.value)
