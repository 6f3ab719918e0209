"""The few system calls of BPF that we need, by the system's libbpf: no compiler in here."""

import ctypes as ct
import ctypes.util
import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from odm_agent.errors import DatapathError

#: bpf_map_type of the kernel's UAPI.
MAP_PERCPU_TYPES: Final = frozenset({5, 6, 10})
MAP_SK_STORAGE: Final = 24
#: bpf_link_type.
LINK_CGROUP: Final = 3
LINK_ITERATOR: Final = 4
LINK_TCX: Final = 11
_MOST_MAPS: Final = 64
_F_LOCK: Final = 4
#: bpf_attach_type of iterators.
_TRACE_ITER: Final = 28


class _MapInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("name", ct.c_char * 16),
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
    )


class _CgroupLinkInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("cgroup_id", ct.c_uint64),
        ("attach_type", ct.c_uint32),
        ("room", ct.c_uint32 * 16),
    )


class _InterfaceLinkInfo(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("id", ct.c_uint32),
        ("prog_id", ct.c_uint32),
        ("pad", ct.c_uint32),
        ("ifindex", ct.c_uint32),
        ("attach_type", ct.c_uint32),
        ("room", ct.c_uint32 * 16),
    )


class _IteratorInfo(ct.Structure):
    # union bpf_iter_link_info
    _fields_ = (("map_fd", ct.c_uint32), ("room", ct.c_uint32 * 3))


class _LinkOptions(ct.Structure):
    # struct bpf_link_create_opts of libbpf, up to what iterators need
    _fields_ = (
        ("sz", ct.c_size_t),
        ("flags", ct.c_uint32),
        ("iter_info", ct.c_void_p),
        ("iter_info_len", ct.c_uint32),
        ("target_btf_id", ct.c_uint32),
    )


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """A cgroup link: `cgroup_id` is 0 when its cgroup is gone."""

    id: int
    prog_id: int
    cgroup_id: int
    attach_type: int


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


@dataclass(frozen=True, slots=True)
class ProgInfo:
    """A program, and the maps that it holds."""

    id: int
    name: str
    map_ids: tuple[int, ...]


@cache
def _lib() -> ct.CDLL:
    name = ctypes.util.find_library("bpf") or "libbpf.so.1"
    try:
        library = ct.CDLL(name, use_errno=True)
    except OSError as error:
        raise DatapathError(f"loading libbpf: {error}; install the package libbpf1") from error
    library.libbpf_set_print(None)  # what it would print is raised
    return library


def call(function: str, *arguments: object, doing: str) -> int:
    """What a function of libbpf returns; DatapathError if that is negative."""
    return _check(getattr(_lib(), function)(*arguments), doing)


def _check(result: int, doing: str) -> int:
    if result < 0:
        code = -result if result != -1 else ct.get_errno()
        raise DatapathError(f"{doing}: {os.strerror(code)}") from OSError(code, os.strerror(code))
    return result


def error_code(error: DatapathError) -> int:
    """The errno behind an error of this module, 0 if there is none."""
    cause = error.__cause__
    return cause.errno or 0 if isinstance(cause, OSError) else 0


def get_pinned(path: Path) -> int:
    """A file descriptor of what is pinned at `path`; the caller closes it."""
    return _check(_lib().bpf_obj_get(os.fsencode(path)), f"opening the pin {path}")


def pin(fd: int, path: Path) -> None:
    """Pin a map, program or link."""
    _check(_lib().bpf_obj_pin(fd, os.fsencode(path)), f"pinning at {path}")


def link_create(prog_fd: int, target: int, attach_type: int) -> int:
    """Attach a program beside others (never in their place); the link's descriptor.

    `target` is the descriptor of a cgroup, or for tcx the index of an interface.
    """
    return _check(_lib().bpf_link_create(prog_fd, target, attach_type, None), "attaching a program")


