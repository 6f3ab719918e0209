"""Ask for a type of source address (RFC 8653) on a socket: the Python API for applications.

Needs the standard library only, and no privilege. IPv6 and IPv4 sockets, TCP, UDP
and MPTCP:

    with client.connect(("www.example.org", 443), AddressType.SESSION_LASTING) as sock: ...

or on a socket of one's own, before it connects, binds or sends:

    client.set_type(sock, AddressType.FIXED)

An application that wants its address to change says how long it keeps one (RFC 8653, section 5):

    client.set_type(sock, AddressType.SESSION_LASTING, Lifetime(seconds=3600, bytes=10**9))

or asks for a new one at once, or for one that the network serves to which the host is attached now:

    client.set_type(sock, AddressType.SESSION_LASTING, fresh=True)
    client.set_type(sock, AddressType.NONPERSISTENT, on_net=True)

An application that can wait for the network asks and is told its address:

    address = client.setsc(sock, AddressType.SESSION_LASTING, timeout_s=10)
    sock.bind((str(address), 0))

What becomes of a socket's address, and which one follows:

    notice = client.notice(sock)
    if notice and notice.state is not AddressState.PREFERRED: ...  # go on from notice.successor

Errors are OSErrors, as from any socket call: `NotSupported` where no agent enforces types,
PermissionError (EACCES) where the application's class may not use the type, EDQUOT where its
addresses do not live as long as was asked; later, at `connect`,
`bind` or `sendto`, EADDRNOTAVAIL if no address of the type exists.
"""

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from odm_agent import notices as _notices
from odm_agent import waiting
from odm_agent.core.model import AddressType
from odm_agent.notices import AddressState, Notice, Notices, watch, watched
from odm_agent.waiting import Said, State

__all__ = [
    "AddressState",
    "AddressType",
    "Lifetime",
    "NotSupported",
    "Notice",
    "Notices",
    "RequestFailed",
    "connect",
    "get_lifetime",
    "get_type",
    "lifetime_left",
    "notice",
    "notices",
    "set_type",
    "setsc",
    "setsc_async",
    "supported",
    "watch",
    "watched",
]

#: IPV6_ADDR_PREFERENCES (RFC 5014), at level IPPROTO_IPV6 on IPv4 and MPTCP sockets too.
SOCKOPT: Final = 72
#: The on-demand field of the option's 32 bits (RFC 8653, appendix A).
TYPE_SHIFT: Final = 16
TYPE_MASK: Final = 0x0007_0000
#: Beside a type: an address of the network that the host is attached to now; a new address, though
#: there is one.
ON_NET: Final = 0x0008_0000
FRESH: Final = 0x0010_0000
#: RFC 5014's own bits, which a type overrides.
RFC5014_MASK: Final = 0x0000_0FFF

#: The option's value with a lifetime: value, seconds, bytes; and what is read: seconds left, bytes
#: left of the address that the socket has.
_REQUEST: Final = struct.Struct("=IIQ")
_ANSWER: Final = struct.Struct("=IIQI4xQ")

_NONE: Final = (None, None)

# How a kernel without the option for this kind of socket says so.
_UNKNOWN: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)


class NotSupported(OSError):
    """Nobody enforces address types for this socket: use it as it is, it is unchanged."""

    def __init__(self) -> None:
        super().__init__(
            errno.ENOTSUP,
            "address types are not supported here (no odm-agent enforces them for this socket)",
        )


class RequestFailed(OSError):
    """The network could not give an address of the type (EADDRNOTAVAIL), or can't be asked for it
    (`unsupported`: setsc()'s EAI_REQUIREDIPNOTSUPPORTED); the text is the cause.
    """

    def __init__(self, cause: str, *, unsupported: bool = False) -> None:
        super().__init__(errno.EADDRNOTAVAIL, cause)
        self.unsupported = unsupported


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long (seconds), and for how many IP bytes that it sends, a socket keeps an address.

    None: without end. When it is over a connection goes on, and the next connect or datagram is
    given another address, or EADDRNOTAVAIL if there is none.
    """

    seconds: int | None = None
    bytes: int | None = None


def _read(sock: socket.socket) -> int:
    """The whole option; 0 where the kernel has none for this socket."""
    try:
        return sock.getsockopt(socket.IPPROTO_IPV6, SOCKOPT)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return 0
        raise


def get_type(sock: socket.socket) -> AddressType:
    """The type that the socket asked for; UNSPECIFIED if none, or if types are not supported."""
    return AddressType((_read(sock) & TYPE_MASK) >> TYPE_SHIFT)


def get_lifetime(sock: socket.socket) -> Lifetime | None:
    """The lifetime that the socket asked for, or has by its class; None: its address has no end."""
    return (_read_lifetime(sock) or _NONE)[0]


def lifetime_left(sock: socket.socket) -> Lifetime | None:
    """What is left of it, of the address that the socket has now; None as `get_lifetime`."""
    return (_read_lifetime(sock) or _NONE)[1]


def notice(sock: socket.socket) -> Notice | None:
    """What becomes of the address that the socket has, as the kernel tells it.

    None: it is none of ours, since neither its address nor what it wants has a type, the
    application has no class, or nobody enforces types here.
    """
    return _notices.read(sock, SOCKOPT)


def notices(sock: socket.socket) -> Notices:
    """The socket's notices, for `for` and `async for`: as it stands, then as something has changed.

    They end when the socket is closed (a `for` that waits notices that with the next change), or is
    none of ours any more. Each `for` is one caller at the agent, who lets 256 of a user watch: who
    has many sockets has one `watch()` for all, and asks for each one's `notice`.
    """
    return Notices(sock, SOCKOPT)


def _read_lifetime(sock: socket.socket) -> tuple[Lifetime | None, Lifetime | None] | None:
    """What was asked for, and what is left of it; None: nobody tells."""
    try:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, SOCKOPT, _ANSWER.size)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    if len(raw) != _ANSWER.size:
        return None
    _, seconds, bytes_, seconds_left, bytes_left = _ANSWER.unpack(raw)
    if not seconds and not bytes_:
        return _NONE
    left = Lifetime(seconds_left if seconds else None, bytes_left if bytes_ else None)
    return Lifetime(seconds or None, bytes_ or None), left


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for."""

    type: AddressType
    lifetime: Lifetime | None = None
    fresh: bool = False
    on_net: bool = False

    @property
    def value(self) -> int:
        """The option's first 32 bits."""
        bits = (FRESH if self.fresh else 0) | (ON_NET if self.on_net else 0)
        return self.type << TYPE_SHIFT | bits


