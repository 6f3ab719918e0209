"""Beside a program of somebody else: both verdicts hold, and neither's end is the other's."""

from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import Family
from tests.kernel.survival.conftest import QUICK
from tests.lab.cgroup import Cgroup
from tests.lab.client import PORT, Kind, call, outcome
from tests.lab.host import CORRESPONDENT_2, PREFIXES
from tests.lab.neighbour import EXCLUSIVE, Neighbour
from tests.lab.world import World

#: What the neighbour denies.
DENIED: Final = CORRESPONDENT_2[Family.IPV4]


def _denies(world: World) -> bool:
    """Whether the neighbour's verdict holds for a socket that is right for us."""
    place = world.place("fixed")
    return place.do(lambda: outcome(lambda: call(Kind.UDP4, to=(DENIED, PORT)))) == "EPERM"


def _enforces(world: World) -> bool:
    """Whether ours does: a typed source for whom it belongs to, and a refusal for the others."""
    seen = world.place("fixed").do(lambda: call(Kind.UDP4)).seen
    bind = (str(PREFIXES[1].network[1]), 0)
    refused = world.place("nothing").do(lambda: outcome(lambda: call(Kind.UDP4, bind=bind)))
    return seen in PREFIXES[1] and refused == "EACCES"


def _reaches_both(world: World) -> bool:
    place = world.place("fixed")
    return place.do(lambda: outcome(lambda: call(Kind.UDP4, to=(DENIED, PORT)))) == "ok"


@pytest.mark.parametrize("place", ["", "fixed"], ids=["same-cgroup", "child"])
@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_both_verdicts_hold_in_either_order(tmp_path: Path, first: str, place: str) -> None:
    with World(tmp_path, QUICK, start=False) as world, ExitStack() as stack:
        cgroup = Cgroup.at(world.cgroup.path / place)
        if first == "ours":
            world.agent.start()
            assert _enforces(world) and _reaches_both(world)
        theirs = stack.enter_context(Neighbour(cgroup, DENIED))
        assert _denies(world)
        if first == "theirs":
            world.agent.start()
        assert _enforces(world) and _denies(world)

        world.agent.stop()
        assert _enforces(world) and _denies(world)
        world.agent.close()
        assert _denies(world), "detach leaves the programs of others"
        seen = world.place("fixed").do(lambda: call(Kind.UDP4)).seen
        assert seen not in PREFIXES[1], "and takes ours"

        world.agent.start()
        theirs.close()
        assert _enforces(world) and _reaches_both(world)


@pytest.mark.parametrize("place", ["", ".."], ids=["same-cgroup", "above"])
def test_exclusive_program_that_was_there_first_is_named(tmp_path: Path, place: str) -> None:
    """Nothing of ours is left, and theirs goes on."""
    with World(tmp_path, QUICK, start=False) as world:
        cgroup = world.cgroup
        if place:  # a cgroup of the test's own is above
            world.agent.cgroup = Cgroup.at(world.place("plain").cgroup.path)
            world.agent.configure(world.agent.settings)
        with Neighbour(cgroup, DENIED, EXCLUSIVE):
            with pytest.raises(AssertionError, match="a program of somebody else is attached"):
                world.agent.start()
            assert not world.agent.pins.exists()
            assert _denies(world)
        world.agent.start()


def test_ours_first_refuses_the_exclusive_one(tmp_path: Path) -> None:
    with World(tmp_path, QUICK) as world:
        with pytest.raises(OSError, match="EPERM"):
            Neighbour(world.cgroup, DENIED, EXCLUSIVE)
        assert _enforces(world)
