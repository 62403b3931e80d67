"""Moments are drawn all over a run and hit where they should; the run is a short script that trains nothing."""

from __future__ import annotations

import collections
import json
import sys

import pytest

from engine.resume_check.interruptions import Moment, Timeline, plan_moments, run_interrupted, run_straight

# Counts to 60 in lines of five; saves after each line, evaluates at 30 and at the end, goes on from what it saved.
SCRIPT = """
import json, os, signal, sys, time
workdir = sys.argv[1]
state, lines = f"{workdir}/state", f"{workdir}/metrics.jsonl"
os.makedirs(f"{workdir}/checkpoints", exist_ok=True)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(int(sys.argv[2])))
step = int(open(state).read()) if os.path.exists(state) else 0
old = [line for line in open(lines) if json.loads(line)["step"] <= step] if step else []
open(lines + ".new", "w").writelines(old)
os.replace(lines + ".new", lines)
def say(step, split):
    with open(lines, "a") as file:
        file.write(json.dumps({"step": step, "split": split}) + chr(10))
time.sleep(0.2)
while step < 60:
    time.sleep(0.03)
    step += 5
    say(step, "train")
    os.makedirs(f"{workdir}/checkpoints/ckpt-{step}_temp", exist_ok=True)
    time.sleep(0.05)
    open(state + ".new", "w").write(str(step))
    os.replace(state + ".new", state)
    for name in os.listdir(f"{workdir}/checkpoints"):
        if name.endswith("_temp"): os.rmdir(f"{workdir}/checkpoints/{name}")
    if step % 30 == 0:
        time.sleep(0.1)
        say(step, "dev")
"""


@pytest.fixture
def run(tmp_path):
    def arguments(name, status=143):
        (tmp_path / name).mkdir()
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / name), str(status)]
        return {"command": command, "workdir": tmp_path / name, "log": tmp_path / f"{name}.log"}

    return arguments


def steps(workdir):
    return [(line["step"], line["split"]) for line in map(json.loads, (workdir / "metrics.jsonl").open())]


def test_a_timeline_tells_start_loops_and_evaluations(run):
    timeline = run_straight(**run("straight"))
    assert timeline.evaluated == (30, 60)
    assert 0.2 < timeline.startup_secs < 20
    assert 0.05 < timeline.loop_secs < 5
    assert 0.1 < timeline.evaluation_secs < 5


def test_a_run_is_ended_in_every_phase_and_still_comes_to_its_end(run, tmp_path):
    moments = [
        Moment("SIGKILL", "start-up", 0, 0.05),
        Moment("SIGTERM", "update", 10, 0.01),
        Moment("SIGKILL", "save", 20, 0.0),
        Moment("SIGKILL", "evaluation", 30, 0.1),
        Moment("SIGTERM", "update", 45, 0.0),
    ]
    said = []
    done = run_interrupted(**run("run"), moments=moments, startup_secs=0.4, on_interruption=said.append)
    assert done == said
    assert [item.moment for item in done] == moments
    assert [item.exit_status for item in done] == [-9, 143, -9, -9, 143]
    assert done[0].reached == 0
    # What a process finds in the file is not its own: each has got on before it was ended.
    assert [item.reached for item in done] == sorted({item.reached for item in done})
    assert all(item.reached >= item.moment.update for item in done[1:])
    # The script does not repeat an evaluation that was lost; the lines of training are all there, and once.
    assert [step for step, split in steps(tmp_path / "run") if split == "train"] == list(range(5, 61, 5))


def test_a_moment_that_never_comes_is_made_up_for_while_a_process_starts(run):
    done = run_interrupted(**run("run"), moments=[Moment("SIGKILL", "save", 60, 5.0)], startup_secs=0.4)
    assert [(item.moment.phase, item.exit_status, item.reached) for item in done] == [("start-up", -9, 60)]


def test_an_evaluation_that_is_over_is_not_claimed_to_have_been_interrupted(run):
    arguments = run("run")
    (arguments["workdir"] / "checkpoints").mkdir()
    (arguments["workdir"] / "checkpoints/ckpt-30.index").touch()
    (arguments["workdir"] / "state").write_text("30")
    (arguments["workdir"] / "metrics.jsonl").write_text('{"step": 30, "split": "train"}\n')
    done = run_interrupted(**arguments, moments=[Moment("SIGKILL", "evaluation", 30, 0.0)], startup_secs=0.4)
    assert [(item.moment.phase, item.reached) for item in done] == [("update", 35)]


def test_another_status_than_the_signal_asks_for_is_an_error_with_the_last_line_of_the_log(run):
    with pytest.raises(ValueError, match=r"a run ended with status 7 instead of -15 or 143 or 0: .*run.log\)"):
        run_interrupted(**run("run", 7), moments=[Moment("SIGTERM", "update", 10, 0.0)], startup_secs=0.4)


def test_a_run_that_fails_is_an_error(tmp_path):
    command = [sys.executable, "-c", "print('no corpus'); raise SystemExit(2)"]
    with pytest.raises(ValueError, match="a run ended with status 2 instead of 0: no corpus"):
        run_straight(command=command, workdir=tmp_path, log=tmp_path / "log")


def test_moments_follow_the_seed_and_lie_all_over_the_run():
    timeline = Timeline(startup_secs=8.0, loop_secs=0.5, evaluation_secs=2.0, evaluated=(50, 100))
    arguments = {"count": 200, "signals": ["SIGTERM", "SIGKILL"], "num_updates": 100, "log_every": 5}
    moments = plan_moments(**arguments, seed=1, timeline=timeline)
    assert moments == plan_moments(**arguments, seed=1, timeline=timeline)
    assert moments != plan_moments(**arguments, seed=2, timeline=timeline)
    assert collections.Counter(moment.signal_name for moment in moments) == {"SIGTERM": 100, "SIGKILL": 100}
    phases = collections.Counter(moment.phase for moment in moments)
    assert min(phases[phase] for phase in ("start-up", "update", "save", "evaluation")) > 15
    updates = [moment.update for moment in moments]
    assert updates == sorted(updates)
    within = [moment.update for moment in moments if moment.phase != "evaluation"]
    assert min(within) < 10 and max(within) == 90
    assert {moment.update for moment in moments if moment.phase == "evaluation"} == {50, 100}
    starts = [moment.delay_secs for moment in moments if moment.phase == "start-up"]
    assert 0 <= min(starts) < 1 and 7 < max(starts) <= 8


def test_without_evaluations_there_is_no_moment_in_one():
    timeline = Timeline(startup_secs=8.0, loop_secs=0.5, evaluation_secs=0.0, evaluated=())
    moments = plan_moments(count=50, signals=["SIGKILL"], seed=0, num_updates=4, log_every=5, timeline=timeline)
    assert {moment.phase for moment in moments} == {"start-up", "update", "save"}
    assert {moment.update for moment in moments} == {0}
