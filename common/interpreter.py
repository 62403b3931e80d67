"""Prints in one line why an interpreter cannot run Earshot; `make install` and .ci/run call it before pip.

    python3.12 common/interpreter.py

Every interpreter must be able to parse this file, so it avoids modern syntax.
"""

import struct
import sys
import sysconfig

LOWEST, HIGHEST = (3, 11), (3, 13)
_POINTER_BYTES = struct.calcsize("P")
_IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
_PLATFORM = str(sysconfig.get_config_var("HOST_GNU_TYPE"))
# Modules that a build of Python may lack; pip needs the first two, TensorFlow the third.
_COMPILED = ("_ssl", "zlib", "_ctypes")


def find_fault(
    version=sys.version_info,
    description=sys.version,
    pointer_bytes=_POINTER_BYTES,
    is_free_threaded=_IS_FREE_THREADED,
    platform=_PLATFORM,
    has_module=None,
):
    """Returns why an interpreter cannot run Earshot and what to do, or "" if it can.

    Args:
        version: Version as (major, minor, ...).
        description: `sys.version`, which names PyPy.
        pointer_bytes: Size of a pointer in bytes.
        is_free_threaded: Whether it is built without the interpreter lock.
        platform: GNU name of the platform.
        has_module: Function that returns whether a module of the standard library exists.
    """
    number = str(version[0]) + "." + str(version[1])
    kind = ""
    if "PyPy" in description:
        kind = "PyPy"
    elif not LOWEST <= tuple(version[:2]) <= HIGHEST:
        kind = "Python " + number
    elif pointer_bytes != 8:
        kind = "a 32-bit Python"
    elif is_free_threaded:
        kind = "a free-threaded Python"
    elif "musl" in platform:
        kind = "a Python for musl instead of glibc"
    if kind:
        return "is " + kind + ", for which TensorFlow 2.20 has no wheels; take CPython 3.11, 3.12 or 3.13 of 64 bits"
    if has_module is None:
        from importlib.util import find_spec as has_module  # Python 2 has none
    if not (has_module("venv") and has_module("ensurepip")):
        return "has no venv or ensurepip; on Debian and Ubuntu: apt install python" + number + "-venv"
    missing = [name for name in _COMPILED if not has_module(name)]
    if missing:
        return "was built without " + ", ".join(missing) + "; take another build of Python " + number
    return ""


if __name__ == "__main__":
    fault = find_fault()
    if fault:
        sys.stdout.write(sys.executable + " " + fault + "\n")
    sys.exit(1 if fault else 0)
