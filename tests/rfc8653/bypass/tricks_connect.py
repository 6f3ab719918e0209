"""A source that comes of connecting: kept over a second connect, or given without a handshake."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.lab.client import disconnect
from tests.rfc8653.bypass.technique import (
    ALL,
    BOTH,
    DATA,
    PATIENCE_S,
    UNTYPED,
    Stage,
    Technique,
    application,
    refused,
)
from tests.rfc8653.bypass.tricks_bind import talk

GROUP: Final = "Connecting"

_TCP_REPAIR: Final = 19
_TCP_FASTOPEN_CONNECT: Final = 30
_MSG_FASTOPEN: Final = 0x20000000


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


def _accepted(stage: Stage) -> None:
    """Call oneself at the typed address, and go on with the socket that answered."""
    with stage.tcp() as listener, stage.tcp() as caller:
        listener.listen(1)
        caller.connect((stage.source, listener.getsockname()[1]))
        answered, _ = listener.accept()
        with answered:
            answered.settimeout(PATIENCE_S)
            disconnect(answered)
            talk(stage, answered)


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


_AT_BIND: Final = refused("bind")

TECHNIQUES: Final = (
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
        "tcp-accepted",
        "TCP: call oneself at the typed address; dissolve the accepted socket, connect elsewhere",
        application(_accepted),
        UNTYPED,
        no_control="the kernel forgets the source with the association",
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
        "udplite-self-connect",
        "UDP-Lite, whose connect() runs no hook: connect to the host's own, then elsewhere",
        application(_self_connect(socket.IPPROTO_UDPLITE)),
        refused("egress", "EPERM"),
        closed_by="udplite",
        closed=refused("sock-create"),
    ),
)
