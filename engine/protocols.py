"""Defines the types through which engine uses data and models."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jinja2
import numpy as np
import tensorflow as tf

Batch = dict[str, tf.Tensor]
"""Rows of one replica: waveform [B, T] f32, waveform_lengths [B], labels [B, L] i32, label_lengths [B],
weight [B] f32 (0 = padding row), utterance_index [B] i64."""


class InferenceModel(Protocol):
    """A network for inference: `AcousticModel`, or an exported model."""

    @property
    def max_training_samples(self) -> int:
        """Longest row, in samples; 0 = no limit."""

    def __call__(
        self, waveform: tf.Tensor, waveform_lengths: tf.Tensor, training: bool = False, random: Any = None
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V]."""

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns int32 [B], the valid frames of the logits."""


class AcousticModel(Protocol):
    """A network from waveforms to CTC logits whose rows do not influence each other."""

    trainable_variables: list[tf.Variable]
    variables: list[tf.Variable]

    @property
    def head_variables(self) -> list[tf.Variable]:
        """Variables that train while `freeze_encoder_updates` holds the others back."""

    @property
    def pretrained_variables(self) -> list[tf.Variable]:
        """Variables created with the values of a published model; empty if all start at random."""

    @property
    def adaptation_variables(self) -> list[tf.Variable]:
        """Variables of LoRA or bottleneck adapters, which other weights lack; read for a config that has them."""

    def merge_low_rank(self) -> None:
        """Adds LoRA's updates to the weights that they update, for inference; called for a config that has them."""

    @property
    def max_training_samples(self) -> int:
        """Longest row that can be trained on, in samples; 0 = no limit."""

    def fix_weights(self) -> None:
        """Prepares for inference with the current weights; later changes may have no effect. Not for export."""

    def make_random(self, *, seed: int, update: tf.Tensor, row_ids: tf.Tensor, num_views: int = 1) -> Any:
        """Returns the random numbers of one update, keyed by row and view; opaque to the engine."""

    def training_logits(
        self,
        waveform: tf.Tensor,
        waveform_lengths: tf.Tensor,
        *,
        random: Any,
        mask_time_factor: float = 1.0,
        layers: Sequence[int] = (),
    ) -> list[tf.Tensor]:
        """Returns float32 logits [num_views * B, F, V] of some layers, numbered from 1, and last those of the last one.

        The rows are the first views of all rows of the batch, then the second views. `mask_time_factor` says how many
        times as many time masks there are.
        """

    def explain_unsupported(self, *, num_views: int, layers: Sequence[int]) -> str:
        """Returns why `training_logits` cannot serve so many views and these layers; "" if it can."""

    def __call__(
        self, waveform: tf.Tensor, waveform_lengths: tf.Tensor, training: bool = False, random: Any = None
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V]."""

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns int32 [B], the valid frames of the logits."""


class Tokenizer(Protocol):
    """Converts between text and token ids."""

    @property
    def num_tokens(self) -> int:
        """Width of the logits."""

    @property
    def blank_id(self) -> int:
        """Id of the CTC blank."""

    @property
    def token_strings(self) -> Sequence[str]:
        """Text of each token: its characters, a space between words, "" for a special token.

        A space before other characters begins a word.
        """

    def encode(self, text: str) -> Sequence[int]:
        """Returns the ids of a normalized text."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of collapsed ids."""

    def save(self, path: str) -> None:
        """Writes vocab.json, and beside it what the names of its tokens do not tell."""


TokenSpan = tuple[int, int, int, float]
"""Token id, first frame of the token, first frame after it, mean probability over its frames."""

LossFn = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""(logits [B, F, V], logit_lengths [B], labels [B, L], label_lengths [B]) -> float32 [B]."""

FeasibleFn = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""(labels [B, L], label_lengths [B], logit_lengths [B]) -> bool [B], rows that CTC can align."""

