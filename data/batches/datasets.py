"""Combines source, plan and pipeline into the data of training and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from common.text_style import AUTO, text_base
from data.audio.decoding import SAMPLE_RATE
from data.augmentation.augmenter import Augmenter
from data.augmentation.draws import EVALUATION, TRAINING
from data.augmentation.options import AugmentOptions
from data.batches.corpora import (
    JoinedSource,
    SubsetSource,
    TrainCorpus,
    choose_passes,
    limit_durations,
    open_corpora,
    open_corpus,
    split,
)
from data.batches.options import DataOptions, EvalOptions, TrainOptions
from data.batches.pipeline import BatchMaker, build_dataset
from data.batches.plan import BatchPlan
from data.batches.row_padding import RowPadding
from data.batches.rows import Concatenation, Mixture, RowOptions
from data.batches.unreadable import UnreadableUtterance, UnreadableUtterances
from data.corpus.faults import Report, refuse
from data.corpus.fingerprint import describe_lengths, digest_rows, fingerprint
from data.corpus.slices import select_fields, shared_fields
from data.corpus.sources import Source
from data.shards.records import encode_flac
from data.text.normalization import choose_text_normalization, normalize_transcript
from data.text.tokenizer import SPECIAL_TOKENS, CharTokenizer, build_vocab, build_word_vocab

_MOST_SHOWN = 120  # characters of a vocabulary to show in the log
_ROWS_WITHIN = 0.95  # of the rows; the longest ones may be outliers that taught the model nothing


class TrainData:
    """An endless, planned stream of updates over one corpus, or over several with weights.

        data = build_train_data(tokenizer=tokenizer, format="jsonl", input="train.jsonl", **fields)
        dataset = data.dataset(tf.distribute.InputContext(), start_update=0)
        batch = next(iter(dataset))  # waveform [B, T], waveform_lengths [B], labels [B, L] ...

    Attributes:
        tokenizer: Given tokenizer, or one made from the transcripts.
        made_vocab: Whether it was made from the transcripts.
        text_normalization: Style of the transcripts, chosen if the options say "auto".
        corpora: Corpora by name, "train" first, without the utterances that are too short or too long.
        source: Utterances of all corpora; of several, ids and speakers are "NAME:ID".
        passes: How often an epoch goes through each corpus.
        left_out_secs: Utterance id -> duration of each utterance that is too short or too long.
        row_secs: Length in seconds that 95 of 100 rows of the first epoch do not exceed.
        augmenter: Alters the rows; None = nothing does.
    """

    def __init__(self, options: TrainOptions, *, tokenizer: CharTokenizer | None, report: Report = refuse):
        """Reads the index of each corpus and plans the first epoch; decodes no audio.

        Args:
            options: Corpora and batches.
            tokenizer: Tokenizer of the transcripts; None makes one of all their characters, or words.
            report: Called with each fault of single utterances, which are left out when it returns.

        Raises:
            InputError: If the corpus cannot be read, or no utterance is left.
        """
        opened = open_corpora(options, report)
        texts = [text for corpus in opened for text in corpus.source.texts]
        self.text_normalization = options.text_normalization
        if text_base(self.text_normalization) == AUTO:
            self.text_normalization = choose_text_normalization(texts, self.text_normalization)
        self.made_vocab = tokenizer is None
        if tokenizer is None:
            tokenizer = _make_tokenizer(texts, self.text_normalization, options.vocab_units)
        self.tokenizer = tokenizer
        limited = [limit_durations(corpus, options) for corpus in opened]
        self.corpora = {corpus.name: corpus for corpus in limited}
        self.source, mixture = self._join(limited, options)
        self.num_left_out = len(self.left_out_secs)
        source = self.source
        self.augmenter = _build_augmenter(options, source, seed=options.seed, purpose=TRAINING)
        self.plan = BatchPlan(
            num_samples=source.num_samples,
            global_batch_size=options.global_batch_size,
            seed=options.seed,
            bucket_boundaries=tuple(options.bucket_boundaries_samples) or options.num_buckets,
            rows=RowOptions(
                concatenation=Concatenation(
                    max_utterances=options.concat_max_utterances,
                    max_samples=round(options.concat_max_secs * SAMPLE_RATE),
                    gap_samples=round(options.concat_gap_secs * SAMPLE_RATE),
                ),
                speaker_ids=source.speaker_ids,
                speed_factors=tuple(options.speed_factors),
                mixture=mixture,
                padding=_padding_of(self.augmenter),
            ),
            max_batch_samples=round(options.max_batch_secs * SAMPLE_RATE),
            row_multiple=options.row_multiple,
        )
        self.updates_per_epoch = self.plan.updates_per_epoch
        self.rows_per_epoch = self.plan.num_rows
        self.row_secs = float(np.quantile(self.plan.row_samples(0), _ROWS_WITHIN, method="higher")) / SAMPLE_RATE
        self.num_utterances = len(source.utterance_ids)
        self.fingerprint: dict[str, Any] = dict(fingerprint(source))
        if mixture is not None:
            self.fingerprint["corpora"] = {one.name: fingerprint(one.source) for one in limited}
        if self.augmenter is not None:
            self.fingerprint["augment"] = self.augmenter.digest()
        self.duration_secs = float(source.num_samples.sum()) / SAMPLE_RATE
        self._options = options
        self._unreadable = UnreadableUtterances()

    def _join(self, corpora: Sequence[TrainCorpus], options: TrainOptions) -> tuple[Source, Mixture | None]:
        """Returns the source of all corpora, and how an epoch mixes them; sets `passes` and what is left out."""
        if not options.more:
            (corpus,) = corpora
            self.passes, self.left_out_secs = {corpus.name: 1.0}, dict(corpus.left_out_secs)
            return corpus.source, None
        secs, weights = [corpus.secs for corpus in corpora], [corpus.weight for corpus in corpora]
        passes = choose_passes(secs, weights, alpha=options.sampling_alpha)
        self.passes = {corpus.name: each for corpus, each in zip(corpora, passes, strict=True)}
        self.left_out_secs = {
            f"{corpus.name}:{name}": each for corpus in corpora for name, each in corpus.left_out_secs.items()
        }
        sizes = tuple(len(corpus.source.utterance_ids) for corpus in corpora)
        return JoinedSource({one.name: one.source for one in corpora}), Mixture(sizes, passes)

    def corpus_rows(self, num_updates: int) -> dict[str, int]:
        """Returns the rows of each corpus in the first updates of the run; {} for a single corpus."""
        if not isinstance(self.source, JoinedSource):
            return {}
        epoch, members = self.plan.first_members(num_updates)
        counts = np.bincount(self.source.corpora_of(members), minlength=len(self.corpora)).tolist()
        an_epoch = self.plan.corpus_rows
        return {name: epoch * an_epoch[i] + counts[i] for i, name in enumerate(self.corpora)}

    def describe_corpora(self) -> list[str]:
        """Returns a log line about each corpus; [] for a single one."""
        if len(self.corpora) == 1:
            return []
        return [
            f"corpus {one.name}: {len(one.source.utterance_ids)} utterances, {one.secs / 3600:.2f} h, weight "
            f"{one.weight:g}; {rows} of the {self.rows_per_epoch} rows of an epoch, {self.passes[one.name]:.3g} passes"
            for one, rows in zip(self.corpora.values(), self.plan.corpus_rows, strict=True)
        ]

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
            augmenter=self.augmenter,
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
        texts: Row -> transcript as the corpus has it; rows of several utterances have none.
        speaker_ids: Row -> speaker.
        duration_secs: Row -> duration.
        slices: Row -> fields of the manifest that reports group rows by, such as {"accent": "scottish"}.
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
        source = open_corpus(options, report)
        if options.held_out_ratio:
            _, held_out = split(source, options)
            source = SubsetSource(source=source, indices=held_out)
        self.source = source
        self.augmenter = _build_augmenter(options, source, seed=0, purpose=EVALUATION)
        self._padding = _padding_of(self.augmenter)
        # A fixed seed, because concatenated rows are part of the set's definition and must not follow the run's seed.
        self.plan = BatchPlan(
            num_samples=source.num_samples,
            global_batch_size=options.batch_size,
            seed=0,
            bucket_boundaries=options.num_buckets,
            shuffle=False,
            rows=RowOptions(
                concatenation=Concatenation(
                    max_utterances=options.concat_max_utterances,
                    gap_samples=round(options.concat_gap_secs * SAMPLE_RATE),
                ),
                speaker_ids=source.speaker_ids,
                padding=self._padding,
            ),
        )
        self.num_batches = self.plan.updates_per_epoch
        self.utterance_ids: dict[int, str] = {}
        self.references: dict[int, str] = {}
        self.texts: dict[int, str] = {}
        self.speaker_ids: dict[int, str] = {}
        self.duration_secs: dict[int, float] = {}
        self.slices: dict[int, dict[str, str]] = {}
        self._members: dict[int, tuple[int, ...]] = {}
        self._options = options
        self._fields = select_fields(source, options.slices)
        self._tokenizer = tokenizer
        described = list(describe_lengths(source))
        lengths: list[tuple[int | str, ...]] = []
        for update in range(self.num_batches):
            for row in self.plan.batch(update).rows:
                if row.members:
                    num_samples = self._add_row(row.members)
                    lengths.append((num_samples, *(described[i] for i in row.members)))
        ids, references = list(self.utterance_ids.values()), list(self.references.values())
        if self.augmenter is not None:
            ids, references = [*ids, "augment"], [*references, ""]
            lengths.append((self.augmenter.digest(),))
        self.digest = digest_rows(ids, lengths, references)

    def _add_row(self, members: tuple[int, ...]) -> int:
        """Lists a row of these utterances and returns its number of samples."""
        source, first = self.source, members[0]
        num_samples = int(source.num_samples[list(members)].sum())
        num_samples += (len(members) - 1) * self.plan.concatenation.gap_samples
        if self._padding is not None:
            num_samples += int(self._padding.samples(0, first, first + 1)[0])
        self._members[first] = members
        self.utterance_ids[first] = "+".join(source.utterance_ids[i] for i in members)
        self.references[first] = self._reference(members, self._options.text_normalization)
        if len(members) == 1:
            self.texts[first] = source.texts[first]
        self.speaker_ids[first] = source.speaker_ids[first]
        self.duration_secs[first] = num_samples / SAMPLE_RATE
        if shared := shared_fields([self._fields.get(source.utterance_ids[i], {}) for i in members]):
            self.slices[first] = shared
        return num_samples

    def _reference(self, members: tuple[int, ...], style: str) -> str:
        texts = [normalize_transcript(self.source.texts[i], style) for i in members]
        return " ".join(text for text in texts if text)

    def references_in(self, style: str) -> dict[int, str]:
        """Returns row -> transcript as another style of `normalize_transcript` writes the stored text."""
        return {first: self._reference(members, style) for first, members in self._members.items()}

    def dataset(self, context: tf.distribute.InputContext) -> tf.data.Dataset:
        """Returns the replica batches of one pass of one input pipeline."""
        maker = BatchMaker(
            source=self.source,
            plan=self.plan,
            tokenizer=self._tokenizer,
            text_normalization=self._options.text_normalization,
            num_replicas=context.num_replicas_in_sync,
            normalize=self._options.normalize,
            augmenter=self.augmenter,
        )
        return _build(maker, context, self._options, num_updates=self.num_batches)

    def read_flac(self, index: int) -> bytes:
        """Returns the audio of a row as a FLAC file at 16 kHz, altered as the model hears it.

        Raises:
            InputError, RuntimeError, OSError: If the audio cannot be read.
        """
        gap = np.zeros(self.plan.concatenation.gap_samples, dtype=np.float32)
        parts: list[np.ndarray] = []
        for member in self._members[index]:
            parts += [gap, self.source.read_waveform(member)]
        waveform = np.concatenate(parts[1:])
        if self.augmenter is not None:
            waveform = self.augmenter.apply(waveform, epoch=0, members=self._members[index])
        return encode_flac(waveform)


def build_train_data(*, tokenizer: CharTokenizer | None, report: Report = refuse, **fields: Any) -> TrainData:
    """Builds `TrainData` from the fields of `TrainOptions`."""
    return TrainData(TrainOptions(**fields), tokenizer=tokenizer, report=report)


def build_eval_data(*, tokenizer: CharTokenizer, report: Report = refuse, **fields: Any) -> EvalData:
    """Builds `EvalData` from the fields of `EvalOptions`."""
    return EvalData(EvalOptions(**fields), tokenizer=tokenizer, report=report)


def _build_augmenter(options: DataOptions, source: Source, *, seed: int, purpose: str) -> Augmenter | None:
    augment = AugmentOptions(**options.augment)
    return Augmenter(options=augment, source=source, seed=seed, purpose=purpose) if augment.is_on else None


def _padding_of(augmenter: Augmenter | None) -> RowPadding | None:
    if augmenter is None or not augmenter.max_silence_samples:
        return None
    return RowPadding(augmenter.max_silence_samples, lambda *which: augmenter.silence_samples(*which).sum(axis=1))


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


def _make_tokenizer(texts: Sequence[str], text_normalization: str, units: str) -> CharTokenizer:
    normalized = (normalize_transcript(text, text_normalization) for text in texts)
    tokens = build_word_vocab(normalized) if units == "words" else build_vocab(normalized)
    labels = sorted(token for token in tokens if token not in SPECIAL_TOKENS)
    shown = (" " if units == "words" else "").join(labels)
    logging.info(
        "vocabulary of %d tokens from %d transcripts with data.text_normalization=%s: %s",
        len(tokens),
        len(texts),
        text_normalization,
        shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]} ...",
    )
    return CharTokenizer(tokens=tokens, separator=" " if units == "words" else "")
