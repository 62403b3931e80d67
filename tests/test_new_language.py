"""configs/new_language.py from manifests to a workdir, with real data and a model of a few numbers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from configs import new_language
from data.batches.datasets import build_eval_data, build_train_data
from data.doctor.preflight import check_before_training
from data.synthesis.espeak import SAMPLE_RATE, Synthesizer
from data.text.tokenizer import load_tokenizer
from engine import experiment
from engine.config.flags import default_workdir
from engine.workdir.folder import WorkdirError
from tests.engine.test_experiment import StopAt, values_of
from tests.helpers.experiment_toys import make_parts, reproducible_lines

ROOT = Path(__file__).resolve().parents[1]
PARTS = make_parts(
    build_tokenizer=load_tokenizer,
    build_train_data=build_train_data,
    build_eval_data=build_eval_data,
    preflight=check_before_training,
)


def write_manifest(path, speakers, text="क क"):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, speaker in enumerate(speakers):
        name = f"{path.stem}-{speaker}-{number}.wav"
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 3200)
        soundfile.write(path.parent / name, samples, 16_000)
        lines.append({"audio_filepath": name, "text": text, "speaker": speaker})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


def make_config(manifests, **train):
    config = new_language.get_config(manifests)
    config.model.update({"init": "", "preset": "tiny", "freeze_feature_encoder": False})
    # Two rows of 0.2 s: six updates an epoch of twelve utterances.
    config.data.update({"max_batch_secs": 0.4, "row_multiple": 2})
    config.train.update({"precision": "float32", "num_epochs": 2.0, "log_every_updates": 2, **train})
    config.eval.update({"every_epochs": 1.0, "batch_size": 2})
    return config


def run(config, workdir, mode="train_and_eval", **more):
    return experiment.run(
        config=config, parts=PARTS, workdir=str(workdir), mode=mode, strategy_name="one_device", **more
    )


@pytest.fixture(scope="module")
def manifests(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hindi")
    train = write_manifest(folder / "train.jsonl", ["ann", "bob", "eve"] * 4)
    return f"{train},{write_manifest(folder / 'dev.jsonl', ['zoe'] * 3)}"


@pytest.fixture(scope="module")
def straight(manifests, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight") / "run"
    assert run(make_config(manifests), workdir).exit_status == 0
    return workdir


def test_two_manifests_make_a_vocabulary_a_normalization_and_a_number_of_updates(straight):
    config = json.loads((straight / "config.json").read_text())
    assert list(json.loads((straight / "vocab.json").read_text())) == ["<pad>", "<s>", "</s>", "<unk>", "|", "क"]
    assert config["data"]["text_normalization"] == "unicode"
    assert (config["train"]["num_epochs"], config["train"]["num_updates"]) == (2.0, 12)
    assert (config["eval"]["every_updates"], config["checkpoint"]["every_updates"]) == (6, 6)
    evaluations = [line for line in reproducible_lines(straight) if line["split"] == "dev"]
    assert [(line["step"], line["num_utterances"]) for line in evaluations] == [(6, 3), (12, 3)]
    assert [path.name for path in sorted((straight / "checkpoints").glob("*.index"))] == [
        "ckpt-12.index",
        "ckpt-6.index",
    ]


def test_a_run_that_is_stopped_and_goes_on_is_the_run_that_is_not(manifests, straight, tmp_path):
    assert run(make_config(manifests), tmp_path / "run", stop=StopAt(9)).exit_status == 143
    assert run(make_config(manifests), tmp_path / "run").exit_status == 0
    assert values_of(tmp_path / "run", 12) == values_of(straight, 12)
    assert reproducible_lines(tmp_path / "run") == reproducible_lines(straight)
    for name in ("vocab.json", "config.json"):
        assert (tmp_path / "run" / name).read_text() == (straight / name).read_text()


def test_an_evaluation_reads_with_what_the_run_made(manifests, straight, tmp_path):
    wanted = [line for line in reproducible_lines(straight) if line["split"] == "dev"][-1]
    outcome = run(
        make_config(manifests), tmp_path / "elsewhere", mode="eval", checkpoint=str(straight / "checkpoints/ckpt-12")
    )
    assert {name: outcome.metrics["dev"][name] for name in ("loss", "num_words")} == {
        name: wanted[name] for name in ("loss", "num_words")
    }
    with pytest.raises(ValueError, match=r"nothing: no vocab.json \(data.vocab=auto\); train first"):
        run(make_config(manifests), tmp_path / "nothing", mode="eval")


def test_a_corpus_that_grew_is_named_as_another_corpus_and_not_as_another_number_of_updates(straight, tmp_path):
    grown = write_manifest(tmp_path / "train.jsonl", ["ann", "bob", "eve"] * 5)
    dev = write_manifest(tmp_path / "dev.jsonl", ["zoe"] * 3)
    with pytest.raises(WorkdirError, match="the training data have changed .* number of utterances"):
        run(make_config(f"{grown},{dev}"), straight)


def test_more_epochs_of_a_schedule_that_allows_it_are_a_longer_run(manifests, tmp_path):
    constant = {"schedule": "constant", "warmup_ratio": 0.0, "hold_ratio": 0.0}
    for epochs in (1.0, 2.0):
        assert (
            run(make_config(manifests, num_epochs=epochs, **constant), tmp_path / "run", mode="train").exit_status == 0
        )
    assert run(make_config(manifests, **constant), tmp_path / "long", mode="train").exit_status == 0
    assert values_of(tmp_path / "run", 12) == values_of(tmp_path / "long", 12)
    with pytest.raises(WorkdirError, match="train.num_epochs was 2.0, is 1.0"):
        run(make_config(manifests, num_epochs=1.0, **constant), tmp_path / "run", mode="train")


def test_one_manifest_is_divided_by_speakers_and_the_checks_for_leaks_find_nothing(tmp_path, caplog):
    path = write_manifest(tmp_path / "all.jsonl", [f"s{i % 6}" for i in range(24)])
    with caplog.at_level("WARNING", logger="absl"):
        assert run(make_config(path, num_epochs=1.0), tmp_path / "run").exit_status == 0
    assert "leak" not in caplog.text and "speakers" not in caplog.text
    predictions = [json.loads(line) for line in (tmp_path / "run/eval/dev/predictions.jsonl").open()]
    heard = {line["utterance_id"].split("-")[1] for line in predictions}
    assert len(heard) == 1 and len(predictions) == 4
    manifest = json.loads((tmp_path / "run/checkpoints/ckpt-10.manifest.json").read_text())
    assert manifest["data"]["num_utterances"] == 20


def test_two_languages_have_two_workdirs_whatever_their_manifests_are_called():
    arguments = [
        "hindi/train.jsonl,hindi/dev.jsonl", "swahili/train.jsonl,swahili/dev.jsonl", "corpora/hi.jsonl",
        "corpora/sw.jsonl", "/data/a/hi/train.tsv", "/data/b/hi/train.tsv", "../x/train.csv", "../y/train.csv",
        "शब्द/train.jsonl", "shards/hi", "shards/v1.0", "shards/v1.1",
    ]  # fmt: skip
    names = [new_language.get_config(argument).name for argument in arguments]
    assert len(set(names)) == len(names) and not any("/" in name for name in names)
    assert names[0] == "new_language-hindi-train"
    workdir = default_workdir("configs/new_language.py:hindi/train.jsonl,hindi/dev.jsonl", names[0])
    assert workdir == "runs/new_language-hindi-train"


@pytest.mark.parametrize(
    ("argument", "train", "dev", "ratio"),
    [
        ("a/t.jsonl,a/d.tsv", ("jsonl", "a/t.jsonl"), ("tsv", "a/d.tsv"), 0.0),
        ("a/all.CSV", ("csv", "a/all.CSV"), ("csv", "a/all.CSV"), 0.1),
        ("a/t.parquet,a/d.Parquet", ("parquet", "a/t.parquet"), ("parquet", "a/d.Parquet"), 0.0),
        ("hf://datasets/a/b", ("parquet", "hf://datasets/a/b"), ("parquet", "hf://datasets/a/b"), 0.1),
        ("shards/hi, shards/dev", ("tfrecord", "shards/hi"), ("tfrecord", "shards/dev"), 0.0),
    ],
)
def test_the_argument_names_the_sets(argument, train, dev, ratio):
    data = new_language.get_config(argument).data
    for fields, wanted in ((data.train, train), (data.eval["dev"], dev)):
        assert (fields.format, fields.input, fields.split, fields.held_out_ratio) == (*wanted, "", ratio)


def test_the_recipe_starts_from_a_named_model_and_trains_with_its_architecture():
    config = new_language.get_config("a.jsonl")
    assert config.model.init.startswith("hf://") and config.model.preset == "auto"
    assert config.train.num_updates == 0


@pytest.mark.slow
def test_from_one_manifest_of_hindi_speech_to_a_transcript(tmp_path):
    texts = ["एक दो तीन", "लाल फूल", "ठंडा पानी", "शाम को आना"]
    lines = []
    for number, variant in enumerate(("f1", "f2", "m1", "m2")):
        voice = Synthesizer(voice=f"hi+{variant}", seed=number)
        for text in texts:
            name = f"{variant}-{len(lines)}.wav"
            soundfile.write(tmp_path / name, voice.speak(text, rate=150, pitch=50, pitch_range=50), SAMPLE_RATE)
            lines.append({"audio_filepath": name, "text": f"{text}।", "speaker": variant})
        voice.close()
    (tmp_path / "all.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    small = ["--config.model.preset=tiny", "--config.model.init=", "--config.model.freeze_feature_encoder=False"]
    small += ["--config.train.precision=float32", "--config.train.num_epochs=2"]
    config = [f"--config={ROOT}/configs/new_language.py:all.jsonl", *small]

    def start(*arguments):
        command = [sys.executable, f"{ROOT}/run.py", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "0 errors, 0 warnings" in start("--mode=doctor", *config)
    said = start(*config)
    assert "data.text_normalization=unicode" in said and "2 epochs are 2 updates" in said
    workdir = tmp_path / "runs/new_language-all"
    assert "।" not in json.loads((workdir / "vocab.json").read_text(encoding="utf-8"))
    (line,) = [line for line in reproducible_lines(workdir) if line["split"] == "dev"]
    assert (line["step"], line["num_utterances"]) == (2, 4)
    again = start("--mode=eval", *config)
    assert "dev" in again
    start("--mode=transcribe", f"--checkpoint={workdir}", "--inputs=f1-0.wav", "--output=o.jsonl")
    assert json.loads((tmp_path / "o.jsonl").read_text())["duration"] > 0.5
    assert "nothing to train" in start(*config)
