"""Endpoints of the kernel's own MPTCP path manager (generic netlink, linux/mptcp_pm.h).

When an endpoint is added, the kernel opens a subflow from it for each connection of the network
namespace within the call, as far as its limits go. So hooks take the process that adds it for the
one that binds these subflows; each belongs to the cgroup of its connection, as its packets tell.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from pyroute2.netlink import NETLINK_GENERIC, NLA_F_NESTED

from odm_agent import isolated
from odm_agent.core.errors import KernelError
from odm_agent.core.model import IPAddress
from odm_agent.kernel.wire import RefusedError, Wire, attribute, attributes, number, u32

_NAME: Final = b"mptcp_pm\0"
#: struct genlmsghdr: command, version.
_HEADER: Final = struct.Struct("=BBxx")
#: linux/genetlink.h: the family that tells of all others.
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2
_ADD, _DELETE, _GET = 1, 2, 3
_VERSION: Final = 1
_ADDRESS: Final = 1
_FAMILY, _ID, _ADDRESS_4, _ADDRESS_6, _FLAGS = 1, 2, 3, 4, 6
#: Subflows are opened from there.
_SUBFLOW: Final = 2
_IN_CGROUP: Final = "odm_agent.kernel.in_cgroup"
_TIMEOUT_S: Final = 5.0
_NOTHING_DONE: Final = "Connections go on with the subflows that they have."
#: It has gone meanwhile.
_GONE: Final = frozenset({errno.EINVAL, errno.ENOENT})


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint; `id` is 1 to 255."""

    id: int
    address: IPAddress


class PathManager:
    """That of the calling thread's network namespace; a context manager, not for two threads.

    A kernel without MPTCP has no endpoints. It takes CAP_NET_ADMIN. All raise KernelError.
    """

    def __init__(self) -> None:
        self._wire = Wire(NETLINK_GENERIC)
        self._family = next(self._families(), 0)

    def __enter__(self) -> "PathManager":
        return self

    def __exit__(self, *_: object) -> None:
        self._wire.close()

    def endpoints(self) -> list[Endpoint]:
        """All that there are, whoever has added them."""
        if not self._family:
            return []
        told = self._dump(self._family, _HEADER.pack(_GET, _VERSION))
        return [_parse(attributes(body, _HEADER.size)[_ADDRESS]) for body in told]

    def add(self, endpoint: Endpoint, procs: Path) -> None:
        """Open subflows from an address, as a process of the cgroup with that cgroup.procs."""

        def send(message: bytes) -> None:
            descriptor = self._wire.fileno()
            done = isolated.run(
                *(_IN_CGROUP, str(procs), str(descriptor), message.hex()),
                timeout_s=_TIMEOUT_S,
                pass_fds=(descriptor,),
            )
            if done.returncode:
                said = done.stderr.strip().rpartition("\n")[2]
                raise KernelError(f"adding {_words(endpoint)}: {said}. {_NOTHING_DONE}")

        doing = f"adding {_words(endpoint)}"
        request = self._request(_ADD, endpoint, u32(_FLAGS, _SUBFLOW))
        try:
            self._wire.tell_by(send, self._family, request, doing, _NOTHING_DONE)
        except RefusedError as refusal:
            raise KernelError(f"{doing}: {refusal}. {_NOTHING_DONE}") from refusal

    def remove(self, endpoint: Endpoint) -> None:
        """Close the subflows from an address, and open none from there any more."""
        doing, otherwise = f"removing {_words(endpoint)}", "It is tried again."
        try:
            self._wire.tell(self._family, self._request(_DELETE, endpoint), doing, otherwise)
        except RefusedError as refusal:
            if refusal.errno not in _GONE:
                raise KernelError(f"{doing}: {refusal}. {otherwise}") from refusal

    def _families(self) -> Iterator[int]:
        for body in self._dump(_CONTROL, _HEADER.pack(_GET_FAMILY, _VERSION)):
            found = attributes(body, _HEADER.size)
            if found.get(_FAMILY_NAME) == _NAME:
                yield number(found[_FAMILY_ID])

    def _dump(self, family: int, request: bytes) -> list[bytes]:
        doing = "listing endpoints of MPTCP"
        try:
            return self._wire.dump(request, family, doing)
        except RefusedError as refusal:
            raise KernelError(f"{doing}: {refusal}. {_NOTHING_DONE}") from refusal

    def _request(self, command: int, endpoint: Endpoint, more: bytes = b"") -> bytes:
        is_v6 = endpoint.address.version == 6
        family = socket.AF_INET6 if is_v6 else socket.AF_INET
        named = (
            attribute(_FAMILY, struct.pack("=H", family))
            + attribute(_ID, bytes([endpoint.id]))
            + attribute(_ADDRESS_6 if is_v6 else _ADDRESS_4, endpoint.address.packed)
        )
        return _HEADER.pack(command, _VERSION) + attribute(_ADDRESS | NLA_F_NESTED, named + more)


def _parse(nested: bytes) -> Endpoint:
    found = attributes(nested)
    return Endpoint(number(found[_ID]), ip_address(found.get(_ADDRESS_6) or found[_ADDRESS_4]))


def _words(endpoint: Endpoint) -> str:
    return f"MPTCP endpoint {endpoint.address} (id {endpoint.id})"
