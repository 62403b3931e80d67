"""The training step: the same weights for any split of an update; what bad rows and bad gradients do."""

from __future__ import annotations

import time

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from engine.training.data_digest import digest_pieces
from engine.training.optimizer import DynamicLossScale, build_optimizer
from engine.training.options import TrainerOptions
from engine.training.trainer import Trainer
from tests.helpers.engine_toys import (
    ToyModel,
    toy_batch,
    toy_dataset_fn,
    toy_feasible,
    toy_loss,
    toy_varying_dataset_fn,
)

NUM_ROWS = 8


def make_trainer(
    strategy=None,
    *,
    dataset_fn=None,
    optimizer=None,
    loss_scale=None,
    loss_fn=toy_loss,
    head_factor=1.0,
    between_updates=None,
    **options,
):
    strategy = strategy or tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        model = ToyModel()
        adamw = build_optimizer(
            name="adamw",
            learning_rate=0.01,
            weight_decay=0.1,
            head_variables=model.head_variables,
            head_learning_rate_factor=head_factor,
        )
        trainer = Trainer(
            strategy=strategy,
            model=model,
            optimizer=optimizer() if optimizer else adamw,
            global_step=tf.Variable(0, dtype=tf.int64, aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA),
            dataset_fn=dataset_fn or toy_dataset_fn(NUM_ROWS),
            loss_fn=loss_fn,
            feasible_fn=toy_feasible,
            options=TrainerOptions(**options),
            loss_scale=loss_scale() if loss_scale else None,
            between_updates=between_updates,
        )
    return trainer


def train(trainer, num_updates=5):
    figures = trainer.train(tf.constant(num_updates))
    return [variable.numpy() for variable in trainer.model.trainable_variables], figures


def assert_same(found, wanted, rtol=1e-5):
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)


@pytest.fixture(scope="module")
def plain():
    """Five updates on one replica without accumulation."""
    before = [variable.numpy() for variable in make_trainer().model.trainable_variables]
    weights, figures = train(make_trainer())
    assert all(np.abs(a - b).max() > 1e-3 for a, b in zip(weights, before, strict=True))
    return weights, figures


@pytest.mark.parametrize(
    "limit", [{"microbatch_rows": rows} for rows in (1, 2, 3, 7, 9)] + [{"microbatch_secs": 0.0075}]
)
def test_microbatches_give_the_same_weights(plain, limit):
    weights, figures = train(make_trainer(**limit))
    assert_same(weights, plain[0])
    names = ("loss", "gradient_norm", "audio_secs", "padding_ratio", "num_rows", "blank_ratio", "mean_confidence")
    for name in names:
        assert figures[name] == pytest.approx(plain[1][name], rel=1e-5)


@pytest.mark.parametrize("microbatch_rows", [4, 3])
def test_two_replicas_give_the_same_weights(plain, two_replicas, microbatch_rows):
    weights, figures = train(make_trainer(two_replicas, microbatch_rows=microbatch_rows))
    assert_same(weights, plain[0])
    assert figures["num_rows"] == 5 * NUM_ROWS
    for name in ("loss", "blank_ratio", "mean_confidence"):
        assert figures[name] == pytest.approx(plain[1][name], rel=1e-5)


def test_an_update_equals_the_plain_gradient_of_the_mean_loss():
    trainer = make_trainer(optimizer=lambda: tf_keras.optimizers.SGD(1.0))
    model, batch = trainer.model, toy_batch(0, NUM_ROWS)
    random = model.make_random(seed=0, update=0, row_ids=batch["utterance_index"])
    with tf.GradientTape() as tape:
        logits = model(tf.constant(batch["waveform"]), batch["waveform_lengths"], training=True, random=random)
        lengths = model.output_lengths(batch["waveform_lengths"])
        losses = toy_loss(logits, lengths, batch["labels"], batch["label_lengths"])
        loss = tf.reduce_mean(losses)
    wanted = [v.numpy() - g.numpy() for v, g in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    )]  # fmt: skip
    weights, figures = train(trainer, 1)
    assert_same(weights, wanted)
    assert figures["loss"] == pytest.approx(float(loss), rel=1e-5)


