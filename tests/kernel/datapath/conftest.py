"""One standard world for the tests of this folder that leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.lab import limits as lab
from tests.lab.world import World


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The standard site with a running agent."""
    with World(tmp_path_factory.mktemp("datapath")) as made:
        yield made


@pytest.fixture(scope="module")
def stopped(world: World) -> Iterator[World]:
    """The same while no agent runs."""
    world.agent.stop()
    yield world
    world.agent.start()


@pytest.fixture
def limits(stopped: World) -> Iterator[lab.Limits]:
    """What ends of its fixed addresses."""
    with lab.limits(stopped) as made:
        yield made
