"""Measures the ratio of padding in the samples of an epoch, by the number of buckets.

    python -m benchmarks.bucket_padding --input=../shared/corpora/LibriSpeech [--picture=docs/results/0122-padding.svg]

It uses the real lengths of train-clean-5, and 281,241 simulated lengths, as many as the 960 hours of LibriSpeech have:
drawn with replacement from train-clean-5 (a subset of the same corpus), each with normal noise of 0.25 s, and scaled to
the mean of 12.3 s that follows from the published 960.9 h (Panayotov et al. 2015, table 1). The whole corpus has a thin
tail that train-clean-5 lacks; a third set assumes one, 0.2 % evenly between 17 and 29 s. Batches go by rows and by
seconds; the ratio is that of the plan's first epoch.
"""

from __future__ import annotations

import argparse

import numpy as np

from data.batches.plan import BatchPlan, padding_ratio
from data.corpus.manifest import read_librispeech

NUM_BUCKETS = (1, 2, 4, 8, 16, 32)
NUM_UTTERANCES, HOURS = 281_241, 960.9


def main() -> None:
    """Runs the benchmark and prints its measurements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--input", default="../shared/corpora/LibriSpeech", help="folder that holds train-clean-5")
    parser.add_argument("--picture", help="where to draw it")
    flags = parser.parse_args()
    real = np.array([utterance.num_samples for utterance in read_librispeech(flags.input, "train-clean-5")])
    simulated = simulate(real)
    tailed = simulated.copy()
    count = NUM_UTTERANCES // 500
    tailed[:count] = np.random.default_rng(1).integers(17 * 16_000, 29 * 16_000, count)
    for name, lengths in (("train-clean-5", real), ("simulated", simulated), ("simulated, with a tail", tailed)):
        secs = lengths / 16_000
        quantiles = ", ".join(f"{value:.1f}" for value in np.quantile(secs, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)))
        print(f"{name}: {len(secs)} utterances, mean {secs.mean():.2f} s, 0 5 25 50 75 95 100 %: {quantiles} s")
    cases = {
        "train-clean-5, 8 rows": (real, {"global_batch_size": 8}),
        "train-clean-5, 100 s": (real, {"global_batch_size": 8, "max_batch_samples": 1_600_000}),
        "281,241, 32 rows": (simulated, {"global_batch_size": 32}),
        "281,241, 400 s": (simulated, {"global_batch_size": 32, "max_batch_samples": 6_400_000, "row_multiple": 8}),
        "281,241 with a tail, 32 rows": (tailed, {"global_batch_size": 32}),
    }
    print("| | " + " | ".join(map(str, NUM_BUCKETS)) + " |\n|---|" + "---|" * len(NUM_BUCKETS))
    shares = {}
    for name, (lengths, arguments) in cases.items():
        shares[name] = [
            padding_ratio(BatchPlan(num_samples=lengths, seed=0, bucket_boundaries=count, **arguments), 0)
            for count in NUM_BUCKETS
        ]
        print(f"| {name} | " + " | ".join(f"{100 * share:.1f} %" for share in shares[name]) + " |")
    if flags.picture:
        draw(shares, flags.picture)


def simulate(real: np.ndarray) -> np.ndarray:
    """Returns 281,241 simulated lengths in samples, as the module describes."""
    rng = np.random.default_rng(0)
    lengths = rng.choice(real, NUM_UTTERANCES) + rng.normal(0, 4000, NUM_UTTERANCES)
    lengths = np.clip(lengths, real.min(), real.max())
    return np.rint(lengths * (HOURS * 3600 * 16_000 / lengths.sum())).astype(np.int64)


def draw(shares: dict[str, list[float]], path: str) -> None:
    """Draws one line for each case, without a plotting library."""
    width, height, left, right, top, bottom = 680, 330, 60, 225, 34, 46
    colors = ("#999999", "#d08770", "#4c78a8", "#1b5e20", "#8e44ad")
    largest = 0.1 * np.ceil(10 * max(map(max, shares.values())))

    def place(position: int, share: float) -> tuple[float, float]:
        x = left + position * (width - left - right) / (len(NUM_BUCKETS) - 1)
        return round(x, 1), round(height - bottom - share / largest * (height - top - bottom), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{left}" y="18" font-size="14">Padding share of an epoch by number of buckets</text>',
    ]
    for step in range(round(largest * 10) + 1):
        (x, y), (end, _) = place(0, step / 10), place(len(NUM_BUCKETS) - 1, 0)
        parts.append(f'<path d="M{x} {y}H{end}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x - 8}" y="{y + 4}" text-anchor="end">{10 * step} %</text>')
    for position, count in enumerate(NUM_BUCKETS):
        x, y = place(position, 0)
        parts.append(f'<text x="{x}" y="{y + 18}" text-anchor="middle">{count}</text>')
    x, y = place((len(NUM_BUCKETS) - 1) // 2, 0)
    parts.append(f'<text x="{x + 40}" y="{y + 36}" text-anchor="middle">buckets</text>')
    for number, (name, values) in enumerate(shares.items()):
        points = [place(position, share) for position, share in enumerate(values)]
        line = " ".join(f"{x},{y}" for x, y in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colors[number]}" stroke-width="2"/>')
        parts += [f'<circle cx="{x}" cy="{y}" r="3" fill="{colors[number]}"/>' for x, y in points]
        x, y = width - right + 18, top + 20 + 20 * number
        parts.append(f'<path d="M{x} {y - 4}h18" stroke="{colors[number]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{name}</text>')
    with open(path, "w", encoding="utf-8") as file:
        file.write("\n".join([*parts, "</svg>"]) + "\n")


if __name__ == "__main__":
    main()
