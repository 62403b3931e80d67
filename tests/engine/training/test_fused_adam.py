"""Adam in one kernel has the weights of torch.optim after 200 updates, also where variables or updates are left out."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from engine.training.fused_adam import FusedAdam
from engine.training.optimizer import build_optimizer, clip_by_global_norm
from tests.engine.training.test_trainer import make_trainer, train
from tests.golden import adam_reference as reference
from tests.helpers.engine_toys import toy_batch, toy_dataset_fn

SCHEDULE = tf_keras.optimizers.schedules.PolynomialDecay(0.1, 10, 0.01)
# Printed by `python -m tests.golden.adam_reference` with PyTorch 2.13.0 on a CPU.
TORCH = {
    "adam": [
        [0.692316234, -1.033184171, -1.616079092, -2.962351799],
        [-0.356636882, 1.201957345, -0.013286495, 0.469625562],
        [1.020290852, -0.922048688, 2.606127977, -0.907775521],
    ],
    "adam, frozen start": [
        [0.692631006, -1.020274878, -1.616603017, -2.954868555],
        [-0.355819881, 1.207374811, -0.005416730, 0.478234708],
        [1.020068049, -0.916785181, 2.612847567, -0.904065907],
    ],
    "adamw": [
        [0.691622317, -1.030163050, -1.614835024, -2.959110260],
        [-0.356633127, 1.202826262, -0.013259596, 0.469737828],
        [1.019258261, -0.920284450, 2.604369402, -0.906857848],
    ],
    "adamw, frozen start": [
        [0.692030072, -1.019546986, -1.614588857, -2.952438831],
        [-0.355817705, 1.208030581, -0.004871781, 0.477987021],
        [1.019018292, -0.917196214, 2.608212233, -0.904850900],
    ],
}


class _Rate(tf_keras.optimizers.schedules.LearningRateSchedule):
    """The reference's learning rates."""

    def __call__(self, step):
        rates = [reference.learning_rate(update) for update in range(reference.NUM_UPDATES)]
        return tf.gather(tf.constant(rates, tf.float32), step)


def train_here(case, *, jit_compile=False, strategy=None):
    """The reference's 200 updates with this project's optimizer."""
    beta_2, weight_decay, freeze_updates = reference.CASES[case]
    strategy = strategy or tf.distribute.OneDeviceStrategy("/cpu:0")
    with strategy.scope():
        pairs = zip(reference.NAMES, reference.first_weights(), strict=True)
        variables = [tf.Variable(weight, name=name) for name, weight in pairs]
        optimizer = build_optimizer(
            name="adamw" if weight_decay else "adam", learning_rate=_Rate(), beta_1=reference.BETA_1, beta_2=beta_2,
            epsilon=reference.EPSILON, weight_decay=weight_decay,
        )  # fmt: skip
        optimizer.build(variables)

    def make_update(is_frozen):
        @tf.function(jit_compile=jit_compile, autograph=False)
        def update(gradients):
            def on_replica():
                clipped, _ = clip_by_global_norm([g * 1.0 for g in gradients], reference.CLIP_NORM)
                kept = [
                    (gradient, variable) for gradient, variable in zip(clipped, variables, strict=True)
                    if not (is_frozen and variable.name.startswith("encoder"))
                ]  # fmt: skip
                optimizer.apply_gradients(kept, skip_gradients_aggregation=True)

            strategy.run(on_replica)

        return update

    updates = {is_frozen: make_update(is_frozen) for is_frozen in (True, False)}
    for i in range(reference.NUM_UPDATES):
        gradients = reference.raw_gradients(i)
        if i < freeze_updates:
            gradients[:2] = [np.zeros_like(gradient) for gradient in gradients[:2]]
        updates[i < freeze_updates]([tf.constant(gradient) for gradient in gradients])
    num_encoder = reference.NUM_UPDATES - freeze_updates
    assert optimizer.steps.numpy().tolist() == [num_encoder, num_encoder, reference.NUM_UPDATES]
    return [variable.numpy() for variable in variables]


