"""What the agent needs of the network stack, and policy rules of others."""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from odm_agent.cli.child import in_child
from odm_agent.cli.doctor.findings import Finding, Host, missing, ok, warning
from odm_agent.config.schema import AgentConfig
from odm_agent.core.errors import KernelError
from odm_agent.kernel.namespace import netns_cookie

#: linux/netlink.h, linux/sock_diag.h
NETLINK_SOCK_DIAG: Final = 4
SOCK_DIAG_BY_FAMILY: Final = 20
NLM_F_REQUEST_DUMP: Final = 0x301
NLMSG_ERROR: Final = 2
#: linux/sched.h
CLONE_NEWNET: Final = 0x40000000
HEADER: Final = struct.Struct("=IHHII")
#: struct inet_diag_req_v2: family, protocol, ext, pad, states; then an inet_diag_sockid of zeros.
DIAG_REQUEST: Final = struct.Struct("=BBBBI48x")


def sock_diag(host: Host) -> Iterator[Finding]:
    """Whether the kernel lists TCP and UDP sockets."""
    failed = {}
    for name, protocol in (("TCP", socket.IPPROTO_TCP), ("UDP", socket.IPPROTO_UDP)):
        try:
            _diag(protocol)
        except OSError as error:
            failed[name] = error.strerror or str(error)
    if failed:
        detail = "; ".join(f"{name}: {why}" for name, why in failed.items())
        remedy = "modprobe tcp_diag udp_diag; `sockets` and live counts need it, enforcement not"
        yield warning("sock_diag", detail, remedy)
    else:
        yield ok("sock_diag", "TCP and UDP")


def _diag(protocol: int) -> None:
    """Ask for the sockets of no state at all; raises OSError if nobody answers for the protocol."""
    body = DIAG_REQUEST.pack(socket.AF_INET, protocol, 0, 0, 0)
    length = HEADER.size + len(body)
    header = HEADER.pack(length, SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_SOCK_DIAG) as sock:
        sock.settimeout(5)
        sock.send(header + body)
        answer = sock.recv(65536)
    if HEADER.unpack_from(answer)[1] == NLMSG_ERROR:
        (code,) = struct.unpack_from("=i", answer, HEADER.size)
        raise OSError(-code, os.strerror(-code))


def namespace_cookie(host: Host) -> Iterator[Finding]:
    """SO_NETNS_COOKIE: how the programs tell the agent's network namespace from others."""
    try:
        cookie = netns_cookie()
    except KernelError as error:
        yield missing("namespace cookie", str(error), "run kernel 5.14 or later")
    else:
        yield ok("namespace cookie", str(cookie))


def policy_routing(host: Host) -> Iterator[Finding]:
    """Rules of both families, tried in a namespace that vanishes with the child that made it."""
    failed = in_child(_try_rules, "trying policy routing")
    if failed:
        remedy = "run a kernel with CONFIG_IP_MULTIPLE_TABLES and CONFIG_IPV6_MULTIPLE_TABLES"
        yield missing("policy routing", "; ".join(failed), remedy)
    else:
        yield ok("policy routing", "rules by mark and by prefix length, IPv4 and IPv6")


def _try_rules() -> list[str]:
    from pyroute2.iproute import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        reason = os.strerror(ctypes.get_errno())
        return [f"no network namespace could be made: {reason}"]
    failed = []
    with IPRoute() as route:
        for name, family in (("IPv4", socket.AF_INET), ("IPv6", socket.AF_INET6)):
            rules = (
                {"table": 865300, "fwmark": 1 << 24, "fwmask": 0xFF << 24},
                {"table": 254, "suppress_prefixlength": 0},
            )
            try:
                for rule in rules:
                    route.rule("add", family=family, priority=8653, **rule)
            except NetlinkError as error:
                failed.append(f"{name}: {errno.errorcode.get(error.code, error.code)}")
    return failed


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """A policy rule that is not ours; mark and mask 0: it asks for no mark."""

    family: str
    priority: int
    mark: int
    mask: int
    table: int

    def __str__(self) -> str:
        by_mark = f" fwmark {self.mark:#x}/{self.mask:#x}" if self.mask else ""
        return f"{self.family} rule {self.priority}:{by_mark} lookup {self.table}"


def foreign_rules(host: Host) -> Iterator[Finding]:
    """Rules that use bits of our marks, or that are asked before ours."""
    found = [finding for rule in _read_rules(host.agent) for finding in judge(rule, host.agent)]
    yield from found
    if not found:
        yield ok(
            "policy rules", f"none of others in the way of priority {host.agent.rule_priority}"
        )


def judge(rule: ForeignRule, agent: AgentConfig) -> Iterator[Finding]:
    """What somebody else's rule means for ours."""
    if overlap := rule.mask & agent.mark_mask:
        remedy = f"move agent.mark_mask (now {agent.mark_mask:#x}) to bits that nobody uses"
        yield warning("policy rules", f"{rule} uses the mark bits {overlap:#x}", remedy)
    # Rule 0 is the local table: that is asked first on every host.
    if 0 < rule.priority < agent.rule_priority:
        remedy = (
            f"if it catches packets from typed sources, set agent.rule_priority (now "
            f"{agent.rule_priority}) below {rule.priority}"
        )
        yield warning("policy rules", f"{rule} stands before ours", remedy)


def _read_rules(agent: AgentConfig) -> list[ForeignRule]:
    from pyroute2.iproute import IPRoute

    rules = []
    with IPRoute() as route:
        for name, family in (("IPv4", socket.AF_INET), ("IPv6", socket.AF_INET6)):
            for message in route.get_rules(family=family):
                if message.get("protocol") == agent.protocol:
                    continue
                mark = message.get("fwmark") or 0
                mask = message.get("fwmask") or 0
                priority, table = message.get("priority") or 0, message.get("table") or 0
                rules.append(ForeignRule(name, priority, mark, mask, table))
    return rules
