"""A number stands for one name as long as anything carries it, and then for another."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from odm_agent.control.client import ControlClient
from odm_agent.core.model import Family, Placement
from tests.lab.agent import LabClass, Settings
from tests.lab.client import Kind, ask
from tests.lab.host import FIXED, SESSION, LabPrefix, prefix_of
from tests.lab.metrics import counts
from tests.lab.place import Ready
from tests.lab.world import World

BASE = prefix_of(FIXED, Family.IPV6)


@pytest.fixture
def hasty(tmp_path: Path) -> Iterator[World]:
    """An agent whose numbers need no quarantine."""
    first = {"first": LabClass(allow=(FIXED,), default=FIXED, cgroups=("box",))}
    with World(tmp_path, Settings(prefixes=[BASE], classes=first), start=False) as world:
        world.agent.entry = ["tests.lab.hasty"]
        world.agent.variables = {"PYTHONPATH": str(Path(__file__).parents[3])}
        world.agent.start()
        yield world


def given(world: World, kind: str) -> dict[str, int]:
    """The names that have a number."""
    with closing(sqlite3.connect(world.agent.folder / "state" / "state.db")) as db:
        return dict(db.execute("SELECT name, id FROM ids WHERE kind = ?", (kind,)).fetchall())


def reload(world: World, **changes: object) -> None:
    world.agent.configure(replace(world.agent.settings, **changes))  # type: ignore[arg-type]
    with ControlClient(world.agent.socket) as client:
        client.call("reload")


def refuse_once(world: World) -> None:
    """Have the class of the box refused a type."""

    def application() -> None:
        with Kind.UDP6.open() as sock:
            ask(sock, SESSION)

    with pytest.raises(PermissionError):
        world.place("box").do(application)


@pytest.mark.timeout(300)
def test_500_names_of_classes_one_after_the_other(hasty: World) -> None:
    """A socket of the first class lives on; nobody else gets its number, nor any old counts."""

    def live(ready: Ready) -> None:
        with Kind.UDP6.open() as sock:
            sock.settimeout(None)
            ask(sock, FIXED)
            ready(None)
            sock.recv(1)

    refuse_once(hasty)
    number = given(hasty, "class")["first"]
    with hasty.place("box").background(live):
        for turn in range(500):
            reload(hasty, classes={f"class{turn}": LabClass(cgroups=("box",))})
            now = given(hasty, "class")
            assert now["first"] == number
            assert len(set(now.values())) == len(now)
        assert len(now) <= 254
        assert {labels["class"] for labels, _ in counts(hasty)} == {"first"}
        refuse_once(hasty)
        assert {labels["class"] for labels, _ in counts(hasty)} == {"first", "class499"}
    for turn in range(300):
        reload(hasty, classes={f"later{turn}": LabClass(cgroups=("box",))})
        if "first" not in (now := given(hasty, "class")):
            break
    assert now[f"later{turn}"] == number, "the lowest, as soon as its socket is gone"
    assert {labels["class"] for labels, _ in counts(hasty)} <= {"class499"}


@pytest.mark.timeout(300)
def test_300_names_of_prefixes_one_after_the_other(hasty: World) -> None:
    """A socket keeps the mark of the first prefix: nobody else gets its number."""

    def live(ready: Ready) -> None:
        with Kind.UDP6.open() as sock:
            sock.settimeout(None)
            sock.connect(Kind.UDP6.destination)
            ready(str(sock.getsockname()[0]))
            sock.recv(1)

    number = given(hasty, "prefix")[BASE.name]
    with hasty.place("box").background(live) as source:
        assert source in BASE
        for turn in range(300):
            network = IPv6Network((int(BASE.network.network_address) + (turn + 1 << 64), 64))
            prefix = LabPrefix(f"prefix{turn}", FIXED, network, Placement.DELEGATED, "A")
            reload(hasty, prefixes=[prefix])
            now = given(hasty, "prefix")
            assert now[BASE.name] == number
            assert len(set(now.values())) == len(now)
        assert hasty.agent.addresses("prefix299")
        assert len(now) <= 255
