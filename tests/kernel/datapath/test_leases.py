"""What ends of an address by time and bytes, in the hooks alone: no agent runs.

The tests write the rows as an agent would, with dates that are over or far away: nothing waits.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from ipaddress import ip_address
from typing import Any, Final

import pytest

from odm_agent.core import tables
from odm_agent.core.model import Family
from odm_agent.core.projection import LeaseRow, PrefixRow
from odm_agent.core.tables import Table
from odm_agent.datapath.base import Sent, VerdictKey
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.capture import Capture
from tests.lab.cases import each_kind
from tests.lab.client import PORT, Kind, ask, call, exchange, outcome, source_cmsg
from tests.lab.host import CORRESPONDENT, FIXED, prefix_of
from tests.lab.netns import address as configure
from tests.lab.world import World

#: Long ago, and never in a test's life: boot time in nanoseconds.
_OVER: Final = 1
_FAR: Final = 1 << 60
_KINDS: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4)
_FAMILIES: Final = (Family.IPV6, Family.IPV4)
_OPEN: Final = LeaseRow(preferred_ns=_FAR, valid_ns=_FAR)
_DEPRECATED: Final = LeaseRow(preferred_ns=_OVER, valid_ns=_FAR)
_ENDED: Final = LeaseRow(preferred_ns=_OVER, valid_ns=_OVER)
#: The tables that tests change beside LEASES, in the order in which rows are put back.
_CHANGED: Final[tuple[Table[Any, Any], ...]] = (
    *(tables.PREFIXES, tables.CHOICES, tables.SPANS, tables.SOURCES),
)
#: Socket options (IP_FREEBIND, IP_TRANSPARENT) that let a bind pass which finds no such address.
_FREEBIND: Final = {Family.IPV6: 78, Family.IPV4: 15}
_TRANSPARENT: Final = {Family.IPV6: 75, Family.IPV4: 19}
#: What a datagram of 20 bytes weighs.
_WEIGHT: Final = {Family.IPV6: 68, Family.IPV4: 48}


@dataclass
class Maps:
    """The maps of a world without an agent; what a test changed is taken back."""

    world: World
    writer: MapWriter

    def prefix(self, family: Family) -> tuple[int, PrefixRow]:
        """The number and row of the fixed prefix of a family."""
        [number] = self.writer.choices()[FIXED, family]
        return number, self.writer.prefixes()[number]

    def limit(self, family: Family, *leases: LeaseRow, spares: int = 0) -> list[str]:
        """Give the fixed prefix as many addresses as there are leases; what they are."""
        number, row = self.prefix(family)
        interface = prefix_of(FIXED, family).interface
        pool = tuple(row.pool[0] + index for index in range(len(leases)))
        bits = pool[0].max_prefixlen
        configure(self.world.site.host, interface, *(f"{each}/{bits}" for each in pool[1:]))
        source = self.writer.read().sources[pool[0]]
        for index, (each, lease) in enumerate(zip(pool, leases, strict=True)):
            self.writer.apply(tables.LEASES.drop(1 + index))
            self.writer.apply(tables.LEASES.put(1 + index, lease))
            self.writer.apply(tables.SOURCES.put(each, replace(source, lease=1 + index)))
        self.writer.apply(
            tables.PREFIXES.put(
                number,
                replace(
                    row,
                    pool=pool,
                    configured=len(pool),
                    spares=spares,
                    leases=tuple(range(1, 1 + len(pool))),
                ),
            )
        )
        return [str(each) for each in pool]

    def set(self, lease: int, row: LeaseRow) -> None:
        """Change a lease; its meter goes on."""
        self.writer.apply(tables.LEASES.put(lease, row))

    def ended(self, hook: str) -> int:
        """How often a hook of the class `every` has refused what has ended."""
        return sum(
            count
            for key, count in self.writer.verdicts().items()
            if _is_ended(key) and key.hook == hook
        )


def _is_ended(key: VerdictKey) -> bool:
    return (key.verdict, key.reason, key.type) == ("refuse", "ended", FIXED)


@pytest.fixture(scope="module")
def agentless(world: World) -> Iterator[World]:
    """The world of this folder while no agent runs."""
    world.agent.stop()
    yield world
    world.agent.start()


@pytest.fixture
def maps(agentless: World) -> Iterator[Maps]:
    """Its maps, and the host's addresses, as they were when the test has ended."""
    with MapWriter(agentless.agent.pins) as writer:
        before = writer.read()
        yield Maps(agentless, writer)
        for table in _CHANGED:
            for key in set(table.of(writer.read())) - set(table.of(before)):
                writer.apply(table.drop(key))
                if table is tables.SOURCES:
                    _forget(agentless, str(key))
            for key, row in table.of(before).items():
                writer.apply(table.put(key, row))
        for lease in set(writer.read().leases) - set(before.leases):
            writer.apply(tables.LEASES.drop(lease))


