"""Audio files to text with a trained model."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from engine import files
from engine.progress import progress_bar
from engine.protocols import AcousticModel, Decoder, Tokenizer

SAMPLE_RATE = 16_000
AUDIO_EXTENSIONS = (".flac", ".wav", ".ogg", ".mp3")
# Padding to a multiple of this keeps the number of shapes, and so of internal plans and buffers, small.
_PADDING_SAMPLES = SAMPLE_RATE


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a transcription did.

    Attributes:
        records: One for each transcribed file: audio_filepath, text, duration (s), and reference where one was found.
        failures: (path, reason) of each file that was not.
        audio_secs: Duration of the transcribed audio.
        elapsed_secs: Time from the first file to the last.
    """

    records: tuple[dict[str, Any], ...]
    failures: tuple[tuple[str, str], ...]
    audio_secs: float
    elapsed_secs: float


def find_audio(inputs: Sequence[str]) -> list[str]:
    """Returns the audio files among `inputs`, folders searched to the bottom, in order and each once.

    Raises:
        ValueError: If a path does not exist, or a folder holds no audio.
    """
    found: dict[str, None] = {}
    for path in inputs:
        if os.path.isdir(path):
            inside = sorted(
                os.path.join(folder, name)
                for folder, _, names in os.walk(path)
                for name in names
                if name.lower().endswith(AUDIO_EXTENSIONS)
            )
            if not inside:
                raise ValueError(f"{path}: no {', '.join(AUDIO_EXTENSIONS)} file in this folder")
            found.update(dict.fromkeys(inside))
        elif os.path.exists(path):
            found[path] = None
        else:
            raise ValueError(f"{path}: no such file or folder; give audio files or folders to --inputs")
    if not found:
        raise ValueError("--inputs is empty: give audio files or folders, separated by commas")
    return list(found)


class Transcriber:
    """Transcribes files one batch at a time."""

    def __init__(
        self,
        *,
        model: AcousticModel,
        decoder: Decoder,
        tokenizer: Tokenizer,
        load_waveform: Callable[[str], np.ndarray],
        find_reference: Callable[[str], str | None] = lambda path: None,
        batch_size: int = 8,
    ) -> None:
        """Prepares the step.

        Args:
            model: With its weights.
            decoder: Logits to tokens.
            tokenizer: Tokens to text.
            load_waveform: Path -> normalized float32 [T] at 16 kHz; raises ValueError for files it cannot use.
            find_reference: Path -> the transcript beside the file, or None.
            batch_size: Files decoded together.
        """
        self._find_reference = find_reference
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._load_waveform = load_waveform
        self._batch_size = batch_size
        self._model = model
        self._step = tf.function(
            self._decode,
            input_signature=[tf.TensorSpec([None, None], tf.float32), tf.TensorSpec([None], tf.int32)],
        )

    def _decode(self, waveform: tf.Tensor, lengths: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        logits = self._model(waveform, lengths, training=False)
        return self._decoder(logits, self._model.output_lengths(lengths))

    def transcribe_waveforms(self, waveforms: Sequence[np.ndarray]) -> list[str]:
        """Returns the text of each waveform [T]; they run as one batch."""
        lengths = np.array([len(waveform) for waveform in waveforms], np.int32)
        width = -(-int(lengths.max()) // _PADDING_SAMPLES) * _PADDING_SAMPLES
        padded = np.zeros([len(waveforms), width], np.float32)
        for row, waveform in enumerate(waveforms):
            padded[row, : len(waveform)] = waveform
        tokens, num_tokens = self._step(padded, lengths)
        return [
            self._tokenizer.decode(row[:count].tolist())
            for row, count in zip(tokens.numpy(), num_tokens.numpy(), strict=True)
        ]

    def transcribe_files(self, paths: Sequence[str], output: str) -> Summary:
        """Writes one JSON object a file to `output`, in the order of `paths`; see `Summary.records`.

        A file that cannot be read is named in the log and in the summary, and left out of the output; the others are
        done all the same.

        Args:
            paths: Audio files.
            output: JSON-lines file.
        """
        start_secs = time.monotonic()
        records: list[dict[str, Any]] = []
        failures: list[tuple[str, str]] = []
        with progress_bar(total=len(paths), description="transcribe", unit="file") as bar:
            for batch in self._batches(paths, failures, bar):
                texts = self.transcribe_waveforms([waveform for _, waveform in batch])
                for (path, waveform), text in zip(batch, texts, strict=True):
                    duration = round(len(waveform) / SAMPLE_RATE, 4)
                    record = {"audio_filepath": path, "text": text, "duration": duration}
                    reference = self._find_reference(path)
                    records.append(record if reference is None else {**record, "reference": reference})
        files.write_jsonl_atomic(output, records)
        return Summary(
            records=tuple(records),
            failures=tuple(failures),
            audio_secs=sum(record["duration"] for record in records),
            elapsed_secs=time.monotonic() - start_secs,
        )

    def _batches(
        self, paths: Sequence[str], failures: list[tuple[str, str]], bar: Any
    ) -> Iterator[list[tuple[str, np.ndarray]]]:
        batch: list[tuple[str, np.ndarray]] = []
        for path in paths:
            try:
                batch.append((path, self._load_waveform(path)))
            except (ValueError, OSError) as error:
                logging.error("%s is skipped: %s", path, error)
                failures.append((path, str(error)))
            bar.update(1)
            if len(batch) == self._batch_size:
                yield batch
                batch = []
        if batch:
            yield batch
