"""What ordinary programs do with sockets, as some hundred small operations with printable results.

Each runs in a process of its own class, and its result (values, or the errno's word) is compared
line by line between a host that never had an agent and one that has typed prefixes. Ports that the
kernel chose are printed as `*`.
"""

import errno
import socket
import struct
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, Final

from odm_agent.core.model import Family
from tests.lab.client import IPV6_ADDR_PREFERENCES, Kind, disconnect, exchange, source_cmsg
from tests.lab.host import CORRESPONDENT, CORRESPONDENT_2, LINKS
from tests.lab.peer import plain

Operation = Callable[[], object]
_HOST: Final = {family: str(LINKS["A", family][2]) for family in Family}
_HOST_W1: Final = {family: str(LINKS["B", family][2]) for family in Family}
_LOOPBACK: Final = {Family.IPV4: "127.0.0.1", Family.IPV6: "::1"}
_NOWHERE: Final = {Family.IPV4: "192.0.2.200", Family.IPV6: "2001:db8:dead::1"}
_FIRST_EPHEMERAL: Final = 32768
#: For what is never answered, on any host.
_NO_ANSWER_S: Final = 0.2
_SO_BINDTODEVICE = 25
_SO_MARK = 36
_MSG_FASTOPEN = 0x20000000
_TCP_FASTOPEN_CONNECT = 30
_IP_UNICAST_IF = 50
_IPV6_UNICAST_IF = 76
_IP_FREEBIND = 15
_IPV6_FREEBIND = 78
_IP_BIND_ADDRESS_NO_PORT = 24
_IP_RECVERR = 11


def operations() -> Iterator[tuple[str, Operation]]:
    """All operations by name, in a fixed order."""
    for kind in Kind:
        for name, function in _OF_A_KIND.items():
            yield f"{name} {kind.name}", lambda kind=kind, function=function: function(kind)  # type: ignore[misc]
    for flags in _FLAGS:
        yield f"preferences {flags:#x}", lambda flags=flags: _preferences(flags)  # type: ignore[misc]
    yield from _OTHERS.items()


def results() -> list[str]:
    """Run them all; a line each: `name: result`."""
    return [f"{name}: {_told(operation)}" for name, operation in operations()]


def _told(operation: Operation) -> str:
    try:
        return repr(operation())
    except TimeoutError:
        return "timeout"
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, repr(error))


def _name(sock: socket.socket) -> tuple[str, object]:
    address, port = sock.getsockname()[:2]
    return plain(address), "*" if port >= _FIRST_EPHEMERAL else port


# --- for each kind of socket ----------------------------------------------------------------------


def _calls(kind: Kind) -> object:
    with kind.open() as sock:
        before = _name(sock)
        got = exchange(sock, kind)
        return before, got.seen, _name(sock), sock.getsockopt(socket.SOL_SOCKET, _SO_MARK)


def _calls_bound(kind: Kind, address: str, port: int) -> object:
    with kind.open() as sock:
        if plain(address) in _LOOPBACK.values():
            sock.settimeout(_NO_ANSWER_S)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address, port))
        bound = _name(sock)
        return bound, exchange(sock, kind).seen, _name(sock)


def _calls_other(kind: Kind) -> object:
    with kind.open() as sock:
        return exchange(sock, kind, (kind.spell(CORRESPONDENT_2[kind.family]), kind.port)).seen


def _connects_again(kind: Kind) -> object:
    with kind.open() as sock:
        first = exchange(sock, kind).seen
        disconnect(sock)
        between = _name(sock)
        return first, between, exchange(sock, kind).seen


def _connects_twice(kind: Kind) -> object:
    with kind.open() as sock:
        sock.connect(kind.destination)
        sock.connect(kind.destination)
        return _name(sock)


def _refused(kind: Kind) -> object:
    with kind.open() as sock:
        sock.settimeout(_NO_ANSWER_S)
        exchange(sock, kind, (kind.destination[0], 9))
        return None


