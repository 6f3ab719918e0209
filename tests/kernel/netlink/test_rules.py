"""Policy routing rules, and that they do what they are for."""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from pyroute2.netlink.rtnl import RTMGRP_IPV4_RULE
from pyroute2.netlink.rtnl.marshal import MarshalRtnl

from odm_agent.core.actions import AddRule, RemoveRule
from odm_agent.core.host import Rule, RuleAction
from odm_agent.core.model import Family
from tests.lab.kernel import LabKernel
from tests.lab.netns import NetNs

Show = Callable[..., Any]

MARK = Rule(Family.IPV6, 8653, 865301, mark=0x01000000, mask=0xFF000000)
UNMARKED = Rule(Family.IPV4, 8653, 865301, mark=0, mask=0xFF000000)
MAIN = Rule(Family.IPV4, 8654, 254, suppress_prefix_length=0)
FROM6 = Rule(Family.IPV6, 8655, 865301, source=IPv6Network("2001:db8:f::/48"))
FROM4 = Rule(Family.IPV4, 8655, 865301, source=IPv4Network("198.51.100.0/25"))
OWN6, OWN4 = replace(FROM6, local_only=True), replace(FROM4, local_only=True)
NO6, NO4 = (
    Rule(each.family, 8656, 0, source=each.source, action=RuleAction.PROHIBIT)
    for each in (FROM6, FROM4)
)
ALL = [MARK, UNMARKED, MAIN, FROM6, FROM4, OWN6, OWN4, NO6, NO4]
NAMES = ["mark", "unmarked", "main", "from6", "from4", "own6", "own4", "no6", "no4"]


@pytest.mark.parametrize("rule", ALL, ids=NAMES)
def test_a_rule_is_there_once_until_it_is_removed(
    kernel: LabKernel, shown: Show, rule: Rule
) -> None:
    for _ in range(2):
        kernel.apply(AddRule(rule))
        assert kernel.read().rules == {rule}
        (entry,) = (
            each
            for each in shown("-details", f"-{rule.family.value}", "rule", "show")
            if each["priority"] == rule.priority
        )
        if rule.action is RuleAction.PROHIBIT:
            assert entry["action"] == "prohibit" and "table" not in entry
        else:
            assert entry["table"] == ("main" if rule.table == 254 else str(rule.table))
        assert entry.get("iif") == ("lo" if rule.local_only else None)
        assert entry["protocol"] == "86"
        assert entry.get("suppress_prefixlen") == rule.suppress_prefix_length
    for _ in range(2):
        kernel.apply(RemoveRule(rule))
        assert kernel.read().rules == frozenset()


def test_all_together_read_back(kernel: LabKernel) -> None:
    kernel.apply(*[AddRule(rule) for rule in ALL])
    assert kernel.read().rules == set(ALL)
    kernel.apply(RemoveRule(MARK))
    assert kernel.read().rules == set(ALL) - {MARK}


def test_the_same_rule_of_somebody_else_is_neither_ours_nor_removed(
    kernel: LabKernel, host: NetNs, shown: Show
) -> None:
    host.ip("rule", "add", "pref", "8654", "lookup", "main", "suppress_prefixlength", "0")
    assert kernel.read().rules == frozenset()
    kernel.apply(AddRule(MAIN))
    assert kernel.read().rules == {MAIN}
    kernel.apply(RemoveRule(MAIN))
    left = [each for each in shown("rule", "show") if each["priority"] == 8654]
    assert len(left) == 1 and kernel.read().rules == frozenset()


def changes(listening: socket.socket) -> Iterator[tuple[bool, bool]]:
    """Whether each change of a rule that the kernel tells of is an addition, and is about `lo`."""
    with suppress(BlockingIOError):
        while True:
            for each in MarshalRtnl().parse(listening.recv(1 << 16)):
                yield each["event"] == "RTM_NEWRULE", each.get_attr("FRA_IIFNAME") == "lo"


@pytest.mark.parametrize("first", [0, 1])
def test_a_rule_goes_and_leaves_its_like_in_force_at_every_moment(
    kernel: LabKernel, host: NetNs, first: int
) -> None:
    pair = [AddRule(FROM4), AddRule(OWN4)]
    kernel.apply(pair[first], pair[1 - first])
    with host.call(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW) as listening:
        listening.bind((0, RTMGRP_IPV4_RULE))
        listening.setblocking(False)
        kernel.apply(RemoveRule(FROM4))
        standing = 1
        for is_addition, is_local in changes(listening):
            standing += (1 if is_addition else -1) if is_local else 0
            assert standing > 0
    assert kernel.read().rules == {OWN4}
    kernel.apply(RemoveRule(OWN4))
    assert kernel.read().rules == frozenset()


def test_a_removal_leaves_all_that_it_does_not_name(kernel: LabKernel, host: NetNs) -> None:
    """Rules of one priority that differ by what a removal may leave unsaid."""
    bare = Rule(Family.IPV4, 8655, 865301)
    like = [
        bare,
        replace(bare, local_only=True),
        replace(bare, source=FROM4.source),
        replace(bare, source=FROM4.source, local_only=True),
        replace(bare, mark=0x01000000, mask=0xFF000000),
        replace(bare, mark=0, mask=0xFF000000),
        replace(bare, suppress_prefix_length=0),
        replace(bare, table=865302),
    ]
    for unwanted in [*([rule] for rule in like), like[::2], like[1::2], like]:
        kernel.apply(*(AddRule(rule) for rule in like))  # to the kernel the first is all the others
        kernel.apply(*(RemoveRule(rule) for rule in unwanted))
        assert kernel.read().rules == set(like) - set(unwanted)
        kernel.apply(*(RemoveRule(rule) for rule in like))
        assert kernel.read().rules == frozenset()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("pair", [(FROM6, OWN6), (FROM4, OWN4)], ids=["IPv6", "IPv4"])
def test_a_rule_is_removed_and_not_its_like_for_local_packets(
    kernel: LabKernel, pair: tuple[Rule, Rule], first: int
) -> None:
    """The kernel takes a removal that names no interface to mean any, and the first that fits."""
    for unwanted, kept in (pair, pair[::-1]):
        kernel.apply(*[AddRule(pair[first]), AddRule(pair[1 - first])])
        kernel.apply(RemoveRule(unwanted))
        assert kernel.read().rules == {kept}
        kernel.apply(RemoveRule(kept))
        assert kernel.read().rules == frozenset()


def test_a_rule_that_we_never_make_is_not_read_as_one_of_ours(
    kernel: LabKernel, host: NetNs
) -> None:
    host.ip("rule", "add", "from", "198.51.100.0/25", "pref", "8656", "proto", "86", "blackhole")
    assert kernel.read().rules == frozenset()
