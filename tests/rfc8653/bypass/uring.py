"""io_uring from Python: one request at a time, through the helper in uring.c."""

import ctypes
import errno
import functools
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.lab.compiled import library
from tests.rfc8653.bypass.messages import Cmsg, Message, sockaddr
from tests.rfc8653.bypass.technique import Absent

SQPOLL: Final = 1 << 1
#: In the kernel's numbering (include/uapi/linux/io_uring.h).
_SENDMSG: Final = 9
_CONNECT: Final = 16
_SEND: Final = 26
_SOCKET: Final = 45
_URING_CMD: Final = 46
_BIND: Final = 56
_ASYNC: Final = 1 << 4
_CMD_SETSOCKOPT: Final = 3


@functools.cache
def helper() -> ctypes.CDLL:
    """The compiled helper. Load it before privileges are dropped."""
    loaded = ctypes.CDLL(str(library(Path(__file__).with_name("uring.c"))))
    loaded.uring_do.argtypes = [ctypes.c_uint, ctypes.c_char_p]
    return loaded


class Uring:
    """How requests are made: by a system call or by the kernel's polling thread; perhaps async."""

    def __init__(self, *, poll: bool = False, worker: bool = False) -> None:
        self._setup = SQPOLL if poll else 0
        self._flags = _ASYNC if worker else 0

    def bind(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """IORING_OP_BIND (Linux 6.11); Absent where the kernel has it not."""
        try:
            self._with_address(_BIND, sock, address)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise Absent("IORING_OP_BIND") from None
            raise

    def connect(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """IORING_OP_CONNECT."""
        self._with_address(_CONNECT, sock, address)

    def send_to(self, sock: socket.socket, data: bytes, address: tuple[str, int]) -> None:
        """IORING_OP_SEND with an address (Linux 6.17 knows it, 6.0 for SEND_ZC)."""
        name = sockaddr(*address)
        buffer, to = ctypes.create_string_buffer(data), ctypes.create_string_buffer(name)
        self._do(
            _SEND,
            sock.fileno(),
            off=ctypes.addressof(to),
            addr=ctypes.addressof(buffer),
            length=len(data),
            last=len(name),
        )

    def sendmsg(
        self,
        sock: socket.socket,
        data: bytes,
        control: Sequence[Cmsg],
        address: tuple[str, int],
    ) -> None:
        """IORING_OP_SENDMSG."""
        message = Message(data, sockaddr(*address), control)
        self._do(_SENDMSG, sock.fileno(), addr=message.pointer, length=1)

    def open(self, family: int, kind: int, protocol: int) -> socket.socket:
        """IORING_OP_SOCKET."""
        return socket.socket(fileno=self._do(_SOCKET, family, off=kind, length=protocol))

    def setsockopt(self, sock: socket.socket, level: int, name: int, value: bytes) -> None:
        """The socket command SETSOCKOPT (Linux 6.7); Absent where the kernel has it not."""
        buffer = ctypes.create_string_buffer(value, len(value))
        try:
            self._do(
                _URING_CMD,
                sock.fileno(),
                off=_CMD_SETSOCKOPT,
                addr=level | name << 32,
                last=len(value),
                addr3=ctypes.addressof(buffer),
            )
        except OSError as error:
            if error.errno == errno.EOPNOTSUPP:
                raise Absent("SOCKET_URING_OP_SETSOCKOPT") from None
            raise

    def _with_address(self, operation: int, sock: socket.socket, address: tuple[str, int]) -> None:
        name = sockaddr(*address)
        buffer = ctypes.create_string_buffer(name, len(name))
        self._do(operation, sock.fileno(), off=len(name), addr=ctypes.addressof(buffer))

    def _do(
        self,
        operation: int,
        fd: int,
        *,
        off: int = 0,
        addr: int = 0,
        length: int = 0,
        last: int = 0,
        addr3: int = 0,
    ) -> int:
        entry = struct.pack(
            "=BBHiQQIIQHHIQQ",
            *(operation, self._flags, 0, fd, off, addr, length, 0, 0, 0, 0, last, addr3, 0),
        )
        result: int = helper().uring_do(self._setup, entry)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return result