def test_padding_rows_change_nothing(two_replicas):
    """Five rows of eight; the second replica of two gets a single one."""
    uneven = toy_dataset_fn(NUM_ROWS, make=lambda update, rows: toy_batch(update, rows, num_real=5))
    five = toy_dataset_fn(5, make=lambda update, rows: toy_batch(update, rows))
    wanted, wanted_figures = train(make_trainer(dataset_fn=five))
    for strategy, microbatch_rows in ((None, 8), (None, 2), (None, 3), (two_replicas, 4), (two_replicas, 1)):
        weights, figures = train(make_trainer(strategy, dataset_fn=uneven, microbatch_rows=microbatch_rows))
        assert_same(weights, wanted)
        assert figures["num_rows"] == 25
        assert figures["loss"] == pytest.approx(wanted_figures["loss"], rel=1e-5)


def test_a_replica_without_any_row_gives_right_numbers(two_replicas):
    def half_empty(update, rows):
        return toy_batch(update, rows, num_real=4)

    four = toy_dataset_fn(4, make=lambda update, rows: toy_batch(update, rows))
    wanted, _ = train(make_trainer(dataset_fn=four))
    weights, _ = train(make_trainer(two_replicas, dataset_fn=toy_dataset_fn(NUM_ROWS, make=half_empty)))
    assert_same(weights, wanted)


def test_infeasible_and_unreadable_rows_are_counted_and_do_not_count():
    def spoiled(update, rows):
        batch = toy_batch(update, rows)
        batch["waveform_lengths"][5] = 8  # two frames for three labels
        batch["weight"][6] = 0.0  # unreadable: it has an index and no weight
        batch["weight"][7] = 0.0
        batch["utterance_index"][7] = -1
        return batch

    def without(update, rows):
        return {key: x[:5] for key, x in toy_batch(update, 8).items()}

    wanted, _ = train(make_trainer(dataset_fn=toy_dataset_fn(5, make=without)))
    weights, figures = train(make_trainer(dataset_fn=toy_dataset_fn(NUM_ROWS, make=spoiled)))
    assert_same(weights, wanted)
    assert (figures["num_rows"], figures["num_infeasible"], figures["num_bad"]) == (35, 5, 5)


def test_a_gradient_that_is_not_finite_skips_the_update_and_is_counted(two_replicas):
    def poisoned(update, rows):
        batch = toy_batch(update, rows)
        if update == 1:
            batch["waveform"][3, 0] = np.nan
        return batch

    for strategy in (None, two_replicas):
        trainer = make_trainer(strategy, dataset_fn=toy_dataset_fn(NUM_ROWS, make=poisoned))
        train(trainer, 1)
        before = [v.numpy() for v in trainer.model.trainable_variables]
        weights, figures = train(trainer, 1)
        assert figures["num_skipped_updates"] == 1
        assert_same(weights, before, rtol=0)
        assert (int(trainer.global_step.numpy()), int(trainer.optimizer.iterations.numpy())) == (2, 1)
        weights, figures = train(trainer, 1)
        assert figures["num_skipped_updates"] == 0
        assert np.isfinite(figures["loss"])
        assert int(trainer.optimizer.iterations.numpy()) == 2


def test_a_loss_that_is_not_finite_skips_the_update_even_if_its_gradient_is_and_spoils_no_figure():
    def poisoned(update, rows):
        batch = toy_batch(update, rows)
        batch["label_lengths"][0] -= update == 1  # how the loss below knows the update
        return batch

    def infinite(logits, logit_lengths, labels, label_lengths):
        losses = toy_loss(logits, logit_lengths, labels, label_lengths)
        return losses + tf.where(label_lengths == 2, np.inf, 0.0)

    trainer = make_trainer(
        dataset_fn=toy_dataset_fn(NUM_ROWS, make=poisoned), loss_fn=infinite, max_consecutive_skips=1
    )
    _, first = train(trainer, 1)
    alone = make_trainer(dataset_fn=toy_dataset_fn(NUM_ROWS, make=poisoned), loss_fn=infinite)
    _, figures = train(alone, 2)
    assert figures["num_skipped_updates"] == 1
    for name in ("loss", "blank_ratio", "mean_confidence", "gradient_norm"):
        assert figures[name] == pytest.approx(first[name], rel=1e-6)
    weights, figures = train(trainer, 1)
    assert figures["num_skipped_updates"] == 1
    assert np.isnan(figures["loss"]) and np.isnan(figures["blank_ratio"])
    assert list(trainer.skip_counter.take()) == [1]
    assert_same(weights, [v.numpy() for v in alone.model.trainable_variables], rtol=0)


