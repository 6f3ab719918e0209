"""Who waits on the event loop: one demand for all of a want."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Address
from itertools import count

import pytest

from odm_agent.agent import waiting
from odm_agent.agent.waiting import Waiting
from odm_agent.core.asking import LATE
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Answer
from odm_agent.core.events import Asked, Cancelled, Event
from odm_agent.core.grants import Want
from odm_agent.core.model import AddressType, Family

WANT: Want = (AddressType.FIXED, Family.IPV6)
OTHER: Want = (AddressType.FIXED, Family.IPV4)
ADDRESS = IPv6Address("2001:db8::1")


class Machine:
    """Hears what is put."""

    def __init__(self) -> None:
        self.heard: list[Event] = []
        self.waiting = Waiting(self.heard.append, lambda: Moment(100.0, 1e9))

    @property
    def tickets(self) -> list[int]:
        return [each.demand.ticket for each in self.heard if isinstance(each, Asked)]

    @property
    def cancelled(self) -> list[int]:
        return [each.ticket for each in self.heard if isinstance(each, Cancelled)]


def test_a_thousand_callers_are_one_demand_and_all_are_answered() -> None:
    async def main() -> None:
        machine = Machine()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(machine.waiting.address_of(WANT, 20.0 + n / 100))
                for n in range(1000)
            ]
            other = group.create_task(machine.waiting.address_of(OTHER, 20.0))
            await asyncio.sleep(0)
            [ticket, second] = machine.tickets
            machine.waiting.deliver(Answer(ticket, ADDRESS))
            machine.waiting.deliver(Answer(second, None, "none"))
            machine.waiting.deliver(Answer(99, None))  # nobody
        assert {each.result().address for each in tasks} == {ADDRESS}
        assert other.result().cause == "none"

    asyncio.run(main())


def test_an_answer_comes_from_another_thread_to_whichever_loop_waits_for_it() -> None:
    heard: list[Event] = []
    tickets = count(1)
    begun = threading.Barrier(2, timeout=20)

    def here() -> Answer:
        async def main() -> Answer:
            waiting = Waiting(heard.append, lambda: Moment(100.0, 1e9), tickets)
            asked = asyncio.ensure_future(waiting.address_of(WANT, 20.0))
            await asyncio.sleep(0)
            loops.append(waiting)
            await asyncio.to_thread(begun.wait)
            return await asked

        return asyncio.run(main())

    loops: list[Waiting] = []
    with ThreadPoolExecutor(1) as thread:
        answer = thread.submit(here)
        begun.wait()
        [asked] = [each.demand.ticket for each in heard if isinstance(each, Asked)]
        idle = Waiting(heard.append, lambda: Moment(100.0, 1e9), tickets)
        for each in (idle, *loops):
            each.deliver(Answer(asked, ADDRESS))
        assert answer.result(20).address == ADDRESS
    loops[0].deliver(Answer(asked, ADDRESS))  # its loop has ended


def test_who_comes_and_goes_makes_no_demand_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LINGER_S", 0.3)

    async def main() -> None:
        machine = Machine()
        for _ in range(50):
            assert (await machine.waiting.address_of(WANT, 0.001)).cause == LATE
            await asyncio.sleep(0.001)
        assert len(machine.tickets) == 1 and not machine.cancelled
        await asyncio.sleep(0.6)
        assert machine.cancelled == machine.tickets
        assert (await machine.waiting.address_of(WANT, 0.001)).cause == LATE
        assert len(machine.tickets) == 2

    asyncio.run(main())


def test_who_comes_after_an_answer_begins_anew() -> None:
    async def main() -> None:
        machine = Machine()
        for number in (1, 2):
            async with asyncio.TaskGroup() as group:
                task = group.create_task(machine.waiting.address_of(WANT, 20.0))
                await asyncio.sleep(0)
                assert len(machine.tickets) == number
                machine.waiting.deliver(Answer(machine.tickets[-1], ADDRESS))
            assert task.result().address == ADDRESS

    asyncio.run(main())


def test_one_who_leaves_takes_the_demand_from_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "_LINGER_S", 0.05)

    async def main() -> None:
        machine = Machine()
        async with asyncio.TaskGroup() as group:
            stays = group.create_task(machine.waiting.address_of(WANT, 20.0))
            leaves = group.create_task(machine.waiting.address_of(WANT, 20.0))
            await asyncio.sleep(0)
            leaves.cancel()
            await asyncio.sleep(0.2)
            assert not machine.cancelled
            [ticket] = machine.tickets
            machine.waiting.deliver(Answer(ticket, ADDRESS))
        assert stays.result().address == ADDRESS

    asyncio.run(main())
