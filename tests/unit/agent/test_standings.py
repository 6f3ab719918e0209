"""Who stands first is told of what hooks have; the rest of them behind it, in their order."""

from ipaddress import IPv6Network
from types import SimpleNamespace
from typing import Any

from odm_agent.agent.standings import standings
from odm_agent.core.model import AddressType, Family, Placement, TypedPrefix
from odm_agent.core.wandering import Wanderers, begins_s
from odm_agent.prefixes.table import PrefixTable

WEB = Wanderers(AddressType.NONPERSISTENT, Family.IPV6, 0, 60)


def engine(*chosen: int) -> Any:
    """Prefixes 1 to 3 wander, 4 doesn't; hooks choose of these."""
    prefixes = [
        TypedPrefix(
            *(n, f"p{n}", WEB.type, net, "w0", None, Placement.DELEGATED, (net,)),
            wander_s=60 if n < 4 else None,
            period=7 if n < 4 else 0,
        )
        for n in (1, 2, 3, 4)
        for net in [IPv6Network(f"2001:db8:{n}::/64")]
    ]
    choices = {(WEB.type, WEB.family): chosen} if chosen else {}
    return SimpleNamespace(
        table=PrefixTable(b"secret").with_only(prefixes),
        datapath=SimpleNamespace(choices=lambda: choices),
    )


def test_those_that_can_serve_are_told_in_the_order_of_hooks_until_the_period_is_over() -> None:
    made = engine(3, 1, 4)
    found = standings(made)[WEB]
    assert [row.prefix.id for row in found.rows] == [3, 1]
    assert found.until_s == begins_s(WEB, 8)
    assert [found.is_first(row) for row in made.table] == [False, False, True, False]


def test_none_may_be_able_to_serve() -> None:
    found = standings(engine())[WEB]
    assert found.first is None
    assert not any(found.is_first(row) for row in engine().table)
