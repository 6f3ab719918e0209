"""What the programs tell of sockets that find no prefix: with a wake-up, seldom, and no secret."""

import os
import select
from collections.abc import Iterator
from dataclasses import replace

import pytest

from odm_agent import client, waiting
from odm_agent.core.demands import Wish
from odm_agent.core.model import AddressType, Family
from odm_agent.datapath import abi
from odm_agent.datapath.maps.reader import MapReader
from odm_agent.datapath.maps.ring import Ring
from tests.lab.asking import CLASSES
from tests.lab.client import Kind, ask, call, outcome
from tests.lab.host import FIXED, NONPERSISTENT, PREFIXES, SESSION
from tests.lab.needs import emptied_ring, forget
from tests.lab.world import STANDARD, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Fixed addresses alone, and no agent any more."""
    prefixes = [each for each in PREFIXES if each.type is FIXED]
    settings = replace(STANDARD, classes=CLASSES, prefixes=prefixes)
    with World(tmp_path_factory.mktemp("needs"), settings) as made:
        made.agent.stop()
        yield made


@pytest.fixture
def ring(world: World) -> Iterator[Ring]:
    """The world's."""
    with emptied_ring(world) as made:
        yield made


def _told(ring: Ring) -> list[tuple[str, AddressType, Family]]:
    return [(each.kind, each.type, each.family) for each in ring.take() if each.kind == "need"]


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.MPTCP6, Kind.SENDTO4])
def test_a_need_is_told_once_a_second_with_a_wake_up(world: World, ring: Ring, kind: Kind) -> None:
    """Of each type and family, whatever a loop does; by every call that finds nothing."""

    def application() -> None:
        for _ in range(200):
            with kind.open() as sock:
                ask(sock, SESSION)
                assert outcome(lambda: sock.connect(kind.destination)) == "EADDRNOTAVAIL"

    def datagrams() -> None:
        for _ in range(200):
            with kind.open() as sock:
                ask(sock, SESSION)
                assert outcome(lambda: sock.sendto(b"x", kind.destination)) == "EADDRNOTAVAIL"

    with select.epoll() as waiting_:
        waiting_.register(ring.fileno(), select.EPOLLIN)
        begun = os.times().elapsed
        world.place("asking").do(application if kind.connects else datagrams)
        most = 1 + int(os.times().elapsed - begun + 1)
        assert waiting_.poll(0)
    told = _told(ring)
    assert set(told) == {("need", SESSION, kind.family)}
    assert 1 <= len(told) <= most


def test_a_default_a_bind_and_a_mapped_address_are_needs_of_their_family(
    world: World, ring: Ring
) -> None:
    world.place("default").do(lambda: outcome(lambda: call(Kind.TCP_MAPPED)))
    assert _told(ring) == [("need", SESSION, Family.IPV4)]
    forget(world)

    def binds() -> str:
        with Kind.UDP6.open() as sock:
            ask(sock, NONPERSISTENT)
            forget(world)
            ring.take()
            return outcome(lambda: sock.bind(("::", 0)))

    assert world.place("asking").do(binds) == "EADDRNOTAVAIL"
    assert ("need", NONPERSISTENT, Family.IPV6) in _told(ring)


def test_what_is_there_or_not_permitted_is_no_need(world: World, ring: Ring) -> None:
    """Nor what a class may only use since it is in audit: the socket asked in another class."""
    world.place("fixed").do(lambda: outcome(lambda: call(Kind.TCP6)))
    assert world.place("fixed").do(lambda: outcome(lambda: call(Kind.TCP6, SESSION))) == "EACCES"
    assert world.place("plain").do(lambda: outcome(lambda: call(Kind.TCP6, SESSION))) == "EACCES"
    assert _told(ring) == []
    audited = world.place("audited")

    def moves() -> str:
        with Kind.TCP6.open() as sock:
            ask(sock, SESSION)
            audited.cgroup.procs.write_text("0")
            return outcome(lambda: sock.connect(Kind.TCP6.destination))

    assert world.place("asking").do(moves) == "EADDRNOTAVAIL"
    assert _told(ring) == [("need", SESSION, Family.IPV6)]  # of the class in which it asked


def test_a_ticket_leads_to_what_its_socket_wants_until_others_have_taken_its_place(
    world: World,
) -> None:
    def tickets() -> list[int]:
        found = []
        for kind, type_ in ((Kind.TCP6, SESSION), (Kind.UDP4, NONPERSISTENT)):
            with kind.open() as sock:
                client.set_type(sock, type_)
                prospect = waiting.prospect(sock, client.SOCKOPT)
                assert prospect is not None and prospect.state is waiting.State.NONE
                found.append(prospect.ticket)
        with Kind.TCP6.open() as sock:
            client.set_type(sock, FIXED)
            prospect = waiting.prospect(sock, client.SOCKOPT)
            assert prospect is not None and not prospect.ticket
        return found

    first, second = world.place("asking").do(tickets)
    with MapReader(world.agent.pins) as maps:
        assert maps.ticket_wish(first) == Wish((SESSION, Family.IPV6))
        assert maps.ticket_wish(second) == Wish((NONPERSISTENT, Family.IPV4))
        for wrong in (0, 1, first ^ 1, first ^ 1 << 32, first ^ 1 << 56, 2**64 - 1):
            assert maps.ticket_wish(wrong) is None
        share = maps.settings.dialogue_share // abi.NEEDS_OF_CLASS

        def crowd() -> None:
            with Kind.TCP6.open() as sock:
                for _ in range(share):
                    ask(sock, SESSION)

        world.place("default").do(crowd, timeout_s=60)
        assert maps.ticket_wish(first) == Wish((SESSION, Family.IPV6))
        world.place("asking").do(crowd, timeout_s=60)
        assert maps.ticket_wish(first) is None
