"""Exports the backbone of a model as a SavedModel that a plain `hub.KerasLayer` can train without this project.

    python -m models.hub_export --input=DIR --output=SAVED_MODEL [--num_samples=246000] [--attention_mask]
    python -m models.hub_export --input=WORKDIR --output=FINE_TUNED [--checkpoint=WORKDIR/checkpoints]
    python -m models.hub_export --input=SAVED_MODEL --checkpoint=WORKDIR/best --output=FINE_TUNED

--input is a folder of `python -m models.convert` or the workdir of a run, whose best weights are taken. For a run that
trained a SavedModel (model.source=hub), the output is that graph with the run's weights; use the third form if the
SavedModel has moved.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common.arguments import Parser
from common.hub_input import INPUT_FILE, hub_normalizes
from common.near_files import describe_near
from common.readable import describe_error
from common.tensorflow_environment import set_tensorflow_defaults
from models.wav2vec2.config import PRECISIONS

# Functions import TensorFlow themselves, so that a wrong flag or path is reported at once.
if TYPE_CHECKING:
    import tensorflow as tf

    from models.wav2vec2.model import Wav2Vec2Backbone

PUBLISHED_NUM_SAMPLES = 246_000
# Largest difference from the live model that passes the check after an export, for states of magnitude about 1.
_TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.1, "mixed_float16": 0.02}
_CHECKED_SAMPLES = 16_000  # length of the check if the model takes any length


def export_backbone(
    backbone: Wav2Vec2Backbone,
    folder: str | os.PathLike[str],
    *,
    num_samples: int = PUBLISHED_NUM_SAMPLES,
    attention_mask: bool = False,
) -> float:
    """Writes a SavedModel, reads it again and checks that it equals the live backbone.

    It is called like the published wav2vec 2.0 of TF-Hub: `f(speech, training=...)` maps normalized speech, float32
    [B, T], to states, float32 [B, F, D]. With `attention_mask` it is `f((speech, mask), training=...)`, where mask,
    int32 [B, T], is 1 before each row's end and 0 after it. Without a mask every sample counts as speech. Training
    draws dropout, masks and layer drop from TensorFlow's random numbers. The SavedModel also has
    `output_lengths(num_samples)`. If the model takes speech that is not normalized, a file beside saved_model.pb says
    so (`common.hub_input`).

    Args:
        backbone: Network to export; its variables may be distributed.
        folder: Folder to write; must be absent or empty.
        num_samples: Number of samples T of a row; 0 = any.
        attention_mask: Whether the input includes an attention mask.

    Returns:
        The largest difference between the live and the exported states.

    Raises:
        ValueError: If `num_samples` makes no frame, the folder is not empty, or the check fails.
    """
    import tensorflow as tf

    target = Path(folder)
    if num_samples < 0 or (num_samples and not backbone.config.num_frames(num_samples)):
        raise ValueError(f"num_samples={num_samples} makes no frame; give 0 (any length) or {PUBLISHED_NUM_SAMPLES}")

    def save(path: Path) -> None:
        tf.saved_model.save(_exported(backbone, num_samples, attention_mask), os.fspath(path))
        if not backbone.config.normalize_waveform:
            (path / INPUT_FILE).write_text(json.dumps({"normalize_waveform": False}) + "\n", encoding="utf-8")

    write_saved_model(target, save)
    difference = _check(backbone, target, num_samples, attention_mask)
    if not difference <= _TOLERANCE[backbone.dtype_policy.name]:  # also if it is NaN
        raise ValueError(f"{target}: states differ by {difference:.3g} from those of the live model; do not use it")
    return difference


def write_saved_model(target: Path, save: Callable[[Path], None]) -> None:
    """Writes a folder under a temporary name and renames it.

    Raises:
        ValueError: If the target exists and is not empty.
        OSError: If it cannot be written.
    """
    import tensorflow as tf

    from models.wav2vec2 import pretrained

    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: is not empty; give --output a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target.parent))
    try:
        save(temporary / "model")
        os.replace(temporary / "model", target)
    except tf.errors.OpError as error:
        raise pretrained.write_error(target, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exported(backbone: Wav2Vec2Backbone, num_samples: int, attention_mask: bool) -> tf.Module:
    """Returns the object to save, with functions traced for training and inference and for one or two inputs."""
    import tensorflow as tf

    from models.ops.keyed_random import UpdateRandom
    from models.wav2vec2 import feature_encoder

    class Exported(tf.Module):
        """The object to save, with two lists of variables and two functions."""

        # tf.Module computes these, and a SavedModel does not keep what is computed: plain lists take their place.
        variables: list[tf.Variable] = []
        trainable_variables: list[tf.Variable] = []

    config = backbone.config

    def states(speech: tf.Tensor, attention_mask: tf.Tensor | None = None, training: bool = False) -> tf.Tensor:
        # The two-input form is one argument, a pair.
        waveform, mask = speech if isinstance(speech, (tuple, list)) else (speech, attention_mask)
        shape = tf.shape(waveform)
        lengths = tf.fill(shape[:1], shape[1])
        if mask is not None:
            lengths = tf.reduce_sum(tf.cast(mask, tf.int32), axis=1)
        random = None
        if training:
            # Drawn anew in each call: the caller has no seed, update or row ids to give.
            largest = tf.int32.max
            random = UpdateRandom(
                seed=tf.random.uniform([], maxval=largest, dtype=tf.int32),
                update=tf.random.uniform([], maxval=largest, dtype=tf.int32),
                row_ids=tf.random.uniform(shape[:1], maxval=largest, dtype=tf.int32),
            )
        hidden_states, _ = backbone(waveform, lengths, random)
        return tf.cast(hidden_states[-1], tf.float32)

    call = tf.function(states, autograph=False)
    size = num_samples or None
    speech = tf.TensorSpec([None, size], tf.float32, name="speech")
    mask = tf.TensorSpec([None, size], tf.int32, name="attention_mask")
    for training in (True, False):
        call.get_concrete_function((speech, mask) if attention_mask else speech, None, training)
    output_lengths = tf.function(
        lambda num_samples: feature_encoder.output_lengths(config, num_samples),
        input_signature=[tf.TensorSpec([None], tf.int32, name="num_samples")],
    )
    exported = Exported()
    exported.variables = list(backbone.variables)
    exported.trainable_variables = list(backbone.trainable_variables)
    # Attributes, not methods: the backbone stays in their closure. As an attribute Keras would save its layers too.
    exported.__call__ = call
    exported.output_lengths = output_lengths
    return exported


def _check(backbone: Wav2Vec2Backbone, folder: Path, num_samples: int, attention_mask: bool) -> float:
    """Returns the largest difference between the live and the reloaded states of two rows of noise."""
    import tensorflow as tf

    size = num_samples or _CHECKED_SAMPLES
    lengths = np.array([size, size * 3 // 4 if attention_mask else size])
    valid = np.arange(size) < lengths[:, np.newaxis]
    speech = (np.random.default_rng(0).normal(size=[2, size]) * valid).astype(np.float32)
    expected, frames = backbone(tf.constant(speech), tf.constant(lengths), None)
    loaded = tf.saved_model.load(os.fspath(folder))
    found = loaded((speech, valid.astype(np.int32)) if attention_mask else speech, training=False)
    is_frame = np.arange(found.shape[1]) < frames.numpy()[:, np.newaxis]
    return float(np.abs(np.where(is_frame[:, :, np.newaxis], found - tf.cast(expected[-1], tf.float32), 0)).max())


def _copy(handle: str, checkpoint: str, flags: argparse.Namespace) -> str:
    """Writes a SavedModel with the weights of a run and returns a line about it."""
    from models.hub.model import copy_with_weights

    if flags.attention_mask or flags.precision is not None or flags.num_samples is not None:
        raise ValueError(
            f"{handle} is a SavedModel, whose graph cannot change: leave out --num_samples, --attention_mask and "
            "--precision"
        )
    num_restored = 0

    def save(path: Path) -> None:
        nonlocal num_restored
        num_restored = copy_with_weights(handle, checkpoint, path)
        if not hub_normalizes(handle):
            shutil.copyfile(os.path.join(handle, INPUT_FILE), path / INPUT_FILE)

    write_saved_model(Path(flags.output), save)
    return f"{num_restored} variables of {checkpoint}, the graph of {handle}"


def _run(flags: argparse.Namespace) -> str:
    """Exports the input and returns a line about it."""
    if "://" not in flags.input and not os.path.exists(flags.input):
        raise ValueError(
            f"{flags.input}: no such folder{describe_near(flags.input)}; give a folder written by "
            "python -m models.convert, the workdir of a run, or a SavedModel"
        )
    from models.hub.signature import is_saved_model
    from models.wav2vec2 import pretrained

    if is_saved_model(flags.input):
        if not flags.checkpoint:
            raise ValueError("--checkpoint is empty: give the run whose weights the SavedModel gets")
        return _copy(flags.input, flags.checkpoint, flags)
    handle = pretrained.saved_model_of_run(flags.input)
    if handle is not None:
        return _copy(handle, flags.checkpoint or pretrained.find_run_checkpoint(flags.input), flags)
    return _export(flags)


def _export(flags: argparse.Namespace) -> str:
    """Exports a native model and returns a line about it."""
    import tensorflow as tf

    from models.wav2vec2 import pretrained
    from models.wav2vec2.model import Wav2Vec2ForCTC

    flags.precision = flags.precision or PRECISIONS[0]
    flags.num_samples = PUBLISHED_NUM_SAMPLES if flags.num_samples is None else flags.num_samples
    # Fused operations need XLA wherever the SavedModel is loaded, and a norm in float64 does not run on TPUs.
    config = dataclasses.replace(pretrained.read_config(flags.input), fused_ops="off")
    model = Wav2Vec2ForCTC(config=config, precision=flags.precision)
    pretrained.restore(model, flags.input, checkpoint=flags.checkpoint)
    model.merge_low_rank()
    difference = export_backbone(
        model.backbone, flags.output, num_samples=flags.num_samples, attention_mask=flags.attention_mask
    )
    length = f"{flags.num_samples} samples" if flags.num_samples else "any length"
    inputs = "(speech, attention_mask)" if flags.attention_mask else "speech"
    if not config.normalize_waveform:
        inputs += ", not normalized,"
    num_parameters = sum(int(tf.size(variable)) for variable in model.backbone.variables)
    return f"{num_parameters:,} parameters, input {inputs} of {length}; largest difference {difference:.2g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 2 after one line on stderr."""
    parser = Parser(prog="models.hub_export", description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--input", required=True, help="converted folder, workdir, or a SavedModel that was fine-tuned")
    parser.add_argument("--output", required=True, help="new folder for the SavedModel")
    parser.add_argument("--num_samples", type=int, help=f"samples of a row; 0 = any; default {PUBLISHED_NUM_SAMPLES}")
    parser.add_argument("--attention_mask", action="store_true", help="take (speech, attention_mask) as input")
    parser.add_argument("--precision", choices=PRECISIONS, help="precision of the exported graph; default float32")
    parser.add_argument("--checkpoint", default="", help="other weights of the run: a checkpoint or its folder")
    set_tensorflow_defaults()
    try:
        flags = parser.parse_args(argv)
        said = _run(flags)
    except (ValueError, OSError) as error:
        print(f"models.hub_export: {describe_error(error)}", file=sys.stderr)
        return 2
    print(f"{flags.input} -> {flags.output}\n{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
