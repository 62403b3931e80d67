"""Lines of a workdir that somebody has edited, or a disk has damaged: read, or refused with file and line."""

from __future__ import annotations

import json
import random

import pytest

from engine.modes.report import run as run_report
from engine.report.facts import UNKNOWN, RunFacts
from engine.report.history import write_history
from engine.workdir.records import read_heard, read_metrics, read_predictions
from tests.engine.report.toys import make_predictions
from tests.fuzz.mutations import mutate_bytes, mutate_json, mutate_lines
from tests.helpers.experiment_toys import make_config, make_parts

METRIC = {"step": 10, "split": "dev", "wer": 0.5, "cer": None, "loss": 2, "data_digest": "ab", "anything": [1]}


def write(path, *records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_lines_as_they_are_written_are_read(tmp_path):
    predictions = make_predictions([("a b", "a"), ("a", "a c")], speakers=["s", ""], secs=[1.0, None])
    assert read_metrics(write(tmp_path / "m.jsonl", METRIC)) == [METRIC]
    assert read_predictions(write(tmp_path / "p.jsonl", *predictions)) == predictions
    heard = [{"utterance_id": "u", "hypothesis": "", "errors": 0}]
    assert read_heard(write(tmp_path / "h.jsonl", *heard)) == heard


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"step": None}, "'step' is null, not a whole number"),
        ({"step": -1}, "'step' is -1, not a whole number"),
        ({"step": 1.5}, "'step' is 1.5, not a whole number"),
        ({"split": ["dev"]}, "'split' is a JSON array, not text"),
        ({"wer": "0.5"}, """'wer' is "0.5", not a finite number"""),
        ({"wer": True}, "'wer' is true, not a finite number"),
        ({"loss": float("nan")}, "'loss' is NaN, not a finite number"),
        ({"loss": 10**400}, "'loss' is 1000000"),
    ],
)
def test_a_metric_of_another_type_is_named_with_its_line(tmp_path, fields, message):
    with pytest.raises(ValueError) as caught:
        read_metrics(write(tmp_path / "m.jsonl", METRIC, {**METRIC, **fields}))
    assert str(caught.value).startswith(f"{tmp_path}/m.jsonl, line 2: {message}")
    assert str(caught.value).endswith("; repair or remove the line")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"utterance_id": 3}, "'utterance_id' is 3, not text"),
        ({"utterance_id": "u000"}, "utterance 'u000' occurs twice"),
        ({"hypothesis": None}, "'hypothesis' is null, not text"),
        ({"num_words": 2**62}, "'num_words' is 4611686018427387904, not a whole number"),
        ({"num_words": 0}, "the word counts do not add up"),
        ({"errors": 7}, "the word counts do not add up"),
        ({"insertions": "1"}, """'insertions' is "1", not a whole number"""),
        ({"speaker_id": 7}, "'speaker_id' is 7, not text"),
        ({"duration_secs": "long"}, """'duration_secs' is "long", not a finite number"""),
    ],
)
def test_a_prediction_that_is_none_is_named_with_its_line(tmp_path, fields, message):
    first, second = make_predictions([("a b", "a b"), ("a b", "")])[::-1]
    assert (first["utterance_id"], second["utterance_id"]) == ("u000", "u001")
    with pytest.raises(ValueError) as caught:
        read_predictions(write(tmp_path / "p.jsonl", first, {**second, **fields}))
    assert str(caught.value).startswith(f"{tmp_path}/p.jsonl, line 2: {message}")
    assert str(caught.value).endswith("; repair or remove the line")


def gone(**fields):
    raise ValueError("there: no such file")


PARTS = make_parts(build_eval_data=gone)


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    predictions = make_predictions(
        [("a b c", "a"), ("שלום", "x"), ("", "y z"), ("d", "d")],
        speakers=["s", "s", "t", ""],
        secs=[1.0, 2.5, 0.1, 9.0],
    )
    (folder / "eval/dev/history").mkdir(parents=True)
    write(folder / "eval/dev/predictions.jsonl", *predictions)
    write_history(folder / "eval/dev", 10, [{**record, "hypothesis": "", "errors": 2} for record in predictions])
    train = {"split": "train", "loss": 9.5, "learning_rate": 0.1, "audio_secs_per_sec": 30.0}
    evaluation = {"split": "dev", "wer": 0.5, "cer": 0.25, "loss": 2.0, "num_words": 5, "num_utterances": 4}
    write(folder / "metrics.jsonl", *({"step": step, **line} for step in (10, 20) for line in (train, evaluation)))
    config = make_config(tmp_path)
    config.data.eval = {"dev": {"format": "jsonl", "input": "there"}}
    (folder / "config.json").write_text(json.dumps(config.to_dict()))
    return folder


