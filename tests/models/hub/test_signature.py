"""Call signatures: the published forms are recognized, everything else is one line."""

from __future__ import annotations

import pytest
import tensorflow as tf

from models.hub.signature import Signature, is_saved_model, read_signature


class Root(tf.Module):
    variables = None
    trainable_variables = None


def save(folder, *signatures, function=None, trainable=True):
    """A SavedModel of the network "samples, four at a time, times a kernel", traced for `signatures`."""
    root = Root()
    root.kernel = tf.Variable(tf.ones([4, 3]))
    root.variables = [root.kernel]
    root.trainable_variables = [root.kernel] if trainable else []

    def states(speech, attention_mask=None, training=False):
        speech = speech[0] if isinstance(speech, (tuple, list)) else speech
        return tf.reshape(speech, [tf.shape(speech)[0], (speech.shape[1] or 8) // 4, 4]) @ root.kernel

    call = tf.function(function or states)
    for speech, training in signatures:
        call.get_concrete_function(speech, None, training)
    root.__call__ = call
    tf.saved_model.save(root, str(folder))
    return tf.saved_model.load(str(folder))


def speech(size, dtype=tf.float32):
    return tf.TensorSpec([None, size], dtype)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (speech(16), Signature(num_samples=16, mask_dtype=None, num_frames=4, output_size=3)),
        (
            (speech(16), speech(16, tf.int64)),
            Signature(num_samples=16, mask_dtype=tf.int64, num_frames=4, output_size=3),
        ),
        (speech(None), Signature(num_samples=0, mask_dtype=None, num_frames=2, output_size=3)),
    ],
)
def test_one_input_or_two_fixed_length_or_any(inputs, expected, tmp_path):
    assert read_signature(save(tmp_path, (inputs, True), (inputs, False)), "here") == expected


def test_a_model_without_a_training_form_is_refused(tmp_path):
    with pytest.raises(ValueError, match="here: no call with training=True and training=False"):
        read_signature(save(tmp_path, (speech(16), False)), "here")


def test_a_model_that_makes_no_states_is_refused(tmp_path):
    loaded = save(
        tmp_path,
        (speech(16), True),
        (speech(16), False),
        function=lambda speech, attention_mask=None, training=False: tf.reduce_sum(speech, axis=1),
    )
    with pytest.raises(ValueError, match=r"to states \[B, F, D\]"):
        read_signature(loaded, "here")


def test_a_model_without_trainable_variables_is_refused(tmp_path):
    with pytest.raises(ValueError, match="needs a __call__ and trainable_variables"):
        read_signature(save(tmp_path, (speech(16), True), (speech(16), False), trainable=False), "here")


def test_a_saved_model_that_only_serves_is_refused(tmp_path):
    tf.saved_model.save(tf.Module(), str(tmp_path))
    assert is_saved_model(tmp_path)
    assert not is_saved_model(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="needs a __call__"):
        read_signature(tf.saved_model.load(str(tmp_path)), "here")