def _option(request: _Request) -> int | bytes:
    """The option's value; OSError (EINVAL) if it can't be one."""
    value, lifetime = request.value, request.lifetime
    if lifetime is None:
        return value
    seconds, bytes_ = lifetime.seconds, lifetime.bytes
    if (
        lifetime == Lifetime()
        or (seconds is not None and not 0 < seconds < 2**32)
        or (bytes_ is not None and not 0 < bytes_ < 2**64)
    ):
        raise OSError(errno.EINVAL, f"{lifetime} is no lifetime; name seconds, bytes or both")
    return _REQUEST.pack(value, seconds or 0, bytes_ or 0)


def set_type(
    sock: socket.socket,
    type: AddressType,
    lifetime: Lifetime | None = None,
    *,
    fresh: bool = False,
    on_net: bool = False,
) -> None:
    """Ask for a type and make sure that somebody heard it; holds for the next connect or bind.

    UNSPECIFIED takes the request back, and the socket's RFC 5014 preferences with it. Without a
    lifetime the socket has that of its class, if there is one. `fresh`: another address than the
    socket has, or would be given. `on_net`: one that the network serves to which the host is
    attached now.
    Raises NotSupported, PermissionError (the class may not), or OSError as setsockopt(2): EDQUOT if
    the class's addresses do not live so long, EINVAL if it is no lifetime, or a fixed address's, or
    a fixed address is to be fresh.
    """
    _set(sock, _Request(type, lifetime, fresh, on_net))


def _set(sock: socket.socket, request: _Request) -> None:
    wanted, before = _option(request), _read(sock)
    try:
        sock.setsockopt(socket.IPPROTO_IPV6, SOCKOPT, wanted)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        if request.value:
            raise NotSupported from error
        return  # there is nothing to take back
    if _read(sock) & ~RFC5014_MASK != request.value:
        # A kernel that dropped the type took the rest as "no preferences": put them back.
        sock.setsockopt(socket.IPPROTO_IPV6, SOCKOPT, before & RFC5014_MASK)
        raise NotSupported
    if request.lifetime is not None and _read_lifetime(sock) is None:
        sock.setsockopt(socket.IPPROTO_IPV6, SOCKOPT, before)  # this agent knows no lifetimes
        raise NotSupported


def supported(sock: socket.socket | None = None) -> bool:
    """Whether types are enforced for sockets like `sock` (None: for TCP over IPv6, else IPv4).

    Another socket of the same kind is asked, `sock` is left alone. Raises OSError if none can be
    made. Before a request this is a detour: `set_type` says the same by NotSupported.
    """
    if sock is not None:
        twin = socket.socket(sock.family, sock.type, sock.proto)
    else:
        try:
            twin = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
        except OSError:  # a host without IPv6
            twin = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    with twin, suppress(PermissionError):  # refused, hence known
        try:
            set_type(twin, AddressType.NONPERSISTENT)
        except NotSupported:
            return False
    return True


def connect(
    address: tuple[str, int],
    type: AddressType,
    *,
    timeout_s: float | None = None,
    fallback: bool = True,
    lifetime: Lifetime | None = None,
    fresh: bool = False,
    on_net: bool = False,
) -> socket.socket:
    """Connect by TCP to (host, port) from an address of `type`; tries all of the host's addresses.

    `fallback`: where types are not supported, connect as any program does (RFC 8653, 4.1).
    A refusal (PermissionError) and a missing address (EADDRNOTAVAIL) are raised all the same.
    """
    failure = OSError(errno.EADDRNOTAVAIL, f"{address[0]} has no address")
    for family, kind, protocol, _, peer in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.settimeout(timeout_s)
            try:
                set_type(sock, type, lifetime, fresh=fresh, on_net=on_net)
            except NotSupported:
                if not fallback:
                    raise
            sock.connect(peer)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure


