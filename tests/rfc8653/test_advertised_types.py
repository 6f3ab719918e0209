"""N2, T5: an address in a prefix that a router calls one of a type serves that type.

The uplink is w1, towards gateway B, which sends router advertisements with typed prefixes.
"""

import errno
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.core.model import Family
from tests.lab.agent import LabClass
from tests.lab.client import Kind
from tests.lab.host import FIXED, LINKS, NONPERSISTENT
from tests.lab.icmp6 import send_on
from tests.lab.uplinked import host, seen, states, uplinked
from tests.lab.world import World
from tests.unit.sources.ra.test_codec import CODE, message, option

WIFI: Final[dict[str, Any]] = {"interface": "w1", "advertised_types": CODE}
CLASSES: Final = {
    "long": LabClass(allow=(FIXED,), default=FIXED, on_failure="closed"),
    "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT, on_failure="closed"),
}
NETWORK: Final = str(LINKS["B", Family.IPV6][0].network_address)
#: As types are on the wire; 0xC0: on link, for autoconfiguration.
FIXED_FLAGS: Final = 0xC0 | 3
TIMEOUT_S: Final = 20.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with uplinked(tmp_path, {"wifi": WIFI}, CLASSES) as made:
        yield made


def advertise(world: World, valid: int, hops: int = 255) -> None:
    """Gateway B says that the prefix of its link is fixed, for so long; it is no default router."""
    data = message(option(NETWORK, FIXED_FLAGS, valid=valid, preferred=0), lifetime=0)
    world.site.b.call(send_on, "to-host", data, hops)


def await_state(world: World, name: str, ready: bool) -> None:
    until_s = time.monotonic() + TIMEOUT_S
    while (states(world).get(name) == "ready") != ready:
        assert time.monotonic() < until_s, states(world)
        time.sleep(0.1)


def assert_none_for(world: World, place: str) -> None:
    with pytest.raises(OSError) as refused:
        seen(world, place, Kind.TCP6)
    assert refused.value.errno == errno.EADDRNOTAVAIL


def test_n2_an_address_serves_the_type_that_its_router_says_as_long_as_it_says_so(
    world: World,
) -> None:
    assert seen(world, "brief", Kind.TCP6) == host("B", Family.IPV6)
    assert_none_for(world, "long")
    advertise(world, 600)
    await_state(world, "wifi/fixed", ready=True)
    with world.captures() as captures:
        captures.await_quiet()
        assert seen(world, "long", Kind.TCP6) == host("B", Family.IPV6)
        assert not captures.strays()
    assert_none_for(world, "brief")  # an address is of one type
    assert seen(world, "brief", Kind.TCP4) == host("B", Family.IPV4)
    advertise(world, 0)
    await_state(world, "wifi/fixed", ready=False)
    assert seen(world, "brief", Kind.TCP6) == host("B", Family.IPV6)


def test_t5_what_was_forwarded_changes_nothing(world: World) -> None:
    advertise(world, 600, hops=64)
    time.sleep(2.0)
    assert states(world)["wifi/fixed"] != "ready"
    assert seen(world, "brief", Kind.TCP6) == host("B", Family.IPV6)