def _loopback(kind: Kind) -> object:
    """A server and a client of this host."""
    address = kind.spell(_LOOPBACK[kind.family])
    with kind.open() as server, kind.open() as client:
        server.bind((address, 0))
        if kind.stream:
            server.listen()
        client.connect(server.getsockname())
        if not kind.stream:
            client.send(b"x")
            return plain(server.recvfrom(10)[1][0]), _name(client)
        stream, peer = server.accept()
        stream.close()
        return plain(peer[0]), _name(client)


def _own_address(kind: Kind) -> object:
    with kind.open() as server, kind.open() as client:
        server.bind((kind.wildcard, 0))
        if kind.stream:
            server.listen()
        client.connect((kind.spell(_HOST[kind.family]), server.getsockname()[1]))
        return _name(client)


def _options(kind: Kind) -> object:
    with kind.open() as sock:
        told = []
        for level, option, value in (
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
            (socket.SOL_SOCKET, socket.SO_PRIORITY, 3),
            (socket.IPPROTO_IP, socket.IP_TOS, 16),
            (socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1),
            (socket.IPPROTO_IPV6, socket.IPV6_TCLASS, 16),
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.IPPROTO_IPV6, 250, 1),
        ):
            told.append(_told(lambda: sock.setsockopt(level, option, value)))  # noqa: B023
            told.append(_told(lambda: sock.getsockopt(level, option)))  # noqa: B023
        return told


def _preferences_on(kind: Kind) -> object:
    """The option itself, used as RFC 5014 has it."""
    with kind.open() as sock:

        def get(length: int = 0) -> object:
            if length:
                return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, length)
            return sock.getsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES)

        def put(value: int | bytes) -> object:
            return sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, value)

        told = [_told(get)]
        for value in (0x2, 0x1, 0x3, 0x100, 0x400, 0x404, 0x8, 0x808, 0, 1 << 12, 1 << 28):
            told += [_told(lambda: put(value)), _told(get)]  # noqa: B023
        for length in (0, 1, 2, 3, 5, 8, 64, 5000):
            told.append(_told(lambda: put(struct.pack("=I", 2).ljust(length, b"\0")[:length])))  # noqa: B023
        for length in (1, 2, 3, 5, 8, 64):
            told.append(_told(lambda: get(length)))  # noqa: B023
        return [*told, exchange(sock, kind).seen]


def _bound_to_device(kind: Kind, device: str) -> object:
    with kind.open() as sock:
        sock.settimeout(_NO_ANSWER_S)
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, device.encode())
        return exchange(sock, kind).seen


_OF_A_KIND: Final[dict[str, Callable[[Kind], object]]] = {
    "call": _calls,
    "call another": _calls_other,
    "call from a wildcard": lambda kind: _calls_bound(kind, kind.wildcard, 0),
    "call from a port": lambda kind: _calls_bound(kind, kind.wildcard, 20000 + _index(kind)),
    "call from an address": lambda kind: _calls_bound(kind, kind.spell(_HOST[kind.family]), 0),
    "bind loopback, call": lambda kind: _calls_bound(kind, kind.spell(_LOOPBACK[kind.family]), 0),
    "bind nowhere": lambda kind: _calls_bound(kind, kind.spell(_NOWHERE[kind.family]), 0),
    "connect again": _connects_again,
    "connect twice": _connects_twice,
    "refused": _refused,
    "loopback": _loopback,
    "own address": _own_address,
    "options": _options,
    "preferences": _preferences_on,
    "device w0": lambda kind: _bound_to_device(kind, "w0"),
    "device lo": lambda kind: _bound_to_device(kind, "lo"),
    "device none": lambda kind: _bound_to_device(kind, "none9"),
}


def _index(kind: Kind) -> int:
    return list(Kind).index(kind)


_FLAGS: Final = [
    sum(each) for each in product((0, 0x1, 0x2, 0x100), (0, 0x4, 0x400), (0, 0x8, 0x800))
]