def _forget(world: World, address: str) -> None:
    bits = ip_address(address).max_prefixlen
    world.site.host.ip("address", "del", f"{address}/{bits}", "dev", "w0")


def _af(family: Family) -> socket.AddressFamily:
    return socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET


def _asks(kind: Kind) -> Callable[[], str]:
    """An application that asks for the type, and hears from where it called, or why not."""

    def application() -> str:
        seen: list[str] = []
        said = outcome(lambda: seen.append(call(kind, FIXED).seen))
        return seen[0] if seen else said

    return application


# --- time ----------------------------------------------------------------------------------------


@each_kind(*_KINDS, Kind.TCP_MAPPED, Kind.UDP_MAPPED, Kind.SENDTO_MAPPED)
def test_sockets_are_given_an_address_while_it_is_preferred_only(maps: Maps, kind: Kind) -> None:
    place = maps.world.place("every")
    [address] = maps.limit(kind.family, _OPEN)
    assert place.do(_asks(kind)) == address
    for over in (_DEPRECATED, _ENDED):
        maps.set(1, over)
        assert place.do(_asks(kind)) == "EADDRNOTAVAIL"


@each_kind(*_KINDS)
@pytest.mark.parametrize(
    ("lease", "fails"), [(_DEPRECATED, False), (_ENDED, True)], ids=["deprecated", "ended"]
)
def test_who_names_an_address_may_have_it_while_it_is_valid(
    maps: Maps, kind: Kind, lease: LeaseRow, fails: bool
) -> None:
    """RFC 4862, 5.5.4: a deprecated address stands to whoever asks for just that one."""
    [address] = maps.limit(kind.family, lease)
    before = maps.ended("bind")

    def application() -> str:
        seen: list[str] = []
        said = outcome(lambda: seen.append(call(kind, bind=(address, 0)).seen))
        return seen[0] if seen else said

    assert maps.world.place("every").do(application) == ("EADDRNOTAVAIL" if fails else address)
    assert maps.ended("bind") - before == fails


@each_kind(Kind.SENDTO6, Kind.SENDTO4)
@pytest.mark.parametrize(
    ("lease", "told"), [(_DEPRECATED, "ok"), (_ENDED, "EADDRNOTAVAIL")], ids=["deprecated", "ended"]
)
def test_so_may_who_names_it_in_a_control_message(
    maps: Maps, kind: Kind, lease: LeaseRow, told: str
) -> None:
    [address] = maps.limit(kind.family, lease)

    def application() -> str:
        with kind.open() as sock:
            control = source_cmsg(address)
            return outcome(lambda: sock.sendmsg([b"x"], control, 0, kind.destination))

    assert maps.world.place("every").do(application) == told


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_nothing_leaves_from_an_address_that_is_valid_no_more(maps: Maps, kind: Kind) -> None:
    [address] = maps.limit(kind.family, _OPEN)
    before = maps.ended("egress")
    waits, goes = os.pipe()

    def application(ready: Callable[[object], None]) -> None:
        with kind.open() as sock:
            ask(sock, FIXED)
            ready(exchange(sock, kind).seen)
            os.read(waits, 1)
            ready(outcome(lambda: sock.send(b"more")))
            os.read(waits, 1)

    with (
        os.fdopen(goes, "wb", buffering=0) as go,
        os.fdopen(waits, "rb"),
        Capture(maps.world.site.a, "to-host") as wire,
        maps.world.place("every").conversation(application) as talk,
    ):
        assert talk.hear() == address
        maps.set(1, _ENDED)
        wire.packets()
        go.write(b"x")
        assert talk.hear() == ("ok" if kind.stream else "EPERM")
        assert not [each for each in wire.packets() if str(each.source) == address]
        assert maps.ended("egress") > before


