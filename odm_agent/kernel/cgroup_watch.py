"""Tells in which of the watched cgroup directories something came, went or changed (inotify)."""

import ctypes
import errno
import os
import select
import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from odm_agent.core.errors import KernelError
from odm_agent.text import printable

_IN_ATTRIB: Final = 0x004
_IN_MOVED: Final = 0x0C0
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_Q_OVERFLOW: Final = 0x4000
_IN_IGNORED: Final = 0x8000
_IN_ONLYDIR: Final = 0x01000000
_IN_ISDIR: Final = 0x40000000
#: Ownership counts too: whether a glob may match below depends on it.
_MASK: Final = _IN_CREATE | _IN_DELETE | _IN_MOVED | _IN_ATTRIB | _IN_ONLYDIR
_EVENT: Final = struct.Struct("=iIII")
#: What one read takes; some 2,000 events.
_READ_BYTES: Final = 65536
#: How many reads are kept until somebody asks for their events.
_MOST_READS: Final = 64

_libc: Final = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to `name` in a watched directory; "": to the directory itself."""

    watch: int
    name: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A watch is there no more: its directory went, or we took it away."""

    watch: int


class Overflow:
    """Events were lost: anything may have happened."""


class CgroupQueue:
    """One inotify instance. `drain` may be called by another thread than the rest."""

    def __init__(self) -> None:
        self._reads: deque[bytes | None] = deque()
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise KernelError(
                f"watching cgroups: {os.strerror(ctypes.get_errno())}. "
                "Raise fs.inotify.max_user_instances (sysctl)."
            )

    def close(self) -> None:
        """Watch nothing any more; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._descriptor

    def watch(self, folder: Path) -> int | None:
        """Watch a directory (again): the number of its watch; None if it is gone.

        Raises KernelError.
        """
        number: int = _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
        if number >= 0:
            return number
        code = ctypes.get_errno()
        if code in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
            return None
        raise KernelError(
            f"watching the cgroup {printable(str(folder))}: {os.strerror(code)}. "
            "If that is about space: raise fs.inotify.max_user_watches (sysctl)."
        )

    def unwatch(self, number: int) -> None:
        """Take a watch away; one that has ended already is no error."""
        _libc.inotify_rm_watch(self._descriptor, number)

    def drain(self) -> bool:
        """Read once, without waiting, what has happened; whether that was anything.

        More than is kept counts as an overflow. Raises KernelError.
        """
        try:
            data = os.read(self._descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError as error:
            raise KernelError(
                f"reading which cgroups came and went: {error.strerror}. It is tried again."
            ) from error
        if len(self._reads) < _MOST_READS:
            self._reads.append(data)
        elif self._reads[-1] is not None:
            self._reads.append(None)
        return True

    @property
    def is_drained(self) -> bool:
        """Whether there are no events that were read and not asked for."""
        return not self._reads

    def events(self) -> Iterator[Event | Ended | Overflow]:
        """What the oldest of the reads holds."""
        data = self._reads.popleft() if self._reads else b""
        if data is None:
            yield Overflow()
            return
        offset = 0
        while offset < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size + length
            name = os.fsdecode(data[offset - length : offset].rstrip(b"\0"))
            if mask & _IN_Q_OVERFLOW:
                yield Overflow()
            elif mask & _IN_IGNORED:
                yield Ended(number)
            elif not name or name == "cgroup.procs":  # who owns it decides about all below
                yield Event(number, "")
            elif mask & _IN_ISDIR:
                yield Event(number, name)


class CgroupWatch:
    """A queue for directories in which root alone makes cgroups, and one for those of others.

    So nobody but root can make the first one overflow.
    """

    def __init__(self) -> None:
        self.own = CgroupQueue()
        self.foreign = CgroupQueue()
        self._both = select.epoll()
        for queue in (self.own, self.foreign):
            self._both.register(queue.fileno(), select.EPOLLIN)

    def close(self) -> None:
        """Watch nothing any more; may be called twice."""
        self._both.close()
        self.own.close()
        self.foreign.close()

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._both.fileno()

    def drain(self) -> bool:
        """Read once from each queue; whether anything has happened. Raises KernelError."""
        return any([queue.drain() for queue in (self.own, self.foreign)])
