"""Packet and XDP sockets of classes that refuse them, where the kernel lets that be at creation.

On other kernels the program is left out, and `odm-agent check` says so (tests/unit/cli).
"""

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from odm_agent.config.schema import AgentConfig
from odm_agent.datapath.guards import creation
from odm_agent.datapath.install import lost_pins
from odm_agent.kernel.namespace import netns_cookie
from tests.kernel.survival.conftest import QUICK, outdate
from tests.kernel.survival.test_pins import bpffs
from tests.lab import compat
from tests.lab.agent import LabClass, Settings
from tests.lab.capture import Capture
from tests.lab.client import outcome
from tests.lab.place import Ready
from tests.lab.world import PLAIN, World
from tests.rfc8653.bypass.uring import Uring, helper

pytestmark = pytest.mark.skipif(
    creation.way() is None,
    reason=f"no program runs at the creation of sockets: {creation.hindrances()}",
)

_AF_XDP: Final = 44
_SOCK_PACKET: Final = 10
_CLONE_NEWUSER_NEWNET: Final = 0x50000000
_REFUSED: Final = ("packet", "xdp")
_COUNTED: Final = 'class="closed",hook="sock-create",reason="closed"'
#: An IPv4 header from 203.0.113.99 to itself; nobody else sends such a packet.
_PACKET: Final = bytes.fromhex("450000140000400040fd0000cb007163cb007163")


def _with(closed: LabClass) -> Settings:
    return replace(QUICK, classes={**QUICK.classes, "closed": closed})


_CLOSED: Final = _with(LabClass(refuse=_REFUSED))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """A site with a running agent and a closed class, for one test alone."""
    with World(tmp_path, _CLOSED) as made:
        yield made


def _open(family: int, kind: int, protocol: int = 0) -> Callable[[], None]:
    return lambda: os.close(socket.socket(family, kind, protocol).detach())


def _open_compat(family: int) -> None:
    os.close(compat.open_socket(family, socket.SOCK_RAW))


