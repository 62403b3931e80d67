"""Transcribes recordings of any length to text with times, in constant memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from common.whole_compilation import compile_whole
from engine.common.progress import progress_bar
from engine.inference.beam_search import Alternative, BeamSearchDecoder
from engine.inference.grouping import ON_REPLICAS, Grouping, in_few_shapes, suitable_grouping
from engine.inference.replicas import ReplicaStep
from engine.inference.row_runner import RowRunner, Step
from engine.inference.windows import LogitsChunk, Window, cut_windows, join_windows, measure_hop
from engine.inference.words import Timed, find_words, text_confidence
from engine.protocols import InferenceModel, SpanDecoder, Tokenizer, TokenSpan

SAMPLE_RATE = 16_000


@dataclasses.dataclass(frozen=True)
class Transcript:
    """The transcript of one recording.

    Attributes:
        path: Path of the recording.
        words: Words in order, with times.
        duration_secs: Duration of the recording, in seconds.
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
        return text_confidence(self.words)


@dataclasses.dataclass(frozen=True)
class Summary:
    """The results of `transcribe_files`.

    Attributes:
        transcripts: Transcripts in the order of the paths.
        failures: (path, reason) of each file that could not be transcribed.
        audio_secs: Duration of the transcribed audio, in seconds.
        elapsed_secs: Time from the first file to the last, in seconds.
    """

    transcripts: tuple[Transcript, ...]
    failures: tuple[tuple[str, str], ...]
    audio_secs: float
    elapsed_secs: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranscriberOptions:
    """Options of `Transcriber`.

    Attributes:
        batch_size: Number of rows that run together.
        window_secs: Longest row, in seconds; longer recordings are cut into windows of this length.
        overlap_secs: Overlap of consecutive windows, in seconds.
        cut_note: Line for the log when the first recording is cut into windows; "" = none.
        grouping: Groups of a batch that are padded together; None = suitable for the device.
        strategy: The strategy in whose scope the model was built, if several replicas share a batch.
        jit_compile: Whether XLA compiles the step as a whole; batches then have one of four shapes.
    """

    batch_size: int = 8
    window_secs: float = 30.0
    overlap_secs: float = 5.0
    cut_note: str = ""
    grouping: Grouping | None = None
    strategy: tf.distribute.Strategy | None = None
    jit_compile: bool = False


