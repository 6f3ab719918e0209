"""Policy routing rules, and that they do what they are for."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from odm_agent.core.actions import AddRule, RemoveRule
from odm_agent.core.host import Rule, RuleAction
from odm_agent.core.model import Family
from odm_agent.kernel.netlink import NetlinkKernel
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
    kernel: NetlinkKernel, shown: Show, rule: Rule
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


def test_all_together_read_back(kernel: NetlinkKernel) -> None:
    kernel.apply_all([AddRule(rule) for rule in ALL])
    assert kernel.read().rules == set(ALL)
    kernel.apply(RemoveRule(MARK))
    assert kernel.read().rules == set(ALL) - {MARK}


def test_the_same_rule_of_somebody_else_is_neither_ours_nor_removed(
    kernel: NetlinkKernel, host: NetNs, shown: Show
) -> None:
    host.ip("rule", "add", "pref", "8654", "lookup", "main", "suppress_prefixlength", "0")
    assert kernel.read().rules == frozenset()
    kernel.apply(AddRule(MAIN))
    assert kernel.read().rules == {MAIN}
    kernel.apply(RemoveRule(MAIN))
    left = [each for each in shown("rule", "show") if each["priority"] == 8654]
    assert len(left) == 1 and kernel.read().rules == frozenset()


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("pair", [(FROM6, OWN6), (FROM4, OWN4)], ids=["IPv6", "IPv4"])
def test_a_rule_is_removed_and_not_its_like_for_local_packets(
    kernel: NetlinkKernel, pair: tuple[Rule, Rule], first: int
) -> None:
    """The kernel takes a removal that names no interface to mean any, and the first that fits."""
    for unwanted, kept in (pair, pair[::-1]):
        kernel.apply_all([AddRule(pair[first]), AddRule(pair[1 - first])])
        kernel.apply(RemoveRule(unwanted))
        assert kernel.read().rules == {kept}
        kernel.apply(RemoveRule(kept))
        assert kernel.read().rules == frozenset()


def test_a_rule_that_we_never_make_is_not_read_as_one_of_ours(
    kernel: NetlinkKernel, host: NetNs
) -> None:
    host.ip("rule", "add", "from", "198.51.100.0/25", "pref", "8656", "proto", "86", "blackhole")
    assert kernel.read().rules == frozenset()
