"""What ends of an address by time and bytes, in the hooks alone: no agent runs.

The tests write the rows as an agent would, with dates that are over or far away: nothing waits.
"""

import itertools
import mmap
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Final

import pytest

from odm_agent.core import tables
from odm_agent.core.model import Family
from odm_agent.core.projection import LeaseRow
from odm_agent.datapath.base import Sent
from tests.lab.capture import Capture, Packet
from tests.lab.cases import each_kind
from tests.lab.client import PORT, Kind, ask, call, exchange, outcome, source_cmsg
from tests.lab.host import CORRESPONDENT, FIXED, prefix_of
from tests.lab.limits import Limits
from tests.lab.process import wait_until

#: Long ago, and never in a test's life: boot time in nanoseconds.
_OVER: Final = 1
_FAR: Final = 1 << 60
_KINDS: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4)
_FAMILIES: Final = (Family.IPV6, Family.IPV4)
_OPEN: Final = LeaseRow(preferred_ns=_FAR, valid_ns=_FAR)
_DEPRECATED: Final = LeaseRow(preferred_ns=_OVER, valid_ns=_FAR)
_ENDED: Final = LeaseRow(preferred_ns=_OVER, valid_ns=_OVER)
#: Socket options (IP_FREEBIND, IP_TRANSPARENT) that let a bind pass which finds no such address.
_FREEBIND: Final = {Family.IPV6: 78, Family.IPV4: 15}
_TRANSPARENT: Final = {Family.IPV6: 75, Family.IPV4: 19}
#: How long two CPUs race for the last packet, and the round that ends it.
_RACE_S: Final = 2.0
_STOP: Final = 1 << 60
#: What a datagram of 20 bytes weighs.
_WEIGHT: Final = {Family.IPV6: 68, Family.IPV4: 48}


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
def test_sockets_are_given_an_address_while_it_is_preferred_only(
    limits: Limits, kind: Kind
) -> None:
    place = limits.world.place("every")
    [address] = limits.limit(kind.family, _OPEN)
    assert place.do(_asks(kind)) == address
    for over in (_DEPRECATED, _ENDED):
        limits.set(1, over)
        assert place.do(_asks(kind)) == "EADDRNOTAVAIL"


@each_kind(*_KINDS)
@pytest.mark.parametrize(
    ("lease", "fails"), [(_DEPRECATED, False), (_ENDED, True)], ids=["deprecated", "ended"]
)
def test_who_names_an_address_may_have_it_while_it_is_valid(
    limits: Limits, kind: Kind, lease: LeaseRow, fails: bool
) -> None:
    """RFC 4862, 5.5.4: a deprecated address stands to whoever asks for just that one."""
    [address] = limits.limit(kind.family, lease)
    before = limits.ended("bind")

    def application() -> str:
        seen: list[str] = []
        said = outcome(lambda: seen.append(call(kind, bind=(address, 0)).seen))
        return seen[0] if seen else said

    assert limits.world.place("every").do(application) == ("EADDRNOTAVAIL" if fails else address)
    assert limits.ended("bind") - before == fails


@each_kind(Kind.SENDTO6, Kind.SENDTO4)
@pytest.mark.parametrize(
    ("lease", "told"), [(_DEPRECATED, "ok"), (_ENDED, "EADDRNOTAVAIL")], ids=["deprecated", "ended"]
)
def test_so_may_who_names_it_in_a_control_message(
    limits: Limits, kind: Kind, lease: LeaseRow, told: str
) -> None:
    [address] = limits.limit(kind.family, lease)

    def application() -> str:
        with kind.open() as sock:
            control = source_cmsg(address)
            return outcome(lambda: sock.sendmsg([b"x"], control, 0, kind.destination))

    assert limits.world.place("every").do(application) == told


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_nothing_leaves_from_an_address_that_is_valid_no_more(limits: Limits, kind: Kind) -> None:
    [address] = limits.limit(kind.family, _OPEN)
    before = limits.ended("egress")
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
        Capture(limits.world.site.a, "to-host") as wire,
        limits.world.place("every").conversation(application) as talk,
    ):
        assert talk.hear() == address
        limits.set(1, _ENDED)
        wire.packets()
        go.write(b"x")
        assert talk.hear() == ("ok" if kind.stream else "EPERM")
        assert not [each for each in wire.packets() if str(each.source) == address]
        assert limits.ended("egress") > before


