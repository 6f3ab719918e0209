"""Policy routing rules, and that they do what they are for."""

from collections.abc import Callable
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from odm_agent.actions import AddRule, RemoveRule
from odm_agent.kernel.netlink import NetlinkKernel
from odm_agent.model import Family, Rule
from tests.lab.netns import NetNs

Show = Callable[..., Any]

MARK = Rule(Family.IPV6, 8653, 865301, mark=0x01000000, mask=0xFF000000)
UNMARKED = Rule(Family.IPV4, 8653, 865301, mark=0, mask=0xFF000000)
MAIN = Rule(Family.IPV4, 8654, 254, suppress_prefix_length=0)
FROM6 = Rule(Family.IPV6, 8655, 865301, source=IPv6Network("2001:db8:f::/48"))
FROM4 = Rule(Family.IPV4, 8655, 865301, source=IPv4Network("198.51.100.0/25"))
ALL = [MARK, UNMARKED, MAIN, FROM6, FROM4]
NAMES = ["mark", "unmarked", "main", "from6", "from4"]


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
        assert entry["table"] == ("main" if rule.table == 254 else str(rule.table))
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
