"""TF_CONFIG in plain words, and what a run of one process makes of it all; several processes: tests/test_workers.py."""

from __future__ import annotations

import json

import pytest
import tensorflow as tf

from engine.distributed import cluster


def set_task(monkeypatch, **config):
    monkeypatch.setenv("TF_CONFIG", json.dumps(config))


def test_a_task_knows_its_address_and_its_leader(monkeypatch):
    set_task(monkeypatch, cluster={"worker": ["a:1", "b:2"]}, task={"type": "worker", "index": 1})
    task = cluster.read_task()
    assert (task.address, task.leader, task.addresses) == ("b:2", "/job:worker/replica:0/task:0", ("a:1", "b:2"))
    set_task(monkeypatch, cluster={"worker": ["b:2"], "chief": ["a:1"]}, task={"type": "worker", "index": 0})
    task = cluster.read_task()
    assert (task.address, task.leader, task.addresses) == ("b:2", "/job:chief/replica:0/task:0", ("a:1", "b:2"))


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ("", "it is not set"),
        ("[" * 100_000, "TF_CONFIG is not usable JSON (nested too deeply)"),
        ('{"cluster": 3, "task": {}}', "'cluster' is 3, not a JSON object"),
        ('{"cluster": {"worker": "a:1"}, "task": {}}', """its cluster: 'worker' is "a:1", not a JSON array"""),
        ('{"cluster": {"worker": [3]}, "task": {}}', "an address is not text"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1e999}}', "'index' is Infinity"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "' + "9" * 5000 + '"}}', "'index' is"),
        ("{", "TF_CONFIG is not valid JSON"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG has no 'task'"),
        ('{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "job 'ps' is not one of"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "worker 1 is not in its cluster"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 1}}', "twice"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 1}}', "exactly one chief"),
    ],
)
def test_a_wrong_tf_config_is_one_line_with_an_example(monkeypatch, config, what):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match='for example {"cluster"') as error:
        cluster.read_task()
    assert what in str(error.value) and len(str(error.value)) < 1000 and "\n" not in str(error.value)


def test_one_process_is_its_own_chief_and_hears_itself(two_replicas):
    assert cluster.is_chief(two_replicas)
    assert cluster.gather_texts(two_replicas, "é") == ["é"]
    any_worker = cluster.AnyWorker(two_replicas)
    assert [any_worker(is_so) for is_so in (False, True, False)] == [False, True, False]
    cluster.check_same(two_replicas, "the config", "x")
    assert cluster.is_chief(tf.distribute.OneDeviceStrategy("/cpu:0"))
