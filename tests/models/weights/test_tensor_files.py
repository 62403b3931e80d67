"""Reading the weights of a Hugging Face folder; tests/models/test_convert.py reads whole models."""

import contextlib
import json

import numpy as np
import pytest

from models.weights.tensor_files import open_tensors, save_tensors
from tests.helpers.torch_made import FakeTensor, torch_names, write_old, write_zip


def test_saved_tensors_are_read_back(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones([], np.float32)}
    save_tensors(tensors, tmp_path)
    with contextlib.ExitStack() as stack:
        found = open_tensors(tmp_path, stack)
        assert {name: tensor.shape for name, tensor in found.items()} == {"a": (2, 3), "b": ()}
        for name, tensor in found.items():
            np.testing.assert_array_equal(tensor.read(), tensors[name])


def test_a_folder_without_weights_is_told_what_was_looked_for(tmp_path):
    wanted = "no weights; looked for model.safetensors, pytorch_model.bin, tf_model.h5 and their .index.json"
    with contextlib.ExitStack() as stack, pytest.raises(FileNotFoundError, match=wanted):
        open_tensors(tmp_path, stack)


def test_a_type_that_numpy_does_not_have_is_one_line(tmp_path):
    header = json.dumps({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with contextlib.ExitStack() as stack:
        tensors = open_tensors(tmp_path, stack)
        assert tensors["a"].shape == (8,)
        with pytest.raises(ValueError, match="model.safetensors: a has type F8_E4M3; supported are float32"):
            tensors["a"].read()


def read_all(folder):
    with contextlib.ExitStack() as stack:
        return {name: tensor.read() for name, tensor in open_tensors(folder, stack).items()}


def test_pytorch_shards_are_read_by_their_index_in_both_formats_and_in_half_precision(tmp_path):
    with torch_names():
        a = FakeTensor("0", np.array([1.5, 2], np.float16))
        b = FakeTensor("0", np.array([0x3FC0], np.uint16))  # 1.5 as bfloat16
        write_zip(tmp_path / "pytorch_model-1.bin", {"a": a}, storages={"0": a.storage})
        write_old(tmp_path / "pytorch_model-2.bin", {"b": b}, storages={"0": b.storage})
    places = {"a": "pytorch_model-1.bin", "b": "pytorch_model-2.bin"}
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    found = read_all(tmp_path)
    assert {name: (array.dtype.name, array.tolist()) for name, array in found.items()} == {
        "a": ("float32", [1.5, 2.0]),
        "b": ("float32", [1.5]),
    }
    index.write_text(json.dumps({"weight_map": {**places, "c": "pytorch_model-3.bin"}}))
    with pytest.raises(FileNotFoundError, match="pytorch_model-3.bin: no such file, but pytorch_model.bin.index.json"):
        read_all(tmp_path)
    index.write_text(json.dumps({"weight_map": {**places, "c": "pytorch_model-2.bin"}}))
    with pytest.raises(ValueError, match="tensor c is not in the shard listed for it"):
        read_all(tmp_path)
