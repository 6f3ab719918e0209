"""A world in which the sockets of some classes are counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

import pytest

from odm_agent.core.model import TYPES, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.counts import settles_at
from tests.lab.host import CORRESPONDENT, FIXED, LINKS, NONPERSISTENT
from tests.lab.world import CLASSES, STANDARD, World

ROOMY: Final = {FIXED: {"sockets": 1_000_000}, NONPERSISTENT: {"sockets": 1_000_000}}
SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        **CLASSES,
        # Tracked by their caps, which they never reach.
        "counted": LabClass(allow=TYPES, default=FIXED, caps=ROOMY),
        "counted2": LabClass(allow=TYPES, default=NONPERSISTENT, caps=ROOMY),
        "bare": LabClass(allow=TYPES, caps=ROOMY),
    },
)


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all tests of a module."""
    with World(tmp_path_factory.mktemp("tracked"), SETTINGS) as made:
        yield made


@contextmanager
def routed(world: World, family: Family) -> Iterator[None]:
    """The route to the correspondent names a Fixed source: no hook before egress knows of it."""
    bits = 32 if family is Family.IPV4 else 128
    gateway = str(LINKS["A", family][1])
    route = (f"{CORRESPONDENT[family]}/{bits}", "via", gateway, "dev", "w0")
    world.site.host.ip("route", "add", *route, "src", world.address(FIXED, family))
    try:
        yield
    finally:
        world.site.host.ip("route", "del", *route)


@pytest.fixture(autouse=True)
def balanced(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test begins and ends with no socket counted."""
    if "tracked" not in request.fixturenames:
        yield
        return
    world: World = request.getfixturevalue("tracked")
    settles_at(world.agent, 0)
    yield
    settles_at(world.agent, 0, timeout_s=10)
