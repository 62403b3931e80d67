"""`--mode=export`: from a workdir to the folder that `engine.inference.export.saved_model` writes."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from common import storage
from common.model_card import read_evaluations
from engine.checkpointing.restore import find_weights, step_of
from engine.common.progress import progress_bar
from engine.config import builders
from engine.inference.export import portable
from engine.inference.export.model_card import model_card
from engine.inference.export.portable_check import PortableCheck, Recording, check_portable, count_changed_words
from engine.inference.export.saved_model import ExportCheck, build_export, check_new, compare, export, folder_beside
from engine.inference.exported import read_export_fields
from engine.inference.inputs import find_audio
from engine.inference.loading import load_trained
from engine.inference.transcriber import SAMPLE_RATE, Transcriber
from engine.inference.windows import LogitsChunk
from engine.protocols import AcousticModel, Components, EvalData, Tokenizer

# A graph with parts that XLA must compile runs only where its compiler is linked in (TensorFlow Serving's GPU server
# has none), and converts to nothing else.
_EXPORTED_REGIONS = "off"
# Share of words that this other order of the same arithmetic may change: half precision rounds otherwise in it.
_DIFFERENT_WORDS = {"float32": 0.0, "mixed_bfloat16": 0.02, "mixed_float16": 0.02}
_NUM_CHECKED = 8  # recordings of each evaluation set, where --inputs names none


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
        parts: What data and models contribute.
        checkpoint: A workdir, or a checkpoint inside one.
        inputs: Recordings that the export must read as the live model does; empty takes some of the evaluation sets.
        output: New folder.
        weights: As `engine.checkpointing.restore.restore_weights`.
        formats: Of `portable.FILES`, to write beside the SavedModel.

    Raises:
        ValueError: If an argument is missing or names nothing, or the exported model, or one of another format, reads
            otherwise.
    """
    if not output:
        raise ValueError("--output is empty: name the folder to write")
    check_new(output)
    portable.check_formats(formats)
    paths = find_audio(inputs) if inputs else []
    if read_export_fields(checkpoint) is not None:
        raise ValueError(f"{checkpoint}: exported already; give the workdir that it came from to --checkpoint")
    config, workdir = builders.load_run(checkpoint)

    normalize = builders.normalizes(config)

    def load(precision: str = "", fused_ops: str = _EXPORTED_REGIONS) -> tuple[AcousticModel, Tokenizer]:
        return load_trained(
            parts=parts, checkpoint=checkpoint, weights=weights, precision=precision, fused_ops=fused_ops
        )

    def read_with(model: AcousticModel) -> Transcriber:
        return Transcriber(
            model=model,
            span_decoder=parts.span_decoder,
            tokenizer=tokenizer,
            count_samples=parts.count_samples,
            stream_audio=parts.stream_audio,
            normalize_waveform=parts.normalize_waveform if normalize else None,
        )

    model, tokenizer = load()
    parts = builders.with_blank(parts, tokenizer)
    transcriber = read_with(model)
    path = find_weights(checkpoint, weights=weights)
    receptive_field, hop_samples = transcriber.geometry
    fields = {
        "num_parameters": sum(int(variable.shape.num_elements()) for variable in model.variables),
        "num_tokens": tokenizer.num_tokens,
        "blank_id": tokenizer.blank_id,
        "delimiter_id": next((index for index, piece in enumerate(tokenizer.token_strings) if piece.isspace()), None),
        "normalize_waveform": normalize,
        "sample_rate": SAMPLE_RATE,
        "samples_per_frame": hop_samples,
        "text_normalization": config.data.text_normalization,
        "on_rate_mismatch": config.data.on_rate_mismatch,
        "precision": config.train.precision,
        "step": step_of(path),
        "checkpoint": storage.absolute(path).removeprefix(f"{workdir}/"),
        "tensorflow": tf.__version__,
    }
    portable.check_sizes(formats, num_weights=fields["num_parameters"])
    recordings = list(
        _from_files(
            parts,
            paths,
            on_rate_mismatch=config.data.on_rate_mismatch,
            text_normalization=config.data.text_normalization,
        )
        if paths
        else _from_sets(builders.build_eval_data(config, parts, tokenizer))
    )
    changes = count_changed_words(
        recordings,
        *(
            [_read(reader, recording.waveform)[0] for recording in _watched(recordings, what)]
            for reader, what in ((read_with(load(fused_ops="")[0]), "reading"), (transcriber, "reading without XLA"))
        ),
        allowed=_DIFFERENT_WORDS[config.train.precision],
        who=f"the model without the parts that XLA compiles, in {config.train.precision},",
        advice="train it longer, or compare with more recordings (--inputs): what it hardly knows changes with every "
        "rounding",
    )
    fields["changed"] = {"num_words": changes.num_reference, "num_different_words": changes.num_errors}

    def check(folder: Path) -> ExportCheck:
        return compare(
            folder,
            ((recording.name, recording.waveform) for recording in _watched(recordings, "comparing")),
            read=lambda waveform: _read(transcriber, waveform),
            precision=config.train.precision,
        )

    with folder_beside(output, purpose="converting") as folder:
        comparisons = _convert(
            formats,
            recordings,
            folder,
            # Half precision is the training machine's matter; these formats have their own.
            model=model if config.train.precision == "float32" or not formats else load("float32")[0],
            transcriber=transcriber,
        )
        fields["formats"] = [dataclasses.asdict(comparison) for comparison in comparisons]
        result = export(
            exported=build_export(
                model=model,
                tokenizer=tokenizer,
                decoder=parts.span_graph_decoder,
                receptive_field=receptive_field,
                hop_samples=hop_samples,
                normalize=normalize,
            ),
            output=output,
            fields=fields,
            card=model_card(
                name=Path(output).name,
                fields=fields,
                config=config.to_dict(),
                tokens=tokenizer.token_strings,
                evaluations=read_evaluations(workdir, fields["step"]),
            ),
            tokenizer=tokenizer,
            check=check,
            more_files=[folder / comparison.file for comparison in comparisons],
        )
    _say(output, fields, result, comparisons)
    return 0


