"""A DHCPv6 server on a real socket that says whatever a test wants: nothing, nonsense, floods."""

import socket
import threading
from collections.abc import Callable, Iterable
from typing import Final, Self

from tests.lab.netns import NetNs

_PORT: Final = 547
_ALL_SERVERS: Final = "ff02::1:2"
#: What it answers to a message; nothing: it is as if that was lost.
Answer = Callable[[bytes], Iterable[bytes]]


def silent(message: bytes) -> Iterable[bytes]:
    """No answer."""
    return ()


class ScriptedServer:
    """It answers on an interface of a namespace, by `answer`, which may be changed."""

    def __init__(self, netns: NetNs, interface: str, answer: Answer = silent) -> None:
        self.answer = answer
        #: What it has heard.
        self.heard: list[bytes] = []
        self._client: tuple[str, int, int, int] | None = None
        self._socket = netns.call(_opened, interface)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._is_over = False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over = True
        self._thread.join()
        self._socket.close()

    def say(self, data: bytes, times: int = 1) -> None:
        """Send the client something that it did not ask for, as often and as fast as it goes."""
        assert self._client is not None, "no client has said anything yet"
        for _ in range(times):
            self._socket.sendto(data, self._client)

    def _serve(self) -> None:
        while not self._is_over:
            try:
                data, client = self._socket.recvfrom(65536)
            except TimeoutError:
                continue
            self._client = client
            self.heard.append(data)
            for each in self.answer(data):
                self._socket.sendto(each, client)


def _opened(interface: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    index = socket.if_nametoindex(interface)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode())
    group = socket.inet_pton(socket.AF_INET6, _ALL_SERVERS) + index.to_bytes(4, "little")
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, group)
    sock.bind(("::", _PORT))
    sock.settimeout(0.05)
    return sock
