"""CR-CTC and intermediate CTC on a real network: the gradient of their definition, on any split, and after a resume."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import tensorflow as tf

from engine.training.gradients import UpdateGradients
from engine.training.optimizer import DynamicLossScale
from engine.training.options import TrainerOptions
from models.ctc import loss as ctc
from models.ops.keyed_random import UpdateRandom, dropout
from models.wav2vec2.model import Wav2Vec2ForCTC, build_model
from tests.helpers import equivalence

TOLERANCE = 1e-5  # relative, float32
SCALE, WEIGHT, FACTOR = 0.2, 0.3, 2.5
BOTH = {
    "cr_ctc_scale": SCALE, "cr_ctc_warmup_updates": 2, "cr_ctc_mask_factor": FACTOR, "intermediate_ctc_layers": (1,),
    "intermediate_ctc_weight": WEIGHT,
}  # fmt: skip
SEED, UPDATE = 7, 3
# The third row has more labels than frames, the fourth no weight.
LENGTHS, LABELS, WEIGHTS = (4000, 3100, 1000, 4000), ([5, 6, 6], [9], [4, 5, 6, 7], [8]), (1.0, 1.0, 1.0, 0.0)


def make_model(mask_factor=1.0, **fields) -> Wav2Vec2ForCTC:
    model = {**equivalence.MODEL, "final_dropout": 0.1, "layer_drop": 0.0, **fields}
    model["mask_time_prob"] *= mask_factor
    return build_model(preset="tiny", vocab_size=12, **model)


def make_batch():
    rng = np.random.default_rng(0)
    labels = np.zeros([4, 4], np.int32)
    for row, ids in enumerate(LABELS):
        labels[row, : len(ids)] = ids
    return {
        "waveform": tf.constant(rng.normal(size=[4, 4000]).astype(np.float32)),
        "waveform_lengths": tf.constant(LENGTHS),
        "labels": tf.constant(labels),
        "label_lengths": tf.constant([len(ids) for ids in LABELS]),
        "weight": tf.constant(WEIGHTS),
        "utterance_index": tf.constant([10, 11, 12, 13], tf.int64),
    }


def ctc_in_float64(log_probs, labels):
    """The forward recursion over one row, frame by frame; [F, V] -> nats."""
    tokens = [0] + [token for label in labels for token in (label, 0)]
    minus = tf.constant(-1e300, tf.float64)
    scores = [log_probs[0, tokens[0]], log_probs[0, tokens[1]]] + [minus] * (len(tokens) - 2)
    for frame in log_probs[1:]:
        before = scores
        scores = []
        for state, token in enumerate(tokens):
            ways = [before[state]] + ([before[state - 1]] if state else [])
            if state >= 2 and token and token != tokens[state - 2]:
                ways.append(before[state - 2])
            scores.append(frame[token] + tf.reduce_logsumexp(tf.stack(ways)))
    return -tf.reduce_logsumexp(tf.stack(scores[-2:]))


def reference(model, batch):
    """Mean loss over the two rows that have one, each view of each row by itself through the plain network."""
    losses = []
    for row in range(2):
        size = LENGTHS[row]
        ctc_losses, log_probs = {1: [], 2: []}, []
        for view in range(2):
            random = UpdateRandom(
                seed=SEED, update=UPDATE, row_ids=batch["utterance_index"][row : row + 1], num_views=2
            )
            random.num_views, random._row_keys = 1, random._row_keys[view : view + 1]
            # Attention's dropout counts along the padded width.
            lengths = tf.constant([size])
            states, frames = model.backbone(batch["waveform"][row : row + 1], lengths, random)
            between = model.backbone.encoder.norm(states[1]) if model.config.stable_layer_norm else states[1]
            for layer, state, stream in ((1, between, (1 << 20) + 1), (2, states[2], 6)):
                logits = model.head(dropout(state, model.config.final_dropout, random, stream=stream))
                found = tf.nn.log_softmax(tf.cast(logits[0, : int(frames[0])], tf.float64))
                ctc_losses[layer].append(ctc_in_float64(found, LABELS[row]))
            log_probs.append(found)
        p, q = (tf.exp(x) for x in log_probs)
        divergence = tf.stop_gradient(p) * (tf.stop_gradient(log_probs[0]) - log_probs[1])
        divergence += tf.stop_gradient(q) * (tf.stop_gradient(log_probs[1]) - log_probs[0])
        losses.append((sum(ctc_losses[2]) / 2, sum(ctc_losses[1]) / 2, tf.reduce_sum(divergence) / 2))
    last, between, consistency = (tf.add_n(list(x)) / 2 for x in zip(*losses, strict=True))
    return (1 - WEIGHT) * last + WEIGHT * between + SCALE * consistency, (last, between, consistency)


def gradients_of(model, batch, *, loss_scale=None, **options):
    """Gradient of the update, and the sums of the losses, in a graph as in training."""
    gradients = UpdateGradients(
        model=model,
        loss_fn=ctc.ctc_loss,
        feasible_fn=ctc.feasible,
        options=TrainerOptions(seed=SEED, **options),
        global_step=tf.Variable(UPDATE, dtype=tf.int64),
        loss_scale=loss_scale,
    )
    found, statistics, _ = tf.function(gradients.compute, autograph=False)(batch)
    return found, statistics.numpy()


@pytest.mark.parametrize("pre_norm", [True, False])
def test_gradients_equal_those_of_the_definition_in_float64(pre_norm):
    model = make_model(stable_layer_norm=pre_norm)
    plain = make_model(FACTOR, stable_layer_norm=pre_norm)
    plain.set_weights(model.get_weights())
    batch = make_batch()
    with tf.GradientTape() as tape:
        loss, parts = reference(plain, batch)
    wanted = tape.gradient(loss, plain.trainable_variables)
    found, statistics = gradients_of(model, batch, **BOTH)
    largest = max(float(tf.reduce_max(tf.abs(gradient))) for gradient in wanted)
    for variable, a, b in zip(model.trainable_variables, found, wanted, strict=True):
        np.testing.assert_allclose(a, tf.convert_to_tensor(b), atol=1e-5 * largest, err_msg=variable.name)
    last, between, consistency = (2 * float(part) for part in parts)
    assert statistics[0] == pytest.approx(last, rel=1e-5)
    assert statistics[-5:-3] == pytest.approx([consistency, between], rel=1e-4)  # before the data digest
    assert statistics[5] == 2.0  # rows with a loss


@pytest.fixture(scope="module")
def plain():
    """A model, the gradients of its variables by name, and the statistics."""
    model = make_model()
    gradients, statistics = gradients_of(model, make_batch(), **BOTH)
    return model, {v.name: g.numpy() for v, g in zip(model.trainable_variables, gradients, strict=True)}, statistics


def like(model, **fields):
    """A model with the same weights."""
    other = make_model(**fields)
    values = {variable.name: variable for variable in model.variables}
    for variable in other.variables:
        variable.assign(values[variable.name])
    return other


@pytest.mark.parametrize(
    "fields", [{"gradient_checkpointing": True}, {"fused_ops": "on"}, {"freeze_feature_encoder": True}]
)
def test_recomputed_fused_and_frozen_layers_have_the_same_gradient(plain, fields):
    other = like(plain[0], **fields)
    found, figures = gradients_of(other, make_batch(), **BOTH)
    assert figures == pytest.approx(plain[2], rel=1e-4)
    largest = max(float(np.abs(gradient).max()) for gradient in plain[1].values())
    for variable, gradient in zip(other.trainable_variables, found, strict=True):
        np.testing.assert_allclose(gradient, plain[1][variable.name], atol=2e-5 * largest)
    is_frozen = not any(variable.name.startswith("feature_encoder") for variable in other.trainable_variables)
    assert is_frozen == ("freeze_feature_encoder" in fields)


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_has_nearly_the_same_losses_and_finite_gradients(plain, precision):
    half = like(plain[0], precision=precision)
    loss_scale = DynamicLossScale(initial_scale=1024.0) if precision == "mixed_float16" else None
    found, figures = gradients_of(half, make_batch(), loss_scale=loss_scale, **BOTH)
    assert figures[0] == pytest.approx(plain[2][0], rel=0.02)
    assert figures[-5:-3] == pytest.approx(plain[2][-5:-3], rel=0.15)
    assert all(np.isfinite(gradient).all() for gradient in found)


def make_trainer(strategy, **options):
    """A trainer, and all of its state that a checkpoint has."""
    trainer = equivalence.make_trainer(strategy, ema_decay=0.5, **BOTH, **options)
    state = tf.train.Checkpoint(
        model=trainer.model, optimizer=trainer.optimizer, global_step=trainer.global_step, ema=trainer.ema,
        statistics=trainer.statistics, auxiliary_losses=trainer.auxiliary_losses,
    )  # fmt: skip
    return trainer, state


def weights_of(trainer):
    return [variable.numpy() for variable in (*trainer.model.trainable_variables, *trainer.ema.shadows)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One device, one microbatch, all rows padded to the longest: trainer, metrics, and a checkpoint of update 2."""
    trainer, state = make_trainer(tf.distribute.OneDeviceStrategy("/cpu:0"), is_bucketed=False)
    path = str(tmp_path_factory.mktemp("state") / "state")

    def save():
        if int(trainer.global_step) == 2:
            state.write(path)

    trainer._between_updates = save
    return trainer, trainer.train(tf.constant(equivalence.NUM_UPDATES)), path


