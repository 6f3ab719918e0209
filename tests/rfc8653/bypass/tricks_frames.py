"""Frames past the IP layer: AF_PACKET and AF_XDP, for which no cgroup program runs."""

import ctypes
import errno
import mmap
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from odm_agent.datapath.guards import creation
from tests.lab import compat
from tests.rfc8653.bypass.forward import forwarding, gateway_mac
from tests.rfc8653.bypass.packets import spoofed
from tests.rfc8653.bypass.technique import (
    OPEN,
    Absent,
    Act,
    Expect,
    Form,
    Stage,
    Technique,
    absent,
    refused,
)

GROUP: Final = "Frames past the IP layer"

_SOL_PACKET: Final = 263
_PACKET_TX_RING: Final = 13
_PACKET_QDISC_BYPASS: Final = 20
_SOL_XDP: Final = 283
_AF_XDP: Final = 44
_FRAME_SIZE: Final = 2048
_FRAMES: Final = 2
_STATUS_SEND: Final = 1
#: Where the frame's data begins in a slot: struct tpacket_hdr (32 bytes on 64-bit machines).
_SLOT_HEAD: Final = 32
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _ethertype(stage: Stage) -> int:
    return 0x86DD if stage.form is Form.IPV6 else 0x0800


def frame(stage: Stage, mac: bytes) -> bytes:
    """A whole Ethernet frame for gateway A with a spoofed packet in it."""
    return mac + bytes(6) + struct.pack("!H", _ethertype(stage)) + spoofed(stage)


def _packet(send: Callable[[Stage, bytes], object]) -> Act:
    def act(stage: Stage) -> str:
        compat.prepare()
        mac = gateway_mac(stage)
        return stage.do(lambda: send(stage, mac))

    return act


def _open(kind: socket.SocketKind) -> socket.socket:
    """An AF_PACKET socket that receives nothing."""
    return socket.socket(socket.AF_PACKET, kind, 0)


def _raw(stage: Stage, mac: bytes) -> None:
    with _open(socket.SOCK_RAW) as sock:
        sock.sendto(frame(stage, mac), ("w0", _ethertype(stage)))


def _into_loopback(stage: Stage, mac: bytes) -> None:
    """As if it had arrived there: the host passes it on, and takes it for one of its own."""
    packet = spoofed(stage, unused=stage.form is Form.IPV4)
    with _open(socket.SOCK_RAW) as sock:
        data = bytes(12) + struct.pack("!H", _ethertype(stage)) + packet
        sock.sendto(data, ("lo", _ethertype(stage)))


def _looped(stage: Stage) -> str:
    route = (f"{stage.unused}/{stage.bits}", "dev", "w1")  # for answers: to nobody
    ip = stage.world.site.host.ip
    with forwarding(stage):
        ip("route", "add", *route)
        try:
            return _packet(_into_loopback)(stage)
        finally:
            ip("route", "del", *route)


def _cooked(stage: Stage, mac: bytes) -> None:
    with _open(socket.SOCK_DGRAM) as sock:
        sock.sendto(spoofed(stage), ("w0", _ethertype(stage), 0, 0, mac))


def _bypassing(stage: Stage, mac: bytes) -> None:
    with _open(socket.SOCK_RAW) as sock:
        sock.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
        sock.sendto(frame(stage, mac), ("w0", _ethertype(stage)))


def _bypassing_by_32_bits(stage: Stage, mac: bytes) -> None:
    """The kernel runs no program of ours for the options of 32-bit programs."""
    with _open(socket.SOCK_RAW) as sock:
        set_by_32_bits(sock, _SOL_PACKET, _PACKET_QDISC_BYPASS, struct.pack("@I", 1))
        sock.sendto(frame(stage, mac), ("w0", _ethertype(stage)))


