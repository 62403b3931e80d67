"""Evaluation: exact counts, whatever the batches and replicas."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from engine.evaluation.evaluator import Evaluator, EvaluatorGroup, RowFunctions
from tests.helpers.engine_toys import toy_decoder, toy_feasible, toy_loss

TEXTS = ["ab", "cd", "ab c", "d", "abcd", "a b c", "dd"]
SPOKEN = ["ab", "cc", "ab c", "", "abcd", "a c", "dd"]  # what the stand-in model hears
VOCAB = "_ abcd"


class EchoModel:
    """Logits that spell the row's waveform: sample k is a token."""

    def __call__(self, waveform, waveform_lengths, training=False, random=None):
        return tf.one_hot(tf.cast(waveform, tf.int32), len(VOCAB)) * 9.0

    def output_lengths(self, waveform_lengths):
        return tf.cast(waveform_lengths, tf.int32)


class Letters:
    num_tokens = len(VOCAB)

    def decode(self, ids):
        return "".join(VOCAB[i] for i in ids)


class ToyData:
    """Seven rows in batches of `batch_size`, the last one filled up."""

    def __init__(self, batch_size, spoken=SPOKEN, *, drop=0):
        self.num_batches = -(-len(spoken) // batch_size)
        self.utterance_ids = {i: f"utterance-{i}" for i in range(len(spoken))}
        self.references = dict(enumerate(TEXTS[: len(spoken)]))
        self._spoken, self._batch_size, self._drop = spoken, batch_size, drop

    def dataset(self, context):
        rows = self.num_batches * self._batch_size
        waveform = np.zeros((rows, 8), np.float32)
        lengths, labels, label_lengths = (np.zeros(rows, np.int32) for _ in range(3))
        labels = np.ones((rows, 8), np.int32)
        index = np.full(rows, -1, np.int64)
        for i, text in enumerate(self._spoken[: len(self._spoken) - self._drop]):
            waveform[i, : len(text)] = [VOCAB.index(c) for c in text]
            lengths[i], index[i], label_lengths[i] = len(text), i, min(len(text), 1)
        size = self._batch_size // context.num_replicas_in_sync
        rows = {
            "waveform": waveform, "waveform_lengths": lengths, "labels": labels, "label_lengths": label_lengths,
            "weight": (index >= 0).astype(np.float32), "utterance_index": index,
        }  # fmt: skip
        options = tf.data.Options()
        options.autotune.enabled = False
        options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
        return tf.data.Dataset.from_tensor_slices(rows).batch(size, drop_remainder=True).with_options(options)


def make_evaluator(data, strategy=None, **fields):
    return Evaluator(
        **{"num_logged": 3, **fields},
        name="toy",
        strategy=strategy or tf.distribute.OneDeviceStrategy("/cpu:0"),
        model=EchoModel(),
        data=data,
        functions=RowFunctions(loss_fn=toy_loss, feasible_fn=toy_feasible, decoder=toy_decoder),
        tokenizer=Letters(),
    )


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_every_utterance_counts_once_for_any_batch_size(batch_size):
    evaluator = make_evaluator(ToyData(batch_size))
    figures = evaluator.evaluate_all()
    # "cd" heard "cc": substitution; "d" heard "": deletion; "a b c" heard "a c": deletion; 10 words.
    wanted = {"substitutions": 1, "deletions": 2, "insertions": 0, "num_words": 10, "num_utterances": 7}
    assert {name: figures[name] for name in wanted} == wanted
    assert figures["wer"] == pytest.approx(0.3)
    texts = {row["utterance_id"]: row["hypothesis"] for row in evaluator.score.predictions()}
    assert texts == {f"utterance-{i}": text for i, text in enumerate(SPOKEN)}


def test_two_replicas_count_the_same(two_replicas):
    alone = make_evaluator(ToyData(4)).evaluate_all()
    together = make_evaluator(ToyData(4), two_replicas).evaluate_all()
    assert {k: v for k, v in alone.items() if k not in ("audio_secs_per_sec", "loss")} == {
        k: v for k, v in together.items() if k not in ("audio_secs_per_sec", "loss")
    }
    assert alone["loss"] == pytest.approx(together["loss"], rel=1e-5)


def test_a_second_pass_starts_from_zero():
    evaluator = make_evaluator(ToyData(3))
    first, second = evaluator.evaluate_all(), evaluator.evaluate_all()
    assert first["num_utterances"] == second["num_utterances"] == 7
    assert first["wer"] == second["wer"]


def test_a_missing_utterance_is_an_error_not_a_better_figure():
    with pytest.raises(RuntimeError, match="6 utterances scored, 7 expected"):
        make_evaluator(ToyData(3, drop=1)).evaluate_all()


def test_several_sets_are_evaluated_completely_and_by_name():
    group = EvaluatorGroup({"one": make_evaluator(ToyData(3)), "two": make_evaluator(ToyData(2, SPOKEN[:4]))})
    figures = group.evaluate(tf.constant(1))
    assert {name: values["num_utterances"] for name, values in figures.items()} == {"one": 7, "two": 4}


class Found:
    def __init__(self, tokens):
        self.tokens, self.score = tokens, 0.0


def mend(log_probs):
    """Hears what was said where two frames are alike: "cc" was "cd"."""
    assert log_probs.shape[1] == len(VOCAB)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=-1), 1.0, rtol=1e-5)
    tokens = log_probs.argmax(axis=-1)
    return [Found([VOCAB.index("c"), VOCAB.index("d")] if list(tokens) == [4, 4] else tokens)]


