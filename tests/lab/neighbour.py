"""Somebody else's cgroup program: like systemd's IPAddressDeny it drops what goes to an address."""

import ctypes
import ctypes.util
import errno
import os
import struct
from ipaddress import IPv4Address
from types import TracebackType
from typing import Final, Self

from tests.lab.cgroup import Cgroup

#: bpf_prog_type, bpf_attach_type and attach flags of the kernel's UAPI.
_CGROUP_SKB, _EGRESS = 8, 1
MULTI: Final = 2
EXCLUSIVE: Final = 0
_SKB_LOAD_BYTES: Final = 26
_DESTINATION: Final = 16  # its offset in an IPv4 header


def _instruction(
    code: int, target: int = 0, source: int = 0, offset: int = 0, value: int = 0
) -> bytes:
    return struct.pack("=BBhi", code, target | source << 4, offset, value)


def _program(address: IPv4Address) -> bytes:
    """Destination read to the stack, compared: 0 (drop) if it is the address, else 1."""
    (wanted,) = struct.unpack("=i", address.packed)
    return b"".join(
        (
            _instruction(0xB7, 2, value=_DESTINATION),
            _instruction(0xBF, 3, 10),
            _instruction(0x07, 3, value=-8),
            _instruction(0xB7, 4, value=4),
            _instruction(0x85, value=_SKB_LOAD_BYTES),
            _instruction(0x55, 0, offset=2),  # shorter than that: let it go
            _instruction(0x61, 1, 10, offset=-8),
            _instruction(0x16, 1, offset=2, value=wanted),
            _instruction(0xB7, 0, value=1),
            _instruction(0x95),
            _instruction(0xB7, 0, value=0),
            _instruction(0x95),
        )
    )


class Neighbour:
    """A program of the old kind of attachment, at one cgroup; `close()` takes it away."""

    def __init__(self, cgroup: Cgroup, address: str, flags: int = MULTI) -> None:
        self._libbpf = ctypes.CDLL(ctypes.util.find_library("bpf") or "libbpf.so.1")
        code = _program(IPv4Address(address))
        self._program = self._checked(
            self._libbpf.bpf_prog_load(
                _CGROUP_SKB, b"someone_else", b"GPL", code, ctypes.c_size_t(len(code) // 8), None
            )
        )
        self._cgroup = os.open(cgroup.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._checked(self._libbpf.bpf_prog_attach(self._program, self._cgroup, _EGRESS, flags))
        except OSError:
            self._close_descriptors()
            raise

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
        """Detach it; twice is harmless."""
        if self._cgroup >= 0:
            try:
                self._checked(self._libbpf.bpf_prog_detach2(self._program, self._cgroup, _EGRESS))
            finally:
                self._close_descriptors()

    def _close_descriptors(self) -> None:
        os.close(self._program)
        os.close(self._cgroup)
        self._cgroup = -1

    def _checked(self, result: int) -> int:
        if result < 0:
            raise OSError(-result, errno.errorcode.get(-result, "?"))
        return result
