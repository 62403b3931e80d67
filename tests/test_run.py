"""The command line as a user meets it: whole runs in processes of their own, killed, resumed, misused."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from data.audio.decoding import load_audio
from data.synthetic import write_synthetic_corpus
from tests.helpers.models_lm import needs_flashlight

ROOT = Path(__file__).resolve().parents[1]
NUM_UPDATES = 30


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("spoken") / "corpus"
    return write_synthetic_corpus(output=folder, num_train=32, num_eval=6, num_train_speakers=4, num_eval_speakers=2)


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run.py"), *arguments]


def train_command(corpus: Path, workdir: Path, *arguments: str) -> list[str]:
    return command(
        f"--config={ROOT}/configs/debug.py:{corpus}",
        f"--workdir={workdir}",
        f"--config.train.num_updates={NUM_UPDATES}",
        "--config.train.global_batch_size=4",
        "--config.eval.every_updates=0",
        *arguments,
    )


def run(arguments: list[str], *, status: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout[-2000:] + done.stderr[-4000:]
    return done


def weights(workdir: Path) -> dict[str, np.ndarray]:
    """Everything in the newest checkpoint: model, optimizer, global step."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(workdir / "checkpoints")))
    names = [name for name in reader.get_variable_to_shape_map() if name.endswith("VARIABLE_VALUE")]
    return {name: reader.get_tensor(name) for name in names if not name.startswith("save_counter")}


def metrics(workdir: Path, split: str = "train") -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


