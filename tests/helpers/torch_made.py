"""Writes files as `torch.save` does, without PyTorch: the zip format, the one before it, and checkpoints of fairseq."""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict

import numpy as np

KINDS = {"float32": "FloatStorage", "float16": "HalfStorage", "int64": "LongStorage", "uint16": "BFloat16Storage"}
OLD_MAGIC = 0x1950A86A20F9469CFC6C


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
    is_old = False

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        storage = obj.tensor.storage
        kind = getattr(sys.modules["torch"], KINDS[storage.dtype.name])
        return ("storage", kind, obj.tensor.key, "cpu", storage.size, *([None] if self.is_old else []))


class OldPickler(Pickler):
    is_old = True


@contextlib.contextmanager
def torch_names(**more):
    """Names that the pickles refer to; nothing of them is ever called.

    Args:
        **more: Module, with __ for dots -> names of classes that it gets.
    """

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    modules = {"torch": types.ModuleType("torch"), "torch._utils": types.ModuleType("torch._utils")}
    modules["torch._utils"]._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in KINDS.values():
        setattr(modules["torch"], name, type(name, (), {"__module__": "torch"}))
    for key, names in more.items():
        module = key.replace("__", ".")
        modules |= {name: types.ModuleType(name) for name in _with_parents(module) if name not in modules}
        for name in names:
            setattr(modules[module], name, type(name, (), {"__module__": module}))
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        yield modules
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


def _with_parents(module):
    parts = module.split(".")
    return [".".join(parts[: end + 1]) for end in range(len(parts))]


def write_zip(path, content, *, storages, compression=zipfile.ZIP_STORED):
    """A file as torch.save writes it since PyTorch 1.6."""
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump(content)
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        for key, storage in storages.items():
            archive.writestr(f"archive/data/{key}", np.asarray(storage).tobytes())
    return path


def write_old(path, content, *, storages, little_endian=True):
    """A file as torch.save wrote it before PyTorch 1.6."""
    with open(path, "wb") as file:
        for value in (OLD_MAGIC, 1001, {"protocol_version": 1001, "little_endian": little_endian, "type_sizes": {}}):
            pickle.dump(value, file, protocol=2)
        OldPickler(file, protocol=2).dump(content)
        pickle.dump(sorted(storages), file, protocol=2)
        for key in sorted(storages):
            storage = np.asarray(storages[key])
            file.write(storage.size.to_bytes(8, "little") + storage.tobytes())
    return path


def write_checkpoint(path, tensors, *, write=write_zip, **more):
    """A checkpoint of arrays under "model", with what `more` puts beside them."""
    made = {name: FakeTensor(str(index), array) for index, (name, array) in enumerate(tensors.items())}
    storages = {tensor.key: tensor.storage for tensor in made.values()}
    return write(path, {"model": OrderedDict(made), **more}, storages=storages)
