"""Conformer layers: what trains and what is kept, and the batch norm that became part of a kernel."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from models.wav2vec2.model import Wav2Vec2ForCTC
from tests.models.wav2vec2.test_model import pad, small_preset, waveforms


def test_what_only_the_files_of_transformers_need_is_kept_and_never_trained():
    model = Wav2Vec2ForCTC(config=small_preset("conformer_rope"))
    trained = {variable.name for variable in model.trainable_variables}
    kept = {variable.name.split(":")[0] for variable in model.variables if variable.name not in trained}
    module = "encoder/layers/{}/convolution/batch_norm/{}"
    assert kept == {
        *(f"encoder/pos_conv/{part}" for part in ("kernel_g", "kernel_v", "bias")),
        "encoder/positions/frequencies",
        *(module.format(i, part) for i in range(2) for part in ("mean", "variance", "num_batches")),
    }


def test_batch_norm_has_the_recorded_statistics_in_training_too():
    model = Wav2Vec2ForCTC(config=small_preset("conformer_rel_pos", num_layers=1, layer_drop=0.0))
    module = model.backbone.encoder.transformer_layers[0].convolution
    rng = np.random.default_rng(0)
    for variable in (module.scale, module.offset, module.mean, module.variance):
        variable.assign(rng.uniform(0.5, 2.0, variable.shape))
    x = tf.constant(rng.normal(size=(2, 40, 32)).astype(np.float32))
    plain = tf.nn.depthwise_conv2d(x[:, tf.newaxis], module.kernel[tf.newaxis, :, 0, :, tf.newaxis], [1] * 4, "VALID")
    wanted = tf.nn.batch_normalization(
        plain[:, 0], module.mean, module.variance, module.offset, module.scale, variance_epsilon=1e-5
    )
    np.testing.assert_allclose(module._depthwise(x, None), wanted, atol=1e-4)
    before = [module.mean.numpy(), module.variance.numpy()]
    batch, lengths = pad(waveforms(), 16_000)
    random = model.make_random(seed=3, update=tf.constant(7), row_ids=tf.constant([5, 6, 7]))
    model(batch, lengths, training=True, random=random)
    for old, variable in zip(before, (module.mean, module.variance), strict=True):
        np.testing.assert_array_equal(variable, old)


def test_layers_with_length_adapters_have_no_losses_of_their_own():
    model = Wav2Vec2ForCTC(config=small_preset("conformer_adapter"))
    assert "length adapters" in model.explain_unsupported(num_views=1, layers=[1])
    assert model.explain_unsupported(num_views=2, layers=[]) == ""
