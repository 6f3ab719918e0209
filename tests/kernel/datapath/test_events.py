"""What the programs tell as it happens: each mark once, refusals not each time; full is no harm."""

import ctypes as ct
import select
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from odm_agent.core import tables
from odm_agent.core.model import TYPES
from odm_agent.core.projection import LeaseRow
from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.base import KernelEvent, Sent
from odm_agent.datapath.maps.ring import Ring
from tests.lab.client import PORT, Kind, ask, outcome
from tests.lab.host import CORRESPONDENT, FIXED, SESSION
from tests.lab.limits import Limits

_KIND = Kind.SENDTO6
#: What a datagram of 20 bytes weighs.
_WEIGHT = 68
#: Events that the ring holds: the kernel puts 8 bytes before each, and never fills it to the last.
_ROOM = abi.MAX_EVENTS // (ct.sizeof(abi.Event) + 8) - 1


@pytest.fixture
def ring(limits: Limits) -> Iterator[Ring]:
    """The ring, with nothing in it."""
    with Ring(limits.world.agent.pins) as made:
        made.take()
        yield made


def _send(limits: Limits, address: str, count: int) -> None:
    def application() -> None:
        with _KIND.open() as sock:
            sock.bind((address, 0))
            for _ in range(count):
                sock.sendto(bytes(20), (CORRESPONDENT[_KIND.family], PORT + 90))

    limits.world.place("fixed").do(application)


def test_a_lease_tells_its_marks_once_each_to_a_reader_who_waits(
    limits: Limits, ring: Ring
) -> None:
    [address] = limits.limit(_KIND.family, LeaseRow(warn=3 * _WEIGHT, budget=5 * _WEIGHT))
    seen: list[list[tuple[str, int]]] = []
    with select.epoll() as waiting:
        waiting.register(ring.fileno(), select.EPOLLIN)
        for count in (2, 1, 1, 1, 3):
            _send(limits, address, count)
            woken = bool(waiting.poll(0))
            told = ring.take()
            assert woken == bool(told)
            assert {each.type for each in told} <= {FIXED}
            seen.append([(each.kind, each.lease) for each in told])
    assert seen == [[], [("warn", 1)], [], [("spent", 1)], []]


def test_refusals_are_told_but_not_each_time(limits: Limits, ring: Ring) -> None:
    """All are counted, and nobody is woken. Each type of a class has its own measure."""

    def application() -> None:
        for _ in range(500):
            for type_ in (FIXED, SESSION):
                with _KIND.open() as sock:
                    assert outcome(lambda t=type_: ask(sock, t)) == "EACCES"  # type: ignore[misc]

    before = sum(limits.writer.verdicts().values())
    with select.epoll() as waiting:
        waiting.register(ring.fileno(), select.EPOLLIN)
        limits.world.place("limited").do(application)
        assert not waiting.poll(0)
    assert sum(limits.writer.verdicts().values()) - before == 1000
    told = ring.take()
    for type_ in TYPES:
        mine = [each for each in told if each.type is type_]
        assert bool(mine) == (type_ in (FIXED, SESSION))
        for each in mine:
            assert (each.kind, each.reason, each.hook) == ("refused", "class", "setsockopt")
        for one, next_ in pairwise(mine):
            assert next_.boot_s - one.boot_s >= abi.REFUSED_NS / 1e9 - 1e-6


def test_refusals_leave_half_of_a_ring_that_nobody_reads_to_leases(
    limits: Limits, ring: Ring
) -> None:
    """And are told again when it is read. What was not told is counted."""
    [address] = limits.limit(_KIND.family, LeaseRow(warn=1, budget=1))
    time.sleep(abi.REFUSED_NS / 1e9)  # since another test's
    _refused(limits, 1)
    [first] = ring.take()
    measure, often = abi.usage_index(first.class_id, FIXED), 2 * _ROOM
    lost = limits.writer.losses()["event"]
    _refused(limits, often, measure)
    _send(limits, address, 1)
    *refusals, warn, spent = [each.kind for each in ring.take()]
    assert set(refusals) == {"refused"}
    assert (warn, spent) == ("warn", "spent")
    assert len(refusals) == pytest.approx(_ROOM / 2, abs=2)
    assert limits.writer.losses()["event"] - lost == often - len(refusals)
    _refused(limits, 1, measure)
    assert [each.kind for each in ring.take()] == ["refused"]


def _refused(limits: Limits, often: int, measure: int | None = None) -> None:
    """Be refused a type so often; `measure`: each time as if long after the one before."""

    def application() -> None:
        pinned = libbpf.get_pinned(limits.world.agent.pins / "odm_usage")
        usage = libbpf.Map(pinned, ct.c_uint32, abi.Usage, "odm_usage")
        with _KIND.open() as sock:
            for _ in range(often):
                if measure is not None:
                    usage.put(measure, abi.Usage())
                assert outcome(lambda: ask(sock, FIXED)) == "EACCES"
        usage.close()

    limits.world.place("limited").do(application)


def test_all_else_goes_on_while_nobody_reads_and_the_ring_is_full(
    limits: Limits, ring: Ring
) -> None:
    lease = LeaseRow(warn=1, budget=1)
    [address] = limits.limit(_KIND.family, lease)
    lost = limits.writer.losses()["event"]

    def application() -> None:
        with _KIND.open() as sock:
            sock.bind((address, 0))
            for _ in range(_ROOM // 2 + 100):  # two events each
                limits.writer.apply(tables.LEASES.drop(1))
                limits.set(1, lease)
                sock.sendto(bytes(20), (CORRESPONDENT[_KIND.family], PORT + 90))

    limits.world.place("fixed").do(application)
    assert limits.writer.losses()["event"] - lost == 2 * (_ROOM // 2 + 100) - _ROOM
    before = limits.writer.meters()[1]
    _send(limits, address, 3)
    after = limits.writer.meters()[1]
    assert Sent(after.bytes - before.bytes, after.packets - before.packets) == Sent(3 * _WEIGHT, 3)
    told: list[KernelEvent] = ring.take()
    assert len(told) == _ROOM
    limits.writer.apply(tables.LEASES.drop(1))
    limits.set(1, lease)
    _send(limits, address, 1)
    assert [each.kind for each in ring.take()] == ["warn", "spent"]