@pytest.mark.parametrize("family", _FAMILIES, ids=lambda family: family.name)
def test_a_listener_is_asked_at_an_address_while_it_is_valid(maps: Maps, family: Family) -> None:
    [address] = maps.limit(family, _DEPRECATED)

    def listen(ready: Callable[[object], None]) -> None:
        with socket.create_server((address, 0), family=_af(family)) as server:
            ready(server.getsockname()[1])
            while True:
                with server.accept()[0] as accepted:
                    accepted.sendall(b"hello")

    with maps.world.place("every").background(listen) as port:
        assert maps.world.peer.dial("tcp", address, port)["answer"] == "hello"
        maps.set(1, _ENDED)
        before = maps.ended("ingress")
        assert "error" in maps.world.peer.dial("tcp", address, port, timeout_s=0.5)
        assert maps.ended("ingress") > before


@pytest.mark.parametrize("kind", [Kind.UDP6, Kind.UDP4], ids=lambda kind: kind.name)
def test_addresses_that_nobody_configures_are_no_way_around(maps: Maps, kind: Kind) -> None:
    """A span whose lease is over: what is not configured inside it is valid for nobody."""
    prefix = prefix_of(FIXED, kind.family)
    maps.limit(kind.family, _OPEN, _ENDED)
    span = maps.writer.read().spans[prefix.network]
    maps.writer.apply(tables.SPANS.put(prefix.network, replace(span, lease=2)))
    unused = str(prefix.unused())

    def application() -> tuple[str, str]:
        with kind.open() as sock:
            level = socket.IPPROTO_IPV6 if kind.family is Family.IPV6 else socket.IPPROTO_IP
            sock.setsockopt(level, _FREEBIND[kind.family], 1)
            bound = outcome(lambda: sock.bind((unused, 0)))
        with kind.open() as sock:
            sock.setsockopt(level, _TRANSPARENT[kind.family], 1)
            return bound, outcome(lambda: sock.bind((unused, 0)))

    assert maps.world.place("every").do(application) == ("EADDRNOTAVAIL", "EADDRNOTAVAIL")


# --- which address -------------------------------------------------------------------------------


@each_kind(*_KINDS)
def test_a_spare_steps_in_when_all_others_are_over_and_not_before(maps: Maps, kind: Kind) -> None:
    place = maps.world.place("every")
    first, second, spare, last = maps.limit(kind.family, *[_OPEN] * 4, spares=2)

    def ten() -> set[str]:
        return {_asks(kind)() for _ in range(10)}

    assert place.do(ten) <= {first, second}
    maps.set(1, _DEPRECATED)
    assert place.do(ten) <= {second}
    maps.set(2, _DEPRECATED)
    assert place.do(ten) == {spare}
    maps.set(3, _DEPRECATED)
    assert place.do(ten) == {last}
    maps.set(4, _DEPRECATED)
    assert place.do(ten) == {"EADDRNOTAVAIL"}


@each_kind(*_KINDS)
def test_then_the_next_prefix_of_the_choice_serves(maps: Maps, kind: Kind) -> None:
    first, second = maps.limit(kind.family, _OPEN, _OPEN)
    number, row = maps.prefix(kind.family)
    one = replace(row, pool=row.pool[:1], configured=1, leases=(1,))
    other = replace(row, pool=row.pool[1:], configured=1, leases=(2,), mark=0)
    maps.writer.apply(tables.PREFIXES.put(number, one))
    maps.writer.apply(tables.PREFIXES.put(900, other))
    maps.writer.apply(tables.CHOICES.put((FIXED, kind.family), (number, 900)))
    place = maps.world.place("every")
    assert place.do(_asks(kind)) == first
    maps.set(1, _DEPRECATED)
    assert place.do(_asks(kind)) == second


@pytest.mark.parametrize("kind", [Kind.UDP6, Kind.UDP4], ids=lambda kind: kind.name)
def test_a_mark_gives_no_address_that_is_over(maps: Maps, kind: Kind) -> None:
    """A socket that has its port can be given a source by the mark only, which is slot 0."""
    first, _ = maps.limit(kind.family, _OPEN, _OPEN, spares=1)

    def application() -> str:
        with kind.open() as sock:
            sock.bind((kind.wildcard, 0))
            ask(sock, FIXED)
            seen: list[str] = []
            said = outcome(lambda: seen.append(exchange(sock, kind).seen))
            return seen[0] if seen else said

    place = maps.world.place("every")
    assert place.do(application) == first
    maps.set(1, _DEPRECATED)
    assert place.do(application) == "EADDRNOTAVAIL"


