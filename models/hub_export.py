"""TF-Hub out: the backbone of a model as a SavedModel that a plain `hub.KerasLayer` trains without this project.

    python -m models.hub_export --input=DIR --output=SAVED_MODEL [--num_samples=246000] [--attention_mask]
    python -m models.hub_export --input=WORKDIR --output=FINE_TUNED [--checkpoint=WORKDIR/checkpoints]
    python -m models.hub_export --input=SAVED_MODEL --checkpoint=WORKDIR/best --output=FINE_TUNED

--input is a folder of `python -m models.convert` or the workdir of a run, whose best weights are taken. A run that has
trained a SavedModel (model.source=hub) gives that graph with its weights; the third form is for one that has moved.
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
from common.nearest import near_path
from models.wav2vec2.config import PRECISIONS

# In the functions and not here: a wrong flag or path should not wait for TensorFlow.
if TYPE_CHECKING:
    import tensorflow as tf

    from models.wav2vec2.model import Wav2Vec2Backbone

PUBLISHED_NUM_SAMPLES = 246_000
# Largest difference to the live model that the check after an export lets pass, of states of size about 1.
_TOLERANCE = {"float32": 1e-4, "mixed_bfloat16": 0.1, "mixed_float16": 0.02}
_CHECKED_SAMPLES = 16_000  # of a model that takes any length


def export_backbone(
    backbone: Wav2Vec2Backbone,
    folder: str | os.PathLike[str],
    *,
    num_samples: int = PUBLISHED_NUM_SAMPLES,
    attention_mask: bool = False,
) -> float:
    """Writes a SavedModel and checks that, read again, it equals the live backbone.

    It is called as the published wav2vec 2.0 of TF-Hub is: `f(speech, training=...)`, speech float32 [B, T] normalized,
    to float32 states [B, F, D]; with `attention_mask`, `f((speech, mask), training=...)`, mask int32 [B, T] with ones
    before each row's end and zeros after it. Where the model hears speech as it is and not normalized, a file beside
    saved_model.pb says so to those who read it with model.source=hub (`common.hub_input`). Without a mask every sample
    counts as speech. Training draws dropout, masks and layer drop from TensorFlow's random numbers. It also has
    `output_lengths(num_samples [B])`, the frames.

    Args:
        backbone: The network; its variables need not be on one device.
        folder: To write; must not exist or be empty.
        num_samples: T; 0 = any.
        attention_mask: Whether to take the second input.

    Returns:
        The largest difference between the live and the exported states.

    Raises:
        ValueError: If a sample count makes no frame, the folder holds something, or the check fails.
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
    # not <=: NaN fails too
    if not difference <= _TOLERANCE[backbone.dtype_policy.name]:
        raise ValueError(f"{target}: states differ by {difference:.3g} from those of the live model; do not use it")
    return difference


def write_saved_model(target: Path, save: Callable[[Path], None]) -> None:
    """Writes a folder beside its place and moves it there.

    Raises:
        ValueError: If something is there already.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"{target}: is not empty; give --output a new folder")
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=".saving-", dir=target.parent))
    try:
        save(temporary / "model")
        os.replace(temporary / "model", target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _exported(backbone: Wav2Vec2Backbone, num_samples: int, attention_mask: bool) -> tf.Module:
    """Returns the object to save, its functions traced for training and not, for one or for two inputs."""
    import tensorflow as tf

    from models.ops.keyed_random import UpdateRandom
    from models.wav2vec2 import feature_encoder

    class Exported(tf.Module):
        """What is saved: two lists of variables and two functions."""

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
    """Returns the largest difference between live and reloaded states of two rows of noise."""
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
    """Writes a SavedModel with the weights of a run and returns what to say."""
    from models.hub.model import copy_with_weights

    if flags.attention_mask or flags.precision is not None or flags.num_samples is not None:
        raise ValueError(
            f"{handle} is a SavedModel, whose graph stays as it is: leave out --num_samples, --attention_mask and "
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
    """Exports and returns what to say."""
    if "://" not in flags.input and not os.path.exists(flags.input):
        raise ValueError(
            f"{flags.input}: no such folder{near_path(flags.input)}; give a folder written by "
            "python -m models.convert, the workdir of a run, or a SavedModel"
        )
    import tensorflow as tf

    from models.hub.signature import is_saved_model
    from models.wav2vec2 import pretrained
    from models.wav2vec2.model import Wav2Vec2ForCTC

    if is_saved_model(flags.input):
        if not flags.checkpoint:
            raise ValueError("--checkpoint is empty: a SavedModel is exported again with the weights of a run")
        return _copy(flags.input, flags.checkpoint, flags)
    handle = pretrained.saved_model_of_run(flags.input)
    if handle is not None:
        return _copy(handle, flags.checkpoint or pretrained.find_run_checkpoint(flags.input), flags)
    flags.precision = flags.precision or PRECISIONS[0]
    flags.num_samples = PUBLISHED_NUM_SAMPLES if flags.num_samples is None else flags.num_samples
    # Parts that XLA must compile would not run wherever others load it, and a norm in float64 is kept off TPUs.
    config = dataclasses.replace(pretrained.read_config(flags.input), regions="off")
    model = Wav2Vec2ForCTC(config=config, precision=flags.precision)
    pretrained.restore(model, flags.input, checkpoint=flags.checkpoint)
    difference = export_backbone(
        model.backbone, flags.output, num_samples=flags.num_samples, attention_mask=flags.attention_mask
    )
    length = f"{flags.num_samples} samples" if flags.num_samples else "any length"
    inputs = "(speech, attention_mask)" if flags.attention_mask else "speech"
    if not config.normalize_waveform:
        inputs += ", as it is and not normalized,"
    num_parameters = sum(int(tf.size(variable)) for variable in model.backbone.variables)
    return f"{num_parameters:,} parameters, input {inputs} of {length}; largest difference {difference:.2g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0, or 2 after one line on stderr."""
    parser = Parser(prog="models.hub_export", description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--input", required=True, help="converted folder, workdir, or a SavedModel that was fine-tuned")
    parser.add_argument("--output", required=True, help="SavedModel to write: a new folder")
    parser.add_argument("--num_samples", type=int, help=f"of a row; 0 = any length; default {PUBLISHED_NUM_SAMPLES}")
    parser.add_argument("--attention_mask", action="store_true", help="take (speech, attention_mask)")
    parser.add_argument("--precision", choices=PRECISIONS, help="of the arithmetic, for good; default float32")
    parser.add_argument("--checkpoint", default="", help="other weights of the run: a checkpoint or its folder")
    try:
        flags = parser.parse_args(argv)
        said = _run(flags)
    except (ValueError, OSError) as error:
        print(f"models.hub_export: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{flags.input} -> {flags.output}\n{said}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
