"""Evaluates every utterance of a set exactly once and computes one word error rate over the whole set."""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import orbit
import tensorflow as tf
from absl import logging

from common.whole_compilation import compile_whole
from engine.common.progress import progress_bar
from engine.distributed import cluster
from engine.evaluation.metrics import TranscriptionScore
from engine.evaluation.normalizers import NormalizeFn, normalized_name, rescore
from engine.protocols import AcousticModel, Batch, Decoder, EvalData, FeasibleFn, LossFn, Search, Tokenizer
from engine.training.ema import EmaWeights, ema_name


def search_name(set_name: str, method: str) -> str:
    """Returns the name under which a set's metrics with the texts of a search are reported."""
    return f"{set_name}-{method}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowFunctions:
    """Functions of a batch's logits and labels.

    Attributes:
        loss_fn: Loss of each row.
        feasible_fn: Rows that can have a loss.
        decoder: Logits to tokens, in the graph.
        jit_compile: Whether XLA compiles the step with these functions and the model as a whole.
    """

    loss_fn: LossFn
    feasible_fn: FeasibleFn
    decoder: Decoder
    jit_compile: bool = False


class Evaluator(orbit.StandardEvaluator):
    """Transcribes one evaluation set and scores it on the host."""

    def __init__(
        self,
        *,
        name: str,
        strategy: tf.distribute.Strategy,
        model: AcousticModel,
        data: EvalData,
        functions: RowFunctions,
        tokenizer: Tokenizer,
        num_logged: int,
        between_batches: Callable[[], None] | None = None,
        search: Search | None = None,
    ) -> None:
        """Creates the evaluator.

        Args:
            name: Name of the evaluation set.
            strategy: Strategy to evaluate under.
            model: The model.
            data: The evaluation set.
            functions: Loss and decoder.
            tokenizer: Converts tokens to text, on the host.
            num_logged: Number of sample predictions to log.
            between_batches: Called after each batch; may raise, which abandons the pass.
            search: Search on the host, whose texts are scored in addition to the decoder's.
        """
        super().__init__(strategy.distribute_datasets_from_function(data.dataset))
        self._set_name = self._label = name
        self.score, self.search_score = TranscriptionScore(), TranscriptionScore()
        self._search = search
        self._strategy = strategy
        self._model = model
        self._data = data
        self._functions = functions
        if functions.jit_compile:
            self._transcribe = compile_whole(self._transcribe)  # type: ignore[method-assign]
        self._tokenizer = tokenizer
        self._num_logged = num_logged
        self._between_batches = between_batches
        self._bar: Any = None
        self._start_secs = 0.0
        self._sums = {"loss_sum": 0.0, "num_losses": 0.0, "audio_samples": 0.0}
        # Results of this process: utterance index, the decoder's text, the search's text.
        self._texts: list[tuple[int, str, str]] = []

    @property
    def data(self) -> EvalData:
        """The evaluation set."""
        return self._data

    def evaluate_all(self, name: str = "") -> dict[str, float]:
        """Runs one whole pass; eager.

        Args:
            name: Name for log and progress bar; "" = the set's name.
        """
        self._label = name or self._set_name
        # The number of batches is known and the same on every replica, so that no replica ends before the others.
        return self.evaluate(tf.constant(self._data.num_batches, tf.int32))

    def eval_begin(self) -> TranscriptionScore:
        """Starts a new score; eager."""
        self.score, self.search_score = TranscriptionScore(), TranscriptionScore()
        self._sums = dict.fromkeys(self._sums, 0.0)
        self._texts = []
        self._start_secs = time.monotonic()
        logging.info("evaluating %s: %d utterances", self._label, len(self._data.references))
        self._bar = progress_bar(total=self._data.num_batches, description=f"eval {self._label}", unit="batch")
        return self.score

    @tf.autograph.experimental.do_not_convert  # see `Trainer.train_step`
    def eval_step(self, iterator: tf.data.Iterator) -> dict[str, tf.Tensor]:
        """Transcribes one batch per replica; graph, cross-replica context."""
        # A compiled function is called by an ordinary one: a strategy would compile all replicas together.
        return self._strategy.run(lambda batch: self._transcribe(batch), args=(next(iterator),))

    def _transcribe(self, batch: Batch) -> dict[str, tf.Tensor]:
        """Computes tokens and losses of a batch; graph, replica context."""
        logits = self._model(batch["waveform"], batch["waveform_lengths"], training=False)
        lengths = self._model.output_lengths(batch["waveform_lengths"])
        tokens, num_tokens = self._functions.decoder(logits, lengths)
        labels, label_lengths = batch["labels"], batch["label_lengths"]
        losses = self._functions.loss_fn(logits, lengths, labels, label_lengths)
        is_scored = self._functions.feasible_fn(labels, label_lengths, lengths) & (batch["weight"] > 0)
        searched = {}
        if self._search is not None:
            searched = {"log_probs": tf.nn.log_softmax(tf.cast(logits, tf.float32)), "num_frames": lengths}
        return {
            **searched,
            "tokens": tokens,
            "num_tokens": num_tokens,
            "loss": tf.where(is_scored, losses, 0.0),
            "is_scored": is_scored,
            "waveform_lengths": batch["waveform_lengths"],
            "utterance_index": batch["utterance_index"],
        }

    def eval_reduce(self, state: TranscriptionScore, step_outputs: dict[str, tf.Tensor]) -> TranscriptionScore:
        """Decodes and counts on the host; eager."""
        local = {
            key: [value.numpy() for value in self._strategy.experimental_local_results(values)]
            for key, values in step_outputs.items()
        }
        # Of several workers, only this one's replicas are local.
        for replica in range(len(local["utterance_index"])):
            rows = {key: values[replica] for key, values in local.items()}
            self._sums["loss_sum"] += float(rows["loss"].sum())
            self._sums["num_losses"] += float(rows["is_scored"].sum())
            self._sums["audio_samples"] += float(rows["waveform_lengths"].sum())
            self._collect_texts(rows)
        self._bar.update(1)
        if self._between_batches is not None:
            self._between_batches()
        return state

    def _collect_texts(self, rows: Mapping[str, np.ndarray]) -> None:
        for row, index in enumerate(rows["utterance_index"].tolist()):
            if index < 0:
                continue  # a padding row
            text = self._tokenizer.decode(rows["tokens"][row, : rows["num_tokens"][row]].tolist())
            other = ""
            if self._search is not None:
                best = self._search(rows["log_probs"][row, : rows["num_frames"][row]])[0]
                other = self._tokenizer.decode(best.tokens)
            self._texts.append((index, text, other))

    def _merge_workers(self, score: TranscriptionScore) -> None:
        """Scores the results of all workers on every worker, so that all draw the same conclusions."""
        # Copies, because TensorFlow wraps the attributes of trackable objects in types that JSON refuses.
        mine = json.dumps({"texts": list(self._texts), "sums": dict(self._sums)})
        workers = [json.loads(text) for text in cluster.gather_texts(self._strategy, mine)]
        for name in self._sums:
            self._sums[name] = sum(worker["sums"][name] for worker in workers)
        for worker in workers:
            for index, text, other in worker["texts"]:
                # Unreadable audio counts as an empty hypothesis; leaving it out would flatter the error rate.
                score.add(self._data.utterance_ids[index], self._data.references[index], text)
                if self._search is not None:
                    self.search_score.add(self._data.utterance_ids[index], self._data.references[index], other)

    def eval_end(self, state: TranscriptionScore) -> dict[str, float]:
        """Merges the workers' results, checks that no utterance is missing and returns the metrics; eager."""
        self._bar.close()
        self._merge_workers(state)
        elapsed_secs = time.monotonic() - self._start_secs
        summary = state.summary()
        if summary["num_utterances"] != len(self._data.references):
            raise RuntimeError(
                f"evaluation set {self._set_name}: {summary['num_utterances']} utterances scored, "
                f"{len(self._data.references)} expected"
            )
        for example in state.samples(self._num_logged):
            name = f"{self._label} {example['utterance_id']}"
            logging.info("%s  said:  %s", name, example["reference"])
            logging.info("%s  heard: %s", " " * len(name), example["hypothesis"])
        audio_secs = self._sums["audio_samples"] / 16_000
        return {
            **summary,
            "loss": self._sums["loss_sum"] / max(self._sums["num_losses"], 1.0),
            "audio_secs_per_sec": audio_secs / max(elapsed_secs, 1e-6),
        }


