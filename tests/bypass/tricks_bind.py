"""Naming a source by bind(): what the early hooks see and answer with an errno."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.bypass.technique import (
    ALL,
    BOTH,
    DATA,
    FOUR,
    MAPPED,
    SIX,
    UNTYPED,
    Stage,
    Technique,
    application,
    refused,
)
from tests.lab.client import disconnect

GROUP: Final = "Binding an address"

IP_FREEBIND: Final = 15
IP_TRANSPARENT: Final = 19
IP_BIND_ADDRESS_NO_PORT: Final = 24
IPV6_FREEBIND: Final = 78
IPV6_TRANSPARENT: Final = 75
_IPV6_ADDRFORM: Final = 1
_TCP_REPAIR: Final = 19
_TCP_FASTOPEN_CONNECT: Final = 30
_MSG_FASTOPEN: Final = 0x20000000


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


def _reconnect(stage: Stage) -> None:
    with stage.tcp() as sock:
        talk(stage, sock)
        disconnect(sock)
        talk(stage, sock)


def _self_connect(protocol: int = 0) -> Callable[[Stage], None]:
    """Who calls the host's own address gets it as source; then call somebody else."""

    def client(stage: Stage) -> None:
        with stage.udp(protocol) as sock:
            sock.connect((stage.source, 9))
            talk(stage, sock)

    return client


def _self_connect_sendto(stage: Stage) -> None:
    with stage.udp() as sock:
        sock.connect((stage.source, 9))
        sock.sendto(DATA, stage.to)


def _self_connect_tcp(stage: Stage) -> None:
    with stage.tcp() as sock:
        try:
            sock.connect((stage.source, 9))
        except ConnectionRefusedError:
            disconnect(sock)
            talk(stage, sock)


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


def _repair(stage: Stage) -> None:
    """A connection that begins without a handshake (checkpoint and restore)."""
    with stage.tcp() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        sock.bind((stage.source, 0))
        sock.connect(stage.to)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
        sock.send(DATA)


def _fast_open(stage: Stage) -> None:
    with stage.tcp() as sock:
        sock.bind((stage.source, 0))
        sock.sendto(DATA, _MSG_FASTOPEN, stage.to)


def _fast_open_unbound(stage: Stage) -> None:
    with stage.tcp() as sock:
        with suppress(BlockingIOError):  # the handshake is under way
            sock.sendto(DATA, _MSG_FASTOPEN, stage.to)
        sock.recv(64)


def _fast_open_connect(stage: Stage) -> None:
    with stage.tcp() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
        sock.bind((stage.source, 0))
        sock.connect(stage.to)
        sock.send(DATA)


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
        "tcp-reconnect",
        "TCP: connect, connect(AF_UNSPEC), connect",
        application(_reconnect),
        UNTYPED,
        ALL,
        no_control="it carries no address: the class's own must come of it",
        own=True,
    ),
    Technique(
        "udp-self-connect",
        "UDP: connect to the host's own typed address, which becomes the source; connect again",
        application(_self_connect()),
        refused("connect"),
        ALL,
    ),
    Technique(
        "udp-self-sendto",
        "UDP: connect to the host's own typed address, then sendto somebody else",
        application(_self_connect_sendto),
        refused("sendmsg"),
        ALL,
    ),
    Technique(
        "tcp-self-connect",
        "TCP: connect to the host's own typed address (refused), then connect elsewhere",
        application(_self_connect_tcp),
        UNTYPED,
        BOTH,
        no_control="the kernel forgets the source with the failed connection",
        own=True,
    ),
    Technique(
        "tcp-repair",
        "TCP_REPAIR: bind, connect without a handshake, send",
        application(_repair),
        _AT_BIND,
        needs="CAP_NET_ADMIN",
    ),
    Technique(
        "fast-open-bound",
        "TCP Fast Open: bind, sendto(MSG_FASTOPEN)",
        application(_fast_open),
        _AT_BIND,
    ),
    Technique(
        "fast-open-connect",
        "TCP Fast Open: TCP_FASTOPEN_CONNECT, bind, connect",
        application(_fast_open_connect),
        _AT_BIND,
    ),
    Technique(
        "fast-open",
        "TCP Fast Open: sendto(MSG_FASTOPEN) without bind",
        application(_fast_open_unbound),
        UNTYPED,
        ALL,
        no_control="it carries no address: the class's own must come of it",
        own=True,
    ),
    Technique(
        "udplite-bind",
        "UDP-Lite: bind, sendto",
        application(lambda stage: _lite(stage)),
        _AT_BIND,
        closed_by="udplite",
        closed=refused("sock-create"),
    ),
    Technique(
        "udplite-self-connect",
        "UDP-Lite, whose connect() runs no hook: connect to the host's own, then elsewhere",
        application(_self_connect(socket.IPPROTO_UDPLITE)),
        refused("egress", "EPERM"),
        closed_by="udplite",
        closed=refused("sock-create"),
    ),
)


def _lite(stage: Stage) -> None:
    with stage.udp(socket.IPPROTO_UDPLITE) as sock:
        sock.bind((stage.source, 0))
        sock.sendto(DATA, stage.to)
