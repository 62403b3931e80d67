"""`--mode=tune_lm`: the weight of a language model and the score of a word that give the fewest errors on a set."""

from __future__ import annotations

import dataclasses
import itertools
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
from engine.config import builders
from engine.config.decode import TUNING
from engine.evaluation.metrics import ErrorCounts, count_word_errors
from engine.protocols import AcousticModel, Components, EvalData, Search, Tokenizer, TunableSearch
from engine.workdir.identity import evaluation_folder

_NUM_SHOWN = 12  # trials printed; all are in the file


@dataclasses.dataclass(frozen=True)
class Trial:
    """What one pair of weights gave.

    Attributes:
        lm_weight: As config.decode.lm_weight.
        word_score: As config.decode.word_score.
        words: Its errors over the set.
    """

    lm_weight: float
    word_score: float
    words: ErrorCounts

    def __lt__(self, other: Trial) -> bool:
        # Of equal ones the smaller weight: it leans less on the text of the language model.
        return self._key() < other._key()

    def _key(self) -> tuple[int, float, float]:
        return self.words.num_errors, self.lm_weight, abs(self.word_score)


def run(
    *, config: ConfigDict, parts: Components, workdir: str, checkpoint: str = "", weights: str = "", output: str = ""
) -> int:
    """Tunes `decode.lm_weight` and `decode.word_score` on the set `eval.best_of`; writes them with the rest of
    config.decode, and every trial, into a JSON file that --decode takes; returns the exit status.

    Args:
        config: As configs/base.py, with decode.method=lexicon.
        parts: What data and models contribute.
        workdir: Of the run.
        checkpoint: Instead of the workdir's best one.
        weights: As `engine.checkpointing.restore.restore_weights`.
        output: File to write; "" = decode.json where `evaluation_folder` says.

    Raises:
        ValueError: Something in the config or the data does not fit.
    """
    tune, name = config.tune_lm, config.eval.best_of
    if config.decode.method != "lexicon":
        raise ValueError(
            f"decode.method={config.decode.method}: only lexicon has weights to tune; set "
            "--config.decode.method=lexicon and --config.decode.lm=FILE.arpa"
        )
    if name not in config.data.eval:
        raise ValueError(f"eval.best_of={name!r} names no evaluation set; it is what tune_lm tunes on")
    if not tune.lm_weights or not tune.word_scores:
        raise ValueError("tune_lm.lm_weights and tune_lm.word_scores must name at least one value each")
    tokenizer = builders.build_tokenizer(config, parts, workdir=workdir, checkpoint=checkpoint)
    parts = builders.with_blank(parts, tokenizer)
    config = builders.with_text_style(config, run=checkpoint or workdir)
    # Hot words are a wish, not a quality of the audio: they would bend what is tuned.
    fields = {**config.decode.to_dict(), "hot_words": (), "num_hypotheses": 1}
    search = parts.build_search(pieces=tokenizer.pieces, **fields)
    assert isinstance(search, TunableSearch)  # method lexicon
    config = builders.with_architecture(config, parts, run=checkpoint or workdir)
    data = builders.build_eval_set(config, parts, tokenizer, name)
    model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    path = restore_weights(model, checkpoint or workdir, weights=weights)
    logging.info("tuning on %s with %s", name, path)
    heard = compute_log_probs(model, data, max_utterances=tune.max_utterances)
    greedy = parts.span_decoder
    baseline = count_errors(heard, lambda log_probs: tokenizer.decode([span[0] for span in greedy(log_probs)]))
    start_secs = time.monotonic()
    trials = tune_weights(
        search=search,
        tokenizer=tokenizer,
        heard=heard,
        lm_weights=tune.lm_weights,
        word_scores=tune.word_scores,
        num_refinements=tune.num_refinements,
    )
    elapsed_secs = time.monotonic() - start_secs
    best = min(trials)
    target = output or storage.join(evaluation_folder(workdir, checkpoint), DECODE_FILE)
    tuned = {**config.decode.to_dict(), "lm_weight": best.lm_weight, "word_score": best.word_score}
    files.write_json_atomic(target, {**tuned, TUNING: _report(name, path, heard, baseline, trials)})
    print(f"\n{trial_table(trials, baseline, name)}\n")
    print(
        f"{len(trials)} pairs of weights on {len(heard)} utterances in {elapsed_secs:.0f} s; the best are written to "
        f"{target}: use them with --decode={target}"
    )
    if best.words.num_errors >= baseline.num_errors:
        print("no pair is better than greedy decoding: this language model does not help this recognizer")
    return 0


