"""A corpus as the trainer and the evaluator see it: source, plan and pipeline put together."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import tensorflow as tf
from absl import logging

from data.audio.decoding import SAMPLE_RATE
from data.batches.pipeline import build_dataset
from data.batches.plan import BatchPlan
from data.batches.unreadable import UnreadableUtterance, UnreadableUtterances
from data.common.errors import InputError
from data.corpus.faults import Report, refuse
from data.corpus.fingerprint import describe_lengths, digest_rows, fingerprint
from data.corpus.held_out import split_held_out
from data.corpus.sources import Source, duration_conflicts, segment_starts
from data.open_corpus import open_source
from data.shards.records import encode_flac
from data.text.tokenizer import (
    AUTO,
    CharTokenizer,
    build_vocab,
    choose_text_style,
    normalize_transcript,
)

_MOST_SHOWN = 120  # characters of a vocabulary in the log


class SubsetSource:
    """Some utterances of another source, renumbered from 0."""

    def __init__(self, *, source: Source, indices: np.ndarray):
        """Keeps the utterances of `source` at `indices` (int64 [N]), in that order."""
        self._source = source
        self._indices = np.asarray(indices, dtype=np.int64)
        self.utterance_ids: Sequence[str] = [source.utterance_ids[i] for i in self._indices]
        self.texts: Sequence[str] = [source.texts[i] for i in self._indices]
        self.speaker_ids: Sequence[str] = [source.speaker_ids[i] for i in self._indices]
        self.num_samples = source.num_samples[self._indices]
        self.sample_rates = source.sample_rates[self._indices]
        kept = set(self.utterance_ids)
        self.segment_starts = {name: start for name, start in segment_starts(source).items() if name in kept}
        self.duration_conflicts = {name: what for name, what in duration_conflicts(source).items() if name in kept}

    def read_waveform(self, index: int) -> np.ndarray:
        """See `Source`."""
        return self._source.read_waveform(int(self._indices[index]))

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """See `Source`."""
        return self._source.read_recording(int(self._indices[index]))


class TrainData:
    """An endless, planned stream of updates over one corpus.

    Attributes:
        tokenizer: As given, or made of the transcripts.
        made_vocab: Whether it was made of them.
        text_style: As given, or chosen for the transcripts.
    """

    def __init__(
        self,
        *,
        tokenizer: CharTokenizer | None,
        text_style: str,
        format: str,
        input: str,
        split: str = "",
        speakers: Collection[str] = (),
        exclude_speakers: Collection[str] = (),
        held_out_ratio: float = 0.0,
        on_rate_mismatch: str = "resample",
        global_batch_size: int,
        seed: int,
        num_buckets: int = 8,
        bucket_boundaries_samples: Sequence[int] = (),
        min_duration_secs: float = 0.0,
        max_duration_secs: float = 0.0,
        join_max_utterances: int = 1,
        join_max_secs: float = 0.0,
        join_gap_secs: float = 0.0,
        speed_factors: Sequence[float] = (1.0,),
        max_batch_secs: float = 0.0,
        row_multiple: int = 1,
        num_parallel_calls: int = 2,
        prefetch_batches: int = 4,
        normalize: bool = True,
        report: Report = refuse,
    ):
        """Reads the corpus' index and plans its first epoch; no audio is decoded.

        Args:
            tokenizer: Transcripts to labels; None makes one of all their characters.
            text_style: `normalize_transcript`'s style; "auto" is that of `choose_text_style`.
            format: As `open_source`; so are input, split, speakers, exclude_speakers, on_rate_mismatch.
            input: See format.
            split: See format.
            speakers: See format.
            exclude_speakers: See format.
            held_out_ratio: Share of the utterances, of whole speakers where there are several, that is left out for an
                `EvalData` with the same ratio; 0 = none.
            on_rate_mismatch: See format.
            global_batch_size: Rows of one update; not used with `max_batch_secs`.
            seed: Of the order.
            num_buckets: Batch shapes to choose, unless `bucket_boundaries_samples` gives them.
            bucket_boundaries_samples: Lengths that batches are padded to.
            min_duration_secs: Shorter utterances are left out, and counted.
            max_duration_secs: So are longer ones; 0 = no limit.
            join_max_utterances: Most utterances of one speaker joined into a row.
            join_max_secs: Longest joined row; 0 = no limit.
            join_gap_secs: Silence between joined utterances.
            speed_factors: Playing speeds to draw from.
            max_batch_secs: Most audio of one update, padding included; 0 goes by rows.
            row_multiple: By seconds, rows are a multiple of this; the number of replicas must divide it.
            num_parallel_calls: Batches made at the same time.
            prefetch_batches: Finished batches kept ready.
            normalize: As `build_dataset`.
            report: As `open_source`.

        Raises:
            InputError: The corpus cannot be read, or nothing of it is left.
        """
        source = open_source(
            format=format,
            input=input,
            split=split,
            speakers=speakers,
            exclude_speakers=exclude_speakers,
            on_rate_mismatch=on_rate_mismatch,
            report=report,
        )
        if held_out_ratio:
            source = SubsetSource(source=source, indices=_split(source, held_out_ratio, input, warn=True)[0])
        self.text_style = choose_text_style(source.texts) if text_style == AUTO else text_style
        self.made_vocab = tokenizer is None
        if tokenizer is None:
            tokenizer = _make_tokenizer(source.texts, self.text_style)
        self.tokenizer = tokenizer
        durations = source.num_samples / SAMPLE_RATE
        is_kept = (durations >= min_duration_secs) & (source.num_samples > 0)
        if max_duration_secs:
            is_kept &= durations <= max_duration_secs
        self.num_left_out = int((~is_kept).sum())
        left_out = np.flatnonzero(~is_kept).tolist()
        self.left_out_secs = {source.utterance_ids[i]: float(durations[i]) for i in left_out}
        if self.num_left_out:
            first = source.utterance_ids[int(np.flatnonzero(~is_kept)[0])]
            logging.warning(
                "%d of %d training utterances are shorter than %g s or longer than %g s and left out, first %s",
                self.num_left_out,
                len(is_kept),
                min_duration_secs,
                max_duration_secs or float("inf"),
                first,
            )
            if not is_kept.any():
                raise InputError(
                    f"{input}: every utterance is outside data.min_duration_secs={min_duration_secs:g} and "
                    f"data.max_duration_secs={max_duration_secs:g}: change the limits or the corpus"
                )
            source = SubsetSource(source=source, indices=np.flatnonzero(is_kept))
        self.source = source
        self.plan = BatchPlan(
            num_samples=source.num_samples,
            global_batch_size=global_batch_size,
            seed=seed,
            bucket_boundaries=tuple(bucket_boundaries_samples) or num_buckets,
            join_max_utterances=join_max_utterances,
            join_max_samples=round(join_max_secs * SAMPLE_RATE),
            join_gap_samples=round(join_gap_secs * SAMPLE_RATE),
            speaker_ids=source.speaker_ids,
            speed_factors=tuple(speed_factors),
            max_batch_samples=round(max_batch_secs * SAMPLE_RATE),
            row_multiple=row_multiple,
        )
        self.updates_per_epoch = self.plan.updates_per_epoch
        self.rows_per_epoch = self.plan.num_rows
        self.num_utterances = len(source.utterance_ids)
        self.fingerprint = fingerprint(source)
        self.duration_secs = float(source.num_samples.sum()) / SAMPLE_RATE
        self._num_parallel_calls = num_parallel_calls
        self._prefetch_batches = prefetch_batches
        self._normalize = normalize
        self._unreadable = UnreadableUtterances()

    def unreadable(self, before_update: int) -> list[UnreadableUtterance]:
        """Returns what this host's rows of the updates before one could not read, as (update, utterance id, reason)."""
        return self._unreadable.before(before_update)

    def dataset(self, context: tf.distribute.InputContext, start_update: int) -> tf.data.Dataset:
        """Returns the endless replica batches of one input pipeline, from `start_update` on."""
        return build_dataset(
            source=self.source,
            plan=self.plan,
            tokenizer=self.tokenizer,
            text_style=self.text_style,
            num_replicas=context.num_replicas_in_sync,
            num_input_pipelines=context.num_input_pipelines,
            input_pipeline_id=context.input_pipeline_id,
            start_update=start_update,
            num_parallel_calls=self._num_parallel_calls,
            prefetch=self._prefetch_batches,
            normalize=self._normalize,
            unreadable=self._unreadable,
        )

    def utterance_ids_of(self, update: int) -> list[str]:
        """Returns the ids of an update's rows, over all replicas; joined utterances have a + between theirs."""
        rows = self.plan.batch(update).rows
        return ["+".join(self.source.utterance_ids[i] for i in row.members) for row in rows if row.members]


