"""From a prefix that waits for its network nothing leaves, and nobody is told so."""

import ctypes as ct
import time
from collections.abc import Callable, Iterator

import pytest

from odm_agent.core.model import AddressType
from odm_agent.datapath import abi, libbpf
from tests.lab.client import Kind, ask, call, exchange, outcome
from tests.lab.host import FIXED, GRACEFUL, type_of
from tests.lab.place import Ready
from tests.lab.world import World

Waiting = Callable[[bool], None]


@pytest.fixture
def waiting(stopped: World) -> Iterator[Waiting]:
    """What has the IPv6 prefix of graceful-replacement wait, or not; it does not at the end. No
    agent is there that would put it right.
    """
    pinned = libbpf.get_pinned(stopped.agent.pins / "odm_offers")
    offers = libbpf.Map(pinned, ct.c_uint32, abi.Prefix, "odm_offers")

    def wait(waits: bool) -> None:
        for id_, row in list(offers.items()):
            if row.type == GRACEFUL and row.family == abi.FamilyIndex.IPV6:
                row.flags = row.flags & ~abi.PREFIX_WAITS | (abi.PREFIX_WAITS if waits else 0)
                offers.put(id_, row)

    try:
        yield wait
    finally:
        wait(False)
        offers.close()


def _is_seen(world: World, type: AddressType, kind: Kind) -> bool:
    return type_of(world.place("every").do(lambda: call(kind, type)).seen) is type


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.UDP6, Kind.SENDTO6])
def test_what_is_sent_goes_nowhere_without_an_error(
    stopped: World, waiting: Waiting, kind: Kind
) -> None:
    place = stopped.place("every")
    waiting(True)
    assert place.do(lambda: outcome(lambda: call(kind, GRACEFUL))) == "timeout"
    assert _is_seen(stopped, FIXED, kind)
    waiting(False)
    assert _is_seen(stopped, GRACEFUL, kind)


@pytest.mark.parametrize("waits_s", [0.3, 8.0])
def test_a_connection_that_is_begun_meanwhile_succeeds_by_the_next_try(
    stopped: World, waiting: Waiting, waits_s: float
) -> None:
    def application(ready: Ready) -> None:
        with Kind.TCP6.open() as sock:
            sock.settimeout(40.0)
            ask(sock, GRACEFUL)
            ready(None)
            ready(exchange(sock, Kind.TCP6).seen)

    waiting(True)
    with stopped.place("every").conversation(application) as talk:
        talk.hear()
        time.sleep(waits_s)
        waiting(False)
        assert type_of(talk.hear(40.0)) is GRACEFUL


def test_what_is_on_the_same_host_is_reached(stopped: World, waiting: Waiting) -> None:
    address = stopped.place("every").do(lambda: call(Kind.UDP6, GRACEFUL)).local

    def application() -> str:
        with Kind.UDP6.open() as server, Kind.UDP6.open() as sock:
            server.bind((address, 0))
            sock.bind((address, 0))
            sock.connect(server.getsockname())
            sock.send(b"here")
            return server.recv(16).decode()

    waiting(True)
    assert stopped.place("every").do(application) == "here"
