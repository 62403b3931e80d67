"""What happens between train loops: lines in metrics.jsonl, the bar, the best model, a clean stop."""

from __future__ import annotations

import io
import json
import math
import os
import signal
import sys

import numpy as np
import orbit
import pytest
import tensorflow as tf

from engine import actions, files
from engine.actions import MetricsWriter, ProgressBar, SaveBest, StopOnSignal, StopTraining
from engine.checkpoints import BestCheckpoint


@pytest.fixture
def step():
    return tf.Variable(0, dtype=tf.int64)


def test_train_loop_is_one_line(tmp_path, step):
    path = tmp_path / "run" / "metrics.jsonl"
    writer = MetricsWriter(path=path, global_step=step)
    step.assign(5)
    writer({"loss": tf.constant(1.5), "learning_rate": np.float32(0.25), "num_bad": 2.0})
    step.assign(10)
    writer({"loss": math.nan, "gradient_norm": tf.constant(math.inf)})
    assert path.read_text().splitlines() == [
        '{"step": 5, "split": "train", "loss": 1.5, "learning_rate": 0.25, "num_bad": 2.0}',
        '{"step": 10, "split": "train", "loss": null, "gradient_norm": null}',
    ]


def test_evaluation_is_one_line_per_set(tmp_path, step):
    path = tmp_path / "metrics.jsonl"
    step.assign(7)
    output = {"dev": {"wer": 0.5, "num_words": 4}, "other": {"wer": tf.constant(0.25)}}
    MetricsWriter(path=path, global_step=step)(output)
    assert files.read_jsonl(path) == [
        {"step": 7, "split": "dev", "wer": 0.5, "num_words": 4},
        {"step": 7, "split": "other", "wer": 0.25},
    ]


def test_empty_output_writes_nothing(tmp_path, step):
    MetricsWriter(path=tmp_path / "metrics.jsonl", global_step=step)({})
    assert not (tmp_path / "metrics.jsonl").exists()


def _lines(*steps):
    return "".join(f'{{"step": {number}, "split": "train", "loss": 1e-05}}\n' for number in steps)


@pytest.mark.parametrize(
    ("content", "restored", "num_removed", "expected"),
    [
        (_lines(5, 10, 10, 15), 10, 1, _lines(5, 10, 10)),
        (_lines(5, 10), 0, 2, ""),
        (_lines(5, 10), 10, 0, _lines(5, 10)),
        (_lines(5) + '{"step": 10, "lo', 10, 0, _lines(5)),
        (_lines(5, 10)[:-1], 10, 0, _lines(5, 10)),
    ],
)
def test_lines_past_the_checkpoint_are_removed(tmp_path, content, restored, num_removed, expected):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content)
    assert actions.truncate_metrics(path, restored) == num_removed
    assert path.read_text() == expected
    assert os.listdir(tmp_path) == ["metrics.jsonl"]


def test_nothing_to_remove_leaves_the_file_alone(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert actions.truncate_metrics(path, 3) == 0
    assert not path.exists()
    path.write_text(_lines(1, 2))
    inode = path.stat().st_ino
    actions.truncate_metrics(path, 3)
    assert path.stat().st_ino == inode


def test_written_again_after_a_kill_the_file_has_each_line_once(tmp_path, step):
    path = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(path=path, global_step=step)
    for number in range(1, 5):
        step.assign(number)
        writer({"loss": 1.0 / number})
    whole = path.read_text()
    with path.open("a") as file:
        file.write('{"step": 5, "spl')
    # The checkpoint was of step 2.
    assert actions.truncate_metrics(path, 2) == 2
    for number in range(3, 5):
        step.assign(number)
        writer({"loss": 1.0 / number})
    assert path.read_text() == whole


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bar_shows_updates_rate_and_figures(step, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(actions.time, "monotonic", lambda: now[0])
    step.assign(20)
    file = _Terminal()
    with ProgressBar(global_step=step, num_updates=100, file=file) as bar:
        now[0] += 30.0
        bar.restart_clock({"dev": {"wer": 1.0}})  # An evaluation of 30 s.
        now[0] += 4.0
        step.assign(40)
        bar({"loss": tf.constant(2.5), "audio_secs": 50.0, "padding_share": 0.0625})
    shown = file.getvalue()
    assert " 20/100 " in shown
    assert " 40/100 " in shown
    assert "loss=2.500, audio-s/s=12.5, padding=6.2%" in shown
    assert "update/s" in shown or "s/update" in shown


def test_bar_does_without_the_figures_it_lacks(step):
    file = _Terminal()
    with ProgressBar(global_step=step, num_updates=2, file=file) as bar:
        step.assign(2)
        bar({})
    assert " 2/2 " in file.getvalue()
    assert "loss" not in file.getvalue()


def test_bar_is_quiet_where_nobody_watches(step, capsys):
    file = io.StringIO()
    stdout = sys.stdout
    with ProgressBar(global_step=step, num_updates=2, file=file) as bar:
        assert sys.stdout is stdout
        step.assign(1)
        bar({"loss": 1.0})
    assert file.getvalue() == ""
    assert capsys.readouterr().err == ""


def test_bar_outside_its_context_does_nothing(step):
    bar = ProgressBar(global_step=step, num_updates=2, enabled=True)
    bar({"loss": 1.0})


def test_prints_go_above_the_bar_and_arrive_whole(step, capsys):
    stdout = sys.stdout
    with ProgressBar(global_step=step, num_updates=2, file=_Terminal()) as bar:
        print("train | step: 1")
        print("two\nlines")
        step.assign(1)
        bar({})
        print("no newline", end="")
    assert sys.stdout is stdout
    captured = capsys.readouterr()
    assert captured.out == "train | step: 1\ntwo\nlines\nno newline\n"


def test_stdout_comes_back_after_an_error(capsys):
    stdout = sys.stdout
    with pytest.raises(KeyError), actions.stdout_above_bar():
        print("before")
        raise KeyError
    assert sys.stdout is stdout
    assert capsys.readouterr().out == "before\n"


def _best(folder, step):
    weight = tf.Variable(1.0)
    checkpoint = tf.train.Checkpoint(model=tf.train.Checkpoint(weight=weight))
    return BestCheckpoint(checkpoint=checkpoint, directory=folder, global_step=step)


def test_best_by_a_figure_of_one_set_across_a_restart(tmp_path, step):
    for number, wer in ((1, 0.5), (2, 0.6)):
        step.assign(number)
        save = SaveBest(best=_best(tmp_path, step), key=("dev", "wer"))
        save({"dev": {"wer": tf.constant(wer)}, "other": {"wer": 0.1}})
    record = json.loads((tmp_path / "best.json").read_text())
    assert record == {"metric": "dev/wer", "value": 0.5, "step": 1}
    step.assign(3)
    save({"dev": {"wer": 0.25}})
    assert [path.name for path in tmp_path.glob("*.index")] == ["ckpt-3.index"]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("test", "wer"), "best checkpoint by test: not in the evaluation, which has dev, other"),
        (("dev", "per"), "best checkpoint by dev/per: not in the evaluation, which has wer"),
        (("dev", "wer", "x"), "by dev/wer/x: not in the evaluation, which has no further names"),
    ],
)
def test_best_by_a_figure_that_is_not_there(tmp_path, step, key, message):
    save = SaveBest(best=_best(tmp_path, step), key=key)
    with pytest.raises(ValueError, match=message):
        save({"dev": {"wer": 0.5}, "other": {}})


