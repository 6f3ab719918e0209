"""One world for all techniques, another one for what is older than its agent."""

from collections.abc import Iterator

import pytest

from odm_agent.core.model import Family
from tests.lab.client import Kind, call
from tests.lab.world import World
from tests.rfc8653.bypass import tricks_older
from tests.rfc8653.bypass.attempt import PERMITTED
from tests.rfc8653.bypass.closed import SETTINGS

#: Who may not have a Fixed address: no class, a class without types, a class with another type.
OUTSIDERS = ("plain", "nothing", "brief")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The standard site with a running agent, shared."""
    with World(tmp_path_factory.mktemp("bypass"), SETTINGS) as made:
        _know_the_neighbours(made)
        yield made


@pytest.fixture(scope="session")
def older_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same, where each class has made its sockets before the agent was started."""
    with World(tmp_path_factory.mktemp("older"), SETTINGS, start=False) as made:
        tricks_older.make_all(made, (*OUTSIDERS, PERMITTED))
        try:
            made.agent.start()
            _know_the_neighbours(made)
            yield made
        finally:
            tricks_older.forget_all()


def _know_the_neighbours(world: World) -> None:
    """Let no first packet wait for a neighbour's address: each is seen as soon as it is sent."""
    for family, kind in ((Family.IPV6, Kind.UDP6), (Family.IPV4, Kind.UDP4)):
        assert family is kind.family
        for name in ("plain", "brief"):
            world.place(name).do(lambda kind=kind: call(kind))  # type: ignore[misc]
