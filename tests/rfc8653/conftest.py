"""One world for all tests that leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.lab.host import Captures
from tests.lab.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The standard site with a running agent, shared."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(autouse=True)
def fresh_record(request: pytest.FixtureRequest) -> None:
    """Each test sees only its own callers in the correspondent's record."""
    if "world" in request.fixturenames:
        shared: World = request.getfixturevalue("world")
        shared.peer.seen()


@pytest.fixture
def captures(world: World) -> Iterator[Captures]:
    """Captures at both gateways of the shared world, for one test."""
    with world.captures() as made:
        made.await_quiet()
        yield made
