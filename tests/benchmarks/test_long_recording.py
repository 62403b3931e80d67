"""How differing words are counted."""

from __future__ import annotations

from benchmarks.long_recording import Difference, find_differences


def test_differing_words_are_counted_by_their_distance_from_a_joint():
    alone = [("ONE", 0.0), ("TWO", 1.0), ("THREE", 5.0), ("FOUR", 9.0)]
    joined = [("ONE", 0.0), ("TOO", 1.1), ("THREE", 5.0), ("FOUR", 9.0), ("FIVE", 9.6), ("SIX", 20.0)]
    num_equal, differences = find_differences(alone, joined, [1.4, 10.0])
    assert num_equal == 3
    assert differences == [
        Difference(1.0, ("TWO",), ("TOO",), num_near=1, num_elsewhere=0),
        Difference(9.6, (), ("FIVE", "SIX"), num_near=1, num_elsewhere=1),
    ]
    num_equal, differences = find_differences(alone, joined, [])
    assert (num_equal, [(d.num_near, d.num_elsewhere) for d in differences]) == (3, [(0, 1), (0, 2)])


def test_equal_readings_have_no_differences():
    words = [("ONE", 0.0), ("TWO", 1.0)]
    assert find_differences(words, [("ONE", 0.3), ("TWO", 7.0)], [0.2]) == (2, [])
