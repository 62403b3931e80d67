"""Runs `--mode=tune_lm`: finds the language model's weight and the word score that give the fewest errors on a set."""

from __future__ import annotations

import dataclasses
import itertools
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging
from ml_collections import ConfigDict

from common import storage
from common.workdir_layout import DECODE_FILE
from engine.checkpointing.restore import restore_weights
from engine.common import files
from engine.common.progress import progress_bar
from engine.config import builders, field_rules, fields_of_run
from engine.config.decode import TUNING
from engine.evaluation.metrics import ErrorCounts, count_char_errors, count_word_errors
from engine.protocols import AcousticModel, Components, EvalData, Search, Tokenizer, TunableSearch
from engine.workdir.identity import evaluation_folder

Utterances = Sequence[tuple[str, np.ndarray]]
CountFn = Callable[[str, str], ErrorCounts]

# The function that counts the errors of a metric, and the name of its number of reference tokens in decode.json.
_COUNTED: dict[str, tuple[CountFn, str]] = {
    "wer": (count_word_errors, "num_words"),
    "cer": (count_char_errors, "num_chars"),
}
_NUM_SHOWN = 12  # trials printed; all are in the file


@dataclasses.dataclass(frozen=True)
class Trial:
    """The errors of one pair of weights.

    Attributes:
        lm_weight: Value of config.decode.lm_weight.
        word_score: Value of config.decode.word_score.
        errors: Errors of words, or of characters, over the tuning half.
    """

    lm_weight: float
    word_score: float
    errors: ErrorCounts

    def __lt__(self, other: Trial) -> bool:
        return self._key() < other._key()

    def _key(self) -> tuple[int, float, float]:
        return self.errors.num_errors, self.lm_weight, abs(self.word_score)


@dataclasses.dataclass(frozen=True)
class Half:
    """The errors over one half of the set, without and with the language model.

    Attributes:
        num_utterances: Utterances in the half.
        greedy: Errors of greedy decoding.
        errors: Errors with the chosen weights.
        metric: "wer" for words, "cer" for characters.
    """

    num_utterances: int
    greedy: ErrorCounts
    errors: ErrorCounts
    metric: str = "wer"

    def to_dict(self) -> dict[str, Any]:
        """Returns the JSON object of this half in decode.json."""
        return {
            "num_utterances": self.num_utterances,
            _COUNTED[self.metric][1]: self.greedy.num_reference,
            f"greedy_{self.metric}": self.greedy.rate,
            self.metric: self.errors.rate,
        }


def run(
    *, config: ConfigDict, parts: Components, workdir: str, checkpoint: str = "", weights: str = "", output: str = ""
) -> int:
    """Tunes `decode.lm_weight` and `decode.word_score` on half of the set `eval.best_metric_set`.

    Prints the errors on both halves, and writes the fields of config.decode and every trial to a JSON file that
    --decode reads.

    Args:
        config: The fields of configs/base.py, with decode.method=lexicon.
        parts: Callables of data and models.
        workdir: Folder of the run.
        checkpoint: Weights to use instead of the best of the workdir.
        weights: "raw", "ema" or "" for the checkpoint's own choice.
        output: File to write; "" = decode.json in the folder of the evaluation.

    Raises:
        ValueError: The config and the data do not fit together.
    """
    _check(config)
    tune, name = config.tune_lm, config.eval.best_metric_set
    tokenizer = builders.build_tokenizer(config, parts, workdir=workdir, checkpoint=checkpoint)
    parts = builders.with_blank(parts, tokenizer)
    config = fields_of_run.with_recorded(config, parts, run=checkpoint or workdir)
    search = _build_search(config, parts, tokenizer)
    data = builders.build_eval_set(config, parts, tokenizer, name)
    metric = fields_of_run.choose_best_metric(config, {name: data})
    model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    path = restore_weights(model, checkpoint or workdir, weights=weights)
    logging.info("tuning on half of %s with %s", name, path)
    tuned, held_out = split_halves(compute_log_probs(model, data, max_utterances=tune.max_utterances), name)
    start_secs = time.monotonic()
    trials = tune_weights(
        search=search,
        tokenizer=tokenizer,
        heard=tuned,
        lm_weights=tune.lm_weights,
        word_scores=tune.word_scores,
        num_refinements=tune.num_refinements,
        metric=metric,
    )
    elapsed_secs = time.monotonic() - start_secs
    best = choose_middle(trials)
    chosen = _best_text(search.with_weights(lm_weight=best.lm_weight, word_score=best.word_score), tokenizer)
    greedy = _greedy_text(parts, tokenizer)
    halves = [
        Half(len(tuned), count_errors(tuned, greedy, metric), best.errors, metric),
        Half(len(held_out), count_errors(held_out, greedy, metric), count_errors(held_out, chosen, metric), metric),
    ]
    target = output or storage.join(evaluation_folder(workdir, checkpoint), DECODE_FILE)
    fields = {**config.decode.to_dict(), "lm_weight": best.lm_weight, "word_score": best.word_score}
    files.write_json_atomic(target, {**fields, TUNING: _report(name, path, halves, trials)})
    print(f"\n{trial_table(trials, best, halves[0].greedy, name, metric=metric)}\n")
    print(f"{halves_table(halves, name)}\n")
    print(
        f"{len(trials)} pairs of weights on {len(tuned)} utterances in {elapsed_secs:.0f} s; lm_weight "
        f"{best.lm_weight:g} and word_score {best.word_score:g} are written to {target}: use them with "
        f"--decode={target}"
    )
    if halves[1].errors.num_errors >= halves[1].greedy.num_errors:
        print(
            "warning: on the utterances that were not tuned on, greedy decoding is as good: this language model does "
            "not help this recognizer"
        )
    return 0


