"""Pins that are lost, hidden or elsewhere: what enforces is found, and never doubled."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from socket import if_nametoindex
from typing import Final

import pytest

from odm_agent.config.schema import AgentConfig
from odm_agent.datapath.catalogue import ELSEWHERE_PINS, MAPS, TRACEPOINTS
from odm_agent.datapath.guards import clsact, creation
from odm_agent.datapath.install import lost_pins
from odm_agent.kernel.namespace import netns_cookie
from tests.kernel.survival.conftest import QUICK, Counters, link_ids, outdate, program_ids
from tests.lab.agent import Agent, LabClass
from tests.lab.client import Kind, ask, call, exchange
from tests.lab.host import FIXED, SESSION, Site, type_of
from tests.lab.older import before_6_6
from tests.lab.place import Place, Ready
from tests.lab.process import wait_until
from tests.lab.world import World

HIDDEN: Final = "enforced by programs whose pins are hidden"

#: With a class whose packet sockets are refused: a program at each interface.
GUARDED = replace(QUICK, classes={**QUICK.classes, "closed": LabClass(refuse=("packet",))})


@contextmanager
def bpffs(folder: Path) -> Iterator[Path]:
    """A bpf file system of the test's own."""
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "bpf", "bpf", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def elsewhere(tmp_path: Path, *, links: bool = True) -> Iterator[tuple[World, Path]]:
    """A world whose pins are on a bpf file system that can be mounted over.

    `links` says whether the kernel is found to have those at interfaces.
    """
    with bpffs(tmp_path / "bpf") as mount, World(tmp_path, GUARDED, start=False) as world:
        world.agent.pins = mount / "odm"
        world.agent.variables = {} if links else before_6_6()
        world.agent.configure(GUARDED)
        world.agent.start()
        yield world, mount


def _ours(world: World) -> list[lost_pins.Found]:
    return lost_pins.find(world.site.host.call(netns_cookie), world.cgroup.id)


def _filters(world: World) -> list[clsact.Filter]:
    return world.site.host.call(lambda: list(clsact.standing()))


def _new_interfaces(world: World) -> list[int]:
    """The indexes of two interfaces that the host has from now on."""
    host = world.site.host
    host.run(["ip", "link", "add", "new0", "type", "veth", "peer", "name", "new1"])
    return sorted(host.call(lambda: [if_nametoindex("new0"), if_nametoindex("new1")]))


def _alarms(world: World) -> list[str]:
    """How each alarm begins."""
    beginning = re.compile(f"{HIDDEN}|not done: guarding interface [0-9]+ against|.*")
    return [beginning.match(alarm)[0] for alarm in world.agent.read("status")["alarms"]]  # type: ignore[index]


@pytest.mark.parametrize("alive", [False, True], ids=["killed-before", "killed-after"])
@pytest.mark.parametrize("has_links", [True, False], ids=["links", "filters"])
def test_bpffs_mounted_over_the_pins(tmp_path: Path, alive: bool, has_links: bool) -> None:
    """The restarted agent pins anew what is in force; nothing is loaded, no counter begins anew."""
    with elsewhere(tmp_path, links=has_links) as (world, mount):
        filters = _filters(world)
        assert bool(filters) is not has_links
        links, programs, counters = link_ids(world), program_ids(world), Counters(world)
        guarded, new = world.agent.guarded(), list[int]()
        assert guarded
        world.place("fixed").do(lambda: call(Kind.TCP6))
        counted = counters.check()
        with bpffs(mount):
            assert type_of(world.place("fixed").do(lambda: call(Kind.TCP6)).seen) is FIXED
            if alive:
                status = world.agent.read("status")
                assert status["programs"] == len(links)
                assert _alarms(world) == [HIDDEN]
                new = _new_interfaces(world)  # an event, after which all is looked at again
                wait_until(lambda: len(_alarms(world)) > 1, "the new interfaces were seen")
                guarding = [f"not done: guarding interface {index} against" for index in new]
                assert _alarms(world) == [HIDDEN, *guarding]
                assert isinstance(world.agent.read("sockets"), list)
            world.agent.sigkill()
            said = world.agent.call("status", "-c", str(world.agent.config)).stderr
            assert HIDDEN in said
            world.agent.start()
            assert (link_ids(world), program_ids(world)) == (links, programs)
            assert {path.name for path in world.agent.pins.glob("odm_*")} == {
                *MAPS,
                *ELSEWHERE_PINS,
                *TRACEPOINTS,
                *([creation.PROGRAM] if creation.way() else []),
            }
            assert world.agent.guarded() == guarded | set(new)
            assert set(_filters(world)) >= set(filters)
            assert "the pins were lost" in world.agent.log.read_text()
            assert world.agent.log.read_text().count("programs loaded") == 1
            assert counters.check() >= counted
            assert world.agent.read("status")["alarms"] == []
            world.agent.close()
            assert _ours(world) == [], "detach ends the links, below the mount as well"
            assert _filters(world) == []
            assert lost_pins.remove(world.site.host.call(netns_cookie), AgentConfig().protocol) == 0
        subprocess.run(["rm", "-r", str(world.agent.pins)], check=True)


