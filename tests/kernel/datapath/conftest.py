"""One standard world for the tests of this folder that leave it as it was."""

from collections.abc import Iterator

import pytest

from tests.lab.world import World


@pytest.fixture(scope="package")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The standard site with a running agent."""
    with World(tmp_path_factory.mktemp("datapath")) as made:
        yield made
