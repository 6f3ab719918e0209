"""Kernel settings below /proc/sys/net, of the calling thread's network namespace."""

import os
import re
from pathlib import Path
from typing import Final

from odm_agent.core.errors import KernelError

_ROOT: Final = Path("/proc/sys")
#: One part of a name; an interface's may hold dots, hence the slashes between the parts.
_PART: Final = re.compile(r"(?!\.\.?$)[A-Za-z0-9_.:@+-]{1,64}")
#: No value is longer, bytes; the kernel gives it whole.
_LONGEST: Final = 4096


def read(name: str) -> str:
    """The value of e.g. `net/ipv6/conf/eth0/use_oif_addrs_only`; raises KernelError."""
    path = _path(name)
    try:
        # With each pass, while applications wait: a file object takes as long again, several times.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(file, _LONGEST).decode().strip()
        finally:
            os.close(file)
    except OSError as error:
        raise KernelError(_said(f"reading sysctl {name}", error)) from error


def write(name: str, value: str) -> None:
    """Set it; raises KernelError."""
    path = _path(name)
    try:
        # Not opened with O_CREAT: a setting that isn't there is ENOENT, not EACCES.
        with path.open("r+") as file:
            file.write(value + "\n")
    except OSError as error:
        raise KernelError(_said(f"setting sysctl {name} to {value!r}", error)) from error


def _path(name: str) -> Path:
    parts = name.split("/")
    if parts[0] != "net" or len(parts) < 2 or not all(_PART.fullmatch(part) for part in parts):
        raise KernelError(
            f"{name!r} is not a network setting. Write it with slashes: net/ipv4/ip_forward."
        )
    return _ROOT.joinpath(*parts)


def _said(doing: str, error: OSError) -> str:
    return (
        f"{doing}: {error.strerror}. Check that the interface is there, that the kernel has the "
        "setting (sysctl -a) and that /proc/sys may be written to."
    )