Decoder = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(logits [B, F, V], logit_lengths [B]) -> tokens int32 [B, N] padded with -1, and their numbers int32 [B]."""

SpanDecoder = Callable[[np.ndarray], Sequence[TokenSpan]]
"""Log-probabilities of one recording, float32 [F, V] -> its tokens with their frames."""


class Alignment(Protocol):
    """The most likely path of a transcript through the frames."""

    @property
    def spans(self) -> Sequence[TokenSpan]:
        """A span for each token of the transcript."""

    @property
    def log_prob(self) -> float:
        """Log-probability of the path, in nats."""


Aligner = Callable[[np.ndarray, Sequence[int]], Alignment]
"""(log-probabilities of one recording, float32 [F, V]; token ids) -> Alignment; ValueError if they do not fit."""


class Hypothesis(Protocol):
    """A text found by a search."""

    @property
    def tokens(self) -> Sequence[int]:
        """Collapsed ids."""

    @property
    def score(self) -> float:
        """Score that hypotheses are ranked by, in nats."""


Search = Callable[[np.ndarray], Sequence[Hypothesis]]
"""Log-probabilities of one recording, float32 [F, V] -> hypotheses, best first, at least one."""


@runtime_checkable
class TunableSearch(Protocol):
    """A search that weighs a language model."""

    def __call__(self, log_probs: np.ndarray) -> Sequence[Hypothesis]:
        """Returns the hypotheses of a recording, like any `Search`."""

    def with_weights(self, *, lm_weight: float, word_score: float) -> TunableSearch:
        """Returns the same search with other weights."""


class DecodedBatch(Protocol):
    """Tokens with their frames, in the graph; left-aligned tensors [B, F]."""

    @property
    def tokens(self) -> tf.Tensor:
        """Token ids, int32, padded with -1."""

    @property
    def num_tokens(self) -> tf.Tensor:
        """Number of tokens of each row, int32 [B]."""

    @property
    def start_frames(self) -> tf.Tensor:
        """First frame of each token, int32."""

    @property
    def end_frames(self) -> tf.Tensor:
        """First frame after each token, int32."""

    @property
    def probs(self) -> tf.Tensor:
        """Mean probability of each token over its frames, float32."""


SpanGraphDecoder = Callable[[tf.Tensor, tf.Tensor], DecodedBatch]
"""(logits [B, F, V], logit_lengths [B]) -> the tokens of `Decoder` with their frames."""


class TrainData(Protocol):
    """One or several corpora for training."""

    updates_per_epoch: int
    num_utterances: int
    duration_secs: float  # of all utterances
    num_left_out: int  # utterances outside the allowed durations
    fingerprint: dict[str, Any]  # identifies the corpora independently of their place
    text_normalization: str  # as given, or chosen for the transcripts
    rows_per_epoch: int  # fewer than utterances with utterance concatenation
    row_secs: float  # length that 95 of 100 rows do not exceed

    @property
    def tokenizer(self) -> Tokenizer:
        """The given tokenizer, or the one built from the transcripts."""

    def unreadable(self, before_update: int) -> Sequence[tuple[int, str, str]]:
        """Returns (update, utterance id, reason) of each utterance that could not be read before an update."""

    def corpus_rows(self, num_updates: int) -> dict[str, int]:
        """Returns the rows of each corpus in the first updates of the run; {} for a single corpus."""

    def describe_corpora(self) -> list[str]:
        """Returns a log line about each corpus; [] for a single one."""

    def dataset(self, context: tf.distribute.InputContext, start_update: int) -> tf.data.Dataset:
        """Returns the endless replica batches of one input pipeline, starting with those of `start_update`."""

    def utterance_ids_of(self, update: int) -> list[str]:
        """Returns the ids of an update's rows over all replicas, without reading audio."""


class UnlabelledRecording(Protocol):
    """A recording without a transcript."""

    name: str  # for messages
    utterance_id: str  # unique within its corpus
    speaker_id: str  # "" if unknown
    reference: str  # normalized transcript, "" where there is none

    def count_samples(self, speed: float = 1.0) -> int:
        """Returns the number of samples at 16 kHz when played at a speed; ValueError for unusable recordings."""

    def stream(self, speed: float = 1.0) -> Iterator[np.ndarray]:
        """Yields blocks float32 [N] at 16 kHz, played at a speed; ValueError for unusable recordings."""

    def manifest_fields(
        self, output: str, start_secs: float, duration_secs: float | None, *, is_kept: bool = True
    ) -> dict[str, Any]:
        """Returns audio_filepath, duration and perhaps offset of a part in a manifest; None = the whole recording."""


class UnlabelledCorpus(Protocol):
    """Recordings without transcripts, in order."""

    def count(self) -> int:
        """Returns the number of rows."""

    def __iter__(self) -> Iterator[Any]:
        """Yields an `UnlabelledRecording` of each row; of a row without one its `name` and `reason`."""

    def with_versions(self) -> Iterator[tuple[Any, dict[str, Any]]]:
        """Yields each row with JSON values that differ if its recording, or its line in a list, has changed."""


