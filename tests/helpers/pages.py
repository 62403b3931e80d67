"""What every page of ours must be: tags that close in order, nothing that reaches for the network."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser


class Tags(HTMLParser):
    """Checks that tags close in order, and collects what could reach for the network."""

    void = {"meta", "link", "br", "rect", "line", "input", "polyline"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.urls: list[str] = []
        self.policies: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        fields = dict(attrs)
        if fields.get("http-equiv", "").lower() == "content-security-policy":
            self.policies.append(fields["content"] or "")
        # The policy would not let them work.
        assert not [name for name in fields if name == "style" or name.startswith("on")], (tag, attrs)
        self.urls += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag


def check_page(page: str, *, connects: bool = False) -> None:
    """Asserts that a page is whole, needs no network, and forbids itself to use it.

    Args:
        page: The HTML.
        connects: Whether the page may talk to the server that it comes from.
    """
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert "data:," in tags.urls and all(url == "data:," or url.startswith("#") for url in tags.urls)
    assert not re.search(r"https?://|@import|url\(", page)
    check_policy(page, tags.policies, connects=connects)
    assert "prefers-color-scheme: dark" in page


def check_policy(page: str, policies: list[str], *, connects: bool = False) -> None:
    """Asserts that a page has one content security policy, which allows its own style and script and nothing else."""
    (policy,) = policies
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    if connects:
        assert rules.pop("connect-src") == "'self'"
        assert rules["script-src"].endswith(" blob:")
        rules["script-src"] = rules["script-src"].removesuffix(" blob:")
    for name, tag in (("style-src", "style"), ("script-src", "script")):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode("utf-8")).digest()).decode("ascii")
        assert rules.pop(name) == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'", "media-src": "blob:", "img-src": "data:", "base-uri": "'none'",
        "form-action": "'none'",
    }  # fmt: skip
    # A policy holds from where it stands.
    assert page.index("http-equiv") < min(page.index("<style"), page.index("<script"), page.index("<link"))
