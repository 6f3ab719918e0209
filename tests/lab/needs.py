"""What the programs tell of needs, with nothing told a moment ago."""

import ctypes as ct
from collections.abc import Iterator
from contextlib import contextmanager

from odm_agent.datapath import abi, libbpf
from odm_agent.datapath.maps.ring import Ring
from tests.lab.world import World

#: More ids than any test's configuration has classes.
_CLASSES = 16


def forget(world: World) -> None:
    """Let each need be told at once, as if none had been before."""
    pinned = libbpf.get_pinned(world.agent.pins / "odm_need_turns")
    told = libbpf.Map(pinned, ct.c_uint32, abi.NeedTurn, "odm_need_turns")
    for class_id in range(1, _CLASSES):
        told.put(class_id, abi.NeedTurn())
    told.close()


@contextmanager
def emptied_ring(world: World) -> Iterator[Ring]:
    """The ring, with nothing in it, and nothing told a moment ago."""
    forget(world)
    with Ring(world.agent.pins) as made:
        made.take()
        yield made
