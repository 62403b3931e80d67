"""What the engine asks of data and models: it knows them only through these types."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jinja2
import numpy as np
import tensorflow as tf

Batch = dict[str, tf.Tensor]
"""The rows of one replica: waveform [B, T] f32, waveform_lengths [B], labels [B, L] i32, label_lengths [B],
weight [B] f32 (0 = padding row), utterance_index [B] i64."""


class InferenceModel(Protocol):
    """What reading needs of a network: `AcousticModel`, or one that was exported."""

    @property
    def max_training_samples(self) -> int:
        """Longest row that it computes in one piece, in samples; 0 = any."""

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
        """Variables that were born with the values of a published model; empty where all start at random."""

    @property
    def max_training_samples(self) -> int:
        """Longest row that can be trained on, in samples; 0 = any."""

    def fix_weights(self) -> None:
        """Prepares for inference with the weights as they are now: later ones need not be seen. Not for export."""

    def make_random(self, *, seed: int, update: tf.Tensor, row_ids: tf.Tensor) -> Any:
        """Returns the random numbers of one update, keyed by row (opaque to the engine)."""

    def __call__(
        self, waveform: tf.Tensor, waveform_lengths: tf.Tensor, training: bool = False, random: Any = None
    ) -> tf.Tensor:
        """Returns float32 logits [B, F, V]."""

    def output_lengths(self, waveform_lengths: tf.Tensor) -> tf.Tensor:
        """Returns int32 [B], the valid frames of the logits."""


class Tokenizer(Protocol):
    """Token ids to text."""

    @property
    def num_tokens(self) -> int:
        """Width of the logits."""

    @property
    def blank_id(self) -> int:
        """Id of the CTC blank."""

    @property
    def pieces(self) -> Sequence[str]:
        """What each token says: its characters, a space between words, "" for a special token."""

    def encode(self, text: str) -> Sequence[int]:
        """Returns the ids of a normalized text."""

    def decode(self, ids: Iterable[int]) -> str:
        """Returns the text of collapsed ids."""

    def save(self, path: str) -> None:
        """Writes vocab.json, and beside it what tells the roles of its tokens where their names do not."""


TokenSpan = tuple[int, int, int, float]
"""A token id, the first frame that says it, the first frame after it, its mean probability over them."""

LossFn = Callable[[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""(logits [B, F, V], logit_lengths [B], labels [B, L], label_lengths [B]) -> float32 [B]."""

FeasibleFn = Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]
"""(labels [B, L], label_lengths [B], logit_lengths [B]) -> bool [B]: rows that CTC can align."""

