"""What every page of ours must be: tags that close in order, nothing that reaches for the network."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Tags(HTMLParser):
    """Checks that tags close in order, and collects what could reach for the network."""

    void = {"meta", "link", "br", "rect", "line", "input", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.urls: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def check_page(page: str) -> None:
    """Asserts that a page is whole and needs no network."""
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "data:," in tags.urls and all(url == "data:," or url.startswith("#") for url in tags.urls)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "prefers-color-scheme: dark" in page