def compute_log_probs(model: AcousticModel, data: EvalData, *, max_utterances: int = 0) -> list[tuple[str, np.ndarray]]:
    """Runs a set through a model once.

    Args:
        model: With its weights.
        data: The set.
        max_utterances: Evenly spaced rows of it are taken; 0 = all.

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
    heard: Sequence[tuple[str, np.ndarray]],
    lm_weights: Sequence[float],
    word_scores: Sequence[float],
    num_refinements: int,
) -> list[Trial]:
    """Tries every pair of weights, then the neighbours of the best pair at half the distance, and so on.

    Args:
        search: What is tuned.
        tokenizer: Tokens to text.
        heard: References and log-probabilities, as `compute_log_probs`.
        lm_weights: Values of the first round.
        word_scores: Likewise.
        num_refinements: Rounds after it.

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
                trials[pair] = Trial(*pair, count_errors(heard, _best_text(weighted, tokenizer), bar=bar))
            best = min(trials.values())
            bar.set_postfix_str(f"WER {100 * best.words.rate:.2f} %")
            shrink = 2 ** (round_number + 1)
            around = [(-weight_step / shrink, 0, weight_step / shrink), (-score_step / shrink, 0, score_step / shrink)]
            pairs = [
                (round(best.lm_weight + a, 6), round(best.word_score + b, 6))
                for a, b in itertools.product(*around)
                if a or b
            ]
    return list(trials.values())


def count_errors(
    heard: Sequence[tuple[str, np.ndarray]], read: Callable[[np.ndarray], str], *, bar: Any = None
) -> ErrorCounts:
    """Adds up the word errors of a way to read log-probabilities."""
    total = ErrorCounts()
    for reference, log_probs in heard:
        total += count_word_errors(reference, read(log_probs))
        if bar is not None:
            bar.update(1)
    return total


def trial_table(trials: Sequence[Trial], baseline: ErrorCounts, name: str) -> str:
    """Returns a table of the best trials and greedy decoding, best first."""
    lines = [f"{name}: lm_weight  word_score   WER %  substituted  deleted  inserted"]
    width = len(name)

    def line(first: str, second: str, words: ErrorCounts) -> str:
        return (
            f"{'':{width}}  {first:>9}  {second:>10}  {100 * words.rate:6.2f}  {words.substitutions:11}  "
            f"{words.deletions:7}  {words.insertions:8}"
        )

    for trial in sorted(trials)[:_NUM_SHOWN]:
        lines.append(line(f"{trial.lm_weight:g}", f"{trial.word_score:g}", trial.words))
    lines.append(line("greedy", "", baseline))
    return "\n".join(lines)


def _best_text(search: Search | TunableSearch, tokenizer: Tokenizer) -> Callable[[np.ndarray], str]:
    return lambda log_probs: tokenizer.decode(search(log_probs)[0].tokens)


def _closest_distance(values: Sequence[float]) -> float:
    """Between neighbours; of a single value none, and so it stays."""
    return min((b - a for a, b in itertools.pairwise(sorted(set(values)))), default=0.0)


def _report(
    name: str, path: str, heard: Sequence[Any], baseline: ErrorCounts, trials: Sequence[Trial]
) -> Mapping[str, Any]:
    return {
        "set": name,
        "checkpoint": path,
        "num_utterances": len(heard),
        "num_words": baseline.num_reference,
        "greedy_wer": baseline.rate,
        "wer": min(trials).words.rate,
        "trials": [
            {"lm_weight": trial.lm_weight, "word_score": trial.word_score, "wer": trial.words.rate}
            for trial in sorted(trials)
        ],
    }
