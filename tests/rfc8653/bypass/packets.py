"""Packets put together by hand, for techniques that send whole ones."""

import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from tests.rfc8653.bypass.technique import DATA, Form, Stage

_SENDER: Final = 40001
_RECEIVER: Final = 7001


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def datagram(source: str, destination: str, *, length: int = 0) -> bytes:
    """A whole IP packet with a UDP datagram in it."""
    here, there = ip_address(source).packed, ip_address(destination).packed
    data = DATA + bytes(max(0, length - len(DATA)))
    size = 8 + len(data)
    pseudo = here + there + struct.pack("!II", size, socket.IPPROTO_UDP)
    udp = struct.pack("!HHH", _SENDER, _RECEIVER, size)
    total = checksum(pseudo + udp + bytes(2) + data) or 0xFFFF
    udp += struct.pack("!H", total) + data
    if len(here) == 16:
        return struct.pack("!IHBB", 6 << 28, size, socket.IPPROTO_UDP, 64) + here + there + udp
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + size, 0, 0, 64, socket.IPPROTO_UDP)
    head += struct.pack("!H", checksum(head + bytes(2) + here + there)) + here + there
    return head + udp


def echo_request(form: Form) -> bytes:
    """An ICMP echo request; its IPv6 checksum is the kernel's to fill in."""
    kind = 128 if form is Form.IPV6 else 8
    head = struct.pack("!BBHHH", kind, 0, 0, 7, 1)
    if form is Form.IPV6:
        return head + DATA
    return head[:2] + struct.pack("!H", checksum(head + DATA)) + head[4:] + DATA


def spoofed(stage: Stage, *, unused: bool = False) -> bytes:
    """A UDP packet to the correspondent that claims to be from the typed address."""
    return datagram(stage.unused if unused else stage.plain, stage.to[0])


def syn(source: str, destination: str, port: int, extensions: Sequence[tuple[int, bytes]]) -> bytes:
    """An IPv6 packet with a TCP SYN behind extension headers: (their number, all but the first)."""
    here, there = ip_address(source).packed, ip_address(destination).packed
    head = struct.pack("!HHIIBBH", _SENDER, port, 1, 0, 5 << 4, 0x02, 65535)
    pseudo = here + there + struct.pack("!II", 20, socket.IPPROTO_TCP)
    tcp = head + struct.pack("!HH", checksum(pseudo + head + bytes(4)), 0)
    numbers = [number for number, _ in extensions] + [socket.IPPROTO_TCP]
    chain = b"".join(
        bytes([after]) + rest for after, (_, rest) in zip(numbers[1:], extensions, strict=True)
    )
    head = struct.pack("!IHBB", 6 << 28, len(chain + tcp), numbers[0], 64)
    return head + here + there + chain + tcp
