"""The report of an evaluation: from the files of a workdir; a fault is one warning and nothing else."""

from __future__ import annotations

import json
import logging as std_logging

import pytest
import tensorflow as tf

from data.common.page import page_environment
from engine.common import files
from engine.report.history import write_history
from engine.report.writer import ReportWriter
from tests.engine.report.toys import make_predictions
from tests.helpers.pages import check_page


class Data:
    utterance_ids = {4: "u000", 2: "u001"}
    texts = {4: "A, b: c.", 2: "D e f"}

    def read_flac(self, index):
        if index == 2:
            raise OSError("gone")
        return b"fLaC"


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    predictions = make_predictions([("a b c", "a b"), ("d e f", "d e")])
    files.write_jsonl_atomic(folder / "eval/dev/predictions.jsonl", predictions)
    write_history(folder / "eval/dev", 10, [{**record, "hypothesis": "", "errors": 4} for record in predictions])
    files.append_jsonl(folder / "metrics.jsonl", {"step": 10, "split": "train", "loss": 3.0, "learning_rate": 0.5})
    files.append_jsonl(folder / "metrics.jsonl", {"step": 10, "split": "dev", "loss": 2.0, "wer": 0.75})
    files.write_json_atomic(folder / "config.json", {"model": {"preset": "tiny"}, "train": {"num_updates": 2000}})
    return folder


def writer(workdir, **fields):
    return ReportWriter(
        **{
            "workdir": workdir, "global_step": tf.Variable(20, dtype=tf.int64), "data": {"dev": Data()},
            "page_environment": page_environment, "max_utterances": 5, "max_audio_mb": 1.0, **fields,
        }
    )  # fmt: skip


def test_the_report_stands_on_the_files_of_the_workdir_and_on_metrics_that_are_not_there_yet(workdir):
    writer(workdir)({"dev": {"wer": 1 / 3, "cer": 0.4, "loss": 1.5}})
    page = (workdir / "report.html").read_text()
    check_page(page)
    assert "Error report: run" in page and "Weights of update 20" in page
    assert "<dt>Model</dt><dd>tiny</dd>" in page and "<dt>Updates</dt><dd>2,000</dd>" in page
    assert "<td>train.num_updates</td><td><code>2000</code></td>" in page
    assert ">33.33<" in page and ">40.00<" in page
    assert "dev, update 10: 75" in page and "dev, update 20: 33.33" in page
    assert "Against update 10: WER -100.00 points" in page
    assert page.count("<audio") == 1  # the other cannot be read


def test_what_goes_wrong_is_one_warning_and_the_old_report_stays(workdir, caplog):
    (workdir / "report.html").write_text("old")
    with caplog.at_level(std_logging.WARNING, logger="absl"):
        writer(workdir)({"test": {"wer": 0.5}})
    (record,) = caplog.records
    message = record.getMessage()
    assert "report.html of update 20 is not written: " in message and "eval/test/predictions.jsonl" in message
    assert "\n" not in message
    assert (workdir / "report.html").read_text() == "old"


def test_no_report_where_none_is_wanted_and_sets_without_audio_have_no_player(workdir):
    writer(workdir, max_utterances=0)({"dev": {"wer": 0.5}})
    assert not (workdir / "report.html").exists()
    writer(workdir, data={})({"dev": {"wer": 0.5}})
    assert "<audio" not in (workdir / "report.html").read_text()


def test_a_followers_report_has_the_curves_of_the_training_it_follows(workdir, tmp_path):
    own = tmp_path / "own"
    (own / "eval").mkdir(parents=True)
    (workdir / "eval/dev").rename(own / "eval/dev")
    writer(own, training_workdir=workdir)({"dev": {"wer": 0.5}})
    page = (own / "report.html").read_text()
    assert "Error report: run" in page and "Learning rate" in page
    assert json.loads((workdir / "config.json").read_text())["model"]["preset"] == "tiny"
    assert not (workdir / "report.html").exists()


def test_texts_without_spaces_are_compared_by_characters_with_the_evaluation_before(tmp_path):
    folder, earlier = tmp_path / "run", make_predictions([("今天天气很好", "今天天天天天"), ("我们去学校", "我们去")])
    write_history(folder / "eval/dev", 10, earlier)
    predictions = make_predictions([("今天天气很好", "今天天气很"), ("我们去学校", "我们去学校")])
    files.write_jsonl_atomic(folder / "eval/dev/predictions.jsonl", predictions)
    writer(folder)({"dev": {"wer": 0.5, "cer": 1 / 11, "loss": 1.5}})
    # 5 errors of 11 characters were, 1 is.
    assert "Against update 10: CER -36.36 points" in (folder / "report.html").read_text()
