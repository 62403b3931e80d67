"""--mode=pseudo_label from recordings to both files: interrupted, continued, with faults, on two replicas.

The data and the tiny model are the real ones; the model is random, so every bound is open.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import tensorflow as tf

import run as program
from configs import base
from data.batches.datasets import build_train_data
from data.corpus.manifest import read_jsonl
from data.shards.preparation import write_tfrecords
from engine import experiment
from engine.checkpointing.best import BestCheckpoint
from engine.config import builders
from engine.inference.loading import ReadingOptions
from engine.modes import pseudo_label
from engine.pseudo_labels.labeller import Labeller
from engine.workdir.folder import compare_config

OPEN = {"min_confidence": 0.0, "min_chars_per_sec": 0.0, "max_chars_per_sec": 0.0, "batch_size": 2}


@pytest.fixture(scope="module")
def parts():
    return program._build_parts()


@pytest.fixture(scope="module")
def workdir(parts, tmp_path_factory):
    """A run whose model was never trained and hears letters in noise."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    folder.mkdir()
    config = base.get_small_config()
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    tokenizer = parts.build_tokenizer("")
    tokenizer.save(str(folder / "vocab.json"))
    model = builders.build_model(config, parts, num_tokens=tokenizer.num_tokens)
    head = model.head_variables[0]
    head.assign(10.0 * tf.random.stateless_normal(head.shape, [1, 2]))
    BestCheckpoint(
        checkpoint=tf.train.Checkpoint(model=model), directory=folder / "best", global_step=tf.Variable(1)
    ).save_if_better(0.1, metric="dev/wer")
    return str(folder)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    """Nine rows: seven recordings of different lengths, one that is missing, and a line that is no row."""
    folder = tmp_path_factory.mktemp("audio")
    lines = []
    for number in range(7):
        samples = np.random.default_rng(number).uniform(-0.5, 0.5, 8_000 + 3_000 * (number * 3 % 7))
        soundfile.write(folder / f"{number}.wav", samples, 16_000)
        lines.append(json.dumps({"audio_filepath": f"{number}.wav", "speaker": f"s{number % 2}"}))
    lines[3:3] = [json.dumps({"audio_filepath": "none.wav"}), "no row"]
    (folder / "m.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return str(folder / "m.jsonl")


def label(parts, workdir, manifest, output, **changes):
    options = {**base.get_config().pseudo_label.to_dict(), **OPEN, **changes.pop("options", {})}
    return pseudo_label.run(
        parts=parts,
        checkpoint=workdir,
        inputs=[manifest],
        output=str(output),
        options=options,
        reading=ReadingOptions(decode_defaults=base.get_decode().to_dict()),
        strategy_name=changes.pop("strategy_name", "one_device"),
        **changes,
    )


def read(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def straight(parts, workdir, manifest, tmp_path_factory):
    """The labels of a labelling that nothing interrupts."""
    output = tmp_path_factory.mktemp("straight") / "deep/pseudo.jsonl"
    assert label(parts, workdir, manifest, output) == 2  # two rows cannot be read
    return output


def test_good_rows_become_a_manifest_and_bad_ones_are_named_beside_it(straight, manifest):
    kept, left_out = read(straight), read(straight.with_name("pseudo.left_out.jsonl"))
    assert [line["utterance_id"] for line in kept] == list("0123456")
    assert all(line["text"] and 0 < line["confidence"] < 1 and line["chars_per_sec"] > 0 for line in kept)
    assert all((straight.parent / line["audio_filepath"]).resolve().exists() for line in kept)
    assert [line["speaker"] for line in kept] == ["s0", "s1", "s0", "s1", "s0", "s1", "s0"]
    assert [(line["reason"], line["audio_filepath"].rpartition("/")[2]) for line in left_out] == [
        ("unreadable", "none.wav"),
        ("unreadable", "m.jsonl:5"),
    ]
    assert "no audio file" in left_out[0]["detail"] and "not JSON" in left_out[1]["detail"]
    assert sorted(path.name for path in straight.parent.iterdir()) == ["pseudo.jsonl", "pseudo.left_out.jsonl"]


def test_the_summary_says_what_was_kept_and_what_was_skipped(parts, workdir, manifest, tmp_path, capsys):
    label(parts, workdir, manifest, tmp_path / "out.jsonl")
    captured = capsys.readouterr()
    assert "kept                    7       0.00\nunreadable              2       0.00\n" in captured.out
    assert "RTFx" in captured.out and f"left out, with the reason: {tmp_path}/out.left_out.jsonl" in captured.out
    errors = captured.err.splitlines()
    assert [line.startswith("error: ") and "was skipped: " in line for line in errors[-2:]] == [True, True]


def test_bounds_that_keep_nothing_say_so(parts, workdir, manifest, tmp_path, capsys):
    assert label(parts, workdir, manifest, tmp_path / "out.jsonl", options={"min_confidence": 1.0}) == 2
    assert read(tmp_path / "out.jsonl") == []
    assert {line["reason"] for line in read(tmp_path / "out.left_out.jsonl")} == {"low_confidence", "unreadable"}
    assert "error: no label was kept: lower the bounds" in capsys.readouterr().err


def test_a_signal_loses_nothing_that_was_written_and_the_same_command_continues(
    parts, workdir, manifest, straight, tmp_path, monkeypatch, capsys
):
    output = tmp_path / "pseudo.jsonl"
    label_rows, num_calls = Labeller.label, 0

    def interrupted(self, rows):
        nonlocal num_calls
        num_calls += 1
        if num_calls == 3:
            raise SystemExit(143)
        return label_rows(self, rows)

    monkeypatch.setattr("engine.pseudo_labels.labeller._BATCHES_AT_ONCE", 1)
    with monkeypatch.context() as patched:
        patched.setattr(Labeller, "label", interrupted)
        with pytest.raises(SystemExit):
            label(parts, workdir, manifest, output)
    assert not output.exists()
    with pytest.raises(ValueError, match=r"other settings \(second_speed was 1.0, is 1.1\)"):
        label(parts, workdir, manifest, output, options={"second_speed": 1.1})
    monkeypatch.setattr(Labeller, "label", lambda self, rows: num_labelled.extend(rows) or label_rows(self, rows))
    num_labelled: list = []
    label(parts, workdir, manifest, output)
    assert len(num_labelled) == 5
    assert "continues behind row 4 of 9" in capsys.readouterr().out
    for name in ("text", "utterance_id", "duration"):
        assert [line[name] for line in read(output)] == [line[name] for line in read(straight)]
    assert not (tmp_path / "pseudo.jsonl.partial").exists()


def test_other_inputs_do_not_continue_what_was_begun(parts, workdir, manifest, tmp_path, monkeypatch):
    output = tmp_path / "pseudo.jsonl"
    monkeypatch.setattr("engine.pseudo_labels.labeller._BATCHES_AT_ONCE", 1)
    monkeypatch.setattr(Labeller, "split", lambda self, rows: iter([[next(rows), next(rows)]]))
    monkeypatch.setattr(pseudo_label, "_finish", lambda journal, output: 143)
    copy = tmp_path / "m.jsonl"
    folder = manifest.removesuffix("m.jsonl")
    lines = [f'{{"audio_filepath": "{folder}{number}.wav"}}\n' for number in range(7)]
    copy.write_text("".join(lines), encoding="utf-8")
    assert label(parts, workdir, str(copy), output) == 143
    copy.write_text("".join(reversed(lines)), encoding="utf-8")
    with pytest.raises(ValueError, match="and --inputs has other rows now: give the same inputs again"):
        label(parts, workdir, str(copy), output)


@pytest.fixture
def own(manifest, tmp_path):
    """A copy of the manifest and its recordings that a test may change."""
    shutil.copytree(Path(manifest).parent, tmp_path / "own")
    return tmp_path / "own/m.jsonl"


@pytest.fixture
def interrupted(parts, workdir, monkeypatch):
    """Starts a labelling, two rows at a time, that a signal ends before its group `num_groups`."""
    label_rows = Labeller.label

    def start(manifest, output, *, num_groups):
        names = []

        def until_the_signal(self, rows):
            if len(names) == num_groups:
                raise SystemExit(143)
            names.append([row.name.rpartition("/")[2] for row in rows])
            return label_rows(self, rows)

        with monkeypatch.context() as patched:
            patched.setattr("engine.pseudo_labels.labeller._BATCHES_AT_ONCE", 1)
            patched.setattr(Labeller, "label", until_the_signal)
            with pytest.raises(SystemExit):
                label(parts, workdir, manifest, output)
        assert not output.exists()
        return names

    return start


@pytest.fixture
def labelled(monkeypatch):
    """The names of the rows that are labelled from now on."""
    names, label_rows = [], Labeller.label
    monkeypatch.setattr(
        Labeller,
        "label",
        lambda self, rows: names.extend(row.name.rpartition("/")[2] for row in rows) or label_rows(self, rows),
    )
    return names


def say(path, seed, num_samples=11_000):
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, num_samples), 16_000)


