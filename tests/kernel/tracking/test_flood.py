"""No class can make another's counts wrong by what it does itself."""

import ctypes as ct
import ipaddress
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import Final

from odm_agent.core.errors import OdmError
from odm_agent.core.model import Family, IPAddress
from odm_agent.datapath import abi
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.client import Kind, ask
from tests.lab.counts import look, settles_at, total
from tests.lab.host import FIXED, prefix_of
from tests.lab.place import Ready
from tests.lab.world import World

_IPV6_FREEBIND: Final = 78
_HELD: Final = 300
#: Of no class of the world.
_NOBODY: Final = abi.MAX_CLASSES - 1


def _unconfigured() -> Iterator[IPAddress]:
    """Addresses of a typed prefix that no interface has."""
    network = prefix_of(FIXED, Family.IPV6).network
    return (network.network_address + 0x10000 + number for number in range(1 << 32))


def test_A2_addresses_that_are_not_configured_are_counted_together(tracked: World) -> None:
    """Any process may bind to them: a row each would fill the map in a second."""

    def application(ready: Ready) -> None:
        held = []
        for address in islice(_unconfigured(), _HELD):
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            ask(sock, FIXED)
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_FREEBIND, 1)
            sock.bind((str(address), 0))
            held.append(sock)
        ready(None)
        signal.pause()

    with tracked.place("every").background(application):
        assert total(tracked.agent) == _HELD
        rows = look(tracked.agent).live
        assert {str(key.address): count for key, count in rows.items()} == {"::": _HELD}
        metric = 'odm_sockets{class="every",counted="kernel",family="ipv6",type="fixed"} 300.0'
        assert metric in tracked.agent.metrics()
    settles_at(tracked.agent, 0, timeout_s=10)


@contextmanager
def _no_room(datapath: MapWriter) -> Iterator[None]:
    """While the body runs the map of counts by address takes no further row."""
    rows = datapath._maps["odm_live"]
    keys = []
    try:
        for number in range(abi.MAX_LIVE + 1):
            address = ipaddress.IPv6Address((0x20010DB8 << 96) + number)
            key = abi.LiveKey(addr=abi.pack_addr(address), class_id=_NOBODY, type=int(FIXED))
            try:
                rows.put(key, ct.c_uint64(0))
            except (OSError, OdmError):
                break
            keys.append(key)
        yield
    finally:
        for key in keys:
            rows.delete(key)


def test_A2_what_found_no_room_is_not_taken_back_from_what_did(tracked: World) -> None:
    """The first socket finds the map full, the second has a row; the first one ends before it."""

    def application(ready: Ready) -> None:
        first, second = Kind.UDP6.open(), Kind.UDP6.open()
        first.connect(Kind.UDP6.destination)
        ready("first")
        assert signal.sigwait([signal.SIGUSR1])
        second.connect(Kind.UDP6.destination)
        first.close()
        ready("second")
        assert signal.sigwait([signal.SIGUSR1])
        second.close()
        ready("none")
        signal.pause()

    def blocking(ready: Ready) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        application(ready)

    with MapWriter(tracked.agent.pins) as datapath, ExitStack() as stack:
        lost = datapath.losses()["address"]
        with _no_room(datapath):
            talk = stack.enter_context(tracked.place("counted").conversation(blocking))
            assert talk.hear() == "first"
            assert sum(datapath.usage().values()) == 1
        os.kill(talk.pid, signal.SIGUSR1)
        assert talk.hear() == "second"
        assert total(tracked.agent) == 1, "the second socket, and nothing below 0"
        os.kill(talk.pid, signal.SIGUSR1)
        assert talk.hear() == "none"
        assert total(tracked.agent) == 0
        assert datapath.losses()["address"] == lost + 1
