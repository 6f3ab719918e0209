"""io_uring: the same calls, made by the kernel's own threads."""

import socket
import struct
from collections.abc import Callable
from typing import Final

from tests.lab.client import source_cmsg
from tests.rfc8653.bypass.technique import (
    DATA,
    PATIENCE_S,
    SIX,
    UNTYPED,
    Stage,
    Technique,
    refused,
)
from tests.rfc8653.bypass.tricks_bind import IPV6_FREEBIND
from tests.rfc8653.bypass.uring import Uring, helper

GROUP: Final = "io_uring"

_SO_RCVTIMEO: Final = struct.pack("@qq", 0, int(PATIENCE_S * 1e6))


def _blocking(sock: socket.socket) -> socket.socket:
    """io_uring waits by itself; the socket's own timeout bounds it."""
    sock.settimeout(None)
    for name in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        sock.setsockopt(socket.SOL_SOCKET, name, _SO_RCVTIMEO)
    return sock


def _act(function: Callable[[Stage, Uring], object], ring: Uring) -> Callable[[Stage], str]:
    def act(stage: Stage) -> str:
        helper()
        return stage.do(lambda: function(stage, ring))

    return act


def _bind_connect(stage: Stage, ring: Uring) -> None:
    with _blocking(stage.tcp()) as sock:
        ring.bind(sock, (stage.source, 0))
        ring.connect(sock, stage.to)


def _connect_only(stage: Stage, ring: Uring) -> None:
    with _blocking(stage.tcp()) as sock:
        ring.connect(sock, stage.to)


def _passed_through(stage: Stage, ring: Uring) -> None:
    """Call the host's own address, which becomes the source, then somebody else."""
    with _blocking(stage.udp()) as sock:
        ring.connect(sock, (stage.source, 9))
        ring.connect(sock, stage.to)
        sock.send(DATA)


def _sendmsg(stage: Stage, ring: Uring) -> None:
    with _blocking(stage.udp()) as sock:
        ring.sendmsg(sock, DATA, source_cmsg(stage.plain), stage.to)


def _send_to(stage: Stage, ring: Uring) -> None:
    with _blocking(stage.udp()) as sock:
        sock.connect((stage.source, 9))
        ring.send_to(sock, DATA, stage.to)


def _socket(stage: Stage, ring: Uring) -> None:
    with ring.open(stage.form.af, socket.SOCK_DGRAM, 0) as sock:
        sock.bind((stage.source, 0))
        sock.sendto(DATA, stage.to)


def _setsockopt(stage: Stage, ring: Uring) -> None:
    with _blocking(stage.udp()) as sock:
        ring.setsockopt(sock, socket.IPPROTO_IPV6, IPV6_FREEBIND, struct.pack("@i", 1))
        sock.bind((stage.unused, 0))
        sock.sendto(DATA, stage.to)


_PLAIN: Final = Uring()
_POLL: Final = Uring(poll=True)
_WORKER: Final = Uring(worker=True)
_AT_BIND: Final = refused("bind")

TECHNIQUES: Final = (
    Technique("uring-bind", "OP_BIND, OP_CONNECT", _act(_bind_connect, _PLAIN), _AT_BIND),
    Technique(
        "uring-bind-poll",
        "OP_BIND, OP_CONNECT by the polling thread (SQPOLL)",
        _act(_bind_connect, _POLL),
        _AT_BIND,
    ),
    Technique(
        "uring-connect",
        "OP_CONNECT without bind, by a worker thread",
        _act(_connect_only, _WORKER),
        UNTYPED,
        no_control="it carries no address: the class's own must come of it",
        own=True,
    ),
    Technique(
        "uring-connect-poll",
        "OP_CONNECT without bind, by the polling thread (SQPOLL)",
        _act(_connect_only, _POLL),
        UNTYPED,
        no_control="it carries no address: the class's own must come of it",
        own=True,
    ),
    Technique(
        "uring-self-connect",
        "OP_CONNECT to the host's own typed address by a worker thread, then elsewhere",
        _act(_passed_through, _WORKER),
        refused("connect"),
    ),
    Technique(
        "uring-sendmsg",
        "OP_SENDMSG with IP_PKTINFO, IPV6_PKTINFO",
        _act(_sendmsg, _PLAIN),
        refused("sendmsg"),
    ),
    Technique(
        "uring-sendmsg-poll",
        "the same by the polling thread (SQPOLL)",
        _act(_sendmsg, _POLL),
        refused("sendmsg"),
    ),
    Technique(
        "uring-sendmsg-worker",
        "the same by a worker thread",
        _act(_sendmsg, _WORKER),
        refused("sendmsg"),
    ),
    Technique(
        "uring-send",
        "OP_SEND to an address, from a socket whose source is the host's own typed address",
        _act(_send_to, _WORKER),
        refused("sendmsg"),
    ),
    Technique("uring-socket", "OP_SOCKET, then bind, sendto", _act(_socket, _WORKER), _AT_BIND),
    Technique(
        "uring-setsockopt",
        "socket command SETSOCKOPT: IPV6_FREEBIND, then bind an unconfigured address",
        _act(_setsockopt, _PLAIN),
        _AT_BIND,
        SIX,
    ),
)