class _Trainer(orbit.StandardTrainer):
    """Counts updates and, after one of them, gets a signal."""

    def __init__(self, step, signal_after, number):
        dataset = tf.data.Dataset.from_tensors(0).repeat()
        options = orbit.StandardTrainerOptions(use_tf_while_loop=False, use_tf_function=False)
        super().__init__(dataset, options)
        self._step = step
        self._signal_after = signal_after
        self._number = number

    def train_step(self, iterator):
        next(iterator)
        self._step.assign_add(1)
        if int(self._step) == self._signal_after:
            os.kill(os.getpid(), self._number)

    def train_loop_end(self):
        return {"loss": float(self._step.numpy())}


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signal_stops_after_the_loop_with_its_figures_written(tmp_path, step, number, status, capfd):
    path = tmp_path / "metrics.jsonl"
    before = signal.getsignal(number)
    with StopOnSignal() as stop:
        assert not stop.requested
        assert stop.exit_status == 0
        controller = orbit.Controller(
            global_step=step,
            trainer=_Trainer(step, signal_after=4, number=number),
            steps_per_loop=3,
            train_actions=[MetricsWriter(path=path, global_step=step), stop],
        )
        with pytest.raises(StopTraining, match=f"stopped by {signal.Signals(number).name}"):
            controller.train(12)
        assert stop.requested
        assert stop.exit_status == status
    assert int(step.numpy()) == 6
    assert [record["step"] for record in files.read_jsonl(path)] == [3, 6]
    assert signal.getsignal(number) is before
    assert f"{signal.Signals(number).name}: stopping after this loop" in capfd.readouterr().err


def test_without_a_signal_nothing_happens_and_handlers_come_back():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with StopOnSignal() as stop:
        assert signal.getsignal(signal.SIGTERM) is not before[0]
        stop({"loss": 1.0})
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_second_signal_meets_the_old_handler():
    received = []
    old = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    # A shell without job control starts the tests with SIGINT ignored.
    old_interrupt = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with StopOnSignal() as stop:
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.requested
            assert received == []
            # Any of the signals: the user may press Ctrl-C when SIGTERM takes too long.
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            os.kill(os.getpid(), signal.SIGTERM)
            assert received == [signal.SIGTERM]
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
        assert stop.exit_status == 143
    finally:
        signal.signal(signal.SIGTERM, old)
        signal.signal(signal.SIGINT, old_interrupt)


def test_predictions_are_written_for_every_set_worst_first(tmp_path):
    class Scored:
        def __init__(self, *records):
            self.score = self
            self.predictions = lambda: list(records)

    dev = Scored({"utterance_id": "b", "errors": 2}, {"utterance_id": "a", "errors": 0})
    evaluators = {"dev": dev, "test": Scored()}
    actions.PredictionsWriter(workdir=tmp_path, evaluators=evaluators)({})
    lines = (tmp_path / "eval/dev/predictions.jsonl").read_text().splitlines()
    assert [json.loads(line)["utterance_id"] for line in lines] == ["b", "a"]
    assert (tmp_path / "eval/test/predictions.jsonl").read_text() == ""


def test_bad_rows_end_a_run_when_their_share_over_the_whole_run_is_too_large():
    guard = actions.BadRowGuard(max_bad_share=0.1)
    guard({"num_bad": 0.0, "num_rows": 100.0})
    guard({"num_bad": 10.0, "num_rows": 10.0})  # 10 of 110
    with pytest.raises(actions.StopTraining, match="12 of 111 training rows could not be read"):
        guard({"num_bad": 2.0, "num_rows": 1.0})


def test_a_share_of_zero_allows_no_bad_row():
    guard = actions.BadRowGuard(max_bad_share=0.0)
    guard({"num_bad": 0.0, "num_rows": 4.0})
    with pytest.raises(actions.StopTraining):
        guard({"num_bad": 1.0, "num_rows": 4.0})
