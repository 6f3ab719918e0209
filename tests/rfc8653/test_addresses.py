"""D1, D7: how many addresses of each type there are, and since when."""

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import Final

import pytest

from odm_agent.core.model import TYPES, AddressType, Family, Placement
from tests.lab.agent import Settings
from tests.lab.cases import each_family, each_kind, each_type
from tests.lab.client import Kind, ask, call, exchange
from tests.lab.host import (
    FIXED,
    NONPERSISTENT,
    PREFIXES,
    SESSION,
    prefix_of,
    type_of,
)
from tests.lab.process import wait_until
from tests.lab.world import BY_DEFAULT, CLASSES, World

_MANY: Final = 4
_LARGE: Final = 300
_IPV6_FREEBIND: Final = 78


@pytest.fixture(scope="module")
def rich(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Pools of several addresses of each type, one of them larger than is configured one by one."""
    prefixes = [
        replace(each, pool=_LARGE if each.name == "session6" else _MANY) for each in PREFIXES
    ]
    settings = Settings(prefixes=prefixes, classes=CLASSES)
    with World(tmp_path_factory.mktemp("rich"), settings) as made:
        yield made


@each_family
@each_type()
def test_D1_every_address_of_a_pool_can_be_used_at_the_same_time(
    rich: World, type: AddressType, family: Family
) -> None:
    prefix = prefix_of(type, family)
    kind = Kind.TCP6 if family is Family.IPV6 else Kind.TCP4
    addresses = rich.agent.addresses(prefix.name)[:_MANY]
    assert len(set(addresses)) == _MANY

    def application() -> list[str]:
        sockets = [kind.open() for _ in addresses]
        try:
            for sock, address in zip(sockets, addresses, strict=True):
                sock.bind((address, 0))
            return [exchange(sock, kind).seen for sock in sockets]
        finally:
            for sock in sockets:
                sock.close()

    assert rich.place("every").do(application) == addresses
    assert all(address in prefix for address in addresses)


@each_type()
@each_kind()
def test_D1_sockets_share_the_one_address_of_a_pool_of_one(
    world: World, kind: Kind, type: AddressType
) -> None:
    seen = {world.place("every").do(lambda: call(kind, type)).seen for _ in range(3)}
    seen.add(world.place(BY_DEFAULT[type]).do(lambda: call(kind)).seen)
    assert seen == {world.address(type, kind.family)}


@each_type()
@each_kind()
def test_D1_sockets_are_spread_over_a_larger_pool(
    rich: World, kind: Kind, type: AddressType
) -> None:
    def application() -> list[str]:
        return [call(kind, type).seen for _ in range(20)]

    seen = rich.place("every").do(application)
    assert {type_of(each) for each in seen} == {type}
    # UDP over AF_INET6 is given its source by a mark, which stands for one address of the prefix.
    assert (len(set(seen)) > 1) is (kind not in (Kind.UDP6, Kind.UDP_MAPPED))


def test_D1_addresses_of_a_large_pool_need_no_address_each(rich: World) -> None:
    """They are local by one route, bound with FREEBIND, and still typed."""
    everything = [each for each in rich.agent.read("addresses") if each["prefix"] == "session6"]
    unconfigured = [each["address"] for each in everything if each["state"] == "anyip"]
    assert len(everything) == _LARGE

    def application() -> str:
        with Kind.TCP6.open() as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            ask(sock, SESSION)
            sock.bind((unconfigured[-1], 0))
            return exchange(sock, Kind.TCP6).seen

    assert rich.place("every").do(application, uid=65534) == unconfigured[-1]
    configured = rich.site.host.ip("-6", "-o", "address", "show", "dev", "lo").count("2001:db8:a2:")
    assert configured == 16


def test_D1_legacy_sockets_never_get_one_of_many_typed_addresses(rich: World) -> None:
    for kind in Kind:
        assert not type_of(rich.place("plain").do(lambda kind=kind: call(kind)).seen)  # type: ignore[misc]


# --- from the start -------------------------------------------------------------------------------


def test_D7_configured_addresses_are_there_when_the_agent_is_ready(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The first call after READY, without any wait; and the same addresses after a restart."""
    with World(tmp_path_factory.mktemp("first")) as world:
        before = _first_sources(world)
        assert {type_of(each) for each in before} == set(TYPES)
        assert len(before) == 2 * len(TYPES)
        shown = world.site.host.ip("-o", "address")
        assert all(f" {address}/" in shown for address in before)
        world.agent.stop()
        world.agent.start()
        assert _first_sources(world) == before, "RFC 7217 addresses with a stored secret are stable"


def test_D7_agent_killed_and_started_again_adopts_what_is_there(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with World(tmp_path_factory.mktemp("adopt")) as world:
        before = _first_sources(world)
        ids = _pins_by_inode(world)
        world.agent.sigkill()
        world.agent.start()
        assert _first_sources(world) == before
        assert _pins_by_inode(world) == ids, "nothing was loaded a second time"


@each_family
def test_D1_prefix_that_is_configured_later_comes_and_goes_with_a_reload(
    tmp_path_factory: pytest.TempPathFactory, family: Family
) -> None:
    """0, then 1, then 0 addresses of a type, and nothing of it is left in the kernel."""
    wanted = prefix_of(NONPERSISTENT, family)
    without = Settings(
        prefixes=[each for each in PREFIXES if each is not wanted],
        classes={**CLASSES, "brief": replace(CLASSES["brief"], on_failure="closed")},
    )
    kind = Kind.UDP6 if family is Family.IPV6 else Kind.UDP4
    with World(tmp_path_factory.mktemp("later"), without) as world:
        place = world.place("brief")

        def works() -> bool:
            try:
                return type_of(place.do(lambda: call(kind)).seen) is NONPERSISTENT
            except OSError:
                return False

        assert not works()
        world.agent.configure(replace(without, prefixes=PREFIXES))
        assert world.agent.reload().returncode == 0
        wait_until(works, "the prefix is served")
        world.agent.configure(without)
        assert world.agent.reload().returncode == 0
        wait_until(lambda: not works(), "the prefix is withdrawn")
        network = str(wanted.network.network_address).removesuffix("::")
        wait_until(
            lambda: network not in world.site.host.ip("-o", "address", "show", "dev", "lo"),
            "its address is gone",
        )


def test_D1_address_that_somebody_flushes_comes_back(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    with World(tmp_path_factory.mktemp("flush")) as world:
        fixed, graceful = (prefix_of(type, Family.IPV6) for type in (FIXED, TYPES[3]))
        assert graceful.placement is Placement.ON_LINK
        for prefix, interface in ((fixed, "lo"), (graceful, "w1")):
            (address,) = world.agent.addresses(prefix.name)
            world.site.host.ip("address", "flush", "dev", interface, "to", str(prefix.network))

            def served(type: AddressType = prefix.type, address: str = address) -> bool:
                try:
                    return world.place("every").do(lambda: call(Kind.TCP6, type)).seen == address
                except OSError:
                    return False

            wait_until(served, f"{prefix.name} is repaired")


def _first_sources(world: World) -> list[str]:
    return [
        world.place("every").do(lambda kind=kind, type=type: call(kind, type)).seen  # type: ignore[misc]
        for kind in (Kind.TCP6, Kind.TCP4)
        for type in TYPES
    ]


def _pins_by_inode(world: World) -> dict[str, int]:
    return {
        str(path.relative_to(world.agent.pins)): path.stat().st_ino
        for path in world.agent.pins.rglob("*")
    }
