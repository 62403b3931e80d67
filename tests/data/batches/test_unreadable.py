"""Unreadable utterances are kept once each, with the first update that wanted them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from data.batches.unreadable import UnreadableUtterances


def test_each_is_kept_once_with_its_first_update():
    found = UnreadableUtterances()
    assert found.add(update=7, utterance_id="a", reason="gone")
    assert not found.add(update=3, utterance_id="a", reason="cut")
    assert not found.add(update=9, utterance_id="a", reason="gone")
    assert found.add(update=5, utterance_id="b", reason="empty")
    assert len(found) == 2
    assert found.before(3) == []
    assert found.before(4) == found.before(5) == [(3, "a", "cut")]
    assert found.before(6) == [(3, "a", "cut"), (5, "b", "empty")]


def test_makers_may_add_side_by_side():
    found = UnreadableUtterances()

    def add(number):
        return found.add(update=number, utterance_id=f"u{number % 50}", reason="gone")

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(add, range(1000))) == 50
    assert [item.update for item in found.before(1000)] == list(range(50))
