"""The running agent: events in, one reconcile step after the other, answers out.

The event loop only waits. Whatever reads or changes kernel, maps and journal is a job of one
thread, on which the driver runs, too; answers to callers are made in two others, of values that are
replaced as a whole, never changed.
"""

import asyncio
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AsyncExitStack,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from ipaddress import IPv4Address
from itertools import count
from pathlib import Path
from typing import Final, TypeVar

from odm_agent.agent.advertisements import Advertisements
from odm_agent.agent.configured import read_config
from odm_agent.agent.disk import Disk
from odm_agent.agent.driver import Driver
from odm_agent.agent.echoes import Echoes
from odm_agent.agent.handlers import WAITING, Handlers
from odm_agent.agent.meters import metered
from odm_agent.agent.notify import notify
from odm_agent.agent.passes import Passes, fault
from odm_agent.agent.port_reader import PortReader
from odm_agent.agent.scrape import AgentReadings
from odm_agent.agent.startup import open_state
from odm_agent.agent.state import State
from odm_agent.agent.tidings import tell_refusals
from odm_agent.agent.waiting import Waiting
from odm_agent.agent.worker import Worker
from odm_agent.config.schema import Config
from odm_agent.control.server import ControlServer
from odm_agent.control.wait_caller import Answers, Said, Word
from odm_agent.control.wait_thread import WaitThread
from odm_agent.core.asking import USABLE_S
from odm_agent.core.demands import Wish
from odm_agent.core.effects import Answer
from odm_agent.core.errors import OdmError
from odm_agent.core.events import (
    Changed,
    Dirty,
    Event,
    Failure,
    Needed,
    Probed,
    Rotated,
)
from odm_agent.core.grants import Want
from odm_agent.core.host import Address, HostState
from odm_agent.core.looking import RETRY_S
from odm_agent.datapath.install import pins
from odm_agent.kernel import conflict, timer
from odm_agent.kernel.suspend import SuspendWatch
from odm_agent.kernel.timer import Timer
from odm_agent.kernel.watch import Watch
from odm_agent.metrics.endpoint import start as start_metrics
from odm_agent.sources.base import Configured, Received
from odm_agent.sources.delegations import delegation_settings
from odm_agent.sources.static import StaticSource
from odm_agent.text import printable_lines

T = TypeVar("T")

log = logging.getLogger(__name__)

#: What is told of failures to who waits.
_SAID: Final = {
    Failure.UNSUPPORTED: Said.UNSUPPORTED,
    Failure.REFUSED: Said.FAILED,
    Failure.TIMED_OUT: Said.FAILED,
}
#: So long one thread runs Python while another one could (seconds): who waits for an address is
#: answered by one of them while another looks at the kernel, which takes longer.
_TURN_S: Final = 0.0005
#: While somebody follows events, the ring is read so often for those that wake nobody, refusals.
_HEAR_S: Final = 0.2


def run_agent(path: Path) -> int:
    """Serve until SIGTERM or SIGINT; then 0. Raises OdmError if it can't start."""
    config, warnings = read_config(path)
    _log_to_stderr(config.agent.log_level)
    for warning in warnings:
        log.warning(warning)
    sys.setswitchinterval(_TURN_S)
    try:
        asyncio.run(_serve(path, config))
    except (BaseExceptionGroup, OdmError) as error:
        reason = _first(error)
        notify(f"STATUS=not running: {' '.join(str(reason).split())}")
        if reason is error:
            raise
        raise reason from error
    return 0


def _first(error: BaseException) -> BaseException:
    """What a person should read of an error: of a group our own one, if there is one."""
    if isinstance(error, BaseExceptionGroup):
        error = error.subgroup(OdmError) or error
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _serve(path: Path, config: Config) -> None:
    handlers = Handlers()
    pin_dir = Path(config.agent.pin_dir)
    # The socket comes first: a second agent with the same one must stop before it touches anything.
    async with ControlServer(config.agent.socket, handlers.table(), waiting=WAITING):
        # Nor may two work on the same pins by different sockets.
        claimed = pins.claim(pin_dir)
        notify("STATUS=loading programs")
        state = open_state(path, config)
        with ExitStack() as opened:
            opened.callback(state.close)
            if claimed is None:  # there was nothing before
                claimed = pins.claim(pin_dir)
            if claimed is not None:
                opened.callback(os.close, claimed)
            watch = opened.enter_context(Watch())
            service = Service(state, watch)
            handlers.attach(service)
            await service.run()


