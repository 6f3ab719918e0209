"""The sockets of the network namespace, as sock_diag lists them, and whose they are.

What sock_diag can't list: TCP sockets that are only bound, UDP sockets without a port, and the
socket storage of UDP sockets.
"""

import errno
import logging
import os
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final

from pyroute2.netlink import NLA_F_NESTED

from odm_agent.core.errors import KernelError
from odm_agent.core.model import IPAddress
from odm_agent.kernel.wire import (
    RefusedError,
    Wire,
    attribute,
    attribute_list,
    attributes,
    number,
    u32,
)

logger = logging.getLogger(__name__)

#: Family, protocol, extensions, states, then the socket's identity, here always "any".
_REQUEST: Final = struct.Struct("=BBBxI48x")
_REQ_SK_BPF_STORAGES: Final = 2
_REQ_PROTOCOL: Final = 3
_STORAGE_REQ_MAP_FD: Final = 1
#: Family, state; ports; addresses; interface and cookie; uid and inode (struct inet_diag_msg).
_ANSWER: Final = struct.Struct("=BBxx2s2s16s16sIII12xII")
_MARK: Final = 15
_SK_BPF_STORAGES: Final = 20
_CGROUP_ID: Final = 21
_STORAGE: Final = 1
_STORAGE_MAP_VALUE: Final = 3
_ALL_STATES: Final = 0xFFFFFFFF
_IPPROTO_MPTCP: Final = 262
_PROTOCOLS: Final = {
    "tcp": socket.IPPROTO_TCP,
    "udp": socket.IPPROTO_UDP,
    "mptcp": _IPPROTO_MPTCP,
}
#: The protocols of sockets that may have a mark of ours; an MPTCP socket's is on its subflows.
_MARKED: Final = {**_PROTOCOLS, "udplite": socket.IPPROTO_UDPLITE}
#: Words as `ss` has them (kernel: include/net/tcp_states.h); UDP is ESTAB or UNCONN.
_STATES: Final = {
    1: "ESTAB",
    2: "SYN-SENT",
    3: "SYN-RECV",
    4: "FIN-WAIT-1",
    5: "FIN-WAIT-2",
    6: "TIME-WAIT",
    7: "UNCONN",
    8: "CLOSE-WAIT",
    9: "LAST-ACK",
    10: "LISTEN",
    11: "CLOSING",
    12: "SYN-RECV",
    13: "UNCONN",  # TCP that is only bound; listed from Linux 6.8 on
}


@dataclass(frozen=True, slots=True)
class SocketInfo:
    """One socket. Addresses mapped from IPv4 are IPv4 ones; 0 stands for "none" in all numbers.

    `storage` is the socket's value in the socket-storage map that was asked about; None if it has
    none, and for all UDP sockets (the kernel leaves it out of their description).
    """

    cookie: int
    protocol: str
    state: str
    local: IPAddress
    local_port: int
    remote: IPAddress
    remote_port: int
    interface: int
    uid: int
    inode: int
    cgroup_id: int
    mark: int
    storage: bytes | None = None

    @property
    def remnant(self) -> bool:
        """What is left of a connection in TIME_WAIT. One in FIN_WAIT2 that nobody holds is kept by
        the kernel in the same way: without a socket, and without a cgroup."""
        return self.state == "TIME-WAIT" or (self.state == "FIN-WAIT-2" and not self.cgroup_id)


def sockets(storage_map_fd: int | None = None) -> list[SocketInfo]:
    """All TCP, UDP and MPTCP sockets of the calling thread's namespace, subflows as TCP too.

    `storage_map_fd` is an open socket-storage map. Raises KernelError. A protocol that the kernel
    lacks has no sockets.
    """
    with Wire() as wire:
        return [
            info
            for word in _PROTOCOLS
            for family in (socket.AF_INET, socket.AF_INET6)
            for info in _dump(wire, word, family, storage_map_fd)
        ]