@pytest.mark.parametrize("family", _FAMILIES, ids=lambda family: family.name)
def test_a_listener_is_asked_at_an_address_while_it_is_valid(
    limits: Limits, family: Family
) -> None:
    [address] = limits.limit(family, _DEPRECATED)

    def listen(ready: Callable[[object], None]) -> None:
        with socket.create_server((address, 0), family=_af(family)) as server:
            ready(server.getsockname()[1])
            while True:
                with server.accept()[0] as accepted:
                    accepted.sendall(b"hello")

    with limits.world.place("every").background(listen) as port:
        assert limits.world.peer.dial("tcp", address, port)["answer"] == "hello"
        limits.set(1, _ENDED)
        before = limits.ended("ingress")
        assert "error" in limits.world.peer.dial("tcp", address, port, timeout_s=0.5)
        assert limits.ended("ingress") > before


@pytest.mark.parametrize("kind", [Kind.UDP6, Kind.UDP4], ids=lambda kind: kind.name)
def test_addresses_that_nobody_configures_are_no_way_around(limits: Limits, kind: Kind) -> None:
    """A span whose lease is over: what is not configured inside it is valid for nobody."""
    prefix = prefix_of(FIXED, kind.family)
    limits.limit(kind.family, _OPEN, _ENDED)
    span = limits.writer.read().spans[prefix.network]
    limits.writer.apply(tables.SPANS.put(prefix.network, replace(span, lease=2)))
    unused = str(prefix.unused())

    def application() -> tuple[str, str]:
        with kind.open() as sock:
            level = socket.IPPROTO_IPV6 if kind.family is Family.IPV6 else socket.IPPROTO_IP
            sock.setsockopt(level, _FREEBIND[kind.family], 1)
            bound = outcome(lambda: sock.bind((unused, 0)))
        with kind.open() as sock:
            sock.setsockopt(level, _TRANSPARENT[kind.family], 1)
            return bound, outcome(lambda: sock.bind((unused, 0)))

    assert limits.world.place("every").do(application) == ("EADDRNOTAVAIL", "EADDRNOTAVAIL")


# --- which address -------------------------------------------------------------------------------


@each_kind(*_KINDS)
def test_a_spare_steps_in_when_all_others_are_over_and_not_before(
    limits: Limits, kind: Kind
) -> None:
    place = limits.world.place("every")
    first, second, spare, last = limits.limit(kind.family, *[_OPEN] * 4, spares=2)

    def ten() -> set[str]:
        return {_asks(kind)() for _ in range(10)}

    assert place.do(ten) <= {first, second}
    limits.set(1, _DEPRECATED)
    assert place.do(ten) <= {second}
    limits.set(2, _DEPRECATED)
    assert place.do(ten) == {spare}
    limits.set(3, _DEPRECATED)
    assert place.do(ten) == {last}
    limits.set(4, _DEPRECATED)
    assert place.do(ten) == {"EADDRNOTAVAIL"}


@each_kind(*_KINDS)
def test_then_the_next_prefix_of_the_choice_serves(limits: Limits, kind: Kind) -> None:
    first, second = limits.limit(kind.family, _OPEN, _OPEN)
    number, row = limits.prefix(kind.family)
    one = replace(row, pool=row.pool[:1], configured=1, leases=(1,))
    other = replace(row, pool=row.pool[1:], configured=1, leases=(2,), mark=0)
    limits.writer.apply(tables.PREFIXES.put(number, one))
    limits.writer.apply(tables.PREFIXES.put(900, other))
    limits.writer.apply(tables.CHOICES.put((FIXED, kind.family), (number, 900)))
    place = limits.world.place("every")
    assert place.do(_asks(kind)) == first
    limits.set(1, _DEPRECATED)
    assert place.do(_asks(kind)) == second


