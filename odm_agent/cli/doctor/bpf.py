"""The few calls of libbpf that the doctor needs, through ctypes (libbpf 1.x)."""

import ctypes
import functools
import os
import struct
from dataclasses import dataclass
from typing import Final

LIBRARY: Final = "libbpf.so.1"
BPF_MAP_TYPE_ARRAY: Final = 2
#: The attach flags of linux/bpf.h; 0 is exclusive.
ALLOW_OVERRIDE: Final = 1
ALLOW_MULTI: Final = 2
#: No hook of a cgroup holds more programs (BPF_CGROUP_MAX_PROGS).
MAX_PROGRAMS: Final = 64


@dataclass(frozen=True, slots=True)
class Attached:
    """The programs at one hook of one cgroup, and with which flags they were attached."""

    names: tuple[str, ...]
    flags: int


@functools.cache
def library() -> ctypes.CDLL:
    """libbpf; raises OSError when it is not installed."""
    return ctypes.CDLL(LIBRARY, use_errno=True)


def try_map() -> None:
    """Make and forget the smallest map; raises OSError."""
    os.close(_checked(library().bpf_map_create(BPF_MAP_TYPE_ARRAY, b"odm_doctor", 4, 4, 1, None)))


def attached(cgroup_fd: int, hook: int) -> Attached:
    """What is attached to the cgroup itself (not to those above it); raises OSError."""
    flags = ctypes.c_uint32()
    ids = (ctypes.c_uint32 * MAX_PROGRAMS)()
    count = ctypes.c_uint32(MAX_PROGRAMS)
    _checked(
        library().bpf_prog_query(cgroup_fd, hook, 0, ctypes.byref(flags), ids, ctypes.byref(count))
    )
    return Attached(tuple(program_name(ids[n]) for n in range(count.value)), flags.value)


def program_name(program_id: int) -> str:
    """The name of a loaded program; its number where it has none, or has just gone."""
    fd = library().bpf_prog_get_fd_by_id(program_id)
    if fd < 0:
        return f"program {program_id}"
    try:
        # struct bpf_prog_info: the name is 16 bytes at offset 64. A kernel that knows a longer
        # struct fills what fits.
        info = ctypes.create_string_buffer(80)
        size = ctypes.c_uint32(len(info))
        _checked(library().bpf_obj_get_info_by_fd(fd, info, ctypes.byref(size)))
    finally:
        os.close(fd)
    (name,) = struct.unpack_from("16s", info.raw, 64)
    return name.rstrip(b"\0").decode(errors="replace") or f"program {program_id}"


def _checked(result: int) -> int:
    """libbpf 1.x answers -errno; here it becomes an OSError."""
    if result < 0:
        raise OSError(-result, os.strerror(-result))
    return result