def described(wire: Wire, protocol: str) -> Iterator[tuple[SocketInfo, bytes]]:
    """The sockets of a protocol ("tcp", "udp"), each with the kernel's own description of it."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in _answers(wire, protocol, family, None):
            yield _parse(protocol, body), body


def marks() -> set[int]:
    """The marks of the namespace's TCP, UDP and UDP-Lite sockets, those in TIME_WAIT included.

    It takes CAP_NET_ADMIN, or none is told. Raises KernelError.
    """
    with Wire() as wire:
        return {
            number(attributes(body, _ANSWER.size).get(_MARK))
            for word in _MARKED
            for family in (socket.AF_INET, socket.AF_INET6)
            for body in _answers(wire, word, family, None)
        } - {0}


def owners(inodes: Iterable[int]) -> dict[int, tuple[int, str]]:
    """Pid and name (comm) of the process that holds each socket; of several the lowest pid.

    One walk through /proc; sockets that no process visible from here holds are left out. Raises
    KernelError.
    """
    wanted = set(inodes) - {0}
    found: dict[int, tuple[int, str]] = {}
    try:
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdecimal())
    except OSError as error:
        raise KernelError(
            f"listing processes: {error.strerror}. Mount /proc; try again if memory or "
            "descriptors were short."
        ) from error
    for pid in pids:
        if not wanted:
            break
        held = wanted.intersection(_held(pid))
        if held:
            owner = (pid, _comm(pid))
            found |= dict.fromkeys(held, owner)
            wanted -= held
    return found


def _dump(wire: Wire, word: str, family: int, storage_map_fd: int | None) -> Iterator[SocketInfo]:
    return (_parse(word, body) for body in _answers(wire, word, family, storage_map_fd))


def _answers(wire: Wire, word: str, family: int, storage_map_fd: int | None) -> list[bytes]:
    """What the kernel tells of each socket of a protocol (none, if it lacks the protocol)."""
    protocol = _MARKED[word]
    # The header's field has 8 bits: bigger numbers stand in an attribute that overrides it.
    body = _REQUEST.pack(family, min(protocol, socket.IPPROTO_RAW), 0, _ALL_STATES)
    if protocol > 255:
        body += u32(_REQ_PROTOCOL, protocol)
    if storage_map_fd is not None:
        maps = u32(_STORAGE_REQ_MAP_FD, storage_map_fd)
        body += attribute(_REQ_SK_BPF_STORAGES | NLA_F_NESTED, maps)
    try:
        return wire.dump(body)
    except RefusedError as refusal:
        if refusal.errno == errno.ENOENT:
            logger.debug("the kernel can't list these sockets", extra={"protocol": word})
            return []
        raise KernelError(
            f"listing {word} sockets: {refusal}. The map must be a socket storage and still open; "
            "it takes CAP_NET_ADMIN and CAP_BPF."
            if storage_map_fd is not None
            else f"listing {word} sockets: {refusal}. Load the module {word}_diag."
        ) from refusal


def _parse(word: str, body: bytes) -> SocketInfo:
    family, state, local_port, remote_port, local, remote, interface, low, high, uid, inode = (
        _ANSWER.unpack_from(body)
    )
    found = attributes(body, _ANSWER.size)
    return SocketInfo(
        cookie=low | high << 32,
        protocol=word,
        state=_STATES.get(state, str(state)),
        local=_address(family, local),
        local_port=int.from_bytes(local_port, "big"),
        remote=_address(family, remote),
        remote_port=int.from_bytes(remote_port, "big"),
        interface=interface,
        uid=uid,
        inode=inode,
        cgroup_id=number(found.get(_CGROUP_ID)),
        mark=number(found.get(_MARK)),
        storage=_storage(found.get(_SK_BPF_STORAGES)),
    )


def _address(family: int, packed: bytes) -> IPAddress:
    if family == socket.AF_INET:
        return IPv4Address(packed[:4])
    address = IPv6Address(packed)
    return address.ipv4_mapped or address


def _storage(nest: bytes | None) -> bytes | None:
    """The value in the first map of the nest (we ask about one)."""
    for kind, inner in attribute_list(nest or b""):
        if kind == _STORAGE:
            return attributes(inner).get(_STORAGE_MAP_VALUE)
    return None


def _held(pid: int) -> Iterator[int]:
    """The inodes of the sockets that a process holds."""
    # Processes end and files are closed while we look; both are as if not there.
    with suppress(OSError), os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in entries:
            with suppress(OSError):
                target = os.readlink(entry.path)
                if target.startswith("socket:["):
                    yield int(target[8:-1])


def _comm(pid: int) -> str:
    """Any process may give itself any bytes for a name."""
    try:
        return os.fsdecode(Path(f"/proc/{pid}/comm").read_bytes()).removesuffix("\n")
    except OSError:
        return ""


def cgroups_with_sockets() -> set[int]:
    """The cgroups, by id, of the sockets that the kernel lists in this network namespace."""
    return {info.cgroup_id for info in sockets()}