#: So long is waited before the kernel is asked again, where the agent can't be reached (seconds).
_PAUSE_S: Final = 0.05
#: A request is made anew before the agent forgets that somebody wanted it (seconds).
_AGAIN_S: Final = 15.0


def setsc(
    sock: socket.socket,
    type: AddressType,
    *,
    timeout_s: float | None = None,
    lifetime: Lifetime | None = None,
    fresh: bool = False,
    on_net: bool = False,
) -> IPv4Address | IPv6Address:
    """Ask for a type, and wait until there is an address of it: the one that the socket has, or
    will be given (RFC 8653, appendix A). The socket is not bound: `bind` to it, to be sure of it.

    Raises as `set_type`; RequestFailed; TimeoutError; OSError (ENOTCONN) if it can't be told
    before `connect` (a kernel without BTF). The option is then as it was, so
    that the socket can be used without a type.
    """
    request = _Request(type, lifetime, fresh, on_net)
    steps = _setsc(sock, request, waiting.Deadline(timeout_s))
    answer: _Heard = None
    while isinstance(step := _next(steps, answer), _Step):
        answer = None
        if step.ticket:
            answer = waiting.wait(step.ticket, step.seconds)
        else:
            time.sleep(step.seconds)
    return step


async def setsc_async(
    sock: socket.socket,
    type: AddressType,
    *,
    timeout_s: float | None = None,
    lifetime: Lifetime | None = None,
    fresh: bool = False,
    on_net: bool = False,
) -> IPv4Address | IPv6Address:
    """`setsc` on an event loop."""
    request = _Request(type, lifetime, fresh, on_net)
    steps = _setsc(sock, request, waiting.Deadline(timeout_s))
    answer: _Heard = None
    while isinstance(step := _next(steps, answer), _Step):
        answer = None
        if step.ticket:
            answer = await waiting.wait_async(step.ticket, step.seconds)
        else:
            await asyncio.sleep(step.seconds)
    return step


@dataclass(frozen=True, slots=True)
class _Step:
    """What is to be waited for: the agent's answer for a ticket, or (0) nothing but time."""

    ticket: int
    seconds: float


#: What the agent has said; None: it was not asked.
_Heard = tuple[Said, str] | None
_Steps = Generator[_Step, _Heard, IPv4Address | IPv6Address]


def _next(steps: _Steps, answer: _Heard) -> _Step | IPv4Address | IPv6Address:
    """What is to be waited for next, or the address: there is nothing more to wait for."""
    try:
        return steps.send(answer)
    except StopIteration as found:
        address: IPv4Address | IPv6Address = found.value
        return address


def _setsc(sock: socket.socket, request: _Request, deadline: waiting.Deadline) -> _Steps:
    """setsc() as steps: whoever takes them waits as he can, and sends what the agent said."""
    if not request.type:
        raise OSError(errno.EINVAL, "there is nothing to wait for without a type")
    before = _read(sock)
    _set(sock, request)
    try:
        return (yield from _awaited(sock, request, deadline))
    except BaseException:
        _restore(sock, before)
        raise


def _awaited(sock: socket.socket, request: _Request, deadline: waiting.Deadline) -> _Steps:
    """The steps from when the type is set."""
    asked_s, said = time.monotonic(), Said.LATE
    while True:
        found = waiting.prospect(sock, SOCKOPT)
        if found is None:
            raise NotSupported
        if found.state in (State.HELD, State.OFFERED):
            return found.address
        if found.state is State.UNTOLD:
            raise OSError(errno.ENOTCONN, "the address is not known before the socket connects")
        if not (left_s := deadline.left_s):
            raise TimeoutError(errno.ETIMEDOUT, f"no {request.type.word} address came in time")
        before, said, cause = said, Said.UNKNOWN, ""
        if found.ticket and (answer := (yield _Step(found.ticket, left_s))) is not None:
            said, cause = answer
        if said is before is Said.READY:
            said = Said.UNKNOWN  # there is one, but not for this socket: ask anew
        if said in (Said.UNSUPPORTED, Said.FAILED):
            raise RequestFailed(cause, unsupported=said is Said.UNSUPPORTED)
        if said in (Said.UNREACHABLE, Said.UNKNOWN):
            yield _Step(0, min(_PAUSE_S, deadline.left_s))
        if said is Said.UNKNOWN or time.monotonic() - asked_s > _AGAIN_S:
            asked_s = time.monotonic()
            _set(sock, request)


def _restore(sock: socket.socket, before: int) -> None:
    """The option as it was: 0 takes a type back, and preferences alone would leave it."""
    with suppress(OSError):
        sock.setsockopt(socket.IPPROTO_IPV6, SOCKOPT, 0)
        if before:
            sock.setsockopt(socket.IPPROTO_IPV6, SOCKOPT, before)
