"""D6: what was requested goes back when its last socket is gone and its time is over, or stays."""

import time
from collections.abc import Iterator

import pytest

from odm_agent.control.client import ControlClient
from odm_agent.core.model import AddressType, Family
from tests.lab.asking import AskingWorld, granted
from tests.lab.client import Kind, ask, call, exchange, outcome
from tests.lab.host import NONPERSISTENT, SESSION, prefix_of
from tests.lab.place import Ready
from tests.lab.process import wait_until

#: Everything is looked at so often, and kept for so long at least, that a test can wait for it.
_LOOK_S = 1.0
_KINDS = [Kind.TCP6, Kind.TCP4, Kind.SENDTO6, Kind.UDP6, Kind.MPTCP6]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskingWorld]:
    """A network that gives what goes back at once, and what is kept."""
    quick = {"ODM_RESYNC_S": str(_LOOK_S), "ODM_LEAST_S": str(_LOOK_S)}
    with AskingWorld(tmp_path_factory.mktemp("release"), None, **quick) as made:
        yield made


def _serves(world: AskingWorld, kind: Kind, type_: AddressType) -> bool:
    return world.place("asking").do(lambda: outcome(lambda: call(kind, type_))) == "ok"


def _names(world: AskingWorld) -> set[str]:
    with ControlClient(world.agent.socket) as client:
        return {each["name"] for each in client.call("prefixes")}


@pytest.mark.parametrize("kind", _KINDS, ids=lambda each: each.name)
def test_D6_it_goes_back_after_its_last_socket_and_not_before(
    world: AskingWorld, kind: Kind
) -> None:
    """A socket that lives keeps it, however often it is looked at; the next need requests anew."""
    world.script(granted(SESSION, kind.family, release_s=0))
    name = f"session-lasting/{kind.family}"

    def lives(ready: Ready) -> None:
        for _ in range(1000):
            sock = kind.open()
            ask(sock, SESSION)
            try:
                ready(exchange(sock, kind).seen)
                break
            except OSError:
                sock.close()
                time.sleep(0.05)
        while True:
            time.sleep(0.2)
            if kind.connects:
                sock.send(b"x")
            else:
                sock.sendto(b"x", kind.destination)

    with world.place("asking").conversation(lives) as talk:
        assert talk.hear(60) in prefix_of(SESSION, kind.family)
        world.told()
        time.sleep(5 * _LOOK_S)
        assert name in _names(world)
        assert world.told() == []
    wait_until(lambda: name not in _names(world), "it is given back", 60)
    told: list[str] = []

    def is_told() -> bool:
        told.extend(world.told())
        return f"give back {name}" in told

    wait_until(is_told, "the network is told", 60)
    wait_until(lambda: _serves(world, kind, SESSION), "it is requested anew", 60)
    assert f"request {name}" in world.told()
    wait_until(lambda: name not in _names(world), "it is given back again", 60)


def test_D6_what_is_kept_stays_without_a_socket(world: AskingWorld) -> None:
    world.script(granted(NONPERSISTENT, Family.IPV6))
    wait_until(lambda: _serves(world, Kind.TCP6, NONPERSISTENT), "an address", 60)
    world.told()
    time.sleep(5 * _LOOK_S)
    assert "nonpersistent/6" in _names(world)
    assert _serves(world, Kind.TCP6, NONPERSISTENT)
    assert world.told() == []


def test_D6_it_is_kept_for_as_long_as_it_says(world: AskingWorld) -> None:
    """Counted from its last socket on."""
    world.script(granted(NONPERSISTENT, Family.IPV4, release_s=6.0))
    wait_until(lambda: _serves(world, Kind.TCP4, NONPERSISTENT), "an address", 60)
    begun_s = time.monotonic()
    assert _serves(world, Kind.TCP4, NONPERSISTENT)
    wait_until(lambda: "nonpersistent/4" not in _names(world), "it is given back", 60)
    assert time.monotonic() - begun_s >= 6.0
