"""The frame of the pages: escaped, and a variable that is not there is an error."""

from __future__ import annotations

import re

import jinja2
import numpy as np
import pytest

from data.common.page import page_environment, wave_path
from data.shards.records import encode_flac
from tests.helpers.pages import check_page


def test_a_template_of_another_folder_is_filled_into_the_frame(tmp_path):
    blocks = [f"{{% block {block} %}}{{{{ name }}}}{{% endblock %}}" for block in ("title", "body")]
    (tmp_path / "own.html.jinja").write_text("{% extends 'page.html.jinja' %}" + "".join(blocks))
    found = page_environment(tmp_path).get_template("own.html.jinja")
    page = found.render(name="<b>&")
    check_page(page)
    assert page.count("&lt;b&gt;&amp;") == 2 and "<b>" not in page
    with pytest.raises(jinja2.UndefinedError, match="name"):
        found.render()


def bars_of(waveform):
    path = wave_path(encode_flac(np.asarray(waveform, dtype=np.float32)))
    assert len(path) <= 800
    return [(int(x), int(y), int(height)) for x, y, height in re.findall(r"M(\d+) (\d+)v(\d+)", path)]


def test_a_waveform_shows_silence_quiet_and_loud_parts_on_one_scale():
    found = bars_of(np.repeat([0.0, 0.01, -0.25, 1.0], 4_000))
    assert len(found) == 80 and [x for x, _, _ in found] == list(range(1, 160, 2))
    # The square root of the peak, of 32; silence keeps a thin line; all are centered.
    assert [height for _, _, height in found[::20]] == [2, 4, 16, 32]
    assert all(2 * y + height == 32 for _, y, height in found)


def test_short_and_damaged_clips_have_waveforms_or_none():
    assert len(bars_of([0.5] * 3)) == 3
    assert wave_path(b"") == wave_path(b"fLaC") == wave_path(b"</script>") == ""
    assert wave_path(encode_flac(np.zeros(0, dtype=np.float32))) == ""
