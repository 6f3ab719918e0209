"""Whatever goes wrong in the running loop is an alarm, and is tried again."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address
from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent import loop, passes
from odm_agent.agent.delegations import Delegations
from odm_agent.agent.event_log import EventLog
from odm_agent.core import looking
from odm_agent.core.errors import KernelError, OdmError
from odm_agent.core.events import Dirty
from odm_agent.core.host import Address, HostState
from odm_agent.core.model import AddressType, TypedPrefix
from odm_agent.datapath.base import KernelEvent
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.kernel import conflict
from odm_agent.prefixes.table import PrefixTable
from tests.unit.agent.test_handover_book import unwritten

FAULTS = [
    pytest.param(KernelError("no memory. Try again."), "no memory. Try again.", id="ours"),
    pytest.param(OSError(24, "Too many open files"), "fault of the agent itself", id="os"),
    pytest.param(RuntimeError("a bug"), "fault of the agent itself: RuntimeError", id="bug"),
]


class Source:
    """Something to drain that is readable for ever."""

    def __init__(self) -> None:
        self.reading, writing = os.pipe()
        os.write(writing, b"x")
        os.close(writing)
        self.drained = 0
        self.error: Exception | None = None

    def fileno(self) -> int:
        return self.reading

    def take_news(self) -> bool:
        return True

    def drain(self) -> bool:
        self.drained += 1
        if self.error is not None:
            raise self.error
        return os.read(self.reading, 1) != b""


class FakeRing:
    """A ring in which is what a test puts there; nobody is woken."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.told: list[KernelEvent] = []
        self.takes = 0
        self.error: Exception | None = None

    def fileno(self) -> int:
        return self.reading

    def take(self) -> list[KernelEvent]:
        self.takes += 1
        if self.error is not None:
            raise self.error
        taken, self.told = self.told, []
        return taken


class FakeState:
    """Of `State` what the loop uses; `error` is raised by each pass."""

    def __init__(self) -> None:
        agent = SimpleNamespace(metrics="", wait_socket="", log_level="info")
        self.config = SimpleNamespace(agent=agent, delegations={}, classes={})
        self.delegations, self.duid = Delegations(), None
        self.engine = SimpleNamespace(
            to_probe=set(), all_usable=lambda: True, host=HostState(), datapath=FakeDatapath()
        )
        self.engine.table = PrefixTable(b"secret")
        self.configured: tuple[TypedPrefix, ...] = ()
        self.held = ()
        self.handovers = unwritten()
        self.cgroups, self.ring = Source(), FakeRing()
        self.events = EventLog()
        self.class_names = {1: "ssh"}
        self.is_behind, self.is_settled = False, True
        self.troubles: dict[str, str] = {}
        self.journal = SimpleNamespace(is_flushed=True)
        self.error: Exception | None = None
        self.passes = 0
        self.asked: list[Dirty] = []
        self.probed: list[bool] = []
        self.engine.probe_ended = lambda address, in_use: self.probed.append(in_use)

    @property
    def unfinished(self) -> bool:
        return bool(self.troubles)

    def record_usage(self) -> None:
        pass

    def record_cgroups(self) -> None:
        """Nothing to record."""

    def converge(
        self,
        dirty: Dirty = Dirty.ALL,
        serving: Callable[[], object] = lambda: None,
        gives_way: Callable[[], bool] = lambda: False,
    ) -> None:
        self.passes += 1
        self.asked.append(dirty)
        if self.error is not None:
            raise self.error

    def reload(self) -> list[str]:
        self.converge()
        return []

    def free_numbers(self) -> None:
        pass

    def correct_counts(self) -> None:  # not tried again before the next minute
        pass


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RETRY_S", 0.02)
    monkeypatch.setattr(looking, "RETRY_S", 0.02)
    monkeypatch.setattr(passes, "Garbage", lambda: SimpleNamespace(tidy=lambda: None))
    quiet = SimpleNamespace(find=lambda: None, look=lambda again: None)
    monkeypatch.setattr(passes, "MptcpEndpoints", lambda state: quiet)
    monkeypatch.setattr(passes, "Bulletin", lambda state: SimpleNamespace(tell=lambda now: None))


@pytest.fixture
def state() -> Iterator[FakeState]:
    made = FakeState()
    yield made
    for descriptor in (made.cgroups.reading, made.ring.reading, made.ring.writing):
        os.close(descriptor)


def running(state: FakeState, story: Callable[[loop.Service], Any]) -> None:
    """Have a story with the service while it runs; both must end in order."""

    async def main() -> None:
        watch: Any = Source()
        service = loop.Service(state, watch)  # type: ignore[arg-type]
        async with asyncio.timeout(10), asyncio.TaskGroup() as group:
            served = group.create_task(service.run())
            await until(lambda: state.passes > 0 or served.done())  # only the first may end it
            await asyncio.sleep(0.02)
            await story(service)
            assert not served.done()
            service.stop()
        os.close(watch.reading)

    asyncio.run(main())


async def until(true: Callable[[], bool]) -> None:
    while not true():
        await asyncio.sleep(0.005)


