"""By way of `lo`: making the kernel answer, from the typed address, somebody who never asked."""

import socket
import struct
from collections.abc import Callable
from typing import Final

from tests.lab import compat
from tests.rfc8653.bypass.packets import datagram, echo_request
from tests.rfc8653.bypass.technique import (
    BOTH,
    FOUR,
    SIX,
    Act,
    Expect,
    Form,
    Stage,
    Technique,
    application,
    refused,
)
from tests.rfc8653.bypass.tricks_bind import IPV6_FREEBIND, freebind, transparent
from tests.rfc8653.bypass.tricks_frames import set_by_32_bits
from tests.rfc8653.bypass.tricks_raw import ping_for_all
from tests.rfc8653.bypass.tricks_servers import cookies

GROUP: Final = "By way of `lo`"

_PORT: Final = 27120
_CLOSED_PORT: Final = 27121
_BY_32_BITS: Final = "IPV6_FREEBIND by a 32-bit system call to somebody else's address"
_CALLS: Final = 12
#: An IPv6 error quotes as much as fits into 1280 bytes (RFC 4443, 2.4).
_QUOTED: Final = 900
_RATES: Final = ("net/ipv4/icmp_ratelimit", "net/ipv6/icmp/ratelimit")
#: The kernel's own choice, in ms between two answers.
_RATE: Final = "1000"
_RAW: Final = "CAP_NET_RAW"
_SILENT: Final = refused("egress", "ok")
_EPERM: Final = refused("egress", "EPERM")


def _as_somebody_else(stage: Stage, sock: socket.socket) -> None:
    """Take the correspondent's second address for a source: the answer goes there."""
    (transparent if stage.form is Form.IPV4 else freebind)(sock)
    sock.bind((stage.other, 0))


def _as_somebody_else_by_32_bits(stage: Stage, sock: socket.socket) -> None:
    """No program of ours hears of the option, and it is taken back as soon as it has helped."""
    for value in (1, 0):
        set_by_32_bits(sock, socket.IPPROTO_IPV6, IPV6_FREEBIND, struct.pack("@I", value))
        if value:
            sock.bind((stage.other, 0))


def _by_32_bits(kind: socket.SocketKind, protocol: int = 0) -> Act:
    def client(stage: Stage) -> None:
        with stage.tcp() if kind == socket.SOCK_STREAM else stage.udp(protocol) as sock:
            _as_somebody_else_by_32_bits(stage, sock)
            sock.setblocking(False)
            if kind == socket.SOCK_STREAM:
                sock.connect_ex((stage.plain, _CLOSED_PORT))
            elif protocol:
                sock.sendto(echo_request(stage.form), (stage.plain, 0))
            else:
                sock.sendto(bytes(_QUOTED), (stage.plain, _CLOSED_PORT))

    def act(stage: Stage) -> str:
        compat.prepare()
        with ping_for_all(stage):
            return stage.do(lambda: client(stage))

    return act


def _call(stage: Stage, port: int) -> None:
    with stage.tcp() as sock:
        _as_somebody_else(stage, sock)
        sock.setblocking(False)
        sock.connect_ex((stage.plain, port))


def _call_listener(stage: Stage) -> None:
    """The listener's answers are SYN cookies, which no hook sees."""
    with stage.tcp() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("::" if stage.form is Form.IPV6 else "0.0.0.0", _PORT))
        listener.listen(1)
        for _ in range(_CALLS):
            _call(stage, _PORT)


def _with_cookies(stage: Stage) -> str:
    with cookies(stage):
        return stage.do(lambda: _call_listener(stage))


def _call_nobody(stage: Stage) -> None:
    _call(stage, _CLOSED_PORT)


def _datagram(protocol: int = 0) -> Callable[[Stage], None]:
    def client(stage: Stage) -> None:
        with stage.udp(protocol) as sock:
            _as_somebody_else(stage, sock)
            sock.sendto(bytes(_QUOTED), (stage.plain, _CLOSED_PORT))

    return client