def _check(config: ConfigDict) -> None:
    """Raises ValueError if a config has nothing to tune, or no set to tune on."""
    name = config.eval.best_metric_set
    if config.decode.method != "lexicon":
        raise ValueError(
            f"decode.method={config.decode.method}: only lexicon has weights to tune; set "
            "--config.decode.method=lexicon and --config.decode.lm=FILE.arpa"
        )
    if name not in config.data.eval:
        raise ValueError(f"eval.best_metric_set={name!r} names no evaluation set; it is what tune_lm tunes on")
    field_rules.check_values({"tune_lm": config.tune_lm.to_dict()})


def _build_search(config: ConfigDict, parts: Components, tokenizer: Tokenizer) -> TunableSearch:
    # Tune without hot words; they would bias the weights.
    fields = {**config.decode.to_dict(), "hot_words": (), "num_hypotheses": 1}
    search = parts.build_search(token_strings=tokenizer.token_strings, **fields)
    assert isinstance(search, TunableSearch)  # method lexicon
    return search


def split_halves(heard: Utterances, name: str) -> tuple[Utterances, Utterances]:
    """Returns the utterances to tune on and those to report on: every second one, so that speakers are in both.

    Args:
        heard: References and log-probabilities, in the order of the set.
        name: The set, for the message.

    Raises:
        ValueError: There are fewer than two.
    """
    if len(heard) < 2:
        raise ValueError(
            f"data.eval.{name}: tune_lm needs at least two utterances, half to tune on and half to report on, and "
            f"finds {len(heard)}; give a larger set, or raise tune_lm.max_utterances"
        )
    return heard[::2], heard[1::2]


def choose_middle(trials: Sequence[Trial]) -> Trial:
    """Returns the trial with the fewest errors; of several the one nearest to their median.

    Errors are whole numbers, so neighbours often tie. A weight at the edge of such a plateau is one step from a worse
    one; other utterances move the edge.
    """
    fewest = min(trial.errors.num_errors for trial in trials)
    ties = [trial for trial in trials if trial.errors.num_errors == fewest]
    axes = [[trial.lm_weight for trial in ties], [trial.word_score for trial in ties]]
    centre = [statistics.median(axis) for axis in axes]
    widths = [max(axis) - min(axis) or 1.0 for axis in axes]

    def distance(trial: Trial) -> float:
        place = (trial.lm_weight, trial.word_score)
        return sum(((x - middle) / width) ** 2 for x, middle, width in zip(place, centre, widths, strict=True))

    return min(ties, key=lambda trial: (round(distance(trial), 9), trial._key()))


