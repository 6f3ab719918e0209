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
MAP_ARRAY_TYPES: Final = frozenset({2, 6})
MAP_SK_STORAGE: Final = 24
_F_LOCK: Final = 4
#: As many rows are read at once.
_BATCH: Final = 4096


@cache
def possible_cpus() -> int:
    """How many CPUs the kernel may ever have: the length of a per-CPU value."""
    text = Path("/sys/devices/system/cpu/possible").read_text()
    return int(text.strip().rsplit(",", 1)[-1].rsplit("-", 1)[-1]) + 1


class Map:
    """An open map.

    `key` and `value` are ctypes types. What is of a simple type comes, and may be given, as an
    integer; per-CPU values come as arrays of `value`.
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
        self.is_array = info.type in MAP_ARRAY_TYPES
        self.max_entries: int = info.max_entries

    def close(self) -> None:
        """Close the descriptor; the map lives on in its pin."""
        os.close(self.fd)

    def get(self, key: Any) -> Any | None:
        """The value of a key, or None."""
        value = (self._value * 1)()
        result = library().bpf_map_lookup_elem(self.fd, self._packed(key), value)
        if result == -errno.ENOENT:
            return None
        check(result, f"reading the map {self.name}")
        return value[0]

    def put(self, key: Any, value: Any, *, locked: bool = False) -> None:
        """Write a row, `locked` under its spin lock. DatapathError if the map is full."""
        result = library().bpf_map_update_elem(
            self.fd,
            self._packed(key),
            (self._value * 1)(value),
            ct.c_uint64(_F_LOCK if locked else 0),
        )
        if result in (-errno.E2BIG, -errno.ENOSPC):
            raise DatapathError(
                f"the map {self.name} is full at {self.max_entries} rows; make room: fewer"
                " addresses, prefixes or classified cgroups; it is tried again"
            )
        check(result, f"writing the map {self.name}")

    def delete(self, key: Any) -> None:
        """Remove a row; one that is not there counts as removed. One of an array becomes all 0."""
        if self.is_array:
            return self.put(key, (self._value * 1)()[0])
        result = library().bpf_map_delete_elem(self.fd, self._packed(key))
        if result != -errno.ENOENT:
            check(result, f"deleting from the map {self.name}")

    def items(self) -> Iterator[tuple[Any, Any]]:
        """All rows; of those that come or go meanwhile, each may be among them or not.

        In batches: of a hash these go by bucket, while the step from key to key would begin anew
        at a key that was deleted meanwhile.
        """
        room = min(self.max_entries, _BATCH)
        place = None
        while True:
            keys, values = (self._key * room)(), (self._value * room)()
            count = ct.c_uint32(room)
            # The place is a bucket's number, or a key.
            reached = ct.create_string_buffer(max(ct.sizeof(self._key), ct.sizeof(count)))
            result = library().bpf_map_lookup_batch(
                self.fd, place, reached, keys, values, ct.byref(count), None
            )
            if result == -errno.ENOSPC:  # a bucket holds more
                room *= 2
                continue
            if result != -errno.ENOENT:
                check(result, f"walking the map {self.name}")
            yield from zip(keys[: count.value], values[: count.value], strict=True)
            if result == -errno.ENOENT:
                return
            place = reached

    def _packed(self, key: Any) -> Any:
        return (self._key * 1)(key)
