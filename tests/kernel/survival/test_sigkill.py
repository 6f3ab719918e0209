"""SIGKILL of the agent at any moment: what is in force goes on, and is taken over afterwards."""

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from odm_agent.datapath.install import lost_pins
from odm_agent.kernel.namespace import netns_cookie
from tests.kernel.agent.conftest import eventually
from tests.kernel.survival.conftest import QUICK, Counters, link_ids, outdate, program_ids, unharmed
from tests.lab.client import Kind, ask, call, exchange
from tests.lab.host import FIXED, NONPERSISTENT, type_of
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.world import World

#: A restarted agent takes over within a second where nothing else runs; the tests' host is slower.
_GENEROUS_S = 5.0


def _while_running(world: World) -> None:
    world.agent.start()
    time.sleep(random.uniform(0, 0.3))


def _while_starting(world: World) -> None:
    world.agent.launch()
    time.sleep(random.uniform(0.05, 0.9))


def _while_loading(world: World) -> None:
    """The programs are compiled from about 0.4 s to 1.2 s after the start."""
    outdate(world)
    world.agent.launch()
    time.sleep(random.uniform(0.3, 1.8))


def _while_reloading(world: World) -> None:
    world.agent.start()
    world.agent.send(signal.SIGHUP)
    time.sleep(random.uniform(0, 0.05))


@pytest.mark.parametrize(
    "moment", [_while_running, _while_starting, _while_loading, _while_reloading]
)
def test_nothing_changes_for_any_socket_when_the_agent_is_killed(
    own: World, moment: Callable[[World], None]
) -> None:
    links, counters = link_ids(own), Counters(own)
    with unharmed(own):
        own.agent.sigkill()
        for _ in range(4):
            moment(own)
            own.agent.sigkill()
            counters.check()
            time.sleep(0.1)
    own.agent.start()
    assert link_ids(own) == links
    assert own.agent.read("status")["alarms"] == []
    assert not (own.agent.pins / "next").exists()


@pytest.mark.parametrize("then", ["start", "detach"])
def test_first_start_that_is_killed_leaves_nothing_in_the_way(tmp_path: Path, then: str) -> None:
    """What it had attached is put right by the next start, and taken away by detach."""
    with World(tmp_path, QUICK, start=False) as world:
        for number in range(6):
            world.agent.launch()
            time.sleep(0.3 + 0.2 * number + random.uniform(0, 0.1))
            world.agent.sigkill()
        if then == "start":
            world.agent.start()
            for name, type in (("fixed", FIXED), ("brief", NONPERSISTENT)):
                seen = world.place(name).do(lambda: call(Kind.TCP6)).seen
                assert type_of(seen) is type
        else:
            assert world.agent.call("detach", "-c", str(world.agent.config)).returncode == 0
            assert not world.agent.pins.exists()
            assert lost_pins.find(world.site.host.call(netns_cookie)) == []


def test_restart_adopts_within_moments(own: World) -> None:
    """No program is loaded, and the agent is ready; the first time is printed by pytest -s."""
    links, programs = link_ids(own), program_ids(own)
    own.agent.sigkill()
    began = time.monotonic()
    own.agent.start()
    took_s = time.monotonic() - began
    print(f"ready after {took_s:.2f} s")
    assert took_s < _GENEROUS_S
    assert (link_ids(own), program_ids(own)) == (links, programs)


def test_what_was_removed_meanwhile_is_back_after_the_restart(own: World) -> None:
    host = own.site.host

    def kernel() -> list[str]:
        return sorted(
            line
            for family in ("-4", "-6")
            for what in (
                ("rule", "list"),
                ("route", "show", "table", "all", "proto", "86"),
                ("address", "show", "dev", "lo"),
            )
            for line in host.ip(family, *what).splitlines()
        )

    before = kernel()
    tables = [(f"-{p['family'][-1]}", str(p["table"])) for p in own.agent.read("prefixes")]
    own.agent.sigkill()
    for family, table in tables:
        host.ip(family, "route", "flush", "table", table)
    for family in ("-4", "-6"):
        host.ip(family, "address", "flush", "dev", "lo", "scope", "global")
        for priority in ("8653", "8654", "8655"):
            rules = host.ip(family, "rule", "list", "priority", priority).splitlines()
            for _ in rules:
                host.ip(family, "rule", "delete", "priority", priority)
    assert kernel() != before
    own.agent.start()
    eventually(lambda: kernel() == before, "all as before")
    for name, type in (("fixed", FIXED), ("brief", NONPERSISTENT)):
        for kind in (Kind.TCP6, Kind.TCP4, Kind.UDP6):
            seen = own.place(name).do(lambda kind=kind: call(kind).seen)  # type: ignore[misc]
            assert type_of(seen) is type


def test_socket_keeps_the_type_that_it_asked_for_over_a_restart(own: World) -> None:
    """Also what is not connected yet: its storage is the kernel's."""
    restarted = own.agent.folder / "restarted"

    def application(ready: Ready) -> None:
        with Kind.TCP6.open() as early, Kind.TCP6.open() as late:
            ask(late, FIXED)
            ask(early, FIXED)
            exchange(early, Kind.TCP6)
            ready(None)
            wait_until(restarted.exists, "the restart", 30)
            early.send(b"still there?")
            restarted.write_bytes(early.recv(100) + b" " + exchange(late, Kind.TCP6).seen.encode())
            signal.pause()

    with own.place("every").background(application):
        own.agent.sigkill()
        own.agent.start()
        restarted.touch()
        eventually(lambda: restarted.stat().st_size > 0, "both sockets answered")
    *echo, seen = restarted.read_text().split()
    assert echo == ["still", "there?"]
    assert type_of(seen) is FIXED
