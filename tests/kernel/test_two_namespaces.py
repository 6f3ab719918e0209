"""Two network namespaces in one attached cgroup: an agent touches the sockets of its own only."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from odm_agent.core.model import TYPES
from tests.kernel.s6.legacy import run, run_on_stock
from tests.lab.agent import Agent
from tests.lab.cases import each_kind
from tests.lab.client import Kind, call
from tests.lab.host import Site, type_of
from tests.lab.place import Place
from tests.lab.world import BY_DEFAULT, STANDARD, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The namespace with the agent."""
    with World(tmp_path_factory.mktemp("world")) as made:
        yield made


@pytest.fixture(scope="module")
def other() -> Iterator[Site]:
    """The other namespace: a whole site of its own."""
    with Site() as site:
        yield site


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What a host says that never had an agent."""
    return run_on_stock(tmp_path_factory.mktemp("stock"))


@pytest.mark.parametrize("name", ["nothing", "fixed", "strict"])
def test_other_namespace_sees_no_change_whatever_the_class(
    world: World, other: Site, stock: list[str], tmp_path: Path, name: str
) -> None:
    assert run(other, Place(world.place(name).cgroup, other.host), tmp_path) == stock


@each_kind()
def test_other_namespace_may_use_the_same_addresses_as_it_likes(
    world: World, other: Site, kind: Kind
) -> None:
    """An address that is typed in the agent's namespace is just an address in the other."""
    fixed = world.address(TYPES[0], kind.family)
    other.host.ip("address", "replace", fixed, "dev", "lo")
    place = Place(world.place("nothing").cgroup, other.host)
    assert place.do(lambda: call(kind, bind=(kind.spell(fixed), 0))).seen == fixed


def test_two_agents_in_two_namespaces_share_a_cgroup(world: World, tmp_path: Path) -> None:
    """Same classes, same prefixes, each with addresses of its own making."""
    with Site() as second, Agent(second.host, world.cgroup, tmp_path, STANDARD) as agent:
        for type in TYPES:
            here = world.place(BY_DEFAULT[type])
            there = Place(here.cgroup, second.host)
            first = here.do(lambda: call(Kind.TCP6)).seen
            other = there.do(lambda: call(Kind.TCP6)).seen
            assert type_of(first) is type_of(other) is type
            assert first != other, "addresses come from each agent's own secret"
        assert agent.read("status")["pid"] != world.agent.read("status")["pid"]
    assert type_of(world.place("fixed").do(lambda: call(Kind.TCP6)).seen) is TYPES[0]