def _whole(stage: Stage) -> None:
    with stage.raw(socket.IPPROTO_RAW) as sock:
        whole = datagram(stage.other, stage.plain, length=_QUOTED)
        sock.sendto(whole, (stage.plain, 0))


def _ping(stage: Stage) -> None:
    with stage.udp(socket.IPPROTO_ICMPV6) as sock:
        _as_somebody_else(stage, sock)
        sock.sendto(echo_request(stage.form), (stage.plain, 0))


def _pinged(stage: Stage) -> str:
    with ping_for_all(stage):
        return stage.do(lambda: _ping(stage))


def _unlimited(act: Act) -> Act:
    """On a host that answers as often as it is asked: silence then has another reason."""

    def inner(stage: Stage) -> str:
        host = stage.world.site.host
        for name in _RATES:
            host.sysctl(name, "0")
        try:
            return act(stage)
        finally:
            for name in _RATES:
                host.sysctl(name, _RATE)

    return inner


def _of(
    slug: str,
    words: str,
    act: Act,
    expect: Expect,
    forms: tuple[Form, ...],
    *,
    needs: str = "",
    kernels: bool = True,
    closed_by: str = "",
) -> Technique:
    closed = refused("sock-create") if closed_by else None
    return Technique(
        *(slug, words, _unlimited(act), expect, forms),
        needs=needs,
        kernels=kernels,
        closed_by=closed_by,
        closed=closed,
    )


def _each_family(
    slug: str, words: str, act: Act, expect: Expect, *, kernels: bool = True
) -> tuple[Technique, ...]:
    """Unprivileged in IPv6; IPv4 sends from an address of others only by IP_TRANSPARENT."""
    return (
        _of(slug, f"IPV6_FREEBIND to {words}", act, expect, SIX, kernels=kernels),
        _of(
            f"{slug}-transparent",
            f"IP_TRANSPARENT to {words}",
            *(act, expect, FOUR),
            needs=_RAW,
            kernels=kernels,
        ),
    )


TECHNIQUES: Final = (
    *_each_family(
        "lo-cookies",
        "somebody else's address, TCP to one's own listener at the typed address: SYN cookies",
        _with_cookies,
        _SILENT,
        kernels=False,
    ),
    *_each_family(
        "lo-reset",
        "somebody else's address, TCP to a closed port of the typed address: a reset",
        application(_call_nobody),
        _SILENT,
    ),
    *_each_family(
        "lo-quote",
        "somebody else's address, UDP to a closed port of the typed address: an error quotes it",
        application(_datagram()),
        _EPERM,
    ),
    *_each_family(
        "lo-quote-udplite",
        "somebody else's address, the same by UDP-Lite",
        application(_datagram(socket.IPPROTO_UDPLITE)),
        _EPERM,
    ),
    _of(
        "lo-echo",
        "IPV6_FREEBIND to somebody else's address, ping socket: an echo reply",
        *(_pinged, _SILENT, SIX),
        closed_by="ping",
    ),
    _of(
        "lo-quote-32-bit",
        f"{_BY_32_BITS}, UDP: an error quotes it",
        *(_by_32_bits(socket.SOCK_DGRAM), _EPERM, SIX),
    ),
    _of(
        "lo-reset-32-bit",
        f"{_BY_32_BITS}, TCP: a reset",
        *(_by_32_bits(socket.SOCK_STREAM), _SILENT, SIX),
    ),
    _of(
        "lo-echo-32-bit",
        f"{_BY_32_BITS}, ping socket: an echo reply",
        *(_by_32_bits(socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6), _SILENT, SIX),
        closed_by="ping",
    ),
    _of(
        "lo-whole",
        "IPPROTO_RAW: from somebody else's address to the typed one: an error quotes it",
        *(application(_whole), _EPERM, BOTH),
        needs=_RAW,
        closed_by="raw",
    ),
)
