"""The running agent: events in, one reconcile step after the other, answers out.

The event loop only waits. Whatever reads or changes kernel, maps and journal is a job of a thread;
answers to callers are made in two others, of values that are replaced as a whole, never changed.
"""

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from ipaddress import IPv4Address
from pathlib import Path
from typing import TypeVar

from odm_agent.agent.bulletin import Bulletin
from odm_agent.agent.configured import read_config
from odm_agent.agent.garbage import Garbage
from odm_agent.agent.handlers import Handlers
from odm_agent.agent.notify import notify
from odm_agent.agent.scrape import AgentReadings
from odm_agent.agent.startup import open_state
from odm_agent.agent.state import Dirty, State
from odm_agent.agent.worker import Worker
from odm_agent.config.schema import Config
from odm_agent.control.server import ControlServer
from odm_agent.core.errors import OdmError
from odm_agent.core.host import Address
from odm_agent.datapath.install import pins
from odm_agent.kernel import conflict
from odm_agent.kernel.watch import Watch
from odm_agent.metrics.endpoint import start as start_metrics
from odm_agent.text import printable_lines

T = TypeVar("T")

log = logging.getLogger(__name__)

#: A burst of events is one: what follows within this time is taken along.
_BURST_S = 0.01
#: Nothing should ever need it: a look at everything even if no event came.
_RESYNC_S = 60.0
#: The same after something could not be done: nobody says when a map has room again.
_RETRY_S = 2.0
#: How often that is doubled at most while the agent fails by a fault of its own.
_MOST_DOUBLINGS = 5
#: How long the start (or a reload) waits for duplicate address detection.
_USABLE_S = 8.0