def _preferences(flags: int) -> object:
    with Kind.UDP6.open() as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, flags)
        value = sock.getsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES)
        return value, exchange(sock, Kind.UDP6).seen


# --- one by one -----------------------------------------------------------------------------------


def _cmsg(kind: Kind, source: str, *, connected: bool = False) -> object:
    with kind.open() as sock:
        if source in _LOOPBACK.values():
            sock.settimeout(_NO_ANSWER_S)
        if connected:
            sock.connect(kind.destination)
        sock.sendmsg([b"x"], source_cmsg(source), 0, *(() if connected else (kind.destination,)))
        return sock.recv(100).split()[0]


def _freebind(kind: Kind) -> object:
    six = kind.af == socket.AF_INET6
    with kind.open() as sock:
        level, option = (
            (socket.IPPROTO_IPV6, _IPV6_FREEBIND) if six else (socket.IPPROTO_IP, _IP_FREEBIND)
        )
        sock.setsockopt(level, option, 1)
        sock.bind((_NOWHERE[kind.family], 0))
        return _name(sock)


def _listen_unbound(kind: Kind) -> object:
    with kind.open() as sock:
        sock.listen()
        return _name(sock)


def _in_use(kind: Kind) -> object:
    with kind.open() as one, kind.open() as other:
        one.bind((kind.wildcard, 0))
        if kind.stream:
            one.listen()
        other.bind((kind.wildcard, one.getsockname()[1]))
        return None


def _fast_open(kind: Kind) -> object:
    with kind.open() as sock:
        sock.sendto(b"x", _MSG_FASTOPEN, kind.destination)
        return sock.recv(100).split()[0], _name(sock)


def _fast_open_connect(kind: Kind) -> object:
    with kind.open() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
        sock.connect(kind.destination)
        sock.send(b"x")
        return sock.recv(100).split()[0], _name(sock)


def _no_port(kind: Kind) -> object:
    with kind.open() as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((_HOST[kind.family], 0))
        return _name(sock), exchange(sock, kind).seen


def _multicast(kind: Kind) -> object:
    with kind.open() as sock:
        group = "ff0e::db8:1" if kind.af == socket.AF_INET6 else "239.1.2.3"
        sock.connect((group, 9))
        return _name(sock), sock.send(b"x")


def _broadcast() -> object:
    with Kind.UDP4.open() as sock:
        refused = _told(lambda: sock.sendto(b"x", ("192.0.2.63", 9)))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        return refused, sock.sendto(b"x", ("192.0.2.63", 9)), _name(sock)


def _limited_broadcast() -> object:
    with Kind.UDP4.open() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.connect(("255.255.255.255", 9))
        return _name(sock), sock.send(b"x")


def _unicast_interface(kind: Kind, interface: str) -> object:
    index = struct.pack("!I", socket.if_nametoindex(interface))
    with kind.open() as sock:
        sock.settimeout(_NO_ANSWER_S)
        if kind.af == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_UNICAST_IF, index)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_UNICAST_IF, index)
        sock.connect(kind.destination)
        return _name(sock)


def _udp_names(kind: Kind) -> object:
    """Each destination's source by connected UDP: nothing is sent."""
    found = []
    for letter, family in LINKS:
        if family is kind.family:
            with kind.open() as sock:
                sock.connect((str(LINKS[letter, family][1]), 9))
                found.append(_name(sock))
    return found


def _connected_and_named(kind: Kind) -> object:
    with kind.open() as sock:
        sock.connect(kind.destination)
        sock.sendto(b"x", (CORRESPONDENT_2[kind.family], kind.port))
        return _name(sock)


def _more(kind: Kind) -> object:
    with kind.open() as sock:
        sock.connect(kind.destination)
        sock.send(b"one ", socket.MSG_MORE)
        sock.send(b"two")
        return sock.recv(100).split()[0]


