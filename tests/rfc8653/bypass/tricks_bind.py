"""Naming a source by bind(): what the early hooks see and answer with an errno."""

import socket
from collections.abc import Callable
from typing import Final

from tests.lab.client import disconnect
from tests.rfc8653.bypass.technique import (
    ALL,
    DATA,
    FOUR,
    MAPPED,
    SIX,
    Stage,
    Technique,
    application,
    refused,
)

GROUP: Final = "Binding an address"

IP_FREEBIND: Final = 15
IP_TRANSPARENT: Final = 19
IP_BIND_ADDRESS_NO_PORT: Final = 24
IPV6_FREEBIND: Final = 78
IPV6_TRANSPARENT: Final = 75
_IPV6_ADDRFORM: Final = 1


def talk(stage: Stage, sock: socket.socket) -> None:
    """Connect and exchange something."""
    sock.connect(stage.to)
    if sock.type == socket.SOCK_DGRAM:
        sock.send(DATA)
    else:
        sock.recv(64)


def freebind(sock: socket.socket) -> None:
    """Any address at all may be bound."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)


def transparent(sock: socket.socket) -> None:
    """The same, and IPv4 sends from it too."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)


def _bound(
    kind: str, *, before: Callable[[socket.socket], object] | None = None, unused: bool = False
) -> Callable[[Stage], None]:
    """A client that binds the typed address, perhaps after some option, and connects."""

    def client(stage: Stage) -> None:
        with stage.tcp() if kind == "tcp" else stage.udp() as sock:
            if before is not None:
                before(sock)
            sock.bind((stage.unused if unused else stage.source, 0))
            talk(stage, sock)

    return client


def _sendto(stage: Stage) -> None:
    with stage.udp() as sock:
        sock.bind((stage.source, 0))
        sock.sendto(DATA, stage.to)


def _rebind(kind: str) -> Callable[[Stage], None]:
    """Connect as one may, dissolve the association, bind, connect again."""

    def client(stage: Stage) -> None:
        with stage.tcp() if kind == "tcp" else stage.udp() as sock:
            talk(stage, sock)
            disconnect(sock)
            sock.bind((stage.source, 0))
            talk(stage, sock)

    return client


def _sctp(stage: Stage) -> None:
    with stage.tcp(socket.IPPROTO_SCTP) as sock:
        sock.bind((stage.source, 0))
        sock.connect(stage.to)


def _addrform(stage: Stage) -> None:
    """An IPv6 socket turns into an IPv4 one, and is bound then."""
    with stage.udp() as sock:
        sock.connect(stage.to)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDRFORM, socket.AF_INET)
        disconnect(sock)
        plain = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, fileno=sock.detach())
    with plain:
        plain.bind((stage.plain, 0))
        plain.connect((stage.to[0].removeprefix("::ffff:"), stage.to[1]))
        plain.send(DATA)


def _option(level: int, name: int) -> Callable[[socket.socket], None]:
    return lambda sock: sock.setsockopt(level, name, 1)


_AT_BIND: Final = refused("bind")

TECHNIQUES: Final = (
    Technique("tcp-bind", "TCP: bind, connect", application(_bound("tcp")), _AT_BIND, ALL),
    Technique("udp-bind", "UDP: bind, connect", application(_bound("udp")), _AT_BIND, ALL),
    Technique("udp-bind-sendto", "UDP: bind, sendto", application(_sendto), _AT_BIND, ALL),
    Technique(
        "bind-no-port",
        "IP_BIND_ADDRESS_NO_PORT: the port, and with it the binding, comes later",
        application(
            _bound("tcp", before=_option(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT)),
        ),
        _AT_BIND,
    ),
    Technique(
        "bind-reuseport",
        "SO_REUSEPORT: bind, connect",
        application(_bound("tcp", before=_option(socket.SOL_SOCKET, socket.SO_REUSEPORT))),
        _AT_BIND,
    ),
    Technique(
        "freebind-tcp",
        "IPV6_FREEBIND: bind an unconfigured address of the prefix, TCP",
        application(_bound("tcp", before=freebind, unused=True)),
        _AT_BIND,
        SIX,
    ),
    Technique(
        "freebind4-tcp",
        "IP_FREEBIND: bind an unconfigured address of the prefix, TCP",
        application(_bound("tcp", before=freebind, unused=True)),
        _AT_BIND,
        FOUR,
        no_control="IPv4 sends from no address that isn't local, for want of IP_TRANSPARENT",
    ),
    Technique(
        "freebind-udp",
        "IPV6_FREEBIND: bind an unconfigured address of the prefix, UDP",
        application(_bound("udp", before=freebind, unused=True)),
        _AT_BIND,
        SIX,
    ),
    Technique(
        "freebind4-udp",
        "IP_FREEBIND: bind an unconfigured address of the prefix, UDP",
        application(_bound("udp", before=freebind, unused=True)),
        _AT_BIND,
        FOUR,
        no_control="IPv4 sends from no address that isn't local, for want of IP_TRANSPARENT",
    ),
    Technique(
        "transparent",
        "IP_TRANSPARENT, IPV6_TRANSPARENT: bind an unconfigured address of the prefix",
        application(_bound("tcp", before=transparent, unused=True)),
        _AT_BIND,
        needs="CAP_NET_ADMIN",
    ),
    Technique(
        "addrform",
        "IPV6_ADDRFORM: a mapped IPv6 socket becomes an IPv4 one, then bind",
        application(_addrform),
        _AT_BIND,
        MAPPED,
    ),
    Technique(
        "tcp-unspec-bind",
        "TCP: connect, connect(AF_UNSPEC), bind, connect",
        application(_rebind("tcp")),
        _AT_BIND,
    ),
    Technique(
        "udp-unspec-bind",
        "UDP: connect, connect(AF_UNSPEC), bind, connect",
        application(_rebind("udp")),
        _AT_BIND,
    ),
    Technique(
        "sctp-bind",
        "SCTP: bind, connect",
        application(_sctp),
        refused("egress", "timeout"),
    ),
    Technique(
        "udplite-bind",
        "UDP-Lite: bind, sendto",
        application(lambda stage: _lite(stage)),
        _AT_BIND,
        closed_by="udplite",
        closed=refused("sock-create"),
    ),
)


def _lite(stage: Stage) -> None:
    with stage.udp(socket.IPPROTO_UDPLITE) as sock:
        sock.bind((stage.source, 0))
        sock.sendto(DATA, stage.to)
