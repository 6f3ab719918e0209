"""Letting the kernel choose the source: routes, devices, marks, default selection."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from odm_agent.core.model import Family
from tests.lab.client import IPV6_ADDR_PREFERENCES, PORT
from tests.lab.host import LINKS, NONPERSISTENT
from tests.rfc8653.bypass.forward import forwarding
from tests.rfc8653.bypass.technique import (
    ALL,
    DATA,
    SIX,
    UNTYPED,
    Act,
    Expect,
    Form,
    Result,
    Stage,
    Technique,
    refused,
)

GROUP: Final = "Letting the kernel choose"

_IP_UNICAST_IF: Final = 50
_IPV6_UNICAST_IF: Final = 76
_SO_BINDTOIFINDEX: Final = 62
_TMP_AND_COA: Final = 0x0001 | 0x0004
_DROPPED: Final = refused("egress", "timeout")
_EPERM: Final = refused("egress", "EPERM")
Setting = Callable[[Stage, socket.socket], object]


def _nothing(stage: Stage, sock: socket.socket) -> None:
    """No option."""


def _tcp(stage: Stage, setting: Setting = _nothing) -> str:
    def client() -> None:
        with stage.tcp() as sock:
            setting(stage, sock)
            sock.connect((stage.form.spell(stage.other), PORT))
            sock.recv(64)

    return stage.do(client)


def _udp(stage: Stage, setting: Setting = _nothing) -> str:
    def client() -> None:
        with stage.udp() as sock:
            setting(stage, sock)
            sock.sendto(DATA, (stage.form.spell(stage.other), PORT))

    return stage.do(client)


@contextmanager
def route(stage: Stage, *how: str) -> Iterator[None]:
    """A host route to the correspondent's second address."""
    ip = stage.world.site.host.ip
    ip("route", "add", f"{stage.other}/{stage.bits}", *how)
    try:
        yield
    finally:
        ip("route", "del", f"{stage.other}/{stage.bits}", *how)


def _by_route(call: Callable[[Stage], str]) -> Act:
    def act(stage: Stage) -> str:
        gateway = str(LINKS["A", stage.form.family][1])
        with route(stage, "via", gateway, "dev", "w0", "src", stage.plain):
            return call(stage)

    return act


@contextmanager
def _only_typed_on_w1(stage: Stage) -> Iterator[None]:
    """w1 with an address of the typed prefix instead of its untyped one, and a route there."""
    network, gateway, ordinary = LINKS["B", stage.form.family]
    ip = stage.world.site.host.ip
    configured = f"{ordinary}/{network.prefixlen}"
    typed = f"{stage.unused}/{stage.bits}"
    nodad = ("nodad",) if stage.form is Form.IPV6 else ()
    ip("address", "del", configured, "dev", "w1")
    try:
        ip("address", "add", typed, "dev", "w1", *nodad)
        try:
            with route(stage, "via", str(gateway), "dev", "w1", "metric", "9999", "onlink"):
                yield
        finally:
            ip("address", "del", typed, "dev", "w1")
    finally:
        ip("address", "add", configured, "dev", "w1", *nodad)


def _by_device(setting: Setting, call: Callable[[Stage, Setting], str]) -> Act:
    def act(stage: Stage) -> str:
        with _only_typed_on_w1(stage):
            return call(stage, setting)

    return act


def _bind_to_device(stage: Stage, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"w1")


def _bind_to_index(stage: Stage, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, socket.if_nametoindex("w1"))


def _unicast_if(stage: Stage, sock: socket.socket) -> None:
    index = struct.pack("!I", socket.if_nametoindex("w1"))
    if stage.form is Form.IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_IF, index)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_UNICAST_IF, index)


def _mark(stage: Stage) -> int:
    """The mark that leads to the routing table of the typed prefix."""
    rows = stage.world.agent.read("prefixes")
    return int(next(row["mark"] for row in rows if row["name"] == stage.prefix.name))


def _marked(kind: str) -> Act:
    def act(stage: Stage) -> str:
        mark = _mark(stage)

        def setting(_: Stage, sock: socket.socket) -> None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)

        return _tcp(stage, setting) if kind == "tcp" else _udp(stage, setting)

    return act


def _mark_by_cmsg(stage: Stage) -> str:
    mark = struct.pack("@I", _mark(stage))

    def client() -> None:
        with stage.udp() as sock:
            by_message = [(socket.SOL_SOCKET, socket.SO_MARK, mark)]
            sock.sendmsg([DATA], by_message, 0, stage.to)

    return stage.do(client)


def _preferences(stage: Stage) -> str:
    """RFC 5014: ask for a temporary care-of address, of which there is none."""

    def setting(_: Stage, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, _TMP_AND_COA)

    return _tcp(stage, setting)


