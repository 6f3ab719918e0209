"""Events as text: what is written is read back the same, and nothing else is read."""

from ipaddress import IPv4Address, IPv4Network, ip_network
from typing import get_args

import pytest

from odm_agent.core import events, trace
from odm_agent.core.clock import Moment
from odm_agent.core.demands import Demand
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.host import Address
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType, Family, Placement, TypedPrefix

WANT = (AddressType.FIXED, Family.IPV4)
NET = IPv4Network("192.0.2.0/24")
PREFIX = TypedPrefix(
    *(7, "it's\n\\", AddressType.FIXED, NET, "w0", IPv4Address("192.0.2.1")),
    *(Placement.ON_LINK, (NET, ip_network("2001:db8::/32")), 3),
    range=(IPv4Address("192.0.2.4"), IPv4Address("192.0.2.6")),
)
ADDRESS = Address(IPv4Address("192.0.2.4"), 32, "w0", dad=True)
KEY = GrantKey("dhcp", "é")
EVENTS = (
    events.Changed(events.Dirty.ALL),
    events.Granted(Grant(KEY, PREFIX, Lifetime(0.1 + 0.2))),
    events.Withdrawn(KEY),
    events.Unconfirmed(KEY),
    events.Unserved(KEY),
    events.Failed(WANT, "no server", events.Failure.TIMED_OUT),
    events.Needed(WANT),
    events.Asked(Demand(1, None, 7.25)),
    events.Cancelled(1),
    events.Probed(ADDRESS, None),
    events.Offered(
        offers={WANT: ADDRESS.address},
        ready=frozenset({3, 1}),
        to_probe=frozenset({ADDRESS}),
    ),
    events.Interrupted(events.Dirty.KERNEL, True),
    events.Serving({WANT: ADDRESS.address}),
    events.Metered(frozenset({1}), frozenset({2})),
    events.Rotated(frozenset({3})),
    events.Tick(),
)
NOW = Moment(12.345678901, 1_700_000_000.123)


@pytest.mark.parametrize("event", EVENTS, ids=lambda e: type(e).__name__)
def test_an_event_is_one_line_and_read_back_the_same(event: events.Event) -> None:
    line = trace.line(event, NOW)
    assert "\n" not in line
    assert trace.events_of([line]) == [(NOW, event)]


def test_every_kind_of_event_is_tried() -> None:
    assert {type(event) for event in EVENTS} == set(get_args(events.Event))


@pytest.mark.parametrize(
    "line",
    [
        "__import__('os')",
        "(Moment(boot_s=float('1'), wall_s=float('1')), open('/etc/passwd'))",
        "Tick().__class__",
        "Tick()",
        "(Moment(boot_s=float('1'), wall_s=float('1')), Tick(1))",
        "(Moment(boot_s=float('1'), wall_s=float('1')), 1)",
        "[x for x in (1,)]",
        "Tick(**{'a': 1})",
        "",
    ],
)
def test_anything_else_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="this is no"):
        trace.events_of([line])