@pytest.mark.parametrize(
    ("name", "count"), [("metrics.jsonl", 60), ("eval/dev/predictions.jsonl", 120), ("eval/dev/history/10.jsonl", 20)]
)
def test_a_report_of_damaged_lines_is_made_or_refused_in_one_line(workdir, tmp_path, name, count):
    """Made, too: damage may be no more than another number."""
    path = workdir / name
    records = [json.loads(line) for line in path.read_text().splitlines()]
    made = 0
    for seed in range(count):
        path.write_bytes(mutate_lines(random.Random(f"{name} {seed}"), records))
        try:
            assert run_report(parts=PARTS, inputs=[str(workdir)], output=str(tmp_path / "page.html")) == 0
            made += 1
        except (ValueError, OSError) as error:
            assert "\n" not in str(error) and len(str(error)) < 600 and str(workdir) in str(error), seed
    # The history is left out where it is damaged.
    assert made == count if "history" in name else 1 < made < count * 0.8


def test_a_comparison_of_damaged_lines_is_made_or_refused_in_one_line(workdir, tmp_path):
    other = tmp_path / "other"
    (other / "eval/dev").mkdir(parents=True)
    predictions = (workdir / "eval/dev/predictions.jsonl").read_bytes()
    for seed in range(60):
        rng = random.Random(seed)
        (other / "eval/dev/predictions.jsonl").write_bytes(mutate_bytes(rng, predictions) if seed % 2 else predictions)
        (other / "metrics.jsonl").write_bytes(mutate_lines(rng, [METRIC, METRIC]))
        try:
            run_report(parts=PARTS, inputs=[str(workdir), str(other)], output=str(tmp_path / "page.html"))
        except (ValueError, OSError) as error:
            assert "\n" not in str(error) and len(str(error)) < 600, seed


def test_what_a_report_can_do_without_is_left_out_and_named(workdir, caplog):
    (workdir / "eval/dev/history/10.jsonl").write_text("{\n")
    fields = json.loads((workdir / "config.json").read_text())
    fields["eval"]["report_utterances"] = "many"
    (workdir / "config.json").write_text(json.dumps(fields))
    assert run_report(parts=PARTS, inputs=[str(workdir)]) == 0
    said = [record.getMessage() for record in caplog.records]
    assert any("history/10.jsonl, line 1: not a JSON object" in line for line in said)
    assert any('eval.report_utterances is "many" in config.json' in line for line in said)
    assert any(line.startswith("no audio ") for line in said)
    assert "No earlier checkpoint" in (workdir / "report.html").read_text()


def test_the_config_of_a_run_that_is_damaged_costs_a_report_its_facts_at_most(workdir, caplog):
    config = json.loads((workdir / "config.json").read_text())
    for seed in range(150):
        (workdir / "config.json").write_bytes(mutate_json(random.Random(seed), config))
        facts = RunFacts.read(workdir)
        shown = [*facts.summary().values(), *facts.fields().values()]
        assert all(isinstance(value, str) and len(value) < 400 for value in shown)
    (workdir / "config.json").write_text('{"model": ')
    facts = RunFacts.read(workdir)
    assert facts.fields() == {} and set(facts.summary().values()) == {UNKNOWN}
    assert "config.json is not valid JSON" in caplog.records[-1].getMessage()


@pytest.mark.parametrize(("slices", "message"), [(["a"], "'slices' is a JSON array"), ({"accent": 3}, "'accent' is 3")])
def test_slices_of_another_type_are_named_with_their_line(tmp_path, slices, message):
    (record,) = make_predictions([("a", "a")])
    assert read_predictions(write(tmp_path / "p.jsonl", {**record, "slices": {"accent": "x"}}))
    with pytest.raises(ValueError, match="p.jsonl, line 1") as caught:
        read_predictions(write(tmp_path / "p.jsonl", {**record, "slices": slices}))
    assert message in str(caught.value)