def test_clipping_bounds_the_norm_of_the_whole_update():
    weights, figures = train(make_trainer(optimizer=lambda: tf_keras.optimizers.SGD(1.0), clip_norm=0.1), 1)
    before = make_trainer().model.trainable_variables
    step = np.sqrt(sum(((a - b.numpy()) ** 2).sum() for a, b in zip(weights, before, strict=True)))
    assert figures["gradient_norm"] > 0.1
    assert figures["clipped_ratio"] == 1.0
    assert step == pytest.approx(0.1, rel=1e-4)


def test_loss_scale_leaves_the_weights_as_they_are_and_halves_on_overflow(plain):
    trainer = make_trainer(loss_scale=lambda: DynamicLossScale(initial_scale=1024.0))
    weights, figures = train(trainer)
    assert_same(weights, plain[0], rtol=1e-4)
    assert figures["loss_scale"] == 1024.0

    def overflowing(logits, *lengths):
        return toy_loss(logits, *lengths) * 1e38

    trainer = make_trainer(loss_scale=lambda: DynamicLossScale(initial_scale=1024.0), loss_fn=overflowing)
    _, figures = train(trainer, 2)
    assert figures["num_skipped_updates"] == 2
    assert figures["loss_scale"] == 256.0
    # A scale that is still being searched for is no fault; one that has reached its end is.
    assert int(trainer.skip_counter.count.numpy()) == 0
    train(trainer, 10)
    assert int(trainer.skip_counter.count.numpy()) == 2


def test_frozen_encoder_trains_the_head_alone_and_then_everything(two_replicas):
    for strategy in (None, two_replicas):
        trainer = make_trainer(strategy, freeze_encoder_updates=3)
        before = [v.numpy() for v in trainer.model.trainable_variables]
        after, _ = train(trainer, 3)
        unchanged = [bool((a == b).all()) for a, b in zip(before, after, strict=True)]
        assert unchanged == [True, True, False, False]  # encoder kernel and bias, then the head's
        last, _ = train(trainer, 1)
        assert all((a != b).any() for a, b in zip(last, after, strict=True))


def test_unfreezing_traces_nothing_anew():
    num_traces = []

    def counted(*arguments):
        num_traces.append(1)  # Python runs while a graph is traced, and only then
        return toy_loss(*arguments)

    trainer = make_trainer(loss_fn=counted, freeze_encoder_updates=2)
    train(trainer, 1)
    at_first = len(num_traces)
    assert at_first >= 2  # both ways of the tf.cond, in one trace
    train(trainer, 3)
    train(trainer, 2)
    assert int(trainer.global_step.numpy()) == 6
    assert len(num_traces) == at_first


def test_training_starts_its_data_at_the_global_step(plain):
    trainer = make_trainer()
    train(trainer, 2)
    resumed = make_trainer()
    resumed.model.set_weights(trainer.model.get_weights())
    for variable, value in zip(resumed.optimizer.variables, trainer.optimizer.variables, strict=True):
        variable.assign(value)
    resumed.optimizer.steps.assign(trainer.optimizer.steps)
    resumed.global_step.assign(2)
    weights, _ = train(resumed, 3)
    assert_same(weights, plain[0], rtol=0)


def test_a_loop_in_the_graph_equals_calls_from_python(plain):
    weights, figures = train(make_trainer(loop_in_graph=True))
    assert_same(weights, plain[0])
    assert figures["loss"] == pytest.approx(plain[1]["loss"], rel=1e-6)


def test_a_microbatch_of_less_than_nothing_is_refused():
    for name in ("microbatch_rows", "microbatch_secs"):
        with pytest.raises(ValueError, match=f"train.{name} must be at least 0, got -1"):
            make_trainer(**{name: -1})


def test_updates_of_different_numbers_of_rows_give_the_same_weights_on_any_split(two_replicas):
    sizes = [8, 5, 11, 8, 1]
    whole = make_trainer(dataset_fn=toy_varying_dataset_fn(sizes.__getitem__, num_updates=5))
    wanted, wanted_figures = train(whole)
    one_by_one = make_trainer(dataset_fn=toy_dataset_fn(8, num_updates=1))
    train(one_by_one, 1)
    one = {"microbatch_secs": 1e-6}  # less than any row
    for strategy, limit in ((None, {"microbatch_rows": 3}), (None, one), (two_replicas, {}), (two_replicas, one)):
        data = toy_varying_dataset_fn(sizes.__getitem__, num_updates=5)
        trainer = make_trainer(strategy, dataset_fn=data, **limit)
        weights, figures = train(trainer)
        assert_same(weights, wanted)
        assert figures["num_rows"] == wanted_figures["num_rows"] == sum(sizes)
        for name in ("loss", "padding_ratio", "blank_ratio"):
            assert figures[name] == pytest.approx(wanted_figures[name], rel=1e-5)
        assert int(trainer.data_digest.numpy()) == int(whole.data_digest.numpy()) != 0
    # The first update's rows are those of a batch of a static size: its divisor is its own number of rows.
    first, _ = train(make_trainer(dataset_fn=toy_varying_dataset_fn(sizes.__getitem__, num_updates=5)), 1)
    assert_same(first, [variable.numpy() for variable in one_by_one.model.trainable_variables])