def train_with_numpy(case):
    """PyTorch's rule in float64, each variable with a count of its own."""
    beta_2, weight_decay, freeze_updates = reference.CASES[case]
    weights = [weight.astype(np.float64) for weight in reference.first_weights()]
    m, v, steps = ([0.0] * len(weights) for _ in range(3))
    for update in range(reference.NUM_UPDATES):
        gradients = [gradient.astype(np.float64) for gradient in reference.raw_gradients(update)]
        active = [i for i, name in enumerate(reference.NAMES) if update >= freeze_updates or "encoder" not in name]
        norm = np.sqrt(sum(np.sum(gradients[i] ** 2) for i in active))
        rate = reference.learning_rate(update)
        for i in active:
            gradient = gradients[i] * min(1.0, reference.CLIP_NORM / norm)
            if "bias" not in reference.NAMES[i]:
                weights[i] = weights[i] * (1.0 - rate * weight_decay)
            steps[i] += 1
            m[i] = reference.BETA_1 * m[i] + (1.0 - reference.BETA_1) * gradient
            v[i] = beta_2 * v[i] + (1.0 - beta_2) * gradient**2
            mean = m[i] / (1.0 - reference.BETA_1 ** steps[i])
            mean_square = v[i] / (1.0 - beta_2 ** steps[i])
            weights[i] = weights[i] - rate * mean / (np.sqrt(mean_square) + reference.EPSILON)
    return weights


@pytest.mark.parametrize("case", reference.CASES)
def test_200_updates_give_the_weights_of_torch_optim(case):
    found = train_here(case)
    np.testing.assert_allclose(found, TORCH[case], rtol=0, atol=1e-6)
    # PyTorch rounds 1 - rate * decay to float32, and so does this: 200 times up to 3e-8 of a weight.
    np.testing.assert_allclose(found, train_with_numpy(case), rtol=6e-6 if "adamw" in case else 1e-6, atol=1e-6)