#: Every door to such a socket.
_DOORS: Final = {
    "raw": _open(socket.AF_PACKET, socket.SOCK_RAW),
    "cooked": _open(socket.AF_PACKET, socket.SOCK_DGRAM),
    "old": _open(socket.AF_INET, _SOCK_PACKET),
    "xdp": _open(_AF_XDP, socket.SOCK_RAW),
    "32-bit": lambda: _open_compat(socket.AF_PACKET),
    "32-bit xdp": lambda: _open_compat(_AF_XDP),
    "io_uring": lambda: Uring().open(socket.AF_PACKET, socket.SOCK_RAW, 0).close(),
    "io_uring worker": lambda: (
        Uring(worker=True).open(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
    ),
}


def _told(world: World, place: str) -> dict[str, str]:
    """What an application is told at each door."""
    compat.prepare()
    helper()
    return world.place(place).do(lambda: {name: outcome(door) for name, door in _DOORS.items()})


def _all(told: str) -> dict[str, str]:
    return dict.fromkeys(_DOORS, told)


def test_S9_sockets_of_a_closed_class_are_refused_at_their_creation(own: World) -> None:
    """By whatever door, agent or no agent; and nobody else's are."""
    assert _told(own, "closed") == _all("EACCES")
    assert _told(own, PLAIN) == _told(own, "every") == _all("ok")
    assert _COUNTED in own.agent.metrics()
    assert own.place("closed").do(lambda: outcome(_open(socket.AF_INET, socket.SOCK_STREAM))) == (
        "ok"
    )
    own.agent.sigkill()
    assert _told(own, "closed") == _all("EACCES")
    assert _told(own, PLAIN) == _all("ok")


def _send(interface: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        sock.sendto(_PACKET, (interface, 0x0800, 0, 0, b"\xff" * 6))


def test_A1_interface_that_no_agent_has_seen_carries_nothing_of_a_closed_class(own: World) -> None:
    own.agent.sigkill()
    host = own.site.host
    host.ip("link", "add", "late", "type", "veth", "peer", "late-end", "netns", own.site.a.name)
    host.ip("link", "set", "late", "up")
    own.site.a.ip("link", "set", "late-end", "up")
    with Capture(own.site.a, "late-end") as capture:
        assert own.place("closed").do(lambda: outcome(lambda: _send("late"))) == "EACCES"
        assert not [p for p in capture.packets() if str(p.source) == "203.0.113.99"]
        assert own.place(PLAIN).do(lambda: outcome(lambda: _send("late"))) == "ok"
        assert [p for p in capture.packets() if str(p.source) == "203.0.113.99"]


def test_closing_holds_from_the_reload_on_and_ends_with_it(own: World) -> None:
    for closed, told in (
        (LabClass(), "ok"),
        (LabClass(refuse=_REFUSED), "EACCES"),
        (LabClass(refuse=_REFUSED, mode="audit"), "ok"),
        (LabClass(refuse=_REFUSED, mode="off"), "ok"),
    ):
        own.agent.configure(_with(closed))
        assert own.agent.reload().returncode == 0
        assert _told(own, "closed") == _all(told)
        if closed.mode == "audit":
            assert f'{_COUNTED},type="unspecified",verdict="audit"' in own.agent.metrics()


def test_sockets_in_other_namespaces_are_left_alone(own: World) -> None:
    """What is in a namespace of the application's own reaches none of our interfaces."""

    def application() -> dict[str, str]:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWUSER_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        return {name: outcome(door) for name, door in _DOORS.items()}

    compat.prepare()
    helper()
    assert own.place("closed").do(application) == _all("ok")


def test_upgrade_leaves_no_moment_in_which_one_can_be_opened(own: World) -> None:
    stop = own.agent.folder / "stop"

    def application(ready: Ready) -> None:
        ready(None)
        told: dict[str, int] = {}
        while not stop.exists():
            for name in ("raw", "xdp"):
                key = outcome(_DOORS[name])
                told[key] = told.get(key, 0) + 1
        ready(told)

    before = _program(own)
    outdate(own)
    with own.place("closed").conversation(application) as talk:
        talk.hear()
        done = own.agent.call("upgrade", "-c", str(own.agent.config))
        assert done.returncode == 0, done.stderr
        stop.touch()
        told = talk.hear()
    assert list(told) == ["EACCES"] and told["EACCES"] > 10
    assert _program(own) != before


def _program(world: World) -> int:
    from odm_agent.datapath import libbpf

    with libbpf.opened(libbpf.get_pinned(world.agent.pins / creation.PROGRAM)) as fd:
        return libbpf.link_info(fd).prog_id


def test_pin_that_was_removed_is_an_alarm_and_comes_back(own: World) -> None:
    (own.agent.pins / creation.PROGRAM).unlink()
    (alarm,) = own.agent.read("status")["alarms"]
    assert "at their creation" in alarm
    own.agent.sigkill()
    own.agent.start()
    assert not own.agent.read("status")["alarms"]
    assert _told(own, "closed") == _all("EACCES")


def test_detach_ends_it_at_once(own: World) -> None:
    own.agent.close()
    assert _told(own, "closed") == _all("ok")


def test_lost_pins_are_found_again_and_detach_ends_what_is_pinned_nowhere(tmp_path: Path) -> None:
    with bpffs(tmp_path / "bpf") as mount, World(tmp_path, _CLOSED, start=False) as world:
        world.agent.pins = mount / "odm"
        world.agent.configure(_CLOSED)
        world.agent.start()
        program = _program(world)
        with bpffs(mount):
            world.agent.sigkill()
            assert _told(world, "closed") == _all("EACCES")
            world.agent.start()
            assert _program(world) == program
        world.agent.sigkill()
        with bpffs(mount):
            done = world.agent.call("detach", "-c", str(world.agent.config))
            assert "programs whose pins were lost" in done.stdout, done.stderr
            assert _told(world, "closed") == _all("ok")
            assert lost_pins.remove(world.site.host.call(netns_cookie), AgentConfig().protocol) == 0
        subprocess.run(["rm", "-r", str(world.agent.pins)], check=True)
