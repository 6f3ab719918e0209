"""Rules of others before ours: named if they take typed packets, with a remedy that helps.

The witness is the kernel's own lookup: where an alarm is raised typed packets go astray, where none
is they don't, and after the remedy they don't any more.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.kernel.netlink.test_mirror import (
    BOTH,
    FAR,
    GATEWAY,
    HOST_GATEWAY,
    NUMBERS,
    ROUTER,
    Site,
    site,
)

__all__ = ["site"]

#: In table 7: a default route by another gateway.
_FAR_AWAY: Final = {Family.IPV4: "default via 10.9.0.9 dev w2", Family.IPV6: "default dev w2"}


@pytest.fixture
def vpn(site: Site) -> Iterator[Site]:
    for family in Family:
        host = site.host
        host.ip(f"-{family}", "route", "add", *_FAR_AWAY[family].split(), "table", "7")
        host.ip(f"-{family}", "route", "add", "prohibit", "default", "table", "8")
        host.ip(f"-{family}", "route", "add", *_net(family), "dev", "w2", "table", "9")
    yield site


def _net(family: Family) -> list[str]:
    return ["10.77.0.0/16" if family is Family.IPV4 else "fd77::/32"]


def _strays(site: Site, family: Family) -> list[str]:
    """The ways of being typed by which a packet doesn't leave by the prefix's gateway."""
    to = FAR[family][0]
    ways = {"mark": site.by_mark(family, to), "source": site.by_source(family, to)}
    return [way for way, seen in ways.items() if seen.get("gateway") != GATEWAY[family]]


def _strays_to(site: Site, family: Family, destinations: Iterable[str]) -> list[str]:
    """Those to which a packet from the typed address doesn't leave by the prefix's gateway."""
    return [
        to for to in destinations if site.by_source(family, to).get("gateway") != GATEWAY[family]
    ]


def _alarms(site: Site) -> list[str]:
    site.settle()
    return [each for each in site.engine.alarms() if "stands before ours" in each]


TAKING: Final = {
    "everything": "from all lookup 7",
    "what has not a mark": "not from all fwmark 0xca6c lookup 51820",
    "no mark": "from all fwmark 0/0xff000000 lookup 7",
    "our mark": "from all fwmark 0x{mark:x}/0xff000000 lookup 7",
    "the prefix": "from {span} lookup 7",
    "a network that it is in": "from {wide} lookup 7",
    "what is made here": "from all iif lo lookup 7",
    "some users": "from all uidrange 0-70000 lookup 7",
    "one protocol": "from all ipproto udp lookup 7",
    "a refusing table": "from all lookup 8",
    "a refusal": "from all prohibit",
    "a black hole": "from all blackhole",
    "a leap over ours": "from all goto 32766",
    "main with its defaults": "from all lookup main",
    "half of everything": "to {half} lookup 7",
    "all but one network": "not from all to {far} lookup 7",
    "refusing routes are not suppressed": "from all lookup 8 suppress_prefixlength 0",
    "nor by a group": "from all lookup 8 suppress_ifgroup 0",
    "routes by interfaces of other groups": "from all lookup 7 suppress_ifgroup 42",
}
LEAVING: Final = {
    "a table of single networks": "from all lookup 9",
    "an empty table": "from all lookup 10",
    "main without its defaults": "from all lookup main suppress_prefixlength 0",
    "routes by interfaces of a group": "from all lookup 7 suppress_ifgroup 0",
    "main without its routes by a group": "from all lookup main suppress_ifgroup 0",
    "half of everything by a group": "to {half} lookup 7 suppress_ifgroup 0",
    "somebody else's mark": "from all fwmark 0x80000/0xff0000 lookup 7",
    "another source": "from {elsewhere} lookup 7",
    "what comes in elsewhere": "from all iif w2 lookup 7",
    "what is bound elsewhere": "from all oif w2 lookup 7",
    "one network": "to {far} lookup 7",
    "one network, refused": "to {far} prohibit",
    "one network, by a leap": "to {far} goto 32766",
    "nothing": "from all nop",
    "a leap to ours": "from all goto 8653",
}


def _spelt(family: Family, rule: str) -> str:
    v4 = family is Family.IPV4
    return rule.format(
        mark=NUMBERS.mark(family),
        span="198.51.100.64/29" if v4 else "2001:db8:b3::/64",
        wide="198.51.0.0/16" if v4 else "2001:db8::/32",
        elsewhere="10.0.0.0/8" if v4 else "fd00::/8",
        half="128.0.0.0/1" if v4 else "2000::/4",
        far="10.77.0.0/16" if v4 else "fd77::/32",
    )


@BOTH
@pytest.mark.parametrize("rule", list(TAKING))
def test_what_takes_typed_packets_before_our_rules_is_an_alarm(
    vpn: Site, family: Family, rule: str
) -> None:
    vpn.host.ip(f"-{family}", "route", "add", *_FAR_AWAY[family].split(), "table", "51820")
    assert not _strays(vpn, family) and not _alarms(vpn)
    spelt = _spelt(family, TAKING[rule])
    vpn.host.ip(f"-{family}", "rule", "add", *spelt.split(), "priority", "5000")
    if rule not in ("one protocol",):  # `ip route get` asks for no protocol
        assert _strays(vpn, family), "the control: packets do go astray"
    (alarm,) = _alarms(vpn)
    assert f"IPv{family} rule 5000 " in alarm and f"typed{family}" in alarm
    assert "agent.rule_priority = 4996" in alarm


@BOTH
@pytest.mark.parametrize("rule", list(LEAVING))
def test_what_leaves_typed_packets_alone_is_none(vpn: Site, family: Family, rule: str) -> None:
    spelt = _spelt(family, LEAVING[rule])
    vpn.host.ip(f"-{family}", "rule", "add", *spelt.split(), "priority", "5000")
    assert not _strays(vpn, family), "the control"
    assert not _alarms(vpn)


@BOTH
def test_what_a_group_passes_over_follows_the_interfaces(vpn: Site, family: Family) -> None:
    host = vpn.host
    rule = ("lookup", "7", "suppress_ifgroup", "42")
    host.ip(f"-{family}", "rule", "add", *rule, "priority", "5000")
    for group, strays in (("0", True), ("42", False), ("0", True)):
        host.ip("link", "set", "w2", "group", group)
        assert bool(_strays(vpn, family)) is strays, "the control"
        (said,) = _alarms(vpn) or [""]
        assert ("from all lookup 7 suppress_ifgroup 42)" in said) is strays


#: In table 11, where w2 is of group 42 and w0 is not; {v}: routers behind them.
_BESIDE: Final = {
    "a worse one": (["default {v2} metric 5", "default {v0} metric 9"], False),
    "a better one": (["default {v2} metric 9", "default {v0} metric 5"], True),
    "in its shadow": (["{half1} {v2}", "{half2} {v2}", "default {v0}"], False),
    "half of it in its shadow": (["{half1} {v2}", "default {v0}"], True),
    "more specific": (["{half1} {v0}", "{half2} {v0}", "default {v2}"], True),
    "a throw before it": (["throw {half1}", "throw {half2}", "default {v0}"], False),
}


@BOTH
@pytest.mark.parametrize("routes", list(_BESIDE))
def test_what_is_passed_over_hides_what_is_worse(vpn: Site, family: Family, routes: str) -> None:
    """The kernel looks for the best route of a table, and only then at its group."""
    host, (spelt, strays) = vpn.host, _BESIDE[routes]
    host.ip("link", "set", "w2", "group", "42")
    v4 = family is Family.IPV4
    words = {
        "v0": f"via {HOST_GATEWAY[family]} dev w0",
        "v2": f"via {ROUTER[family]} dev w2",
        "half1": "0.0.0.0/1" if v4 else "2000::/4",
        "half2": "128.0.0.0/1" if v4 else "3000::/4",
    }
    for each in spelt:
        host.ip(f"-{family}", "route", "add", *each.format(**words).split(), "table", "11")
    rule = ("lookup", "11", "suppress_ifgroup", "42")
    host.ip(f"-{family}", "rule", "add", *rule, "priority", "5000")
    far = ("8.8.8.8", "200.0.0.1") if v4 else ("2a00::1", "3fff::1")
    assert bool(_strays_to(vpn, family, far)) is strays, "the control"
    assert bool(_alarms(vpn)) is strays


@BOTH
def test_of_several_next_hops_those_count_that_the_kernel_asks(vpn: Site, family: Family) -> None:
    host = vpn.host
    host.ip("link", "set", "w2", "group", "42")
    hops = [f"via {HOST_GATEWAY[family]} dev w0", f"via {ROUTER[family]} dev w2"]
    rule = ("lookup", "12", "suppress_ifgroup", "42")
    host.ip(f"-{family}", "rule", "add", *rule, "priority", "5000")
    far = [f"8.8.8.{n}" if family is Family.IPV4 else f"2a00::{n}" for n in range(1, 33)]
    for order in (hops, hops[::-1]):
        spelt = " ".join(f"nexthop {hop}" for hop in order).split()
        host.ip(f"-{family}", "route", "add", "default", "table", "12", *spelt)
        strays = _strays_to(vpn, family, far)
        assert bool(strays) is (family is Family.IPV6 or order == hops), "the control"
        assert bool(_alarms(vpn)) is bool(strays)
        host.ip(f"-{family}", "route", "del", "default", "table", "12")


@BOTH
def test_rules_without_a_priority_are_told_from_others_and_the_remedy_helps(
    vpn: Site, family: Family
) -> None:
    """As wg-quick adds them: the last one is asked first."""
    host = vpn.host
    host.ip(f"-{family}", "route", "add", *_FAR_AWAY[family].split(), "table", "51820")
    for rule in (
        "not fwmark 0xca6c table 51820",
        "table main suppress_prefixlength 0",
        "uidrange 0-70000 table 7 suppress_ifgroup 42",
    ):
        host.ip(f"-{family}", "rule", "add", *rule.split())
    assert _strays(vpn, family)
    alarms = _alarms(vpn)
    assert len(alarms) == 2 and all("agent.rule_priority" not in each for each in alarms)
    for alarm in alarms:
        (commands,) = re.findall(r"`(.*)`", alarm)
        for command in commands.split(" && "):
            host.ip(*command.split()[1:])
    assert not _strays(vpn, family)
    assert not _alarms(vpn)


@BOTH
def test_rules_between_ours_are_before_the_last(vpn: Site, family: Family) -> None:
    vpn.host.ip(f"-{family}", "rule", "add", "lookup", "7", "priority", "8654")
    assert _strays(vpn, family) == ["source"]
    (alarm,) = _alarms(vpn)
    assert "rule 8654" in alarm


@pytest.mark.parametrize("priority", ["3", "0"])
def test_where_no_priority_is_left_the_other_has_to_move(vpn: Site, priority: str) -> None:
    vpn.host.ip("rule", "add", "lookup", "7", "priority", priority)
    assert _strays(vpn, Family.IPV4)
    (alarm,) = _alarms(vpn)
    assert f"ip -4 rule del priority {priority}" in alarm and "agent.rule_priority" not in alarm


@BOTH
def test_the_rule_of_the_local_table_is_none_wherever_it_stands(vpn: Site, family: Family) -> None:
    vpn.host.ip(f"-{family}", "rule", "add", "lookup", "local", "priority", "100")
    vpn.host.ip(f"-{family}", "rule", "del", "lookup", "local", "priority", "0")
    assert not _strays(vpn, family)
    assert not _alarms(vpn)