@pytest.mark.parametrize("kind", [Kind.UDP6, Kind.UDP4], ids=lambda kind: kind.name)
def test_a_mark_gives_no_address_that_is_over(limits: Limits, kind: Kind) -> None:
    """A socket that has its port can be given a source by the mark only, which is slot 0."""
    first, _ = limits.limit(kind.family, _OPEN, _OPEN, spares=1)

    def application() -> str:
        with kind.open() as sock:
            sock.bind((kind.wildcard, 0))
            ask(sock, FIXED)
            seen: list[str] = []
            said = outcome(lambda: seen.append(exchange(sock, kind).seen))
            return seen[0] if seen else said

    place = limits.world.place("every")
    assert place.do(application) == first
    limits.set(1, _DEPRECATED)
    assert place.do(application) == "EADDRNOTAVAIL"


# --- bytes ---------------------------------------------------------------------------------------


def _send(kind: Kind, address: str, count: int) -> int:
    """Send datagrams of 20 bytes from an address; how many of them left."""
    with kind.open() as sock:
        sock.bind((address, 0))
        return _send_by(sock, kind, count)


def _send_by(sock: socket.socket, kind: Kind, count: int) -> int:
    return sum(outcome(lambda: sock.sendto(bytes(20), _nobody(kind))) == "ok" for _ in range(count))


def _nobody(kind: Kind) -> tuple[str, int]:
    return CORRESPONDENT[kind.family], PORT + 90


def _changed(turns: memoryview, index: int, before: int) -> int:
    """What a number is when it is not `before` any more; looks often at first."""
    for tries in itertools.count():
        if (now := int(turns[index])) != before:
            return now
        if tries > 2000:
            time.sleep(0.0001)
    raise AssertionError


@pytest.mark.parametrize("kind", [Kind.SENDTO6, Kind.SENDTO4], ids=lambda kind: kind.name)
def test_the_packet_that_reaches_a_hard_budget_is_the_last_one_whoever_else_sends(
    limits: Limits, kind: Kind
) -> None:
    weight = _WEIGHT[kind.family]
    budget = 1000 * weight - 1
    [address] = limits.limit(kind.family, LeaseRow(budget=budget, hard=True))

    begun = memoryview(mmap.mmap(-1, 8)).cast("Q")

    def send(cpu: int, ready: Callable[[object], None]) -> None:
        os.sched_setaffinity(0, {cpu})
        with kind.open() as sock:
            sock.bind((address, 0))
            ready("bound")  # nobody could be, once the budget is used up
            _changed(begun, 0, 0)
            ready(_send_by(sock, kind, 2000))

    with ExitStack() as stack, Capture(limits.world.site.a, "to-host") as wire:
        talks = [
            stack.enter_context(limits.world.place("every").conversation(partial(send, cpu)))
            for cpu in sorted(os.sched_getaffinity(0))
        ]
        assert {talk.hear() for talk in talks} == {"bound"}
        begun[0] = 1
        assert sum(talk.hear() for talk in talks) == 1000
        arrived: list[Packet] = []

        def all_there() -> bool:
            arrived.extend(each for each in wire.packets() if str(each.source) == address)
            return len(arrived) >= 1000

        wait_until(all_there, "all that left has arrived")
        assert len(arrived) == 1000
    assert limits.writer.meters()[1] == Sent(1000 * weight, 1000)