class EvaluatorGroup(orbit.AbstractEvaluator):
    """Runs several evaluators in turn; the output is {set name: metrics}.

    Attributes:
        scores: {name: score of the last evaluation}.
    """

    def __init__(
        self,
        evaluators: Mapping[str, Evaluator],
        *,
        ema: EmaWeights | None = None,
        search_method: str = "",
        normalizers: Mapping[str, str] | None = None,
        normalize: NormalizeFn = lambda text, style: text,
    ) -> None:
        """Evaluates nothing yet.

        Args:
            evaluators: {name of the set: its evaluator}.
            ema: Averaged weights; each set is also evaluated with them, as `ema_name(set)`.
            search_method: Name of the evaluators' search, whose metrics are reported as `search_name(set, method)`;
                "" = they have none.
            normalizers: {name: style} of further scorings, whose metrics are reported as `normalized_name(set, name)`.
            normalize: Writes a text in a style.

        Raises:
            ValueError: A set has the name of another set's metrics.
        """
        self._search_method = search_method
        self._normalizers, self._normalize = dict(normalizers or {}), normalize
        clash = next((name for name in evaluators if search_name(name, search_method) in evaluators), None)
        if clash is not None and search_method:
            raise ValueError(
                f"data.eval.{search_name(clash, search_method)}: this name is used for the metrics of {clash} with "
                f"decode.method={search_method}; rename the set"
            )
        self.scores: dict[str, TranscriptionScore] = {}
        self._evaluators = dict(evaluators)
        self._ema = ema
        repeated = [name for name, count in Counter(self.names).items() if count > 1]
        if repeated:
            raise ValueError(
                f"eval.normalizers: the metrics of two sets would both be called {repeated[0]}; rename the normalizer"
            )

    @property
    def names(self) -> list[str]:
        """Names in the output."""
        averaged = [ema_name(name) for name in self._evaluators] if self._ema is not None else []
        names = [*self._evaluators, *averaged]
        names += [search_name(name, self._search_method) for name in names if self._search_method]
        return [*names, *(normalized_name(name, other) for name in names for other in self._normalizers)]

    @property
    def data(self) -> dict[str, EvalData]:
        """The set of each of `names`."""
        found: dict[str, EvalData] = {}
        for name, evaluator in self._evaluators.items():
            for own in (name, *([ema_name(name)] if self._ema is not None else [])):
                found[own] = evaluator.data
                if self._search_method:
                    found[search_name(own, self._search_method)] = evaluator.data
        found |= {normalized_name(name, other): data for name, data in found.items() for other in self._normalizers}
        return found

    def evaluate(self, num_steps: tf.Tensor) -> dict[str, dict[str, float]]:
        """Evaluates every set completely; ignores `num_steps`, because a partial error rate is not comparable."""
        del num_steps
        metrics: dict[str, dict[str, float]] = {}
        for name, evaluator in self._evaluators.items():
            metrics |= self._evaluate(name, evaluator)
        if self._ema is not None:
            with self._ema.swapped():
                for name, evaluator in self._evaluators.items():
                    metrics |= self._evaluate(ema_name(name), evaluator)
        return metrics

    def _evaluate(self, name: str, evaluator: Evaluator) -> dict[str, dict[str, float]]:
        found = {name: evaluator.evaluate_all(name)}
        self.scores[name] = evaluator.score
        if self._search_method:
            other = search_name(name, self._search_method)
            found[other] = evaluator.search_score.summary()
            self.scores[other] = evaluator.search_score
        return found | self._rescore(list(found), evaluator.data)

    def _rescore(self, names: Sequence[str], data: EvalData) -> dict[str, dict[str, float]]:
        """Scores the texts of an evaluation as each normalizer writes them, and returns the metrics by name."""
        found = {}
        for normalizer, style in self._normalizers.items():
            references = {data.utterance_ids[index]: text for index, text in data.references_in(style).items()}
            for name in names:
                own = normalized_name(name, normalizer)
                self.scores[own] = rescore(self.scores[name], references, style, self._normalize)
                found[own] = self.scores[own].summary()
        return found
