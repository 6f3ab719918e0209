"""What is on the wire: packets seen on one interface of a namespace."""

import errno
import socket
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from types import TracebackType
from typing import Final, Self

from odm_agent.core.model import IPAddress
from tests.lab.netns import NetNs

_ETH_P_ALL: Final = 0x0003
_IPV4: Final = 0x0800
_IPV6: Final = 0x86DD
_PACKET_OUTGOING: Final = 4
_SO_RCVBUFFORCE: Final = 33
_SO_TIMESTAMPNS: Final = 35
_TIMESPEC: Final = struct.Struct("qq")
#: The name of no interface: all are captured.
EVERYWHERE: Final = ""
_ROOM: Final = socket.CMSG_SPACE(_TIMESPEC.size)
_SOL_PACKET: Final = 263
_PACKET_STATISTICS: Final = 6
_PROTOCOLS: Final = {1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6"}
_SYN: Final = 0x02
_ACK: Final = 0x10


@dataclass(frozen=True)
class Packet:
    """One IP packet; `outgoing` as seen from the capturing interface.

    Ports are 0 if it has none, the ICMP type is -1. `payload` is how many bytes TCP carries,
    `time_s` the wall clock when the kernel had it.
    """

    source: IPAddress
    destination: IPAddress
    protocol: str
    source_port: int
    port: int
    tcp_flags: int
    outgoing: bool
    icmp_type: int = -1
    payload: int = 0
    time_s: float = 0.0

    @property
    def syn_ack(self) -> bool:
        """Whether this is the second packet of a TCP handshake."""
        return self.tcp_flags & (_SYN | _ACK) == _SYN | _ACK


class Capture:
    """Collects in the kernel's buffer from the moment it is made; `packets()` takes out."""

    def __init__(self, netns: NetNs, interface: str) -> None:
        # Protocol 0 captures nothing until the socket is bound to its interface.
        protocol = 0 if interface else socket.htons(_ETH_P_ALL)
        self._socket = netns.call(socket.socket, socket.AF_PACKET, socket.SOCK_DGRAM, protocol)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        if interface:
            self._socket.bind((interface, _ETH_P_ALL))
        self._socket.setblocking(False)

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
        """Stop capturing."""
        self._socket.close()

    def packets(self, *, outgoing: bool = False) -> list[Packet]:
        """All IP packets captured since the last call in one direction (default: received)."""
        found: list[Packet] = []
        while True:
            try:
                data, told, _, where = self._socket.recvmsg(65536, _ROOM)
            except BlockingIOError:
                self._refuse_loss()
                return found
            except OSError as error:
                # Said once when the interface goes down; the socket hears again when it is up.
                if error.errno != errno.ENETDOWN:
                    raise
                continue
            _, kind, direction, _, _ = where
            packet = _parse(data, kind, direction == _PACKET_OUTGOING, _time_s(told))
            if packet is not None and packet.outgoing is outgoing:
                found.append(packet)

    def _refuse_loss(self) -> None:
        _, dropped = struct.unpack(
            "II", self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        )
        assert not dropped, f"the capture lost {dropped} packets: it proves nothing"


def _time_s(told: list[tuple[int, int, bytes]]) -> float:
    for level, kind, data in told:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = _TIMESPEC.unpack(data)
            return float(seconds + nanoseconds / 1e9)
    return 0.0


def _parse(data: bytes, kind: int, outgoing: bool, time_s: float) -> Packet | None:
    source: IPAddress
    destination: IPAddress
    if kind == _IPV4:
        start, number = (data[0] & 15) * 4, data[9]
        source, destination = IPv4Address(data[12:16]), IPv4Address(data[16:20])
    elif kind == _IPV6:
        start, number = 40, data[6]
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        while number in (0, 43, 60) and start + 8 <= len(data):
            number, start = data[start], start + (data[start + 1] + 1) * 8
    else:
        return None
    protocol = _PROTOCOLS.get(number, str(number))
    ports, flags, payload = (0, 0), 0, 0
    if protocol in ("tcp", "udp"):
        ports = struct.unpack_from("!HH", data, start)
    if protocol == "tcp":
        flags = data[start + 13]
        payload = len(data) - start - (data[start + 12] >> 4) * 4
    icmp_type = data[start] if protocol in ("icmp", "icmpv6") else -1
    return Packet(
        *(source, destination, protocol, *ports, flags, outgoing, icmp_type),
        payload=payload,
        time_s=time_s,
    )