def test_the_texts_of_a_search_are_scored_beside_the_decoders(two_replicas):
    evaluator = make_evaluator(ToyData(4), two_replicas, search=mend)
    group = EvaluatorGroup({"toy": evaluator}, search_method="beam")
    figures = group.evaluate(tf.constant(1))
    assert group.names == list(figures) == list(group.scores) == ["toy", "toy-beam"]
    assert (figures["toy"]["substitutions"], figures["toy-beam"]["substitutions"]) == (1, 0)
    assert figures["toy"]["wer"] == pytest.approx(0.3) and figures["toy-beam"]["wer"] == pytest.approx(0.2)
    texts = {row["utterance_id"]: row["hypothesis"] for row in group.scores["toy-beam"].predictions()}
    assert (texts["utterance-1"], texts["utterance-4"]) == ("cd", "abcd")
    with pytest.raises(ValueError, match="data.eval.toy-beam: "):
        EvaluatorGroup({"toy": evaluator, "toy-beam": evaluator}, search_method="beam")


class WithStyles(ToyData):
    def references_in(self, style):
        return {index: f"{text}{style}" for index, text in self.references.items()}


def test_each_normalizer_scores_every_set_under_a_name_of_its_own(two_replicas):
    evaluator = make_evaluator(WithStyles(4), two_replicas, search=mend)
    asked = []

    def normalize(text, style):
        asked.append(text)
        return text + style

    group = EvaluatorGroup(
        {"toy": evaluator}, search_method="beam", normalizers={"x": "!", "y": ""}, normalize=normalize
    )
    figures = group.evaluate(tf.constant(1))
    names = ["toy", "toy-beam", "toy-x", "toy-y", "toy-beam-x", "toy-beam-y"]
    assert group.names == names and sorted(figures) == sorted(group.scores) == sorted(names) == sorted(group.data)
    assert {id(data) for data in group.data.values()} == {id(evaluator.data)}
    assert figures["toy-y"]["wer"] == figures["toy"]["wer"] == pytest.approx(0.3)
    assert figures["toy-beam-y"]["wer"] == figures["toy-beam"]["wer"] == pytest.approx(0.2)
    # "d" heard as nothing: with the mark, a word of its own is substituted instead.
    assert (figures["toy"]["deletions"], figures["toy-x"]["deletions"]) == (2, 1)
    texts = {row["utterance_id"]: (row["reference"], row["hypothesis"]) for row in group.scores["toy-x"].predictions()}
    assert texts["utterance-1"] == ("cd!", "cc!") and set(asked) >= set(SPOKEN)


def test_a_normalizer_may_not_have_the_name_of_another_sets_metrics():
    evaluator = make_evaluator(ToyData(4))
    with pytest.raises(ValueError, match=r"eval\.normalizers: .* both be called toy-x; rename the normalizer"):
        EvaluatorGroup({"toy": evaluator, "toy-x": evaluator}, normalizers={"x": "none"})
