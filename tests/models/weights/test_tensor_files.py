"""Reading the weights of a Hugging Face folder; tests/models/test_convert.py reads whole models."""

import contextlib
import json

import numpy as np
import pytest

from models.weights.tensor_files import open_tensors, save_tensors


def test_saved_tensors_are_read_back(tmp_path):
    tensors = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones([], np.float32)}
    save_tensors(tensors, tmp_path)
    with contextlib.ExitStack() as stack:
        found = open_tensors(tmp_path, stack)
        assert {name: tensor.shape for name, tensor in found.items()} == {"a": (2, 3), "b": ()}
        for name, tensor in found.items():
            np.testing.assert_array_equal(tensor.read(), tensors[name])


def test_a_folder_without_weights_is_told_what_was_looked_for(tmp_path):
    wanted = "no weights; looked for model.safetensors, model.safetensors.index.json and pytorch_model.bin"
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
