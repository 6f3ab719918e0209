"""What rows of cgroups say that nobody could find out again is there in other maps, too.

The class of a cgroup that was removed, whose sockets go on; and what sockets keep of a class that
has ended. The witness is a connection from before: its peer hears from it, or not.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.lab.agent import LabClass, Settings
from tests.lab.client import outcome
from tests.lab.host import FIXED, PREFIXES
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.version import another_version
from tests.lab.world import PLAIN, World

_PORT: Final = 27177
_CLASS: Final = LabClass(allow=(FIXED,), default=FIXED)
_SETTINGS: Final = Settings(PREFIXES, {"service": _CLASS, "other": _CLASS})
#: How the class, or its cgroup, ends.
_OFF: Final = replace(
    _SETTINGS, classes={**_SETTINGS.classes, "service": replace(_CLASS, mode="off")}
)
_REMOVED: Final = replace(_SETTINGS, classes={"other": _CLASS})
#: Maps that the other version has under another name.
_CGROUPS: Final = {"odm_cgroups": "odm_cgroups_2"}
_BOTH: Final = {**_CGROUPS, "odm_classes": "odm_classes_2"}
_CAPS: Final = {"odm_caps": "odm_caps_2"}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, _SETTINGS) as made:
        yield made


@contextmanager
def _connection(
    world: World, place: str = "service", session: Path | None = None
) -> Iterator[socket.socket]:
    """From outside to a server of the class; its process moves to `session`, if there is one."""
    address = world.address(FIXED, Family.IPV6)

    def serve(ready: Ready) -> None:
        with socket.create_server((address, _PORT), family=socket.AF_INET6) as server:
            ready(None)
            connection, _ = server.accept()
        if session is not None:
            session.write_text("0")
        while question := connection.recv(100):
            connection.send(question)

    with (
        world.place(place).background(serve),
        world.site.c.call(socket.socket, socket.AF_INET6) as peer,
    ):
        peer.settimeout(3)
        peer.connect((address, _PORT))
        assert _goes_on(peer)
        yield peer


def _goes_on(peer: socket.socket) -> bool:
    def talk() -> None:
        peer.send(b"still there?")
        assert peer.recv(100) == b"still there?"

    return outcome(talk) == "ok"


def _upgrade(world: World, folder: Path, renamed: dict[str, str]) -> None:
    world.agent.version = another_version(folder, abi_tag=77, renamed=renamed)
    done = world.agent.call("upgrade", "-c", str(world.agent.config))
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in renamed.values()), "the control"


def _upgraded_and_started(
    world: World, folder: Path, renamed: dict[str, str], peer: socket.socket
) -> None:
    """It goes on over an upgrade, and with the agent that follows."""
    _upgrade(world, folder, renamed)
    assert _goes_on(peer)
    world.agent.start()
    assert _goes_on(peer)


@pytest.mark.parametrize(
    ("after", "renamed"), [(_OFF, _BOTH), (_REMOVED, _CGROUPS)], ids=["off", "removed"]
)
def test_sockets_of_a_class_that_has_ended_keep_their_source(
    world: World, tmp_path: Path, after: Settings, renamed: dict[str, str]
) -> None:
    with _connection(world) as peer:
        world.agent.configure(after)
        world.agent.reload()
        assert _goes_on(peer)
        _upgraded_and_started(world, tmp_path / "other", renamed, peer)


@pytest.mark.parametrize(
    ("after", "renamed"),
    [(_OFF, _CGROUPS), (_REMOVED, _BOTH), (_OFF, _CAPS)],
    ids=["off-cgroups", "removed-both", "off-caps"],
)
def test_so_do_those_of_a_class_that_ends_while_no_agent_runs(
    world: World, tmp_path: Path, after: Settings, renamed: dict[str, str]
) -> None:
    with _connection(world) as peer:
        world.agent.stop()
        world.agent.configure(after)
        _upgraded_and_started(world, tmp_path / "other", renamed, peer)


@pytest.mark.parametrize("below", ["", "/worker"], ids=["in it", "in one below"])
def test_sockets_whose_cgroup_was_removed_keep_their_class(
    world: World, tmp_path: Path, below: str
) -> None:
    service = world.place("service").cgroup
    cgroup = world.place(f"service{below}").cgroup
    session = world.place(PLAIN).cgroup.procs
    with _connection(world, f"service{below}", session) as peer:
        wait_until(lambda: not cgroup.procs.read_text(), "its process has left")
        cgroup.path.rmdir()
        if below:
            service.path.rmdir()
        assert _goes_on(peer)
        _upgraded_and_started(world, tmp_path / "other", _BOTH, peer)