def test_two_cpus_that_send_the_last_packet_at_once_send_one(limits: Limits) -> None:
    """Round after round, both wait for the same moment: the budget is one packet."""
    kind, lease = Kind.SENDTO6, LeaseRow(budget=1, hard=True)
    [address] = limits.limit(kind.family, lease)
    shared = mmap.mmap(-1, 3 * 8)
    #: The round that has begun, and in which one each process has sent its packet.
    turns = memoryview(shared).cast("Q")
    cpus = sorted(os.sched_getaffinity(0))[:2]
    if len(cpus) < 2:
        pytest.skip("there is one CPU only")

    def send(mine: int, ready: Callable[[object], None]) -> None:
        os.sched_setaffinity(0, {cpus[mine]})
        until_s = time.monotonic() + _RACE_S
        sent = turn = 0
        with kind.open() as sock:
            sock.bind((address, 0))
            ready("bound")  # nobody could be, once the budget is used up
            while (begun := _changed(turns, 0, turn)) != _STOP:
                turn = begun
                sent += outcome(lambda: sock.sendto(bytes(20), _nobody(kind))) == "ok"
                turns[1 + mine] = turn
                if mine:
                    continue
                _changed(turns, 2, turn - 1)
                limits.writer.apply(tables.LEASES.drop(1))
                limits.set(1, lease)
                turns[0] = turn + 1 if time.monotonic() < until_s else _STOP
        ready((sent, turn))

    place = limits.world.place("every")
    with (
        place.conversation(partial(send, 0)) as one,
        place.conversation(partial(send, 1)) as other,
    ):
        assert (one.hear(), other.hear()) == ("bound", "bound")
        turns[0] = 1
        (sent_by_one, rounds), (sent_by_other, _) = one.hear(), other.hear()
        assert sent_by_one + sent_by_other == rounds


@pytest.mark.parametrize("kind", [Kind.SENDTO6, Kind.SENDTO4], ids=lambda kind: kind.name)
def test_a_soft_budget_ends_what_is_given_but_nothing_that_has_it(
    limits: Limits, kind: Kind
) -> None:
    weight = _WEIGHT[kind.family]
    first, second = limits.limit(kind.family, LeaseRow(budget=10 * weight), _OPEN, spares=1)
    place = limits.world.place("every")
    assert place.do(lambda: _send(kind, first, 9)) == 9
    assert place.do(lambda: _given(kind)) == first
    assert place.do(lambda: _send(kind, first, 1)) == 1
    assert place.do(lambda: _given(kind)) == second
    assert place.do(lambda: _send(kind, first, 5)) == 5
    assert limits.writer.meters()[1] == Sent(15 * weight, 15)


def _given(kind: Kind) -> str:
    """What a socket that asks is given, without that anything is sent."""
    with socket.socket(kind.af, socket.SOCK_DGRAM) as sock:
        ask(sock, FIXED)
        sock.connect(_nobody(kind))
        return str(ip_address(sock.getsockname()[0]))


@pytest.mark.parametrize("kind", [Kind.SENDTO6, Kind.SENDTO4], ids=lambda kind: kind.name)
def test_classes_and_types_are_counted_too_and_a_lease_that_begins_anew_begins_at_0(
    limits: Limits, kind: Kind
) -> None:
    [address] = limits.limit(kind.family, _OPEN)
    place = limits.world.place("fixed")

    before = limits.writer.traffic()
    assert place.do(lambda: _send(kind, address, 3)) == 3
    assert limits.writer.meters()[1] == Sent(3 * _WEIGHT[kind.family], 3)
    [(key, after)] = set(limits.writer.traffic().items()) - set(before.items())
    assert key[1] is FIXED
    assert after.bytes - before.get(key, Sent(0, 0)).bytes == 3 * _WEIGHT[kind.family]
    assert after.packets - before.get(key, Sent(0, 0)).packets == 3
    limits.writer.apply(tables.LEASES.drop(1))
    assert 1 not in limits.writer.meters()
    limits.set(1, _OPEN)
    assert limits.writer.meters()[1] == Sent(0, 0)


# --- large pools ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [0, 40, 255])
def test_the_one_address_that_is_open_is_found_among_as_many_as_a_link_holds(
    limits: Limits, at: int
) -> None:
    """However many are over."""
    rows = [_DEPRECATED] * 256
    rows[at] = _OPEN
    pool = limits.limit(Family.IPV6, *rows)
    assert {limits.world.place("every").do(_asks(Kind.TCP6)) for _ in range(3)} == {pool[at]}


def test_a_spare_is_found_behind_as_many(limits: Limits) -> None:
    pool = limits.limit(Family.IPV6, *[_DEPRECATED] * 256, _OPEN, _OPEN, spares=2)
    assert limits.world.place("every").do(_asks(Kind.TCP6)) == pool[256]
