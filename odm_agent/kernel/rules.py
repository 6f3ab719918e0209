"""Policy routing rules of ours, told by FRA_PROTOCOL."""

import errno
import socket
from dataclasses import replace
from ipaddress import ip_network
from typing import Any, Final

from pyroute2 import AsyncIPRoute
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_GETRULE
from pyroute2.netlink.rtnl.fibmsg import (
    FR_ACT_BLACKHOLE,
    FR_ACT_GOTO,
    FR_ACT_NOP,
    FR_ACT_PROHIBIT,
    FR_ACT_TO_TBL,
    FR_ACT_UNREACHABLE,
    fibmsg,
)

from odm_agent.core.host import ForeignRule, Rule, RuleAction
from odm_agent.core.model import Family, IPNetwork
from odm_agent.kernel.rtnetlink import dump

#: Where the kernel has the rule for the main table.
_MAIN_PRIORITY: Final = 32766
#: linux/fib_rules.h
_FIB_RULE_INVERT: Final = 0x2
_FOREIGN_ACTIONS: Final = {
    FR_ACT_TO_TBL: "lookup",
    FR_ACT_GOTO: "goto",
    FR_ACT_NOP: "nop",
    FR_ACT_BLACKHOLE: "blackhole",
    FR_ACT_UNREACHABLE: "unreachable",
    FR_ACT_PROHIBIT: "prohibit",
}
_RANGES: Final = {
    "FRA_UID_RANGE": "uidrange",
    "FRA_SPORT_RANGE": "sport",
    "FRA_DPORT_RANGE": "dport",
}
_NO_SUPPRESSION: Final = 0xFFFFFFFF
_AF: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_ACTIONS: Final = {
    RuleAction.LOOKUP: FR_ACT_TO_TBL,
    RuleAction.PROHIBIT: FR_ACT_PROHIBIT,
    RuleAction.GOTO: FR_ACT_GOTO,
    RuleAction.NOTHING: FR_ACT_NOP,
}
_ACTION_OF: Final = {number: action for action, number in _ACTIONS.items()}
#: Packets that this host makes "come in" by this interface (ip-rule(8)).
_LOCAL: Final = "lo"


async def read(
    route: AsyncIPRoute, protocol: int
) -> tuple[frozenset[Rule], tuple[ForeignRule, ...]]:
    """All rules that carry `protocol`, of both families, and others' that stand before the last.

    Where there is none of ours, those before the main table's, as they would be then.
    """
    rules: set[Rule] = set()
    others: list[ForeignRule] = []
    for family, constant in _AF.items():
        request = fibmsg()
        request["family"] = constant
        last, foreign = 0, []
        for each in await dump(route, RTM_GETRULE, request):
            ours = each.get_attr("FRA_PROTOCOL") == protocol
            if ours and each["action"] in _ACTION_OF:  # what we never make is somebody else's
                rule = _parse(family, each)
                rules.add(rule)
                last = max(last, rule.priority)
            elif priority := each.get_attr("FRA_PRIORITY", 0):  # 0 is the local table's
                foreign.append((priority, each))
        end = last or _MAIN_PRIORITY - 1
        others += [_foreign(family, each) for priority, each in foreign if priority <= end]
    return frozenset(rules), tuple(others)


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
        before, _ = await read(route, protocol)
        if rule not in before:
            return
        try:
            await route.rule("delete", **_arguments(rule, protocol))
        except NetlinkError as refusal:
            if refusal.code != errno.ENOENT:  # else somebody was faster
                raise
        if (like := replace(rule, local_only=True)) == rule or like not in before:
            return
        after, _ = await read(route, protocol)
        if like not in after:
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
        "goto": rule.goto or None,
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
        goto=found.get_attr("FRA_GOTO", 0),
    )


def _foreign(family: Family, found: fibmsg) -> ForeignRule:
    suppressed = found.get_attr("FRA_SUPPRESS_PREFIXLEN", _NO_SUPPRESSION)
    mark = found.get_attr("FRA_FWMARK", 0)
    return ForeignRule(
        family=family,
        priority=found.get_attr("FRA_PRIORITY", 0),
        action=_FOREIGN_ACTIONS.get(found["action"], "nop"),
        table=found.get_attr("FRA_TABLE", 0),
        source=_network(found.get_attr("FRA_SRC"), found["src_len"]),
        destination=_network(found.get_attr("FRA_DST"), found["dst_len"]),
        mark=mark,
        mask=found.get_attr("FRA_FWMASK", 0),
        incoming=found.get_attr("FRA_IIFNAME"),
        outgoing=found.get_attr("FRA_OIFNAME"),
        suppress_prefix_length=None if suppressed == _NO_SUPPRESSION else suppressed,
        goto=found.get_attr("FRA_GOTO", 0),
        inverted=bool(found["flags"] & _FIB_RULE_INVERT),
        virtual=bool(found.get_attr("FRA_L3MDEV", 0)),
        limits=_limits(found),
    )


def _limits(found: fibmsg) -> str:
    """What else a rule asks for, in words of `ip rule`."""
    words = []
    if found["tos"]:
        words.append(f"tos {found['tos']:#x}")
    if protocol := found.get_attr("FRA_IP_PROTO"):
        words.append(f"ipproto {protocol}")
    for attribute, word in _RANGES.items():
        if limits := found.get_attr(attribute):
            words.append(f"{word} {limits.replace(':', '-')}")
    return " ".join(words)


def _network(address: str | None, length: int) -> IPNetwork | None:
    return None if address is None else ip_network((address, length))