def iterator_create(prog_fd: int, map_fd: int) -> int:
    """The link of a program that iterates over a map's elements; `iterator_read` runs it."""
    info = _IteratorInfo(map_fd=map_fd)
    options = _LinkOptions(
        sz=ct.sizeof(_LinkOptions),
        iter_info=ct.cast(ct.byref(info), ct.c_void_p),
        iter_info_len=ct.sizeof(info),
    )
    return _check(
        _lib().bpf_link_create(prog_fd, 0, _TRACE_ITER, ct.byref(options)),
        "making an iterator",
    )


def iterator_read(link_fd: int) -> bytes:
    """All that an iterator writes, run once."""
    fd = _check(_lib().bpf_iter_create(link_fd), "running an iterator")
    with os.fdopen(fd, "rb", buffering=0) as stream:
        return b"".join(iter(lambda: stream.read(65536), b""))


def link_update(link_fd: int, prog_fd: int) -> None:
    """Put another program in a link's place, without a moment in between."""
    _check(_lib().bpf_link_update(link_fd, prog_fd, None), "replacing the program of a link")


def link_detach(link_fd: int) -> None:
    """End a link, whoever else holds it."""
    _check(_lib().bpf_link_detach(link_fd), "detaching a link")


def link_info(link_fd: int) -> LinkInfo:
    """What a link attaches, and to what."""
    info = _CgroupLinkInfo()
    _object_info(link_fd, info)
    return LinkInfo(info.id, info.prog_id, info.cgroup_id, info.attach_type)


def map_info(map_fd: int) -> MapInfo:
    """What a map is."""
    info = _MapInfo()
    _object_info(map_fd, info)
    return MapInfo(
        info.id,
        info.name.decode(),
        info.type,
        info.key_size,
        info.value_size,
        info.max_entries,
        info.map_flags,
    )


def prog_info(prog_fd: int) -> ProgInfo:
    """What a program is."""
    ids = (ct.c_uint32 * _MOST_MAPS)()
    info = _ProgInfo(nr_map_ids=_MOST_MAPS, map_ids=ct.addressof(ids))
    _object_info(prog_fd, info)
    return ProgInfo(info.id, info.name.decode(), tuple(ids[: min(info.nr_map_ids, _MOST_MAPS)]))


def hold_map(prog_fd: int, map_fd: int) -> None:
    """Make a map live as long as the program, which need not use it."""
    result = _lib().bpf_prog_bind_map(prog_fd, map_fd, None)
    _check(result, "binding a map to a program")


def links(kind: int) -> Iterator[int]:
    """A descriptor of every link of a type on the host, each open for one round of the loop."""
    for link_id in _ids(_lib().bpf_link_get_next_id):
        fd = _lib().bpf_link_get_fd_by_id(link_id)
        if fd < 0:  # gone meanwhile
            continue
        try:
            info = _CgroupLinkInfo()
            _object_info(fd, info)
            if info.type == kind:
                yield fd
        finally:
            os.close(fd)


def programs() -> Iterator[int]:
    """A descriptor of every program of the host, each open for one round of the loop."""
    for prog_id in _ids(_lib().bpf_prog_get_next_id):
        fd = _lib().bpf_prog_get_fd_by_id(prog_id)
        if fd >= 0:  # else gone meanwhile
            try:
                yield fd
            finally:
                os.close(fd)


def prog_by_id(prog_id: int) -> int:
    """A descriptor of a program; the caller closes it."""
    return _check(_lib().bpf_prog_get_fd_by_id(prog_id), "opening a program by its id")


def map_by_id(map_id: int) -> int:
    """A descriptor of a map; the caller closes it."""
    return _check(_lib().bpf_map_get_fd_by_id(map_id), "opening a map by its id")


def _ids(following: Callable[..., int]) -> Iterator[int]:
    at = ct.c_uint32(0)
    while following(at, ct.byref(at)) == 0:
        yield at.value