class Service:
    """The event loop's part; everything that takes time is a job of a `Worker`."""

    def __init__(self, state: State, watch: Watch) -> None:
        self.state = state
        self._watch = watch
        self._changes = Worker("changes")
        self._answers = Worker("answers")
        self._lists = Worker("lists")
        self._disk = Disk(state.journal, state.troubles)
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._dirty = Dirty(0)
        self._timer = Timer()
        self._suspend = SuspendWatch()
        self._ports = PortReader(self._datagram, lambda: self._driver.waiting)
        state.delegations.configure(delegation_settings(state.config), state.duid)
        self._driver = Driver(
            Passes(state, self._to_probe, self._answered, self._from_elsewhere),
            [StaticSource(), *state.delegations.sources],
            state.held,
        )
        state.delegations.attach(self._driver.feed, self._driver.forget, self._ports)
        tickets = count(1)
        self._waiting = Waiting(self._put, timer.now, tickets)
        # Of applications, whose loop is another one.
        self._applications = Waiting(self._from_elsewhere, timer.now, tickets)
        self._listeners = 0
        self._hearing: asyncio.TimerHandle | None = None
        # Among what has happened until it looks are the changes that it has made itself.
        state.engine.has_news = watch.take_news
        self._advertisements = Advertisements(
            lambda: state.config, lambda: self._look_at(Dirty.KERNEL)
        )
        self._echoes = Echoes(
            lambda: state.config, lambda: state.engine.table, lambda: self._look_at(Dirty.KERNEL)
        )
        state.engine.hinted = self._beyond_the_kernel

    def _beyond_the_kernel(self, host: HostState) -> HostState:
        """A host with what the kernel does not tell of it."""
        return self._echoes.judged(self._advertisements.hinted(host))

    async def run(self) -> None:
        """Until `stop`. What was made in the kernel stays when this returns."""
        self._loop = loop = asyncio.get_running_loop()
        self._ports.attach(loop)
        self._on_signals(loop)
        self._advertisements.attach(loop)
        self._echoes.attach(loop)
        self._hear_of_kernel()
        cgroups = self.state.cgroups
        descriptor, drain = cgroups.fileno(), cgroups.drain
        loop.add_reader(descriptor, self._on_event, descriptor, drain, Dirty.CGROUPS)
        loop.add_reader(self._timer.fileno(), self._on_timer)
        loop.add_reader(self.state.ring.fileno(), self.hear)
        metrics = self.state.config.agent.metrics
        server = start_metrics(metrics, AgentReadings(self.state)) if metrics else None
        try:
            async with asyncio.TaskGroup() as group, self._waited_for():
                self._group = group
                loop.add_reader(self._suspend.fileno(), self._on_clock)
                self._driver.feed(StaticSource.name, Configured(self.state.configured))
                usable = group.create_task(self.await_usable())
                await asyncio.sleep(0)  # so that it waits already
                await self._drive()
                driving = group.create_task(self._keep_driving())
                await usable
                notify("READY=1")
                log.info("ready")
                await self._stop.wait()
                notify("STOPPING=1")
                notify("STATUS=stopped; what is in force stays in force")
                log.info("stopping; what is in force stays in force")
                driving.cancel()
                with suppress(OdmError):  # what is not recorded now is so by the next agent
                    await self._changes.run(self.state.record_usage)
                with suppress(OdmError):
                    await self._changes.run(self.state.record_cgroups)
        finally:
            for each in (self._watch, self.state.cgroups, self._timer, self._suspend):
                loop.remove_reader(each.fileno())
            loop.remove_reader(self.state.ring.fileno())
            self._timer.close()
            self._suspend.close()
            self._advertisements.close()
            self._echoes.close()
            self._hear_no_more()
            if server is not None:
                server.close()
            for worker in (self._lists, self._answers, self._changes, self._disk):
                worker.close()

    async def change(self, job: Callable[[], T]) -> T:
        """What a job returns or raises that may change anything; after those before it.

        What it leaves undone is tried again.
        """
        try:
            return await self._changes.run(job)
        finally:
            if self.state.unfinished:
                self._look_at(Dirty.ALL)

    async def read(self, job: Callable[[], T]) -> T:
        """The same of a job that is quick, and changes nothing: it waits for no change."""
        return await self._answers.run(job)

    async def survey(self, job: Callable[[], T]) -> T:
        """The same of a job that looks at every socket or address."""
        return await self._lists.run(job)

    def rotate(self, lease_ids: frozenset[int]) -> None:
        """Have other addresses take the place of these, as soon as they are ready."""
        self._put(Rotated(lease_ids))

    def hear(self) -> None:
        """Take what the programs have told. They wake nobody for what can wait.

        What is lost or misread here is found when all meters are looked at.
        """
        try:
            told = self.state.ring.take()
        except OdmError as error:
            log.warning("events of the programs were missed", extra={"error": str(error)})
            self._loop.remove_reader(self.state.ring.fileno())
            return
        if not told:
            return
        tell_refusals(self.state.events, told, self.state.class_names, timer.now())
        if marks := metered(told):
            self._put(marks)
        for wish in sorted({each.wish for each in told if each.kind == "need"}):
            self._put(Needed(wish.want, wish.on_net, wish.fresh))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within, what wakes nobody is heard soon, too: one timer, for however many listen."""
        self._listeners += 1
        if self._listeners == 1:
            self._hear_soon()
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._hear_no_more()

    def _hear_soon(self) -> None:
        self.hear()
        self._hearing = self._loop.call_later(_HEAR_S, self._hear_soon)

    def _hear_no_more(self) -> None:
        if self._hearing is not None:
            self._hearing.cancel()

    def stop(self) -> None:
        """End the agent; enforcement goes on."""
        self._stop.set()

    async def await_usable(self) -> None:
        """Have everything looked at, and wait until addresses are usable, or long enough."""
        answer = await self._waiting.all_usable(USABLE_S)
        if answer.cause is not None:
            log.warning("some addresses are not usable yet", extra={"waited_s": USABLE_S})

    async def address_of(self, want: Want, within_s: float) -> Answer:
        """Wait until sockets are given an address of this; request it if need be."""
        return await self._waiting.address_of(want, within_s)

    def _known(self, ticket: int) -> Word | None:
        """What can be said at once to who shows a ticket; None: he waits. From any thread."""
        wish = self.state.datapath.ticket_wish(ticket)
        if wish is None:
            return Word(Said.UNKNOWN, "no socket was given this ticket, or it is forgotten")
        # What the hooks hand out, the kernel holds.
        return Word(Said.READY) if self._has_come(wish) else None

    async def _awaited(self, ticket: int, within_s: float) -> Word:
        """Wait for what a socket has asked for that shows its ticket; on the applications' loop."""
        wish = self.state.datapath.ticket_wish(ticket)
        if wish is None:
            return Word(Said.UNKNOWN)  # forgotten since it was known a moment ago
        answer = await self._applications.address_of(
            wish.want, within_s, on_net=wish.on_net, fresh=wish.fresh
        )
        if answer.cause is None:
            return Word(Said.READY)
        return Word(_SAID[answer.kind] if answer.kind else Said.LATE, answer.cause)

    def _has_come(self, wish: Wish) -> bool:
        """Whether sockets are given it meanwhile. Of a new address the machine alone knows that."""
        ids = self.state.datapath.choices().get(wish.want)
        if wish.fresh or not ids:
            return False
        if not wish.on_net:
            return True
        rows = self.state.datapath.prefixes()
        return any(id_ in rows and rows[id_].on_net for id_ in ids)

    @asynccontextmanager
    async def _waited_for(self) -> AsyncIterator[None]:
        """Within, applications may wait. That they can't is no reason not to serve the others."""
        async with AsyncExitStack() as stack:
            try:
                if path := self.state.config.agent.wait_socket:
                    thread = await stack.enter_async_context(
                        WaitThread(path, Answers(self._known, self._awaited))
                    )
                    self.state.engine.on_change = thread.tell_change
            except OdmError as error:
                log.error("applications can't wait for addresses: %s", error)
                self.state.troubles["letting applications wait"] = str(error)
            yield

    async def reload(self) -> list[str]:
        """Take the configuration anew; its warnings. Raises OdmError (the old one stays)."""
        notify("RELOADING=1")
        try:
            try:
                warnings = await self.change(self._reload)
            except Exception as error:
                known = isinstance(error, OdmError)
                refused = "reload refused; the last good configuration stays: %s"
                log.error(refused, error, exc_info=None if known else error)
                self._look_at(Dirty.KERNEL)  # so that it is told
                if known:
                    raise
                raise OdmError(f"reloading failed by a {fault(error)}") from error
            for warning in warnings:
                log.warning(warning)
            logging.getLogger().setLevel(self.state.config.agent.log_level.upper())
            await self.await_usable()
            log.info("reloaded")
            return warnings
        finally:
            notify("READY=1")

    def _reload(self) -> list[str]:
        """In one job, so that no pass sees the classes of the one and the prefixes of the other."""
        warnings = self.state.reload()
        self._driver.feed(StaticSource.name, Configured(self.state.configured))
        settings = delegation_settings(self.state.config)
        for source in self.state.delegations.configure(settings, self.state.duid):
            self._driver.add(source)
        return warnings

    async def _keep_driving(self) -> None:
        """Let the driver run whenever something happened, or is due."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._drive()
            except Exception as error:
                log.exception("what happened was not dealt with")
                self.state.troubles["dealing with events"] = fault(error)
                self._loop.call_later(RETRY_S, self._look_at, Dirty.ALL)
            else:
                self.state.troubles.pop("dealing with events", None)

    async def _drive(self) -> None:
        if self._dirty:
            self._driver.put(Changed(self._dirty))
            self._dirty = Dirty(0)
        self.hear()
        # A pass takes the news of the kernel away itself, most of them its own doings, before it
        # looks for the last time. To be woken for each would take its time.
        self._loop.remove_reader(self._watch.fileno())
        try:
            await self._changes.run(self._driver.run)
        finally:
            self._hear_of_kernel()
        self._timer.set(self._driver.deadline())
        self._group.create_task(self._disk.catch_up())

    def _hear_of_kernel(self) -> None:
        watch = self._watch
        descriptor = watch.fileno()
        self._loop.add_reader(descriptor, self._on_event, descriptor, watch.drain, Dirty.KERNEL)

    def _put(self, event: Event) -> None:
        self._driver.put(event)
        self._wake.set()

    def _look_at(self, what: Dirty) -> None:
        """It may have changed. However often that is said during a pass, it is one event."""
        self._dirty |= what
        self._wake.set()

    def _to_probe(self, address: Address) -> None:
        """Called on the worker's thread."""
        self._loop.call_soon_threadsafe(self._begin_probe, address)

    def _begin_probe(self, address: Address) -> None:
        if not self._stop.is_set():
            self._group.create_task(self._probe(address))

    def _from_elsewhere(self, event: Event) -> None:
        """Something happened, and this is not the event loop's thread."""
        self._driver.put(event)
        self._loop.call_soon_threadsafe(self._wake.set)

    def _answered(self, answer: Answer) -> None:
        """Called on the worker's thread."""
        self._applications.deliver(answer)
        self._waiting.deliver(answer)

    async def _probe(self, address: Address) -> None:
        assert isinstance(address.address, IPv4Address)
        in_use = None
        try:
            in_use = await conflict.in_use(address.interface, address.address)
        except OdmError as error:  # the link is down: its coming up is an event
            log.info("not probed", extra={"address": str(address.address), "error": str(error)})
        except Exception:
            log.exception("not probed", extra={"address": str(address.address)})
        self._put(Probed(address, in_use))

    def _datagram(self, name: str, data: bytes, sender: str) -> None:
        self._driver.feed(name, Received(data, sender))
        self._wake.set()

    def _on_event(self, descriptor: int, drain: Callable[[], bool], what: Dirty) -> None:
        try:
            changed = drain()
        except OdmError as error:  # it stays readable, and we would be called at once, for ever
            log.warning("events were missed", extra={"error": str(error)})
            loop = asyncio.get_running_loop()
            loop.remove_reader(descriptor)
            loop.call_later(
                RETRY_S, loop.add_reader, descriptor, self._on_event, descriptor, drain, what
            )
            changed = True
        if changed:
            self._look_at(what)

    def _on_timer(self) -> None:
        self._timer.drain()
        self._wake.set()

    def _on_clock(self) -> None:
        """The clock of the day was set: by somebody, or the host goes on after a suspend."""
        slept_s = self._suspend.take()
        if slept_s:
            log.info("the host was suspended", extra={"slept_s": round(slept_s, 1)})
            self._group.create_task(self._wake_up())

    async def _wake_up(self) -> None:
        """Have all looked at, and networks asked whether they serve what is held."""
        await self._changes.run(self.state.delegations.woken)
        self._look_at(Dirty.ALL)

    def _on_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        self._group.create_task(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        with suppress(OdmError):  # the log has it
            await self.reload()


class _KeyValues(logging.Formatter):
    """The message, then key=value of whatever `extra` carried."""

    _usual = frozenset(vars(logging.makeLogRecord({})))

    def format(self, record: logging.LogRecord) -> str:
        extra = {k: v for k, v in vars(record).items() if k not in self._usual and k != "message"}
        words = [super().format(record), *(f"{k}={v!r}" for k, v in extra.items())]
        return printable_lines(" ".join(words))


def _log_to_stderr(level: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_KeyValues("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for library in ("asyncio", "pyroute2"):  # each message they exchange, and no news
        logging.getLogger(library).setLevel(logging.WARNING)
