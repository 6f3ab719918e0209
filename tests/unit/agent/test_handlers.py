"""What `rotate` waits for. (Events: test_event_log.)"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from odm_agent.agent import handlers
from odm_agent.agent.bell import Bell
from odm_agent.agent.handlers import Handlers
from odm_agent.core.errors import ControlError
from odm_agent.core.lifetimes import Phase
from odm_agent.prefixes.table import PrefixTable
from tests.unit.agent.test_lifetimes import CURRENT, SPARE, prefix

T = TypeVar("T")
BEFORE = PrefixTable(b"secret").with_only([prefix(CURRENT, SPARE)])
AFTER = BEFORE.with_only(
    [prefix(replace(CURRENT, phase=Phase.LINGERING), replace(SPARE, phase=Phase.CURRENT))]
)


class FakeService:
    """Of the service what `rotate` uses."""

    def __init__(self) -> None:
        self.state: Any = SimpleNamespace(
            carried_out=BEFORE, engine=SimpleNamespace(table=BEFORE), bell=Bell()
        )
        self.rotated: list[frozenset[int]] = []
        self.looks = 0

    async def read(self, job: Callable[[], T]) -> T:
        self.looks += 1
        return job()

    async def survey(self, job: Callable[[], T]) -> T:
        return job()

    def rotate(self, lease_ids: frozenset[int]) -> None:
        self.rotated.append(lease_ids)


@pytest.fixture
def service() -> FakeService:
    return FakeService()


@pytest.fixture
def rotate(service: FakeService) -> Any:
    """The verb, as the control socket calls it."""
    serving = Handlers()
    serving.attach(service)  # type: ignore[arg-type]
    return serving.table()["rotate"]


def test_it_is_answered_when_the_hooks_have_the_table_and_not_looked_at_before(
    service: FakeService, rotate: Any
) -> None:
    async def main() -> None:
        waiting = asyncio.ensure_future(rotate({"what": "web"}))
        await asyncio.sleep(0.2)
        assert (service.rotated, service.looks) == ([frozenset({CURRENT.id})], 1)
        service.state.engine.table = AFTER  # decided, and not carried out
        service.state.bell.ring()
        await asyncio.sleep(0.05)
        assert (service.looks, waiting.done()) == (2, False)
        service.state.carried_out = AFTER
        service.state.bell.ring()
        [done] = await waiting
        assert done.new in {str(each) for each in AFTER.addresses_of(3)} - {done.old}

    asyncio.run(asyncio.wait_for(main(), 10))


def test_a_successor_that_does_not_come_is_said_with_where_to_look(
    service: FakeService, rotate: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_ROTATED_S", 0.05)
    with pytest.raises(ControlError, match="`odm-agent status` may say"):
        asyncio.run(rotate({"what": "web"}))
