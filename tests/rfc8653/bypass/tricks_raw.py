"""Raw and ping sockets: no hook sees their addresses, only their birth and their packets."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from tests.lab.client import source_cmsg
from tests.rfc8653.bypass.forward import forwarding
from tests.rfc8653.bypass.packets import echo_request, spoofed
from tests.rfc8653.bypass.technique import (
    BOTH,
    DATA,
    FOUR,
    SIX,
    Act,
    Expect,
    Form,
    Result,
    Stage,
    Technique,
    application,
    refused,
)
from tests.rfc8653.bypass.tricks_bind import freebind

GROUP: Final = "Raw and ping sockets"

_IPV6_HDRINCL: Final = 36
#: For experiments (RFC 3692).
_PROTOCOL: Final = 253
_PING_GROUPS: Final = "net/ipv4/ping_group_range"
_RAW: Final = "CAP_NET_RAW"
_AT_EGRESS: Final = refused("egress", "EPERM")
_SILENT_IN_SIX: Final = {Form.IPV6: refused("egress", "ok"), Form.IPV4: _AT_EGRESS}
_AT_BIRTH: Final = refused("sock-create")


def _icmp(form: Form) -> int:
    return socket.IPPROTO_ICMPV6 if form is Form.IPV6 else socket.IPPROTO_ICMP


def _raw_bound(stage: Stage) -> None:
    with stage.raw(_icmp(stage.form)) as sock:
        sock.bind((stage.source, 0))
        sock.sendto(echo_request(stage.form), (stage.to[0], 0))


def _raw_connected(stage: Stage) -> None:
    with stage.raw(_PROTOCOL) as sock:
        sock.bind((stage.source, 0))
        sock.connect((stage.to[0], 0))
        sock.send(DATA)


def _raw_cmsg(stage: Stage) -> None:
    with stage.raw(_PROTOCOL) as sock:
        sock.sendmsg([DATA], source_cmsg(stage.plain), 0, (stage.to[0], 0))


def _raw_freebind(stage: Stage) -> None:
    with stage.raw(_PROTOCOL) as sock:
        freebind(sock)
        sock.bind((stage.unused, 0))
        sock.sendto(DATA, (stage.to[0], 0))


def _whole(unused: bool) -> Callable[[Stage], None]:
    """IPPROTO_RAW: the IP header is the application's own."""

    def client(stage: Stage) -> None:
        with stage.raw(socket.IPPROTO_RAW) as sock:
            sock.sendto(spoofed(stage, unused=unused), (stage.to[0], 0))

    return client


def _header_included(stage: Stage) -> None:
    with stage.raw(socket.IPPROTO_UDP) as sock:
        if stage.form is Form.IPV6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_HDRINCL, 1)
        sock.sendto(spoofed(stage), (stage.to[0], 0))


def _through_loopback(stage: Stage) -> None:
    """Bound to `lo`, whose packets egress lets pass."""
    with stage.raw(socket.IPPROTO_RAW) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        sock.sendto(spoofed(stage, unused=True), (stage.to[0], 0))


def _looped(stage: Stage) -> str:
    with forwarding(stage):
        return stage.do(lambda: _through_loopback(stage))


@contextmanager
def ping_for_all(stage: Stage) -> Iterator[None]:
    """Let every group open ping sockets, as some distributions do."""
    stage.world.site.host.sysctl(_PING_GROUPS, "0 2147483647")
    try:
        yield
    finally:
        stage.world.site.host.sysctl(_PING_GROUPS, "1 0")


def _ping(function: Callable[[Stage], object]) -> Act:
    def act(stage: Stage) -> str:
        with ping_for_all(stage):
            return stage.do(lambda: function(stage))

    return act


def _ping_bound(stage: Stage) -> None:
    with stage.udp(_icmp(stage.form)) as sock:
        sock.bind((stage.source, 0))
        sock.sendto(echo_request(stage.form), (stage.to[0], 0))


def _ping_connected(stage: Stage) -> None:
    with stage.udp(_icmp(stage.form)) as sock:
        sock.bind((stage.source, 0))
        sock.connect((stage.to[0], 0))
        sock.send(echo_request(stage.form))


def _ping_cmsg(stage: Stage) -> None:
    with stage.udp(_icmp(stage.form)) as sock:
        sock.sendmsg([echo_request(stage.form)], source_cmsg(stage.plain), 0, (stage.to[0], 0))


def _ping_self_connected(stage: Stage) -> None:
    """Who calls the host's own address gets it as source."""
    with stage.udp(_icmp(stage.form)) as sock:
        sock.connect((stage.source, 0))
        sock.sendto(echo_request(stage.form), (stage.to[0], 0))


def _of_raw(
    slug: str, words: str, act: Callable[[Stage], object], forms: tuple[Form, ...] = BOTH
) -> Technique:
    return Technique(
        slug,
        words,
        application(act),
        _AT_EGRESS,
        forms,
        needs=_RAW,
        closed_by="raw",
        closed=_AT_BIRTH,
    )


def _of_ping(
    slug: str,
    words: str,
    act: Callable[[Stage], object],
    expect: Expect | dict[Form, Expect],
    forms: tuple[Form, ...] = (Form.IPV6, Form.IPV4),
) -> Technique:
    return Technique(slug, words, _ping(act), expect, forms, closed_by="ping", closed=_AT_BIRTH)


TECHNIQUES: Final = (
    _of_ping("ping-bind", "ping socket: bind, sendto", _ping_bound, _SILENT_IN_SIX),
    _of_ping(
        "ping-connect",
        "ping socket: bind, connect, send",
        _ping_connected,
        refused("connect"),
    ),
    _of_ping(
        "ping-self-connect",
        "ping socket: connect to the host's own typed address, then sendto somebody else",
        _ping_self_connected,
        _SILENT_IN_SIX,
    ),
    _of_ping("ping-pktinfo", "ping socket: sendmsg with IP_PKTINFO", _ping_cmsg, _AT_EGRESS, FOUR),
    _of_raw("raw-icmp", "raw ICMP: bind, sendto", _raw_bound),
    _of_raw("raw-connect", "raw, any protocol: bind, connect, send", _raw_connected),
    _of_raw("raw-pktinfo", "raw: sendmsg with IP_PKTINFO, IPV6_PKTINFO", _raw_cmsg),
    _of_raw("raw-freebind", "raw: IPV6_FREEBIND, bind an unconfigured address", _raw_freebind, SIX),
    _of_raw("raw-whole", "IPPROTO_RAW: a packet with a header of its own", _whole(False)),
    _of_raw(
        "raw-unconfigured",
        "IPPROTO_RAW: from an unconfigured address of the prefix",
        _whole(True),
    ),
    Technique(
        "raw-loopback",
        "IPPROTO_RAW by way of `lo`, where no egress is checked, of a host that forwards",
        _looped,
        {
            Form.IPV6: Expect(Result.KERNEL, told="ENETUNREACH"),
            Form.IPV4: Expect(Result.NOTHING, by="the kernel"),
        },
        needs=_RAW,
        no_control="the kernel discards what was sent to somebody else by way of `lo`",
        closed_by="raw",
        closed=_AT_BIRTH,
    ),
    _of_raw("hdrincl", "IP_HDRINCL, IPV6_HDRINCL on a raw UDP socket", _header_included),
)
