"""Counts under load: no drift, never negative, and equal to what is there when all stand still."""

import os
import random
import resource
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Final

from odm_agent.agent.counts import Counts
from odm_agent.core.model import Family
from odm_agent.datapath.maps.writer import MapWriter
from tests.kernel.tracking.conftest import routed
from tests.lab.client import Kind, ask, disconnect
from tests.lab.counts import settles_at, total
from tests.lab.host import CORRESPONDENT, FIXED, NONPERSISTENT
from tests.lab.place import Place, Ready
from tests.lab.process import in_step, wait_until
from tests.lab.world import PLAIN, World

_PROCESSES: Final = 4
_CYCLES: Final = 25_000
_PORT: Final = 26600
_RESET: Final = struct.pack("ii", 1, 0)
#: What one process of a class can hold at a time, with a margin for connections that are ending.
_AT_MOST: Final = 64


@contextmanager
def _swallower(world: World) -> Iterator[None]:
    """Takes connections of both families and ends them at once, outside of the host."""

    def serve(ready: Ready) -> None:
        listeners = []
        for family in Family:
            af = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
            listener = socket.socket(af)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((CORRESPONDENT[family], _PORT))
            listener.listen(1024)
            listeners.append(listener)
        threads = [threading.Thread(target=_swallow, args=(each,)) for each in listeners]
        for thread in threads:
            thread.start()
        ready(None)
        signal.pause()

    with Place(world.place(PLAIN).cgroup, world.site.c).background(serve):
        yield


def _swallow(listener: socket.socket) -> None:
    while True:
        with suppress(OSError):
            listener.accept()[0].close()


def _cycle(draw: random.Random, addresses: dict[Family, str]) -> None:
    """One socket, opened, used and closed in a way drawn by lot."""
    kind = draw.choice((Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED, Kind.SENDTO6, Kind.TCP6, Kind.TCP4))
    address = kind.spell(addresses[kind.family])
    to = (kind.spell(CORRESPONDENT[kind.family]), _PORT)
    with socket.socket(*kind.value[:3]) as sock, suppress(OSError):
        way = draw.randrange(8)
        if way == 0:
            ask(sock, draw.choice((FIXED, NONPERSISTENT)))
        if way in (1, 2):
            sock.bind((address, 0))
        if way == 2:
            return
        if not kind.stream and not kind.connects:
            sock.sendto(b"x", to)
            return
        if kind.stream and draw.random() < 0.8:  # most of the connections would wait in TIME_WAIT
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        sock.connect(to)
        if way == 3:
            disconnect(sock)
            sock.connect(to)
        if way == 4 and kind.stream:
            sock.send(b"x" * 2000)


def _churn(
    world: World, place: str, cycles: int, addresses: dict[Family, str]
) -> Callable[[], None]:
    def application() -> None:
        draw = random.Random(f"{place} {os.getpid()}")
        for _ in range(cycles):
            _cycle(draw, addresses)

    return lambda: world.place(place).do(application, timeout_s=100)


def _given(world: World) -> int:
    """How often a typed address was given or accepted."""
    with MapWriter(world.agent.pins) as datapath:
        return sum(
            count
            for key, count in datapath.verdicts().items()
            if key.verdict in ("assign", "accept") and key.type and key.hook != "setsockopt"
        )


def test_no_drift_after_100_000_sockets(tracked: World) -> None:
    addresses = {family: tracked.address(FIXED, family) for family in Family}
    places = ("counted", "counted2", "every", "bare")[:_PROCESSES]
    samples: list[int] = []
    given = _given(tracked)
    with _swallower(tracked), MapWriter(tracked.agent.pins) as datapath:
        threads = [
            threading.Thread(target=_churn(tracked, place, _CYCLES, addresses)) for place in places
        ]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            # A count below 0 would read as a very large one.
            samples += [*datapath.usage().values(), *datapath.live().values()]
            time.sleep(0.05)
        for thread in threads:
            thread.join()
    assert 0 < max(samples) <= 1 << 17
    given = _given(tracked) - given
    assert given > _PROCESSES * _CYCLES // 2, "most sockets got a typed address"
    settles_at(tracked.agent, 0, timeout_s=20)
    with MapWriter(tracked.agent.pins) as datapath:
        assert set(datapath.losses().values()) == {0}
    assert "odm_count_corrections_total 0.0" in tracked.agent.metrics()


def test_counts_are_right_in_the_midst_of_it(tracked: World) -> None:
    """Stopped at any moment, what is counted is what is there, socket by socket."""
    addresses = {family: tracked.address(FIXED, family) for family in Family}

    def application(ready: Ready) -> None:
        ready(None)
        draw = random.Random(os.getpid())
        while True:
            _cycle(draw, addresses)

    freezer = tracked.cgroup.path / "cgroup.freeze"
    events = tracked.cgroup.path / "cgroup.events"
    with (
        _swallower(tracked),
        tracked.place("counted").background(application),
        tracked.place("every").background(application),
    ):
        try:
            for _ in range(20):
                time.sleep(0.05)
                freezer.write_text("1")
                wait_until(lambda: "frozen 1" in events.read_text(), "all stand still")
                assert total(tracked.agent) <= _AT_MOST
                freezer.write_text("0")
        finally:
            freezer.write_text("0")


def test_looks_that_never_end_find_nothing_wrong(tracked: World) -> None:
    """Few sockets that come and go make the same small differences again and again."""
    addresses = {family: tracked.address(FIXED, family) for family in Family}
    with _swallower(tracked), MapWriter(tracked.agent.pins) as datapath:
        counts, looks = Counts(datapath), 0
        typed = {ip_address(tracked.address(t, f)) for t in (FIXED, NONPERSISTENT) for f in Family}
        thread = threading.Thread(target=_churn(tracked, "counted", 60_000, addresses))
        thread.start()
        while thread.is_alive():
            counts.correct(typed)
            looks += 1
            time.sleep(0.02)
        thread.join()
        assert looks > 10
        assert counts.corrected == 0
        assert set(datapath.losses().values()) == {0}


def test_two_that_send_first_by_one_socket_take_one_place(tracked: World) -> None:
    """Both reach for a place at the same moment; one of the two is given back.

    Only at egress nothing keeps them apart: all other hooks run under the socket's lock.
    """
    count = 3000

    def application() -> int:
        sockets = [Kind.SENDTO6.open() for _ in range(count)]
        with in_step() as wait:
            for sock in sockets:
                wait()
                sock.sendto(b"x", Kind.SENDTO6.destination)
        with MapWriter(tracked.agent.pins) as datapath:
            return sum(datapath.usage().values())

    with _more_files(), routed(tracked, Family.IPV6):
        assert tracked.place("bare").do(application, timeout_s=60) == count
    settles_at(tracked.agent, 0)


@contextmanager
def _more_files() -> Iterator[None]:
    """Let one process hold some thousands of sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