# --- bytes ---------------------------------------------------------------------------------------


def _send(kind: Kind, address: str, count: int) -> int:
    """Send datagrams of 20 bytes from an address; how many of them left."""
    left = 0
    with kind.open() as sock:
        sock.bind((address, 0))
        for _ in range(count):
            left += outcome(lambda: sock.sendto(bytes(20), _nobody(kind))) == "ok"
    return left


def _nobody(kind: Kind) -> tuple[str, int]:
    return CORRESPONDENT[kind.family], PORT + 90


@pytest.mark.parametrize("kind", [Kind.SENDTO6, Kind.SENDTO4], ids=lambda kind: kind.name)
def test_the_packet_that_reaches_a_hard_budget_is_the_last_one_whoever_else_sends(
    maps: Maps, kind: Kind
) -> None:
    weight = _WEIGHT[kind.family]
    budget = 1000 * weight - 1
    [address] = maps.limit(kind.family, LeaseRow(budget=budget, hard=True))

    def send(cpu: int, ready: Callable[[object], None]) -> None:
        os.sched_setaffinity(0, {cpu})
        ready(_send(kind, address, 2000))

    with ExitStack() as stack, Capture(maps.world.site.a, "to-host") as wire:
        talks = [
            stack.enter_context(maps.world.place("every").conversation(partial(send, cpu)))
            for cpu in sorted(os.sched_getaffinity(0))
        ]
        assert sum(talk.hear() for talk in talks) == 1000
        assert len([each for each in wire.packets() if str(each.source) == address]) == 1000
    assert maps.writer.meters()[1] == Sent(1000 * weight, 1000)


@pytest.mark.parametrize("kind", [Kind.SENDTO6, Kind.SENDTO4], ids=lambda kind: kind.name)
def test_a_soft_budget_ends_what_is_given_but_nothing_that_has_it(maps: Maps, kind: Kind) -> None:
    weight = _WEIGHT[kind.family]
    first, second = maps.limit(kind.family, LeaseRow(budget=10 * weight), _OPEN, spares=1)
    place = maps.world.place("every")
    assert place.do(lambda: _send(kind, first, 9)) == 9
    assert place.do(lambda: _given(kind)) == first
    assert place.do(lambda: _send(kind, first, 1)) == 1
    assert place.do(lambda: _given(kind)) == second
    assert place.do(lambda: _send(kind, first, 5)) == 5
    assert maps.writer.meters()[1] == Sent(15 * weight, 15)


def _given(kind: Kind) -> str:
    """What a socket that asks is given, without that anything is sent."""
    with socket.socket(kind.af, socket.SOCK_DGRAM) as sock:
        ask(sock, FIXED)
        sock.connect(_nobody(kind))
        return str(ip_address(sock.getsockname()[0]))


@pytest.mark.parametrize("kind", [Kind.SENDTO6, Kind.SENDTO4], ids=lambda kind: kind.name)
def test_classes_and_types_are_counted_too_and_a_lease_that_begins_anew_begins_at_0(
    maps: Maps, kind: Kind
) -> None:
    [address] = maps.limit(kind.family, _OPEN)
    place = maps.world.place("fixed")

    before = maps.writer.traffic()
    assert place.do(lambda: _send(kind, address, 3)) == 3
    assert maps.writer.meters()[1] == Sent(3 * _WEIGHT[kind.family], 3)
    [(key, after)] = set(maps.writer.traffic().items()) - set(before.items())
    assert key[1] is FIXED
    assert after.bytes - before.get(key, Sent(0, 0)).bytes == 3 * _WEIGHT[kind.family]
    assert after.packets - before.get(key, Sent(0, 0)).packets == 3
    maps.writer.apply(tables.LEASES.drop(1))
    assert 1 not in maps.writer.meters()
    maps.set(1, _OPEN)
    assert maps.writer.meters()[1] == Sent(0, 0)
