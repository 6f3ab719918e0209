"""Naming a source message by message, or for all of a socket's multicast."""

import socket
import struct
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final

from tests.lab.client import source_cmsg
from tests.rfc8653.bypass.messages import Message, sendmmsg, sockaddr
from tests.rfc8653.bypass.technique import (
    ALL,
    DATA,
    FOUR,
    SIX,
    UNTYPED,
    Stage,
    Technique,
    application,
    refused,
)
from tests.rfc8653.bypass.tricks_bind import IPV6_FREEBIND

GROUP: Final = "Naming a source with a datagram"

IPV6_2292PKTINFO: Final = 2
_IPV6_2292PKTOPTIONS: Final = 6
_UDP_CORK: Final = 1
_UDP_SEGMENT: Final = 103
_MULTICAST: Final = "239.86.53.1"
_NAMED_BY_KERNEL: Final = "the kernel takes no notice of the address"


def _cmsg(connected: bool) -> Callable[[Stage], None]:
    def client(stage: Stage) -> None:
        with stage.udp() as sock:
            if connected:
                sock.connect(stage.to)
            to = () if connected else (stage.to,)
            sock.sendmsg([DATA], source_cmsg(stage.plain), 0, *to)

    return client


def _old_cmsg(stage: Stage) -> None:
    ((level, _, data),) = source_cmsg(stage.plain)
    with stage.udp() as sock:
        sock.sendmsg([DATA], [(level, IPV6_2292PKTINFO, data)], 0, stage.to)


def _freebind_cmsg(stage: Stage) -> None:
    with stage.udp() as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        sock.sendmsg([DATA], source_cmsg(stage.unused), 0, stage.to)


def _segments_cmsg(stage: Stage) -> None:
    with stage.udp() as sock:
        size = (socket.IPPROTO_UDP, _UDP_SEGMENT, struct.pack("@H", len(DATA)))
        sock.sendmsg([DATA * 2], [size, *source_cmsg(stage.plain)], 0, stage.to)


def _second_of_many(stage: Stage) -> None:
    to = sockaddr(*stage.to)
    messages = [Message(DATA, to), Message(DATA, to, source_cmsg(stage.plain))]
    with stage.udp() as sock:
        if sendmmsg(sock, messages) == 1:  # as for send(): the error is that of the next call
            sendmmsg(sock, messages[1:])


def _sticky(stage: Stage) -> None:
    with stage.udp() as sock:
        ((level, name, data),) = source_cmsg(stage.plain)
        sock.setsockopt(level, name, data)
        sock.sendto(DATA, stage.to)


def _sticky_options(stage: Stage) -> None:
    with stage.udp() as sock:
        ((level, _, data),) = source_cmsg(stage.plain)
        option = struct.pack("@Nii", 16 + len(data), level, IPV6_2292PKTINFO) + data + bytes(4)
        sock.setsockopt(level, _IPV6_2292PKTOPTIONS, option)
        sock.sendto(DATA, stage.to)


def _corked(stage: Stage) -> None:
    """The first part opens the datagram; the second one names a source."""
    with stage.udp() as sock:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_CORK, 1)
        sock.sendto(DATA, stage.to)
        sock.sendmsg([DATA], source_cmsg(stage.plain), 0, stage.to)
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_CORK, 0)


def _more(stage: Stage) -> None:
    with stage.udp() as sock:
        sock.sendto(DATA, socket.MSG_MORE, stage.to)
        sock.sendmsg([DATA], source_cmsg(stage.plain), 0, stage.to)


def _multicast(connected: bool) -> Callable[[Stage], None]:
    """IP_MULTICAST_IF with an address makes that the source of all multicast; nobody checks it."""

    def client(stage: Stage) -> None:
        with stage.udp() as sock:
            choice = struct.pack(
                "@4s4si", bytes(4), ip_address(stage.plain).packed, socket.if_nametoindex("w0")
            )
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, choice)
            if connected:
                sock.connect((_MULTICAST, 7001))
                sock.send(DATA)
            else:
                sock.sendto(DATA, (_MULTICAST, 7001))

    return client


def _udplite_cmsg(stage: Stage) -> None:
    with stage.udp(socket.IPPROTO_UDPLITE) as sock:
        sock.sendmsg([DATA], source_cmsg(stage.plain), 0, stage.to)


_AT_SENDMSG: Final = refused("sendmsg")

TECHNIQUES: Final = (
    Technique(
        "pktinfo",
        "sendmsg with IP_PKTINFO, IPV6_PKTINFO",
        application(_cmsg(False)),
        _AT_SENDMSG,
        ALL,
    ),
    Technique(
        "pktinfo-connected",
        "the same on a connected socket",
        application(_cmsg(True)),
        _AT_SENDMSG,
        ALL,
    ),
    Technique(
        "pktinfo-2292",
        "sendmsg with IPV6_2292PKTINFO",
        application(_old_cmsg),
        _AT_SENDMSG,
        SIX,
    ),
    Technique(
        "pktinfo-freebind",
        "IPV6_FREEBIND, sendmsg with an unconfigured address of the prefix",
        application(_freebind_cmsg),
        _AT_SENDMSG,
        SIX,
    ),
    Technique(
        "pktinfo-segments",
        "sendmsg with IP_PKTINFO, IPV6_PKTINFO and UDP_SEGMENT",
        application(_segments_cmsg),
        _AT_SENDMSG,
    ),
    Technique(
        "sendmmsg",
        "sendmmsg with a source in the second message only (the first goes, untyped)",
        application(_second_of_many),
        _AT_SENDMSG,
    ),
    Technique(
        "sticky-pktinfo",
        "IPV6_PKTINFO as socket option (sticky)",
        application(_sticky),
        UNTYPED,
        SIX,
        no_control=_NAMED_BY_KERNEL,
        own=True,
    ),
    Technique(
        "sticky-2292",
        "IPV6_2292PKTOPTIONS as socket option (sticky)",
        application(_sticky_options),
        UNTYPED,
        SIX,
        no_control=_NAMED_BY_KERNEL,
        own=True,
    ),
    Technique(
        "cork",
        "UDP_CORK: a source in the second part of a datagram",
        application(_corked),
        UNTYPED,
        no_control="the first part has decided the source",
        own=True,
    ),
    Technique(
        "more",
        "MSG_MORE: a source in the second part of a datagram",
        application(_more),
        UNTYPED,
        no_control="the first part has decided the source",
        own=True,
    ),
    Technique(
        "multicast-if",
        "IP_MULTICAST_IF with the typed address, sendto a group",
        application(_multicast(False)),
        refused("egress", "EPERM"),
        FOUR,
    ),
    Technique(
        "multicast-if-connected",
        "IP_MULTICAST_IF with the typed address, connect to a group",
        application(_multicast(True)),
        refused("egress", "EPERM"),
        FOUR,
    ),
    Technique(
        "udplite-pktinfo",
        "UDP-Lite: sendmsg with IP_PKTINFO, IPV6_PKTINFO",
        application(_udplite_cmsg),
        _AT_SENDMSG,
        closed_by="udplite",
        closed=refused("sock-create"),
    ),
)
