"""Prefix beam search: greedy at a beam of one, exact at a wide one."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ctc.greedy import greedy_decode
from models.search.hot_words import HotWords
from models.search.prefix_beam import PrefixBeamSearch


def random_log_probs(rng, num_frames, num_tokens, *, spread=2.0):
    logits = spread * rng.standard_normal([num_frames, num_tokens])
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def collapse(path):
    return tuple(token for token, _ in itertools.groupby(path) if token)


def all_labellings(log_probs):
    """Log-probability of every labelling, by listing every path."""
    num_frames, num_tokens = log_probs.shape
    found = {}
    for path in itertools.product(range(num_tokens), repeat=num_frames):
        score = float(sum(log_probs[frame, token] for frame, token in enumerate(path)))
        found[collapse(path)] = np.logaddexp(found.get(collapse(path), -np.inf), score)
    return found


@given(
    seed=st.integers(0, 2**32 - 1),
    num_frames=st.integers(0, 30),
    num_padded=st.integers(0, 5),
    num_tokens=st.integers(2, 8),
    spread=st.sampled_from([0.0, 0.3, 3.0]),  # 0: all tokens of a frame tie
)
@settings(max_examples=150, deadline=None)
def test_beam_of_one_is_greedy_whatever_the_logits_and_the_padding(seed, num_frames, num_padded, num_tokens, spread):
    rng = np.random.default_rng(seed)
    padded = random_log_probs(rng, num_frames + num_padded, num_tokens, spread=spread)
    # Without a tf.function: shapes differ from example to example.
    best = np.argmax(padded[:num_frames], axis=-1)
    (found,) = PrefixBeamSearch(beam_size=1)(padded[:num_frames])
    assert found.tokens == collapse(best.tolist())


def test_beam_of_one_is_the_decoder_in_the_graph_on_a_padded_batch():
    rng = np.random.default_rng(0)
    logits, lengths = rng.standard_normal([16, 40, 6]).astype(np.float32), rng.integers(0, 41, 16)
    tokens, counts = greedy_decode(logits, lengths)
    for row, length in enumerate(lengths):
        (found,) = PrefixBeamSearch(beam_size=1)(logits[row, :length])
        assert list(found.tokens) == tokens.numpy()[row, : counts[row]].tolist()
        assert len(found.tokens) or length < 5


@pytest.mark.parametrize("seed", range(5))
def test_a_beam_that_drops_nothing_ranks_all_labellings_by_their_probability(seed):
    log_probs = random_log_probs(np.random.default_rng(seed), 5, 4, spread=0.7)
    expected = all_labellings(log_probs)
    found = PrefixBeamSearch(beam_size=10_000, num_hypotheses=10_000)(log_probs)
    assert {hypothesis.tokens for hypothesis in found} == set(expected)
    for hypothesis in found:
        assert hypothesis.score == pytest.approx(expected[hypothesis.tokens], abs=1e-6)
    scores = [hypothesis.score for hypothesis in found]
    assert scores == sorted(scores, reverse=True)
    assert np.logaddexp.reduce(scores) == pytest.approx(0.0, abs=1e-6)  # nothing counted twice


def test_sums_over_paths_can_overrule_the_best_path():
    # Best path: blank, blank (0.36). But "a" has 0.4 x 0.6 + 0.6 x 0.4 + 0.4 x 0.4 = 0.64.
    log_probs = np.log(np.array([[0.6, 0.4], [0.6, 0.4]]))
    assert PrefixBeamSearch(beam_size=1)(log_probs)[0].tokens == ()
    (best,) = PrefixBeamSearch(beam_size=4)(log_probs)
    assert best.tokens == (1,)
    assert np.exp(best.score) == pytest.approx(0.64)


def test_no_frames_are_the_empty_labelling():
    (found,) = PrefixBeamSearch(beam_size=4, num_hypotheses=3)(np.zeros([0, 5], np.float32))
    assert (found.tokens, found.score) == ((), 0.0)


def test_pruning_leaves_the_likely_tokens_and_entries():
    log_probs = random_log_probs(np.random.default_rng(3), 6, 5)
    # Two tokens a frame: whatever is found is a labelling of them.
    allowed = np.argsort(-log_probs, axis=1)[:, :2]
    for hypothesis in PrefixBeamSearch(beam_size=500, beam_tokens=2, num_hypotheses=100)(log_probs):
        assert set(hypothesis.tokens) <= set(allowed.ravel().tolist())
    # A threshold below which nothing but the best entry of a frame stays is a beam of one.
    (narrow,) = PrefixBeamSearch(beam_size=500, beam_threshold=0.0)(log_probs)
    assert narrow.tokens == collapse(log_probs.argmax(axis=1).tolist())


def test_hot_words_are_preferred_as_whole_words_alone():
    # Tokens: blank, space, A, B, C; the third letter is B or, a little likelier, C.
    probs = np.full([4, 5], 0.01)
    probs[0, 2], probs[1, 0], probs[2, 2], probs[3] = 0.96, 0.96, 0.96, [0.01, 0.01, 0.01, 0.45, 0.52]
    log_probs = np.log(probs / probs.sum(axis=1, keepdims=True))

    def best(*words, score=3.0):
        return PrefixBeamSearch(beam_size=8, hot_words=HotWords(words, score=score, delimiter_id=1))(log_probs)[0]

    plain = PrefixBeamSearch(beam_size=8)(log_probs)[0]
    assert plain.tokens == (2, 2, 4)
    assert best().tokens == (2, 2, 4)
    assert best((2, 2, 3)).tokens == (2, 2, 3)
    assert best((2, 2, 4)).score == pytest.approx(plain.score + 3.0)
    assert best((2, 2, 3, 3)).tokens == (2, 2, 4)  # AABB is not what AAB is
    assert best((2, 2, 4), score=-3.0).tokens == (2, 2, 3)  # a word may be disliked, too
