"""Who waits is woken from any thread, looks no oftener, and leaves nothing behind."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from odm_agent.agent.bell import Bell


class Looked:
    """Finds what is put there, and counts how often it was asked."""

    def __init__(self) -> None:
        self.found: str | None = None
        self.looks = 0

    async def __call__(self) -> str | None:
        self.looks += 1
        return self.found


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def looked() -> Looked:
    return Looked()


def during(
    bell: Bell,
    looked: Looked,
    story: Callable[["asyncio.Task[str | None]"], Coroutine[Any, Any, None]],
) -> None:
    """Have a story while somebody waits; afterwards nobody listens."""

    async def main() -> None:
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            waiting = group.create_task(bell.until(looked, 20))
            await asyncio.sleep(0.01)
            await story(waiting)

    asyncio.run(main())
    assert not bell._listening


def test_what_is_there_is_found_without_a_ring(bell: Bell, looked: Looked) -> None:
    looked.found = "it"
    assert asyncio.run(bell.until(looked, 0)) == "it"
    assert not bell._listening


def test_another_thread_wakes_who_waits_and_nothing_else_does(bell: Bell, looked: Looked) -> None:
    async def story(waiting: "asyncio.Task[str | None]") -> None:
        await asyncio.sleep(0.3)
        assert (looked.looks, waiting.done()) == (1, False)
        threading.Thread(target=bell.ring).start()
        while looked.looks < 2:
            await asyncio.sleep(0.001)
        assert not waiting.done(), "it was nothing for him"
        looked.found = "it"
        threading.Thread(target=bell.ring).start()
        assert await waiting == "it"
        assert looked.looks == 3

    during(bell, looked, story)


def test_many_rings_are_one_look(bell: Bell, looked: Looked) -> None:
    async def story(waiting: "asyncio.Task[str | None]") -> None:
        for _ in range(1000):
            bell.ring()
        await asyncio.sleep(0.05)
        assert looked.looks == 2
        waiting.cancel()

    during(bell, looked, story)


def test_what_happens_while_it_looks_is_not_missed(bell: Bell) -> None:
    looks = 0

    async def look() -> str | None:
        nonlocal looks
        looks += 1
        if looks == 1:
            bell.ring()
            await asyncio.sleep(0.01)
            return None
        return "it"

    assert asyncio.run(bell.until(look, 5)) == "it"


def test_nothing_in_time_is_none_and_an_error_is_the_callers(bell: Bell, looked: Looked) -> None:
    assert asyncio.run(bell.until(looked, 0.02)) is None

    async def fail() -> None:
        raise TimeoutError("of its own")

    with pytest.raises(TimeoutError, match="of its own"):
        asyncio.run(bell.until(fail, 5))
    assert not bell._listening
