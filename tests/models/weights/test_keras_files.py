"""Files of the former TensorFlow classes of transformers, in the layout that transformers 4.46 writes."""

from __future__ import annotations

import contextlib
import json

import h5py
import numpy as np
import pytest
from safetensors.numpy import save_file

from models.weights.tensor_files import open_tensors

RNG = np.random.default_rng(0)
# Path behind the class's name in the file -> numbers.
KERAS = {
    "wav2vec2/masked_spec_embed:0": RNG.normal(size=4),
    "wav2vec2/feature_extractor/conv_layers.0/conv/kernel:0": RNG.normal(size=(5, 1, 3)),
    "wav2vec2/feature_extractor/conv_layers.0/layer_norm/gamma:0": RNG.normal(size=3),
    "wav2vec2/feature_extractor/conv_layers.0/layer_norm/beta:0": RNG.normal(size=3),
    "wav2vec2/encoder/pos_conv_embed/conv/weight_g:0": RNG.normal(size=(7, 1, 1)),
    "wav2vec2/encoder/pos_conv_embed/conv/weight_v:0": RNG.normal(size=(4, 2, 7)),
    "wav2vec2/encoder/layers.0/attention/k_proj/kernel:0": RNG.normal(size=(4, 6)),
    "lm_head/kernel:0": RNG.normal(size=(4, 8)),
    "lm_head/bias:0": RNG.normal(size=8),
}
KERAS = {name: array.astype(np.float32) for name, array in KERAS.items()}
TORCH = {
    "wav2vec2.masked_spec_embed": KERAS["wav2vec2/masked_spec_embed:0"],
    "wav2vec2.feature_extractor.conv_layers.0.conv.weight": KERAS[
        "wav2vec2/feature_extractor/conv_layers.0/conv/kernel:0"
    ].transpose(2, 1, 0),
    "wav2vec2.feature_extractor.conv_layers.0.layer_norm.weight": KERAS[
        "wav2vec2/feature_extractor/conv_layers.0/layer_norm/gamma:0"
    ],
    "wav2vec2.feature_extractor.conv_layers.0.layer_norm.bias": KERAS[
        "wav2vec2/feature_extractor/conv_layers.0/layer_norm/beta:0"
    ],
    "wav2vec2.encoder.pos_conv_embed.conv.weight_g": KERAS["wav2vec2/encoder/pos_conv_embed/conv/weight_g:0"].reshape(
        1, 1, 7
    ),
    "wav2vec2.encoder.pos_conv_embed.conv.weight_v": KERAS["wav2vec2/encoder/pos_conv_embed/conv/weight_v:0"],
    "wav2vec2.encoder.layers.0.attention.k_proj.weight": KERAS["wav2vec2/encoder/layers.0/attention/k_proj/kernel:0"].T,
    "lm_head.weight": KERAS["lm_head/kernel:0"].T,
    "lm_head.bias": KERAS["lm_head/bias:0"],
}


def check(folder, wanted):
    with contextlib.ExitStack() as stack:
        found = open_tensors(folder, stack)
        assert found.keys() == wanted.keys()
        for name, tensor in found.items():
            assert tensor.shape == wanted[name].shape, name
            np.testing.assert_array_equal(tensor.read(), wanted[name], err_msg=name)


def write_h5(path, arrays):
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array)


def test_a_whole_file_of_keras_has_the_names_and_the_layout_of_pytorch(tmp_path):
    # Keras repeats the first layer before the name of the class.
    write_h5(
        tmp_path / "tf_model.h5",
        {f"{name.split('/')[0]}/tf_wav2_vec2_for_ctc/{name}": array for name, array in KERAS.items()},
    )
    check(tmp_path, TORCH)


def test_shards_of_keras_are_read_by_their_index(tmp_path):
    names = sorted(KERAS)
    weight_map = {}
    for number, part in enumerate((names[:4], names[4:]), 1):
        shard = f"tf_model-0000{number}-of-00002.h5"
        write_h5(tmp_path / shard, {name: KERAS[name] for name in part})
        weight_map |= {f"tf_wav2_vec2_for_ctc/{name}": shard for name in part}
    index = tmp_path / "tf_model.h5.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    check(tmp_path, TORCH)
    weight_map.pop("tf_wav2_vec2_for_ctc/lm_head/kernel:0")
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(ValueError, match="tensor lm_head.weight is not in the shard listed for it"):
        check(tmp_path, TORCH)


def test_safetensors_of_a_tensorflow_class_are_those_of_pytorch(tmp_path):
    save_file(KERAS, tmp_path / "model.safetensors", metadata={"format": "tf"})
    check(tmp_path, TORCH)


def test_half_precision_is_read_and_other_types_are_refused(tmp_path):
    halves = {name: array.astype(np.float16) for name, array in KERAS.items()}
    write_h5(tmp_path / "tf_model.h5", halves)
    check(
        tmp_path,
        {name: array.astype(np.float16).astype(np.float32) for name, array in TORCH.items()},
    )
    write_h5(tmp_path / "tf_model.h5", {"lm_head/bias:0": np.zeros(3, np.int64)})
    with pytest.raises(ValueError, match="tf_model.h5: lm_head/bias:0 has type int64; supported are float32"):
        check(tmp_path, {"lm_head.bias": np.zeros(3)})


@pytest.mark.parametrize("keep", [0.0, 0.2, 0.9])
def test_a_broken_file_is_one_line(tmp_path, keep):
    path = tmp_path / "tf_model.h5"
    write_h5(path, KERAS)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(ValueError, match=r"tf_model.h5: not a whole HDF5 file \(.*; fetch it again") as caught:
        check(tmp_path, TORCH)
    assert "\n" not in str(caught.value)


def test_a_dataset_without_content_is_left_out(tmp_path):
    write_h5(tmp_path / "tf_model.h5", {**KERAS, "lm_head/empty:0": h5py.Empty("f")})
    check(tmp_path, TORCH)


def test_two_variables_of_one_name_are_refused(tmp_path):
    write_h5(tmp_path / "tf_model.h5", {"lm_head/bias:0": np.zeros(3), "lm_head/beta:0": np.zeros(3)})
    with pytest.raises(ValueError, match="lm_head.bias is there twice"):
        check(tmp_path, {})
