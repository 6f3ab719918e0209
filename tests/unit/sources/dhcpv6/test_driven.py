"""Delegated prefixes in the agent's own driver, machine and engine, on the virtual host."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from odm_agent.core.events import Failure
from odm_agent.core.model import IPAddress
from odm_agent.sources.dhcpv6.messages import Kind
from odm_agent.sources.dhcpv6.source import PATIENCE_S
from tests.virtual.delegated import SESSION, SETTINGS
from tests.virtual.delegated_world import DelegatedWorld
from tests.virtual.dhcpv6_server import Server
from tests.virtual.source import FIXED6, SESSION6

IAID = 0x02000000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[DelegatedWorld]:
    settings = replace(SETTINGS, release_s=60.0)
    world = DelegatedWorld(tmp_path, [Server(t1_s=1000, t2_s=2000)], settings)
    world.advance(1.0)
    yield world
    world.replay()
    world.replay_source()
    world.journal.close()


def address_of(world: DelegatedWorld) -> IPAddress:
    """What a socket gets that waited for it, and uses it."""
    ticket = world.ask(SESSION6, 20.0)
    world.advance(5.0)
    address = world.answers[ticket].address
    assert address is not None
    assert world.connect(SESSION6) == address
    return address


def test_who_waits_gets_an_address_of_what_the_server_has_given(world: DelegatedWorld) -> None:
    address = address_of(world)
    assert address in world.servers[0].leases[IAID]
    assert [each.kind for each in world.sent] == [Kind.SOLICIT]


def test_who_waits_is_told_what_the_server_says(world: DelegatedWorld) -> None:
    world.servers[0].exhausted.add(3)
    ticket = world.ask(FIXED6, 30.0)
    world.advance(2.0)
    answer = world.answers[ticket]
    assert answer.cause is not None and "NoPrefixAvail" in answer.cause
    assert answer.kind is Failure.REFUSED


def test_who_waits_is_told_that_nobody_answers(world: DelegatedWorld) -> None:
    world.servers.clear()
    ticket = world.ask(FIXED6, 30.0)
    world.advance(PATIENCE_S + 0.1)
    assert world.answers[ticket].kind is Failure.TIMED_OUT


def test_a_new_agent_goes_on_with_the_prefix_and_asks_any_server_for_it(
    world: DelegatedWorld,
) -> None:
    address = address_of(world)
    world.replay()
    before = len(world.sent)
    world.start()
    assert (address, "lo") in world.kernel.addresses
    world.advance(2.0)
    asked = world.sent[before:]
    assert [each.kind for each in asked] == [Kind.REBIND] and asked[0].server is None
    assert world.connect(SESSION6) == address


def test_a_server_without_its_database_costs_nobody_his_address(world: DelegatedWorld) -> None:
    address = address_of(world)
    world.servers[0].outage = True
    world.advance(1500.0)
    world.start()
    world.advance(1500.0)
    assert (address, "lo") in world.kernel.addresses
    world.servers[0].outage = False
    world.advance(2000.0)
    assert world.connect(SESSION6) == address


def test_another_link_confirms_the_prefix_or_replaces_it(world: DelegatedWorld) -> None:
    """Sockets that have the former one keep it, for as long as they live."""
    address = address_of(world)
    world.change_link(False)
    world.advance(10.0)
    other = world.servers[0].renumber(IAID)
    world.change_link(True)
    world.advance(10.0)
    assert world.connect(SESSION6) is None
    world.advance(1.0)
    new = world.connect(SESSION6)
    assert new is not None and new not in other and str(new).startswith("2001:db8:")
    assert {(address, "lo"), (new, "lo")} <= world.kernel.addresses.keys()
    world.sockets.remove(address)
    world.advance(200.0)
    assert (address, "lo") not in world.kernel.addresses


def test_a_prefix_that_no_socket_uses_goes_back(world: DelegatedWorld) -> None:
    address = address_of(world)
    world.advance(400.0)
    assert world.servers[0].leases
    world.sockets.remove(address)
    world.advance(300.0)
    assert not world.servers[0].leases
    assert world.sent[-1].kind is Kind.RELEASE
    assert (address, "lo") not in world.kernel.addresses


def test_what_is_held_at_start_stays(tmp_path: Path) -> None:
    settings = replace(SETTINGS, at_start=frozenset({SESSION}), release_s=0.0)
    world = DelegatedWorld(tmp_path, [Server()], settings)
    world.advance(1000.0)
    assert world.servers[0].leases and Kind.RELEASE not in {each.kind for each in world.sent}
    world.replay()
    world.replay_source()
    world.journal.close()


def test_after_a_boot_the_prefix_is_confirmed(world: DelegatedWorld) -> None:
    address = address_of(world)
    world.replay()
    before = len(world.sent)
    world.reboot()
    world.advance(5.0)
    assert world.sent[before].kind is Kind.REBIND
    assert world.connect(SESSION6) == address
