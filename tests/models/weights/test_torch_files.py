"""PyTorch's zip files, made without PyTorch: numbers, views, what is refused and what is damaged."""

from __future__ import annotations

import io
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from models.weights.torch_files import TorchFileError, is_zip, load, tensors_of


class FakeTensor:
    """Is pickled as PyTorch pickles a tensor: a call of _rebuild_tensor_v2 on a storage that lies elsewhere."""

    def __init__(self, key, storage, *, shape=None, strides=None, offset=0):
        self.key, self.storage = key, np.asarray(storage)
        self.shape = self.storage.shape if shape is None else shape
        self.strides = (
            tuple(step // self.storage.itemsize for step in self.storage.strides) if strides is None else strides
        )
        self.offset = offset

    def __reduce__(self):
        arguments = (Storage(self), self.offset, self.shape, self.strides, False, OrderedDict())
        return sys.modules["torch._utils"]._rebuild_tensor_v2, arguments


class Storage:
    def __init__(self, tensor):
        self.tensor = tensor


class Pickler(pickle.Pickler):
    types = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "uint16": "BFloat16Storage"}

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        storage = obj.tensor.storage
        kind = getattr(sys.modules["torch"], self.types[storage.dtype.name])
        return ("storage", kind, obj.tensor.key, "cpu", storage.size)


@pytest.fixture(autouse=True)
def torch_names(monkeypatch):
    """Names that the pickles refer to; nothing of them is ever called."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in Pickler.types.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


def write(path, content, *, storages, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", np.asarray(storage).tobytes())
    return path


def write_tensors(path, **tensors):
    return write(path, OrderedDict(tensors), storages={tensor.key: tensor.storage for tensor in tensors.values()})


def test_tensors_and_views_have_their_numbers(tmp_path):
    numbers = np.arange(6, dtype=np.float32)
    path = write_tensors(
        tmp_path / "model.bin",
        whole=FakeTensor("0", numbers.reshape(2, 3)),
        transposed=FakeTensor("1", numbers, shape=(3, 2), strides=(1, 3)),
        part=FakeTensor("2", numbers, shape=(2,), strides=(1,), offset=3),
        half=FakeTensor("3", np.array([1.5, -2], np.float16)),
        brain=FakeTensor("4", np.array([0x3FC0], np.uint16), shape=(1,), strides=(1,)),
        scalar=FakeTensor("5", np.array([7], np.int64), shape=(), strides=()),
    )
    assert is_zip(path)
    tensors = tensors_of(load(path))
    assert {name: tensor.shape for name, tensor in tensors.items()}["transposed"] == (3, 2)
    np.testing.assert_array_equal(tensors["whole"].read(), numbers.reshape(2, 3))
    np.testing.assert_array_equal(tensors["transposed"].read(), numbers.reshape(2, 3).T)
    np.testing.assert_array_equal(tensors["part"].read(), [3, 4])
    np.testing.assert_array_equal(tensors["half"].read(), np.array([1.5, -2], np.float16))
    assert tensors["brain"].read().astype(np.float32).tolist() == [1.5]
    assert tensors["scalar"].read() == 7


class Evil:
    ran: list[str] = []

    def __reduce__(self):
        return os.mkdir, ("made-by-a-pickle",)


def test_other_functions_are_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "evil.bin", {"a": Evil()}, storages={})
    with pytest.raises(TorchFileError, match=r"names posix.mkdir, which is no tensor; none of it was run"):
        load(path)
    assert not (tmp_path / "made-by-a-pickle").exists()


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (FakeTensor("0", np.zeros(4, np.float32), shape=(5,), strides=(1,)), "larger than its numbers"),
        (FakeTensor("0", np.zeros(4, np.float32), shape=(2,), strides=(4,)), "larger than its numbers"),
        (FakeTensor("0", np.zeros(4, np.float32), shape=(2,), strides=(1,), offset=3), "larger than its numbers"),
        (FakeTensor("0", np.zeros(4, np.float32), shape=(2,), strides=(-1,), offset=3), "no valid shape"),
        (FakeTensor("0", np.zeros(4, np.float32), shape=(2, 2), strides=(1,)), "no valid shape"),
        (FakeTensor("0", np.zeros(4, np.float32), shape=(10**9, 10**9), strides=(0, 0)), "larger than its numbers"),
    ],
)
def test_shapes_that_reach_past_the_numbers_are_refused(tmp_path, tensor, reason):
    with pytest.raises(TorchFileError, match=reason):
        load(write_tensors(tmp_path / "model.bin", a=tensor))


def test_storage_of_another_size_is_refused(tmp_path):
    tensor = FakeTensor("0", np.zeros(4, np.float32))
    path = write(tmp_path / "model.bin", {"a": tensor}, storages={"0": np.zeros(3, np.float32)})
    with pytest.raises(TorchFileError, match="0 has 12 bytes for 4 numbers"):
        load(path)


def test_damage_anywhere_is_one_error(tmp_path):
    path = write_tensors(tmp_path / "model.bin", a=FakeTensor("0", np.arange(50, dtype=np.float32)))
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        try:
            for tensor in tensors_of(load(path)).values():
                tensor.read()
        except TorchFileError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 150  # the rest hit what nobody reads, such as a date


@pytest.mark.parametrize("content", [[1, 2], {1: 2}, {"a": {"b": 1}}])
def test_what_is_not_a_state_dict_is_refused(content):
    with pytest.raises(TorchFileError, match="not a mapping of names to tensors"):
        tensors_of(content)
