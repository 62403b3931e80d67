"""Measures what a language model corrects and what the search costs, on transcripts sent through a noisy channel.

    python -m benchmarks.language_model [--strength=9] [--corpus=../shared/corpora] [--output=FILE.json]

No good recognizer of English is available where this is built, so the logits are synthetic. Each character of a
LibriSpeech transcript gets a frame in the recording's real number of frames (50 per second). There the true character,
one that sounds like it and the blank compete with random strengths; everything else is noise. Weights are tuned on
dev-mini, and the table is of the subset of test-clean; by its README the language model contains neither. The numbers
describe the decoder, not a recognizer: they do not predict the WER of a model of real speech. Results:
docs/results/0150.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from configs.base import get_config
from data.corpus.manifest import read_librispeech
from data.corpus.utterance import Utterance
from data.text.tokenizer import CharTokenizer, load_tokenizer
from engine.evaluation.metrics import ErrorCounts, count_word_errors
from engine.modes.tune_lm import tune_weights
from models.ctc.alignment import greedy_spans
from models.search.build import build_search
from models.search.lexicon import Spelling, read_words
from models.search.lexicon_beam import LexiconBeamSearch
from models.search.options import SearchOptions

FRAMES_PER_SEC = 50
SOUND_ALIKE = ("AEIOU", "PB", "TD", "KCGQ", "SZX", "MN", "FV", "LRW", "JYH", "' ")
# Mean strengths of the similar character and of the blank, and the deviation of all three.
ALIKE, BLANK, DEVIATION = 3.0, 1.0, 2.0


def transmit(
    text: str, num_frames: int, tokenizer: CharTokenizer, rng: np.random.Generator, *, strength: float
) -> np.ndarray:
    """Returns the log-probabilities, float32 [F, V], of a text after the noisy channel.

    Args:
        text: Normalized text.
        num_frames: Frames of the recording; more are used if the text does not fit.
        tokenizer: Tokenizer of the text.
        rng: Random numbers.
        strength: Mean logit of the true character.
    """
    ids = tokenizer.encode(text)
    num_frames = max(num_frames, 2 * len(ids) + 1)
    logits = rng.normal(0.0, 1.0, [num_frames, tokenizer.num_tokens])
    # Every other frame at most, so that repeated letters have a blank between them.
    places = 2 * np.sort(rng.choice(num_frames // 2, len(ids), replace=False))
    is_quiet = np.ones(num_frames, bool)
    is_quiet[places] = False
    logits[is_quiet, 0] += strength
    for place, index, character in zip(places, ids, text, strict=True):
        group = next(group for group in SOUND_ALIKE if character in group)
        other = rng.choice([letter for letter in group if letter != character])
        logits[place, tokenizer.encode(str(other))[0]] += rng.normal(ALIKE, DEVIATION)
        logits[place, index] += rng.normal(strength, DEVIATION)
        logits[place, 0] += rng.normal(BLANK, DEVIATION)
    return (logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)).astype(np.float32)


def transmit_all(
    utterances: Sequence[Utterance], tokenizer: CharTokenizer, *, seed: int, strength: float
) -> list[tuple[str, np.ndarray]]:
    """Returns the transcript and the log-probabilities of each utterance."""
    rng = np.random.default_rng(seed)
    found = []
    for utterance in utterances:
        num_frames = int(utterance.duration_secs * FRAMES_PER_SEC)
        found.append((utterance.text, transmit(utterance.text, num_frames, tokenizer, rng, strength=strength)))
    return found


def measure(heard: Sequence[tuple[str, np.ndarray]], read: Callable[[np.ndarray], str]) -> tuple[ErrorCounts, float]:
    """Returns the word errors of a decoder and its seconds."""
    start = time.perf_counter()
    texts = [read(log_probs) for _, log_probs in heard]
    elapsed_secs = time.perf_counter() - start
    counts = [count_word_errors(reference, text) for (reference, _), text in zip(heard, texts, strict=True)]
    return sum(counts, ErrorCounts()), elapsed_secs


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--corpus", default="../shared/corpora")
    parser.add_argument("--strength", type=float, default=9.0, help="mean logit of the true character")
    parser.add_argument("--output", default="")
    flags = parser.parse_args()
    corpus = Path(flags.corpus)
    language_model = str(corpus / "lm" / "books.3gram.arpa.gz")
    tokenizer = load_tokenizer()
    dev, test = (read_librispeech(corpus / "LibriSpeech", split) for split in ("dev-mini", "test-clean"))
    dev_heard = transmit_all(dev, tokenizer, seed=1, strength=flags.strength)
    test_heard = transmit_all(test, tokenizer, seed=2, strength=flags.strength)
    audio_secs = sum(utterance.duration_secs for utterance in test)
    words = read_words("", language_model)
    spoken = [word for text, _ in test_heard for word in text.split()]
    unknown = sum(word not in set(words) for word in set(spoken))
    ratio = sum(word not in set(words) for word in spoken) / len(spoken)
    print(f"strength {flags.strength:g}: {len(spoken)} words in {len(test)} utterances, {audio_secs:.0f} s")
    print(f"not in the lexicon: {unknown} different words, {ratio:.1%} of those spoken")

    defaults = get_config().decode.to_dict()
    tuned = {}
    for name in ("", language_model):
        options = SearchOptions(**{**defaults, "method": "lexicon", "lm": name})
        search = LexiconBeamSearch(
            options=options, spelling=Spelling(tokenizer.token_strings), num_tokens=tokenizer.num_tokens, words=words
        )
        trials = tune_weights(
            search=search, tokenizer=tokenizer, heard=dev_heard, word_scores=(-1.0, 0.0, 1.0, 2.0), num_refinements=1,
            lm_weights=(0.25, 0.5, 1.0) if name else (0.0,),
        )  # fmt: skip
        best = min(trials)
        tuned[name] = {"lm_weight": best.lm_weight, "word_score": best.word_score}
        print(f"{name or 'lexicon alone'}: tuned to {tuned[name]}, {100 * best.words.rate:.1f} % on dev-mini")

    ways: dict[str, dict[str, object] | None] = {
        "greedy": None,
        "beam 1": {"method": "beam", "beam_size": 1},
        "beam 50": {"method": "beam", "beam_size": 50},
    }
    lexicon_file = str(Path(flags.output or "language_model").with_suffix(".words"))
    Path(lexicon_file).write_text("\n".join(words))
    ways["lexicon 50, no n-gram"] = {"method": "lexicon", "lexicon": lexicon_file, **tuned[""]}
    for size in (10, 50, 200):
        ways[f"lexicon {size}, 3-gram"] = {
            "method": "lexicon", "lm": language_model, "beam_size": size, **tuned[language_model]
        }  # fmt: skip
    results = []
    for way, fields in ways.items():
        if fields is None:
            counts, secs = measure(test_heard, lambda x: tokenizer.decode([span.token for span in greedy_spans(x)]))
        else:
            found = build_search(token_strings=tokenizer.token_strings, **{**defaults, **fields})
            assert found is not None
            read = found
            counts, secs = measure(test_heard, lambda x, read=read: tokenizer.decode(read(x)[0].tokens))
        results.append({
            "way": way, "wer": counts.rate, "substitutions": counts.substitutions, "deletions": counts.deletions,
            "insertions": counts.insertions, "secs": secs, "secs_per_audio_sec": secs / audio_secs,
        })  # fmt: skip
        print(
            f"{way:24} WER {100 * counts.rate:5.2f} %  {counts.substitutions:4} S {counts.deletions:4} D "
            f"{counts.insertions:4} I  {1000 * secs / audio_secs:6.2f} ms/audio-s (RTFx {audio_secs / secs:.0f})",
            flush=True,
        )
    Path(lexicon_file).unlink()
    if flags.output:
        Path(flags.output).write_text(json.dumps({"tuned": tuned, "results": results}, indent=1))


if __name__ == "__main__":
    main()
