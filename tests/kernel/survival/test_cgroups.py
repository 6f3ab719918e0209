"""Cgroups that go and come again, and classes that change their name."""

from dataclasses import replace

import pytest

from tests.kernel.agent.conftest import eventually
from tests.kernel.survival.conftest import QUICK, Counters, link_ids
from tests.lab.client import Kind, ask, call, exchange
from tests.lab.host import FIXED, SESSION, type_of
from tests.lab.load import Job, under_load
from tests.lab.metrics import verdicts
from tests.lab.place import Place, Ready
from tests.lab.process import wait_until
from tests.lab.world import World


def _source(place: Place) -> object:
    return type_of(place.do(lambda: call(Kind.TCP6)).seen)


def _remake(world: World, path: str) -> Place:
    """Remove a cgroup and make it again: the same name, another id."""
    folder = world.cgroup.path / path
    before = folder.stat().st_ino
    folder.rmdir()
    place = world.place(path)
    assert folder.stat().st_ino != before
    return place


@pytest.mark.parametrize("path", ["session", "apps/one.service"])
def test_class_cgroup_made_again_while_the_agent_runs(own: World, path: str) -> None:
    place = own.place(path)
    eventually(lambda: _source(place) is SESSION, "classified")
    place = _remake(own, path)
    eventually(lambda: _source(place) is SESSION, "classified again")


def test_class_cgroup_made_again_while_the_agent_is_dead(own: World) -> None:
    """What its path names is its class; below a classified one nothing is lost either."""
    inherits = own.place("session/worker")
    assert _source(inherits) is SESSION
    own.agent.sigkill()
    inherits = _remake(own, "session/worker")
    assert _source(inherits) is SESSION, "inherited, with the agent dead"
    (own.cgroup.path / "session/worker").rmdir()
    place = _remake(own, "session")
    assert _source(place) is SESSION, "classified as it was made"
    own.agent.start()
    assert _source(place) is SESSION


def test_socket_of_a_cgroup_that_went_while_the_agent_was_dead_goes_on(own: World) -> None:
    """Its row is in the maps only; the restarted agent must not sweep it away."""
    gone, elsewhere = own.place("apps/one.service"), own.place("plain").cgroup.procs
    moved, done = own.agent.folder / "moved", own.agent.folder / "done"
    eventually(lambda: _source(gone) is SESSION, "classified")

    def application(ready: Ready) -> None:
        with Kind.UDP6.open() as sock:
            exchange(sock, Kind.UDP6)
            ready(None)
            wait_until(moved.exists, "the move", 30)
            elsewhere.write_text("0")
            moved.unlink()
            wait_until(done.exists, "the restart", 30)
            sock.send(b"still here")
            done.write_bytes(sock.recv(100))

    with gone.background(application):
        own.agent.sigkill()
        moved.touch()
        wait_until(lambda: not moved.exists(), "moved")
        gone.cgroup.path.rmdir()
        own.agent.start()
        done.touch()
        wait_until(lambda: done.stat().st_size > 0, "an answer")
    assert type_of(done.read_text().split()[0]) is SESSION


def test_attach_point_removed_and_made_again_is_an_alarm_until_the_restart(own: World) -> None:
    links = link_ids(own)
    assert "odm_alarms 0" in own.agent.metrics()
    own.cgroup.close()
    eventually(
        lambda: any("nothing is enforced" in a for a in own.agent.read("status")["alarms"]),
        "the alarm, already while there is no cgroup",
    )
    own.cgroup.path.mkdir()
    place = own.place("session")
    eventually(
        lambda: any("nothing is enforced" in a for a in own.agent.read("status")["alarms"]),
        "the alarm",
    )
    assert own.agent.read("status")["programs"] == 0
    assert "odm_alarms 0" not in own.agent.metrics()
    assert not _source(place), "which is true"
    own.agent.stop()
    told = own.agent.call("status", "-c", str(own.agent.config)).stderr
    assert "is attached to no cgroup: nothing is enforced" in told
    own.agent.start()
    assert not set(link_ids(own).values()) & set(links.values())
    assert own.agent.read("status")["alarms"] == []
    assert _source(place) is SESSION


def test_class_that_is_renamed_under_open_sockets(own: World) -> None:
    """No refusal in between; the old name keeps its counters, the new one begins its own."""
    counters = Counters(own)
    refused = 'verdict="refuse"'
    classes = dict(QUICK.classes)
    session = replace(classes.pop("session"), cgroups=("session",))
    renamed = replace(QUICK, classes={**classes, "calls": session})
    go = own.agent.folder / "go"

    def application(ready: Ready) -> None:
        with Kind.TCP6.open() as open_, Kind.TCP6.open() as asked:
            exchange(open_, Kind.TCP6)
            ask(asked, SESSION)
            ready(None)
            wait_until(lambda: go.exists() and go.stat().st_size > 0, "the reload", 30)
            open_.send(b"echo")
            go.write_text(f"{open_.recv(10).decode()} {exchange(asked, Kind.TCP6).seen}")

    with own.place("session").background(application):
        with under_load(
            own, (Job("session", SESSION), Job("session", SESSION, asked=SESSION))
        ) as t:
            old = verdicts(own, "session", verdict="assign", type=SESSION)
            own.agent.configure(renamed)
            assert own.agent.reload().returncode == 0
        go.write_text("go")
        wait_until(lambda: len(go.read_text().split()) == 2, "both sockets go on")
    assert not t.wrong and t.right > 20, t.wrong
    echo, seen = go.read_text().split()
    assert echo == "echo" and type_of(seen) is SESSION
    assert verdicts(own, "session", verdict="assign", type=SESSION) >= old > 0
    before = verdicts(own, "calls", verdict="assign", type=SESSION)
    assert _source(own.place("session")) is SESSION
    assert verdicts(own, "calls", verdict="assign", type=SESSION) > before > 0
    lines = [x for x in own.agent.metrics().splitlines() if refused in x]
    assert not [x for x in lines if 'class="session"' in x or 'class="calls"' in x]
    counters.check()


def test_class_that_is_removed_and_given_back_counts_on(own: World) -> None:
    """An id belongs to its name for good."""
    own.place("fixed").do(lambda: call(Kind.TCP6))
    before = verdicts(own, "fixed", verdict="assign")
    without = {name: each for name, each in QUICK.classes.items() if name != "fixed"}
    own.agent.configure(replace(QUICK, classes=without))
    assert own.agent.reload().returncode == 0
    assert not _source(own.place("fixed"))
    own.agent.configure(QUICK)
    assert own.agent.reload().returncode == 0
    assert _source(own.place("fixed")) is FIXED
    assert verdicts(own, "fixed", verdict="assign") > before
