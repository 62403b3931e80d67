"""Computes the log-mel features that w2v-BERT reads, inside the graph, so that every model takes waveforms."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tf_keras

from models.wav2vec2.config import MEL_BINS, MEL_HOP, MEL_STRIDE, MEL_WINDOW, Wav2Vec2Config
from models.wav2vec2.feature_encoder import cut_windows, shortened_lengths
from models.wav2vec2.layers import Dtype, sequence_mask

FFT_SIZE = 512
_SAMPLE_RATE = 16_000
_LOWEST_HZ = 20.0
_PREEMPHASIS = 0.97
_INT16_SCALE = 32_768.0  # Kaldi's filterbank takes 16-bit integers
_FLOOR = 1.1920928955078125e-07  # of the energy of a channel
_EPSILON = 1e-7  # added to the variance of a channel


def mel_filters(num_bins: int) -> np.ndarray:
    """Returns Kaldi's triangular filters from 20 Hz to 8 kHz, triangles on its mel scale, float32 [257, num_bins]."""

    def to_mel(frequency: np.ndarray | float) -> np.ndarray:
        return 1127.0 * np.log(1.0 + np.asarray(frequency) / 700.0)

    edges = np.linspace(to_mel(_LOWEST_HZ), to_mel(_SAMPLE_RATE / 2), num_bins + 2)
    position = to_mel(np.arange(FFT_SIZE // 2 + 1) * (_SAMPLE_RATE / FFT_SIZE))[:, np.newaxis]
    rising = (position - edges[:-2]) / np.diff(edges)[:-1]
    falling = (edges[2:] - position) / np.diff(edges)[1:]
    return np.maximum(0.0, np.minimum(rising, falling)).astype(np.float32)


def povey_window() -> np.ndarray:
    """Returns Kaldi's default window, a Hann window to the power of 0.85, float32 [400]."""
    phase = 2.0 * np.pi * np.arange(MEL_WINDOW) / (MEL_WINDOW - 1)
    return ((0.5 - 0.5 * np.cos(phase)) ** 0.85).astype(np.float32)


class LogMelFeatures(tf_keras.layers.Layer):
    """Maps a waveform to log-mel features as w2v-BERT was trained on them; it has no variables.

    Kaldi's filterbank without dither, each channel normalized over the row's own frames to mean 0 and variance 1, and
    two frames joined into one (Seamless Communication 2023, https://arxiv.org/abs/2312.05187, section 3.1, and
    `SeamlessM4TFeatureExtractor` of transformers).
    """

    def __init__(self, *, config: Wav2Vec2Config, dtype: Dtype) -> None:
        """Computes the filters; the features are float32 until the last cast under every policy."""
        super().__init__(name="feature_encoder", dtype=dtype, autocast=False)
        self._filters = mel_filters(MEL_BINS)
        self._window = povey_window()
        self._steps = config.encoder_steps

    def call(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Maps waveform [B, T] with valid lengths [B] to features [B, F, C] and frame counts int32 [B]."""
        spectrum = self.log_spectrum(tf.cast(waveform, tf.float32))
        lengths = shortened_lengths(tf.cast(lengths, tf.int32), self._steps[0])
        x = self._normalize(spectrum, lengths)
        num_rows, num_frames, channels = tf.shape(x)[0], tf.shape(x)[1] // MEL_STRIDE, x.shape[-1]
        x = tf.reshape(x[:, : num_frames * MEL_STRIDE], [num_rows, num_frames, MEL_STRIDE * channels])
        return tf.cast(x, self.compute_dtype), shortened_lengths(lengths, self._steps[1])

    def log_spectrum(self, waveform: tf.Tensor) -> tf.Tensor:
        """Returns the log-mel energies, float32 [B, N, C], of a waveform, float32 [B, T]."""
        frames = cut_windows(waveform[:, :, tf.newaxis] * _INT16_SCALE, MEL_WINDOW, MEL_HOP)
        frames -= tf.reduce_mean(frames, axis=-1, keepdims=True)
        before = tf.concat([frames[:, :, :1], frames[:, :, :-1]], axis=-1)
        frames = (frames - _PREEMPHASIS * before) * self._window
        # A Fourier transform, not a product with its matrix: accelerators round the inputs of products, and the
        # quietest channels would be noise.
        power = tf.square(tf.abs(tf.signal.rfft(frames, [FFT_SIZE])))
        shape = tf.shape(power)
        energy = tf.matmul(tf.reshape(power, [-1, power.shape[-1]]), self._filters)
        energy = tf.reshape(energy, [shape[0], shape[1], self._filters.shape[1]])
        return tf.math.log(tf.maximum(energy, _FLOOR))

    def _normalize(self, x: tf.Tensor, lengths: tf.Tensor) -> tf.Tensor:
        """Normalizes each channel of x [B, N, C] over the row's valid frames; the others become zero."""
        valid = sequence_mask(lengths, tf.shape(x)[1], tf.float32)[:, :, tf.newaxis]
        count = tf.cast(lengths, tf.float32)[:, tf.newaxis, tf.newaxis]
        mean = tf.reduce_sum(x * valid, axis=1, keepdims=True) / tf.maximum(count, 1.0)
        centered = (x - mean) * valid
        # The reference divides by one frame less, and by zero for a single one.
        variance = tf.reduce_sum(tf.square(centered), axis=1, keepdims=True) / tf.maximum(count - 1.0, 1.0)
        return centered * tf.math.rsqrt(variance + _EPSILON)
