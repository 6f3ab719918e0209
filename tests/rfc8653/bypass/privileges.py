"""Run with one capability or none, so that the table's column of needs can't lie."""

import ctypes
import os
import struct
from typing import Final

_CAPABILITIES: Final = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}
_NOBODY: Final = 65534
_PR_SET_KEEPCAPS: Final = 8
_VERSION_3: Final = 0x20080522
_libc: Final = ctypes.CDLL(None, use_errno=True)


def become(needs: str) -> None:
    """Turn the calling process into nobody with the capability `needs`; "root" stays root."""
    if needs == "root":
        return
    _libc.prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(_NOBODY, _NOBODY, _NOBODY)
    os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    kept = 1 << _CAPABILITIES[needs] if needs else 0
    header = struct.pack("Ii", _VERSION_3, 0)
    sets = struct.pack("6I", kept, kept, 0, 0, 0, 0)  # effective, permitted, inheritable; high
    if _libc.capset(header, sets):
        raise OSError(ctypes.get_errno(), "capset")
