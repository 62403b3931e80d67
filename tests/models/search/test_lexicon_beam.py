"""The search over words with a language model."""

import math
import sys

import numpy as np
import pytest

from models.search.lexicon import Spelling
from models.search.lexicon_beam import LexiconBeamSearch
from tests.helpers.models_lm import ARPA, PIECES, decode, emissions, lexicon_options, needs_flashlight

pytestmark = needs_flashlight

# CAR is heard a little better than CAT.
UNSURE = emissions("THE CAR", unsure={6: ("T", 0.45)})


@pytest.fixture(scope="module")
def arpa(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    path.write_text(ARPA)
    return str(path)


def search(arpa, **fields):
    words = fields.pop("words", ["THE", "CAT", "CAR"])
    options = lexicon_options(**{"lm": arpa, "beam_size": 100, "num_hypotheses": 5, **fields})
    return LexiconBeamSearch(options=options, spelling=Spelling(PIECES), num_tokens=len(PIECES), words=words)


def test_the_language_model_decides_what_the_audio_leaves_open(arpa):
    found = search(arpa)(UNSURE)
    assert [decode(hypothesis.tokens) for hypothesis in found[:2]] == ["THE CAT", "THE CAR"]
    assert decode(search(arpa, lm_weight=0.0)(UNSURE)[0].tokens) == "THE CAR"
    assert decode(search("")(UNSURE)[0].tokens) == "THE CAR"
    # THE after <s>, CAT after THE, and </s> by backing off: decimal logarithms of the file.
    assert found[0].lm_score == pytest.approx(math.log(10) * (-0.2 - 0.1 - 0.3 - 1.0), abs=1e-4)
    # The two differ by one letter, 0.45 against 0.55 of its frame, and by their bigrams, -0.1 against -2.
    assert found[0].score - found[1].score == pytest.approx(math.log(0.45 / 0.55) + 1.9 * math.log(10), abs=0.02)


def test_scores_are_of_audio_words_and_weights(arpa):
    plain, weighted = search(arpa, lm_weight=0.5)(UNSURE)[0], search(arpa, lm_weight=0.5, word_score=2.0)(UNSURE)[0]
    assert weighted.tokens == plain.tokens
    assert weighted.score == pytest.approx(plain.score + 2 * 2.0, abs=1e-3)


@pytest.mark.parametrize("end", ["", " "])
def test_the_last_word_counts_with_and_without_a_space_behind_it(arpa, end):
    assert decode(search(arpa)(emissions("THE CAT" + end))[0].tokens) == "THE CAT"


def test_only_words_of_the_lexicon_are_heard_and_what_cannot_be_spelled_is_none(arpa, caplog):
    assert decode(search(arpa, words=["THE", "CAR", "CAFÉ"])(emissions("THE CAT"))[0].tokens) == "THE CAR"
    assert "1 of the lexicon's 3 words" in caplog.text
    with pytest.raises(ValueError, match="none of the lexicon's 2 words, such as 'the'"):
        search(arpa, words=["the", "cat"])


def test_hot_words_win_over_the_audio_and_join_the_lexicon(arpa):
    assert decode(search(arpa, lm_weight=0.5, hot_words=["CAR"], hot_word_score=5.0)(UNSURE)[0].tokens) == "THE CAR"
    cup = emissions("THE CUP")
    hot = search(arpa, lm_weight=0.5, hot_words=["CUP"], hot_word_score=1.0)(cup)[0]
    warm = search(arpa, lm_weight=0.5, words=["THE", "CAT", "CAR", "CUP"])(cup)[0]
    assert decode(hot.tokens) == "THE CUP"
    assert hot.score == pytest.approx(warm.score + 1.0, abs=1e-3)
    assert hot.lm_score == pytest.approx(warm.lm_score, abs=1e-4)
    with pytest.raises(ValueError, match="decode.lm_weight=0: "):
        search(arpa, lm_weight=0.0, hot_words=["CUP"], hot_word_score=1.0)


def test_nothing_said_is_an_empty_text(arpa):
    assert search(arpa)(np.zeros([0, len(PIECES)], np.float32))[0].tokens == ()
    silence = np.full([50, len(PIECES)], -12.0, np.float32)
    silence[:, 0] = -1e-4
    assert search(arpa)(silence)[0].tokens == ()


def test_missing_files_damaged_models_and_a_missing_package_are_named_in_one_line(tmp_path, monkeypatch, capfd):
    (tmp_path / "bad.arpa").write_text("hello")
    with pytest.raises(ValueError, match=r"bad.arpa: KenLM cannot read this language model .*hello") as caught:
        search(str(tmp_path / "bad.arpa"))
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="gone.arpa: no such language model"):
        search(str(tmp_path / "gone.arpa"))
    assert capfd.readouterr().err == ""
    monkeypatch.setitem(sys.modules, "flashlight", None)
    monkeypatch.setitem(sys.modules, "flashlight.lib.text", None)
    with pytest.raises(ValueError, match=r"decode.method=lexicon needs flashlight-text .* pip install -e '.\[lm\]'"):
        search("")
