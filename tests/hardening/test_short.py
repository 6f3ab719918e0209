"""Short of disk, of descriptors, of the cgroup itself: the agent says so, lives, and recovers."""

import os
import resource
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.kernel.agent.conftest import eventually
from tests.lab.agent import LabClass, Settings
from tests.lab.host import FIXED, PREFIXES
from tests.lab.place import Ready
from tests.lab.world import World

NOBODY: Final = 65534
ONE: Final = {"fixed": LabClass(allow=(FIXED,), default=FIXED)}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of its own with little room."""
    path = folder / "small"
    path.mkdir()
    options = "size=1m,mode=700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=f"odm-short-{os.getpid()}-") as name:
        yield Path(name)


@pytest.fixture
def kept(folder: Path) -> Iterator[World]:
    """A world whose agent keeps its state on a small disk."""
    with (
        small_disk(folder) as disk,
        World(
            folder,
            Settings(PREFIXES, ONE, agent={"state_dir": str(disk / "state"), "log_level": "info"}),
        ) as made,
    ):
        yield made


def alarms(world: World) -> str:
    return "\n".join(world.agent.read("status")["alarms"])


def pid(world: World) -> int:
    return int(world.agent.read("status")["pid"])


def classes(world: World) -> set[str]:
    return {each["name"] for each in world.agent.read("classes")}


def many(count: int) -> dict[str, LabClass]:
    return ONE | {f"new{n}": LabClass(allow=(FIXED,)) for n in range(count)}


def source(world: World) -> str:
    """Where a socket of the class leaves from."""

    def connect() -> str:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("192.0.2.99", 9))
            return str(sock.getsockname()[0])

    return world.place("fixed").do(connect)


def reconfigure(world: World, new: dict[str, LabClass]) -> None:
    world.agent.configure(replace(world.agent.settings, classes=new))


@pytest.mark.parametrize("state", ["full", "removed"])
def test_a_reload_that_cannot_be_written_is_refused_whole(kept: World, state: str) -> None:
    disk = kept.agent.folder.parent / "small"
    match state:
        case "full":
            with pytest.raises(OSError, match="No space"):
                (disk / "fill").write_bytes(bytes(2 << 20))
        case "removed":
            (disk / "state").rename(disk / "away")
    was = pid(kept)
    reconfigure(kept, many(250))
    result = kept.agent.reload()
    assert result.returncode == 1, result.stderr
    assert str(disk / "state/state.db") in result.stderr and "Traceback" not in result.stderr
    for _ in range(3):
        kept.agent.send(signal.SIGHUP)
    assert classes(kept) == {"fixed"}
    assert (
        pid(kept) == was
        and "REFUSED" in kept.agent.call("status", "--socket", str(kept.agent.socket)).stdout
    )
    assert ("was removed or replaced" in alarms(kept)) == (state == "removed")
    assert source(kept) == kept.address(FIXED, Family.IPV4)
    match state:
        case "full":
            (disk / "fill").unlink()
        case "removed":
            (disk / "away").rename(disk / "state")
    assert kept.agent.reload().returncode == 0
    assert len(classes(kept)) == 251
    assert "Traceback" not in kept.agent.log.read_text()


def test_a_full_disk_is_an_alarm_while_addresses_cannot_be_recorded(kept: World) -> None:
    disk = kept.agent.folder.parent / "small"
    with pytest.raises(OSError, match="No space"):
        (disk / "fill").write_bytes(bytes(2 << 20))
    extra = {"fixed6": {"pool": 1500}}
    kept.agent.configure(replace(kept.agent.settings, extra=extra))
    kept.agent.reload()
    eventually(lambda: "addresses are not recorded" in alarms(kept), "an alarm")
    assert "is full" in alarms(kept)
    (disk / "fill").unlink()
    eventually(lambda: "recorded" not in alarms(kept), "no alarm any more")


def test_the_cgroup_is_removed_and_made_again(folder: Path) -> None:
    with World(folder, Settings(PREFIXES, ONE, agent={"log_level": "info"})) as world:
        was = pid(world)
        for path in (world.cgroup.path / "fixed", world.cgroup.path):
            path.rmdir()
        eventually(lambda: "nothing is enforced" in alarms(world), "an alarm")
        for verb in ("classes", "sockets", "addresses", "prefixes"):
            world.agent.read(verb)
        assert "odm_collector_errors_total" in world.agent.metrics()
        assert " 1.0" not in _errors(world), "the metrics are whole"
        world.agent.reload()
        assert pid(world) == was
        assert "Traceback" not in world.agent.log.read_text()
        world.cgroup.path.mkdir()
        (world.cgroup.path / "fixed").mkdir()
        eventually(lambda: "start the agent again" in alarms(world), "still an alarm")
        world.agent.stop()
        world.agent.start()
        assert alarms(world) == ""
        assert source(world) == world.address(FIXED, Family.IPV4)


def _errors(world: World) -> str:
    return "\n".join(
        line for line in world.agent.metrics().splitlines() if line.startswith("odm_collector_e")
    )


@contextmanager
def no_descriptor_left(world: World) -> Iterator[None]:
    """The running agent may open nothing more."""
    number = pid(world)
    before = resource.prlimit(number, resource.RLIMIT_NOFILE)
    resource.prlimit(number, resource.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        resource.prlimit(number, resource.RLIMIT_NOFILE, before)


def test_no_descriptor_is_left_for_a_while(folder: Path) -> None:
    """What came meanwhile is done afterwards, and the alarm is over."""
    settings = Settings(PREFIXES, ONE | {"globbed": LabClass((FIXED,), FIXED, cgroups=("a/*",))})
    with World(folder, replace(settings, agent={"log_level": "info"})) as world:
        world.place("a")
        assert source(world)
        with no_descriptor_left(world):
            world.place("a/b")
            world.agent.send(signal.SIGHUP)
            world.site.host.ip("address", "add", "203.0.113.77/32", "dev", "lo")
            time.sleep(3)
            assert not world.agent.ended
        eventually(lambda: "Too many open files" not in alarms(world), "no alarm any more", 10)
        log = world.agent.log.read_text()
        assert "Too many open files" in log
        assert "Traceback" not in log
        globbed = next(each for each in world.agent.read("classes") if each["name"] == "globbed")
        assert globbed["cgroups"] == [str(world.cgroup.path / "a/b")]
        assert world.agent.reload().returncode == 0
        assert source(world) == world.address(FIXED, Family.IPV4)


def test_idle_callers_of_the_metrics_take_few_descriptors(folder: Path) -> None:
    """And the agent goes on with its work, and with other callers."""

    def attack(ready: Ready) -> None:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        held = []
        for _ in range(400):
            sock = socket.socket()
            sock.settimeout(0.05)
            try:
                sock.connect(("127.0.0.1", 9653))
                sock.send(b"GET /m")
            except OSError:
                pass
            held.append(sock)
        ready(len(held))
        signal.pause()

    with World(folder, Settings(PREFIXES, ONE, agent={"log_level": "info"})) as world:
        descriptors = Path(f"/proc/{pid(world)}/fd")
        before = len(list(descriptors.iterdir()))
        with world.place("plain").conversation(attack) as talk:
            assert talk.hear(60) == 400
            assert len(list(descriptors.iterdir())) <= before + 16 + 1
            assert world.agent.read("status")["alarms"] == []
            assert "odm_agent_info" in world.agent.metrics()