@pytest.mark.parametrize(("error", "told"), FAULTS)
def test_a_pass_that_fails_is_an_alarm_until_one_works(
    state: FakeState, error: Exception, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def story(service: loop.Service) -> None:
        state.error = error
        service._look_at(Dirty.KERNEL)
        await until(lambda: state.passes > 6)
        assert told in state.troubles["putting things right"]
        state.error = None
        await until(lambda: not state.troubles)

    running(state, story)
    lines = [each for each in caplog.records if "putting things right failed" in each.message]
    assert len(lines) == 1, "it is logged once, however often it is tried"
    assert bool(lines[0].exc_info) == (not isinstance(error, OdmError)), (
        "with our own fault's trace"
    )
    assert "putting things right works again" in caplog.text


def test_what_fails_at_the_first_pass_ends_the_start(state: FakeState) -> None:
    state.error = KernelError("nothing goes")

    async def story(service: loop.Service) -> None:
        raise AssertionError("it runs")

    with pytest.raises(ExceptionGroup) as caught:
        running(state, story)
    assert caught.group_contains(KernelError, match="nothing goes")


@pytest.mark.parametrize(("error", "told"), FAULTS)
def test_a_reload_that_fails_ends_nothing(state: FakeState, error: Exception, told: str) -> None:
    async def story(service: loop.Service) -> None:
        state.error = error
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: state.passes > 3)
        with pytest.raises(OdmError, match=told.split(":")[0]):
            await service.reload()

    running(state, story)


def test_events_that_cannot_be_read_are_taken_for_one_and_not_at_once_again(
    state: FakeState,
) -> None:
    state.cgroups.error = KernelError("reading events: no memory")

    async def story(service: loop.Service) -> None:
        before, drained = state.passes, state.cgroups.drained
        await asyncio.sleep(0.1)
        assert 2 <= state.cgroups.drained - drained <= 10
        assert state.passes > before

    running(state, story)


@pytest.mark.parametrize(("error", "told"), FAULTS)
def test_a_probe_that_fails_is_made_again(
    state: FakeState, error: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def in_use(interface: str, address: IPv4Address) -> bool:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise error
        return False

    monkeypatch.setattr(conflict, "in_use", in_use)

    async def story(service: loop.Service) -> None:
        state.engine.to_probe = {Address(IPv4Address("192.0.2.1"), 24, "w0")}
        for _ in range(2):
            service._look_at(Dirty.KERNEL)
            await asyncio.sleep(0.05)
        await until(lambda: bool(state.probed))

    running(state, story)
    assert tries >= 2


def test_a_pass_looks_at_what_has_changed(state: FakeState) -> None:
    async def story(service: loop.Service) -> None:
        assert state.asked[0] == Dirty.ALL
        await asyncio.sleep(0.1)  # what there was to read at the start
        for changed in ([Dirty.CGROUPS], [Dirty.KERNEL], [Dirty.CGROUPS, Dirty.KERNEL]):
            state.asked.clear()
            for each in changed:
                service._on_event(0, lambda: True, each)
            await until(lambda: bool(state.asked))
            assert state.asked[-1] == (Dirty.ALL if len(changed) > 1 else changed[0])

    running(state, story)


def test_what_a_job_beside_the_driver_leaves_undone_is_tried_again(state: FakeState) -> None:
    async def story(service: loop.Service) -> None:
        await asyncio.sleep(0.1)  # what there was to read at the start
        passes = state.passes
        await service.change(lambda: state.troubles.update(it="failed"))
        await until(lambda: state.passes > passes)

    running(state, story)


def test_what_the_programs_tell_is_taken_woken_or_not(state: FakeState) -> None:
    refused = KernelEvent(1.0, "refused", 0, 1, AddressType.FIXED, "class", "connect6")

    async def story(service: loop.Service) -> None:
        state.ring.told = [refused]
        await service._drive()
        assert [(e.event, e.class_) for e in state.events.after(0)] == [("refused", "ssh")]
        state.ring.told = [refused]
        os.write(state.ring.writing, b"x")
        await until(lambda: state.events.newest == 2)
        state.ring.error = KernelError("no memory")
        await asyncio.sleep(0.02)
        takes = state.ring.takes
        await asyncio.sleep(0.1)
        assert state.ring.takes - takes < 10, "not at once again, for ever"
        await service._drive()

    running(state, story)


def test_what_wakes_nobody_is_heard_while_somebody_listens_and_no_longer(
    state: FakeState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "_HEAR_S", 0.01)
    refused = KernelEvent(1.0, "refused", 0, 1, AddressType.FIXED, "class", "connect6")

    async def story(service: loop.Service) -> None:
        await asyncio.sleep(0.1)  # what there was to read at the start
        takes = state.ring.takes
        with service.listening(), service.listening():
            state.ring.told = [refused]
            await until(lambda: state.events.newest == 1)
            state.ring.told = [refused]
            await until(lambda: state.events.newest == 2)
            took = state.ring.takes
            await asyncio.sleep(0.1)
            assert state.ring.takes - took <= 11, "one timer for both"
        assert state.ring.takes > takes
        takes = state.ring.takes
        await asyncio.sleep(0.1)
        assert state.ring.takes == takes

    running(state, story)
