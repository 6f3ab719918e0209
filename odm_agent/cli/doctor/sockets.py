"""Whether sockets that no cgroup hook sees can be refused when they are created."""

import os
from collections.abc import Iterable, Iterator
from typing import Final

from odm_agent.cli.doctor.findings import Finding, Host, ok, warning
from odm_agent.core.model import SocketKind
from odm_agent.datapath.guards import creation

NAME: Final = "socket creation"
#: What a class closes that has no other hook at its creation.
_KINDS: Final = frozenset({SocketKind.PACKET.value, SocketKind.XDP.value})
_LEFT_OPEN: Final = (
    "the kernel runs no program there: a class that refuses packet or xdp sockets can still open"
    " them, set their options by 32-bit system calls, and send on interfaces that the agent has not"
    " seen yet"
)
_REMEDY: Final = (
    "keep CAP_NET_RAW from such classes; or, for their services, SystemCallArchitectures=native and"
    " RestrictAddressFamilies=~AF_PACKET AF_XDP; or run a kernel with CONFIG_BPF_LSM, and bpf in"
    " lsm= on its command line, whose policy lets root load such programs"
)


def socket_creation(host: Host) -> Iterator[Finding]:
    """Whether a program can refuse packet and XDP sockets at their creation."""
    way = creation.way()
    if way is None:
        yield warning(NAME, f"{_LEFT_OPEN} ({creation.hindrances()})", _REMEDY)
    elif way.always:
        yield ok(NAME, "packet and xdp sockets are refused by a program of the BPF security module")
    else:
        detail = (
            "packet and xdp sockets are refused, but not always where the kernel preempts tasks"
        )
        yield warning(NAME, detail, "add bpf to lsm= on the kernel's command line")


def closing(classes: Iterable[tuple[str, Iterable[str]]]) -> Iterator[Finding]:
    """Classes, by name and their `refuse`, that close what this kernel can't close at creation."""
    found = [name for name, refused in classes if _KINDS & set(refused)]
    # Only root can try it; who can't is told of nothing.
    if found and os.geteuid() == 0 and creation.way() is None:
        for name in found:
            yield warning(name, _LEFT_OPEN, _REMEDY)