@pytest.mark.parametrize("delay_secs", [0.0, 0.1])
def test_waiting_for_input_is_measured(two_replicas, delay_secs):
    def make(update, rows):
        time.sleep(delay_secs)
        return toy_batch(update, rows)

    slow = toy_varying_dataset_fn(lambda update: NUM_ROWS, make=make)
    for strategy in (None, two_replicas):
        trainer = make_trainer(strategy, dataset_fn=slow if delay_secs else None)
        train(trainer, 1)  # tracing
        start = time.monotonic()
        _, figures = train(trainer, 8)
        elapsed_secs = time.monotonic() - start
        waited_secs = figures["input_stall_ratio"] * elapsed_secs
        if delay_secs:
            # A source that gives ten updates a second to a model that could do hundreds.
            assert figures["input_stall_ratio"] > 0.5
            assert 0.6 * 8 * delay_secs < waited_secs < elapsed_secs
        else:
            assert 0.0 <= figures["input_stall_ratio"] < 0.5


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_no_part_of_an_update_can_run_before_the_end_of_the_wait_is_read(two_replicas, num_replicas):
    """With a single thread, the reading came last and the update counted as waiting."""
    trainer = make_trainer(two_replicas if num_replicas == 2 else None)
    trainer.train_loop_begin()
    step = tf.function(trainer.train_step, autograph=False).get_concrete_function(iter(trainer.train_dataset))
    products = [op for op in step.graph.get_operations() if op.type == "MatMul"]
    assert len(products) >= 2 * num_replicas
    for product in products:
        needed, left = set(), [product]
        while left:
            op = left.pop()
            if op.name not in needed:
                needed.add(op.name)
                left += [*(tensor.op for tensor in op.inputs), *op.control_inputs]
        assert sum(step.graph.get_operation_by_name(name).type == "Timestamp" for name in needed) == 2


