"""Filters at interfaces, as kernels before 6.6 have them: others' stay, ours come back."""

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.datapath import libbpf
from odm_agent.datapath.guards import clsact
from tests.kernel.survival.conftest import outdate
from tests.kernel.survival.test_pins import GUARDED
from tests.lab.older import before_6_6
from tests.lab.world import World

#: A filter of somebody else, of a kind that every kernel has; it never matches.
_THEIRS: Final = ("protocol", "all", "u32", "match", "u32", "1", "0xffffffff", "flowid", "1:1")


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[World]:
    """A site with an agent that finds an older kernel, not started yet."""
    with World(tmp_path, GUARDED, start=False) as made:
        made.agent.variables = before_6_6()
        yield made


def _tc(world: World, *arguments: str) -> str:
    return world.site.host.run(["tc", *arguments])


def _filters(world: World, interface: str = "w0", hook: str = "egress") -> list[str]:
    """Priority and kind of the filters at a hook, in their order: "1 bpf" is ours."""
    found: list[dict[str, Any]] = json.loads(
        _tc(world, "-j", "filter", "show", "dev", interface, hook)
    )
    return list(dict.fromkeys(f"{each['pref']} {each['kind']}" for each in found))


def _has_clsact(world: World, interface: str = "w0") -> bool:
    return "clsact" in _tc(world, "qdisc", "show", "dev", interface)


def _standing(world: World) -> list[int]:
    """The ids of our programs at w0."""

    def read() -> list[int]:
        ifindex = socket.if_nametoindex("w0")
        return [at.prog_id for at in clsact.standing() if at.ifindex == ifindex]

    return world.site.host.call(read)


def test_clsact_of_somebody_else_is_left_alone(bare: World) -> None:
    _tc(bare, "qdisc", "add", "dev", "w0", "clsact")
    _tc(bare, "filter", "add", "dev", "w0", "egress", "prio", "9", *_THEIRS)
    bare.agent.start()
    assert _filters(bare) == ["1 bpf", "9 u32"], "ours comes first"
    bare.agent.close()
    assert _filters(bare) == ["9 u32"]
    assert not _has_clsact(bare, "w1")


@pytest.mark.parametrize("hook", ["ingress", "egress"])
def test_clsact_of_ours_stays_as_long_as_somebody_uses_it(bare: World, hook: str) -> None:
    bare.agent.start()
    _tc(bare, "filter", "add", "dev", "w0", hook, "prio", "9", *_THEIRS)
    bare.agent.close()
    assert _filters(bare, hook=hook) == ["9 u32"]
    assert not _has_clsact(bare, "w1")


def test_filter_that_somebody_took_away_comes_back(bare: World) -> None:
    """With clsact as a whole; and it is known all along that clsact was ours."""
    bare.agent.start()
    _tc(bare, "qdisc", "del", "dev", "w0", "clsact")
    assert bare.agent.reload().returncode == 0
    assert _filters(bare) == ["1 bpf"]
    _tc(bare, "filter", "del", "dev", "w0", "egress")
    assert bare.agent.reload().returncode == 0
    assert _filters(bare) == ["1 bpf"]
    bare.agent.close()
    assert not _has_clsact(bare)


def test_priority_that_somebody_has_is_an_alarm_until_it_is_free(bare: World) -> None:
    _tc(bare, "qdisc", "add", "dev", "w0", "clsact")
    _tc(bare, "filter", "add", "dev", "w0", "egress", "prio", "1", *_THEIRS)
    bare.agent.start()
    (alarm,) = bare.agent.read("status")["alarms"]
    assert "guarding interface" in alarm and "priority 1" in alarm
    assert _filters(bare, "w1") == ["1 bpf"], "the others are guarded"
    _tc(bare, "filter", "del", "dev", "w0", "egress")
    assert bare.agent.reload().returncode == 0
    assert not bare.agent.read("status")["alarms"]
    assert _filters(bare) == ["1 bpf"]


def test_upgrade_puts_the_new_program_in_the_place_of_the_old(bare: World) -> None:
    bare.agent.start()
    (before,) = _standing(bare)
    outdate(bare)
    done = bare.agent.call("upgrade", "-c", str(bare.agent.config))
    assert done.returncode == 0, done.stderr
    (after,) = _standing(bare)
    assert after != before
    prog_fd = libbpf.get_pinned(bare.agent.pins / "odm_frames")
    assert libbpf.prog_info(prog_fd).id == after
    os.close(prog_fd)
    bare.agent.sigkill()
    bare.agent.start()
    assert _standing(bare) == [after]
    bare.agent.close()
    assert _standing(bare) == []


def test_agents_that_share_an_interface_have_a_filter_each(bare: World) -> None:
    """Who made clsact leaves first: the other goes on."""
    bare.agent.start()
    (ours,) = _standing(bare)
    theirs = bare.agent.pins.with_name(bare.agent.pins.name + "-second")
    prog_fd = libbpf.get_pinned(bare.agent.pins / "odm_frames")
    ifindex = bare.site.host.call(socket.if_nametoindex, "w0")
    theirs.mkdir()
    try:
        bare.site.host.call(clsact.attach, theirs, prog_fd, ifindex)
        assert _standing(bare) == [ours, ours]
        assert bare.site.host.call(clsact.guarded, theirs) == {ifindex}
        bare.agent.close()
        assert _standing(bare) == [ours]
        bare.site.host.call(clsact.detach, theirs, ifindex)
        assert _standing(bare) == []
    finally:
        bare.site.host.call(clsact.remove, theirs)
        theirs.rmdir()
        os.close(prog_fd)