def both(output):
    """The lines of both files of a labelling."""
    return read(output), read(output.with_name(f"{output.stem}.left_out.jsonl"))


def test_recordings_that_changed_after_an_interruption_are_labelled_anew(
    parts, workdir, own, tmp_path, interrupted, labelled, capsys
):
    output = tmp_path / "pseudo.jsonl"
    # Of the file: 0, 1, 2, none, a line that is no row, 3, 4, 5, 6.
    assert len(interrupted(str(own), output, num_groups=3)) == 3
    for number in (0, 2, 3):
        say(own.with_name(f"{number}.wav"), 100 + number)
    own.with_name("1.wav").unlink()
    say(own.with_name("none.wav"), 100)
    # The next process is ended too, before it has come to the rows that nobody has labelled.
    assert interrupted(str(own), output, num_groups=1) == [["0.wav", "1.wav"]]
    say(own.with_name("0.wav"), 200)
    labelled.clear()
    capsys.readouterr()
    assert label(parts, workdir, str(own), output) == 2
    assert labelled == ["0.wav", "2.wav", "none.wav", "3.wav", "4.wav", "5.wav", "6.wav"]
    printed = capsys.readouterr().out
    assert "continues behind row 6 of 9" in printed
    assert "4 of the earlier rows had changed and were labelled anew\n" in printed
    label(parts, workdir, str(own), tmp_path / "straight.jsonl")
    assert [line["utterance_id"] for line in read(output)] == ["0", "2", "none", "3", "4", "5", "6"]
    # Batches of other rows round differently.
    for found, expected in zip(both(output), both(tmp_path / "straight.jsonl"), strict=True):
        for one, other in zip(found, expected, strict=True):
            assert one.pop("confidence", 0) == pytest.approx(other.pop("confidence", 0), abs=1e-3)
            assert one == other


