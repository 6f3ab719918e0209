"""One world for all techniques."""

from collections.abc import Iterator

import pytest

from tests.lab.world import World


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The standard site with a running agent, shared."""
    with World(tmp_path_factory.mktemp("bypass")) as made:
        yield made