def compute_log_probs(model: AcousticModel, data: EvalData, *, max_utterances: int = 0) -> list[tuple[str, np.ndarray]]:
    """Runs a set through a model once.

    Args:
        model: The trained model.
        data: The evaluation set.
        max_utterances: Number of evenly spaced utterances to take; 0 = all.

    Returns:
        Of each row the reference and float32 [F, V].
    """
    indices = sorted(data.references)
    count = min(max_utterances or len(indices), len(indices))
    wanted = {indices[i * len(indices) // count] for i in range(count)}

    @tf.function(reduce_retracing=True, autograph=False)
    def step(waveform: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = model(waveform, lengths, training=False)
        return tf.nn.log_softmax(tf.cast(logits, tf.float32)), model.output_lengths(lengths)

    found: dict[int, np.ndarray] = {}
    with progress_bar(total=len(wanted), description="logits", unit="utt") as bar:
        for batch in data.dataset(tf.distribute.InputContext()):
            rows = batch["utterance_index"].numpy().tolist()
            if not wanted.intersection(rows):
                continue
            log_probs, num_frames = step(batch["waveform"], batch["waveform_lengths"])
            for index, frames, length in zip(rows, log_probs.numpy(), num_frames.numpy(), strict=True):
                if index in wanted:
                    found[index] = frames[:length].copy()
                    bar.update(1)
    return [(data.references[index], found[index]) for index in sorted(found)]


def tune_weights(
    *,
    search: TunableSearch,
    tokenizer: Tokenizer,
    heard: Utterances,
    lm_weights: Sequence[float],
    word_scores: Sequence[float],
    num_refinements: int,
    metric: str = "wer",
) -> list[Trial]:
    """Tries every pair of weights, then the neighbours of the best pair at half the distance, and so on.

    Args:
        search: The beam-search decoder to tune.
        tokenizer: Turns its tokens into text.
        heard: References and log-probabilities of the utterances to tune on.
        lm_weights: Values of lm_weight in the first round.
        word_scores: Values of word_score in the first round.
        num_refinements: Rounds after the first.
        metric: The errors to count, "wer" or "cer".

    Returns:
        The trials, in the order in which they were made.
    """
    trials: dict[tuple[float, float], Trial] = {}
    pairs = list(itertools.product(lm_weights, word_scores))
    weight_step, score_step = _closest_distance(lm_weights), _closest_distance(word_scores)
    total = (len(pairs) + num_refinements * 8) * len(heard)
    with progress_bar(total=total, description="tune_lm", unit="utt") as bar:
        for round_number in range(num_refinements + 1):
            for pair in pairs:
                if pair in trials or pair[0] < 0:
                    bar.update(len(heard))
                    continue
                weighted = search.with_weights(lm_weight=pair[0], word_score=pair[1])
                trials[pair] = Trial(*pair, count_errors(heard, _best_text(weighted, tokenizer), metric, bar=bar))
            best = choose_middle(list(trials.values()))
            bar.set_postfix_str(f"{metric.upper()} {100 * best.errors.rate:.2f} %")
            shrink = 2 ** (round_number + 1)
            around = [(-weight_step / shrink, 0, weight_step / shrink), (-score_step / shrink, 0, score_step / shrink)]
            pairs = [
                (round(best.lm_weight + a, 6), round(best.word_score + b, 6))
                for a, b in itertools.product(*around)
                if a or b
            ]
    return list(trials.values())


def count_errors(
    heard: Utterances, read: Callable[[np.ndarray], str], metric: str = "wer", *, bar: Any = None
) -> ErrorCounts:
    """Sums the errors of a function that turns log-probabilities into text."""
    total, (count, _) = ErrorCounts(), _COUNTED[metric]
    for reference, log_probs in heard:
        total += count(reference, read(log_probs))
        if bar is not None:
            bar.update(1)
    return total


def trial_table(trials: Sequence[Trial], best: Trial, baseline: ErrorCounts, name: str, *, metric: str = "wer") -> str:
    """Returns a table of the chosen trial, the next best ones and greedy decoding, over the tuning half."""
    lines = [f"{name}: lm_weight  word_score   {metric.upper()} %  substituted  deleted  inserted"]
    width = len(name)

    def line(first: str, second: str, errors: ErrorCounts) -> str:
        return (
            f"{'':{width}}  {first:>9}  {second:>10}  {100 * errors.rate:6.2f}  {errors.substitutions:11}  "
            f"{errors.deletions:7}  {errors.insertions:8}"
        )

    others = [trial for trial in sorted(trials) if trial is not best]
    for trial in [best, *others][:_NUM_SHOWN]:
        lines.append(line(f"{trial.lm_weight:g}", f"{trial.word_score:g}", trial.errors))
    lines.append(line("greedy", "", baseline))
    num_ties = sum(trial.errors.num_errors == best.errors.num_errors for trial in trials)
    if num_ties > 1:
        lines.append(f"{num_ties} pairs have equally few errors; the first line is the middle of them")
    return "\n".join(lines)


def halves_table(halves: Sequence[Half], name: str) -> str:
    """Returns a table of the error rates over both halves, without and with the chosen weights."""
    rate = halves[0].metric.upper()
    lines = [f"half of {name}   utterances  greedy {rate} %  {rate} %"]
    width = len("half of " + name)
    for title, half in zip(("tuned on", "held out"), halves, strict=True):
        lines.append(
            f"{title:{width}}  {half.num_utterances:11}  {100 * half.greedy.rate:12.2f}  {100 * half.errors.rate:5.2f}"
        )
    return "\n".join(lines)


def _greedy_text(parts: Components, tokenizer: Tokenizer) -> Callable[[np.ndarray], str]:
    return lambda log_probs: tokenizer.decode([span[0] for span in parts.span_decoder(log_probs)])


def _best_text(search: Search | TunableSearch, tokenizer: Tokenizer) -> Callable[[np.ndarray], str]:
    return lambda log_probs: tokenizer.decode(search(log_probs)[0].tokens)


def _closest_distance(values: Sequence[float]) -> float:
    """Returns the smallest distance between two values; 0 for a single value."""
    return min((b - a for a, b in itertools.pairwise(sorted(set(values)))), default=0.0)


def _report(name: str, path: str, halves: Sequence[Half], trials: Sequence[Trial]) -> Mapping[str, Any]:
    tuned, held_out = halves
    return {
        "set": name,
        "checkpoint": path,
        **tuned.to_dict(),
        "held_out": held_out.to_dict(),
        "trials": [
            {"lm_weight": trial.lm_weight, "word_score": trial.word_score, tuned.metric: trial.errors.rate}
            for trial in sorted(trials)
        ],
    }
