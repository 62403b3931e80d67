"""Runs `--mode=export`: exports the model of a run, and compares the export with the run's own model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from ml_collections import ConfigDict

from common import storage
from common.model_card import read_evaluations
from engine.checkpointing.restore import find_weights, step_of
from engine.common.progress import progress_bar
from engine.config import builders, recorded_run
from engine.inference.export import portable
from engine.inference.export.model_card import model_card
from engine.inference.export.portable_check import PortableCheck, Recording, check_portable, count_changed_words
from engine.inference.export.saved_model import ExportCheck, build_export, check_new, compare, export, folder_beside
from engine.inference.exported import read_export_fields
from engine.inference.inputs import find_audio
from engine.inference.loading import load_trained
from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.inference.window_length import WINDOW_FIELD, default_window_secs
from engine.protocols import AcousticModel, Components, EvalData, Tokenizer
from engine.workdir.folder import storage_faults

# A graph with parts for XLA runs only where XLA is linked in, which TensorFlow Serving's GPU server is not, and does
# not convert to other formats.
_EXPORTED_FUSED_OPS = "off"
# Ratio of words that may change without XLA, which orders the same arithmetic otherwise: half precision rounds then.
_DIFFERENT_WORDS = {"float32": 0.0, "mixed_bfloat16": 0.02, "mixed_float16": 0.02}
_NUM_CHECKED = 8  # recordings of each evaluation set, where --inputs names none


@dataclasses.dataclass(frozen=True)
class _Run:
    """A trained run to export.

    Attributes:
        parts: Callables of data and models.
        checkpoint: A workdir, or a checkpoint inside one.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights.
        config: The config of the run.
        workdir: The folder of the run.
    """

    parts: Components
    checkpoint: str
    weights: str
    config: ConfigDict
    workdir: str

    @property
    def normalizes(self) -> bool:
        """Returns whether the model takes normalized waveforms."""
        return builders.normalizes(self.config)

    def load(self, precision: str = "", fused_ops: str = _EXPORTED_FUSED_OPS) -> tuple[AcousticModel, Tokenizer]:
        """Loads the model, in a precision of its own if one is given, and the tokenizer."""
        return load_trained(
            parts=self.parts,
            checkpoint=self.checkpoint,
            weights=self.weights,
            precision=precision,
            fused_ops=fused_ops,
        )

    def read_with(self, model: AcousticModel, tokenizer: Tokenizer) -> Transcriber:
        """Builds a transcriber that reads recordings with a model of the run."""
        return Transcriber(
            model=model,
            span_decoder=self.parts.span_decoder,
            tokenizer=tokenizer,
            count_samples=self.parts.count_samples,
            stream_audio=self.parts.stream_audio,
            normalize_waveform=self.parts.normalize_waveform if self.normalizes else None,
        )

    def find_recordings(self, paths: Sequence[str], tokenizer: Tokenizer) -> list[Recording]:
        """Returns recordings to compare models on: those of the paths, or without any some of the evaluation sets."""
        if not paths:
            return list(_from_sets(builders.build_eval_data(self.config, self.parts, tokenizer)))
        data = self.config.data
        options = {"on_rate_mismatch": data.on_rate_mismatch, "text_normalization": data.text_normalization}
        return list(_from_files(self.parts, paths, **options))

    def describe(self, model: AcousticModel, transcriber: Transcriber) -> dict[str, Any]:
        """Returns the fields of export.json that are known before the export is checked."""
        tokenizer = transcriber.tokenizer
        path = find_weights(self.checkpoint, weights=self.weights)
        return {
            "num_parameters": sum(int(variable.shape.num_elements()) for variable in model.variables),
            "num_tokens": tokenizer.num_tokens,
            "blank_id": tokenizer.blank_id,
            "delimiter_id": next((i for i, token in enumerate(tokenizer.token_strings) if token.isspace()), None),
            "normalize_waveform": self.normalizes,
            "sample_rate": SAMPLE_RATE,
            "samples_per_frame": transcriber.geometry[1],
            WINDOW_FIELD: default_window_secs(self.checkpoint),
            "text_normalization": self.config.data.text_normalization,
            "on_rate_mismatch": self.config.data.on_rate_mismatch,
            "precision": self.config.train.precision,
            "step": step_of(path),
            "checkpoint": storage.absolute(path).removeprefix(f"{self.workdir}/"),
            "tensorflow": tf.__version__,
        }


def run(
    *,
    parts: Components,
    checkpoint: str,
    inputs: Sequence[str],
    output: str,
    weights: str = "",
    formats: Sequence[str] = (),
) -> int:
    """Exports a run's best weights, prints what was written and returns the exit status.

    Args:
        parts: Callables of data and models.
        checkpoint: A workdir, or a checkpoint inside one.
        inputs: Recordings that the export must transcribe as the live model does; empty takes some of the evaluation
            sets.
        output: New folder.
        weights: "raw", "ema", or "" for what the checkpoint holds as the model's weights.
        formats: Names among `portable.FILES` of the formats to write beside the SavedModel.

    Raises:
        ValueError: An argument is missing or names nothing, or an exported model differs from the live one.
    """
    if not output:
        raise ValueError("--output is empty: name the folder to write")
    check_new(output)
    portable.check_formats(formats)
    paths = find_audio(inputs) if inputs else []
    if read_export_fields(checkpoint) is not None:
        raise ValueError(f"{checkpoint}: exported already; give the workdir that it came from to --checkpoint")
    config, workdir = recorded_run.load_run(checkpoint)
    trained = _Run(parts, checkpoint, weights, config, workdir)
    model, tokenizer = trained.load()
    trained = dataclasses.replace(trained, parts=builders.with_blank(parts, tokenizer))
    transcriber = trained.read_with(model, tokenizer)
    fields = trained.describe(model, transcriber)
    portable.check_sizes(formats, num_weights=fields["num_parameters"])
    recordings = trained.find_recordings(paths, tokenizer)
    fields["changed"] = _count_changes(trained, transcriber, recordings)
    advice = "make room, or name another folder"
    with storage_faults(output, advice=advice), folder_beside(output, purpose="converting") as folder:
        # These formats have a precision of their own: the mixed one is for training.
        is_float32 = config.train.precision == "float32" or not formats
        plain_model = model if is_float32 else trained.load("float32")[0]
        comparisons = _convert(formats, recordings, folder, model=plain_model, transcriber=transcriber)
        fields["formats"] = [dataclasses.asdict(comparison) for comparison in comparisons]
        files = [folder / comparison.file for comparison in comparisons]
        result = _write(trained, output, fields, model=model, reader=transcriber, recordings=recordings, files=files)
    _report(output, fields, result, comparisons)
    return 0


def _count_changes(trained: _Run, transcriber: Transcriber, recordings: Sequence[Recording]) -> dict[str, int]:
    """Returns how many words the model reads differently without the parts that XLA compiles.

    Raises:
        ValueError: They are too many for rounding.
    """
    precision = trained.config.train.precision
    compiled = trained.read_with(*trained.load(fused_ops=""))
    changes = count_changed_words(
        recordings,
        *(
            [_read(reader, recording.waveform)[0] for recording in _watched(recordings, what)]
            for reader, what in ((compiled, "reading"), (transcriber, "reading without XLA"))
        ),
        allowed=_DIFFERENT_WORDS[precision],
        who=f"the model without the parts that XLA compiles, in {precision},",
        advice="train it longer, or compare with more recordings (--inputs): rounding changes words that the model "
        "hardly knows",
    )
    return {"num_words": changes.num_reference, "num_different_words": changes.num_errors}


def _write(
    trained: _Run,
    output: str,
    fields: dict[str, Any],
    *,
    model: AcousticModel,
    reader: Transcriber,
    recordings: Sequence[Recording],
    files: Sequence[Path],
) -> ExportCheck:
    """Writes the folder of the export once the exported model transcribes as the live one does.

    Args:
        trained: The run to export.
        output: New folder.
        fields: The fields of export.json.
        model: The live model.
        reader: A transcriber with the live model.
        recordings: Recordings to compare on.
        files: More files for the folder.
    """
    receptive_field, hop_samples = reader.geometry
    tokenizer = reader.tokenizer

    def check(folder: Path) -> ExportCheck:
        return compare(
            folder,
            ((recording.name, recording.waveform) for recording in _watched(recordings, "comparing")),
            read=lambda waveform: _read(reader, waveform),
            precision=fields["precision"],
        )

    return export(
        exported=build_export(
            model=model,
            tokenizer=tokenizer,
            decoder=trained.parts.span_graph_decoder,
            receptive_field=receptive_field,
            hop_samples=hop_samples,
            normalize=trained.normalizes,
        ),
        output=output,
        fields=fields,
        card=model_card(
            name=Path(output).name,
            fields=fields,
            config=trained.config.to_dict(),
            tokens=tokenizer.token_strings,
            evaluations=read_evaluations(trained.workdir, fields["step"]),
        ),
        tokenizer=tokenizer,
        check=check,
        more_files=files,
    )


def _watched(recordings: Sequence[Recording], what: str) -> Iterator[Recording]:
    """Yields recordings while a progress bar counts them."""
    with progress_bar(total=len(recordings), description=what, unit="recording") as bar:
        for recording in recordings:
            yield recording
            bar.update()


def _report(output: str, fields: Mapping[str, Any], result: ExportCheck, comparisons: Sequence[PortableCheck]) -> None:
    """Prints what was written and how it compares with the trained model."""
    print(
        f"{output}: {fields['num_parameters']:,} parameters of update {fields['step']}; {result.num_recordings} "
        f"recordings read as by the trained model (log-probabilities differ by {result.largest_difference:.2g} at most)"
    )
    if fields["changed"]["num_different_words"]:
        print(
            f"{fields['precision']} rounds differently without the parts that XLA compiles: "
            "{num_different_words} of {num_words} words differ from the run's own".format(**fields["changed"])
        )
    for found in comparisons:
        print(
            f"{output}/{found.file}: {found.num_bytes / 1e6:.1f} MB, {found.num_different_words} of {found.num_words} "
            f"words differ from the trained model's, {found.speed:.2f} times as fast"
        )


def _convert(
    formats: Sequence[str],
    recordings: Sequence[Recording],
    folder: Path,
    *,
    model: AcousticModel,
    transcriber: Transcriber,
) -> list[PortableCheck]:
    """Writes the files of other formats to a folder and compares each with the trained model."""
    if not formats:
        return []
    if not recordings:
        raise ValueError("nothing to check the export with: give some recordings to --inputs")
    module = portable.build_portable(model, normalize=transcriber.normalizes)
    portable.save_portable(module, folder / "plain")
    found = []
    with progress_bar(total=len(formats), description="converting", unit="format") as bar:
        for name in formats:
            path = folder / portable.FILES[name]
            portable.convert(folder / "plain", name, path)
            # One at a time: each needs memory for all weights, some formats twice.
            found.append(
                check_portable(
                    name,
                    path.stat().st_size,
                    portable.load_portable(path, name),
                    recordings,
                    trained=lambda waveform: module.logits(tf.constant(waveform[np.newaxis]))["logits"][0].numpy(),
                    to_text=transcriber.text_of_log_probs,
                )
            )
            bar.update()
    return found


def _read(transcriber: Transcriber, waveform: np.ndarray) -> tuple[str, np.ndarray]:
    """Returns the live model's text and log-probabilities for a recording of one window."""
    (log_probs,) = transcriber.log_probs([transcriber.normalize(waveform)])
    return transcriber.text_of_log_probs(log_probs), log_probs


def _from_files(
    parts: Components, paths: Sequence[str], *, on_rate_mismatch: str, text_normalization: str
) -> Iterator[Recording]:
    for path in paths:
        blocks = parts.stream_audio(path, on_rate_mismatch=on_rate_mismatch)
        # A minute is enough for the comparison.
        waveform = np.concatenate([np.zeros(0, np.float32), *itertools.islice(blocks, 2)])
        yield Recording(path, waveform, parts.find_reference(path, text_normalization=text_normalization))


def _from_sets(sets: Mapping[str, EvalData]) -> Iterator[Recording]:
    """Yields the first recordings of each evaluation set.

    They are already normalized if the model needs it; normalizing again changes only the last digits.
    """
    for data in sets.values():
        num_given = 0
        for batch in data.dataset(tf.distribute.InputContext()):
            columns = [batch[key] for key in ("waveform", "waveform_lengths", "weight", "utterance_index")]
            for waveform, length, weight, index in zip(*columns, strict=True):
                if weight > 0 and num_given < _NUM_CHECKED:
                    num_given += 1
                    samples = waveform.numpy()[: int(length)]
                    yield Recording(data.utterance_ids[int(index)], samples, data.references[int(index)])
            if num_given == _NUM_CHECKED:
                break