def run_agent(path: Path) -> int:
    """Serve until SIGTERM or SIGINT; then 0. Raises OdmError if it can't start."""
    config, warnings = read_config(path)
    _log_to_stderr(config.agent.log_level)
    for warning in warnings:
        log.warning(warning)
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
    async with ControlServer(config.agent.socket, handlers.table()):
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
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._dirty = Dirty.ALL
        self._probing: set[Address] = set()
        self._bulletin = Bulletin(state)
        self._garbage = Garbage()
        #: How many attempts in a row failed by a fault of our own.
        self._faults = 0
        # Among what has happened until it looks are the changes that it has made itself.
        state.engine.before_look = watch.drain

    async def run(self) -> None:
        """Until `stop`. What was made in the kernel stays when this returns."""
        loop = asyncio.get_running_loop()
        self._on_signals(loop)
        readers = {
            self._watch.fileno(): (self._watch.drain, Dirty.KERNEL),
            self.state.cgroups.fileno(): (self.state.cgroups.drain, Dirty.CGROUPS),
        }
        for descriptor, (drain, what) in readers.items():
            loop.add_reader(descriptor, self._on_event, descriptor, drain, what)
        metrics = self.state.config.agent.metrics
        server = start_metrics(metrics, AgentReadings(self.state)) if metrics else None
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                await self.await_usable(self._begin)
                notify("READY=1")
                log.info("ready")
                reconciling = group.create_task(self._reconcile())
                await self._stop.wait()
                notify("STOPPING=1")
                notify("STATUS=stopped; what is in force stays in force")
                log.info("stopping; what is in force stays in force")
                reconciling.cancel()
        finally:
            for descriptor in readers:
                loop.remove_reader(descriptor)
            if server is not None:
                server.close()
            for worker in (self._lists, self._answers, self._changes):
                worker.close()

    async def change(self, job: Callable[[], T]) -> T:
        """What a job returns or raises that may change anything; after those before it."""
        return await self._changes.run(job)

    async def read(self, job: Callable[[], T]) -> T:
        """The same of a job that is quick, and changes nothing: it waits for no change."""
        return await self._answers.run(job)

    async def survey(self, job: Callable[[], T]) -> T:
        """The same of a job that looks at every socket or address."""
        return await self._lists.run(job)

    def stop(self) -> None:
        """End the agent; enforcement goes on."""
        self._stop.set()

    async def await_usable(self, step: Callable[[Dirty], None] | None = None) -> None:
        """Converge, and wait until addresses are usable; for `_USABLE_S` at most.

        Raises what `step` raises; the usual one raises nothing.
        """
        step = step or self._pass
        self._dirty = Dirty.ALL
        with suppress(TimeoutError):
            async with asyncio.timeout(_USABLE_S):
                while True:
                    self._wake.clear()
                    await self._converged_by(step)
                    if self.state.engine.all_usable():
                        return
                    await self._wake.wait()
        log.warning("some addresses are not usable yet", extra={"waited_s": _USABLE_S})

    async def reload(self) -> list[str]:
        """Take the configuration anew; its warnings. Raises OdmError (the old one stays)."""
        notify("RELOADING=1")
        try:
            try:
                warnings = await self.change(self.state.reload)
            except Exception as error:
                known = isinstance(error, OdmError)
                refused = "reload refused; the last good configuration stays: %s"
                log.error(refused, error, exc_info=None if known else error)
                self._wake.set()  # for the bulletin
                if known:
                    raise
                raise OdmError(f"reloading failed by a {_fault(error)}") from error
            for warning in warnings:
                log.warning(warning)
            logging.getLogger().setLevel(self.state.config.agent.log_level.upper())
            await self.await_usable()
            self._wake.set()  # so that what is unfinished is tried again soon
            log.info("reloaded")
            return warnings
        finally:
            notify("READY=1")

    async def _reconcile(self) -> None:
        resynced = 0.0
        loop = asyncio.get_running_loop()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._rest_s()):
                    await self._wake.wait()
            await asyncio.sleep(_BURST_S)
            self._wake.clear()
            if is_due := loop.time() - resynced >= _RESYNC_S:
                resynced = loop.time()
                self._dirty = Dirty.ALL
            await self._converged_by(self._pass)
            if is_due:
                counting = partial(self._attempt, "counting sockets", self.state.correct_counts)
                await self.change(counting)

    def _rest_s(self) -> float:
        """How long to wait for an event: the longer, the more often we failed by our own fault."""
        if not self.state.unfinished:
            return _RESYNC_S
        return min(_RETRY_S * (1 << self._faults), _RESYNC_S)

    async def _converged_by(self, step: Callable[[Dirty], None]) -> None:
        """Have a step done about what is dirty, and begin the conflict checks that it asks for."""
        dirty, self._dirty = self._dirty, Dirty(0)

        def job() -> set[Address]:
            step(dirty)
            self._garbage.tidy()
            return set(self.state.engine.to_probe)

        for address in await self.change(job) - self._probing:
            self._probing.add(address)
            self._group.create_task(self._probe(address))

    def _begin(self, dirty: Dirty) -> None:
        """The first pass: what can't be done even once is said by not starting. Raises OdmError."""
        self.state.converge(dirty)
        self._tell()

    def _pass(self, dirty: Dirty) -> None:
        """One pass, and what is to be told of it."""
        self._attempt("putting things right", partial(self.state.converge, dirty))
        self._attempt("telling", self._tell)

    def _attempt(self, what: str, job: Callable[[], object]) -> None:
        """Do it. Whatever goes wrong is an alarm and ends nothing: it is tried again."""
        try:
            job()
        except Exception as error:
            known = isinstance(error, OdmError)
            self._faults = 0 if known else min(self._faults + 1, _MOST_DOUBLINGS)
            why = str(error) if known else _fault(error)
            if self.state.troubles.get(what) != why:
                log.error("%s failed: %s", what, why, exc_info=None if known else error)
            self.state.troubles[what] = why
        else:
            if self.state.troubles.pop(what, None) is not None:
                log.info("%s works again", what)
                self._faults = 0

    def _tell(self) -> None:
        self._bulletin.tell(time.monotonic())

    async def _probe(self, address: Address) -> None:
        assert isinstance(address.address, IPv4Address)
        try:
            in_use = await conflict.in_use(address.interface, address.address)
        except OdmError as error:  # the link is down: its coming up is an event
            log.info("not probed", extra={"address": str(address.address), "error": str(error)})
        except Exception:
            log.exception("not probed", extra={"address": str(address.address)})
        else:
            await self.change(partial(self.state.engine.probe_ended, address, in_use=in_use))
            self._look_at(Dirty.KERNEL)
        finally:
            self._probing.discard(address)

    def _on_event(self, descriptor: int, drain: Callable[[], bool], what: Dirty) -> None:
        try:
            changed = drain()
        except OdmError as error:  # it stays readable, and we would be called at once, for ever
            log.warning("events were missed", extra={"error": str(error)})
            loop = asyncio.get_running_loop()
            loop.remove_reader(descriptor)
            loop.call_later(
                _RETRY_S, loop.add_reader, descriptor, self._on_event, descriptor, drain, what
            )
            changed = True
        if changed:
            self._look_at(what)

    def _look_at(self, what: Dirty) -> None:
        self._dirty |= what
        self._wake.set()

    def _on_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        self._group.create_task(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        with suppress(OdmError):  # the log has it
            await self.reload()


def _fault(error: Exception) -> str:
    return f"fault of the agent itself: {error!r}; please report what its log says"


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