class Transcriber:
    """Transcribes short recordings in batches and long ones window by window, in constant memory.

        transcriber = load_transcriber(parts=parts, checkpoint="runs/base")
        for transcript in transcriber.transcribe_files(["a.wav", "b.flac"]).transcripts:
            print(transcript.path, transcript.text)

    Attributes:
        model: Computes the logits.
        tokenizer: Tokenizer of the model.
        find_reference: path -> the transcript beside the file, or None.
        count_samples: path -> number of samples at 16 kHz.
        stream_audio: path -> blocks float32 [N] of the recording at 16 kHz.
        geometry: Receptive field of a frame and hop between frames, in samples.
        normalize: Prepares a recording, or a window of a long one, for the model: float32 [T] -> float32 [T].
        normalizes: Whether `normalize` gives zero mean and unit variance; otherwise it changes nothing.
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
        find_reference: Callable[..., str | None] = lambda path, **options: None,
        beam_search: BeamSearchDecoder | None = None,
        options: TranscriberOptions = TranscriberOptions(),
    ) -> None:
        """Prepares the step.

        Args:
            model: Model with its weights.
            span_decoder: Log-probabilities to tokens with frames.
            tokenizer: Tokenizer of the model.
            count_samples: path -> number of samples at 16 kHz, from the header; raises ValueError for unusable files.
            stream_audio: path -> blocks float32 [N] at 16 kHz; raises ValueError for unusable files.
            normalize_waveform: Normalizes a recording, or a window of a long one; None if the model expects them as
                they are.
            find_reference: path -> the transcript beside the file, or None.
            beam_search: Decoder to use instead of `span_decoder`.
            options: Batch, windows and grouping.
        """
        self.model = model
        self.tokenizer = tokenizer
        self.find_reference = find_reference
        self._span_decoder = span_decoder
        self._beam_search = beam_search
        self.count_samples = count_samples
        self.stream_audio = stream_audio
        self.normalizes = normalize_waveform is not None
        self.normalize = normalize_waveform or np.asarray
        self._batch_size = options.batch_size
        self._cut_note = options.cut_note
        self.geometry = measure_hop(lambda lengths: model.output_lengths(tf.constant(lengths)).numpy())
        receptive_field, self._hop = self.geometry
        self._window_samples = round(options.window_secs * SAMPLE_RATE)
        if model.max_training_samples:
            self._window_samples = min(self._window_samples, model.max_training_samples)
        self._window_samples = max(self._window_samples, receptive_field + 3 * self._hop)
        overlap_samples = min(round(options.overlap_secs * SAMPLE_RATE), self._window_samples // 2)
        self._step_samples = (self._window_samples - overlap_samples) // self._hop * self._hop
        grouping = options.grouping or suitable_grouping()
        any_shape = {"input_signature": [tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)]}
        step: Step
        if options.strategy is not None and options.strategy.num_replicas_in_sync > 1:
            # Each batch goes to all replicas, of which groups of a few rows would leave some idle.
            grouping = options.grouping or ON_REPLICAS
            compute = compile_whole(self._log_probs, **any_shape) if options.jit_compile else self._log_probs
            # Called by an ordinary function: a strategy would compile all replicas together.
            step = ReplicaStep(lambda waveforms, lengths: compute(waveforms, lengths), options.strategy)
        elif options.jit_compile:
            # Traced for each of its few shapes, which attention's GPU kernels must know.
            step = compile_whole(self._log_probs)
        else:
            step = tf.function(self._log_probs, autograph=False, **any_shape)
        if options.jit_compile:
            grouping = in_few_shapes(grouping, longest=self._window_samples, num_rows=options.batch_size)
        self._rows = RowRunner(step, grouping)

    @property
    def secs_per_frame(self) -> float:
        """Hop between frames, in seconds."""
        return self._hop / SAMPLE_RATE

    def _log_probs(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self.model(waveform, lengths, training=False)
        return tf.nn.log_softmax(tf.cast(logits, tf.float32)), self.model.output_lengths(lengths)

    def log_probs(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns log-probabilities float32 [F, V] of each normalized waveform [T]."""
        return self._rows.submit(waveforms)()

    def stream_log_probs(self, blocks: Iterable[np.ndarray]) -> Iterator[LogitsChunk]:
        """Yields the log-probabilities of a recording of any length.

        If the model expects normalized input, a recording of one window is normalized as a whole, and each window of a
        longer one by itself, so that the rest need not be known.

        Args:
            blocks: Consecutive blocks of the recording, float32 [N].
        """
        windows = cut_windows(
            blocks,
            window_samples=self._window_samples,
            step_samples=self._step_samples,
            hop_samples=self._hop,
        )
        return join_windows(self._run_windows(self._log_cut(windows)), blank_id=self.tokenizer.blank_id)

    def _log_cut(self, windows: Iterator[Window]) -> Iterator[Window]:
        """Yields windows; logs the note once, at the first recording that has a second one."""
        for window in windows:
            if self._cut_note and window.start_frame:
                logging.info("%s", self._cut_note)
                self._cut_note = ""
            yield window

    def _run_windows(self, windows: Iterator[Window]) -> Iterator[LogitsChunk]:
        batches = (
            (batch, self._rows.submit([self.normalize(window.waveform) for window in batch]))
            for batch in _batched(windows, self._batch_size)
        )
        for batch, collect in _one_ahead(batches):
            for window, log_probs in zip(batch, collect(), strict=True):
                yield LogitsChunk(log_probs, window.start_frame)

    def find_words(self, chunks: Iterable[LogitsChunk]) -> tuple[Timed, ...]:
        """Decodes the consecutive chunks of a recording to words."""
        return self._decode(chunks)[0]

    def text_of(self, chunks: Iterable[LogitsChunk]) -> str:
        """Decodes the consecutive chunks of a recording to a text."""
        return " ".join(word.text for word in self.find_words(chunks))

    def text_of_log_probs(self, log_probs: np.ndarray) -> str:
        """Decodes the log-probabilities of a whole recording, float32 [F, V], to a text."""
        return self.text_of([LogitsChunk(log_probs, 0)])

    def _decode(self, chunks: Iterable[LogitsChunk]) -> tuple[tuple[Timed, ...], tuple[Alternative, ...]]:
        if self._beam_search is not None:
            return self._beam_search.decode(chunks, secs_per_frame=self.secs_per_frame)
        spans: list[TokenSpan] = []
        for chunk in chunks:
            for token, start, end, prob in self._span_decoder(chunk.log_probs):
                first, last = start + chunk.start_frame, end + chunk.start_frame
                if start == 0 and spans and (spans[-1][0], spans[-1][2]) == (token, first):
                    # Two windows were joined within this token: each has found a part of it.
                    _, first, middle, other = spans.pop()
                    prob = (other * (middle - first) + prob * (last - middle)) / (last - first)
                spans.append((token, first, last, prob))
        return tuple(find_words(spans, self.tokenizer, self.secs_per_frame)), ()

    @property
    def window_secs(self) -> float:
        """Longest row, in seconds; longer recordings are cut into windows."""
        return self._window_samples / SAMPLE_RATE

    def transcribe_files(
        self,
        paths: Sequence[Any],
        *,
        quiet: bool = False,
        on_done: Callable[[Sequence[Transcript]], None] = lambda transcripts: None,
    ) -> Summary:
        """Transcribes files, those of similar length together.

        A file that cannot be read is reported in the log and in the summary; the others are transcribed.

        Args:
            paths: Paths of audio files, or whatever `count_samples` and `stream_audio` take in their place.
            quiet: Whether to show neither progress nor errors.
            on_done: Gets the transcripts as they are finished, those of a batch together; what it raises ends the work.
        """
        start_secs = time.monotonic()
        failures: dict[int, str] = {}
        found: dict[int, Transcript] = {}

        def fail(index: int, error: Exception) -> None:
            if not quiet:
                logging.error("%s is skipped: %s", paths[index], error)
            failures[index] = str(error)

        def finish(index: int, chunks: Iterable[LogitsChunk]) -> None:
            words, alternatives = self._decode(chunks)
            found[index] = Transcript(paths[index], words, num_samples[index] / SAMPLE_RATE, alternatives)

        num_samples = self._count_all(paths, fail)
        # Longest first: a batch that does not fit into memory fails at once, and the speed only rises.
        order = sorted(num_samples, key=lambda index: -num_samples[index])
        num_long = sum(count > self._window_samples for count in num_samples.values())
        total = round(sum(num_samples.values()) / SAMPLE_RATE)
        with progress_bar(total=total, description="transcribe", unit="audio-s", quiet=quiet) as bar:
            for index in order[:num_long]:
                try:
                    blocks = _watched(self.stream_audio(paths[index]), bar)
                    finish(index, self.stream_log_probs(blocks))
                except (ValueError, OSError) as error:
                    fail(index, error)
                else:
                    on_done([found[index]])
            batches = (
                (batch, self._rows.submit([waveform for _, waveform in batch]))
                for batch in self._load_batches(order[num_long:], paths, fail)
            )
            for batch, collect in _one_ahead(batches):
                for (index, waveform), log_probs in zip(batch, collect(), strict=True):
                    finish(index, [LogitsChunk(log_probs, 0)])
                    bar.update(len(waveform) / SAMPLE_RATE)
                on_done([found[index] for index, _ in batch])
        return Summary(
            transcripts=tuple(found[index] for index in sorted(found)),
            failures=tuple((paths[index], failures[index]) for index in sorted(failures)),
            audio_secs=sum(transcript.duration_secs for transcript in found.values()),
            elapsed_secs=time.monotonic() - start_secs,
        )

    def _count_all(self, paths: Sequence[Any], fail: Callable[[int, Exception], None]) -> dict[int, int]:
        """Returns the number of samples by the index of the path."""
        found = {}
        for index, path in enumerate(paths):
            try:
                found[index] = self.count_samples(path)
            except (ValueError, OSError) as error:
                fail(index, error)
        return found

    def _load_batches(
        self, order: Sequence[int], paths: Sequence[str], fail: Callable[[int, Exception], None]
    ) -> Iterator[list[tuple[int, np.ndarray]]]:
        """Yields batches of (index, normalized waveform); the next batch is decoded while one runs."""

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
    """Yields items; draws each one while the previous one is still in use."""
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
