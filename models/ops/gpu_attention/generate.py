"""Writes the kernels' texts next to their source. Needs the packages `kernels` of setup.cfg, and no GPU.

python -m models.ops.gpu_attention.generate
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget

from models.ops.gpu_attention import kernels
from models.ops.gpu_attention.programs import BACKWARD, FORWARD, HEAD_SIZE, Program

_SHARED = {"qkv": "*bf16", "key_bias": "*fp32", "keys": "*u32", "sizes": "*i32", "factors": "*fp32"}
_FORWARD = {**_SHARED, "context": "*bf16", "lse": "*fp32"}
_BACKWARD = {**_SHARED, "lse": "*fp32", "along": "*fp32", "upstream": "*bf16", "to_qkv": "*bf16"}
_LOCATION = re.compile(r' loc\((?:#loc\d*|unknown|"[^"]*":\d+:\d+|callsite\([^()]*\))\)')


def write_out(program: Program, pointers: dict[str, str], *, drops: bool) -> str:
    """Returns a kernel's text for bfloat16, without the places of its source lines."""
    constants = {"DROPS": drops, "D": HEAD_SIZE, **dict(program.blocks)}
    signature = {**pointers, **dict.fromkeys(constants, "constexpr")}
    source = triton.compiler.ASTSource(
        fn=getattr(kernels, program.kernel),
        signature=signature,
        constexprs={(list(signature).index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in range(len(pointers))},
    )
    options = {"num_warps": program.num_warps, "num_stages": program.num_stages, "sanitize_overflow": False}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    lines = _LOCATION.sub("", compiled.asm["ttir"]).splitlines()
    return "\n".join(line for line in lines if line and not line.startswith("#loc")) + "\n"


def texts() -> dict[Path, str]:
    """Returns the text of each file."""
    return {
        Path(__file__).with_name(program.file_name(drops=drops)): write_out(program, pointers, drops=drops)
        for program, pointers in ((FORWARD, _FORWARD), (BACKWARD, _BACKWARD))
        for drops in (False, True)
    }


def differing_files() -> list[str]:
    """Returns the names of the files that are not what the source says."""
    return [path.name for path, text in texts().items() if path.read_text() != text]


def main() -> None:
    """Writes all texts."""
    for path, text in texts().items():
        unfinished = path.with_suffix(".new")
        unfinished.write_text(text)
        os.replace(unfinished, path)
        print(path.name)


if __name__ == "__main__":
    main()
