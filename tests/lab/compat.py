"""Socket calls as native 32-bit programs make them (x86 only; ENOSYS elsewhere).

The kernel runs no cgroup program for options that come by this door.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

from tests.lab.compiled import library


@cache
def prepare() -> ctypes.CDLL:
    """The calls, compiled: before the caller gives up what it takes."""
    loaded = ctypes.CDLL(str(library(Path(__file__).with_name("compat.c"))))
    for name in ("compat_socket", "compat_setsockopt", "compat_getsockopt"):
        getattr(loaded, name).restype = ctypes.c_long
    return loaded


def open_socket(family: int, kind: int, protocol: int = 0) -> int:
    """The descriptor of a new socket; OSError."""
    return _checked(prepare().compat_socket(family, kind, protocol))


def set_option(fd: int, level: int, option: int, value: bytes) -> None:
    """setsockopt(2); OSError."""
    _checked(prepare().compat_setsockopt(fd, level, option, value, len(value)))


def get_option(fd: int, level: int, option: int) -> int:
    """getsockopt(2) of four bytes; OSError."""
    return _checked(prepare().compat_getsockopt(fd, level, option))


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