def _through_loopback(stage: Stage) -> str:
    """Bound to `lo`, whose packets egress lets pass, on a host that forwards."""

    def setting(_: Stage, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")

    with forwarding(stage):
        return _udp(stage, setting)


@contextmanager
def _deprecated(stage: Stage) -> Iterator[None]:
    """The host's untyped addresses deprecated: RFC 6724 (rule 3) prefers any other."""
    host = stage.world.site.host
    changes = [
        (f"{LINKS[letter, Family.IPV6][2]}/{LINKS[letter, Family.IPV6][0].prefixlen}", device)
        for letter, device in (("A", "w0"), ("B", "w1"))
    ]

    def lifetime(word: str) -> None:
        host.batch(
            "".join(
                f"address change {each} dev {device} valid_lft forever preferred_lft {word}\n"
                for each, device in changes
            )
        )

    lifetime("0")
    try:
        yield
    finally:
        lifetime("forever")


def _by_selection(call: Callable[[Stage], str]) -> Act:
    def act(stage: Stage) -> str:
        with _deprecated(stage):
            return call(stage)

    return act


_ADMIN: Final = "CAP_NET_ADMIN"
_UNCHOSEN: Final = "typed addresses are kept out of default selection, which is the point"
_UNMARKED: Final = "the hook takes our mark off"

TECHNIQUES: Final = (
    Technique("route-tcp", "`ip route … src`: TCP", _by_route(_tcp), _DROPPED, ALL),
    Technique("route-udp", "`ip route … src`: UDP", _by_route(_udp), _EPERM, ALL),
    Technique(
        "device-tcp",
        "SO_BINDTODEVICE to a link with typed addresses only: TCP",
        _by_device(_bind_to_device, _tcp),
        _DROPPED,
        control=NONPERSISTENT,
    ),
    Technique(
        "device-udp",
        "SO_BINDTODEVICE to a link with typed addresses only: UDP",
        _by_device(_bind_to_device, _udp),
        _EPERM,
        control=NONPERSISTENT,
    ),
    Technique(
        "ifindex-udp",
        "SO_BINDTOIFINDEX to such a link: UDP",
        _by_device(_bind_to_index, _udp),
        _EPERM,
        control=NONPERSISTENT,
    ),
    Technique(
        "unicast-if-tcp",
        "IP_UNICAST_IF, IPV6_UNICAST_IF of such a link: TCP",
        _by_device(_unicast_if, _tcp),
        _DROPPED,
        control=NONPERSISTENT,
    ),
    Technique(
        "unicast-if-udp",
        "IP_UNICAST_IF, IPV6_UNICAST_IF of such a link: UDP",
        _by_device(_unicast_if, _udp),
        _EPERM,
        control=NONPERSISTENT,
    ),
    Technique(
        "selection-tcp",
        "default selection (RFC 6724) where all untyped addresses are deprecated: TCP",
        _by_selection(_tcp),
        UNTYPED,
        SIX,
        no_control=_UNCHOSEN,
    ),
    Technique(
        "selection-udp",
        "default selection (RFC 6724) where all untyped addresses are deprecated: UDP",
        _by_selection(_udp),
        UNTYPED,
        SIX,
        no_control=_UNCHOSEN,
    ),
    Technique(
        "preferences",
        "IPV6_ADDR_PREFERENCES with the flags of RFC 5014: TCP",
        _preferences,
        UNTYPED,
        SIX,
        no_control="no flag prefers a typed address, which is the point",
        own=True,
    ),
    Technique(
        "loopback-device",
        "SO_BINDTODEVICE to `lo`, where typed addresses are and no egress is checked: UDP",
        _through_loopback,
        {
            Form.IPV6: Expect(Result.KERNEL, told="ENETUNREACH"),
            Form.IPV4: Expect(Result.NOTHING, by="the kernel"),
        },
        no_control="the kernel discards what was sent to somebody else by way of `lo`",
    ),
    Technique(
        "mark-tcp",
        "SO_MARK: the mark of the prefix's routing table, TCP",
        _marked("tcp"),
        UNTYPED,
        needs=_ADMIN,
        no_control=_UNMARKED,
    ),
    Technique(
        "mark-udp",
        "SO_MARK: the mark of the prefix's routing table, UDP",
        _marked("udp"),
        _EPERM,
        needs=_ADMIN,
        astray=True,
    ),
    Technique(
        "mark-cmsg",
        "SO_MARK as control message",
        _mark_by_cmsg,
        _EPERM,
        needs=_ADMIN,
        astray=True,
    ),
)
