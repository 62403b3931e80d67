"""Combines source, plan and pipeline into the data of training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from data.audio.decoding import SAMPLE_RATE
from data.batches.options import DataOptions, EvalOptions, TrainOptions
from data.batches.pipeline import BatchMaker, build_dataset
from data.batches.plan import BatchPlan
from data.batches.rows import Concatenation
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
    choose_text_normalization,
    normalize_transcript,
)

_MOST_SHOWN = 120  # characters of a vocabulary to show in the log


class SubsetSource:
    """A `Source` of some utterances of another source, renumbered from 0."""

    def __init__(self, *, source: Source, indices: np.ndarray):
        """Selects the utterances of `source` at `indices`, int64 [N], in that order."""
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
        """Returns the samples of an utterance at 16 kHz."""
        return self._source.read_waveform(int(self._indices[index]))

    def read_recording(self, index: int) -> tuple[np.ndarray, int]:
        """Returns the recording of an utterance as it is stored."""
        return self._source.read_recording(int(self._indices[index]))


class TrainData:
    """An endless, planned stream of updates over one corpus.

        data = build_train_data(tokenizer=tokenizer, format="jsonl", input="train.jsonl", **fields)
        dataset = data.dataset(tf.distribute.InputContext(), start_update=0)
        batch = next(iter(dataset))  # waveform [B, T], waveform_lengths [B], labels [B, L] ...

    Attributes:
        tokenizer: Given tokenizer, or one made from the transcripts.
        made_vocab: Whether it was made from the transcripts.
        text_normalization: Style of the transcripts, chosen if the options say "auto".
        left_out_secs: Utterance id -> duration of each utterance that is too short or too long.
    """

    def __init__(self, options: TrainOptions, *, tokenizer: CharTokenizer | None, report: Report = refuse):
        """Reads the index of the corpus and plans its first epoch; decodes no audio.

        Args:
            options: Corpus and batches.
            tokenizer: Tokenizer of the transcripts; None makes one of all their characters.
            report: Called with each fault of single utterances, which are left out when it returns.

        Raises:
            InputError: If the corpus cannot be read, or no utterance is left.
        """
        source = _open(options, report)
        if options.held_out_ratio:
            kept, _ = _split(source, options, warn=True)
            source = SubsetSource(source=source, indices=kept)
        self.text_normalization = options.text_normalization
        if self.text_normalization == AUTO:
            self.text_normalization = choose_text_normalization(source.texts)
        self.made_vocab = tokenizer is None
        self.tokenizer = _make_tokenizer(source.texts, self.text_normalization) if tokenizer is None else tokenizer
        self.left_out_secs: dict[str, float] = {}
        self.source = source = self._limit_durations(source, options)
        self.num_left_out = len(self.left_out_secs)
        self.plan = BatchPlan(
            num_samples=source.num_samples,
            global_batch_size=options.global_batch_size,
            seed=options.seed,
            bucket_boundaries=tuple(options.bucket_boundaries_samples) or options.num_buckets,
            concatenation=Concatenation(
                max_utterances=options.concat_max_utterances,
                max_samples=round(options.concat_max_secs * SAMPLE_RATE),
                gap_samples=round(options.concat_gap_secs * SAMPLE_RATE),
            ),
            speaker_ids=source.speaker_ids,
            speed_factors=tuple(options.speed_factors),
            max_batch_samples=round(options.max_batch_secs * SAMPLE_RATE),
            row_multiple=options.row_multiple,
        )
        self.updates_per_epoch = self.plan.updates_per_epoch
        self.rows_per_epoch = self.plan.num_rows
        self.num_utterances = len(source.utterance_ids)
        self.fingerprint = fingerprint(source)
        self.duration_secs = float(source.num_samples.sum()) / SAMPLE_RATE
        self._options = options
        self._unreadable = UnreadableUtterances()

    def _limit_durations(self, source: Source, options: TrainOptions) -> Source:
        """Leaves out the utterances that are too short or too long."""
        durations = source.num_samples / SAMPLE_RATE
        longest = options.max_duration_secs or float("inf")
        is_kept = (durations >= options.min_duration_secs) & (source.num_samples > 0) & (durations <= longest)
        if is_kept.all():
            return source
        left_out = np.flatnonzero(~is_kept).tolist()
        self.left_out_secs = {source.utterance_ids[i]: float(durations[i]) for i in left_out}
        logging.warning(
            "%d of %d training utterances are shorter than %g s or longer than %g s and left out, first %s",
            len(left_out),
            len(is_kept),
            options.min_duration_secs,
            longest,
            source.utterance_ids[left_out[0]],
        )
        if not is_kept.any():
            raise InputError(
                f"{options.input}: every utterance is outside data.min_duration_secs={options.min_duration_secs:g} and "
                f"data.max_duration_secs={options.max_duration_secs:g}: change the limits or the corpus"
            )
        return SubsetSource(source=source, indices=np.flatnonzero(is_kept))

    def unreadable(self, before_update: int) -> list[UnreadableUtterance]:
        """Returns the utterances that this host could not read in the updates before one."""
        return self._unreadable.before(before_update)

    def dataset(self, context: tf.distribute.InputContext, start_update: int) -> tf.data.Dataset:
        """Returns the endless replica batches of one input pipeline, from `start_update` on."""
        maker = BatchMaker(
            source=self.source,
            plan=self.plan,
            tokenizer=self.tokenizer,
            text_normalization=self.text_normalization,
            num_replicas=context.num_replicas_in_sync,
            unreadable=self._unreadable,
            normalize=self._options.normalize,
        )
        return _build(maker, context, self._options, start_update=start_update)

    def utterance_ids_of(self, update: int) -> list[str]:
        """Returns the ids of an update's rows over all replicas; concatenated ids are joined with +."""
        rows = self.plan.batch(update).rows
        return ["+".join(self.source.utterance_ids[i] for i in row.members) for row in rows if row.members]