def _errors(kind: Kind) -> object:
    with kind.open() as sock:
        if kind.af == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
        sock.connect((kind.destination[0], 9))
        sock.send(b"x")
        return _told(lambda: sock.recv(10)), sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def _v4_of_v6only() -> object:
    with Kind.UDP6.open() as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.connect((f"::ffff:{CORRESPONDENT[Family.IPV4]}", 9))
        return _name(sock)


def _both_families() -> object:
    """As resolver libraries probe: one socket, IPv6, then IPv4."""
    with Kind.UDP6.open() as sock:
        six = exchange(sock, Kind.UDP6).seen
        disconnect(sock)
        return six, exchange(sock, Kind.UDP_MAPPED).seen, _name(sock)


def _raw() -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.connect((CORRESPONDENT[Family.IPV4], 0))
        return plain(sock.getsockname()[0]), sock.send(b"\x08\x00\xf7\xff" + bytes(4))


def _others() -> object:
    made = []
    for family in (socket.AF_UNIX, socket.AF_NETLINK):
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, 2)
            made.append(_told(lambda: sock.getsockopt(socket.IPPROTO_IPV6, 72)))
    with socket.socketpair()[0] as one:
        made.append(repr(one.getsockname()))
    return made


def _mark() -> object:
    with Kind.UDP4.open() as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, 0x2A)
        seen = exchange(sock, Kind.UDP4).seen
        return seen, sock.getsockopt(socket.SOL_SOCKET, _SO_MARK)


def _addresses() -> object:
    """The order that getaddrinfo gives (RFC 6724), which asks the kernel for each one's source."""
    order: list[Any] = []
    for name in ("both.example", "many.example", "localhost"):
        found = socket.getaddrinfo(name, 80, type=socket.SOCK_STREAM)
        order.append([each[4][0] for each in found])
    return order


_STREAMS: Final = (Kind.TCP6, Kind.TCP4)
_DATAGRAMS: Final = (Kind.UDP6, Kind.UDP4)


def _for(kinds: tuple[Kind, ...], **named: Callable[[Kind], object]) -> dict[str, Operation]:
    return {
        f"{name.replace('_', ' ')} {kind.name}": lambda kind=kind, function=function: function(kind)  # type: ignore[misc]
        for name, function in named.items()
        for kind in kinds
    }


_OTHERS: Final[dict[str, Operation]] = {
    **_for(
        _STREAMS,
        listen_unbound=_listen_unbound,
        fast_open=_fast_open,
        fast_open_connect=_fast_open_connect,
        no_port=_no_port,
    ),
    **_for((*_STREAMS, *_DATAGRAMS), in_use=_in_use, freebind=_freebind),
    **_for(
        _DATAGRAMS,
        cmsg_own=lambda kind: _cmsg(kind, _HOST[kind.family]),
        cmsg_own_connected=lambda kind: _cmsg(kind, _HOST[kind.family], connected=True),
        cmsg_nowhere=lambda kind: _cmsg(kind, _NOWHERE[kind.family]),
        cmsg_loopback=lambda kind: _cmsg(kind, _LOOPBACK[kind.family]),
        multicast=_multicast,
        unicast_w0=lambda kind: _unicast_interface(kind, "w0"),
        unicast_w1=lambda kind: _unicast_interface(kind, "w1"),
        names=_udp_names,
        connected_and_named=_connected_and_named,
        more=_more,
        errors=_errors,
        bind_w1=lambda kind: _bind_only(kind, _HOST_W1[kind.family]),
    ),
    "broadcast": _broadcast,
    "limited broadcast": _limited_broadcast,
    "IPv4 of an IPv6-only socket": _v4_of_v6only,
    "both families on one socket": _both_families,
    "raw": _raw,
    "other families": _others,
    "mark": _mark,
    "getaddrinfo": _addresses,
}


def _bind_only(kind: Kind, address: str) -> object:
    with kind.open() as sock:
        sock.bind((address, 0))
        return _name(sock)
