"""Tuning the weights of a language model."""

import itertools
import json

import numpy as np
import pytest

from engine.evaluation.metrics import ErrorCounts
from engine.modes import tune_lm
from models.search.lexicon import Spelling
from models.search.lexicon_beam import LexiconBeamSearch
from tests.helpers.experiment_toys import ToyEvalData, make_config, make_parts
from tests.helpers.models_lm import ARPA, PIECES, emissions, lexicon_options, needs_flashlight


class Letters:
    token_strings = PIECES

    def decode(self, ids):
        return "".join(PIECES[i] for i in ids)


class Curve:
    """A search with the more wrong words the further its weights are from (1.25, 0.5)."""

    def __init__(self, weights=(0.0, 0.0)):
        self.weights = weights
        self.tried = []

    def with_weights(self, *, lm_weight, word_score):
        self.tried.append((lm_weight, word_score))
        return Curve((lm_weight, word_score))

    def __call__(self, log_probs):
        distance = abs(self.weights[0] - 1.25) + abs(self.weights[1] - 0.5)
        return [type("Found", (), {"tokens": [round(16 * distance)]})()]


class Wrong:
    def decode(self, ids):
        return " ".join(["NO"] * ids[0] + ["YES"] * (100 - ids[0]))


def test_the_best_pair_is_found_by_halving_the_distance():
    search = Curve()
    trials = tune_lm.tune_weights(
        search=search,
        tokenizer=Wrong(),
        heard=[(" ".join(["YES"] * 100), np.zeros([1, 1]))],
        lm_weights=(0.5, 1.0, 2.0),
        word_scores=(-1.0, 1.0),
        num_refinements=3,
    )
    best = tune_lm.choose_middle(trials)
    # Steps 0.5 and 2 halve to 0.25 and 1, and so on: (1, 1), then (1.25, 1) or (1, 0), then (1.25, 0.5).
    assert (best.lm_weight, best.word_score, best.errors.num_errors) == (1.25, 0.5, 0)
    assert len(search.tried) == len(set(search.tried)) == len(trials)  # none tried twice
    assert min(weight for weight, _ in search.tried) >= 0


def plateau(*pairs, errors=1):
    return [tune_lm.Trial(*pair, ErrorCounts(hits=9, substitutions=errors)) for pair in pairs]


def test_of_a_plateau_of_ties_the_middle_is_taken():
    weights, scores = (0.25, 0.5, 0.75, 1.0, 1.5), (-1.0, 0.0, 1.0)
    ties = plateau(*itertools.product(weights, scores))
    worse = plateau((0.0, 0.0), (2.0, 0.0), errors=2)
    best = tune_lm.choose_middle([*worse, *reversed(ties)])
    assert (best.lm_weight, best.word_score) == (0.75, 0.0)
    # A lucky pair far away does not pull it off the plateau.
    best = tune_lm.choose_middle([*ties, *plateau((9.0, 5.0))])
    assert (best.lm_weight, best.word_score) == (0.75, 0.0)
    # Two are no plateau: the smaller weight leans less on the text of the language model.
    assert tune_lm.choose_middle(plateau((1.0, 0.0), (0.5, 0.0))).lm_weight == 0.5
    assert tune_lm.choose_middle([*plateau((1.0, 0.0), (3.0, 0.0)), *plateau((2.0, 0.0), errors=0)]).lm_weight == 2.0


def test_the_search_refines_around_the_middle_of_a_plateau():
    class Flat(Curve):
        def with_weights(self, *, lm_weight, word_score):
            self.tried.append((lm_weight, word_score))
            return Flat((lm_weight, word_score))

        def __call__(self, log_probs):
            return [type("Found", (), {"tokens": [0 if 0.5 <= self.weights[0] <= 2.5 else 9]})()]

    search = Flat()
    trials = tune_lm.tune_weights(
        search=search,
        tokenizer=Wrong(),
        heard=[(" ".join(["YES"] * 100), np.zeros([1, 1]))],
        lm_weights=(0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0),
        word_scores=(0.0,),
        num_refinements=1,
    )
    assert search.tried[7:] == [(1.25, 0), (1.75, 0)]
    assert tune_lm.choose_middle(trials).lm_weight == 1.5


def test_half_of_the_set_is_kept_for_the_report():
    heard = [(str(number), np.zeros([1, 1])) for number in range(5)]
    tuned, held_out = tune_lm.split_halves(heard, "dev")
    assert [[reference for reference, _ in half] for half in (tuned, held_out)] == [["0", "2", "4"], ["1", "3"]]
    with pytest.raises(ValueError, match="data.eval.dev: tune_lm needs at least two utterances, .* finds 1;"):
        tune_lm.split_halves(heard[:1], "dev")


@needs_flashlight
def test_weights_of_the_real_search_share_its_model_and_change_its_text(tmp_path):
    (tmp_path / "lm.arpa").write_text(ARPA)
    fields = {"spelling": Spelling(PIECES), "num_tokens": len(PIECES), "words": ["THE", "CAT", "CAR"]}
    search = LexiconBeamSearch(options=lexicon_options(lm=str(tmp_path / "lm.arpa")), **fields)
    heard = [("THE CAT", emissions("THE CAR", unsure={6: ("T", 0.3)})), ("THE CAR", emissions("THE CAR"))]
    trials = tune_lm.tune_weights(
        search=search, tokenizer=Letters(), heard=heard, lm_weights=(0.0, 1.0), word_scores=(0.0,), num_refinements=0
    )
    assert [(trial.lm_weight, trial.errors.num_errors) for trial in trials] == [(0.0, 1), (1.0, 0)]
    hot = LexiconBeamSearch(options=lexicon_options(hot_words=["CAR"], hot_word_score=1.0), **fields)
    with pytest.raises(ValueError, match="tune without them"):
        hot.with_weights(lm_weight=2.0, word_score=0.0)


