"""The error of a worker whose peer is gone."""

from __future__ import annotations

import pytest
import tensorflow as tf

from engine.distributed.lost_worker import WorkerLostError, explained_loss


def test_only_the_loss_of_a_worker_is_explained_as_one(two_replicas):
    with pytest.raises(tf.errors.UnavailableError), explained_loss(two_replicas):
        raise tf.errors.UnavailableError(None, None, "a bug on one machine")
    assert issubclass(WorkerLostError, OSError)  # so run.py makes one line of it
    assert WorkerLostError.exit_status == 75
