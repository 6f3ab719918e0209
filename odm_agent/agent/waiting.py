"""Who waits on an event loop for an address: one demand for each wish, for all who have it."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import Final

from odm_agent.core.asking import LATE
from odm_agent.core.clock import Moment
from odm_agent.core.demands import Demand, Wish
from odm_agent.core.effects import Answer
from odm_agent.core.events import Asked, Cancelled, Event
from odm_agent.core.grants import Want

#: A demand outlives its last caller by so long: who comes and goes in a loop makes one in this
#: time.
_LINGER_S: Final = 1.0
#: So long it stands in any case, so that few of its callers have to make it anew.
_STANDS_S: Final = 120.0


@dataclass
class _Shared:
    """A demand, who waits for its answer, and until when it stands (boot-time seconds)."""

    ticket: int
    future: "asyncio.Future[Answer]"
    until_s: float
    callers: int = 0
    ending: asyncio.TimerHandle | None = None


class Waiting:
    """Demands of one event loop, and their answers."""

    def __init__(
        self,
        put: Callable[[Event], None],
        now: Callable[[], Moment],
        tickets: Iterator[int] | None = None,
    ) -> None:
        """`put` hands an event to the machine. Where several loops wait, they share `tickets`."""
        self._put, self._now = put, now
        self._tickets = tickets or count(1)
        self._futures: dict[int, asyncio.Future[Answer]] = {}
        self._shared: dict[Wish, _Shared] = {}

    async def all_usable(self, within_s: float) -> Answer:
        """Whether all addresses are usable that there should be."""
        ticket = next(self._tickets)
        self._futures[ticket] = asyncio.get_running_loop().create_future()
        self._put(Asked(Demand(ticket, None, self._now().boot_s + within_s)))
        try:
            return await self._futures[ticket]
        finally:
            del self._futures[ticket]
            self._put(Cancelled(ticket))

    async def address_of(
        self, want: Want, within_s: float, *, on_net: bool = False, fresh: bool = False
    ) -> Answer:
        """What becomes of a want, within this time; `on_net` and `fresh` as in `Wish`."""
        wish = Wish(want, on_net, fresh)
        shared = self._joined(wish, within_s)
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.shield(shared.future)
        except TimeoutError:
            return Answer(shared.ticket, None, LATE)
        finally:
            self._left(wish, shared)

    def deliver(self, answer: Answer) -> None:
        """The machine has answered, somebody here or elsewhere. From any thread."""
        waiting = self._futures.get(answer.ticket)
        if waiting is not None:
            with suppress(RuntimeError):  # its loop has ended
                waiting.get_loop().call_soon_threadsafe(_settle, waiting, answer)

    def _joined(self, wish: Wish, within_s: float) -> _Shared:
        loop, now_s = asyncio.get_running_loop(), self._now().boot_s
        shared = self._shared.get(wish)
        if shared is None or shared.future.done():
            if shared is not None:
                self._end(wish, shared)
            shared = _Shared(next(self._tickets), loop.create_future(), 0.0)
            self._shared[wish], self._futures[shared.ticket] = shared, shared.future
        if shared.ending is not None:
            shared.ending.cancel()
            shared.ending = None
        shared.callers += 1
        if shared.until_s < now_s + within_s:
            shared.until_s = now_s + within_s + _STANDS_S
            demand = Demand(shared.ticket, wish.want, shared.until_s, wish.on_net, wish.fresh)
            self._put(Asked(demand))
        return shared

    def _left(self, wish: Wish, shared: _Shared) -> None:
        shared.callers -= 1
        if shared.callers or self._shared.get(wish) is not shared:
            return
        loop = asyncio.get_running_loop()
        shared.ending = loop.call_later(_LINGER_S, self._end, wish, shared)

    def _end(self, wish: Wish, shared: _Shared) -> None:
        if self._shared.get(wish) is shared:
            del self._shared[wish]
        if self._futures.pop(shared.ticket, None) is not None:
            self._put(Cancelled(shared.ticket))


def _settle(waiting: "asyncio.Future[Answer]", answer: Answer) -> None:
    if not waiting.done():
        waiting.set_result(answer)
