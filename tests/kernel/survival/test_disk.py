"""A disk that is full or read-only: it is said, and addresses end and follow each other as ever."""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from tests.kernel.agent.conftest import eventually
from tests.kernel.survival.conftest import QUICK
from tests.lab.agent import Settings
from tests.lab.client import Kind, call, exchange
from tests.lab.host import NONPERSISTENT, type_of
from tests.lab.netns import checked
from tests.lab.place import Ready
from tests.lab.world import World

_TURNING: Final[Settings] = replace(
    QUICK, extra={name: {"rotate": "5s"} for name in ("brief6", "brief4")}
)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A site whose nonpersistent addresses last 5 s each, its state on 1 MiB of disk."""
    with World(tmp_path, _TURNING, start=False) as made:
        disk = _disk(made)
        disk.mkdir(mode=0o700)
        checked(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "odmlab", str(disk)])
        try:
            made.agent.start()
            yield made
        finally:
            made.agent.close()
            checked(["umount", str(disk)])


def _disk(world: World) -> Path:
    return world.agent.folder / "state"


def _fill(disk: Path) -> Path:
    """Leave no room at all."""
    filling = disk / "filling"
    with suppress(OSError), filling.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    with pytest.raises(OSError) as caught, (disk / "more").open("wb", buffering=0) as file:
        file.write(b"x")
    assert caught.value.errno == errno.ENOSPC
    return filling


def _alarms(world: World) -> list[str]:
    return [each for each in world.agent.read("status")["alarms"] if "not recorded" in each]


def _seen(world: World) -> str:
    seen = world.place("brief").do(lambda: call(Kind.TCP6).seen)
    assert type_of(seen) is NONPERSISTENT
    return seen


def test_on_a_full_disk_addresses_go_on_to_follow_each_other_and_it_is_said(
    world: World,
) -> None:
    assert not _alarms(world)
    filling = _fill(_disk(world))
    before = _seen(world)
    eventually(lambda: _seen(world) != before, "another address serves", 20)
    eventually(lambda: bool(_alarms(world)), "an alarm", 20)
    assert any("leases are not recorded" in each for each in _alarms(world))
    filling.unlink()
    eventually(lambda: not _alarms(world), "all is recorded", 30)

    def hold(ready: Ready) -> None:
        """So that the address stays, however long the start takes."""
        with Kind.TCP6.open() as sock:
            ready(exchange(sock, Kind.TCP6).seen)
            signal.pause()

    with world.place("brief").background(hold) as had:
        world.agent.sigkill()
        world.agent.start()
        told = {each["address"] for each in world.agent.read("lifetimes")}
    assert had in told, "the next agent goes on with the addresses that were written late"


def test_an_agent_that_finds_its_disk_read_only_says_so_and_leaves_all_in_force(
    world: World,
) -> None:
    disk = _disk(world)
    world.agent.stop()
    before = _seen(world)
    checked(["mount", "-o", "remount,ro", str(disk)])
    assert os.statvfs(disk).f_flag & os.ST_RDONLY
    refused = world.agent.call("run", "-c", str(world.agent.config))
    assert refused.returncode != 0
    assert "cannot keep state there" in refused.stderr + refused.stdout
    assert "agent.state_dir" in refused.stderr + refused.stdout
    assert _seen(world) == before
    checked(["mount", "-o", "remount,rw", str(disk)])
    world.agent.start()
    assert type_of(_seen(world)) is NONPERSISTENT
