"""The kernel's objects of BPF: found by pin or id, pinned, and asked what they are."""

import ctypes as ct
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath.libbpf.library import check, error_code, library

#: What the kernel keeps of a name.
NAME_SIZE: Final = 15
_MOST_MAPS: Final = 64


class _MapInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("name", ct.c_char * 16),
        ("ifindex", ct.c_uint32),
        ("btf_vmlinux_value_type_id", ct.c_uint32),
        ("netns", ct.c_uint64 * 2),
        ("btf_id", ct.c_uint32),
        ("btf_key_type_id", ct.c_uint32),
        ("btf_value_type_id", ct.c_uint32),
    )


class _ProgInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("tag", ct.c_uint8 * 8),
        ("code", ct.c_uint64 * 4),  # lengths and pointers of it, load time
        ("uid", ct.c_uint32),
        ("nr_map_ids", ct.c_uint32),
        ("map_ids", ct.c_uint64),
        ("name", ct.c_char * 16),
        ("rest", ct.c_uint8 * 136),  # type information, lines, statistics
        ("verified_insns", ct.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class MapInfo:
    """A map as the kernel describes it; names are cut to 15 characters."""

    id: int
    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int
    #: The numbers of its types in the type information (BTF) with which it was made.
    key_type: int
    value_type: int


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """A program, the maps that it holds, and how many instructions the verifier went through."""

    id: int
    type: int
    name: str
    map_ids: tuple[int, ...]
    verified: int


def get_pinned(path: Path) -> int:
    """A file descriptor of what is pinned at `path`; the caller closes it."""
    return check(library().bpf_obj_get(os.fsencode(path)), f"opening the pin {path}")


def find_pinned(path: Path) -> int | None:
    """The same; None if nothing is pinned there, perhaps not any more."""
    try:
        return get_pinned(path)
    except DatapathError as error:
        if error_code(error) != errno.ENOENT:
            raise
        return None


@contextmanager
def opened(fd: int) -> Iterator[int]:
    """A descriptor that is closed in the end."""
    try:
        yield fd
    finally:
        os.close(fd)


def pin(fd: int, path: Path) -> None:
    """Pin a map, program or link."""
    check(library().bpf_obj_pin(fd, os.fsencode(path)), f"pinning at {path}")


def map_by_id(map_id: int) -> int:
    """A descriptor of a map; the caller closes it."""
    return check(library().bpf_map_get_fd_by_id(map_id), "opening a map by its id")


def prog_by_id(prog_id: int) -> int:
    """A descriptor of a program; the caller closes it."""
    return check(library().bpf_prog_get_fd_by_id(prog_id), "opening a program by its id")


def programs() -> Iterator[int]:
    """A descriptor of every program of the host, each open for one round of the loop."""
    for prog_id in all_ids(library().bpf_prog_get_next_id):
        fd = library().bpf_prog_get_fd_by_id(prog_id)
        if fd >= 0:  # else gone meanwhile
            try:
                yield fd
            finally:
                os.close(fd)


def map_info(map_fd: int) -> MapInfo:
    """What a map is."""
    info = map_info_of(map_fd)
    return MapInfo(
        info.id,
        info.name.decode(),
        info.type,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.map_flags,
        info.btf_key_type_id,
        info.btf_value_type_id,
    )


def map_info_of(map_fd: int) -> _MapInfo:
    """The same, as the kernel fills it in."""
    info = _MapInfo()
    object_info(map_fd, info)
    return info


def prog_info(prog_fd: int) -> ProgInfo:
    """What a program is."""
    ids = (ct.c_uint32 * _MOST_MAPS)()
    info = _ProgInfo(nr_map_ids=_MOST_MAPS, map_ids=ct.addressof(ids))
    object_info(prog_fd, info)
    held = tuple(ids[: min(info.nr_map_ids, _MOST_MAPS)])
    return ProgInfo(info.id, info.type, info.name.decode(), held, info.verified_insns)


def hold_map(prog_fd: int, map_fd: int) -> None:
    """Make a map live as long as the program, which need not use it."""
    result = library().bpf_prog_bind_map(prog_fd, map_fd, None)
    check(result, "binding a map to a program")


def object_info(fd: int, info: ct.Structure) -> None:
    """Fill in what the kernel says of any object; `info` is of its kind."""
    size = ct.c_uint32(ct.sizeof(info))
    check(
        library().bpf_obj_get_info_by_fd(fd, ct.byref(info), ct.byref(size)),
        "asking the kernel about a BPF object",
    )


def all_ids(following: Callable[..., int]) -> Iterator[int]:
    """Every id that a function of libbpf leads on to (`bpf_*_get_next_id`)."""
    at = ct.c_uint32(0)
    while following(at, ct.byref(at)) == 0:
        yield at.value
