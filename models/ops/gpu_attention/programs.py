"""The kernels' programs for XLA: their block sizes, and their texts in Triton's intermediate form."""

from __future__ import annotations

import dataclasses
import functools
import importlib.resources

HEAD_SIZE = 64  # of wav2vec 2.0 base and large, HuBERT, data2vec, XLS-R 300M


@dataclasses.dataclass(frozen=True)
class Program:
    """A kernel of `models.ops.gpu_attention.kernels`, as it is written out.

    Attributes:
        kernel: Its function's name.
        blocks: The function's constants by name: first the frames of a program, then those that it reads at a time.
        num_warps: Warps of a program.
        num_stages: Steps that are in flight at the same time.
    """

    kernel: str
    blocks: tuple[tuple[str, int], ...]
    num_warps: int
    num_stages: int

    @property
    def block(self) -> int:
        """Frames of a program."""
        return self.blocks[0][1]

    def file_name(self, *, drops: bool) -> str:
        """Returns the name of the file of its text, with or without dropout."""
        return f"{self.kernel}{'_dropout' if drops else ''}.mlir"

    def text(self, *, drops: bool, dtype: str) -> str:
        """Returns the text for qkv of `dtype`, "bf16" or "f16"."""
        return _read(self.file_name(drops=drops)).replace("bf16", dtype)


@functools.cache
def _read(name: str) -> str:
    return (importlib.resources.files(__package__) / name).read_text()  # for bf16


# Tried on an H200 with 32 rows of 768 frames and 12 heads (docs/results/0180).
FORWARD = Program("attention_forward", (("BLOCK_Q", 64), ("BLOCK_K", 128)), num_warps=4, num_stages=2)
BACKWARD = Program("attention_backward", (("BLOCK", 64), ("STEP_Q", 64), ("STEP_K", 64)), num_warps=4, num_stages=2)