def test_a_loop_left_in_its_middle_goes_on_as_if_it_had_not_been():
    straight = make_trainer()
    wanted = [straight.train(tf.constant(3)) for _ in range(2)]
    calls = []

    class LeftError(Exception):
        pass

    def leave():
        calls.append(int(trainer.global_step.numpy()))
        if len(calls) in (2, 3):
            raise LeftError

    trainer = make_trainer(between_updates=leave)
    found = []
    for num_updates, is_left in ((3, True), (1, False), (3, True), (2, False)):
        if is_left:
            with pytest.raises(LeftError):
                trainer.train(tf.constant(num_updates))
        else:
            found.append(trainer.train(tf.constant(num_updates)))
    assert calls == [1, 2, 4, 5]
    for figures in (*found, *wanted):
        del figures["input_stall_ratio"], figures["audio_secs_per_sec"]  # a matter of the clock
    assert found == wanted
    assert int(trainer.data_digest.numpy()) == int(straight.data_digest.numpy()) != 0
    for a, b in zip(trainer.model.variables, straight.model.variables, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


def test_digest_pieces_tell_rows_and_their_places_apart_but_not_how_they_are_split():
    def pieces(index, num_replicas=1):
        parts = np.split(np.array(index, np.int64), num_replicas)
        sums = [digest_pieces(tf.constant(part), replica) for replica, part in enumerate(parts)]
        return tuple(np.sum(sums, axis=0).tolist())

    index = [5, 3, -1, 281_240, 0, 1, 2, 9]
    whole = pieces(index)
    assert pieces(index, 2) == pieces(index, 4) == whole
    others = [pieces(other) for other in ([3, 5, *index[2:]], [*index[:7], 8], [5, 3, -1, 281_240, 0, 1, 9, 2])]
    assert len({whole, *others}) == 4
    assert pieces([*index, -1, -1, -1, -1], 3) == whole  # padding rows fill up uneven shares
    # Of a thousand rows every sum is still exact in float32.
    many = pieces(np.arange(1000))
    assert all(value == int(value) < 2**24 for value in many)
    assert pieces(np.arange(1000), 8) == many


@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("microbatch_rows", [0, 2])
def test_nothing_of_a_checkpoint_changes_before_the_flag_is_up_or_after_the_step_is_counted(
    replicas, microbatch_rows, two_replicas
):
    """In the graph: who assigns to what, and what that waits for."""
    strategy = two_replicas if replicas == 2 else tf.distribute.OneDeviceStrategy("/cpu:0")
    options = {"ema_decay": 0.5, "clip_norm": 1.0, "max_consecutive_skips": 3}
    trainer = make_trainer(strategy, microbatch_rows=microbatch_rows, **options)
    trainer.train(tf.constant(1))  # opens the data
    graph = tf.function(trainer.train_step).get_concrete_function(trainer._train_iter).graph
    captured = {id(inner): outer for outer, inner in graph.captures}

    def ancestors(op):
        found, left = set(), [op]
        while left:
            op = left.pop()
            for other in [*op.control_inputs, *(x.op for x in op.inputs)]:
                if other.name not in found:
                    found.add(other.name)
                    left.append(other)
        return found

    def handles(variables):
        return {id(part.handle) for v in variables for part in strategy.experimental_local_results(v)}

    def writes(ids):
        kinds = ("Assign", "If", "StatefulPartitionedCall")
        return [
            op for op in graph.get_operations()
            if any(kind in op.type for kind in kinds) and any(id(captured.get(id(x))) in ids for x in op.inputs)
        ]  # fmt: skip

    flags = {id(flag.handle) for flag in trainer._is_applying}
    raised, lowered = ([op for op in writes(flags) if (tf.get_static_value(op.inputs[1]) == value)] for value in (1, 0))
    assert len(raised) == len(lowered) == replicas
    (counted,) = writes({id(strategy.experimental_local_results(trainer.global_step)[0].handle)})
    state = [
        *trainer.model.trainable_variables, *trainer.optimizer.variables, *trainer.ema.shadows,
        trainer.statistics, trainer.data_digest, *trainer.skip_counter.variables,
    ]  # fmt: skip
    changing = writes(handles(state))
    assert len(changing) >= 5
    for op in changing:
        assert {flag.name for flag in raised} <= ancestors(op), op.name
    primary = {id(strategy.experimental_local_results(v)[0].handle) for v in state}
    for op in writes(primary):
        assert op.name in ancestors(counted), op.name
    for flag in lowered:
        assert counted.name in ancestors(flag)


def test_the_state_is_settled_between_updates_and_not_while_averages_are_swapped_or_figures_unwritten():
    trainer = make_trainer(ema_decay=0.5)
    trainer.train(tf.constant(1))
    assert trainer.settled_version() is None  # the figures are out of the statistics, and in no file yet
    trainer.settle()
    version = trainer.settled_version()
    assert version is not None and version == trainer.settled_version()
    with trainer.ema.swapped():
        assert trainer.settled_version() is None
    assert trainer.settled_version() not in (None, version)
    version = trainer.settled_version()
    trainer._is_applying[0].assign(1)
    assert trainer.settled_version() is None
    trainer._is_applying[0].assign(0)
    trainer.train(tf.constant(2))
    trainer.settle()
    assert trainer.settled_version() not in (None, version)


def test_a_loop_in_the_graph_comes_back_to_the_host_after_about_two_seconds(monkeypatch):
    """By the clock of the test: an update takes half a second, the first one, which is compiled, ten."""
    now, parts = [0.0], []
    trainer = make_trainer(loop_in_graph=True, between_updates=lambda: None)
    loop = type(trainer).__mro__[1].create_train_loop_fn

    def timed(self):
        run = loop(self)

        def timed_loop(iterator, num_steps):
            run(iterator, num_steps)
            now[0] += 0.5 * int(num_steps) + (0.0 if parts else 9.5)
            parts.append(int(num_steps))

        return timed_loop

    monkeypatch.setattr(type(trainer).__mro__[1], "create_train_loop_fn", timed)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    weights, _ = train(trainer, 12)
    assert parts == [1, 1, 4, 4, 2]
    monkeypatch.undo()
    assert_same(weights, train(make_trainer(), 12)[0], rtol=0)
