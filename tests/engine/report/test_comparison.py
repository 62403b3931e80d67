"""Runs side by side: only what all have counts; p values that hold together; a page."""

from __future__ import annotations

from pathlib import Path

import pytest

from data.common.page import page_environment
from engine.common import files
from engine.report.comparison import compare_runs, describe, draw_runs, read_runs, render_comparison
from engine.report.statistics import compare_errors, holm
from tests.engine.report.toys import make_predictions
from tests.helpers.pages import check_page

FOLDER = Path(__file__).resolve().parents[3] / "engine/report"
TRUE = "a b c d"


def make_run(folder, texts, *, name="dev", step=40):
    files.write_jsonl_atomic(folder / "eval" / name / "predictions.jsonl", make_predictions(texts))
    files.append_jsonl(
        folder / "metrics.jsonl",
        {"step": step, "split": "train", "loss": 2.0, "learning_rate": 0.1, "audio_secs_per_sec": 10.0},
        {"step": step, "split": name, "wer": 0.5},
    )
    return str(folder)


@pytest.fixture
def workdirs(tmp_path):
    wrong, right = (TRUE, "a b"), (TRUE, TRUE)
    return [
        make_run(tmp_path / "base", [wrong] * 20 + [right] * 20),
        make_run(tmp_path / "good", [wrong] * 4 + [right] * 36),
        make_run(tmp_path / "same<", [right] + [wrong] * 20 + [right] * 18 + [("other text", "a")], step=50),
    ]


def test_each_run_is_compared_with_the_first_on_what_all_have(workdirs):
    (found,) = compare_runs(read_runs(workdirs))
    assert (found.name, found.num_common, found.num_apart) == ("dev", 39, 1)
    assert [run.words.num_errors for run in found.runs] == [40, 8, 40]
    assert [run.words.num_reference for run in found.runs] == [4 * 39] * 3
    assert [run.step for run in found.runs] == [40, 40, 50]
    base, good, same = found.runs
    assert base.change is None and (good.change.num_better, good.change.num_worse) == (16, 0)
    assert good.change.test.difference == pytest.approx(-32 / (4 * 39))
    errors = [2] * 20 + [0] * 19
    alone = compare_errors(errors, [2] * 4 + [0] * 35, [4] * 39, [""] * 39).p_value
    # Two tests: the smaller p value counts twice.
    assert good.p_value == pytest.approx(2 * alone) and good.is_significant
    assert same.change.test.difference == 0.0 and not same.is_significant
    assert holm([0.01, None, 0.04, 0.03]) == [0.03, None, 0.06, 0.06]
    words = describe([found])
    assert "dev  good  WER 5.13 %  -20.51 points against base, p " in words
    assert words.endswith("may be chance")


def test_the_page_is_whole_and_escaped(workdirs):
    runs = read_runs(workdirs)
    sets = compare_runs(runs)
    page = render_comparison(environment=page_environment(FOLDER), runs=runs, sets=sets)
    check_page(page)
    assert "same&lt; against base" in page and "same<" not in page
    assert page.count('<span class="fine">better') == 1 and page.count('<span class="soft">not sure') == 1
    assert [figure.title for figure in draw_runs(runs, sets)] == [
        "Training loss per utterance", "Word error rate of dev, %", "Learning rate",
        "Training throughput, seconds of audio a second",
    ]  # fmt: skip
    assert [line.color for line in draw_runs(runs, sets)[1].lines] == [0, 1, 2]


def test_each_run_has_its_character_error_rate_with_an_interval(workdirs):
    (found,) = compare_runs(read_runs(workdirs))
    # "a b c d" read as "a b": four of seven characters.
    assert found.runs[0].char_rate == pytest.approx(20 * 4 / (39 * 7))
    assert found.runs[0].char_interval.low < found.runs[0].char_rate < found.runs[0].char_interval.high
    runs = read_runs(workdirs)
    page = render_comparison(environment=page_environment(FOLDER), runs=runs, sets=[found])
    assert "<strong>29.30</strong>" in page


