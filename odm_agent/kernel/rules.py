"""Policy routing rules of ours, told by FRA_PROTOCOL."""

import errno
import socket
from ipaddress import ip_network
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETRULE
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_TO_TBL, fibmsg

from odm_agent.kernel.rtnetlink import dump
from odm_agent.model import Family, Rule

_NO_SUPPRESSION: Final = 0xFFFFFFFF
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}


async def read(route: AsyncIPRoute, protocol: int) -> frozenset[Rule]:
    """All rules that carry `protocol`, of both families."""
    rules = set()
    for family, constant in _AF.items():
        request = fibmsg()
        request["family"] = constant
        for each in await dump(route, RTM_GETRULE, request):
            if each.get_attr("FRA_PROTOCOL") == protocol:
                rules.add(_parse(family, each))
    return frozenset(rules)


async def add(route: AsyncIPRoute, rule: Rule, protocol: int) -> None:
    """Install a rule unless we have it; raises NetlinkError.

    The kernel counts the protocol as part of a rule: the same of somebody else is another.
    """
    try:
        await route.rule("add", **_arguments(rule, protocol))
    except NetlinkError as refusal:
        if refusal.code != errno.EEXIST:
            raise


async def remove(route: AsyncIPRoute, rule: Rule, protocol: int) -> None:
    """Remove a rule of ours if it is there; raises NetlinkError.

    Looked up first: in a removal the kernel takes what is not said as "any".
    """
    if rule not in await read(route, protocol):
        return
    try:
        await route.rule("delete", **_arguments(rule, protocol))
    except NetlinkError as refusal:
        if refusal.code != errno.ENOENT:  # else somebody was faster
            raise


def _arguments(rule: Rule, protocol: int) -> dict[str, Any]:
    marked = bool(rule.mark or rule.mask)
    # What is None is left out of the message.
    return {
        "family": _AF[rule.family],
        "priority": rule.priority,
        "table": rule.table,
        "action": FR_ACT_TO_TBL,
        "protocol": protocol,
        "src": None if rule.source is None else str(rule.source),
        "fwmark": rule.mark if marked else None,
        "fwmask": rule.mask if marked else None,
        "suppress_prefixlen": rule.suppress_prefix_length,
    }


def _parse(family: Family, found: fibmsg) -> Rule:
    source = found.get_attr("FRA_SRC")
    suppressed = found.get_attr("FRA_SUPPRESS_PREFIXLEN", _NO_SUPPRESSION)
    return Rule(
        family=family,
        priority=found.get_attr("FRA_PRIORITY", 0),
        table=found.get_attr("FRA_TABLE"),
        source=None if source is None else ip_network((source, found["src_len"])),
        mark=found.get_attr("FRA_FWMARK", 0),
        mask=found.get_attr("FRA_FWMASK", 0),
        suppress_prefix_length=None if suppressed == _NO_SUPPRESSION else suppressed,
    )
