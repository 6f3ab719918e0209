"""Guards against packet sockets: at every interface, as long as a class is closed to them.

Each test runs with links (tcx) and as on a kernel before 6.6, which has filters only (clsact).
"""

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import pytest

from odm_agent.datapath.guards import clsact, tcx
from tests.kernel.agent.conftest import eventually
from tests.lab.agent import LabClass
from tests.lab.capture import Capture
from tests.lab.client import outcome
from tests.lab.netns import checked
from tests.lab.older import before_6_6
from tests.lab.world import STANDARD, World

#: An IPv4 header from 203.0.113.99 to itself; nobody else sends such a packet.
_PACKET: Final = bytes.fromhex("450000140000400040fd0000cb007163cb007163")
_CLOSED: Final = replace(
    STANDARD,
    classes={**STANDARD.classes, "closed": LabClass(refuse=("packet",))},
)
_AUDITED: Final = replace(
    STANDARD,
    classes={**STANDARD.classes, "closed": LabClass(refuse=("packet",), mode="audit")},
)


@pytest.fixture(params=[tcx, clsact], ids=["links", "filters"])
def kind(request: pytest.FixtureRequest) -> ModuleType:
    """How the kernel attaches programs to interfaces."""
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def own(tmp_path: Path, kind: ModuleType) -> Iterator[World]:
    """The standard site with a running agent, for one test alone."""
    with World(tmp_path, start=False) as made:
        if kind is clsact:
            made.agent.variables = before_6_6()
        made.agent.start()
        yield made


def _names(world: World) -> set[str]:
    """The interfaces that are guarded."""
    indices = world.agent.guarded()
    return {name for index, name in world.site.host.call(socket.if_nameindex) if index in indices}


def _qdiscs(world: World, interface: str) -> list[str]:
    shown = checked(world.site.host.command(["tc", "-j", "qdisc", "show", "dev", interface]))
    found: list[dict[str, Any]] = json.loads(shown)
    return [each["kind"] for each in found]


def _send(interface: str) -> str:
    """What an application is told that sends a frame."""

    def application() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
            sock.sendto(_PACKET, (interface, 0x0800, 0, 0, b"\xff" * 6))

    return outcome(application)


def _arrives(world: World, place: str) -> bool:
    with Capture(world.site.a, "to-host") as capture:
        world.place(place).do(lambda: _send("w0"))
        return any(str(packet.source) == "203.0.113.99" for packet in capture.packets())


def test_guards_come_and_go_with_the_class_and_with_interfaces(
    own: World, kind: ModuleType
) -> None:
    own.place("closed")
    assert _names(own) == set(), "it costs every packet a little: not without need"
    own.agent.configure(_CLOSED)
    assert own.agent.reload().returncode == 0
    assert _names(own) >= {"w0", "w1"}
    assert ("clsact" in _qdiscs(own, "w0")) == (kind is clsact)
    assert {path.name.partition("-")[0] for path in kind.folder(own.agent.pins).iterdir()} == {
        str(index) for index in own.agent.guarded()
    }
    assert not _arrives(own, "closed")
    assert _arrives(own, "plain")
    own.site.host.ip("link", "add", "later", "type", "veth", "peer", "name", "later-end")
    eventually(lambda: {"later", "later-end"} <= _names(own), "new interfaces are guarded")
    own.site.host.ip("link", "del", "later")
    eventually(lambda: not {"later"} & _names(own), "it is forgotten with its interface")
    eventually(
        lambda: len(list(kind.folder(own.agent.pins).iterdir())) == len(_names(own)),
        "no pin is left of it",
    )
    own.agent.sigkill()
    assert not _arrives(own, "closed")
    own.agent.start()
    assert not _arrives(own, "closed")
    own.agent.configure(_AUDITED)
    assert own.agent.reload().returncode == 0
    assert _arrives(own, "closed")
    assert 'class="closed",hook="frames",reason="closed"' in own.agent.metrics()
    own.agent.configure(STANDARD)
    assert own.agent.reload().returncode == 0
    assert _names(own) == set()
    assert "clsact" not in _qdiscs(own, "w0")


def test_detach_takes_the_guards_away(own: World) -> None:
    own.place("closed")
    own.agent.configure(_CLOSED)
    assert own.agent.reload().returncode == 0
    own.agent.close()
    assert "clsact" not in _qdiscs(own, "w0")
    assert _arrives(own, "closed")
