"""msghdr, sockaddr and control messages as bytes, for calls that Python's socket module lacks."""

import ctypes
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, Final

Cmsg = tuple[int, int, bytes]
_libc: Final = ctypes.CDLL(None, use_errno=True)
_POINTER_ALIGN: Final = 8


def sockaddr(address: str, port: int) -> bytes:
    """A sockaddr_in or sockaddr_in6."""
    packed = ip_address(address).packed
    if len(packed) == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack("!H4s8x", port, packed)
    return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI16sI", port, 0, packed, 0)


class Message:
    """A struct msghdr, and all that it points to, for as long as this object lives."""

    def __init__(self, data: bytes, to: bytes = b"", control: Sequence[Cmsg] = ()) -> None:
        self._data = ctypes.create_string_buffer(data, len(data))
        self._to = ctypes.create_string_buffer(to, max(len(to), 1))
        packed = b"".join(_cmsg(*each) for each in control)
        self._control = ctypes.create_string_buffer(packed, max(len(packed), 1))
        vector = struct.pack("@PN", ctypes.addressof(self._data), len(data))
        self._vector = ctypes.create_string_buffer(vector, len(vector))
        self.header = struct.pack(
            "@PI4xPNPNi4x",
            ctypes.addressof(self._to) if to else 0,
            len(to),
            ctypes.addressof(self._vector),
            1,
            ctypes.addressof(self._control) if packed else 0,
            len(packed),
            0,
        )
        self._buffer = ctypes.create_string_buffer(self.header, len(self.header))

    @property
    def pointer(self) -> int:
        """The address of the msghdr."""
        return ctypes.addressof(self._buffer)


def _cmsg(level: int, type: int, data: bytes) -> bytes:
    head = struct.pack("@Nii", 16 + len(data), level, type)
    return head + data + bytes(-len(data) % _POINTER_ALIGN)


def sendmmsg(sock: socket.socket, messages: Sequence[Message]) -> int:
    """sendmmsg(): how many were sent before one failed; OSError if the first did."""
    array = b"".join(each.header + struct.pack("=I4x", 0) for each in messages)
    sent: Any = _libc.sendmmsg(sock.fileno(), array, len(messages), 0)
    if sent < 0:
        raise OSError(ctypes.get_errno(), "sendmmsg")
    return int(sent)
