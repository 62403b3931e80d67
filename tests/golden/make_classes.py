"""Folders as `transformers` saves them from each class of the family, in every format, for the slow tests.

Runs in an environment of its own, with torch and transformers (tests/golden/make_golden.py says how):

    REF/bin/python tests/golden/make_classes.py --output=DIR

Writes DIR/CLASS for each class below, and of a CTC class DIR/FORMAT for each format, with the logits of
DIR/waveform.npy in DIR/logits.npy. Works with transformers 4.4x too.
"""

from __future__ import annotations

import argparse
import json
import runpy
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import transformers

_HEADS = ("Model", "ForCTC", "ForSequenceClassification")
_ALL_HEADS = (*_HEADS, "ForAudioFrameClassification", "ForXVector")
# Type -> its classes, by the end of their names.
CLASSES = {
    "Wav2Vec2": (*_ALL_HEADS, "ForPreTraining"),
    "Hubert": _HEADS,
    "WavLM": _ALL_HEADS,
    "UniSpeech": (*_HEADS, "ForPreTraining"),
    "UniSpeechSat": (*_ALL_HEADS, "ForPreTraining"),
    "Data2VecAudio": _ALL_HEADS,
    "Wav2Vec2Conformer": (*_ALL_HEADS, "ForPreTraining"),
    "Wav2Vec2Bert": _ALL_HEADS,
}
# By path, because nothing of the project can be imported in the environment of this script.
_SMALL = {
    **runpy.run_path(str(Path(__file__).with_name("make_golden.py")))["SMALL"],
    "num_feat_extract_layers": 3,
    "num_codevectors_per_group": 4,
    "codevector_dim": 8,
    "proj_codevector_dim": 8,
    "classifier_proj_size": 8,
    "tdnn_dim": (8, 8, 8, 8, 24),
    "xvector_output_dim": 8,
}
# The number of convolutions in data2vec's position embedding.
_OWN: dict[str, dict[str, object]] = {"Data2VecAudio": {"num_conv_pos_embeddings": 2, "conv_pos_kernel_size": 3}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", required=True, type=Path)
    output = parser.parse_args().output
    torch.manual_seed(0)
    for family, classes in CLASSES.items():
        for ending in classes:
            config = getattr(transformers, f"{family}Config")(**{**_SMALL, **_OWN.get(family, {})})
            model = getattr(transformers, f"{family}{ending}")(config).eval()
            model.save_pretrained(output / f"{family}{ending}")
            if (family, ending) == ("Wav2Vec2", "ForCTC"):
                write_formats(model, output)


def write_formats(model: torch.nn.Module, output: Path) -> None:
    """Writes one model in every format that PyTorch and transformers have."""
    waveform = np.random.default_rng(0).normal(size=(1, 3000)).astype(np.float32)
    with torch.no_grad():
        logits = model(torch.from_numpy(waveform)).logits.numpy()
    np.save(output / "waveform.npy", waveform)
    np.save(output / "logits.npy", logits)
    model.save_pretrained(output / "sharded", max_shard_size="20KB")
    state = OrderedDict((name, tensor.detach().clone()) for name, tensor in model.state_dict().items())
    for name in ("zip", "old", "shards", "float16", "bfloat16"):
        folder = output / name
        folder.mkdir()
        (folder / "config.json").write_text((output / "Wav2Vec2ForCTC" / "config.json").read_text())
        if name == "shards":
            _write_shards(state, folder)
            continue
        kept = state
        if name.endswith("float16"):
            kept = OrderedDict((key, tensor.to(getattr(torch, name))) for key, tensor in state.items())
        path = folder / "pytorch_model.bin"
        torch.save(kept, path, _use_new_zipfile_serialization=name != "old")


def _write_shards(state: OrderedDict[str, torch.Tensor], folder: Path) -> None:
    names = list(state)
    places = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"pytorch_model-0000{number}-of-00002.bin"
        torch.save({name: state[name] for name in part}, folder / shard)
        places |= dict.fromkeys(part, shard)
    index = {"metadata": {}, "weight_map": places}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


if __name__ == "__main__":
    main()