def test_the_page_names_the_config_fields_that_differ(workdirs):
    environment = page_environment(FOLDER)

    def render():
        runs = read_runs(workdirs)
        return render_comparison(environment=environment, runs=runs, sets=compare_runs(runs))

    assert "A run has no config.json" in render() and "The configs of all runs are the same." in render()
    for workdir, rate, name in zip(workdirs, (0.1, 0.2, 0.1), ("</td><b>", "", ""), strict=True):
        config = {"train": {"learning_rate": rate, "num_updates": 7}, "name": name}
        files.write_json_atomic(f"{workdir}/config.json", config)
    page = render()
    check_page(page)
    assert "no config.json" not in page
    cells = "".join(f'<td class="value"><code>{value}</code></td>' for value in ("0.1", "0.2", "0.1"))
    assert f"<tr><td>train.learning_rate</td>{cells}</tr>" in page
    assert "num_updates" not in page and "&lt;/td&gt;&lt;b&gt;" in page


def test_runs_that_cannot_be_compared_are_named(workdirs, tmp_path):
    with pytest.raises(ValueError, match=r"none: no eval/SET/predictions.jsonl there"):
        read_runs([workdirs[0], str(tmp_path / "none")])
    with pytest.raises(ValueError, match="given twice"):
        read_runs([workdirs[0], workdirs[0]])
    other_set = make_run(tmp_path / "test-only", [(TRUE, TRUE)], name="test")
    with pytest.raises(ValueError, match=r"base has dev; test-only has test\): evaluate one"):
        compare_runs(read_runs([workdirs[0], other_set]))
    other_text = make_run(tmp_path / "x/base", [("e", "e")])
    runs = read_runs([workdirs[0], other_text])
    assert [run.name for run in runs] == [workdirs[0], other_text]  # two folders of one name are told apart
    with pytest.raises(ValueError, match="dev: no utterance has the same id and reference in all of"):
        compare_runs(runs)


def test_runs_on_texts_without_spaces_are_compared_by_characters(tmp_path):
    right = "今天天气很好我们"
    wrong, near = "不" * 8, right[:7] + "不"
    runs = [make_run(tmp_path / name, [(right, text)] * 20) for name, text in (("base", wrong), ("near", near))]
    (found,) = compare_runs(read_runs(runs))
    assert found.metric == "cer"
    assert found.runs[1].change.test.difference == pytest.approx(-7 / 8) and found.runs[1].change.num_better == 20
    assert "dev  base  CER 100.00 %" in describe([found]) and "near  CER 12.50 %  -87.50 points" in describe([found])
    files.write_json_atomic(tmp_path / "base/config.json", {"eval": {"best_metric": "wer"}})
    (found,) = compare_runs(read_runs(runs))
    assert found.metric == "wer" and found.runs[1].change.test.difference == 0.0


def test_each_slice_of_the_common_utterances_is_compared(tmp_path):
    accents = ["irish", "irish", "scottish", None, "irish"]
    texts = {
        "base": [("a b", "a"), ("a b", "a b"), ("c", "x"), ("d", "d"), ("e", "e")],
        "good": [("a b", "a b"), ("a b", "a b"), ("c", "x"), ("d", ""), ("other", "e")],
    }
    folders = []
    for name, pairs in texts.items():
        records = make_predictions(pairs)
        for record in records:
            # The second run is of an older version, which wrote no slices.
            if name == "base" and (accent := accents[int(record["utterance_id"][1:])]):
                record["slices"] = {"accent": accent}
        files.write_jsonl_atomic(tmp_path / name / "eval/dev/predictions.jsonl", records)
        folders.append(str(tmp_path / name))
    for order in (folders, folders[::-1]):
        runs = read_runs(order)
        (found,) = compare_runs(runs)
        assert {
            one.name: (one.num_utterances, one.runs[0].words.num_reference, one.runs[1].words.num_errors)
            for one in found.slices["accent"]
        } == {
            "scottish": (1, 1, 1),
            "irish": (2, 4, 0 if order is folders else 1),
            "": (1, 1, 1 if order is folders else 0),
        }
        sign = 1 if order is folders else -1
        differences = {one.name: one.runs[1].difference for one in found.slices["accent"]}
        assert differences == {"scottish": 0.0, "irish": -sign * 0.25, "": sign * 1.0}
        page = render_comparison(environment=page_environment(FOLDER), runs=runs, sets=[found])
        check_page(page)
        assert "<h3>By accent</h3>" in page
