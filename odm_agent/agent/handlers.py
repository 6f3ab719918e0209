"""The verbs of the control socket."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from odm_agent.agent import lifetimes, sockets, views
from odm_agent.agent.state import State
from odm_agent.control.answers import Awaited, Events, ReloadResult, Rotation
from odm_agent.control.scopes import PARENT
from odm_agent.control.server import Handler
from odm_agent.core.effects import Answer
from odm_agent.core.errors import ControlError
from odm_agent.core.events import Dirty
from odm_agent.core.grants import Want
from odm_agent.core.model import AddressType, ClassPolicy, Family, Mode

T = TypeVar("T")

#: The verbs that do nothing but wait, once they have said what for.
WAITING: Final = frozenset({"rotate", "events", "await"})
#: How long `rotate` waits for a successor (a conflict check takes a second or two).
_ROTATED_S: Final = 10.0
#: How long `await` waits at most.
LONGEST_AWAIT_S: Final = 3600.0
#: How many callers at a time may wait for events, and for how long each.
_FOLLOWERS: Final = 8
_FOLLOWED_S: Final = 20.0


class Service(Protocol):
    """What verbs need of the running agent."""

    state: State

    async def change(self, job: Callable[[], T]) -> T:
        """Have a job done that may change anything."""

    async def read(self, job: Callable[[], T]) -> T:
        """Have a quick job done that changes nothing."""

    async def survey(self, job: Callable[[], T]) -> T:
        """Have a job done that looks at every socket or address."""

    def rotate(self, lease_ids: frozenset[int]) -> None:
        """Have other addresses take the place of these, as soon as they are ready."""

    async def address_of(self, want: Want, within_s: float) -> Answer:
        """Wait until sockets are given an address of this; request it if need be."""

    def hear(self) -> None:
        """Take what the programs have told."""

    def listening(self) -> AbstractContextManager[None]:
        """Within, it is taken also when they wake nobody for it."""

    async def reload(self) -> list[str]:
        """Take the configuration anew; its warnings. Raises OdmError (the old one stays)."""

    def stop(self) -> None:
        """End the agent; enforcement goes on."""


class Handlers:
    """Answers from the service, once it is there (the socket is opened before all else)."""

    def __init__(self) -> None:
        self._service: Service | None = None
        self._followers = 0

    def attach(self, service: Service) -> None:
        """From now on there is somebody to ask."""
        self._service = service

    def table(self) -> dict[str, Handler]:
        """verb -> coroutine."""
        return {
            "status": self._status,
            "prefixes": self._prefixes,
            "addresses": self._addresses,
            "sockets": self._sockets,
            "classes": self._classes,
            "resolve": self._resolve,
            "reload": self._reload,
            "classify": self._classify,
            "unclassify": self._unclassify,
            "lifetimes": self._lifetimes,
            "await": self._await,
            "rotate": self._rotate,
            "usage": self._usage,
            "events": self._events,
            "stop": self._stop,
        }

    @property
    def _running(self) -> Service:
        if self._service is None:
            raise ControlError("the agent is still starting; try again in a moment")
        return self._service

    async def _read(self, view: Callable[[State], T]) -> T:
        service = self._running
        return await service.read(partial(view, service.state))

    async def _survey(self, view: Callable[[State], T]) -> T:
        service = self._running
        return await service.survey(partial(view, service.state))

    async def _status(self, _: dict[str, Any]) -> Any:
        return await self._read(views.status)

    async def _prefixes(self, _: dict[str, Any]) -> Any:
        return await self._read(views.prefixes)

    async def _addresses(self, _: dict[str, Any]) -> Any:
        return await self._survey(views.addresses)

    async def _sockets(self, _: dict[str, Any]) -> Any:
        return await self._survey(lambda state: sockets.views(sockets.typed_sockets(state)))

    async def _classes(self, _: dict[str, Any]) -> Any:
        return await self._survey(views.classes)

    async def _resolve(self, arguments: dict[str, Any]) -> Any:
        cgroup_id = _cgroup_id(arguments)
        return await self._read(lambda state: views.membership(state, cgroup_id))

    async def _reload(self, _: dict[str, Any]) -> Any:
        service = self._running
        warnings = await service.reload()
        return ReloadResult(config=str(service.state.path), warnings=warnings)

    async def _classify(self, arguments: dict[str, Any]) -> Any:
        """Check what `exec` wants, and see to it that its cgroup is classified when this answers.

        The cgroup's own name says class and type; so what a restarted agent finds is the same.
        """
        service = self._running
        state = service.state
        policy = _policy(state, _text(arguments, "class"))
        name = policy.name
        if policy.mode is Mode.OFF:
            raise ControlError(f"class {name!r} is off; set its mode to enforce or audit")
        word = arguments.get("type")
        if word is not None and word not in {type_.word for type_ in policy.allow}:
            raise ControlError(
                f"class {name!r} may not use {word}; add it to classes.{name}.allow, or choose"
                f" among: {', '.join(t.word for t in sorted(policy.allow)) or 'none'}"
            )
        path = _path(arguments, "path")
        if not path.startswith(f"{state.attached_to}/{PARENT}/"):
            raise ControlError(f"{path} is not below {state.attached_to}/{PARENT}")
        await service.change(partial(state.classify, Path(path)))
        if _cgroup_id(arguments) not in state.engine.cgroups:
            raise ControlError(f"{path} could not be classified; its name or owner is not as made")
        return None

    async def _unclassify(self, _: dict[str, Any]) -> Any:
        """The cgroup is gone: its row goes with it."""
        service = self._running
        await service.change(partial(service.state.converge, Dirty.CGROUPS))
        return None

    async def _await(self, arguments: dict[str, Any]) -> Any:
        """Wait until sockets of a class are given an address of a type, of either IP version."""
        service = self._running
        within_s = arguments.get("seconds", 0)
        if type(within_s) not in (int, float) or not 0 < within_s <= LONGEST_AWAIT_S:
            raise ControlError(f"'seconds' is no time up to {LONGEST_AWAIT_S:.0f} s")
        policy = _policy(service.state, _text(arguments, "class"))
        word = arguments.get("type") or policy.default.word
        if word not in {each.word for each in policy.allow}:
            raise ControlError(f"class {policy.name!r} has no default type; name one with --type")
        wanted = AddressType.from_word(word)
        return await _served(service, wanted, within_s)

    async def _lifetimes(self, _: dict[str, Any]) -> Any:
        return await self._survey(lifetimes.views)

    async def _rotate(self, arguments: dict[str, Any]) -> Any:
        """Wait until others are in the place of these addresses; which are by then."""
        service = self._running
        what = _text(arguments, "what")
        wanted = await service.survey(partial(lifetimes.named, service.state, what))
        service.rotate(frozenset(wanted))

        async def look() -> list[Rotation] | None:
            done = await service.read(partial(lifetimes.succeeded, service.state, wanted))
            return done if len(done) == len(wanted) else None

        if (done := await service.state.bell.until(look, _ROTATED_S)) is not None:
            return done
        raise ControlError(
            f"no other address is ready in the place of {_words_of(wanted)} after"
            f" {_ROTATED_S:.0f} s; it follows as soon as there is one, `odm-agent status` may say"
            " what stands in the way"
        )

    async def _usage(self, arguments: dict[str, Any]) -> Any:
        since = arguments.get("since", 0)
        if not isinstance(since, int | float) or not 0 <= since < 1 << 40:
            raise ControlError("'since' is no time in Unix seconds")
        return await self._survey(lambda state: lifetimes.usage(state, since))

    async def _events(self, arguments: dict[str, Any]) -> Any:
        """What happened after an event; `wait`: when there is something, or nothing for a while.

        Nothing is kept for a caller: one that is slow misses events, and is told how many.
        """
        service, after = self._running, _number(arguments, "after")
        log = service.state.events
        service.hear()
        if arguments.get("wait"):
            await self._something(service, after)
        found = log.after(after)
        newest = found[-1].number if found else after
        return Events(newest=newest, lost=newest - after - len(found), events=found)

    async def _something(self, service: Service, after: int) -> None:
        if self._followers >= _FOLLOWERS:
            raise ControlError(f"{_FOLLOWERS} callers follow the events already; end one of them")
        log = service.state.events

        async def look() -> bool | None:
            return log.newest > after or None

        self._followers += 1
        try:
            with service.listening():
                await log.bell.until(look, _FOLLOWED_S)
        finally:
            self._followers -= 1

    async def _stop(self, _: dict[str, Any]) -> Any:
        self._running.stop()
        return None


def _policy(state: State, name: str) -> ClassPolicy:
    """The class of this name."""
    policy = next((p for p in state.engine.classes.values() if p.id and p.name == name), None)
    if policy is None:
        known = ", ".join(sorted(p.name for p in state.engine.classes.values() if p.id))
        raise ControlError(f"there is no class {name!r}; there are: {known or 'none'}")
    return policy


async def _served(service: Service, type_: AddressType, within_s: float) -> Awaited:
    """The first address of a type that there is, or comes; IPv6 is asked for first."""
    loop = asyncio.get_running_loop()
    until_s = loop.time() + within_s
    choices = await service.read(service.state.datapath.choices)
    causes: list[str] = []
    for family in sorted(Family, key=lambda each: (not choices.get((type_, each)), -each)):
        answer = await service.address_of((type_, family), max(until_s - loop.time(), 0.0))
        if answer.cause is None:
            return Awaited(type=type_.word, address=str(answer.address))
        causes.append(f"IPv{family}: {answer.cause}")
    raise ControlError(f"there is no {type_.word} address: {'; '.join(causes)}")


def _words_of(wanted: dict[int, tuple[str, str]]) -> str:
    """The addresses, for people."""
    return ", ".join(sorted(address for _, address in wanted.values()))


def _path(arguments: dict[str, Any], key: str) -> str:
    value = _text(arguments, key)
    if not value.startswith("/") or "\0" in value:
        raise ControlError(f"{key} is {value!r}, which is no absolute path")
    return value


def _cgroup_id(arguments: dict[str, Any]) -> int:
    value = arguments.get("cgroup_id")
    if type(value) is not int or not 0 < value < 1 << 64:
        raise ControlError("the request lacks 'cgroup_id', the number of a cgroup")
    return value


def _number(arguments: dict[str, Any], key: str) -> int:
    value = arguments.get(key, 0)
    if type(value) is not int or not 0 <= value < 1 << 63:
        raise ControlError(f"{key!r} is {value!r}, which is no number of an event")
    return value


def _text(arguments: dict[str, Any], key: str) -> str:
    value = arguments.get(key)
    if not isinstance(value, str):
        raise ControlError(f"the request lacks {key!r}, a text")
    return value
