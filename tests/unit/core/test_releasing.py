"""What nobody uses goes back: on the virtual host, by the agent's own driver and machine."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from odm_agent.core.effects import GiveBack, Look
from odm_agent.core.events import Interrupted, Offered, Serving
from odm_agent.core.looking import RESYNC_S
from odm_agent.core.model import IPAddress
from odm_agent.core.releasing import LEAST_S
from tests.virtual.source import SESSION6, Reply
from tests.virtual.world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.journal.close()


def _given_back(world: World) -> int:
    return sum(isinstance(each, GiveBack) for each in world.told)


def _granted(world: World, release_s: float | None) -> None:
    world.replies = [Reply(release_s=release_s)]
    world.connect(SESSION6)
    world.advance(5.0)
    assert world.grants


@pytest.mark.parametrize("release_s", [0.0, 600.0])
def test_what_no_socket_uses_goes_back_after_its_time(world: World, release_s: float) -> None:
    _granted(world, release_s)
    least_s = max(release_s, LEAST_S)
    world.advance(RESYNC_S + least_s - 10.0)  # its time begins when it is first seen to be idle
    assert not _given_back(world)
    world.advance(RESYNC_S + 10.0)
    assert _given_back(world) == 1
    assert not world.grants and not list(world.engine.table)
    world.replies = [Reply()]
    assert world.connect(SESSION6) is None
    world.advance(5.0)
    assert world.connect(SESSION6) is not None


def test_what_is_used_stays_and_its_time_begins_with_its_last_socket(world: World) -> None:
    _granted(world, 100.0)
    address = world.connect(SESSION6)
    world.advance(1000.0)
    assert not _given_back(world)
    world.sockets.remove(address)  # type: ignore[arg-type]
    world.advance(99.0)
    assert not _given_back(world)
    world.advance(RESYNC_S + 5.0)
    assert _given_back(world) == 1


def test_what_is_kept_for_ever_is_never_watched(world: World) -> None:
    _granted(world, None)
    world.advance(100_000.0)
    assert not _given_back(world) and world.grants


def test_a_socket_that_is_faster_keeps_its_address(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gets one after the last look, and before the prefix is given to no socket any more."""
    _granted(world, 0.0)
    used: list[IPAddress] = []
    original = world.look

    def look(
        asked: Look, serving: Callable[[Serving], None], is_wanted: Callable[[], bool]
    ) -> Offered | Interrupted:
        offered = original(asked, serving, is_wanted)
        if isinstance(offered, Offered) and offered.idle and not used and world.boot_s > 150:
            maps = world.datapath.read()
            [prefix_id] = maps.choices[SESSION6]
            used.append(maps.prefixes[prefix_id].pool[0])
            world.sockets.append(used[0])
        return offered

    monkeypatch.setattr(world, "look", look)
    world.advance(500.0)
    assert used and used[0] in world.sockets
    assert not _given_back(world)
    world.sockets.clear()
    world.advance(RESYNC_S + LEAST_S)
    assert _given_back(world) == 1


def test_another_agent_goes_on_to_give_it_back(world: World) -> None:
    _granted(world, 0.0)
    address = world.connect(SESSION6)
    world.start()
    world.sockets.remove(address)  # type: ignore[arg-type]
    world.advance(2 * RESYNC_S + LEAST_S)
    assert _given_back(world) == 1