def test_a_line_whose_segment_changed_is_labelled_anew(parts, workdir, own, tmp_path, interrupted, labelled):
    output = tmp_path / "pseudo.jsonl"
    lines = [{"audio_filepath": "6.wav", "offset": 0.1 * number, "duration": 0.2} for number in range(5)]
    own.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    interrupted(str(own), output, num_groups=2)
    lines[1]["duration"] = 0.3
    own.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    labelled.clear()
    assert label(parts, workdir, str(own), output) == 0
    assert labelled == ["6.wav", "6.wav"]
    assert [line["duration"] for line in read(output)] == pytest.approx([0.2, 0.3, 0.2, 0.2, 0.2])


def test_shards_that_were_made_again_are_labelled_anew(parts, workdir, own, tmp_path, interrupted, labelled):
    lines = [{"audio_filepath": f"{number}.wav", "text": "a"} for number in range(5)]
    own.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    output, shards = tmp_path / "pseudo.jsonl", tmp_path / "shards"

    def prepare():
        write_tfrecords(utterances=read_jsonl(own), output=shards, num_shards=5, num_workers=1, split="dev")

    prepare()
    interrupted(str(shards), output, num_groups=2)
    say(own.with_name("2.wav"), 102, soundfile.info(own.with_name("2.wav")).frames)
    prepare()  # the shard whose recording is newer, beside the others
    labelled.clear()
    assert label(parts, workdir, str(shards), output) == 0
    assert [name.rpartition(":")[2] for name in labelled] == ["2", "4"]
    assert [line["utterance_id"] for line in read(output)] == list("01234")
    written, _ = soundfile.read(tmp_path / read(output)[2]["audio_filepath"])
    np.testing.assert_allclose(written, soundfile.read(own.with_name("2.wav"))[0], atol=1e-4)


