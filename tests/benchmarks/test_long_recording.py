"""How differing words are counted."""

from __future__ import annotations

from benchmarks.long_recording import count_differences


def test_differing_words_are_counted_by_their_distance_from_a_joint():
    alone = [("ONE", 0.0), ("TWO", 1.0), ("THREE", 5.0), ("FOUR", 9.0)]
    joined = [("ONE", 0.0), ("TOO", 1.1), ("THREE", 5.0), ("FOUR", 9.0), ("FIVE", 9.6), ("SIX", 20.0)]
    counts = {"equal": 3, "near": 2, "elsewhere": 1}
    assert count_differences(alone, joined, [1.4, 10.0]) == counts
    assert count_differences(alone, joined, []) == {"equal": 3, "near": 0, "elsewhere": 3}