def _watched(recordings: Sequence[Recording], what: str) -> Iterator[Recording]:
    """Them one by one, under a progress bar."""
    with progress_bar(total=len(recordings), description=what, unit="recording") as bar:
        for recording in recordings:
            yield recording
            bar.update()


def _say(output: str, fields: Mapping[str, Any], result: ExportCheck, comparisons: Sequence[PortableCheck]) -> None:
    """Prints what was written and how it compares."""
    print(
        f"{output}: {fields['num_parameters']:,} parameters of update {fields['step']}; {result.num_recordings} "
        f"recordings read as by the trained model (log-probabilities differ by {result.largest_difference:.2g} at most)"
    )
    if fields["changed"]["num_different_words"]:
        print(
            f"{fields['precision']} rounds otherwise without the parts that XLA compiles: "
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
    """Writes the files of other formats to a folder, and says how each compares with the trained model."""
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
            # One at a time: each takes the memory of its weights, some twice.
            found.append(
                check_portable(
                    name,
                    path.stat().st_size,
                    portable.load_portable(path, name),
                    recordings,
                    trained=lambda waveform: module.logits(tf.constant(waveform[np.newaxis]))["logits"][0].numpy(),
                    to_text=lambda log_probs: transcriber.text_of([LogitsChunk(log_probs, 0)]),
                )
            )
            bar.update()
    return found


def _read(transcriber: Transcriber, waveform: np.ndarray) -> tuple[str, np.ndarray]:
    """Text and log-probabilities of the live model, as `transcribe` reads a recording of one window."""
    (log_probs,) = transcriber.log_probs([transcriber.normalize(waveform)])
    return transcriber.text_of([LogitsChunk(log_probs, 0)]), log_probs


def _from_files(
    parts: Components, paths: Sequence[str], *, on_rate_mismatch: str, text_normalization: str
) -> Iterator[Recording]:
    for path in paths:
        blocks = parts.stream_audio(path, on_rate_mismatch=on_rate_mismatch)
        # A minute shows what hours would.
        waveform = np.concatenate([np.zeros(0, np.float32), *itertools.islice(blocks, 2)])
        yield Recording(path, waveform, parts.find_reference(path, text_normalization=text_normalization))


def _from_sets(sets: Mapping[str, EvalData]) -> Iterator[Recording]:
    """The first recordings of each evaluation set; where the model hears them normalized, they are so already, and to
    do it again changes no more than the last digits."""
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