def test_updates_compiled_by_xla_and_on_two_replicas_give_the_same_weights(two_replicas):
    wanted = train_here("adamw, frozen start")
    # XLA rounds the product of a sum once, where the plain form rounds product and sum.
    np.testing.assert_allclose(train_here("adamw, frozen start", jit_compile=True), wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(train_here("adamw, frozen start", strategy=two_replicas), wanted)


@pytest.mark.slow
@pytest.mark.parametrize("case", reference.CASES)
def test_the_table_is_what_torch_says(case):
    pytest.importorskip("torch")
    np.testing.assert_allclose(reference.train_with_torch(case), TORCH[case], rtol=0, atol=1e-8)


@pytest.mark.parametrize("beta_2", [0.98, 0.999, 0.9999])
@pytest.mark.parametrize("num_frozen", [0, 1, 500])
def test_the_first_step_of_a_variable_is_the_rate_whatever_happened_before(beta_2, num_frozen):
    """The rate times g / (|g| + epsilon), to the last digits, also where bias correction is nearly everything."""
    early, late = tf.Variable([0.0]), tf.Variable([0.0] * 3)
    optimizer = build_optimizer(name="adam", learning_rate=0.01, beta_2=beta_2, epsilon=1e-8)
    optimizer.build([early, late])
    update = tf.function(lambda pairs: optimizer.apply_gradients(pairs, skip_gradients_aggregation=True))
    for _ in range(num_frozen):
        update([(tf.ones([1]), early)])
    gradient = np.array([1e-8, 1e-6, -3.0])
    update([(tf.ones([1]), early), (tf.constant(gradient, tf.float32), late)])
    np.testing.assert_allclose(late.numpy(), -0.01 * gradient / (np.abs(gradient) + 1e-8), rtol=2e-6)
    assert optimizer.steps.numpy().tolist() == [num_frozen + 1, 1]
    assert int(optimizer.iterations.numpy()) == num_frozen + 1  # the schedule's


def test_a_variable_without_a_gradient_is_left_out_with_its_count_and_decay():
    variables = [tf.Variable([1.0]), tf.Variable([1.0])]
    optimizer = build_optimizer(name="adamw", learning_rate=0.1, weight_decay=0.5)
    optimizer.build(variables)
    optimizer.apply_gradients([(tf.constant([1.0]), variables[0]), (None, variables[1])])
    assert optimizer.steps.numpy().tolist() == [1, 0]
    np.testing.assert_allclose(variables[0].numpy(), 1.0 * (1.0 - 0.05) - 0.1, rtol=1e-6)
    assert variables[1].numpy().tolist() == [1.0]


def test_a_sparse_gradient_is_the_dense_one():
    """PyTorch's embeddings have dense gradients: Adam's moments move rows that an update does not name."""
    found = []
    for is_sparse in (True, False):
        table = tf.Variable(tf.ones([3, 2]))
        optimizer = build_optimizer(name="adam", learning_rate=0.1)
        for row in (0, 2):
            gradient = tf.IndexedSlices(tf.ones([1, 2]), tf.constant([row]), tf.constant([3, 2]))
            optimizer.apply_gradients([(gradient if is_sparse else tf.convert_to_tensor(gradient), table)])
        found.append(table.numpy())
    np.testing.assert_array_equal(*found)
    assert found[0][0, 0] < 0.9 < found[0][2, 0] < found[0][1, 0] == 1.0


@pytest.mark.parametrize(("replicas", "microbatch_rows"), [(1, 0), (1, 3), (2, 0)])
def test_a_skipped_update_counts_for_no_variable(two_replicas, replicas, microbatch_rows):
    """Of seven updates the first three train the head alone; one of these and one of the others is not finite."""

    def make(update, num_rows):
        batch = toy_batch(update, num_rows)
        if update in (1, 4):
            batch["waveform"][0] = np.nan
        return batch

    trainer = make_trainer(
        two_replicas if replicas == 2 else None, microbatch_rows=microbatch_rows, freeze_encoder_updates=3,
        dataset_fn=toy_dataset_fn(8, make=make),
    )  # fmt: skip
    train(trainer, 7)
    assert int(trainer.optimizer.iterations.numpy()) == 5
    assert trainer.optimizer.steps.numpy().tolist() == [3, 3, 5, 5]  # encoder, head


def test_counts_are_restored_and_the_next_steps_are_the_same(tmp_path):
    def start():
        variables = [tf.Variable([1.0, 2.0]), tf.Variable([3.0])]
        optimizer = build_optimizer(name="adamw", learning_rate=SCHEDULE, weight_decay=0.1)
        optimizer.build(variables)
        return variables, optimizer, tf.train.Checkpoint(variables=variables, optimizer=optimizer)

    def update(variables, optimizer, size, both=True):
        pairs = [(tf.fill(v.shape, size), v) for v in variables]
        optimizer.apply_gradients(pairs if both else pairs[1:])

    variables, optimizer, checkpoint = start()
    update(variables, optimizer, 0.3, both=False)
    update(variables, optimizer, -0.2)
    path = checkpoint.write(str(tmp_path / "ckpt"))
    update(variables, optimizer, 0.7)
    again, optimizer_again, checkpoint_again = start()
    checkpoint_again.read(path).assert_consumed()
    assert optimizer_again.steps.numpy().tolist() == [1, 2]
    update(again, optimizer_again, 0.7)
    assert optimizer_again.steps.numpy().tolist() == optimizer.steps.numpy().tolist() == [2, 3]
    for a, b in zip([*again, *optimizer_again.variables], [*variables, *optimizer.variables], strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_an_update_is_one_kernel_for_each_variable():
    variables = [tf.Variable(tf.ones([4])), tf.Variable(tf.ones([2]))]
    optimizer = FusedAdam(0.1, jit_compile=False)
    optimizer.build(variables)

    @tf.function
    def update():
        optimizer.apply_gradients([(tf.ones_like(v), v) for v in variables], skip_gradients_aggregation=True)

    graph = update.get_concrete_function().graph
    names = [operation.type for operation in graph.get_operations()]
    assert names.count("ResourceApplyAdam") == 2
    assert sum(name.startswith("Assign") for name in names) == 2  # the schedule's counter and the variables'
