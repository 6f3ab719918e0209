"""The bytes of a configuration file, wherever its name leads."""

import errno
import os
import stat
from pathlib import Path
from typing import Final

#: Longer than any configuration: one with as many prefixes as there can be has some ten megabytes.
_MOST_BYTES: Final = 1 << 24


def contents(path: Path) -> bytes:
    """What stands in the file; OSError says why that can't be told.

    Only regular files: a FIFO would keep the agent, which reads its file again at each reload,
    waiting for somebody to write, and a device may never end.
    """
    with open(path, "rb", opener=_opened) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        data = file.read(_MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {_MOST_BYTES >> 20} MiB")
    return data


def _opened(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
