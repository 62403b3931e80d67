"""The bonus of hot words, letter by letter."""

import pytest

from models.search.hot_words import HotWords

SPACE = 9


def scores_along(hot_words, tokens):
    state, found = hot_words.begin(), []
    for token in tokens:
        state = hot_words.extend(state, token)
        found.append(hot_words.score(state))
    return found, hot_words.final_score(state)


def test_a_word_earns_its_bonus_letter_by_letter_and_keeps_it_when_whole():
    hot_words = HotWords([(1, 2, 3)], score=3.0, delimiter_id=SPACE)
    along, final = scores_along(hot_words, [1, 2, 3, SPACE, 1, 2, 3])
    assert along == [1.0, 2.0, 3.0, 3.0, 4.0, 5.0, 6.0]
    assert final == 6.0


@pytest.mark.parametrize("tokens", [(1, 2), (1, 2, SPACE), (1, 2, 4), (1, 2, 3, 4), (4, 1, 2, 3)])
def test_what_is_not_the_word_has_earned_nothing_in_the_end(tokens):
    assert scores_along(HotWords([(1, 2, 3)], score=3.0, delimiter_id=SPACE), tokens)[1] == 0.0


def test_of_words_with_one_beginning_the_nearest_to_its_end_counts():
    along, final = scores_along(HotWords([(1, 2), (1, 2, 3, 4)], score=4.0, delimiter_id=SPACE), [1, 2, 3])
    assert along == [2.0, 4.0, 3.0]
    assert final == 0.0
    assert not HotWords([], score=4.0, delimiter_id=SPACE)
