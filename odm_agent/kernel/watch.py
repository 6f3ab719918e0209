"""Notices that interfaces, addresses, routes or rules of the namespace changed."""

import errno
import socket
from types import TracebackType
from typing import Final, Self

from pyroute2.netlink import NETLINK_ROUTE, rtnl

from odm_agent.core.errors import KernelError

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


class Watch:
    """A subscription in the network namespace in which it is made.

    What changed is not told, for the state is read again anyway; that also makes lost messages
    harmless. Our own changes are noticed like anybody's. It is a plain socket since nothing is
    parsed: pyroute2's would take all messages in, for somebody to fetch.
    """

    def __init__(self) -> None:
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

    def drain(self) -> bool:
        """Take away what has arrived, without waiting; whether there was anything.

        Raises KernelError.

        In a storm some may be left for the next call: the descriptor stays readable.
        """
        changed = False
        for _ in range(_MOST_AT_ONCE):
            try:
                # The message is cut to nothing: only that it came matters.
                self._socket.recv(1)
            except BlockingIOError:
                return changed
            except OSError as error:
                # Overrun: messages were lost, so anything may have changed.
                if error.errno != errno.ENOBUFS:
                    raise KernelError(
                        f"receiving changes of the network namespace: {error.strerror}. "
                        "It is tried again."
                    ) from error
            changed = True
        return changed
