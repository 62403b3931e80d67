"""--mode=report: one workdir's report again, with its audio where the corpus still is; several compared."""

from __future__ import annotations

import pytest

from engine.common import files
from engine.modes import report
from tests.engine.report.test_comparison import TRUE, make_run
from tests.helpers.experiment_toys import make_config, make_parts
from tests.helpers.pages import check_page


class Data:
    utterance_ids = {4: "u000"}
    texts = {4: "a b"}

    def read_flac(self, index):
        return b"fLaC"


@pytest.fixture
def workdir(tmp_path):
    folder = tmp_path / "run"
    make_run(folder, [(TRUE, "a b")], name="old", step=20)
    make_run(folder, [(TRUE, "a b")])
    make_run(folder, [(TRUE, "a")], name="dev-ema")
    config = make_config(tmp_path)
    config.data.eval = {"dev": {"format": "jsonl", "input": "there"}}
    files.write_json_atomic(folder / "config.json", config.to_dict())
    return folder


def test_the_report_of_the_last_evaluation_is_made_again(workdir, capsys):
    parts = make_parts(build_eval_data=lambda **fields: Data())
    assert report.run(parts=parts, inputs=[str(workdir)]) == 0
    page = (workdir / "report.html").read_text()
    check_page(page)
    assert "Weights of update 40" in page and '<a href="#set-2">dev-ema</a>' in page and ">old<" not in page
    assert page.count("<audio") == 2 and page.count("ZkxhQw") == 1  # one clip, played in both sets
    assert f"written to {workdir}/report.html" in capsys.readouterr().out


def test_a_corpus_that_is_gone_costs_the_audio_alone(workdir, tmp_path):
    def gone(**fields):
        raise ValueError("there: no such file")

    output = tmp_path / "page.html"
    parts = make_parts(build_eval_data=gone)
    assert report.run(parts=parts, inputs=[str(workdir)], output=str(output)) == 0
    assert "Weights of update 40" in output.read_text() and "<audio" not in output.read_text()
    assert not (workdir / "report.html").exists()


def test_several_are_compared_and_the_words_printed(workdir, tmp_path, capsys):
    other = make_run(tmp_path / "other", [(TRUE, TRUE)])
    assert report.run(parts=make_parts(), inputs=[str(workdir), other]) == 0
    check_page((workdir / "comparison.html").read_text())
    out = capsys.readouterr().out
    assert "dev  other  WER 0.00 %  -50.00 points against run\n" in out  # of one utterance nothing more is known


def test_nothing_to_report_is_one_line(workdir):
    with pytest.raises(ValueError, match="--inputs=RUN_A,RUN_B"):
        report.run(parts=make_parts(), inputs=[])
    (workdir / "metrics.jsonl").unlink()
    with pytest.raises(ValueError, match="metrics.jsonl has no evaluation"):
        report.run(parts=make_parts(), inputs=[str(workdir)])
