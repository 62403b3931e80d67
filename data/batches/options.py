"""Options of training and evaluation data, as the fields of config.data, config.train and config.eval."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Place of a corpus and options of its batches; configs/base.py has the default values.

    Values given here only switch a feature off.

    Attributes:
        format: One of `data.open_corpus.FORMATS`.
        input: Folder or manifest, as the format wants it.
        split: Part of the corpus; "" = all.
        text_column: Key or column of the transcripts; "" = the known ones.
        speakers: Speakers to keep; empty = all.
        exclude_speakers: Speakers to drop.
        held_out_ratio: Ratio of the utterances, by whole speakers where there are several, that training leaves out and
            an evaluation set with the same ratio has; 0 = none.
        on_rate_mismatch: "resample" to 16 kHz, or "refuse".
        text_normalization: Style of `data.text.normalization.normalize_transcript`; for training also
            "auto", which chooses it.
        num_buckets: Number of lengths to pad batches to.
        concat_max_utterances: Most utterances of one speaker to concatenate into a row; 1 = no concatenation.
        concat_gap_secs: Silence between concatenated utterances.
        num_parallel_calls: Batches made at the same time; 0 = as many as the processor has cores.
        prefetch_batches: Finished batches to keep ready; 0 = those of two updates, at least four.
        normalize: Whether rows get zero mean and unit variance, as most models expect.
        augment: Fields of `data.augmentation.options.AugmentOptions`; {} = nothing is altered.
    """

    format: str
    input: str
    split: str = ""
    text_column: str = ""
    speakers: Collection[str] = ()
    exclude_speakers: Collection[str] = ()
    held_out_ratio: float = 0.0
    on_rate_mismatch: str
    text_normalization: str
    num_buckets: int
    concat_max_utterances: int = 1
    concat_gap_secs: float = 0.0
    num_parallel_calls: int
    prefetch_batches: int
    normalize: bool = True
    augment: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainOptions(DataOptions):
    """`DataOptions` and what only training has.

    Attributes:
        global_batch_size: Rows of one update over all replicas; unused with `max_batch_secs`.
        seed: Seed of the order.
        bucket_boundaries_samples: Lengths to pad batches to, instead of `num_buckets` chosen ones.
        min_duration_secs: Shorter utterances are left out and counted.
        max_duration_secs: Longer utterances are left out and counted; 0 = no limit.
        concat_max_secs: Longest concatenated row; 0 = no limit.
        speed_factors: Playing speeds to draw from.
        max_batch_secs: Most audio of one update, padding included; 0 = `global_batch_size` rows.
        row_multiple: Divides the rows of an update with `max_batch_secs`.
        vocab_units: What the tokens of a vocabulary made of the transcripts are: "characters" or "words".
        more: Further corpora by name: their fields format, input, split, text_column, speakers, exclude_speakers,
            held_out_ratio and weight.
        weight: Weight of the first corpus among several.
        sampling_alpha: Exponent of the durations of several corpora, see `data.batches.corpora.choose_passes`.
    """

    global_batch_size: int
    seed: int
    bucket_boundaries_samples: Sequence[int] = ()
    min_duration_secs: float = 0.0
    max_duration_secs: float = 0.0
    concat_max_secs: float = 0.0
    speed_factors: Sequence[float] = (1.0,)
    max_batch_secs: float = 0.0
    row_multiple: int = 1
    vocab_units: str = "characters"
    more: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    weight: float = 1.0
    sampling_alpha: float = 1.0


@dataclass(frozen=True, kw_only=True)
class EvalOptions(DataOptions):
    """`DataOptions` and what only evaluation has.

    Attributes:
        batch_size: Rows of one batch over all replicas.
        slices: Fields of the manifest to group the rows by; "*" = every field.
    """

    batch_size: int
    slices: Collection[str] = ()