def test_replicas_microbatches_and_padding_change_no_weight_average_or_loss(alone, two_replicas):
    trainer, _ = make_trainer(two_replicas, microbatch_rows=2)
    figures = trainer.train(tf.constant(equivalence.NUM_UPDATES))
    assert equivalence.largest_difference(weights_of(trainer), weights_of(alone[0])) < TOLERANCE
    for name in ("loss", "consistency_loss", "intermediate_ctc_loss", "blank_ratio", "num_rows"):
        assert figures[name] == pytest.approx(alone[1][name], rel=1e-5), name
    assert figures["consistency_loss"] > 1e-3


@pytest.mark.slow  # each compiles for half a minute
@pytest.mark.parametrize(
    ("backend", "num_replicas", "options"),
    [
        ("blocks", 1, {"microbatch_secs": 1.0, "is_bucketed": True}),
        ("host", 2, {"microbatch_secs": 1.0}),
        ("blocks", 2, {"microbatch_secs": 1.0, "jit_compile": True, "is_bucketed": False}),
    ],
)
def test_back_ends_compiled_steps_and_microbatches_of_audio_change_nothing_either(
    alone, two_replicas, backend, num_replicas, options
):
    strategy = two_replicas if num_replicas == 2 else tf.distribute.OneDeviceStrategy("/cpu:0")
    trainer, _ = make_trainer(strategy, loss_fn=functools.partial(ctc.ctc_loss, backend=backend), **options)
    figures = trainer.train(tf.constant(equivalence.NUM_UPDATES))
    assert equivalence.largest_difference(weights_of(trainer), weights_of(alone[0])) < TOLERANCE
    for name in ("loss", "consistency_loss", "intermediate_ctc_loss", "blank_ratio", "num_rows"):
        assert figures[name] == pytest.approx(alone[1][name], rel=1e-5), name


def test_a_run_resumed_in_the_middle_of_a_loop_is_the_same_to_the_last_bit(alone):
    trainer, state = make_trainer(tf.distribute.OneDeviceStrategy("/cpu:0"), is_bucketed=False)
    state.read(alone[2]).assert_existing_objects_matched()
    figures = trainer.train(tf.constant(equivalence.NUM_UPDATES - 2))
    for found, wanted in zip(weights_of(trainer), weights_of(alone[0]), strict=True):
        np.testing.assert_array_equal(found, wanted)
    for name in ("loss", "consistency_loss", "intermediate_ctc_loss", "num_rows"):
        assert figures[name] == alone[1][name], name