def test_a_recording_that_changed_before_the_files_were_written_is_labelled_anew(
    parts, workdir, own, tmp_path, labelled, monkeypatch
):
    output = tmp_path / "pseudo.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr(pseudo_label, "_finish", lambda journal, output: 143)
        label(parts, workdir, str(own), output)
    say(own.with_name("4.wav"), 104)
    labelled.clear()
    label(parts, workdir, str(own), output)
    assert labelled == ["4.wav"]
    assert [line["utterance_id"] for line in read(output)] == list("0123456")
    assert read(output)[4]["duration"] == pytest.approx(11_000 / 16_000, abs=1e-4)


def test_the_journal_of_an_older_version_continues_and_says_what_it_cannot_see(
    parts, workdir, own, tmp_path, interrupted, labelled, capsys
):
    output, journal = tmp_path / "pseudo.jsonl", tmp_path / "pseudo.jsonl.partial"
    interrupted(str(own), output, num_groups=2)
    settings, *rows = read(journal)
    rows = [{name: row[name] for name in ("name", "audio_secs", "labels")} for row in rows]
    journal.write_text("".join(json.dumps(line) + "\n" for line in (settings, *rows)), encoding="utf-8")
    labelled.clear()
    label(parts, workdir, str(own), output)
    assert labelled == ["m.jsonl:5", "3.wav", "4.wav", "5.wav", "6.wav"]
    assert "4 rows of" in (printed := capsys.readouterr().out) and "did not note the state of recordings" in printed
    assert [line["utterance_id"] for line in read(output)] == list("0123456")


def test_two_replicas_make_the_labels_of_one(parts, workdir, manifest, straight, tmp_path):
    label(parts, workdir, manifest, tmp_path / "pseudo.jsonl", strategy_name="mirrored")
    for expected, found in zip(read(straight), read(tmp_path / "pseudo.jsonl"), strict=True):
        assert (found["utterance_id"], found["text"]) == (expected["utterance_id"], expected["text"])
        assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-3)


def test_a_second_checkpoint_must_agree(parts, workdir, manifest, tmp_path):
    label(parts, workdir, manifest, tmp_path / "out.jsonl", options={"second_checkpoint": workdir})
    assert [line["disagreement"] for line in read(tmp_path / "out.jsonl")] == [0.0] * 7
    label(parts, workdir, manifest, tmp_path / "fast.jsonl", options={"second_speed": 1.3, "max_disagreement": 0.0})
    # A random model hears something else in faster noise.
    assert "views_disagree" in {line["reason"] for line in read(tmp_path / "fast.left_out.jsonl")}


def test_each_recognizer_has_the_windows_that_suit_it(parts, workdir, manifest, tmp_path, monkeypatch):
    other = shutil.copytree(workdir, tmp_path / "other")
    (other / "environment.json").write_text('{"trained_row_secs": 2.5}')
    found, load = [], pseudo_label.load_transcriber
    monkeypatch.setattr(pseudo_label, "load_transcriber", lambda **fields: found.append(made := load(**fields)) or made)
    label(parts, workdir, manifest, tmp_path / "out.jsonl", options={"second_checkpoint": str(other)})
    assert [transcriber.window_secs for transcriber in found] == [20.0, 2.5]


def test_a_run_of_an_older_version_has_no_such_fields_and_resumes():
    now = base.get_small_config().to_dict()
    before = {name: value for name, value in now.items() if name != "pseudo_label"}
    assert compare_config(before, now, allowed=experiment.RESUMABLE_FIELDS) == []


def test_a_pseudo_labelled_manifest_trains(parts, straight, tmp_path):
    config = base.get_small_config()
    config.data.train.update(format="jsonl", input=str(straight))
    config.data.num_buckets = 1
    config.train.update({"num_updates": 2, "global_batch_size": 4, "warmup_updates": 0, "hold_updates": 0})
    config.train.log_every_updates = 1
    config.checkpoint.every_updates = 2
    data = build_train_data(
        tokenizer=parts.build_tokenizer(""),
        text_normalization="librispeech",
        **config.data.train.to_dict(),
        **{name: config.data[name] for name in ("on_rate_mismatch", "num_buckets", "num_parallel_calls")},
        prefetch_batches=1,
        global_batch_size=4,
        seed=0,
    )
    assert (data.num_utterances, data.num_left_out) == (7, 0)
    outcome = experiment.run(
        config=config, parts=parts, workdir=str(tmp_path / "run"), mode="train", strategy_name="one_device"
    )
    assert outcome.exit_status == 0
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert len(losses) == 2 and np.isfinite(losses).all()
