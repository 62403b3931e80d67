"""Guards and recipe in whole runs on synthetic speech: a training that collapses, one evaluated from beside."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.test_run import ROOT, command, corpus, metrics, run, train_command  # noqa: F401 - corpus is a fixture

FIGURES = ("loss", "wer", "cer", "substitutions", "deletions", "insertions", "num_words", "num_utterances")


def train(corpus, workdir, *, learning_rate, status=0):  # noqa: F811
    return run(
        train_command(
            corpus,
            workdir,
            "--config.train.num_updates=360",
            "--config.train.hold_updates=300",
            "--config.train.log_every_updates=10",
            "--config.checkpoint.every_updates=100",
            f"--config.train.learning_rate={learning_rate}",
        ),
        status=status,
    ).stderr


@pytest.mark.slow
@pytest.mark.parametrize(("learning_rate", "is_warned"), [(0.1, True), (0.0025, False)])
def test_a_training_that_does_not_learn_is_warned_of_and_a_healthy_one_is_not(
    corpus,  # noqa: F811
    tmp_path,
    learning_rate,
    is_warned,
):
    """Thirty-two utterances: the quickstart's learning rate teaches them by heart, forty times that ends in blanks."""
    log = train(corpus, tmp_path / "run", learning_rate=learning_rate)
    last = metrics(tmp_path / "run")[-1]
    assert (1 - last["blank_ratio"] < 0.2 * last["labels_per_frame"]) == is_warned
    words = "it misses 100 % of the words: the model writes almost nothing"
    assert (words in log) == is_warned


@pytest.mark.slow
def test_weights_that_blow_up_end_the_run_saved_with_the_utterances_named(corpus, tmp_path):  # noqa: F811
    workdir = tmp_path / "run"
    log = train(corpus, workdir, learning_rate=1e20, status=2)
    assert "20 updates in a row" in log and str(workdir / "skipped_updates.jsonl") in log
    assert "Traceback" not in log
    records = [json.loads(line) for line in (workdir / "skipped_updates.jsonl").open()]
    updates = [record["update"] for record in records]
    assert updates == list(range(updates[0], updates[0] + 20))
    spoken = {path.stem for path in corpus.rglob("*.wav")} | {path.stem for path in corpus.rglob("*.flac")}
    assert all(len(record["utterance_ids"]) == 4 and set(record["utterance_ids"]) <= spoken for record in records)
    assert list((workdir / "checkpoints").glob("*.index"))


@pytest.mark.slow
def test_a_process_beside_training_evaluates_every_checkpoint_with_the_same_figures(corpus, tmp_path):  # noqa: F811
    workdir = tmp_path / "run"
    options = ["--config.train.ema_decay=0.9", "--config.checkpoint.keep=10", "--config.eval.every_updates=5"]
    arguments = train_command(corpus, workdir, *options, "--config.train.num_updates=15")
    with subprocess.Popen(
        [*arguments, "--mode=continuous_eval"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as beside:
        run(arguments)
        _, log = beside.communicate(timeout=240)
    assert beside.returncode == 0, log[-3000:]
    for split in ("unseen_voices", "unseen_voices-ema"):
        wanted, found = metrics(workdir, split), metrics(workdir / "continuous_eval", split)
        assert [line["step"] for line in found] == [5, 10, 15]
        assert [[line[name] for name in FIGURES] for line in found] == [
            [line[name] for name in FIGURES] for line in wanted
        ]
