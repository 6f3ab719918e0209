"""S6: the same program on a host that never had an agent and on one with typed prefixes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kernel.s6.legacy import run, run_on_stock
from tests.lab.world import PLAIN, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A fresh host with an agent."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a host says that never had an agent, and what its correspondent recorded."""
    return run_on_stock(tmp_path_factory.mktemp("stock"))


def test_S6_operations_are_many_and_say_something(stock: list[str]) -> None:
    """A differential of failures would prove nothing."""
    assert len(stock) > 300
    served = [line for line in stock if "192.0.2.10" in line or "2001:db8:a::10" in line]
    assert len(served) > 100


@pytest.mark.parametrize("name", [PLAIN, "nothing", "every", "off"])
def test_S6_legacy_program_sees_no_difference(
    world: World, stock: list[str], tmp_path: Path, name: str
) -> None:
    """No class, and classes without a default: every result, errno, name and source is the same."""
    assert run(world.site, world.place(name), tmp_path) == stock


def test_S6_differential_notices_a_default_type(
    world: World, stock: list[str], tmp_path: Path
) -> None:
    """The comparison itself: a class with a default does differ."""
    assert run(world.site, world.place("session"), tmp_path) != stock
