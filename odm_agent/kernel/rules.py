"""Policy routing rules of ours, told by FRA_PROTOCOL."""

import errno
import socket
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETRULE
from pyroute2.netlink.rtnl.fibmsg import FR_ACT_PROHIBIT, FR_ACT_TO_TBL, fibmsg

from odm_agent.host import Rule, RuleAction
from odm_agent.kernel.rtnetlink import dump
from odm_agent.model import Family

_NO_SUPPRESSION: Final = 0xFFFFFFFF
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_ACTIONS: Final = {RuleAction.LOOKUP: FR_ACT_TO_TBL, RuleAction.PROHIBIT: FR_ACT_PROHIBIT}
_ACTION_OF: Final = {number: action for action, number in _ACTIONS.items()}
#: Packets that this host makes "come in" by this interface (ip-rule(8)).
_LOCAL: Final = "lo"


async def read(route: AsyncIPRoute, protocol: int) -> frozenset[Rule]:
    """All rules that carry `protocol`, of both families."""
    rules = set()
    for family, constant in _AF.items():
        request = fibmsg()
        request["family"] = constant
        for each in await dump(route, RTM_GETRULE, request):
            ours = each.get_attr("FRA_PROTOCOL") == protocol
            if ours and each["action"] in _ACTION_OF:  # what we never make is somebody else's
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

    In a removal the kernel takes what is not said as "any", and the first rule that fits: one that
    is for local packets only goes in the place of its like for all. So that is looked at before and
    after, and what went by mistake is put back (behind the other, which is then the first).
    """
    for _ in range(2):
        before = await read(route, protocol)
        if rule not in before:
            return
        try:
            await route.rule("delete", **_arguments(rule, protocol))
        except NetlinkError as refusal:
            if refusal.code != errno.ENOENT:  # else somebody was faster
                raise
        if (like := replace(rule, local_only=True)) == rule or like not in before:
            return
        if like not in await read(route, protocol):
            await add(route, like, protocol)


def _arguments(rule: Rule, protocol: int) -> dict[str, Any]:
    marked = bool(rule.mark or rule.mask)
    # What is None is left out of the message.
    return {
        "family": _AF[rule.family],
        "priority": rule.priority,
        "table": rule.table,
        "action": _ACTIONS[rule.action],
        "protocol": protocol,
        "src": None if rule.source is None else str(rule.source),
        "fwmark": rule.mark if marked else None,
        "fwmask": rule.mask if marked else None,
        "suppress_prefixlen": rule.suppress_prefix_length,
        "iifname": _LOCAL if rule.local_only else None,
    }


def _parse(family: Family, found: fibmsg) -> Rule:
    source = found.get_attr("FRA_SRC")
    suppressed = found.get_attr("FRA_SUPPRESS_PREFIXLEN", _NO_SUPPRESSION)
    return Rule(
        family=family,
        priority=found.get_attr("FRA_PRIORITY", 0),
        table=found.get_attr("FRA_TABLE", 0),
        source=None if source is None else ip_network((source, found["src_len"])),
        mark=found.get_attr("FRA_FWMARK", 0),
        mask=found.get_attr("FRA_FWMASK", 0),
        suppress_prefix_length=None if suppressed == _NO_SUPPRESSION else suppressed,
        local_only=found.get_attr("FRA_IIFNAME") == _LOCAL,
        action=_ACTION_OF[found["action"]],
    )