def set_by_32_bits(sock: socket.socket, level: int, option: int, value: bytes) -> None:
    """An option, as a 32-bit program sets it; Absent if this kernel serves none."""
    try:
        compat.set_option(sock.fileno(), level, option, value)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise Absent("32-bit system calls") from None
        raise


@contextmanager
def _late_interface(stage: Stage) -> Iterator[None]:
    """One more link to gateway A, made while there is no agent."""
    world = stage.world
    host, gateway = world.site.host, world.site.a
    world.agent.sigkill()
    try:
        host.ip("link", "add", "late", "type", "veth", "peer", "late-end", "netns", gateway.name)
        host.ip("link", "set", "late", "up")
        gateway.ip("link", "set", "late-end", "up")
        # What arrives there arrives at the link that is captured.
        gateway.run(["tc", "qdisc", "add", "dev", "late-end", "ingress"])
        gateway.run(
            [
                *("tc", "filter", "add", "dev", "late-end", "ingress", "protocol", "all"),
                *("u32", "match", "u32", "0", "0"),
                *("action", "mirred", "ingress", "redirect", "dev", "to-host"),
            ]
        )
        yield
    finally:
        host.ip("link", "del", "late")
        world.agent.start()


def _raw_at_late(stage: Stage, mac: bytes) -> None:
    with _open(socket.SOCK_RAW) as sock:
        sock.sendto(frame(stage, mac), ("late", _ethertype(stage)))


def _at_late_interface(stage: Stage) -> str:
    with _late_interface(stage):
        return _packet(_raw_at_late)(stage)


def _ring(stage: Stage, mac: bytes) -> None:
    """PACKET_TX_RING: the frame is put into memory shared with the kernel."""
    size = _FRAME_SIZE * _FRAMES
    data = frame(stage, mac)
    with _open(socket.SOCK_RAW) as sock:
        request = struct.pack("@4I", size, 1, _FRAME_SIZE, _FRAMES)
        sock.setsockopt(_SOL_PACKET, _PACKET_TX_RING, request)
        sock.bind(("w0", _ethertype(stage)))
        with mmap.mmap(sock.fileno(), size) as shared:
            head = struct.pack("@NIIHH", _STATUS_SEND, len(data), len(data), 0, 0)
            shared[_SLOT_HEAD : _SLOT_HEAD + len(data)] = data
            shared[: len(head)] = head
            sock.send(b"")


SetOption = Callable[[socket.socket, int, int, bytes], None]


class _Xdp:
    """An AF_XDP socket in copy mode on w0 that can send one frame."""

    _REGISTER = 4
    _FILL, _COMPLETION, _TX, _OFFSETS = 5, 6, 3, 1
    _TX_RING_OFFSET = 0x80000000
    _XDP_COPY = 2
    _ENTRIES = 8

    def __init__(self) -> None:
        try:
            self.sock = socket.socket(_AF_XDP, socket.SOCK_RAW, 0)
        except OSError as error:
            raise absent(error) from None

    def send(self, data: bytes, set_option: SetOption = socket.socket.setsockopt) -> None:
        """Send one frame; OSError as it comes."""
        size = 4096 * 4
        area = mmap.mmap(-1, size)
        area[: len(data)] = data
        where = ctypes.addressof(ctypes.c_char.from_buffer(area))
        area_at = struct.pack("@QQIIII", where, size, 4096, 0, 0, 0)
        set_option(self.sock, _SOL_XDP, self._REGISTER, area_at)
        for ring in (self._FILL, self._COMPLETION, self._TX):
            set_option(self.sock, _SOL_XDP, ring, struct.pack("@I", self._ENTRIES))
        offsets = struct.unpack("@16Q", self.sock.getsockopt(_SOL_XDP, self._OFFSETS, 128))
        producer, _, entries, _ = offsets[4:8]  # of the TX ring
        shared = mmap.mmap(
            self.sock.fileno(), entries + self._ENTRIES * 16, offset=self._TX_RING_OFFSET
        )
        index = socket.if_nametoindex("w0")
        name = struct.pack("@HHIII", _AF_XDP, self._XDP_COPY, index, 0, 0)
        if _libc.bind(self.sock.fileno(), name, len(name)):
            raise OSError(ctypes.get_errno(), "bind")
        shared[entries : entries + 16] = struct.pack("@QII", 0, len(data), 0)
        shared[producer : producer + 4] = struct.pack("@I", 1)
        self.sock.send(b"", socket.MSG_DONTWAIT)


