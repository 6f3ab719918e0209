"""Asks the kernel itself which source address a socket would get.

A child process enters the cgroup and the network namespace in question, connects a UDP socket
(for which no packet leaves the host) and reads its own address. No copy of the rules is consulted.
"""

import socket
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from odm_agent import client
from odm_agent.cli.child import in_child
from odm_agent.core.errors import KernelError
from odm_agent.core.model import AddressType
from odm_agent.kernel.namespace import enter, netns_cookie


@dataclass(frozen=True, slots=True)
class Question:
    """Where from (a cgroup, a network namespace; None: ours), where to, and with which type set."""

    cgroup: Path
    namespace: Path | None
    host: str
    port: int
    type: AddressType | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """`step` is the call that failed with `error` (an errno): "option" or "connect"; else empty.

    `supported` is false if a type was set and the kernel did not give it back.
    """

    cookie: int
    source: IPv4Address | IPv6Address | None = None
    step: str = ""
    error: int = 0
    supported: bool = True
    #: The mark of the connected socket.
    mark: int = 0


def ask(question: Question) -> Outcome:
    """The kernel's answer; KernelError when the child cannot get into place."""
    return in_child(lambda: _ask_here(question), f"asking the kernel from {question.cgroup}")


def _ask_here(question: Question) -> Outcome:
    if question.namespace is not None:
        enter(question.namespace)
    _enter_cgroup(question.cgroup)
    family, _, _, _, address = socket.getaddrinfo(
        question.host, question.port, type=socket.SOCK_DGRAM, flags=socket.AI_NUMERICHOST
    )[0]
    # Made only now: a socket belongs for ever to the cgroup and namespace in which it was made.
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        cookie = netns_cookie()
        supported = True
        # Else a broadcast address is refused (EACCES), whatever the class may use.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        if question.type is not None:
            try:
                supported = _set_type(sock, question.type)
            except OSError as error:
                return Outcome(cookie, step="option", error=error.errno or 0)
        try:
            sock.connect(address)
        except OSError as error:
            return Outcome(cookie, step="connect", error=error.errno or 0, supported=supported)
        source = ip_address(sock.getsockname()[0])
        mark = sock.getsockopt(socket.SOL_SOCKET, socket.SO_MARK)
        return Outcome(cookie, source, supported=supported, mark=mark)


def _set_type(sock: socket.socket, type_: AddressType) -> bool:
    """Set the on-demand field; whether it reads back (a stock kernel drops it in silence).

    `client.set_type` would hide which error the kernel has answered, and that is what is asked.
    """
    sock.setsockopt(socket.IPPROTO_IPV6, client.SOCKOPT, type_ << client.TYPE_SHIFT)
    return client.get_type(sock) == type_


def _enter_cgroup(cgroup: Path) -> None:
    try:
        (cgroup / "cgroup.procs").write_text("0")
    except OSError as error:
        raise KernelError(
            f"entering the cgroup {cgroup}: {error.strerror}; this needs root, and a cgroup that "
            "takes processes (one whose children have controllers does not: name a child)"
        ) from error
