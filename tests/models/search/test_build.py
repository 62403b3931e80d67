"""From the fields of config.decode to a search."""

import numpy as np
import pytest

from models.search.build import build_search
from models.search.lexicon_beam import LexiconBeamSearch
from models.search.prefix_beam import PrefixBeamSearch
from tests.helpers.models_lm import ARPA, PIECES, decode, emissions, needs_flashlight


def build(**fields):
    defaults = {"method": "beam", "beam_size": 8, "beam_tokens": 0, "beam_threshold": 25.0, "num_hypotheses": 1}
    defaults |= {"lm": "", "lexicon": "", "lm_weight": 1.0, "word_score": 0.0, "hot_words": (), "hot_word_score": 4.0}
    return build_search(token_strings=PIECES, **{**defaults, **fields})


@needs_flashlight
def test_each_method_builds_its_search(tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA)
    assert build(method="greedy") is None
    beam, lexicon = build(), build(method="lexicon", lm=str(tmp_path / "lm.arpa"))
    assert isinstance(beam, PrefixBeamSearch) and isinstance(lexicon, LexiconBeamSearch)
    log_probs = emissions("THE CAR", unsure={6: ("T", 0.45)})
    assert decode(beam(log_probs)[0].tokens) == "THE CAR"
    assert decode(build(hot_words=("CAT",))(log_probs)[0].tokens) == "THE CAT"
    assert decode(lexicon(log_probs)[0].tokens) == "THE CAT"
    for search in (beam, lexicon):  # a model that has diverged
        assert len(search(np.full([20, len(PIECES)], np.nan))) == 1


def test_a_beam_without_hot_words_needs_no_space_between_words():
    fields = {"beam_size": 8, "beam_tokens": 0, "beam_threshold": 25.0, "num_hypotheses": 1, "lm": "", "lexicon": ""}
    fields |= {
        "lm_weight": 1.0,
        "word_score": 0.0,
        "hot_word_score": 4.0,
        "token_strings": ["", "A", "B"],
        "method": "beam",
    }
    log_probs = np.log(np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]))
    assert build_search(**fields, hot_words=())(log_probs)[0].tokens == (1, 2)
    with pytest.raises(ValueError, match="no space between words"):
        build_search(**fields, hot_words=("AB",))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"method": "viterbi"}, "decode.method='viterbi': wanted one of greedy, beam, lexicon"),
        ({"beam_size": 0}, "decode.beam_size must be at least 1, got 0"),
        ({"num_hypotheses": 0}, "decode.num_hypotheses must be at least 1"),
        ({"beam_tokens": -1}, "decode.beam_tokens must be at least 0"),
        ({"beam_threshold": 0.0}, "decode.beam_threshold must be above 0"),
        ({"lm": "x.arpa"}, "decode.lm=x.arpa is of no use to decode.method=beam"),
        ({"lexicon": "x", "method": "greedy"}, "decode.lexicon=x is of no use to decode.method=greedy"),
        ({"hot_words": ("A",), "method": "greedy"}, "decode.hot_words is set, but"),
        ({"num_hypotheses": 3, "method": "greedy"}, "decode.num_hypotheses is set, but"),
        ({"hot_words": ("a",)}, "decode.hot_words: 'a' cannot be spelled"),
        ({"method": "lexicon"}, "decode.method=lexicon needs words"),
        ({"method": "lexicon", "lm": "gone.arpa"}, "gone.arpa: no such file"),
    ],
)
def test_what_cannot_be_is_named_with_its_field(fields, message):
    with pytest.raises(ValueError, match="^" + message.replace(".", r"\.")):
        build(**fields)