def _xdp(stage: Stage, mac: bytes) -> None:
    sender = _Xdp()
    with sender.sock:
        sender.send(frame(stage, mac))


def _xdp_by_32_bits(stage: Stage, mac: bytes) -> None:
    sender = _Xdp()
    with sender.sock:
        sender.send(frame(stage, mac), set_by_32_bits)


_RAW: Final = "CAP_NET_RAW"
_REMEDY: Final = (
    "No cgroup program runs for these sockets. Without CAP_NET_RAW nobody can open one; for a "
    "class that needs it, refuse = {}."
)
_UNHEARD: Final = (
    " That closes this where the kernel runs a program at the creation of sockets (`odm-agent"
    " check`: socket creation). For services elsewhere: SystemCallArchitectures=native and"
    " RestrictAddressFamilies=~AF_PACKET AF_XDP."
)
_AT_CREATION: Final = creation.way() is not None


def _closed(otherwise: Expect) -> Expect:
    """What a class with `refuse` meets: the refusal at creation, if the kernel lets us there."""
    return refused("sock-create") if _AT_CREATION else otherwise


_FRAMES_DROPPED: Final = _closed(refused("frames", "ENOBUFS"))

TECHNIQUES: Final = (
    Technique(
        "packet-raw",
        "AF_PACKET, SOCK_RAW",
        _packet(_raw),
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["packet"]'),
        closed_by="packet",
        closed=_FRAMES_DROPPED,
    ),
    Technique(
        "packet-cooked",
        "AF_PACKET, SOCK_DGRAM",
        _packet(_cooked),
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["packet"]'),
        closed_by="packet",
        closed=_FRAMES_DROPPED,
    ),
    Technique(
        "packet-ring",
        "AF_PACKET, PACKET_TX_RING",
        _packet(_ring),
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["packet"]'),
        closed_by="packet",
        closed=_FRAMES_DROPPED,
    ),
    Technique(
        "packet-loopback",
        "AF_PACKET onto `lo` of a host that forwards",
        _looped,
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["packet"]'),
        closed_by="packet",
        closed=_FRAMES_DROPPED,
    ),
    Technique(
        "packet-bypass",
        "AF_PACKET, PACKET_QDISC_BYPASS",
        _packet(_bypassing),
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["packet"]'),
        closed_by="packet",
        closed=_closed(refused("setsockopt")),
    ),
    Technique(
        "packet-bypass-32-bit",
        "AF_PACKET, PACKET_QDISC_BYPASS set by a 32-bit system call",
        _packet(_bypassing_by_32_bits),
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["packet"]') + _UNHEARD,
        closed_by="packet",
        closed=_closed(OPEN),
    ),
    Technique(
        "packet-late",
        "AF_PACKET, at an interface that was made while the agent was dead",
        _at_late_interface,
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["packet"]') + _UNHEARD,
        closed_by="packet",
        closed=_closed(OPEN),
    ),
    Technique(
        "xdp",
        "AF_XDP in copy mode",
        _packet(_xdp),
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["xdp"]'),
        closed_by="xdp",
        closed=_closed(refused("setsockopt")),
    ),
    Technique(
        "xdp-32-bit",
        "AF_XDP in copy mode, set up by 32-bit system calls",
        _packet(_xdp_by_32_bits),
        OPEN,
        needs=_RAW,
        remedy=_REMEDY.format('["xdp"]') + _UNHEARD,
        closed_by="xdp",
        closed=_closed(OPEN),
    ),
)
