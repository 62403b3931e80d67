"""The noisy channel of the language-model benchmark."""

import numpy as np

from benchmarks import language_model
from data.text.tokenizer import load_tokenizer
from models.ctc.alignment import greedy_spans


def test_the_channel_says_the_text_where_it_is_clear_and_errs_where_it_is_not():
    tokenizer, text = load_tokenizer(), "ALL OF IT'S BOOKKEEPING " * 20 + "END"

    def heard(strength):
        log_probs = language_model.transmit(text, 3000, tokenizer, np.random.default_rng(0), strength=strength)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-4)
        assert log_probs.shape == (3000, 32)
        return tokenizer.decode([span.token for span in greedy_spans(log_probs)])

    counts, _ = language_model.measure([(text, None)], lambda _: heard(8.0))
    assert 0.15 < counts.rate < 0.6
    assert heard(60.0) == text
