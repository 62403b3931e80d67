"""The mode as a whole, over a script that trains stand-ins; the real one is in tests/test_resume.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from configs import base
from engine.modes import verify_resume
from engine.resume_check.interruptions import Interruption, Moment
from engine.resume_check.run_comparison import Check

ROOT = Path(__file__).resolve().parents[3]

# experiment.run over the stand-ins of the tests; the planted fault begins the data anew in every process.
SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from engine import experiment
from engine.common.signals import StopOnSignal
from tests.helpers.experiment_toys import ToyTrainData, make_config, make_parts
options = dict(argument.split("=", 1) for argument in sys.argv[1:])
class Forgetful(ToyTrainData):
    def __init__(self, **fields):
        super().__init__(**fields)
        dataset = self.dataset
        self.dataset = lambda context, start_update: dataset(context, 0)
parts = make_parts(**({{"build_train_data": Forgetful}} if {is_forgetful} else {{}}))
config = make_config({root!r}, num_updates=int(options["--config.train.num_updates"]))
with StopOnSignal() as stop:
    outcome = experiment.run(config=config, parts=parts, workdir=options["--workdir"], mode="train", stop=stop)
sys.exit(outcome.exit_status)
"""


def make_config(**fields):
    config = base.get_small_config()
    config.train.log_every_updates = 2
    config.verify_resume.update({"num_updates": 30, "num_interruptions": 2, **fields})
    return config


@pytest.mark.slow
@pytest.mark.parametrize("is_forgetful", [False, True])
def test_a_run_that_resumes_rightly_passes_and_one_that_does_not_fails(tmp_path, capsys, is_forgetful):
    script = tmp_path / "run.py"
    script.write_text(SCRIPT.format(root=str(ROOT), is_forgetful=is_forgetful))
    config = make_config(signals=("SIGKILL", "SIGTERM"), seed=3)
    status = verify_resume.run(config=config, command=[sys.executable, str(script)], workdir=str(tmp_path / "work"))
    outcome = json.loads((tmp_path / "work/verify_resume.json").read_text())
    printed = capsys.readouterr().out
    different = [check["name"] for check in outcome["checks"] if check["num_different"]]
    assert len(outcome["interruptions"]) == 2
    assert [item["moment"]["signal_name"] for item in outcome["interruptions"]] == ["SIGKILL", "SIGTERM"]
    if is_forgetful:
        assert (status, outcome["equal"]) == (2, False)
        assert {"order of the data", "weights, optimizer and counters"} <= set(different)
        assert "NOT the same run" in printed
    else:
        assert (status, outcome["equal"], different) == (0, True, [])
        assert "the same run, bit by bit" in printed


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"signals": ("SIGHUP",)},
            r"verify_resume.signals=\('SIGHUP',\): wanted one or more of SIGTERM, SIGINT, SIGKILL",
        ),
        ({"signals": ()}, r"verify_resume.signals=\(\): wanted one or more of"),
        ({"num_interruptions": 0}, "verify_resume.num_interruptions=0: wanted 1 or more"),
    ],
)
def test_wrong_fields_are_refused_before_anything_runs(tmp_path, fields, message):
    with pytest.raises(ValueError, match=message):
        verify_resume.run(config=make_config(**fields), command=["false"], workdir=str(tmp_path))


def test_the_report_names_the_first_difference_and_late_stops():
    interruptions = [
        Interruption(Moment("SIGTERM", "update", 5, 0.1), reached=5, exit_status=143, secs=31.0),
        Interruption(Moment("SIGKILL", "save", 5, 0.1), reached=5, exit_status=-9, secs=40.0),
    ]
    late = verify_resume._check_stops(interruptions, 30.0)
    assert (late.num_compared, late.num_different) == (1, 1)
    assert verify_resume._check_stops(interruptions, 0.0).num_different == 0
    text = verify_resume.report([Check("weights", 12, 0), late], interruptions)
    assert text.splitlines() == [
        "compared           values  different  first difference",
        "weights                12          0",
        "stops within 30 s       1          1  31.0 s after SIGTERM at update 5",
        "",
        "2 interruptions: 1 x SIGKILL in save, 1 x SIGTERM in update",
        "NOT the same run",
    ]


@pytest.mark.parametrize(
    ("num_updates", "counted"), [(0, []), (30, ["--config.train.num_epochs=0", "--config.train.num_updates=30"])]
)
def test_a_config_that_counts_in_epochs_is_given_no_number_beside_them(tmp_path, monkeypatch, num_updates, counted):
    config = make_config(num_updates=num_updates)
    config.train.update({"num_updates": 0, "num_epochs": 3.0})
    commands, planned = [], {}

    def straight(*, command, workdir, log):
        commands.append(command)
        workdir.mkdir(parents=True)
        (workdir / "config.json").write_text('{"train": {"num_updates": 48}}')
        return SimpleNamespace(startup_secs=1.0)

    class Planned(Exception):  # noqa: N818 - not an error
        pass

    def plan(**fields):
        planned.update(fields)
        raise Planned

    monkeypatch.setattr(verify_resume, "run_straight", straight)
    monkeypatch.setattr(verify_resume, "plan_moments", plan)
    with pytest.raises(Planned):
        verify_resume.run(config=config, command=["run.py"], workdir=str(tmp_path))
    assert [option for option in commands[0] if "num_" in option] == counted
    assert planned["num_updates"] == (num_updates or 48)