@pytest.mark.parametrize("has_links", [True, False], ids=["links", "filters"])
def test_detach_finds_what_is_pinned_nowhere(tmp_path: Path, has_links: bool) -> None:
    with elsewhere(tmp_path, links=has_links) as (world, mount):
        world.agent.sigkill()
        with bpffs(mount):
            done = world.agent.call("detach", "-c", str(world.agent.config))
            assert "programs whose pins were lost" in done.stdout, done.stderr
            assert (_ours(world), _filters(world)) == ([], [])
        subprocess.run(["rm", "-r", str(world.agent.pins)], check=True)


def test_pin_folder_that_was_changed_is_refused_while_the_old_one_can_be_seen(own: World) -> None:
    old, links = own.agent.pins, link_ids(own)
    own.agent.stop()
    own.agent.pins = old.with_name(old.name + "-new")
    own.agent.configure(QUICK)
    with pytest.raises(AssertionError, match=f"pinned in {old}, not in {old}-new"):
        own.agent.start()
    assert not own.agent.pins.exists()
    own.agent.pins = old
    own.agent.configure(QUICK)
    own.agent.start()
    assert link_ids(own) == links


def test_other_agents_on_the_cgroup_are_not_touched(tmp_path: Path) -> None:
    """Both lose their pins; each finds its own again, and detaches its own only."""
    with (
        elsewhere(tmp_path) as (world, mount),
        Site() as second,
        Agent(second.host, world.cgroup, tmp_path, QUICK) as other,
    ):
        theirs = lost_pins.find(second.host.call(netns_cookie))
        assert len(theirs) == len(_ours(world))
        world.agent.sigkill()
        with bpffs(mount):
            world.agent.start()
            assert not {x.link.id for x in _ours(world)} & {x.link.id for x in theirs}
            world.agent.close()
            assert _ours(world) == []
            assert lost_pins.find(second.host.call(netns_cookie)) == theirs
            place = Place(world.place("fixed").cgroup, second.host)
            assert type_of(place.do(lambda: call(Kind.TCP6)).seen) is FIXED
        subprocess.run(["rm", "-r", str(world.agent.pins)], check=True)
        assert other.read("status")["alarms"] == []


def test_single_pins_that_were_removed_come_back(own: World) -> None:
    """Maps live on in the programs; a link that lost its pin is attached anew."""
    links, counters = link_ids(own), Counters(own)
    own.place("fixed").do(lambda: call(Kind.TCP6))
    counted = counters.check()
    own.agent.sigkill()
    for name in ("odm_verdicts", "odm_identities", "odm_slots", "links/odm_egress"):
        (own.agent.pins / name).unlink()
    own.agent.start()
    after = link_ids(own)
    assert after.pop("odm_egress") != links.pop("odm_egress")
    assert after == links
    assert counters.check() >= counted
    assert type_of(own.place("fixed").do(lambda: call(Kind.TCP6)).seen) is FIXED


def test_lost_pin_of_a_map_is_taken_from_the_programs_in_an_upgrade(own: World) -> None:
    """Socket storage among them: a new one would forget what sockets have asked for."""
    answered = own.agent.folder / "answered"

    def application(ready: Ready) -> None:
        with Kind.TCP6.open() as sock:
            ask(sock, SESSION)
            ready(None)
            while not answered.exists():
                pass
            answered.write_text(exchange(sock, Kind.TCP6).seen)

    own.agent.sigkill()
    with own.place("every").background(application):
        (own.agent.pins / "odm_sockets").unlink()
        outdate(own)
        own.agent.start()
        answered.touch()
        while not answered.read_text():
            pass
    assert type_of(answered.read_text()) is SESSION
