"""Notices cgroups that come and go where patterns look for them (inotify)."""

import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from odm_agent.core.errors import KernelError
from odm_agent.kernel.cgroups import matching
from odm_agent.policy.globs import parts_of
from odm_agent.text import printable

_IN_ATTRIB: Final = 0x004
_IN_MOVED: Final = 0x0C0
_IN_CREATE: Final = 0x100
_IN_DELETE: Final = 0x200
_IN_DELETE_SELF: Final = 0x400
_IN_IGNORED: Final = 0x8000
_IN_ONLYDIR: Final = 0x01000000
#: Ownership counts too: whether a glob may match below depends on it.
_MASK: Final = _IN_CREATE | _IN_DELETE | _IN_MOVED | _IN_ATTRIB | _IN_DELETE_SELF | _IN_ONLYDIR
_EVENT: Final = struct.Struct("=iIII")

_libc: Final = ctypes.CDLL(None, use_errno=True)


class CgroupWatch:
    """Watches every directory in which a cgroup that a pattern names could appear or vanish.

    Use: `follow(patterns)`, then expand them; when `drain()` says so, both again. In that order no
    cgroup is missed: what comes after `follow` has looked at a directory makes it readable.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, int] = {}
        self._descriptor: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._descriptor < 0:
            raise KernelError(
                f"watching cgroups: {os.strerror(ctypes.get_errno())}. "
                "Raise fs.inotify.max_user_instances (sysctl)."
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Watch nothing any more; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._descriptor

    @property
    def folders(self) -> frozenset[Path]:
        """The directories that are watched."""
        return frozenset(self._folders)

    def follow(self, patterns: Iterable[str]) -> None:
        """Watch where these patterns look (and nowhere else); raises KernelError.

        Directories are watched before they are listed.
        """
        wanted: set[Path] = set()
        for pattern in patterns:
            divided = parts_of(pattern)
            # The parents of what one part names are all that the parts before it name.
            for depth in range(len(divided)):
                for folder in matching(self._root, divided[:depth]):
                    if folder not in wanted and self._watch(folder):
                        wanted.add(folder)
        for folder in self._folders.keys() - wanted:
            # Gone directories lost their watch already; that of the others is taken away.
            _libc.inotify_rm_watch(self._descriptor, self._folders.pop(folder))

    def drain(self) -> bool:
        """Take away what has happened, without waiting; whether to follow and expand again.

        A queue that overflowed says so, for then anything may have happened. Raises KernelError.
        """
        changed = False
        while True:
            try:
                data = os.read(self._descriptor, 65536)
            except BlockingIOError:
                return changed
            except OSError as error:
                raise KernelError(
                    f"reading which cgroups came and went: {error.strerror}. It is tried again."
                ) from error
            offset = 0
            while offset < len(data):
                _, mask, _, length = _EVENT.unpack_from(data, offset)
                # The end of a watch is no news: it comes after its reason, or was our own doing.
                changed |= not mask & _IN_IGNORED
                offset += _EVENT.size + length

    def _watch(self, folder: Path) -> bool:
        """Watch a directory (again); false if it is gone."""
        number = _libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
        if number < 0:
            code = ctypes.get_errno()
            if code in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
                return False
            raise KernelError(
                f"watching the cgroup {printable(str(folder))}: {os.strerror(code)}. "
                "If that is about space: raise fs.inotify.max_user_watches (sysctl)."
            )
        self._folders[folder] = number
        return True
