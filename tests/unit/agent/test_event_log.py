"""What is kept of events, and who may wait for them."""

import asyncio
import threading
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import handlers
from odm_agent.agent.event_log import KEPT, EventLog
from odm_agent.agent.handlers import Handlers
from odm_agent.control.answers import Events
from odm_agent.core.errors import ControlError


@pytest.fixture
def log() -> EventLog:
    return EventLog()


@pytest.fixture
def ask(log: EventLog) -> Any:
    """The verb, as the control socket calls it."""
    serving = Handlers()
    service: Any = SimpleNamespace(
        state=SimpleNamespace(events=log), hear=lambda: None, listening=nullcontext
    )
    serving.attach(service)
    return serving.table()["events"]


def test_events_come_in_their_order_with_their_time(log: EventLog) -> None:
    log.note("alarm", 0.0, detail="a")
    log.note("refused", 1.8e9 + 0.25, class_="ssh", type="fixed")
    log.note("rotated", 1.8e9 + 1, prefix="web", address="192.0.2.1", new="192.0.2.2")
    assert [event.event for event in log.after(0)] == ["alarm", "refused", "rotated"]
    assert [event.number for event in log.after(1)] == [2, 3]
    assert [event.time for event in log.after(0)] == [
        "1970-01-01T00:00:00.000Z",
        "2027-01-15T08:00:00.250Z",
        "2027-01-15T08:00:01.000Z",
    ]


def test_what_is_kept_has_a_bound_and_refusals_push_nothing_else_out(log: EventLog) -> None:
    log.note("rotated", 0.0, prefix="web")
    for _ in range(3 * KEPT):
        log.note("refused", 1.0)
    found = log.after(0)
    assert (len(found), found[0].event) == (KEPT + 1, "rotated")
    for _ in range(3 * KEPT):
        log.note("rotated", 2.0)
    assert len(log.after(0)) == 2 * KEPT


def test_a_caller_gets_what_is_new_and_how_much_it_has_missed(log: EventLog, ask: Any) -> None:
    assert asyncio.run(ask({})) == Events(newest=0)
    for _ in range(KEPT + 3):
        log.note("refused", 1.0)
    found = asyncio.run(ask({"after": 1}))
    assert (found.newest, found.lost, len(found.events)) == (KEPT + 3, 2, KEPT)
    assert asyncio.run(ask({"after": KEPT + 3})) == Events(newest=KEPT + 3)


def test_a_caller_waits_until_something_happens(log: EventLog, ask: Any) -> None:
    async def meanwhile() -> Events:
        waiting = asyncio.ensure_future(ask({"after": 0, "wait": True}))
        await asyncio.sleep(0)
        assert not waiting.done()
        threading.Thread(target=lambda: log.note("alarm", 0.0, detail="a")).start()
        async with asyncio.timeout(0.15):  # it was looked each 0.2 s once
            found: Events = await waiting
        return found

    assert asyncio.run(meanwhile()).newest == 1


def test_a_caller_that_waits_for_nothing_is_answered_in_the_end(
    ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "_FOLLOWED_S", 0.02)
    assert asyncio.run(ask({"after": 7, "wait": True})) == Events(newest=7)


def test_so_many_may_wait_and_the_next_one_is_told_why_not(log: EventLog, ask: Any) -> None:
    async def crowd() -> None:
        waiting = [asyncio.ensure_future(ask({"wait": True})) for _ in range(handlers._FOLLOWERS)]
        await asyncio.sleep(0)
        with pytest.raises(ControlError, match="end one of them"):
            await ask({"wait": True})
        assert await ask({}) == Events(newest=0), "who does not wait is answered"
        waiting.pop().cancel()
        await asyncio.sleep(0)
        waiting.append(asyncio.ensure_future(ask({"wait": True})))
        await asyncio.sleep(0)
        log.note("alarm", 0.0)
        assert {each.newest for each in await asyncio.gather(*waiting)} == {1}

    asyncio.run(crowd())


@pytest.mark.parametrize("after", [-1, 1.5, "1", True, None, 1 << 63])
def test_what_is_no_number_of_an_event_is_refused(after: object, ask: Any) -> None:
    with pytest.raises(ControlError, match="no number of an event"):
        asyncio.run(ask({"after": after}))
