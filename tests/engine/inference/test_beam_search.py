"""Beam search over recordings of one chunk and of several."""

import numpy as np
import pytest

from engine.inference.beam_search import BeamSearchDecoder, cut_at_spaces
from engine.inference.windows import LogitsChunk
from models.ctc.alignment import forced_align, greedy_spans
from models.search.prefix_beam import PrefixBeamSearch
from tests.helpers.models_lm import PIECES, emissions


class Letters:
    token_strings = PIECES

    def decode(self, ids):
        return " ".join("".join(PIECES[i] for i in ids).split())


def read(chunks, *, beam_size=20, num_alternatives=0):
    search = PrefixBeamSearch(beam_size=beam_size, num_hypotheses=max(num_alternatives, 1))
    decoder = BeamSearchDecoder(
        search=search, aligner=forced_align, tokenizer=Letters(), num_alternatives=num_alternatives
    )
    return decoder.decode(chunks, secs_per_frame=0.02)


def split(log_probs, *cuts):
    starts = [0, *cuts]
    return [LogitsChunk(log_probs[a:b], a) for a, b in zip(starts, [*cuts, len(log_probs)], strict=True)]


def test_times_and_confidences_are_those_of_the_alignment_and_at_a_beam_of_one_those_of_greedy():
    log_probs = emissions("THE CAT")
    words, alternatives = read([LogitsChunk(log_probs, 0)], beam_size=1)
    assert [(word.text, word.start_secs) for word in words] == [("THE", 0.0), ("CAT", pytest.approx(8 * 0.02))]
    spans = [span for span in greedy_spans(log_probs) if PIECES[span.token] != " "]
    found = [(c.start_secs / 0.02, c.end_secs / 0.02, c.confidence) for word in words for c in word.characters]
    np.testing.assert_allclose(found, [(span.start_frame, span.end_frame, span.prob) for span in spans])
    assert alternatives == ()


@pytest.mark.parametrize("cut", [3, 8, 9, 11])
def test_a_word_across_two_chunks_is_searched_in_one(cut):
    log_probs = emissions("THE CAT SAT", unsure={9: ("O", 0.3)})
    whole, best = read([LogitsChunk(log_probs, 0)], num_alternatives=3)
    words, alternatives = read(split(log_probs, cut, 18), num_alternatives=3)
    assert words == whole
    assert [word.text for word in words] == ["THE", "CAT", "SAT"]
    assert [other.text for other in alternatives[:2]] == [other.text for other in best[:2]]
    assert [other.text for other in best[:2]] == ["THE CAT SAT", "THE CAT SOT"]
    # A cut loses nothing but the paths that would lie across it.
    assert alternatives[0].score == pytest.approx(best[0].score, abs=0.01)


def test_cuts_are_behind_spaces_and_frames_are_kept():
    log_probs = emissions("AB CD EF")
    parts = list(cut_at_spaces(split(log_probs, 9, 13), [4]))
    assert [part.start_frame for part in parts] == [0, 5, 11]
    np.testing.assert_array_equal(np.concatenate([part.log_probs for part in parts]), log_probs)
    # Without a space for too long it is cut all the same.
    nothing = np.log(np.full([12, len(PIECES)], 1 / len(PIECES), np.float32))
    assert [len(part.log_probs) for part in cut_at_spaces(split(nothing, 4, 8), [4], longest=8)] == [8, 4]
    assert list(cut_at_spaces([], [4])) == []


def test_silence_has_one_empty_text():
    silence = np.full([20, len(PIECES)], -12.0, np.float32)
    silence[:, 0] = -1e-4
    words, alternatives = read([LogitsChunk(silence, 0)], num_alternatives=2)
    assert words == () and alternatives[0].text == ""