def link_ifindex(link_fd: int) -> int:
    """The index of the interface that a tcx link is attached to; 0 when that is gone."""
    info = _InterfaceLinkInfo()
    _object_info(link_fd, info)
    return int(info.ifindex)


def _object_info(fd: int, info: ct.Structure) -> None:
    size = ct.c_uint32(ct.sizeof(info))
    _check(
        _lib().bpf_obj_get_info_by_fd(fd, ct.byref(info), ct.byref(size)),
        "asking the kernel about a BPF object",
    )


@cache
def possible_cpus() -> int:
    """How many CPUs the kernel may ever have: the length of a per-CPU value."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().rsplit(",", 1)[-1].rsplit("-", 1)[-1]) + 1


class Map:
    """An open map whose keys and values are ctypes structures or integers.

    `key` and `value` are ctypes types; per-CPU values come as arrays of `value`.
    """

    def __init__(self, fd: int, key: Any, value: Any, name: str) -> None:
        self.fd = fd
        self.name = name
        info = map_info(fd)
        if (info.key_size, info.value_size) != (ct.sizeof(key), ct.sizeof(value)):
            os.close(fd)
            raise DatapathError(
                f"the pinned map {name} holds rows of {info.key_size}+{info.value_size} bytes,"
                f" not {ct.sizeof(key)}+{ct.sizeof(value)}: it belongs to another version;"
                " run `odm-agent detach`, then start again"
            )
        self._key: Any = key
        self._percpu = info.type in MAP_PERCPU_TYPES
        self._value: Any = value * possible_cpus() if self._percpu else value
        self.max_entries: int = info.max_entries

    def close(self) -> None:
        """Close the descriptor; the map lives on in its pin."""
        os.close(self.fd)

    def get(self, key: Any) -> Any | None:
        """The value of a key, or None."""
        value = self._value()
        result = _lib().bpf_map_lookup_elem(self.fd, ct.byref(self._as_key(key)), ct.byref(value))
        if result == -errno.ENOENT:
            return None
        _check(result, f"reading the map {self.name}")
        return value

    def put(self, key: Any, value: Any, *, locked: bool = False) -> None:
        """Write a row, `locked` under its spin lock. DatapathError if the map is full."""
        result = _lib().bpf_map_update_elem(
            self.fd,
            ct.byref(self._as_key(key)),
            ct.byref(value),
            ct.c_uint64(_F_LOCK if locked else 0),
        )
        if result in (-errno.E2BIG, -errno.ENOSPC):
            raise DatapathError(
                f"the map {self.name} is full at {self.max_entries} rows; make room: fewer"
                " addresses, prefixes or classified cgroups; it is tried again"
            )
        _check(result, f"writing the map {self.name}")

    def delete(self, key: Any) -> None:
        """Remove a row; one that is not there counts as removed."""
        result = _lib().bpf_map_delete_elem(self.fd, ct.byref(self._as_key(key)))
        if result != -errno.ENOENT:
            _check(result, f"deleting from the map {self.name}")

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All rows, as far as they stand still: a row deleted meanwhile ends or skips nothing."""
        for key in self._keys():
            value = self.get(key)
            if value is not None:
                yield key, value

    def _keys(self) -> list[Any]:
        keys: list[Any] = []
        seen: set[bytes] = set()
        key: Any = None
        while len(keys) <= self.max_entries:
            following = self._key()
            at = None if key is None else ct.byref(key)
            result = _lib().bpf_map_get_next_key(self.fd, at, ct.byref(following))
            if result == -errno.ENOENT:
                break
            _check(result, f"walking the map {self.name}")
            if bytes(following) in seen:  # the walk began anew, since its place was deleted
                break
            seen.add(bytes(following))
            keys.append(following)
            key = following
        return keys

    def _as_key(self, key: Any) -> Any:
        return self._key(key) if isinstance(key, int) else key
