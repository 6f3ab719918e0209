"""A QUIC client whose connection moves with the host (RFC 9000, section 9); it needs aioquic.

    some-source | python examples/handover/quic_client.py HOST PORT [AUTHORITIES]

Sends its standard input over one stream, and prints the addresses that it sends from, one after the
other. When the address of its socket gets a successor, a new socket is given that, and the same
connection goes on there. AUTHORITIES is a file of certificates to trust.
"""

import asyncio
import socket
import sys
from typing import Final

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

from odm_agent import client

_CHUNK: Final = 1 << 16


class Mobile:
    """A connection, and the socket that it has now."""

    def __init__(self, host: str, port: str, configuration: QuicConfiguration) -> None:
        self._peer = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        self.protocol = QuicConnectionProtocol(QuicConnection(configuration=configuration))

    async def connect(self) -> None:
        """Return when the handshake is complete."""
        self._transport = await self._attach()
        self.protocol.connect(self._sock.getpeername())
        await self.protocol.wait_connected()

    async def follow(self) -> None:
        """Go on from each successor; returns when the socket is none of odm-agent's."""
        while await self._succeeded():
            before = self._transport
            self._transport = await self._attach()
            # Another connection id: who sees both networks can't tell that they are one connection.
            self.protocol.change_connection_id()
            await self.protocol.ping()  # what was sent to the old socket is still taken until then
            before.close()

    async def _attach(self) -> asyncio.DatagramTransport:
        """Give the connection a new socket. It is connected, and so has one address for good."""
        family, kind, number, _, address = self._peer
        sock = socket.socket(family, kind, number)
        sock.connect(address)
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
            lambda: self.protocol, sock=sock
        )
        self._sock = sock
        print(sock.getsockname()[0], flush=True)
        return transport

    async def _succeeded(self) -> bool:
        """Wait until the socket's address has a successor. False: nobody will tell."""
        async for notice in client.notices(self._sock):
            if notice.state is not client.AddressState.PREFERRED and notice.successor:
                return True
        return False


async def send(mobile: Mobile) -> None:
    """Send what comes by standard input, and wait until the peer has closed its side."""
    loop = asyncio.get_running_loop()
    given = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(given), sys.stdin)
    answer, stream = await mobile.protocol.create_stream()
    while data := await given.read(_CHUNK):
        stream.write(data)
    stream.write_eof()
    await answer.read()


async def run(host: str, port: str, authorities: str | None) -> None:
    """One connection, from its beginning to its end."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["odm"], server_name=host)
    if authorities:
        configuration.load_verify_locations(authorities)
    mobile = Mobile(host, port, configuration)
    await mobile.connect()
    async with asyncio.TaskGroup() as group:
        following = group.create_task(mobile.follow())
        await send(mobile)
        following.cancel()
    mobile.protocol.close()
    await mobile.protocol.wait_closed()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(f"usage: {sys.argv[0]} HOST PORT [AUTHORITIES]")
    asyncio.run(run(sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) == 4 else None))
