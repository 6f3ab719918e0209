"""Notices that interfaces, addresses, routes or rules of the namespace changed."""

import errno
import socket
from types import TracebackType
from typing import Final, Self

from odm_agent.errors import KernelError
from odm_agent.kernel.wire import NETLINK_ROUTE

# Multicast groups by number (linux/rtnetlink.h, enum rtnetlink_groups).
_GROUPS: Final = {
    "link": 1,
    "ipv4 address": 5,
    "ipv4 route": 7,
    "ipv4 rule": 8,
    "ipv6 address": 9,
    "ipv6 route": 11,
    "ipv6 rule": 19,
}
_MOST_AT_ONCE: Final = 10_000


class Watch:
    """A subscription in the network namespace in which it is made.

    What changed is not told, for the state is read again anyway; that also makes lost messages
    harmless. Our own changes are noticed like anybody's.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK,
            NETLINK_ROUTE,
        )
        try:
            self._socket.bind((0, sum(1 << (group - 1) for group in _GROUPS.values())))
        except OSError as error:
            self._socket.close()
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
                        "Restart the agent."
                    ) from error
            changed = True
        return changed