class EvalData:
    """One pass over an evaluation set, longest rows first; nothing is left out."""

    def __init__(
        self,
        *,
        tokenizer: CharTokenizer,
        text_style: str,
        format: str,
        input: str,
        split: str = "",
        speakers: Collection[str] = (),
        exclude_speakers: Collection[str] = (),
        held_out_ratio: float = 0.0,
        on_rate_mismatch: str = "resample",
        batch_size: int,
        num_buckets: int = 8,
        join_max_utterances: int = 1,
        join_gap_secs: float = 0.0,
        num_parallel_calls: int = 2,
        prefetch_batches: int = 4,
        normalize: bool = True,
        report: Report = refuse,
    ):
        """Reads the corpus' index; the arguments are those of `TrainData`, `batch_size` is over all replicas.

        With a `held_out_ratio` it has what a `TrainData` of the same ratio leaves out.
        """
        source = open_source(
            format=format,
            input=input,
            split=split,
            speakers=speakers,
            exclude_speakers=exclude_speakers,
            on_rate_mismatch=on_rate_mismatch,
            report=report,
        )
        if held_out_ratio:
            source = SubsetSource(source=source, indices=_split(source, held_out_ratio, input)[1])
        self.source = source
        # A fixed seed: the rows of a joined set are part of its definition and must not follow the run's seed.
        self.plan = BatchPlan(
            num_samples=self.source.num_samples,
            global_batch_size=batch_size,
            seed=0,
            bucket_boundaries=num_buckets,
            shuffle=False,
            join_max_utterances=join_max_utterances,
            join_gap_samples=round(join_gap_secs * SAMPLE_RATE),
            speaker_ids=self.source.speaker_ids,
        )
        self.num_batches = self.plan.updates_per_epoch
        self.utterance_ids: dict[int, str] = {}
        self.references: dict[int, str] = {}
        self.speaker_ids: dict[int, str] = {}
        self.duration_secs: dict[int, float] = {}
        self._members: dict[int, tuple[int, ...]] = {}
        lengths: list[tuple[int | str, ...]] = []
        described = list(describe_lengths(self.source))
        for update in range(self.num_batches):
            for row in self.plan.batch(update).rows:
                if row.members:
                    texts = [normalize_transcript(self.source.texts[i], text_style) for i in row.members]
                    ids = [self.source.utterance_ids[i] for i in row.members]
                    first = row.members[0]
                    self._members[first] = row.members
                    self.utterance_ids[first] = "+".join(ids)
                    self.references[first] = " ".join(text for text in texts if text)
                    self.speaker_ids[first] = self.source.speaker_ids[first]
                    num_samples = (
                        int(self.source.num_samples[list(row.members)].sum())
                        + (len(ids) - 1) * self.plan.join_gap_samples
                    )
                    self.duration_secs[first] = num_samples / SAMPLE_RATE
                    lengths.append((num_samples, *(described[i] for i in row.members)))
        self.digest = digest_rows(self.utterance_ids.values(), lengths, self.references.values())
        self._tokenizer = tokenizer
        self._text_style = text_style
        self._num_parallel_calls = num_parallel_calls
        self._prefetch_batches = prefetch_batches
        self._normalize = normalize

    def dataset(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns the replica batches of one pass of one input pipeline."""
        return build_dataset(
            source=self.source,
            plan=self.plan,
            tokenizer=self._tokenizer,
            text_style=self._text_style,
            num_replicas=context.num_replicas_in_sync,
            num_input_pipelines=context.num_input_pipelines,
            input_pipeline_id=context.input_pipeline_id,
            num_updates=self.num_batches,
            num_parallel_calls=self._num_parallel_calls,
            prefetch=self._prefetch_batches,
            normalize=self._normalize,
        )

    def read_flac(self, index: int) -> bytes:
        """Returns the audio of a row as a FLAC file at 16 kHz, joined where its utterances are.

        Raises:
            InputError, RuntimeError, OSError: It cannot be read.
        """
        gap = np.zeros(self.plan.join_gap_samples, dtype=np.float32)
        pieces: list[np.ndarray] = []
        for member in self._members[index]:
            pieces += [gap, self.source.read_waveform(member)]
        return encode_flac(np.concatenate(pieces[1:]))


def _split(source: Source, ratio: float, input: object, *, warn: bool = False) -> tuple[np.ndarray, np.ndarray]:
    ids = {"speaker_ids": source.speaker_ids, "utterance_ids": source.utterance_ids}
    return split_held_out(**ids, ratio=ratio, where=str(input), warn=warn)


def _make_tokenizer(texts: Sequence[str], text_style: str) -> CharTokenizer:
    tokens = build_vocab(normalize_transcript(text, text_style) for text in texts)
    characters = "".join(sorted(token for token in tokens if len(token) == 1))
    logging.info(
        "vocabulary of %d tokens from %d transcripts with data.text_style=%s: %s",
        len(tokens),
        len(texts),
        text_style,
        characters if len(characters) <= _MOST_SHOWN else f"{characters[:_MOST_SHOWN]} ...",
    )
    return CharTokenizer(tokens=tokens)
