"""Lines of predictions.jsonl out of pairs of texts."""

from __future__ import annotations

from engine.evaluation.metrics import TranscriptionScore
from engine.report.sets import build_set


def make_predictions(texts, *, speakers=None, secs=None):
    score = TranscriptionScore()
    for number, (reference, hypothesis) in enumerate(texts):
        score.add(f"u{number:03d}", reference, hypothesis)
    records = score.predictions()
    for record in records:
        number = int(record["utterance_id"][1:])
        if speakers:
            record["speaker_id"] = speakers[number]
        if secs:
            record["duration_secs"] = secs[number]
    return records


def build(predictions, **fields):
    return build_set(**{"name": "dev", "predictions": predictions, "previous": None, "max_utterances": 3, **fields})
