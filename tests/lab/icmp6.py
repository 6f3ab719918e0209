"""Sends ICMPv6 messages of our own making to all nodes of a link."""

import socket
import time
from typing import Final

_ALL_NODES: Final = "ff02::1"
#: How long a link-local address is waited for.
_READY_S: Final = 20.0


def send_on(interface: str, data: bytes, hops: int = 255) -> None:
    """From the calling thread's namespace, as soon as there is a link-local address."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        index = socket.if_nametoindex(interface)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        until_s = time.monotonic() + _READY_S
        while True:
            try:
                sock.sendto(data, (_ALL_NODES, 0, 0, index))
                return
            except OSError:
                if time.monotonic() > until_s:
                    raise
                time.sleep(0.1)
