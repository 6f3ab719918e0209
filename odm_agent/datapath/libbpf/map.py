"""One open map: its rows, read, written and walked over."""

import ctypes as ct
import errno
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

from odm_agent.core.errors import DatapathError
from odm_agent.datapath.libbpf.library import check, library
from odm_agent.datapath.libbpf.objects import map_info

#: bpf_map_type of the kernel's UAPI.
MAP_PERCPU_TYPES: Final = frozenset({5, 6, 10})
MAP_SK_STORAGE: Final = 24
_F_LOCK: Final = 4


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
        result = library().bpf_map_lookup_elem(
            self.fd, ct.byref(self._as_key(key)), ct.byref(value)
        )
        if result == -errno.ENOENT:
            return None
        check(result, f"reading the map {self.name}")
        return value

    def put(self, key: Any, value: Any, *, locked: bool = False) -> None:
        """Write a row, `locked` under its spin lock. DatapathError if the map is full."""
        result = library().bpf_map_update_elem(
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
        check(result, f"writing the map {self.name}")

    def delete(self, key: Any) -> None:
        """Remove a row; one that is not there counts as removed."""
        result = library().bpf_map_delete_elem(self.fd, ct.byref(self._as_key(key)))
        if result != -errno.ENOENT:
            check(result, f"deleting from the map {self.name}")

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All rows, as far as they stand still: a row deleted meanwhile ends or skips nothing."""
        for key in self.walk():
            value = self.get(key)
            if value is not None:
                yield key, value

    def walk(self) -> list[Any]:
        """The keys of all rows, as far as they stand still."""
        keys: list[Any] = []
        seen: set[bytes] = set()
        key: Any = None
        while len(keys) <= self.max_entries:
            following = self._key()
            at = None if key is None else ct.byref(key)
            result = library().bpf_map_get_next_key(self.fd, at, ct.byref(following))
            if result == -errno.ENOENT:
                break
            check(result, f"walking the map {self.name}")
            if bytes(following) in seen:  # the walk began anew, since its place was deleted
                break
            seen.add(bytes(following))
            keys.append(following)
            key = following
        return keys

    def _as_key(self, key: Any) -> Any:
        return self._key(key) if isinstance(key, int) else key
