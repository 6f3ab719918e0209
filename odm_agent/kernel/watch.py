"""Notices that interfaces, addresses, routes or rules of the namespace changed."""

import errno
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from types import TracebackType
from typing import Final, Self

from pyroute2.netlink import NETLINK_ROUTE, rtnl
from pyroute2.netlink.rtnl.ifaddrmsg import IFA_F_DEPRECATED, IFA_F_PERMANENT

from odm_agent.core.errors import KernelError
from odm_agent.core.renumbering import LONGEST, Announced, forgotten, network_of
from odm_agent.kernel.addresses import (
    IFA_ADDRESS,
    IFA_CACHEINFO,
    IFA_FLAGS,
    IFA_LOCAL,
    MESSAGE,
    dates,
)
from odm_agent.kernel.wire import attributes, messages, number

_GROUPS: Final = {
    "link": rtnl.RTMGRP_LINK,
    "ipv4 address": rtnl.RTMGRP_IPV4_IFADDR,
    "ipv4 route": rtnl.RTMGRP_IPV4_ROUTE,
    "ipv4 rule": rtnl.RTMGRP_IPV4_RULE,
    "ipv6 address": rtnl.RTMGRP_IPV6_IFADDR,
    "ipv6 route": rtnl.RTMGRP_IPV6_ROUTE,
    "ipv6 rule": rtnl.RTMGRP_IPV6_RULE,
    "nexthop": 1 << 31,  # RTNLGRP_NEXTHOP (linux/rtnetlink.h), for which pyroute2 has no constant
}
_MOST_AT_ONCE: Final = 10_000
_LARGEST: Final = 1 << 16
#: So many addresses are known by what was last told of them.
_MOST_KNOWN: Final = 4096


class Renewals:
    """Knows what was told of addresses, and so what is news.

    A router that advertises its prefix has the kernel tell each address anew, with other lifetimes,
    every few seconds where hosts move (RFC 6275, section 7.5). What matters to us of a lifetime,
    that there is one and that it is over, is in the flags; and it is news when a router turns out
    to have forgotten a prefix, or to know it again.
    """

    def __init__(self) -> None:
        #: By interface and address what was told.
        self._told: dict[int, dict[tuple[bytes, bytes], _Told]] = {}
        self._known = 0

    def are_all(self, data: bytes) -> bool:
        """Whether all these messages tell of addresses what was told before, but for lifetimes."""
        return all([self._is_one(kind, body) for kind, _, _, body in messages(data)])

    def forget(self) -> None:
        """Messages were lost: all is news."""
        self._told.clear()
        self._known = 0

    def _is_one(self, kind: int, message: bytes) -> bool:
        if kind not in (rtnl.RTM_NEWADDR, rtnl.RTM_DELADDR) or len(message) < MESSAGE.size:
            return False
        *head, index = MESSAGE.unpack_from(message)
        said = attributes(message, MESSAGE.size)
        link = self._told.setdefault(index, {})
        key = said.get(IFA_ADDRESS, b""), said.get(IFA_LOCAL, b"")
        before = link.pop(key, None)
        self._known -= before is not None
        if kind == rtnl.RTM_DELADDR:
            return False
        announced = _announced(head, said)
        said.pop(IFA_CACHEINFO, None)
        told = _Told((head, said), announced)
        if self._known >= _MOST_KNOWN:
            self.forget()
            link = self._told.setdefault(index, {})
        link[key] = told
        self._known += 1
        if before is None or before.news != told.news:
            return False
        if before.announced is None or announced is None:
            return True
        others = [
            each.announced
            for each in link.values()
            if each is not told and each.announced is not None
        ]
        return forgotten([*others, before.announced]) == forgotten([*others, announced])


@dataclass(frozen=True, slots=True)
class _Told:
    """What was told of an address: all but its lifetimes, and of an announced prefix its dates."""

    news: object
    announced: Announced | None


def _announced(head: Sequence[int], said: Mapping[int, bytes]) -> Announced | None:
    """The dates of an address that a router may have announced; None: it is no such."""
    family, length, flags, _ = head
    packed = said.get(IFA_ADDRESS, b"")
    flags = number(said.get(IFA_FLAGS), flags)
    if family != socket.AF_INET6 or len(packed) != 16 or length > LONGEST:
        return None
    address = IPv6Address(packed)
    if flags & IFA_F_PERMANENT or address.is_link_local:
        return None
    born, renewed = dates(said)
    return Announced(
        network_of(address, length), born, renewed, deprecated=bool(flags & IFA_F_DEPRECATED)
    )


class Watch:
    """A subscription in the network namespace in which it is made.

    What changed is not told, for the state is read again anyway; that also makes lost messages
    harmless. Our own changes are noticed like anybody's. It is a plain socket since hardly anything
    is parsed: pyroute2's would take all messages in, for somebody to fetch.
    """

    def __init__(self) -> None:
        self._renewals = Renewals()
        self._news = True
        try:
            self._socket = socket.socket(
                socket.AF_NETLINK,
                socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
                NETLINK_ROUTE,
            )
            try:
                self._socket.bind((0, sum(_GROUPS.values())))
            except OSError:
                self._socket.close()
                raise
        except OSError as error:
            raise KernelError(
                f"subscribing to changes of {', '.join(_GROUPS)}: {error.strerror}. "
                "Run on a kernel with IPv6 and policy routing."
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription."""
        self._socket.close()

    def fileno(self) -> int:
        """Readable when there is something to drain."""
        return self._socket.fileno()

    def take_news(self) -> bool:
        """Whether there was any news since this was asked last, whoever has drained it."""
        self.drain()
        news, self._news = self._news, False
        return news

    def drain(self) -> bool:
        """Take away what has arrived, without waiting; whether there was any news.

        Raises KernelError.

        In a storm some may be left for the next call: the descriptor stays readable.
        """
        changed = False
        for _ in range(_MOST_AT_ONCE):
            try:
                news = not self._renewals.are_all(self._socket.recv(_LARGEST))
            except BlockingIOError:
                return changed
            except OSError as error:
                # Overrun: messages were lost, so anything may have changed.
                if error.errno != errno.ENOBUFS:
                    raise KernelError(
                        f"receiving changes of the network namespace: {error.strerror}. "
                        "It is tried again."
                    ) from error
                self._renewals.forget()
                news = True
            changed |= news
            self._news |= news
        return changed
