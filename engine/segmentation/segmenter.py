"""Aligns a long recording with a transcript that is not exactly what was said, in constant memory."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from common.spacing import split_unspaced, unspaced_length
from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.inference.windows import LogitsChunk
from engine.inference.words import Timed, find_words, mean_confidence
from engine.protocols import TokenSpan
from engine.segmentation.anchors import Part, divide, split_letters
from engine.segmentation.cuts import Cut, CutOptions, cut

# (log-probabilities [F, V], token ids of each word, separators=...) -> an object with `words` and `unknown_frames`.
WordAligner = Callable[..., Any]
_PART_SECS = 20.0
# Frames and labels of a part that are aligned at once; of a larger part nothing is known.
_MAX_PART_STATES = 200_000_000


@dataclasses.dataclass(frozen=True)
class Segmented:
    """A recording that was cut.

    Attributes:
        path: The recording.
        duration_secs: Its duration, in seconds.
        cuts: Utterances and what is left out, in order of time.
        num_words: Words of its transcript.
        separator: What stands between two words; "" if the language is written without spaces: then each letter counts
            as a word, and one with a space before it begins with the space.
    """

    path: str
    duration_secs: float
    cuts: list[Cut]
    num_words: int
    separator: str


def segment_file(
    transcriber: Transcriber,
    aligner: WordAligner,
    path: str,
    text: str,
    *,
    options: CutOptions,
    watch: Callable[[float], None] = lambda secs: None,
) -> Segmented:
    """Cuts a recording into utterances.

    The model hears the recording window by window, and what it hears is compared with the transcript letter by letter.
    Within runs of equal letters the recording is divided into parts of some twenty seconds, each of which is aligned.
    The log-probabilities wait for that in a temporary file.

    Args:
        transcriber: Computes the log-probabilities.
        aligner: Aligns the words of a part.
        path: The recording.
        text: Its transcript, normalized.
        options: How to cut.
        watch: Called with the seconds of audio that were read.

    Raises:
        ValueError: The recording cannot be read.
    """
    separator = "" if unspaced_length([text]) else " "
    words = text.split() if separator else split_unspaced(text)
    num_samples = 0

    def count(blocks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        nonlocal num_samples
        for block in blocks:
            num_samples += len(block)
            yield block
            watch(len(block) / SAMPLE_RATE)

    with tempfile.TemporaryFile() as file:
        chunks = transcriber.stream_log_probs(count(transcriber.stream_audio(path)))
        kept = _Kept(file)
        heard = split_letters(transcriber.find_words(kept.keep(chunks)))
        if not kept.num_frames:
            raise ValueError(f"{path} is too short for one frame")
        times: list[Timed | None] = []
        unknown: list[int] = []
        frame = transcriber.secs_per_frame
        part_frames = round(_PART_SECS / frame)
        for part in divide(heard, words, num_frames=kept.num_frames, part_frames=part_frames, secs_per_frame=frame):
            of_words, before = _align_part(transcriber, aligner, kept, part, words[part.first_word : part.last_word])
            times += of_words
            # What is unknown at a joint lies before the next word.
            carried = unknown.pop() if unknown else 0
            unknown += [before[0] + carried, *before[1:]]
    duration_secs = num_samples / SAMPLE_RATE
    cuts = cut(list(zip(words, times, strict=True)), unknown, duration_secs=duration_secs, options=options)
    return Segmented(path, duration_secs, cuts, len(words), separator)


def _align_part(
    transcriber: Transcriber, aligner: WordAligner, kept: _Kept, part: Part, words: Sequence[str]
) -> tuple[list[Timed | None], list[int]]:
    """Returns the time of each word of a part, and the frames of unknown speech before each and after the last."""
    tokenizer = transcriber.tokenizer
    encoded = [list(tokenizer.encode(word.strip())) for word in words]
    num_frames = part.end_frame - part.start_frame
    # A word without a token, such as one of letters that the model does not know, cannot be found.
    known = [position for position, tokens in enumerate(encoded) if tokens]
    if num_frames * (2 * sum(map(len, encoded)) + 1) > _MAX_PART_STATES:
        return [None] * len(words), [*[0] * len(words), num_frames]
    log_probs = kept.read(part.start_frame, part.end_frame)
    separators = [token for token, string in enumerate(tokenizer.token_strings) if string.isspace()]
    found = aligner(log_probs, [encoded[position] for position in known], separators=separators)
    times: list[Timed | None] = [None] * len(words)
    unknown = [0] * (len(words) + 1)
    for position, spans, num_unknown in zip(known, found.words, found.unknown_frames, strict=False):
        unknown[position] = num_unknown
        times[position] = _timed(words[position], spans or (), transcriber, first_frame=part.start_frame)
    unknown[-1] = found.unknown_frames[-1]
    return times, unknown


def _timed(word: str, spans: Sequence[TokenSpan], transcriber: Transcriber, *, first_frame: int) -> Timed | None:
    """Returns a word of the transcript with the times of its tokens; None if it was not said.

    Args:
        word: The word.
        spans: Its tokens with their frames, counted from `first_frame`; none if it was not said.
        transcriber: Has the tokenizer, and the hop between frames.
        first_frame: A frame of the recording.
    """
    moved = [(token, start + first_frame, end + first_frame, prob) for token, start, end, prob in spans]
    found = find_words(moved, transcriber.tokenizer, transcriber.secs_per_frame)
    # The tokens of letters that the model does not know have no text.
    characters = tuple(character for one in found for character in one.characters)
    if not characters:
        return None
    start_secs, end_secs = characters[0].start_secs, characters[-1].end_secs
    return Timed(word, start_secs, end_secs, mean_confidence(characters), characters)


class _Kept:
    """Log-probabilities of a recording in a file, as float16."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._num_tokens = 0
        self.num_frames = 0

    def keep(self, chunks: Iterable[LogitsChunk]) -> Iterator[LogitsChunk]:
        """Yields the chunks and writes them."""
        for chunk in chunks:
            self._num_tokens = chunk.log_probs.shape[1]
            self._file.write(np.maximum(chunk.log_probs, -6e4).astype(np.float16).tobytes())
            self.num_frames += len(chunk.log_probs)
            yield chunk

    def read(self, start_frame: int, end_frame: int) -> np.ndarray:
        """Returns frames as float32 [F, V]."""
        width = 2 * self._num_tokens
        self._file.seek(start_frame * width)
        data = self._file.read((end_frame - start_frame) * width)
        return np.frombuffer(data, np.float16).reshape(-1, self._num_tokens).astype(np.float32)
