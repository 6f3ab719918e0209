"""What becomes of the address that a socket has: what `client` makes its notices of.

Needs the standard library only. The kernel tells it (`struct odm_address_notice` of the header);
the agent tells only that there is something to ask (`control/watchers.py`).
"""

import asyncio
import errno
import select
import socket
import struct
import time
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from odm_agent import waiting
from odm_agent.core.model import AddressType

#: value, state, type, preferred and valid until (nanoseconds), address, successor.
_NOTICE: Final = struct.Struct("=4xBB2xQQ16s16s24x")
#: SO_COOKIE of asm/socket.h, which the socket module has not.
_SO_COOKIE: Final = 57
# How a kernel without the option for this kind of socket says so.
_UNKNOWN: Final = (errno.ENOPROTOOPT, errno.EOPNOTSUPP)
#: What is said at the agent by who watches; it is as long as the request of who waits.
_WATCH: Final = struct.pack("=4s12x", b"ODMn")
#: Where the agent can't be reached, it is tried again, and the kernel asked, this often (seconds).
_AGAIN_S: Final = 1.0
#: Nobody waits for longer: an hour.
_LONGEST_S: Final = 3600.0


class AddressState(Enum):
    """What a socket's address is to it (RFC 4862, section 2)."""

    #: The socket has no address yet.
    UNBOUND = 1
    #: Sockets are given it.
    PREFERRED = 2
    #: It goes on, but sockets are given others.
    DEPRECATED = 3
    #: No packet leaves from it any more.
    OVER = 4


@dataclass(frozen=True, slots=True)
class Notice:
    """What becomes of the address of a socket.

    Dates are seconds of CLOCK_BOOTTIME, None if no end is known. The successor is what the socket
    would be given now, None while its address is preferred, or if there is none.
    """

    state: AddressState
    type: AddressType
    address: IPv4Address | IPv6Address | None
    successor: IPv4Address | IPv6Address | None
    preferred_until_s: float | None
    valid_until_s: float | None

    def ends_s(self) -> float:
        """In how many seconds it changes by its own dates, at most an hour."""
        until_s = self.preferred_until_s if self.state is AddressState.PREFERRED else None
        if until_s is None and self.state is not AddressState.OVER:
            until_s = self.valid_until_s
        if until_s is None:
            return _LONGEST_S
        left_s = until_s - time.clock_gettime(time.CLOCK_BOOTTIME)
        return min(max(left_s, 0.0) + 0.001, _LONGEST_S)


def read(sock: socket.socket, option: int) -> Notice | None:
    """The notice of a socket; None: it is none of ours, or nobody enforces types here."""
    # An address of the socket's own is made of its cookie, which it has once somebody asked for it.
    sock.getsockopt(socket.SOL_SOCKET, _SO_COOKIE, 8)
    try:
        raw = sock.getsockopt(socket.IPPROTO_IPV6, option, _NOTICE.size)
    except OSError as error:
        if error.errno in _UNKNOWN:
            return None
        raise
    if len(raw) != _NOTICE.size:
        return None
    state, type_, preferred_ns, valid_ns, address, successor = _NOTICE.unpack(raw)
    if not state:
        return None
    return Notice(
        AddressState(state),
        AddressType(type_),
        _address(address),
        _address(successor),
        _seconds(preferred_ns),
        _seconds(valid_ns),
    )


def _address(packed: bytes) -> IPv4Address | IPv6Address | None:
    """None for the wildcard of either family."""
    address = IPv6Address(packed)
    found = address.ipv4_mapped or address
    return None if found.is_unspecified else found


def _seconds(boot_ns: int) -> float | None:
    return boot_ns / 1e9 if boot_ns else None


def watch() -> socket.socket:
    """A socket that becomes readable when what sockets are given has changed, when the agent ends,
    and once at the beginning. OSError: the agent can't be reached.
    """
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        agent.connect(waiting.path())
        agent.send(_WATCH)
    except OSError:
        agent.close()
        raise
    return agent


def watched(agent: socket.socket) -> bool:
    """Take what made it readable. False: the agent has ended, or too many watch."""
    try:
        while agent.recv(256):
            pass
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


#: Steps: what to wait for (None: nothing but time), and for how many seconds.
_Steps = Generator[tuple[socket.socket | None, float] | Notice, None, None]


class Notices:
    """The notices of a socket, one after the other: `for` and `async for` go over them.

    The first is as it stands; the next ones come as something has changed. They end when the socket
    is closed, or is none of ours any more.
    """

    def __init__(self, sock: socket.socket, option: int) -> None:
        self._sock, self._option = sock, option

    def __iter__(self) -> Iterator[Notice]:
        with closing(self._steps()) as steps:
            for step in steps:
                if isinstance(step, Notice):
                    yield step
                elif step[0] is None:
                    time.sleep(step[1])
                else:
                    poller = select.poll()
                    poller.register(step[0], select.POLLIN)
                    poller.poll(step[1] * 1000)

    async def __aiter__(self) -> AsyncIterator[Notice]:
        with closing(self._steps()) as steps:
            for step in steps:
                if isinstance(step, Notice):
                    yield step
                elif step[0] is None:
                    await asyncio.sleep(step[1])
                else:
                    await _readable(step[0], step[1])

    def _steps(self) -> _Steps:
        last: Notice | None = None
        agent: socket.socket | None = None
        try:
            while True:
                if agent is None:
                    with suppress(OSError):
                        agent = watch()
                # The kernel is asked last: what changes from now on, the agent tells.
                reached = agent is not None and watched(agent)
                if self._sock.fileno() < 0 or (now := read(self._sock, self._option)) is None:
                    return
                if now != last:
                    yield now
                    last = now
                if reached:
                    yield agent, now.ends_s()
                else:
                    if agent is not None:
                        agent.close()
                        agent = None
                    yield None, min(_AGAIN_S, now.ends_s())
        finally:
            if agent is not None:
                agent.close()


async def _readable(agent: socket.socket, within_s: float) -> None:
    """Until there is something to read, or this time is over."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(agent, readable.set)
    try:
        with suppress(TimeoutError):
            await asyncio.wait_for(readable.wait(), within_s)
    finally:
        loop.remove_reader(agent)
