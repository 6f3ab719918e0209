"""What was sent is known over upgrades, kills, and maps that begin anew."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from odm_agent.datapath.install import pins
from tests.kernel.survival.conftest import QUICK, outdate
from tests.lab.agent import LabClass
from tests.lab.client import PORT, Kind
from tests.lab.host import CORRESPONDENT, SESSION
from tests.lab.version import another_version
from tests.lab.world import World

#: Its session-lasting addresses end by themselves, but not while a test runs.
_ENDING: Final = replace(
    QUICK,
    classes={"session": LabClass(allow=(SESSION,), default=SESSION)},
    extra={each: {"budget": "10GB", "rotate": "1d"} for each in ("session6", "session4")},
)
_KINDS: Final = {"session6": Kind.SENDTO6, "session4": Kind.SENDTO4}
#: IP and UDP headers.
_HEADERS: Final = {Family.IPV6: 48, Family.IPV4: 28}
#: In bytes, and how many.
_PAYLOAD, _DATAGRAMS = 1000, 50
_RENAMED: Final = {f"odm_{each}": f"odm_{each}_2" for each in ("leases", "meters", "traffic")}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """The site with addresses that end and a running agent, for one test alone."""
    with World(tmp_path, _ENDING) as made:
        yield made


def _send(world: World) -> dict[str, int]:
    """Datagrams from each prefix's address; what they weigh, by the prefix's name."""

    def application() -> None:
        for kind in _KINDS.values():
            with kind.open() as sock:
                for _ in range(_DATAGRAMS):
                    sock.sendto(bytes(_PAYLOAD), (CORRESPONDENT[kind.family], PORT + 90))

    world.place("session").do(application)
    return {name: _DATAGRAMS * (_PAYLOAD + _HEADERS[kind.family]) for name, kind in _KINDS.items()}


def _used(world: World) -> dict[str, tuple[str, int]]:
    """By the session prefixes' names: the current address, and what its lease's meter says."""
    return {
        each["prefix"]: (each["address"], each["used_bytes"])
        for each in world.agent.read("lifetimes")
        if each["prefix"] in _KINDS and each["phase"] == "current"
    }


def _total(world: World) -> int:
    usage = world.agent.read("usage", "--class", "session", "--type", SESSION.word)
    return sum(each["bytes"] for each in usage)


def _upgraded(world: World) -> None:
    outdate(world)
    done = world.agent.call("upgrade", "-c", str(world.agent.config))
    assert done.returncode == 0, done.stderr


def _upgraded_to_other_maps(world: World) -> None:
    other = world.agent.folder / "other"
    world.agent.version = another_version(other, abi_tag=77, renamed=_RENAMED)
    done = world.agent.call("upgrade", "-c", str(world.agent.config))
    assert done.returncode == 0, done.stderr
    assert set(_RENAMED.values()) <= {path.name for path in world.agent.pins.iterdir()}
    world.agent.start()


def _killed(world: World) -> None:
    world.agent.sigkill()
    world.agent.start()


def _killed_and_without_pins(world: World) -> None:
    """As after a boot: what was noted (each minute, and when an agent ends) is gone on from."""
    world.agent.stop()
    world.agent.start()
    world.agent.sigkill()
    pins.remove(world.agent.pins)
    world.agent.start()
    assert world.agent.log.read_text().count("programs loaded") == 2


@pytest.mark.parametrize(
    "again", [_upgraded, _upgraded_to_other_maps, _killed, _killed_and_without_pins]
)
def test_meters_and_totals_go_on(world: World, again: Callable[[World], None]) -> None:
    sent = _send(world)
    first = _used(world)
    assert {name: used for name, (_, used) in first.items()} == sent
    assert _total(world) == sum(sent.values())
    again(world)
    assert (_used(world), _total(world)) == (first, sum(sent.values()))
    more = _send(world)
    assert _used(world) == {
        name: (address, used + more[name]) for name, (address, used) in first.items()
    }
    assert _total(world) == sum(sent.values()) + sum(more.values())
    _killed(world)
    assert _total(world) == sum(sent.values()) + sum(more.values())
