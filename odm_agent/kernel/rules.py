"""Policy routing rules of ours, told by FRA_PROTOCOL."""

import errno
import socket
import struct
from collections.abc import Sequence
from dataclasses import replace
from ipaddress import ip_network
from typing import Final

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL, nlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.rtnl import RTM_DELRULE, RTM_GETRULE, RTM_NEWRULE
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
from odm_agent.kernel.packed import PackedMessage
from odm_agent.kernel.rtnetlink import Rtnetlink, change

#: Where the kernel has the rule for the main table.
_MAIN_PRIORITY: Final = 32766
#: What is asked first, by all packets, and says what is for this host.
_LOCAL_TABLE: Final = 255
#: linux/fib_rules.h
_FIB_RULE_INVERT: Final = 0x2
_FRA_SRC, _FRA_IIFNAME, _FRA_GOTO, _FRA_PRIORITY, _FRA_FWMARK = 2, 3, 4, 6, 10
_FRA_SUPPRESS_PREFIXLEN, _FRA_TABLE, _FRA_FWMASK, _FRA_PROTOCOL = 14, 15, 16, 21
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


class _Message(PackedMessage):
    fields = fibmsg.fields


def read(netlink: Rtnetlink, protocol: int) -> tuple[frozenset[Rule], tuple[ForeignRule, ...]]:
    """All rules that carry `protocol`, of both families, and others' that stand before the last.

    Where there is none of ours, those before the main table's, as they would be then.
    """
    rules: set[Rule] = set()
    others: list[ForeignRule] = []
    for family in Family:
        last, foreign = 0, []
        for each in _dump(netlink, family):
            if _is_ours(each, protocol):
                rule = _parse(family, each)
                rules.add(rule)
                last = max(last, rule.priority)
            elif each.get_attr("FRA_TABLE") != _LOCAL_TABLE:
                foreign.append((each.get_attr("FRA_PRIORITY", 0), each))
        end = last or _MAIN_PRIORITY - 1
        others += [_foreign(family, each) for priority, each in foreign if priority <= end]
    return frozenset(rules), tuple(others)


def add(netlink: Rtnetlink, wanted: Sequence[Rule], protocol: int) -> list[NetlinkError | None]:
    """Install rules that we don't have; what each came to.

    The kernel counts the protocol as part of a rule: the same of somebody else is another.
    """
    steps = [[_addition(rule, protocol, NLM_F_EXCL)] for rule in wanted]
    return netlink.carry_out(steps, {errno.EEXIST})


def remove(
    netlink: Rtnetlink, unwanted: Sequence[Rule], protocol: int
) -> list[NetlinkError | None]:
    """Remove rules of ours that are there, exactly these; what each came to.

    In a removal the kernel takes what is not said as "any", and the first rule that fits: one that
    is for local packets only goes in the place of its like for all. So the order of all rules is
    read once for all removals. What would go first gets a copy behind, then as many are removed
    as stand up to the one that is meant: at no time is a rule missing that is to stay.
    """
    fitting: dict[Rule, list[Rule]] = {_request(rule): [] for rule in unwanted}
    for family in sorted({rule.family for rule in unwanted}):
        for found in _dump(netlink, family):
            if _is_ours(found, protocol):
                rule = _parse(family, found)
                for request in _fitting(rule) & fitting.keys():
                    fitting[request].append(rule)
    steps = []
    for rule in unwanted:
        step: list[nlmsg] = []
        standing = fitting[_request(rule)]
        while rule in standing:
            gone = standing[: standing.index(rule) + 1]
            step += [_addition(other, protocol) for other in gone[:-1]]
            step += [_message(rule, protocol, RTM_DELRULE) for _ in gone]
            for each in gone:
                for request in _fitting(each) & fitting.keys():
                    fitting[request].remove(each)
                    if each != rule:
                        fitting[request].append(each)
        steps.append(step)
    return netlink.carry_out(steps, {errno.ENOENT})  # else somebody was faster


def _request(rule: Rule) -> Rule:
    """A rule as its removal asks for it: where a leap leads is not looked at."""
    return replace(rule, goto=0)


def _fitting(rule: Rule) -> set[Rule]:
    """All removals that the rule fits: each of its conditions is asked for, or not said."""
    return {
        Rule(
            family=rule.family,
            priority=rule.priority,
            table=table,
            source=source,
            mark=mark,
            mask=mask,
            suppress_prefix_length=suppressed,
            local_only=local_only,
            action=rule.action,
        )
        for table in {rule.table, 0}
        for source in {rule.source, None}
        for mark in {rule.mark, 0}
        for mask in {rule.mask, 0}
        for suppressed in {rule.suppress_prefix_length, None}
        for local_only in {rule.local_only, False}
    }


def _addition(rule: Rule, protocol: int, mode: int = 0) -> nlmsg:
    """The message that adds a rule; without NLM_F_EXCL also one that is there already."""
    return _message(rule, protocol, RTM_NEWRULE, NLM_F_CREATE | mode)


def _message(rule: Rule, protocol: int, kind: int, flags: int = 0) -> nlmsg:
    message = _Message()
    message["family"] = _AF[rule.family]
    message["action"] = _ACTIONS[rule.action]
    message["attrs"] = [(_FRA_PRIORITY, _u32(rule.priority)), (_FRA_PROTOCOL, bytes([protocol]))]
    if rule.table:
        message["attrs"].append((_FRA_TABLE, _u32(rule.table)))
    if rule.goto:
        message["attrs"].append((_FRA_GOTO, _u32(rule.goto)))
    if rule.suppress_prefix_length is not None:
        message["attrs"].append((_FRA_SUPPRESS_PREFIXLEN, _u32(rule.suppress_prefix_length)))
    if rule.local_only:
        message["attrs"].append((_FRA_IIFNAME, _LOCAL.encode() + b"\0"))
    if rule.source is not None:
        message["src_len"] = rule.source.prefixlen
        message["attrs"].append((_FRA_SRC, rule.source.network_address.packed))
    if rule.mark or rule.mask:
        message["attrs"] += [(_FRA_FWMARK, _u32(rule.mark)), (_FRA_FWMASK, _u32(rule.mask))]
    return change(message, kind, flags)


def _dump(netlink: Rtnetlink, family: Family) -> list[fibmsg]:
    """All rules of a family, in the order in which they are asked."""
    request = fibmsg()
    request["family"] = _AF[family]
    return netlink.dump(RTM_GETRULE, request)


def _is_ours(found: fibmsg, protocol: int) -> bool:
    """What we never make is somebody else's, whatever protocol it carries."""
    return found.get_attr("FRA_PROTOCOL") == protocol and found["action"] in _ACTION_OF


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
    group = found.get_attr("FRA_SUPPRESS_IFGROUP", _NO_SUPPRESSION)
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
        suppress_group=None if group == _NO_SUPPRESSION else group,
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


def _u32(value: int) -> bytes:
    return struct.pack("=I", value)
