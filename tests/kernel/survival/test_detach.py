"""Only `detach` removes anything: no other end of the agent, nor a start that fails, does."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from odm_agent.datapath.install import lost_pins
from odm_agent.kernel.namespace import netns_cookie
from tests.kernel.survival.conftest import QUICK, link_ids, program_ids
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, type_of
from tests.lab.world import World


def _sigterm(world: World) -> None:
    world.agent.stop()


def _sigkill(world: World) -> None:
    world.agent.sigkill()


def _stop_verb(world: World) -> None:
    from odm_agent.agent.detach import stop_agent

    netns = world.site.host.call(netns_cookie)
    assert stop_agent(world.agent.socket, world.agent.pins, netns)


def _failed_start(world: World) -> None:
    """The configuration is refused."""
    world.agent.stop()
    world.agent.config.write_text(world.agent.config.read_text() + "[nonsense]\n")
    with pytest.raises(AssertionError, match="did not get ready"):
        world.agent.start()
    world.agent.configure(QUICK)


def _late_failed_start(world: World) -> None:
    """The state can't be opened."""
    world.agent.stop()
    state = world.agent.folder / "state"
    state.rename(state.with_name("kept"))
    state.write_text("a file")
    with pytest.raises(AssertionError, match=r"agent\.state_dir"):
        world.agent.start()
    state.unlink()
    state.with_name("kept").rename(state)


def _refused_reload(world: World) -> None:
    world.agent.config.write_text(world.agent.config.read_text() + "[nonsense]\n")
    assert world.agent.reload().returncode == 4
    world.agent.configure(QUICK)


def _refused_upgrade(world: World) -> None:
    world.agent.config.write_text(world.agent.config.read_text() + "[nonsense]\n")
    assert world.agent.call("upgrade", "-c", str(world.agent.config)).returncode == 4
    world.agent.configure(QUICK)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One world for all ends but the last: none of them changes anything."""
    with World(tmp_path_factory.mktemp("ends"), QUICK) as made:
        yield made


@pytest.mark.parametrize(
    "end",
    [
        *(_sigterm, _sigkill, _stop_verb),
        *(_failed_start, _late_failed_start, _refused_reload, _refused_upgrade),
    ],
)
def test_no_other_end_removes_anything(world: World, end: Callable[[World], None]) -> None:
    before = link_ids(world), program_ids(world), _listed(world.agent.pins)
    end(world)
    assert (link_ids(world), program_ids(world), _listed(world.agent.pins)) == before
    assert type_of(world.place("fixed").do(lambda: call(Kind.TCP6)).seen) is FIXED
    if not world.agent.socket.exists() or end is _sigkill:
        world.agent.start()


def test_detach_removes_everything(world: World) -> None:
    """Also with an agent that runs, which would put it all back."""
    done = world.agent.call("detach", "-c", str(world.agent.config))
    assert "stopped the running agent" in done.stdout
    assert "detached the programs" in done.stdout, done.stderr
    assert not world.agent.pins.exists()
    assert lost_pins.find(world.site.host.call(netns_cookie)) == []
    assert not type_of(world.place("fixed").do(lambda: call(Kind.TCP6)).seen)


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))
