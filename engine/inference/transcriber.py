"""Recordings of any length to text with times, in constant memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from engine.common.progress import progress_bar
from engine.inference.grouping import Grouping, suitable_grouping
from engine.inference.row_runner import RowRunner
from engine.inference.searching import Alternative, SearchReader
from engine.inference.windows import Piece, Window, cut_windows, join_windows, measure_hop
from engine.inference.words import Timed, find_words, mean_confidence
from engine.protocols import InferenceModel, SpanDecoder, Tokenizer, TokenSpan

SAMPLE_RATE = 16_000


@dataclasses.dataclass(frozen=True)
class Transcript:
    """What was said in one recording.

    Attributes:
        path: The recording.
        words: In order, with times.
        duration_secs: Of the recording.
        alternatives: The best texts and their scores, if a search was asked for more than one.
    """

    path: str
    words: tuple[Timed, ...]
    duration_secs: float
    alternatives: tuple[Alternative, ...] = ()

    @property
    def text(self) -> str:
        """The words, joined by spaces."""
        return " ".join(word.text for word in self.words)

    @property
    def confidence(self) -> float:
        """Geometric mean of the characters' confidences; 0 without any."""
        return mean_confidence([character for word in self.words for character in word.characters])


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a transcription did.

    Attributes:
        transcripts: In the order of the paths.
        failures: (path, reason) of each file that could not be transcribed.
        audio_secs: Duration of the transcribed audio.
        elapsed_secs: Time from the first file to the last.
    """

    transcripts: tuple[Transcript, ...]
    failures: tuple[tuple[str, str], ...]
    audio_secs: float
    elapsed_secs: float


class Transcriber:
    """Transcribes many short recordings a batch at a time, long ones window by window.

    Attributes:
        model: Computes the logits.
        tokenizer: Says what they mean.
        find_reference: Path -> the transcript beside the file, or None.
        count_samples: Path -> samples at 16 kHz.
        stream_audio: Path -> float32 [N] at 16 kHz, piece by piece.
        geometry: Receptive field of a frame and hop between frames, in samples.
        normalize: A recording, or a window of a long one, to what the model hears: float32 [T] to the same.
        normalizes: Whether that is zero mean and unit variance, or the recording as it is.
    """

    def __init__(
        self,
        *,
        model: InferenceModel,
        span_decoder: SpanDecoder,
        tokenizer: Tokenizer,
        count_samples: Callable[[str], int],
        stream_audio: Callable[[str], Iterator[np.ndarray]],
        normalize_waveform: Callable[[np.ndarray], np.ndarray] | None,
        find_reference: Callable[[str], str | None] = lambda path: None,
        reader: SearchReader | None = None,
        batch_size: int = 8,
        window_secs: float = 30.0,
        overlap_secs: float = 5.0,
        grouping: Grouping | None = None,
    ) -> None:
        """Prepares the step.

        Args:
            model: With its weights.
            span_decoder: Log-probabilities to tokens with frames.
            tokenizer: What the tokens say.
            count_samples: Path -> samples at 16 kHz, from the header; raises ValueError for files it cannot use.
            stream_audio: Path -> float32 [N] at 16 kHz, piece by piece; likewise.
            normalize_waveform: Of a recording, or of a window of a long one; None for a model that hears them as they
                are.
            find_reference: Path -> the transcript beside the file, or None; for who wants to compare.
            reader: Finds the words in place of the span decoder.
            batch_size: Rows that run together.
            window_secs: Longest row; what is longer is cut into windows of this length.
            overlap_secs: Of consecutive windows.
            grouping: How a batch is split into what really runs together; None = what suits the device.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.find_reference = find_reference
        self._span_decoder = span_decoder
        self._reader = reader
        self.count_samples = count_samples
        self.stream_audio = stream_audio
        self.normalizes = normalize_waveform is not None
        self.normalize = normalize_waveform or np.asarray
        self._batch_size = batch_size
        self.geometry = measure_hop(lambda lengths: model.output_lengths(tf.constant(lengths)).numpy())
        receptive_field, self._hop = self.geometry
        self._window_samples = round(window_secs * SAMPLE_RATE)
        if model.max_training_samples:
            self._window_samples = min(self._window_samples, model.max_training_samples)
        self._window_samples = max(self._window_samples, receptive_field + 3 * self._hop)
        overlap_samples = min(round(overlap_secs * SAMPLE_RATE), self._window_samples // 2)
        self._step_samples = (self._window_samples - overlap_samples) // self._hop * self._hop
        self._step = tf.function(
            self._log_probs,
            input_signature=[tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)],
            autograph=False,
        )
        self._rows = RowRunner(self._step, grouping or suitable_grouping())

    @property
    def secs_per_frame(self) -> float:
        """Hop between frames."""
        return self._hop / SAMPLE_RATE

    def _log_probs(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.model(waveform, lengths, training=False)
        return tf.nn.log_softmax(tf.cast(logits, tf.float32)), self.model.output_lengths(lengths)

    def log_probs(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns float32 [F, V] of each waveform [T] as `normalize` returns it; rows of like length run together."""
        return self._rows.submit(waveforms)()

    def stream_log_probs(self, blocks: Iterable[np.ndarray]) -> Iterator[Piece]:
        """Yields the log-probabilities of a recording of any length, from its samples piece by piece.

        Where the model wants it, a recording of one window is normalized as a whole; of a longer one each window by
        itself, so that nothing has to be known of the rest.
        """
        windows = cut_windows(
            blocks,
            window_samples=self._window_samples,
            step_samples=self._step_samples,
            hop_samples=self._hop,
        )
        return join_windows(self._run_windows(windows), blank_id=self.tokenizer.blank_id)

    def _run_windows(self, windows: Iterator[Window]) -> Iterator[Piece]:
        batches = (
            (batch, self._rows.submit([self.normalize(window.waveform) for window in batch]))
            for batch in _batched(windows, self._batch_size)
        )
        for batch, collect in _one_ahead(batches):
            for window, log_probs in zip(batch, collect(), strict=True):
                yield Piece(log_probs, window.start_frame)

    def find_words(self, pieces: Iterable[Piece]) -> tuple[Timed, ...]:
        """Decodes consecutive pieces of one recording."""
        return self._read(pieces)[0]

    def text_of(self, pieces: Iterable[Piece]) -> str:
        """The words of consecutive pieces of one recording, joined by spaces."""
        return " ".join(word.text for word in self.find_words(pieces))

    def _read(self, pieces: Iterable[Piece]) -> tuple[tuple[Timed, ...], tuple[Alternative, ...]]:
        if self._reader is not None:
            return self._reader.read(pieces, secs_per_frame=self.secs_per_frame)
        spans: list[TokenSpan] = []
        for piece in pieces:
            for token, start, end, prob in self._span_decoder(piece.log_probs):
                first, last = start + piece.start_frame, end + piece.start_frame
                if start == 0 and spans and (spans[-1][0], spans[-1][2]) == (token, first):
                    # The token that two windows meet on: both have found a part of it.
                    _, first, middle, other = spans.pop()
                    prob = (other * (middle - first) + prob * (last - middle)) / (last - first)
                spans.append((token, first, last, prob))
        return tuple(find_words(spans, self.tokenizer, self.secs_per_frame)), ()

    @property
    def window_secs(self) -> float:
        """Longest row; what is longer is cut into windows."""
        return self._window_samples / SAMPLE_RATE

    def transcribe_files(self, paths: Sequence[str], *, quiet: bool = False) -> Summary:
        """Transcribes files, those of like length together.

        A file that cannot be read is named in the log and in the summary; the others are done all the same.

        Args:
            paths: Audio files.
            quiet: Whether to leave bar and log out, and the rest to the summary.
        """
        start_secs = time.monotonic()
        failures: dict[int, str] = {}
        found: dict[int, Transcript] = {}
        num_samples: dict[int, int] = {}

        def fail(index: int, error: Exception) -> None:
            if not quiet:
                logging.error("%s is skipped: %s", paths[index], error)
            failures[index] = str(error)

        for index, path in enumerate(paths):
            try:
                num_samples[index] = self.count_samples(path)
            except (ValueError, OSError) as error:
                fail(index, error)
        # Longest first: a batch that does not fit the memory shows at once, and the rate only rises.
        order = sorted(num_samples, key=lambda index: -num_samples[index])
        is_long = [index for index in order if num_samples[index] > self._window_samples]
        total_secs = sum(num_samples.values()) / SAMPLE_RATE
        total = round(total_secs)
        with progress_bar(total=total, description="transcribe", unit="audio-s", quiet=quiet) as bar:

            def finish(index: int, pieces: Iterable[Piece]) -> None:
                words, alternatives = self._read(pieces)
                found[index] = Transcript(paths[index], words, num_samples[index] / SAMPLE_RATE, alternatives)

            for index in is_long:
                try:
                    blocks = _watched(self.stream_audio(paths[index]), bar)
                    finish(index, self.stream_log_probs(blocks))
                except (ValueError, OSError) as error:
                    fail(index, error)
            short = order[len(is_long) :]
            batches = (
                (batch, self._rows.submit([waveform for _, waveform in batch]))
                for batch in self._load_batches(short, paths, fail)
            )
            for batch, collect in _one_ahead(batches):
                for (index, waveform), log_probs in zip(batch, collect(), strict=True):
                    finish(index, [Piece(log_probs, 0)])
                    bar.update(len(waveform) / SAMPLE_RATE)
        return Summary(
            transcripts=tuple(found[index] for index in sorted(found)),
            failures=tuple((paths[index], failures[index]) for index in sorted(failures)),
            audio_secs=sum(transcript.duration_secs for transcript in found.values()),
            elapsed_secs=time.monotonic() - start_secs,
        )

    def _load_batches(
        self, order: Sequence[int], paths: Sequence[str], fail: Callable[[int, Exception], None]
    ) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Yields batches of (index, waveform as the model hears it); the next one is decoded while one runs."""

        def load(indices: Sequence[int]) -> list[tuple[int, np.ndarray | Exception]]:
            loaded: list[tuple[int, np.ndarray | Exception]] = []
            for index in indices:
                try:
                    waveform = np.concatenate([np.zeros(0, np.float32), *self.stream_audio(paths[index])])
                    loaded.append((index, self.normalize(waveform)))
                except (ValueError, OSError) as error:
                    loaded.append((index, error))
            return loaded

        batches = list(_batched(iter(order), self._batch_size))
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(load, batch) for batch in batches[:1]]
            for position in range(len(batches)):
                loaded = ahead.pop().result()
                if position + 1 < len(batches):
                    ahead.append(pool.submit(load, batches[position + 1]))
                batch = []
                for index, waveform in loaded:
                    if isinstance(waveform, Exception):
                        fail(index, waveform)
                    else:
                        batch.append((index, waveform))
                if batch:
                    yield batch


def _batched(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    batch: list[Any] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _one_ahead(items: Iterator[Any]) -> Iterator[Any]:
    """Yields items; each has been drawn while the one before was still in use."""
    held = next(items, None)
    for following in items:
        yield held
        held = following
    if held is not None:
        yield held


def _watched(blocks: Iterator[np.ndarray], bar: Any) -> Iterator[np.ndarray]:
    for block in blocks:
        yield block
        bar.update(len(block) / SAMPLE_RATE)
