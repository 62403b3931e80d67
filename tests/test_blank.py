"""The CTC blank anywhere in the vocabulary: loss, decoders and searches give what they give with the blank first."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
import tensorflow as tf

from data.text.tokenizer import CharTokenizer
from engine.inference.windows import LogitsChunk, join_windows
from engine.training.frame_statistics import frame_sums
from models.ctc import alignment, greedy
from models.ctc import loss as ctc
from models.search.build import build_search

FIRST = ("<pad>", "<unk>", " ", "A", "B", "C")
WIDTH = len(FIRST)
DECODE = {
    "beam_size": 500, "beam_tokens": 0, "beam_threshold": 50.0, "num_hypotheses": 2, "lm": "", "lexicon": "",
    "lm_weight": 1.0, "word_score": 0.0, "hot_words": (), "hot_word_score": 4.0,
}  # fmt: skip


@pytest.fixture(params=[0, 2, WIDTH - 1])
def moved(request):
    """Where the blank is moved to, and for each new id the old one."""
    order = [index for index in range(WIDTH) if index != 0]
    order.insert(request.param, 0)
    return request.param, np.array(order)


@pytest.fixture
def logits():
    found = np.random.default_rng(0).normal(0.0, 2.0, [2, 30, WIDTH]).astype(np.float32)
    found[:, :, 0] += 1.0
    return found


def new_ids(ids, order):
    return [int(np.flatnonzero(order == index)[0]) for index in ids]


def test_loss_and_gradient(moved, logits):
    blank, order = moved
    labels, lengths = np.array([[3, 4, 4, 5], [5, 2, 0, 0]]), tf.constant([4, 2])
    # Past a row's length stands what the pipeline fills up with, a label of another vocabulary.
    moved_labels = np.array([new_ids(row, order) for row in labels]) * (np.arange(4) < lengths.numpy()[:, np.newaxis])

    def compute(values, labels, blank_id):
        with tf.GradientTape() as tape:
            x = tf.constant(values)
            tape.watch(x)
            loss = ctc.ctc_loss(x, tf.constant([30, 25]), tf.constant(labels), lengths, blank_id=blank_id)
        return loss.numpy(), tape.gradient(loss, x).numpy()

    wanted, gradient = compute(logits, labels, 0)
    found, moved_gradient = compute(logits[:, :, order], moved_labels, blank)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    np.testing.assert_allclose(moved_gradient, gradient[:, :, order], atol=1e-5)


def test_greedy_decoding_spans_alignment_windows_and_health(moved, logits):
    blank, order = moved
    lengths = tf.constant([30, 25])
    tokens, counts = greedy.greedy_decode(tf.constant(logits), lengths)
    found, found_counts = greedy.greedy_decode(tf.constant(logits[:, :, order]), lengths, blank_id=blank)
    np.testing.assert_array_equal(found_counts, counts)
    spans = greedy.greedy_decode_spans(tf.constant(logits[:, :, order]), lengths, blank_id=blank)
    for row, count in enumerate(counts.numpy()):
        wanted = new_ids(tokens.numpy()[row, :count], order)
        assert found.numpy()[row, :count].tolist() == spans.tokens.numpy()[row, :count].tolist() == wanted
    log_probs = tf.nn.log_softmax(logits[0]).numpy()
    plain = alignment.greedy_spans(log_probs)
    heard = alignment.greedy_spans(log_probs[:, order], blank_id=blank)
    assert [span[1:] for span in heard] == [span[1:] for span in plain] and len(plain) > 5
    labels = [3, 4, 4, 2, 5]
    plain_path = alignment.forced_align(log_probs, labels)
    path = alignment.forced_align(log_probs[:, order], new_ids(labels, order), blank_id=blank)
    assert path.log_prob == pytest.approx(plain_path.log_prob)
    assert [span[1:3] for span in path.spans] == [span[1:3] for span in plain_path.spans]
    windows = [LogitsChunk(log_probs[:20], 0), LogitsChunk(log_probs[10:] + 0.0, 10)]
    wanted = [(piece.start_frame, len(piece.log_probs)) for piece in join_windows(windows)]
    windows = [LogitsChunk(window.log_probs[:, order], window.start_frame) for window in windows]
    joined = [(piece.start_frame, len(piece.log_probs)) for piece in join_windows(windows, blank_id=blank)]
    assert joined == wanted and len(joined) == 2
    sums = [
        frame_sums(tf.constant(values), lengths, tf.constant([4, 2]), tf.ones([2]), blank_id=index).numpy()
        for values, index in ((logits, 0), (logits[:, :, order], blank))
    ]
    np.testing.assert_allclose(*sums, rtol=1e-6)
    assert 0 < sums[0][1] < sums[0][0]


@pytest.mark.parametrize("method", ["beam", "lexicon"])
@pytest.mark.parametrize("hot_words", [(), ("AB",)])
def test_searches(moved, logits, method, hot_words, tmp_path):
    if method == "lexicon" and importlib.util.find_spec("flashlight") is None:
        pytest.skip("flashlight-text is not installed")
    blank, order = moved
    (tmp_path / "words.txt").write_text("A\nAB\nBA\nCAB\nC\nCC\n")
    fields = {**DECODE, "method": method, "hot_words": hot_words}
    if method == "lexicon":
        fields["lexicon"] = str(tmp_path / "words.txt")
    tokens = tuple(FIRST[index] for index in order)
    ours, plain = CharTokenizer(tokens=tokens), CharTokenizer(tokens=FIRST)
    assert ours.blank_id == blank
    # So short, and the beam so wide, that nothing is dropped: what flashlight drops among equals is chance.
    log_probs = tf.nn.log_softmax(2 * logits[0, :8]).numpy()
    wanted = build_search(token_strings=plain.token_strings, **fields)(log_probs)
    found = build_search(token_strings=ours.token_strings, blank_id=ours.blank_id, **fields)(log_probs[:, order])
    assert [ours.decode(one.tokens) for one in found] == [plain.decode(one.tokens) for one in wanted]
    np.testing.assert_allclose([one.score for one in found], [one.score for one in wanted], rtol=1e-4)
    assert ours.decode(found[0].tokens)
