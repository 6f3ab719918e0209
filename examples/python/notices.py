"""A client that is told what becomes of its address, as soon as it changes.

    python examples/python/notices.py HOST PORT COUNT [--asyncio]

Connects a UDP socket, and prints its notices, so many of them: the state, the address, its
successor. With --asyncio on an event loop, where it sends something beside.
"""

import asyncio
import socket
import sys
from itertools import islice

from odm_agent import client


def connected(host: str, port: str) -> socket.socket:
    """A UDP socket, connected to a host's first address."""
    family, kind, protocol, _, peer = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, kind, protocol)
    sock.connect(peer)
    return sock


def show(notice: client.Notice) -> None:
    """Print a notice."""
    state = notice.state.name.lower()
    print(f"{state} {notice.address or '-'} {notice.successor or '-'}", flush=True)


def wait(sock: socket.socket, count: int) -> int:
    """Do nothing but wait for notices; how many there were."""
    told = 0
    for notice in islice(client.notices(sock), count):
        show(notice)
        told += 1
    return told


async def send(sock: socket.socket) -> None:
    """A datagram ten times a second."""
    while True:
        sock.send(b"hello")
        await asyncio.sleep(0.1)


async def wait_async(sock: socket.socket, count: int) -> int:
    """The same, while something else goes on."""
    told = 0
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(send(sock))
        async for notice in client.notices(sock):
            show(notice)
            told += 1
            if told == count:
                break
        sending.cancel()
    return told


def main() -> int:
    """Print notices."""
    if len(sys.argv) < 4:
        print(f"usage: {sys.argv[0]} HOST PORT COUNT [--asyncio]", file=sys.stderr)
        return 2
    host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    with connected(host, port) as sock:
        told = (
            asyncio.run(wait_async(sock, count)) if "--asyncio" in sys.argv else wait(sock, count)
        )
    if told < count:
        print("the socket is none of odm-agent's", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