class EvalData:
    """One pass over an evaluation set, longest rows first; no utterance is left out.

    Rows are identified by the index of their first utterance.

        data = build_eval_data(tokenizer=tokenizer, format="jsonl", input="dev.jsonl", **fields)
        for batch in data.dataset(tf.distribute.InputContext()):
            references = [data.references[int(index)] for index in batch["utterance_index"] if index >= 0]

    Attributes:
        num_batches: Number of batches.
        utterance_ids: Row -> id; ids of concatenated utterances are joined with +.
        references: Row -> normalized transcript.
        speaker_ids: Row -> speaker.
        duration_secs: Row -> duration.
        digest: Differs between evaluation sets with different rows, lengths or references.
    """

    def __init__(self, options: EvalOptions, *, tokenizer: CharTokenizer, report: Report = refuse):
        """Reads the index of the corpus; decodes no audio.

        Args:
            options: Corpus and batches.
            tokenizer: Tokenizer of the transcripts.
            report: Called with each fault of single utterances, which are left out when it returns.

        Raises:
            InputError: If the corpus cannot be read.
        """
        source = _open(options, report)
        if options.held_out_ratio:
            _, held_out = _split(source, options)
            source = SubsetSource(source=source, indices=held_out)
        self.source = source
        # A fixed seed, because concatenated rows are part of the set's definition and must not follow the run's seed.
        self.plan = BatchPlan(
            num_samples=source.num_samples,
            global_batch_size=options.batch_size,
            seed=0,
            bucket_boundaries=options.num_buckets,
            shuffle=False,
            concatenation=Concatenation(
                max_utterances=options.concat_max_utterances, gap_samples=round(options.concat_gap_secs * SAMPLE_RATE)
            ),
            speaker_ids=source.speaker_ids,
        )
        self.num_batches = self.plan.updates_per_epoch
        self.utterance_ids: dict[int, str] = {}
        self.references: dict[int, str] = {}
        self.speaker_ids: dict[int, str] = {}
        self.duration_secs: dict[int, float] = {}
        self._members: dict[int, tuple[int, ...]] = {}
        self._options = options
        self._tokenizer = tokenizer
        described = list(describe_lengths(source))
        lengths: list[tuple[int | str, ...]] = []
        for update in range(self.num_batches):
            for row in self.plan.batch(update).rows:
                if row.members:
                    num_samples = self._add_row(row.members)
                    lengths.append((num_samples, *(described[i] for i in row.members)))
        self.digest = digest_rows(self.utterance_ids.values(), lengths, self.references.values())

    def _add_row(self, members: tuple[int, ...]) -> int:
        """Lists a row of these utterances and returns its number of samples."""
        source, first = self.source, members[0]
        texts = [normalize_transcript(source.texts[i], self._options.text_normalization) for i in members]
        num_samples = int(source.num_samples[list(members)].sum())
        num_samples += (len(members) - 1) * self.plan.concatenation.gap_samples
        self._members[first] = members
        self.utterance_ids[first] = "+".join(source.utterance_ids[i] for i in members)
        self.references[first] = " ".join(text for text in texts if text)
        self.speaker_ids[first] = source.speaker_ids[first]
        self.duration_secs[first] = num_samples / SAMPLE_RATE
        return num_samples

    def dataset(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns the replica batches of one pass of one input pipeline."""
        maker = BatchMaker(
            source=self.source,
            plan=self.plan,
            tokenizer=self._tokenizer,
            text_normalization=self._options.text_normalization,
            num_replicas=context.num_replicas_in_sync,
            normalize=self._options.normalize,
        )
        return _build(maker, context, self._options, num_updates=self.num_batches)

    def read_flac(self, index: int) -> bytes:
        """Returns the audio of a row as a FLAC file at 16 kHz.

        Raises:
            InputError, RuntimeError, OSError: If the audio cannot be read.
        """
        gap = np.zeros(self.plan.concatenation.gap_samples, dtype=np.float32)
        parts: list[np.ndarray] = []
        for member in self._members[index]:
            parts += [gap, self.source.read_waveform(member)]
        return encode_flac(np.concatenate(parts[1:]))


def build_train_data(*, tokenizer: CharTokenizer | None, report: Report = refuse, **fields: Any) -> TrainData:
    """Builds `TrainData` from the fields of `TrainOptions`."""
    return TrainData(TrainOptions(**fields), tokenizer=tokenizer, report=report)


def build_eval_data(*, tokenizer: CharTokenizer, report: Report = refuse, **fields: Any) -> EvalData:
    """Builds `EvalData` from the fields of `EvalOptions`."""
    return EvalData(EvalOptions(**fields), tokenizer=tokenizer, report=report)


def _open(options: DataOptions, report: Report) -> Source:
    return open_source(
        format=options.format,
        input=options.input,
        split=options.split,
        speakers=options.speakers,
        exclude_speakers=options.exclude_speakers,
        on_rate_mismatch=options.on_rate_mismatch,
        report=report,
    )


def _build(
    maker: BatchMaker, context: tf.distribute.InputContext, options: DataOptions, **updates: int
) -> tf.data.Dataset:
    return build_dataset(
        maker,
        num_input_pipelines=context.num_input_pipelines,
        input_pipeline_id=context.input_pipeline_id,
        num_parallel_calls=options.num_parallel_calls,
        prefetch=options.prefetch_batches,
        **updates,
    )


def _split(source: Source, options: DataOptions, *, warn: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices that stay and those that are held out."""
    return split_held_out(
        speaker_ids=source.speaker_ids,
        utterance_ids=source.utterance_ids,
        ratio=options.held_out_ratio,
        where=str(options.input),
        warn=warn,
    )


def _make_tokenizer(texts: Sequence[str], text_normalization: str) -> CharTokenizer:
    tokens = build_vocab(normalize_transcript(text, text_normalization) for text in texts)
    characters = "".join(sorted(token for token in tokens if len(token) == 1))
    logging.info(
        "vocabulary of %d tokens from %d transcripts with data.text_normalization=%s: %s",
        len(tokens),
        len(texts),
        text_normalization,
        characters if len(characters) <= _MOST_SHOWN else f"{characters[:_MOST_SHOWN]} ...",
    )
    return CharTokenizer(tokens=tokens)
