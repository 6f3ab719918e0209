"""T1: a fixed address is for ever: interfaces come and go, and the file is written anew."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from typing import Final

import pytest

from odm_agent.config.terms import RENEWED
from odm_agent.core.model import Family
from odm_agent.journal import Journal
from odm_agent.prefixes.rfc7217 import opaque_address
from tests.kernel.agent.conftest import eventually
from tests.lab.agent import Settings
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, GRACEFUL, LINKS, PREFIXES, LabPrefix, prefix_of
from tests.lab.netns import address, veth
from tests.lab.world import STANDARD, World

_ALL: Final = [prefix.name for prefix in PREFIXES]


def _addresses(world: World) -> Mapping[str, list[str]]:
    return {name: world.agent.addresses(name) for name in _ALL}


def _seen(world: World) -> list[str]:
    """The Fixed source, as the correspondent sees it."""
    return world.place("fixed").do(lambda: [call(kind).seen for kind in (Kind.TCP6, Kind.TCP4)])


def _moved_to(settings: Settings, interface: str) -> Settings:
    """The same prefixes behind gateway A, by another interface."""
    there = {p.name: {"interface": interface} for p in settings.prefixes if p.via == "A"}
    return replace(settings, extra={**settings.extra, **there})


def _give_back(world: World, interface: str) -> None:
    """The addresses and routes of the link to A, on an interface that has lost them."""
    host = world.site.host
    for family in Family:
        network, near, far = LINKS["A", family]
        host.ip("address", "replace", f"{far}/{network.prefixlen}", "dev", interface, "nodad")
        host.ip("route", "replace", "default", "via", str(near), "dev", interface)


@pytest.mark.parametrize("how", ["renamed", "replaced"])
@pytest.mark.parametrize("restart", [False, True], ids=["reload", "restart"])
def test_T1_the_interface_is_another_and_the_address_is_the_same(
    own: World, how: str, restart: bool
) -> None:
    before, seen = _addresses(own), _seen(own)
    host = own.site.host
    if how == "renamed":
        host.ip("link", "set", "w0", "down")
        host.ip("link", "set", "w0", "name", "up0")
        host.ip("link", "set", "up0", "up")
    else:
        host.ip("link", "delete", "w0")
        veth(host, "up0", own.site.a, "to-host")
        for family in Family:
            network, near, _ = LINKS["A", family]
            address(own.site.a, "to-host", f"{near}/{network.prefixlen}")
    _give_back(own, "up0")
    if how == "replaced":
        for each in (p for p in PREFIXES if p.via == "A"):
            far = str(LINKS["A", each.family][2])
            own.site.a.ip("route", "replace", str(each.network), "via", far)
    own.agent.configure(_moved_to(STANDARD, "up0"))
    if restart:
        own.agent.stop()
        own.agent.start()
    else:
        assert own.agent.reload().returncode == 0
    assert _addresses(own) == before
    eventually(lambda: _seen(own) == seen, "the correspondent is called from the same addresses")


def test_T1_entries_that_are_renamed_and_put_in_another_order_keep_their_addresses(
    own: World,
) -> None:
    before = _addresses(own)
    renamed = [replace(p, name=f"the-{p.name}") for p in reversed(PREFIXES)]
    own.agent.configure(replace(STANDARD, prefixes=renamed))
    assert own.agent.reload().returncode == 0
    assert {p.name: own.agent.addresses(f"the-{p.name}") for p in PREFIXES} == before
    own.agent.stop()
    own.agent.start()
    assert {p.name: own.agent.addresses(f"the-{p.name}") for p in PREFIXES} == before


def test_T1_a_pool_that_shrinks_and_grows_again_has_the_same_addresses(tmp_path: Path) -> None:
    never = {each.name: {"rotate": "never"} for each in PREFIXES if each.type.word in RENEWED}
    small = replace(STANDARD, extra=never)
    large = replace(small, prefixes=[replace(p, pool=4) for p in PREFIXES])
    with World(tmp_path, large) as world:
        before = _addresses(world)
        world.agent.configure(small)
        assert world.agent.reload().returncode == 0
        assert _addresses(world) == {name: found[:1] for name, found in before.items()}
        world.agent.stop()
        world.agent.configure(large)
        world.agent.start()
        assert _addresses(world) == before


@pytest.mark.parametrize("family", Family)
def test_T1_an_address_that_a_conflict_moved_does_not_move_back(
    tmp_path: Path, family: Family
) -> None:
    """The other host leaves; whoever learnt the new address goes on with it."""
    prefix = prefix_of(GRACEFUL, family)
    with World(tmp_path, start=False) as world:
        for setting in ("accept_dad", "dad_transmits"):
            world.site.host.sysctl(f"net/ipv6/conf/w1/{setting}", "1")
        world.agent.start()
        (first,) = world.agent.addresses(prefix.name)
        world.agent.stop()
        length, bits = prefix.network.prefixlen, prefix.network.max_prefixlen
        world.site.host.ip("address", "delete", f"{first}/{bits}", "dev", "w1")
        address(world.site.b, "to-host", f"{first}/{length}")
        world.agent.start()
        (second,) = world.agent.addresses(prefix.name)
        assert second != first
        world.site.b.ip("address", "delete", f"{first}/{length}", "dev", "to-host")
        world.agent.stop()
        world.agent.start()
        assert world.agent.addresses(prefix.name) == [second]
        world.agent.close()  # detach: nothing is left but the state
        world.agent.start()
        assert world.agent.addresses(prefix.name) == [second]


def test_T1_an_upgrade_keeps_addresses_that_were_made_with_the_interfaces_name(
    tmp_path: Path,
) -> None:
    """A state of the version before; later the interface is renamed, and that changes nothing."""
    late = LabPrefix("late6", FIXED, IPv6Network("2001:db8:a1:7::/64"), PREFIXES[0].placement, "A")
    with World(tmp_path, start=False) as world:
        database = world.agent.folder / "state" / "state.db"
        with closing(Journal(database)) as journal:
            secret = journal.secret()
            for number, name in enumerate(_ALL, start=1):
                journal.give_number("prefix", name, number)
        with closing(sqlite3.connect(database)) as db:
            db.executescript(
                "DROP TABLE addresses;"
                "DROP TABLE deployments;"
                "DROP TABLE prefixes_by_interface;"
                "DROP TABLE changed_sysctls;"
                "DROP TABLE leases; DROP TABLE sent; DROP TABLE recorded; DROP TABLE meters;"
                "DROP TABLE cgroups; DROP TABLE handovers;"
                "CREATE TABLE sysctls (path TEXT PRIMARY KEY, value TEXT NOT NULL);"
                "PRAGMA user_version = 1"
            )
        old = {
            each.name: [str(opaque_address(each.network, each.interface, 0, 0, secret))]
            for each in PREFIXES
            if isinstance(each.network, IPv6Network)
        }
        world.agent.start()
        assert {name: world.agent.addresses(name) for name in old} == old
        settings = _moved_to(replace(STANDARD, prefixes=[*PREFIXES[1:], late, PREFIXES[0]]), "w1")
        gateway = {p.name: {"gateway": str(LINKS["B", p.family][1])} for p in settings.prefixes}
        extra = {n: {**settings.extra.get(n, {}), **gateway[n]} for n in gateway}
        world.agent.configure(replace(settings, extra=extra))
        world.agent.stop()
        world.agent.start()
        assert {name: world.agent.addresses(name) for name in old} == old
        (made,) = world.agent.addresses("late6")
        assert made == str(opaque_address(late.network, "", 0, 0, secret))  # type: ignore[arg-type]
