"""What was heard before: the evaluation before this one, a few files, never a later one."""

from __future__ import annotations

from engine.report.history import read_previous, write_history


def predictions(text):
    return [{"utterance_id": "u", "reference": "a b", "hypothesis": text, "errors": 1, "num_words": 2}]


def test_the_evaluation_before_is_found_and_old_ones_go(tmp_path):
    assert read_previous(tmp_path, 100) is None
    for step in (100, 200, 300, 400):
        write_history(tmp_path, step, predictions(f"at {step}"))
    assert sorted(path.name for path in (tmp_path / "history").iterdir()) == ["200.jsonl", "300.jsonl", "400.jsonl"]
    step, lines = read_previous(tmp_path, 400)
    assert (step, lines["u"]) == (300, {"utterance_id": "u", "hypothesis": "at 300", "errors": 1})


def test_an_older_checkpoint_evaluated_again_has_its_own_past_and_harms_no_other(tmp_path):
    for step in (100, 200, 300, 400, 150):
        write_history(tmp_path, step, predictions(str(step)))
    (tmp_path / "history" / "\u00b2.jsonl").touch()  # a digit that is no number
    assert read_previous(tmp_path, 150) is None  # 100 has gone
    assert read_previous(tmp_path, 400)[0] == 300
    # A run that went back to update 160 does not lose its past to the files of the future that it left.
    write_history(tmp_path, 160, predictions("160"))
    assert read_previous(tmp_path, 160)[0] == 150