class EvalData(Protocol):
    """A named evaluation set."""

    num_batches: int  # of one pass, on every replica
    utterance_ids: dict[int, str]  # utterance_index -> id of the row
    references: dict[int, str]  # utterance_index -> normalized transcript of the row
    texts: dict[int, str]  # utterance_index -> transcript as the corpus has it, of rows that are one utterance
    speaker_ids: dict[int, str]  # utterance_index -> speaker of the row, "" if unknown
    duration_secs: dict[int, float]  # utterance_index -> length of the row's audio
    slices: dict[int, dict[str, str]]  # utterance_index -> fields of the manifest that the report groups rows by
    digest: str  # of the ids, lengths and references of the rows

    def dataset(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns the replica batches of one pass of one input pipeline."""

    def references_in(self, style: str) -> dict[int, str]:
        """Returns utterance_index -> transcript of the row as a style of text normalization writes it."""

    def read_flac(self, index: int) -> bytes:
        """Returns the audio of the row with an utterance_index as a FLAC file at 16 kHz."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Components:
    """The callables of data and models that an experiment is built from; run.py passes them in.

    `loss_fn`, the decoders, `aligner` and `build_search` take the keyword `blank_id` (default 0), which
    `engine.config.builders.with_blank` binds. `loss_fn` takes `backend` too, a value of runtime.ctc_backend.

    Attributes:
        build_tokenizer: (path of a vocab.json, "" = the default vocabulary) -> Tokenizer.
        build_train_data: keyword arguments -> TrainData.
        build_eval_data: keyword arguments -> EvalData.
        find_architecture: (preset, init, run) -> fields of the architecture, {} if the preset names it.
        build_model: keyword arguments -> AcousticModel.
        count_samples: path -> number of samples at 16 kHz, from the header.
        stream_audio: (path, on_rate_mismatch) -> blocks float32 [N] of the recording at 16 kHz.
        normalize_waveform: float32 [T] -> the same with zero mean and unit variance, for models that expect it.
        find_reference: (path, text_normalization) -> the normalized transcript beside a file, or None.
        normalize_text: (text, style) -> the text as the style of text normalization writes it.
        loss_fn: Loss of each row.
        feasible_fn: Rows that can have a loss.
        decoder: Logits to tokens, in the graph.
        span_decoder: Log-probabilities to tokens with their frames, on the host.
        span_graph_decoder: Logits to tokens with their frames, in the graph.
        aligner: Log-probabilities and a transcript to the frames of each token.
        build_search: (fields of config.decode, token_strings of the tokenizer) -> Search, None for greedy decoding.
            Raises ValueError.
        page_environment: folder of templates -> environment that renders them in the frame that all pages share.
        preflight: keyword arguments -> None. Raises ValueError if the data would spoil the run.
        open_unlabelled: (inputs, find_audio, text_normalization, on_rate_mismatch) -> UnlabelledCorpus.
        fetch_weights: name of published weights -> local folder; a path -> itself. Raises ValueError and OSError.
        word_aligner: (log-probabilities, token ids of each word, separators=...) -> the frames of each that was said.
        encode_flac: float32 [N] at 16 kHz -> a FLAC file.
    """

    build_tokenizer: Callable[[str], Tokenizer]
    build_train_data: Callable[..., TrainData]
    build_eval_data: Callable[..., EvalData]
    find_architecture: Callable[..., dict[str, Any]]
    build_model: Callable[..., AcousticModel]
    count_samples: Callable[[str], int]
    stream_audio: Callable[..., Iterator[np.ndarray]]
    normalize_waveform: Callable[[np.ndarray], np.ndarray]
    find_reference: Callable[..., str | None]
    loss_fn: LossFn
    feasible_fn: FeasibleFn
    decoder: Decoder
    span_decoder: SpanDecoder
    span_graph_decoder: SpanGraphDecoder
    aligner: Aligner
    page_environment: Callable[[str | os.PathLike[str]], jinja2.Environment]
    build_search: Callable[..., Search | None] = lambda **fields: None
    preflight: Callable[..., Any] = lambda **fields: None
    normalize_text: Callable[[str, str], str] = lambda text, style: text
    open_unlabelled: Callable[..., Any] = lambda inputs, **fields: None
    fetch_weights: Callable[[str], str] = lambda path: path
    word_aligner: Callable[..., Any] = lambda log_probs, words, **options: None
    encode_flac: Callable[[np.ndarray], bytes] = lambda waveform: b""
