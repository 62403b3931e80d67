"""PyTorch's files, made without PyTorch: numbers, views, what is refused, what is inert and what is damaged."""

from __future__ import annotations

import argparse
import os
import zipfile
from collections import OrderedDict

import numpy as np
import pytest

from models.weights.torch_files import is_zip, load, tensors_of
from models.weights.unpickling import Inert, TorchFileError, plain
from tests.helpers.torch_made import FakeTensor, torch_names, write_old, write_zip


@pytest.fixture(autouse=True)
def names():
    with torch_names():
        yield


def write_tensors(path, *, write=write_zip, **tensors):
    return write(path, OrderedDict(tensors), storages={tensor.key: tensor.storage for tensor in tensors.values()})


@pytest.mark.parametrize("write", [write_zip, write_old])
def test_tensors_and_views_have_their_numbers(tmp_path, write):
    numbers = np.arange(6, dtype=np.float32)
    path = write_tensors(
        tmp_path / "model.bin",
        write=write,
        whole=FakeTensor("0", numbers.reshape(2, 3)),
        transposed=FakeTensor("1", numbers, shape=(3, 2), strides=(1, 3)),
        part=FakeTensor("2", numbers, shape=(2,), strides=(1,), offset=3),
        half=FakeTensor("3", np.array([1.5, -2], np.float16)),
        brain=FakeTensor("4", np.array([0x3FC0], np.uint16), shape=(1,), strides=(1,)),
        scalar=FakeTensor("5", np.array([7], np.int64), shape=(), strides=()),
    )
    assert is_zip(path) == (write is write_zip)
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


@pytest.mark.parametrize("write", [write_zip, write_old])
@pytest.mark.parametrize(("inert", "what"), [(False, "no tensor"), (True, "neither a tensor nor a known config")])
def test_other_functions_are_refused_and_not_run(tmp_path, monkeypatch, write, inert, what):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "evil.bin", {"a": Evil()}, storages={})
    with pytest.raises(TorchFileError, match=f"names posix.mkdir, which is {what}; none of it was run"):
        load(path, inert=inert)
    assert not (tmp_path / "made-by-a-pickle").exists()


def test_names_that_run_code_are_refused_among_inert_objects(tmp_path):
    for pickled in (b"cbuiltins\neval\n(X\x01\x00\x00\x001tR.", b"c__builtin__\ngetattr\n.", b"cos\nsystem\n."):
        with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
            archive.writestr("archive/data.pkl", pickled)
        with pytest.raises(TorchFileError, match="none of it was run"):
            load(tmp_path / "evil.pt", inert=True)


def test_configs_of_training_programs_become_data_where_they_are_asked_for(tmp_path):
    with torch_names(omegaconf__dictconfig=["DictConfig"], omegaconf__nodes=["AnyNode"], fairseq__x=["Kind"]) as names:

        def node(kind, **state):
            made = getattr(names[f"omegaconf.{kind[0]}"], kind[1])()
            vars(made).update(state, _parent=None)
            return made

        class Kind(names["fairseq.x"].Kind):
            def __reduce__(self):
                return names["fairseq.x"].Kind, ("gelu",)

        layers = node(("nodes", "AnyNode"), _val=12)
        config = node(("dictconfig", "DictConfig"), _content={"layers": layers, "act": Kind(), "more": [1, None]})
        content = {"cfg": config, "args": argparse.Namespace(arch="wav2vec2", w2v_args=argparse.Namespace(x=1.5))}
        for write in (write_zip, write_old):
            path = write(tmp_path / "a.pt", content, storages={})
            with pytest.raises(TorchFileError, match="which is no tensor; none of it was run"):
                load(path)
            found = load(path, inert=True)
            assert isinstance(found["cfg"], Inert) and found["cfg"].kind == "omegaconf.dictconfig.DictConfig"
            assert plain(found["cfg"]) == {"layers": 12, "act": "gelu", "more": [1, None]}
            assert plain(found["args"]) == {"arch": "wav2vec2", "w2v_args": {"x": 1.5}}


class Tampering(FakeTensor):
    """Is pickled with a state that overwrites fields of the tensor that was made."""

    def __reduce__(self):
        return (*super().__reduce__(), self.state)


@pytest.mark.parametrize("state", [{"shape": (10**9,)}, (None, {"shape": (10**9,)}), {"read": None}])
@pytest.mark.parametrize("inert", [False, True])
def test_a_pickle_cannot_overwrite_the_tensors_that_it_has_made(tmp_path, state, inert):
    tensor = Tampering("0", np.zeros(4, np.float32))
    tensor.state = state
    with pytest.raises(TorchFileError, match="its pickle overwrites what it has made"):
        load(write_tensors(tmp_path / "model.bin", a=tensor), inert=inert)


class TamperingDict(OrderedDict):
    """Is pickled with a state that hides the methods of the dict, where a state dict has its `_metadata`."""

    def __reduce__(self):
        return OrderedDict, (), {"items": 1, "get": 1}, None, iter(self.items())


def test_a_pickle_cannot_overwrite_the_methods_of_a_dict(tmp_path):
    tensor = FakeTensor("0", np.zeros(4, np.float32))
    path = write_zip(tmp_path / "model.bin", TamperingDict(a=tensor), storages={"0": tensor.storage})
    assert tensors_of(load(path)).keys() == {"a"}


def test_a_config_without_end_is_refused():
    doubled = []
    for _ in range(40):
        doubled = [doubled, doubled]
    with pytest.raises(TorchFileError, match="has more than 1000000 values"):
        plain(doubled)
    config = Inert()
    config.state = {"_content": {"a": config}}
    with pytest.raises(TorchFileError, match="nested too deeply"):
        plain(config)


def test_old_files_are_refused_where_the_numbers_are_not_theirs(tmp_path):
    tensor = FakeTensor("0", np.zeros(4, np.float32))
    path = write_old(tmp_path / "a.bin", {"a": tensor}, storages={"0": np.zeros(3, np.float32)})
    with pytest.raises(TorchFileError, match="0 has 3 numbers instead of 4"):
        load(path)
    path = write_old(tmp_path / "a.bin", {"a": tensor}, storages={})
    with pytest.raises(TorchFileError, match="numbers are missing"):
        load(path)["a"].read()
    path = write_old(tmp_path / "a.bin", {"a": tensor}, storages={"0": tensor.storage}, little_endian=False)
    with pytest.raises(TorchFileError, match="big-endian"):
        load(path)
    for content in (b"", b"PK", b"\x80\x02K\x01.", b"text"):
        (tmp_path / "a.bin").write_bytes(content)
        with pytest.raises(TorchFileError):
            load(tmp_path / "a.bin")


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
    path = write_zip(tmp_path / "model.bin", {"a": tensor}, storages={"0": np.zeros(3, np.float32)})
    with pytest.raises(TorchFileError, match="0 has 12 bytes for 4 numbers"):
        load(path)


@pytest.mark.parametrize(("write", "least"), [(write_zip, 150), (write_old, 80)])
def test_damage_anywhere_is_one_error(tmp_path, write, least):
    tensor = FakeTensor("0", np.arange(50, dtype=np.float32))
    path = write_tensors(tmp_path / "model.bin", write=write, a=tensor)
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
    assert refused > least  # the rest hit what nobody reads, such as a date, or numbers without a checksum


@pytest.mark.parametrize("content", [[1, 2], {1: 2}, {"a": {"b": 1}}])
def test_what_is_not_a_state_dict_is_refused(content):
    with pytest.raises(TorchFileError, match="not a mapping of names to tensors"):
        tensors_of(content)