@pytest.fixture(scope="session")
def straight(corpus, tmp_path_factory) -> Path:
    """A run that nothing interrupts."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    run(train_command(corpus, workdir))
    return workdir


def assert_same_run(workdir: Path, straight: Path) -> None:
    found, wanted = weights(workdir), weights(straight)
    assert found.keys() == wanted.keys()
    assert len(found) > 100
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    for name in ("step", "loss", "learning_rate", "gradient_norm", "audio_secs", "num_rows"):
        assert [line[name] for line in metrics(workdir)] == [line[name] for line in metrics(straight)], name


def test_a_run_leaves_everything_that_the_design_promises(straight):
    for name in ("config.json", "environment.json", "metrics.jsonl", "vocab.json"):
        assert (straight / name).stat().st_size > 0
    assert [line["step"] for line in metrics(straight)] == list(range(5, NUM_UPDATES + 1, 5))
    losses = [line["loss"] for line in metrics(straight)]
    assert all(np.isfinite(losses))
    assert losses[-1] < losses[0]
    (evaluation,) = metrics(straight, "unseen_voices")
    predictions = [json.loads(line) for line in (straight / "eval/unseen_voices/predictions.jsonl").open()]
    assert evaluation["num_utterances"] == len(predictions) == 6
    assert evaluation["num_words"] == sum(len(line["reference"].split()) for line in predictions)
    errors = [line["errors"] for line in predictions]
    assert errors == sorted(errors, reverse=True)
    assert sum(errors) == sum(evaluation[name] for name in ("substitutions", "deletions", "insertions"))
    assert evaluation["wer"] == pytest.approx(sum(errors) / evaluation["num_words"])
    assert json.loads((straight / "best/best.json").read_text())["value"] == pytest.approx(evaluation["wer"])
    assert list((straight / "tensorboard").rglob("events.out.tfevents*"))
    kept = sorted(path.name for path in (straight / "checkpoints").glob("*.index"))
    assert kept == ["ckpt-20.index", "ckpt-25.index", "ckpt-30.index"]


def test_a_killed_run_continues_as_if_nothing_had_happened(corpus, straight, tmp_path):
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        train_command(corpus, workdir), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (workdir / "checkpoints/ckpt-10.index").exists():
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (workdir / f"checkpoints/ckpt-{NUM_UPDATES}.index").exists()
    # What the killed process may have written past its checkpoint must not come twice.
    with (workdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 29, "split": "train", "loss": 1.0}\n{"step": 30, "spl')
    done = run(train_command(corpus, workdir))
    assert "continuing at update" in done.stderr
    assert_same_run(workdir, straight)


def test_sigterm_saves_and_ends_with_143_and_the_same_command_continues(corpus, straight, tmp_path):
    workdir = tmp_path / "run"
    process = subprocess.Popen(
        train_command(corpus, workdir), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 240
    while not (workdir / "metrics.jsonl").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert list((workdir / "checkpoints").glob("*.index"))
    run(train_command(corpus, workdir))
    assert_same_run(workdir, straight)


def test_two_replicas_learn_the_same(corpus, straight, tmp_path):
    workdir = tmp_path / "run"
    run(train_command(corpus, workdir, "--strategy=mirrored", "--config.runtime.num_virtual_devices=2"))
    found, wanted = [[line["loss"] for line in metrics(folder)] for folder in (workdir, straight)]
    np.testing.assert_allclose(found, wanted, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_learns_and_saves_its_loss_scale(corpus, straight, tmp_path, precision):
    workdir = tmp_path / "run"
    run(train_command(corpus, workdir, "--mode=train", f"--config.train.precision={precision}"))
    losses = [line["loss"] for line in metrics(workdir)]
    assert all(np.isfinite(losses))
    scales = [name for name in weights(workdir) if "loss_scale" in name]
    if precision == "mixed_bfloat16":
        np.testing.assert_allclose(losses, [line["loss"] for line in metrics(straight)], rtol=0.1)
        assert not scales
    else:
        # The first updates overflow and are skipped until the scale fits; then it learns.
        assert losses[-1] < 0.5 * losses[0]
        assert len(scales) == 2
        assert metrics(workdir)[0]["num_skipped_updates"] > 0
        assert metrics(workdir)[-1]["num_skipped_updates"] == 0


@pytest.mark.slow
def test_shards_train_like_the_files_they_were_made_of(corpus, straight, tmp_path):
    shards = tmp_path / "shards"
    subprocess.run(
        [sys.executable, "-m", "data.prepare", "--format=librispeech", f"--input={corpus}", "--split=train",
         f"--output={shards}", "--num_shards=2"],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    workdir = tmp_path / "run"
    source = ["--config.data.train.format=tfrecord", f"--config.data.train.input={shards}"]
    run(train_command(corpus, workdir, "--mode=train", *source))
    losses = [line["loss"] for line in metrics(workdir)]
    # Resampled audio is rounded to 16 bits in the shards, so not to the last digit.
    np.testing.assert_allclose(losses, [line["loss"] for line in metrics(straight)], rtol=0.01)


def test_another_config_in_the_same_workdir_is_refused_by_field(corpus, straight):
    done = run(train_command(corpus, straight, "--config.train.learning_rate=0.5"), status=2)
    assert "train.learning_rate was 0.0025, is 0.5" in done.stderr
    assert "Traceback" not in done.stderr


def test_eval_mode_repeats_the_figure_of_the_best_checkpoint(corpus, straight):
    before = metrics(straight, "unseen_voices")
    run(train_command(corpus, straight, "--mode=eval"))
    after = metrics(straight, "unseen_voices")
    assert len(after) == len(before) + 1
    names = ("step", "wer", "cer", "substitutions", "deletions", "insertions", "num_words", "num_utterances")
    assert [after[-1][name] for name in names] == [before[0][name] for name in names]


def test_transcripts_equal_the_evaluation_and_bad_files_are_named(corpus, straight, tmp_path):
    (tmp_path / "bad.wav").write_bytes(b"no audio at all")
    output = tmp_path / "out.jsonl"
    done = run(
        command(
            "--mode=transcribe",
            f"--checkpoint={straight}",
            f"--inputs={corpus / 'eval'},{tmp_path / 'bad.wav'}",
            f"--output={output}",
        ),
        status=2,
    )
    assert "bad.wav was skipped" in done.stderr
    assert "Traceback" not in done.stderr
    found = {Path(line["audio_filepath"]).stem: line["text"] for line in map(json.loads, output.open())}
    predictions = map(json.loads, (straight / "eval/unseen_voices/predictions.jsonl").open())
    assert found == {line["utterance_id"]: line["hypothesis"] for line in predictions}


@needs_flashlight
def test_the_search_of_the_config_is_scored_beside_greedy_and_transcribes_the_same(corpus, straight, tmp_path):
    lexicon, decode, output = tmp_path / "words.txt", tmp_path / "decode.json", tmp_path / "out.jsonl"
    texts = [line.split(maxsplit=1)[1] for path in (corpus / "eval").rglob("*.trans.txt") for line in path.open()]
    lexicon.write_text("\n".join(" ".join(texts).split()))
    decode.write_text(json.dumps({"method": "lexicon", "lexicon": str(lexicon), "num_hypotheses": 3}))
    workdir = shutil.copytree(straight, tmp_path / "run")
    done = run(train_command(corpus, workdir, "--mode=eval", f"--decode={decode}", "--config.decode.word_score=2.0"))
    greedy, searched = (metrics(workdir, name)[-1] for name in ("unseen_voices", "unseen_voices-lexicon"))
    assert "unseen_voices-lexicon" in done.stdout
    assert (greedy["num_words"], searched["num_utterances"]) == (searched["num_words"], 6)
    predictions = [json.loads(line) for line in (workdir / "eval/unseen_voices-lexicon/predictions.jsonl").open()]
    heard = {line["utterance_id"]: line["hypothesis"] for line in predictions}
    assert set(" ".join(heard.values()).split()) <= set(" ".join(texts).split())
    assert any(heard.values())
    arguments = ["--mode=transcribe", f"--checkpoint={workdir}", f"--inputs={corpus / 'eval'}", f"--output={output}"]
    config = [f"--config={ROOT}/configs/debug.py:{corpus}", "--config.decode.word_score=2.0", f"--decode={decode}"]
    run(command(*arguments, *config))
    records = [json.loads(line) for line in output.open()]
    assert {Path(record["audio_filepath"]).stem: record["text"] for record in records} == heard
    for record in records:
        assert record["nbest"][0]["text"] == record["text"] == " ".join(word["text"] for word in record["words"])
        assert all(word["start"] < word["end"] <= record["duration"] + 0.02 for word in record["words"])


@pytest.mark.slow
@needs_flashlight
def test_tuned_weights_are_a_file_with_the_figure_of_the_evaluation_beside_theirs(corpus, straight, tmp_path):
    lexicon, output = tmp_path / "words.txt", tmp_path / "decode.json"
    lexicon.write_text("ZERO\nONE\nTWO\nTHREE\nFOUR\nFIVE\nSIX\nSEVEN\nEIGHT\nNINE\nTHE\nDOOR\n")
    decode = ["--config.decode.method=lexicon", f"--config.decode.lexicon={lexicon}", f"--output={output}"]
    done = run(train_command(corpus, straight, "--mode=tune_lm", "--config.tune_lm.lm_weights=(1.0,)", *decode))
    assert "pairs of weights on 3 utterances" in done.stdout
    tuned = json.loads(output.read_text())
    assert tuned["lexicon"] == str(lexicon) and tuned["method"] == "lexicon"
    figures = tuned["tuning"]
    halves = (figures, figures["held_out"])
    assert [half["num_utterances"] for half in halves] == [3, 3]
    num_errors = sum(half["greedy_wer"] * half["num_words"] for half in halves)
    (evaluation, *_) = metrics(straight, "unseen_voices")
    assert num_errors / evaluation["num_words"] == pytest.approx(evaluation["wer"])
    trials = {(trial["lm_weight"], trial["word_score"]): trial["wer"] for trial in figures["trials"]}
    assert len(trials) >= 4
    assert figures["wer"] == min(trials.values()) == trials[tuned["lm_weight"], tuned["word_score"]]


def test_the_exported_run_reads_what_the_evaluation_read(corpus, straight, tmp_path):
    output = tmp_path / "exported"
    done = run(command("--mode=export", f"--checkpoint={straight}", f"--output={output}"))
    assert "6 recordings read as by the trained model" in done.stdout
    serve = tf.saved_model.load(str(output)).signatures["serving_default"]
    predictions = [json.loads(line) for line in (straight / "eval/unseen_voices/predictions.jsonl").open()]
    assert len(predictions) == 6
    for prediction in predictions:
        (path,) = (corpus / "eval").rglob(f"{prediction['utterance_id']}.flac")
        waveform = load_audio(path)  # eSpeak's rate is not the model's
        found = serve(waveform=tf.constant(waveform[np.newaxis]), lengths=tf.constant([len(waveform)]))
        assert found["text"].numpy()[0].decode() == prediction["hypothesis"]
    assert "| unseen_voices |" in (output / "README.md").read_text()


def test_the_doctor_reports_on_a_clean_corpus_and_on_a_leak_that_training_refuses(corpus, tmp_path):
    done = run(train_command(corpus, tmp_path / "run", "--mode=doctor"))
    assert done.stdout.splitlines()[-1] == "0 errors, 0 warnings"
    assert json.loads((tmp_path / "run/doctor.json").read_text())["num_errors"] == 0
    assert "Nothing was found" not in (tmp_path / "run/doctor.html").read_text()  # it notes the rate
    leak = "--config.data.train.split=eval"
    done = run(train_command(corpus, tmp_path / "leak", "--mode=doctor", leak), status=2)
    assert "eval unseen_voices: 6: evaluation utterances that are trained on" in done.stdout
    assert done.stdout.splitlines()[-1] == "1 error, 0 warnings"
    done = run(train_command(corpus, tmp_path / "leak", leak), status=2)
    assert "evaluation utterances that are trained on" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "leak/config.json").exists()


def test_training_needs_no_extra_and_modes_that_do_name_it(corpus, tmp_path):
    """One process without any extra; what each mode asks for is `tests/engine/config/test_early_checks.py`'s."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "for name in ('tornado', 'flashlight', 'ai_edge_litert', 'onnx', 'onnxruntime', 'tf2onnx', 'espeakng_loader',\n"
        "             'matplotlib', 'playwright', 'psutil', 'torch', 'apache_beam'):\n"
        "    sys.modules[name] = None\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    arguments = train_command(
        corpus, tmp_path / "run", "--config.train.num_updates=5", "--config.train.warmup_updates=1",
        "--config.train.hold_updates=1",
    )  # fmt: skip
    done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    assert len(metrics(tmp_path / "run", "unseen_voices")) == 1
    for arguments, line in (
        (command("--mode=serve", f"--checkpoint={tmp_path / 'run'}"), "--mode=serve needs tornado, .*'.[serve]'"),
        ([sys.executable, "-m", "data.synthetic", f"--output={tmp_path / 'c'}"], "is not installed; .*'.[quickstart]'"),
    ):
        done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
        assert re.search(line.replace("[", r"\["), done.stderr)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config=configs/base.py"], "python -m data.prepare"),
        (["--config=configs/quickstart.py:nowhere"], "python -m data.synthetic"),
        (
            ["--config=configs/debug.py", "--config.train.accum_steps=3"],
            "write --config.train.microbatch_rows=3 instead",
        ),
        (["--mode=transcribe", "--inputs=README.md", "--output=o.jsonl"], "--checkpoint is empty"),
        (["--mode=transcribe", "--checkpoint=nowhere", "--inputs=README.md", "--output=o.jsonl"], "config.json"),
        (["--mode=transcribe", "--workdir=run"], "--mode=transcribe does not read --workdir"),
        ([], "--config is missing"),
        (["--config=configs/nothing.py"], "configs/nothing.py"),
        (["--config=configs/debug.py", "--config.train.not_a_field=1"], "not_a_field"),
        (["--config=configs/debug.py", "--strategy=magic"], "strategy"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(tmp_path, arguments, message):
    folder = [] if "--mode=transcribe" in arguments else [f"--workdir={tmp_path / 'run'}"]
    done = run(command(*arguments, *folder), status=2)
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not os.path.exists(tmp_path / "run/config.json")


@pytest.mark.slow
def test_a_run_labels_audio_without_transcripts_and_another_trains_on_the_labels(corpus, straight, tmp_path):
    rows = [{"audio_filepath": str(path)} for path in sorted(corpus.glob("train/*/*/*.flac"))]
    (tmp_path / "unlabelled.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    label = command(
        f"--config={ROOT}/configs/debug.py:{corpus}",
        "--mode=pseudo_label",
        f"--checkpoint={straight}",
        f"--inputs={tmp_path}/unlabelled.jsonl",
        f"--output={tmp_path}/out/pseudo.jsonl",
        # After thirty updates a recognizer is sure of nothing, and often hears nothing.
        "--config.pseudo_label.min_confidence=0",
        "--config.pseudo_label.min_chars_per_sec=0",
        "--config.runtime.num_virtual_devices=2",
        "--strategy=mirrored",
    )
    done = subprocess.run(label, cwd=ROOT, capture_output=True, text=True, timeout=300)
    found = [
        json.loads(line)
        for name in ("pseudo.jsonl", "pseudo.left_out.jsonl")
        for line in (tmp_path / "out" / name).read_text().splitlines()
    ]
    assert done.returncode in (0, 2) and len(found) == len(rows), done.stderr[-2000:]
    assert {line.get("reason", "") for line in found} <= {"", "no_text", "too_fast"}
    # The labels of a recognizer that hears something train; with these, whatever it heard.
    for line in found:
        line["text"] = line["text"] or "A"
    (tmp_path / "out/train.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found), encoding="utf-8")
    run(
        command(
            f"--config={ROOT}/configs/debug.py:{corpus}",
            "--mode=train",
            f"--workdir={tmp_path}/run",
            "--config.train.num_updates=2",
            "--config.train.warmup_updates=0",
            "--config.train.hold_updates=0",
            "--config.data.train.format=jsonl",
            f"--config.data.train.input={tmp_path}/out/train.jsonl",
            "--config.data.train.split=",
        )
    )
    assert (tmp_path / "run/checkpoints/ckpt-2.index").exists()
