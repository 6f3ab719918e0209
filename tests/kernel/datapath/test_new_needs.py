"""What is told of sockets that ask for a new address and find none: each attempt is a request."""

import ctypes as ct
from collections.abc import Iterator
from dataclasses import replace

import pytest

from odm_agent import client
from odm_agent.core.model import Family
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.maps.ring import Ring
from tests.lab.agent import LabClass
from tests.lab.client import Kind, outcome
from tests.lab.host import GRACEFUL, PREFIXES
from tests.lab.needs import emptied_ring, forget
from tests.lab.world import STANDARD, World

_MOST = 3
_SETTINGS = replace(
    STANDARD,
    classes={
        "free": LabClass(allow=(GRACEFUL,)),
        "capped": LabClass(allow=(GRACEFUL,), caps={GRACEFUL: {"requests_per_minute": _MOST}}),
    },
    prefixes=[each for each in PREFIXES if each.type is GRACEFUL],
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One address of the type and family, and no agent that could make another one."""
    with World(tmp_path_factory.mktemp("new-needs"), _SETTINGS) as made:
        made.agent.stop()
        yield made


@pytest.fixture
def ring(world: World) -> Iterator[Ring]:
    """The world's."""
    with emptied_ring(world) as made:
        yield made


@pytest.mark.parametrize(("place", "told"), [("free", 7), ("capped", _MOST)])
def test_attempts_to_have_a_new_address_are_told_as_often_as_the_class_may_request(
    world: World, ring: Ring, place: str, told: int
) -> None:
    """The request by the option is one, and so is each connection that finds nothing new."""

    def application() -> None:
        with Kind.TCP6.open() as sock:
            client.set_type(sock, GRACEFUL, fresh=True)
            for _ in range(6):
                forget(world)
                assert outcome(lambda: sock.connect(Kind.TCP6.destination)) == "EADDRNOTAVAIL"

    world.place(place).do(application)
    needs = [each for each in ring.take() if each.kind == "need"]
    assert len(needs) == told
    assert {(e.type, e.family, e.fresh) for e in needs} == {(GRACEFUL, Family.IPV6, True)}


def test_a_new_address_is_a_need_of_its_own_beside_one_of_the_present_network(
    world: World, ring: Ring
) -> None:
    """Who asks for the one a moment after the other was told is told as well."""
    pinned = libbpf.get_pinned(world.agent.pins / "odm_offers")
    offers = libbpf.Map(pinned, ct.c_uint32, abi.Prefix, "odm_offers")
    ((id_, row),) = (
        (id_, row) for id_, row in offers.items() if row.family == abi.FamilyIndex.IPV6
    )
    flags = row.flags

    def application() -> None:
        for fresh in (False, True):
            with Kind.TCP6.open() as sock:
                client.set_type(sock, GRACEFUL, on_net=not fresh, fresh=fresh)

    try:
        row.flags = flags & ~abi.PREFIX_ON_NET
        offers.put(id_, row)
        world.place("free").do(application)
    finally:
        row.flags = flags
        offers.put(id_, row)
        offers.close()
    needs = [each for each in ring.take() if each.kind == "need"]
    assert [(each.on_net, each.fresh) for each in needs] == [(True, False), (False, True)]
