"""exec and explain with the real agent and its programs; the correspondent is the witness."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.host import CORRESPONDENT, FIXED, NONPERSISTENT, SESSION
from tests.lab.world import World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The standard site with a running agent."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


def odm(world: World, command: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """`odm-agent COMMAND` from *outside* of the agent's network namespace, as an admin calls it."""
    line = world.agent.program(command, "--socket", str(world.agent.socket), *arguments)
    return subprocess.run(
        line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30
    )


def explain(world: World, *arguments: str) -> dict[str, Any]:
    done = odm(world, "explain", "--json", *arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize(
    ("place", "asked", "type_"),
    [("session", None, SESSION), ("every", FIXED, FIXED), ("fixed/inner", None, SESSION)],
)
def test_explain_tells_the_source_that_the_kernel_gives(
    place: str, asked: AddressType | None, type_: AddressType, family: Family, world: World
) -> None:
    option = ("--type", asked.word) if asked is not None else ()
    found = explain(world, place, CORRESPONDENT[family], *option)
    assert found["source"] == world.address(type_, family)
    assert found["type"] == type_.word
    assert found["class"] == place.rpartition("/")[2]
    assert [note.split()[0] for note in found["notes"]] == ["The", "Ping"]


def test_explain_tells_why_there_is_no_source(world: World) -> None:
    found = explain(world, "limited", CORRESPONDENT[Family.IPV4], "--type", "fixed")
    assert (found["source"], found["errno"]) == (None, "EACCES")
    assert found["meaning"].startswith("setsockopt: the class may not use this type")


def test_explain_tells_that_legacy_sockets_are_left_alone(world: World) -> None:
    world.place("plain")
    found = explain(world, "plain", CORRESPONDENT[Family.IPV6])
    assert (found["class"], found["type"]) == ("unclassified", "untyped")
    assert len(found["notes"]) == 1, "ping is as ever there"
    assert found["source"] == world.address(AddressType.UNSPECIFIED, Family.IPV6)


@pytest.mark.parametrize("place", ["plain", "limited"])
@pytest.mark.parametrize("broadcast", ["255.255.255.255", "192.0.2.63"])
def test_explain_asks_about_broadcast_as_who_may_send_it(
    broadcast: str, place: str, world: World
) -> None:
    """Without the permission the kernel answers EACCES, which is not for the class's sake."""
    world.place(place)
    found = explain(world, place, broadcast)
    assert (found["source"], found["errno"]) == (
        world.address(AddressType.UNSPECIFIED, Family.IPV4),
        "",
    )


@pytest.mark.parametrize(
    ("class_name", "asked", "type_"),
    [("session", None, SESSION), ("every", FIXED, FIXED), ("every", NONPERSISTENT, NONPERSISTENT)],
)
def test_exec_gives_an_unmodified_program_the_type(
    class_name: str, asked: AddressType | None, type_: AddressType, world: World
) -> None:
    """The command prints what the far end sees as its source."""
    option = ("--type", asked.word) if asked is not None else ()
    command = ["nsenter", f"--net=/run/netns/{world.site.host.name}", "ncat"]
    for family, flag in ((Family.IPV4, "-4"), (Family.IPV6, "-6")):
        there = (*command, flag, CORRESPONDENT[family], "7001")
        done = odm(world, "exec", "--class", class_name, *option, "--", *there)
        assert done.returncode == 0, done.stderr
        assert world.address(type_, family) in done.stdout


def test_exec_with_a_type_that_the_class_may_not_use_is_refused(
    world: World, tmp_path: Path
) -> None:
    done = odm(
        world, "exec", "--class", "limited", "--type", "fixed", "--", "touch", str(tmp_path / "x")
    )
    assert done.returncode == 1
    assert "may not use fixed" in done.stderr
    assert not (tmp_path / "x").exists()


def test_exec_keeps_its_class_over_a_restart_of_the_agent(world: World) -> None:
    line = world.agent.program("exec", "--socket", str(world.agent.socket), "--class", "every")
    with subprocess.Popen(
        [*line, "--type", "fixed", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"ready\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        (scope,) = world.cgroup.path.glob("odm.slice/*.scope")
        world.agent.stop()
        world.agent.start()
        found = explain(world, str(scope), CORRESPONDENT[Family.IPV4])
        assert (found["class"], found["type"]) == ("every", "fixed")
        process.stdin.close()
        assert process.wait(10) == 0
    assert not scope.exists()