def test_a_config_that_has_nothing_to_tune_is_refused_before_anything_slow(tmp_path):
    config = make_config(tmp_path)
    with pytest.raises(ValueError, match="decode.method=greedy: only lexicon"):
        tune_lm.run(config=config, parts=make_parts(), workdir=str(tmp_path))
    config.decode.method = "lexicon"
    config.eval.best_metric_set = "dev"
    with pytest.raises(ValueError, match="eval.best_metric_set='dev' names no evaluation set"):
        tune_lm.run(config=config, parts=make_parts(), workdir=str(tmp_path))


def test_log_probs_are_of_evenly_spaced_rows_without_their_padding():
    class Echo:
        def __call__(self, waveform, waveform_lengths, training=False):
            return waveform[:, :, np.newaxis] * np.array([1.0, 0.0], np.float32)

        def output_lengths(self, waveform_lengths):
            return waveform_lengths

    data = ToyEvalData(batch_size=4)
    everything = tune_lm.compute_log_probs(Echo(), data)
    assert len(everything) == 8
    for (_, log_probs), rows in zip(everything, np.arange(8), strict=True):
        assert 20 <= len(log_probs) <= 40, rows
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-5)
    some = tune_lm.compute_log_probs(Echo(), data, max_utterances=3)
    for (_, found), place in zip(some, (0, 2, 5), strict=True):
        np.testing.assert_array_equal(found, everything[place][1])


def test_the_file_is_json_of_all_fields_and_all_trials(tmp_path):
    config = make_config(tmp_path)
    trials = [tune_lm.Trial(1.0, 0.0, ErrorCounts(hits=3, deletions=1))]
    tuned = tune_lm.Half(2, ErrorCounts(hits=2, deletions=2), trials[0].errors)
    held_out = tune_lm.Half(3, ErrorCounts(hits=2, deletions=2), ErrorCounts(hits=4))
    report = tune_lm._report("dev", "ckpt-1", [tuned, held_out], trials)
    assert json.loads(json.dumps(report))["trials"] == [{"lm_weight": 1.0, "word_score": 0.0, "wer": 0.25}]
    assert (report["wer"], report["greedy_wer"], report["num_utterances"]) == (0.25, 0.5, 2)
    assert report["held_out"] == {"num_utterances": 3, "num_words": 4, "greedy_wer": 0.5, "wer": 0.0}
    table = tune_lm.trial_table(trials, trials[0], ErrorCounts(hits=2, deletions=2), "dev")
    assert [line.split()[:3] for line in table.splitlines()[1:]] == [["1", "0", "25.00"], ["greedy", "50.00", "0"]]
    ties = plateau((0.5, 0.0), (1.0, 0.0), (1.5, 0.0))
    lines = tune_lm.trial_table(ties, ties[1], ErrorCounts(hits=2), "dev").splitlines()
    assert lines[1].split()[0] == "1" and lines[-1].startswith("3 pairs have equally few errors; the first line is")
    halves = tune_lm.halves_table([tuned, held_out], "dev")
    assert [line.split()[2:] for line in halves.splitlines()[1:]] == [["2", "50.00", "25.00"], ["3", "50.00", "0.00"]]
    assert config.tune_lm.max_utterances == 500


def test_where_the_texts_have_no_spaces_characters_are_counted():
    class Twice:
        """A search that is nearest to the reference at weight 1, though each of its sentences has an error."""

        def with_weights(self, *, lm_weight, word_score):
            return lambda log_probs: [type("Found", (), {"tokens": [0 if lm_weight == 1.0 else 1]})()]

    class Sentences:
        def decode(self, tokens):
            return ("你好世人", "不不不不")[tokens[0]]

    heard = [("你好世界", np.zeros([1, 1]))]
    fields = {"search": Twice(), "tokenizer": Sentences(), "heard": heard, "word_scores": (0.0,), "num_refinements": 0}
    weights = (0.0, 1.0, 2.0)
    by_words = tune_lm.tune_weights(**fields, lm_weights=weights)
    by_chars = tune_lm.tune_weights(**fields, lm_weights=weights, metric="cer")
    assert [trial.errors.num_errors for trial in by_words] == [1, 1, 1]
    assert [trial.errors.num_errors for trial in by_chars] == [4, 1, 4]
    half = tune_lm.Half(1, ErrorCounts(substitutions=4), by_chars[1].errors, "cer")
    assert half.to_dict() == {"num_utterances": 1, "num_chars": 4, "greedy_cer": 1.0, "cer": 0.25}
    report = tune_lm._report("dev", "ckpt-1", [half, half], by_chars)
    assert report["trials"][0] == {"lm_weight": 1.0, "word_score": 0.0, "cer": 0.25}
    assert "CER %" in tune_lm.trial_table(by_chars, by_chars[1], half.greedy, "dev", metric="cer")
    assert "greedy CER %  CER %" in tune_lm.halves_table([half, half], "dev")
