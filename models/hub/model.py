"""A SavedModel from TF-Hub, or from a folder, behind the call of the native model; the only user of tensorflow_hub."""

from __future__ import annotations

import os
import socket
import tarfile
import zlib
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_hub
import tf_keras

from common.weight_names import is_weight_name
from common.workdir_layout import find_checkpoint
from models.hub.signature import is_saved_model, read_signature
from models.ops.keyed_random import UpdateRandom, dropout
from models.wav2vec2 import feature_encoder
from models.wav2vec2.config import Wav2Vec2Config
from models.wav2vec2.layers import Projection, sequence_mask
from models.weights.kaggle import kaggle_name
from models.weights.named_weights import fetch

# Names that the convolutions at the bottom go by, ours and the published ones.
_FEATURE_ENCODER_NAMES = ("feature_encoder", "feature_extractor")
_SALT_FINAL = 6
# Windows of audio longer than a fixed signature overlap by this share: a frame is taken where it has context.
_OVERLAP = 0.125
_TIMEOUT_SECS = 60.0  # of a silent server
_WANTS_LENGTHS = (
    "a SavedModel of another stride must have a function output_lengths(num_samples), as python -m models.hub_export "
    "gives it"
)


class HubForCTC(tf_keras.Model):
    """A SavedModel's states under a fresh dense CTC head, with the call of `Wav2Vec2ForCTC`.

    A row's logits depend on its own valid samples only, as far as the SavedModel lets: one of a fixed number of samples
    sees every row padded with zeros to that number; one of any length without an attention mask sees the batch's
    padding in training, and each row by itself in evaluation.
    """

    def __init__(
        self,
        *,
        handle: str,
        vocab_size: int,
        precision: str = "float32",
        freeze_feature_encoder: bool = False,
        final_dropout: float = 0.0,
    ) -> None:
        """Loads the SavedModel; call inside `strategy.scope()` to distribute its variables.

        Args:
            handle: URL, or a folder with saved_model.pb.
            vocab_size: Width of the CTC head.
            precision: Policy of the head. The SavedModel computes in what it was saved with, whatever stands here.
            freeze_feature_encoder: Leaves the variables of its convolutions untrained, found by their names.
            final_dropout: Dropout rate before the head.

        Raises:
            ValueError: If there is no such SavedModel, or it cannot be called like a wav2vec 2.0 backbone.
        """
        # float32, not `precision`: Keras would cast the waveform to half before the SavedModel sees it.
        super().__init__(name="hub_for_ctc", dtype="float32")
        self.backbone = _load_layer(handle)
        self.signature = read_signature(self.backbone.resolved_object, handle)
        self._final_dropout = final_dropout
        self.head = Projection(
            input_size=self.signature.output_size,
            output_size=vocab_size,
            name="head",
            dtype=tf_keras.mixed_precision.Policy(precision),
        )
        self._frozen: frozenset[Any] = frozenset()
        if freeze_feature_encoder:
            self._frozen = frozenset(
                variable.ref()
                for variable in self.backbone.trainable_variables
                if any(name in variable.name for name in _FEATURE_ENCODER_NAMES)
            )
            if not self._frozen:
                raise ValueError(
                    f"{handle}: has no variables named {' or '.join(_FEATURE_ENCODER_NAMES)} to freeze; "
                    "set model.freeze_feature_encoder=False"
                )
        self._geometry = Wav2Vec2Config()  # of every published model; unused where the SavedModel knows its own
        frames = self.output_lengths(tf.range(8192)).numpy()
        self._receptive_field = int(np.argmax(frames >= 1))
        self._hop = int(np.argmax(frames >= 2)) - self._receptive_field
        self._check_frames(handle)

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """What trains: the head and the SavedModel's trainable variables that are not frozen."""
        return [variable for variable in super().trainable_weights if variable.ref() not in self._frozen]

    @property
    def head_variables(self) -> list[tf.Variable]:
        """The variables that train while the rest is frozen by `model.freeze_encoder_updates`."""
        return self.head.trainable_variables

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        """The variables that came with values: all but the head."""
        return self.backbone.variables

    @property
    def max_training_samples(self) -> int:
        """Longest row that can be trained on; 0 = any."""
        return self.signature.num_samples

    def fix_weights(self) -> None:
        """As `Wav2Vec2ForCTC.fix_weights`, of the head alone."""
        self.head.fix_weights()

    def make_random(self, *, seed: int, update: tf.Tensor, row_ids: tf.Tensor) -> UpdateRandom:
        """Returns the random numbers of one update, for the head; the SavedModel draws its own."""
        return UpdateRandom(seed=seed, update=update, row_ids=row_ids)

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns int32 [B]: valid frames of the logits for rows of `waveform_lengths` samples."""
        lengths = tf.cast(waveform_lengths, tf.int32)
        own = getattr(self.backbone.resolved_object, "output_lengths", None)
        return feature_encoder.output_lengths(self._geometry, lengths) if own is None else own(lengths)

    def call(
        self,
        waveform: tf.Tensor,
        waveform_lengths: tf.Tensor,
        training: bool = False,
        random: UpdateRandom | None = None,
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V]; as `Wav2Vec2ForCTC.call`.

        Raises:
            ValueError: If training without `random`, or on rows longer than the SavedModel takes (InvalidArgumentError
                in a graph). In evaluation longer rows are cut into overlapping windows.
        """
        if training and random is None:
            raise ValueError("training=True needs random=UpdateRandom(...): dropout is keyed, not global")
        lengths = tf.cast(waveform_lengths, tf.int32)
        # Past a row's end there may be anything; the published models were trained with zeros there.
        waveform = tf.cast(waveform, tf.float32) * sequence_mask(lengths, tf.shape(waveform)[1], tf.float32)
        if self.signature.num_samples and training:
            states = self._one_window(waveform, lengths)
        elif self.signature.num_samples:
            states = self._windows(waveform, lengths)
        elif self.signature.mask_dtype is None and not training:
            states = self._row_by_row(waveform, lengths)
        else:
            states = self._states(self._at_least(waveform, self._receptive_field), lengths, training)
        states = dropout(states, self._final_dropout, random if training else None, salt=_SALT_FINAL)
        return tf.cast(self.head(states), tf.float32)

    def _states(self, waveform: tf.Tensor, lengths: tf.Tensor, training: bool) -> tf.Tensor:
        """Calls the SavedModel: [B, T], T as it wants it, to [B, F, D]."""
        inputs = waveform
        if self.signature.mask_dtype is not None:
            inputs = (waveform, sequence_mask(lengths, tf.shape(waveform)[1], self.signature.mask_dtype))
        states = self.backbone(inputs, training=training)
        if self.signature.num_frames:
            return states
        # Any length, so unknown until now: run while its variables were made, it could not run on a replica later.
        expected = self.output_lengths(tf.shape(waveform)[1:])[0]
        check = tf.debugging.assert_equal(tf.shape(states)[1], expected, message=_WANTS_LENGTHS)
        with tf.control_dependencies([] if check is None else [check]):
            return tf.identity(states)

    def _one_window(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Pads or trims padding to the fixed number of samples."""
        size = self.signature.num_samples
        if tf.executing_eagerly():
            if tf.reduce_max(lengths) > size:
                raise ValueError(_too_long(size, int(tf.reduce_max(lengths))))
            checks = []
        else:
            checks = [tf.debugging.assert_less_equal(lengths, size, message=_too_long(size))]
        with tf.control_dependencies(checks):
            waveform = self._at_least(waveform, size)[:, :size]
        waveform = tf.ensure_shape(waveform, [None, size])
        return self._states(waveform, lengths, training=True)

    def _windows(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Runs windows of the fixed number of samples one after the other and joins their frames, without gradient.

        Windows start on multiples of the hop, so that frame f of the row is frame f - start / hop of a window; of two
        windows that know a frame, the one where it lies further from the edge gives it.
        """
        size, num_frames = self.signature.num_samples, self._frames_of(self.signature.num_samples)
        overlap = int(num_frames * _OVERLAP)
        step_frames = num_frames - overlap
        step = step_frames * self._hop
        longest = tf.reduce_max(lengths)
        num_windows = 1 + tf.maximum(0, tf.math.floordiv(longest - size + step - 1, step))
        waveform = self._at_least(waveform, (num_windows - 1) * step + size)

        def states(window: tf.Tensor) -> tf.Tensor:
            piece = waveform[:, window * step : window * step + size]
            return self._states(
                tf.ensure_shape(piece, [None, size]), tf.clip_by_value(lengths - window * step, 0, size), training=False
            )

        shape = tf.TensorSpec([None, num_frames, self.signature.output_size], tf.float32)
        # One at a time: an hour's windows at once would need an hour's worth of memory.
        outputs = tf.map_fn(states, tf.range(num_windows), fn_output_signature=shape, parallel_iterations=1)
        outputs = tf.transpose(outputs, [1, 0, 2, 3])  # [B, windows, frames, D]
        rows = tf.shape(outputs)[0]
        outputs = tf.reshape(outputs, [rows, num_windows * num_frames, self.signature.output_size])
        frames = tf.range(tf.maximum(self.output_lengths(longest[tf.newaxis])[0], num_frames))
        window = tf.clip_by_value(tf.math.floordiv(frames - overlap // 2, step_frames), 0, num_windows - 1)
        return tf.gather(outputs, frames - window * step_frames + window * num_frames, axis=1)

    def _row_by_row(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Runs each row without its padding, which the SavedModel could not tell from speech."""
        waveform = self._at_least(waveform, self._receptive_field)
        num_frames = self.output_lengths(tf.shape(waveform)[1:])[0]

        def states(row: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            samples, length = row
            length = tf.maximum(length, self._receptive_field)
            found = self._states(samples[tf.newaxis, :length], length[tf.newaxis], training=False)[0]
            return tf.pad(found, [[0, num_frames - tf.shape(found)[0]], [0, 0]])

        shape = tf.TensorSpec([None, self.signature.output_size], tf.float32)
        return tf.map_fn(states, (waveform, lengths), fn_output_signature=shape, parallel_iterations=1)

    def _at_least(self, waveform: tf.Tensor, size: int | tf.Tensor) -> tf.Tensor:
        """Appends zeros to rows of fewer than `size` samples."""
        return tf.pad(waveform, [[0, 0], [0, tf.maximum(size - tf.shape(waveform)[1], 0)]])

    def _frames_of(self, num_samples: int) -> int:
        return self.signature.num_frames or int(self.output_lengths(tf.constant([num_samples]))[0])

    def _check_frames(self, handle: str) -> None:
        """Checks that a fixed number of samples makes as many frames as the lengths say.

        Raises:
            ValueError: If not: CTC would align labels with frames that are not there.
        """
        size, found = self.signature.num_samples, self.signature.num_frames
        expected = int(self.output_lengths(tf.constant([size]))[0])
        if size and found and found != expected:
            raise ValueError(
                f"{handle}: makes {found} frames of {size} samples where wav2vec 2.0 makes {expected}; {_WANTS_LENGTHS}"
            )


def copy_with_weights(handle: str, checkpoint: str, folder: str | os.PathLike[str]) -> int:
    """Writes a SavedModel again, with the weights that `HubForCTC` got in training.

    Args:
        handle: The SavedModel that the training started from.
        checkpoint: Of the training, with the model as its attribute `model`; or a folder of such checkpoints.
        folder: To write.

    Returns:
        The number of its variables.

    Raises:
        ValueError: If there is no such checkpoint, or it is of another model.
    """
    path = find_checkpoint(checkpoint)
    if path is None:
        raise ValueError(f"{checkpoint}: no checkpoint; give WORKDIR/best or WORKDIR/checkpoints to --checkpoint")
    layer = _load_layer(handle)
    try:
        # The backbone alone: the head stays behind.
        status = tf.train.Checkpoint(model=tf.train.Checkpoint(backbone=layer)).read(path)
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, ValueError, AssertionError, IndexError) as error:
        raise ValueError(f"{path}: not of a run that started from {handle}") from error
    tf.saved_model.save(layer.resolved_object, os.fspath(folder))
    return len(layer.variables)


def _load_layer(handle: str) -> tensorflow_hub.KerasLayer:
    if is_weight_name(handle):
        handle = os.fspath(fetch(handle))
    if "://" not in handle and not is_saved_model(handle):
        raise ValueError(
            f"{handle or '(empty)'}: no saved_model.pb there (model.hub_handle); give a URL or a folder that "
            "python -m models.hub_export wrote"
        )
    remedy = "; or download it by hand, unpack it and give the folder" if "://" in handle else ""
    if name := kaggle_name(handle):
        remedy = f"; TensorFlow Hub has moved to Kaggle Models: try model.hub_handle={name}{remedy}"
    default_timeout = socket.getdefaulttimeout()
    # TensorFlow Hub sets none: a server that takes the connection and says nothing would hold the run for ever.
    socket.setdefaulttimeout(_TIMEOUT_SECS)
    try:
        return tensorflow_hub.KerasLayer(handle, trainable=True, name="backbone", dtype="float32")
    # EOFError and TarError: a download that was cut off, or is a page instead of an archive.
    except (tf.errors.OpError, OSError, ValueError, RuntimeError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{handle}: cannot be loaded ({reason}); check model.hub_handle{remedy}") from error
    finally:
        socket.setdefaulttimeout(default_timeout)


def _too_long(size: int, length: int = 0) -> str:
    what = f"a row of {length} samples is" if length else "a row is"
    return (
        f"{what} longer than the {size} that the SavedModel takes; set data.max_duration_secs={size / 16_000:g} "
        "(and data.join_max_secs) for training"
    )