Decoder = Callable[[tf.Tensor, tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(logits [B, F, V], logit_lengths [B]) -> tokens int32 [B, N] filled up with -1, and their numbers int32 [B]."""


SpanDecoder = Callable[[np.ndarray], Sequence[TokenSpan]]
"""Log-softmax of one recording's logits, float32 [F, V] -> its tokens with their frames."""


class Alignment(Protocol):
    """The likeliest path of a transcript through the frames."""

    @property
    def spans(self) -> Sequence[TokenSpan]:
        """One for each token of the transcript."""

    @property
    def log_prob(self) -> float:
        """Of the path, in nats."""


Aligner = Callable[[np.ndarray, Sequence[int]], Alignment]
"""(log-softmax of one recording's logits, float32 [F, V]; token ids) -> Alignment; ValueError where they do not fit."""


class Hypothesis(Protocol):
    """One text that a search found."""

    @property
    def tokens(self) -> Sequence[int]:
        """Collapsed ids."""

    @property
    def score(self) -> float:
        """What it is ranked by, in nats."""


Search = Callable[[np.ndarray], Sequence[Hypothesis]]
"""Log-softmax of one recording's logits, float32 [F, V] -> hypotheses, best first, at least one."""


@runtime_checkable
class TunableSearch(Protocol):
    """A search that weighs a language model."""

    def __call__(self, log_probs: np.ndarray) -> Sequence[Hypothesis]:
        """See `Search`."""

    def with_weights(self, *, lm_weight: float, word_score: float) -> TunableSearch:
        """Returns the same search with other weights."""


class DecodedBatch(Protocol):
    """Tokens with their frames, in the graph; [B, F], left-aligned."""

    @property
    def tokens(self) -> tf.Tensor:
        """int32, filled up with -1."""

    @property
    def num_tokens(self) -> tf.Tensor:
        """int32 [B]."""

    @property
    def start_frames(self) -> tf.Tensor:
        """int32, the first frame of each token."""

    @property
    def end_frames(self) -> tf.Tensor:
        """int32, the first frame after it."""

    @property
    def probs(self) -> tf.Tensor:
        """float32, its mean probability over them."""


SpanGraphDecoder = Callable[[tf.Tensor, tf.Tensor], DecodedBatch]
"""(logits [B, F, V], logit_lengths [B]) -> the tokens of `Decoder`, with their frames."""


class TrainData(Protocol):
    """The training side of a corpus."""

    updates_per_epoch: int  # updates that see every utterance once
    num_utterances: int
    duration_secs: float  # of all utterances
    num_left_out: int  # utterances outside the allowed durations
    fingerprint: dict[str, int | str]  # what tells this corpus from another, wherever it lies
    text_style: str  # as given, or chosen for the transcripts
    rows_per_epoch: int  # rows that are trained on in one epoch; fewer than utterances where these are joined

    @property
    def tokenizer(self) -> Tokenizer:
        """Returns the tokenizer as given, or the one that was made of the transcripts."""

    def unreadable(self, before_update: int) -> Sequence[tuple[int, str, str]]:
        """Returns (update, utterance id, reason) of each utterance that updates before one could not read."""

    def dataset(self, context: tf.distribute.InputContext, start_update: int) -> tf.data.Dataset:
        """Returns the endless replica batches of one input pipeline; the first belongs to `start_update`."""

    def utterance_ids_of(self, update: int) -> list[str]:
        """Returns the ids of an update's rows, over all replicas, without reading any audio."""


class EvalData(Protocol):
    """One named evaluation set."""

    num_batches: int  # of one pass; every replica gets as many
    utterance_ids: dict[int, str]  # utterance_index -> id of the row
    references: dict[int, str]  # utterance_index -> normalized transcript of the row
    speaker_ids: dict[int, str]  # utterance_index -> speaker of the row, "" where nobody knows
    duration_secs: dict[int, float]  # utterance_index -> length of the row's audio
    digest: str  # what tells this set from another of the same name: ids, lengths and references of its rows

    def dataset(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns the replica batches of one pass of one input pipeline."""

    def read_flac(self, index: int) -> bytes:
        """Returns the audio of the row with an utterance_index as a FLAC file at 16 kHz, for a browser."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parts:
    """The callables of data and models that an experiment is put together from (run.py fills this in).

    Attributes:
        build_tokenizer: (path of a vocab.json, "" = the default vocabulary) -> Tokenizer.
        build_train_data: keyword arguments -> TrainData.
        build_eval_data: keyword arguments -> EvalData.
        find_architecture: (preset, init, run) -> fields of the architecture, {} where the preset names it.
        build_model: keyword arguments -> AcousticModel.
        count_samples: path -> samples at 16 kHz, from the header.
        stream_audio: (path, on_rate_mismatch) -> float32 [N] after float32 [N], the recording piece by piece at 16 kHz.
        normalize_waveform: float32 [T] -> the same with zero mean and unit variance; for models that hear it so.
        find_reference: (path, text_style) -> the normalized transcript that lies beside a file, or None.
        loss_fn: The loss of each row; it, the decoders, the aligner and the search take the keyword `blank_id`, which
            `engine.config.builders.with_blank` binds, and which is 0 where nobody gives it.
        feasible_fn: Which rows can have a loss.
        decoder: Logits to tokens.
        span_decoder: The same on the host, with the frames of each token.
        span_graph_decoder: The same in the graph.
        aligner: A given transcript to the frames of each token.
        build_search: The fields of config.decode and the tokenizer's pieces -> Search; None where greedy decoding is
            asked for. Raises ValueError.
        page_environment: Folder of templates -> what renders them in the frame that our pages share.
        preflight: keyword arguments -> None; raises ValueError where the data would spoil the run.
        fetch_weights: the name of published weights -> a local folder of them; a path -> itself. Raises ValueError and
            OSError.
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
    fetch_weights: Callable[[str], str] = lambda path: path
