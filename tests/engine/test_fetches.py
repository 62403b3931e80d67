"""What a train loop fetches from the device: once, at its end, however many updates it has."""

from __future__ import annotations

import pytest
import tensorflow as tf

from tests.engine.training.test_trainer import make_trainer


@pytest.fixture
def fetches(monkeypatch):
    """Lists what is turned from a tensor into a value of Python or NumPy: "update" between two, else its dtype."""
    found: list[str] = []
    tensor_type = next(kind for kind in type(tf.constant(0)).__mro__ if "_numpy" in vars(kind))
    fetch = tensor_type._numpy

    def note(self):
        # Orbit's count of a loop's updates is an int32 that never was anywhere but in the host's memory.
        if self.dtype not in (tf.int32, tf.bool):
            found.append(self.dtype.name)
        return fetch(self)

    monkeypatch.setattr(tensor_type, "_numpy", note)
    return found


@pytest.mark.parametrize("num_updates", [1, 2, 9])
def test_nothing_is_fetched_between_the_updates_of_a_loop(fetches, num_updates):
    trainer = make_trainer(between_updates=lambda: fetches.append("update"))
    trainer.train(tf.constant(1))  # opens the data
    fetches.clear()
    figures = trainer.train(tf.constant(num_updates))
    # Of all that an update leaves behind, one vector of sums before the loop and one after it; then two scalars.
    assert fetches == ["float32", *["update"] * (num_updates - 1), "float32", "float32", "float32"]
    assert (int(trainer.global_step), figures["num_rows"]) == (1 + num_updates, 8.0 * num_updates)


def test_a_fetch_in_a_loop_would_be_noticed(fetches):
    trainer = make_trainer(between_updates=lambda: trainer.statistics.numpy())
    trainer.train(tf.constant(1))
    fetches.clear()
    trainer.train(tf.constant(4))
    assert fetches == ["float32"] * (4 + 3)
