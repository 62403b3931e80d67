"""The frame of the pages: escaped, and a variable that is not there is an error."""

from __future__ import annotations

import jinja2
import pytest

from data.common.page import page_environment
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
