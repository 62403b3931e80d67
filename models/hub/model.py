"""Wraps a SavedModel from TF-Hub or a folder in the interface of the native model; the only user of tensorflow_hub."""

from __future__ import annotations

import os
import socket
import tarfile
import zlib
from collections.abc import Sequence
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

# Parts of the names of the convolutions' variables, in our SavedModels and in published ones.
_FEATURE_ENCODER_NAMES = ("feature_encoder", "feature_extractor")
_STREAM_FINAL = 6
# Overlap ratio of the windows of audio that is longer than a fixed signature, so that each frame has context.
_OVERLAP = 0.125
_TIMEOUT_SECS = 60.0  # until a silent server is given up
_WANTS_LENGTHS = (
    "a SavedModel of another stride must have a function output_lengths(num_samples), as those of "
    "python -m models.hub_export have"
)


class HubForCTC(tf_keras.Model):
    """A SavedModel with a new dense CTC head and the interface of `Wav2Vec2ForCTC`.

        model = HubForCTC(handle="https://tfhub.dev/vasudevgupta7/wav2vec2/1", vocab_size=32)
        logits = model(waveform, waveform_lengths)  # float32 [B, F, V]

    A row's logits depend on its own valid samples only, as far as the SavedModel allows. One with a fixed number of
    samples sees every row padded with zeros to that number. One of any length without an attention mask sees the
    padding of the batch in training, and each row alone in evaluation.
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
            precision: Keras policy of the head. The SavedModel keeps the precision that it was saved with.
            freeze_feature_encoder: Whether the variables of its convolutions, found by their names, stay untrained.
            final_dropout: Dropout rate before the head.

        Raises:
            ValueError: If there is no such SavedModel, or it cannot be called like a wav2vec 2.0 backbone.
        """
        # float32 instead of `precision`, or Keras casts the waveform to half precision before the SavedModel sees it.
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
        self._geometry = Wav2Vec2Config()  # of all published models; unused if the SavedModel has output_lengths
        frames = self.output_lengths(tf.range(8192)).numpy()
        self._receptive_field = int(np.argmax(frames >= 1))
        self._hop = int(np.argmax(frames >= 2)) - self._receptive_field
        self._check_frames(handle)

    @property
    def trainable_weights(self) -> list[tf.Variable]:
        """The head and those trainable variables of the SavedModel that are not frozen."""
        return [variable for variable in super().trainable_weights if variable.ref() not in self._frozen]

    @property
    def head_variables(self) -> list[tf.Variable]:
        """The variables that train while the rest is frozen by `model.freeze_encoder_updates`."""
        return self.head.trainable_variables

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        """All variables but the head; the SavedModel brings their values."""
        return self.backbone.variables

    @property
    def max_training_samples(self) -> int:
        """The longest row that training takes, in samples; 0 = any."""
        return self.signature.num_samples

    def fix_weights(self) -> None:
        """Caches the kernel of the head, as `Wav2Vec2ForCTC.fix_weights` does for all kernels."""
        self.head.fix_weights()

    def make_random(self, *, seed: int, update: tf.Tensor, row_ids: tf.Tensor, num_views: int = 1) -> UpdateRandom:
        """Returns the random numbers of one update for the head; the SavedModel draws its own."""
        return UpdateRandom(seed=seed, update=update, row_ids=row_ids, num_views=num_views)

    def training_logits(
        self,
        waveform: tf.Tensor,
        waveform_lengths: tf.Tensor,
        *,
        random: UpdateRandom,
        mask_time_factor: float = 1.0,
        layers: Sequence[int] = (),
    ) -> list[tf.Tensor]:
        """Returns the logits of the last layer for one view of each row.

        Raises:
            ValueError: More is asked for.
        """
        del mask_time_factor  # the SavedModel draws its masks itself
        if fault := self.explain_unsupported(num_views=random.num_views, layers=layers):
            raise ValueError(fault)
        return [self(waveform, waveform_lengths, training=True, random=random)]

    def explain_unsupported(self, *, num_views: int, layers: Sequence[int]) -> str:
        """Returns why `training_logits` cannot serve so many views and these layers; "" if it can."""
        if num_views > 1:
            return "a SavedModel draws its masks itself, so there are no two views of a row to compare"
        return "a SavedModel returns no outputs of layers before its last one" if layers else ""

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns the valid frames of the logits, int32 [B], for rows of `waveform_lengths` samples."""
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
        """Returns float32 logits [B, F, V].

        Args:
            waveform: float [B, T] at 16 kHz, normalized per utterance; values past a row's length are ignored.
            waveform_lengths: Integers [B], valid samples.
            training: Whether dropout is on. In evaluation rows that are too long are cut into overlapping windows.
            random: Random numbers of the update; required when training.

        Raises:
            ValueError: If training without `random`, or on rows longer than the SavedModel takes (InvalidArgumentError
                in a graph).
        """
        if training and random is None:
            raise ValueError("training=True needs random=UpdateRandom(...) for dropout; see make_random")
        lengths = tf.cast(waveform_lengths, tf.int32)
        # The published models were trained with zeros past a row's end.
        waveform = tf.cast(waveform, tf.float32) * sequence_mask(lengths, tf.shape(waveform)[1], tf.float32)
        if self.signature.num_samples and training:
            states = self._one_window(waveform, lengths)
        elif self.signature.num_samples:
            states = self._windows(waveform, lengths)
        elif self.signature.mask_dtype is None and not training:
            states = self._row_by_row(waveform, lengths)
        else:
            states = self._states(self._at_least(waveform, self._receptive_field), lengths, training)
        states = dropout(states, self._final_dropout, random if training else None, stream=_STREAM_FINAL)
        return tf.cast(self.head(states), tf.float32)

    def _states(self, waveform: tf.Tensor, lengths: tf.Tensor, training: bool) -> tf.Tensor:
        """Calls the SavedModel, from [B, T] with a T that it accepts to [B, F, D]."""
        inputs = waveform
        if self.signature.mask_dtype is not None:
            inputs = (waveform, sequence_mask(lengths, tf.shape(waveform)[1], self.signature.mask_dtype))
        states = self.backbone(inputs, training=training)
        if self.signature.num_frames:
            return states
        # The number of frames is unknown until now: a SavedModel that ran while its variables were made could not run
        # on a replica later.
        expected = self.output_lengths(tf.shape(waveform)[1:])[0]
        check = tf.debugging.assert_equal(tf.shape(states)[1], expected, message=_WANTS_LENGTHS)
        with tf.control_dependencies([] if check is None else [check]):
            return tf.identity(states)

    def _one_window(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Runs rows padded or trimmed to the fixed number of samples."""
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
        """Runs windows of the fixed number of samples one after another and joins their frames, without gradient.

        Windows start on multiples of the hop, so that frame f of the row is frame f - start / hop of a window. A frame
        in two windows is taken from the one where it is further from the edge.
        """
        size, num_frames = self.signature.num_samples, self._frames_of(self.signature.num_samples)
        overlap = int(num_frames * _OVERLAP)
        step_frames = num_frames - overlap
        step = step_frames * self._hop
        longest = tf.reduce_max(lengths)
        num_windows = 1 + tf.maximum(0, tf.math.floordiv(longest - size + step - 1, step))
        waveform = self._at_least(waveform, (num_windows - 1) * step + size)

        def states(window: tf.Tensor) -> tf.Tensor:
            start = window * step
            samples = tf.ensure_shape(waveform[:, start : start + size], [None, size])
            return self._states(samples, tf.clip_by_value(lengths - start, 0, size), training=False)

        shape = tf.TensorSpec([None, num_frames, self.signature.output_size], tf.float32)
        # One at a time, because all windows of an hour at once would need an hour's worth of memory.
        outputs = tf.map_fn(states, tf.range(num_windows), fn_output_signature=shape, parallel_iterations=1)
        outputs = tf.transpose(outputs, [1, 0, 2, 3])  # [B, windows, frames, D]
        rows = tf.shape(outputs)[0]
        outputs = tf.reshape(outputs, [rows, num_windows * num_frames, self.signature.output_size])
        frames = tf.range(tf.maximum(self.output_lengths(longest[tf.newaxis])[0], num_frames))
        window = tf.clip_by_value(tf.math.floordiv(frames - overlap // 2, step_frames), 0, num_windows - 1)
        return tf.gather(outputs, frames - window * step_frames + window * num_frames, axis=1)

    def _row_by_row(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Runs each row without its padding, which the SavedModel cannot tell from speech."""
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
        """Checks that a fixed number of samples makes as many frames as `output_lengths` says.

        Raises:
            ValueError: If not; CTC would align labels with frames that do not exist.
        """
        size, found = self.signature.num_samples, self.signature.num_frames
        expected = int(self.output_lengths(tf.constant([size]))[0])
        if size and found and found != expected:
            raise ValueError(
                f"{handle}: makes {found} frames of {size} samples where wav2vec 2.0 makes {expected}; {_WANTS_LENGTHS}"
            )


def copy_with_weights(handle: str, checkpoint: str, folder: str | os.PathLike[str]) -> int:
    """Writes a SavedModel again, with the weights that `HubForCTC` has after training.

    Args:
        handle: SavedModel that the training started from.
        checkpoint: Checkpoint of the training with the model as its attribute `model`, or a folder of checkpoints.
        folder: Folder to write.

    Returns:
        The number of variables written.

    Raises:
        ValueError: If there is no such checkpoint, or it belongs to another model.
    """
    path = find_checkpoint(checkpoint)
    if path is None:
        raise ValueError(f"{checkpoint}: no checkpoint; give WORKDIR/best or WORKDIR/checkpoints to --checkpoint")
    layer = _load_layer(handle)
    try:
        # Restore the backbone alone, without the head.
        status = tf.train.Checkpoint(model=tf.train.Checkpoint(backbone=layer)).read(path)
        status.assert_existing_objects_matched().expect_partial()
    except (tf.errors.OpError, ValueError, AssertionError, IndexError) as error:
        raise ValueError(f"{path}: not from a run that started from {handle}; give another --checkpoint") from error
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
    # TensorFlow Hub sets no timeout, so a server that accepts the connection and never answers would block the run.
    socket.setdefaulttimeout(_TIMEOUT_SECS)
    try:
        return tensorflow_hub.KerasLayer(handle, trainable=True, name="backbone", dtype="float32")
    # EOFError and TarError come from a truncated download, or a web page instead of an archive.
    except (tf.errors.OpError, OSError, ValueError, RuntimeError, EOFError, tarfile.TarError, zlib.error) as error:
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise ValueError(f"{handle}: cannot be loaded ({reason}); check model.hub_handle{remedy}") from error
    finally:
        socket.setdefaulttimeout(default_timeout)


def _too_long(size: int, length: int = 0) -> str:
    what = f"a row of {length} samples is" if length else "a row is"
    return (
        f"{what} longer than the {size} that the SavedModel takes; set data.max_duration_secs={size / 16_000:g} "
        "(and data.concat_max_secs) for training"
    )
