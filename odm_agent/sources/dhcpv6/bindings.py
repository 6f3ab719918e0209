"""All bindings of a delegation: their numbers, their exchanges, and what is sent for them."""

from collections.abc import Iterator, Set
from dataclasses import replace
from random import Random
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.core.handover import HANDOVER, Old, waits
from odm_agent.core.model import AddressType
from odm_agent.sources.dhcpv6 import timing
from odm_agent.sources.dhcpv6.answers import Judged
from odm_agent.sources.dhcpv6.binding import Binding, iaid_of
from odm_agent.sources.dhcpv6.messages import Message
from odm_agent.sources.dhcpv6.outgoing import message_of, release_of
from odm_agent.sources.dhcpv6.settings import Settings
from odm_agent.sources.dhcpv6.transitions import (
    ASKING,
    EXCHANGES,
    Exchange,
    Next,
    State,
)

#: A delegating relay keeps so many leases of a client, unless it is told otherwise (RFC 8987).
MOST_BINDINGS: Final = 8
#: Of so many interfaces it is known how much was sent there lately.
_MOST_LIMITS: Final = 16
#: What SOL_MAX_RT may be (RFC 8415, section 21.24), in seconds.
_SOL_MAX_RT: Final = range(60, 86401)


class Bindings:
    """By IAID. One link has one rate limit, and one longest time between Solicits."""

    def __init__(self, random: Random) -> None:
        """There are none."""
        self._random = random
        self._by_iaid: dict[int, Binding] = {}
        #: By interface: each is another link (RFC 8415, section 14.1).
        self._limits: dict[str, timing.RateLimit] = {}
        self._limit = timing.RateLimit()
        self._sol_max_rt_s = EXCHANGES[State.SOLICITING].mrt_s

    def __iter__(self) -> Iterator[Binding]:
        """Those that there are now, whatever becomes of them meanwhile."""
        return iter(list(self._by_iaid.values()))

    def __len__(self) -> int:
        """How many there are."""
        return len(self._by_iaid)

    def __contains__(self, iaid: int) -> bool:
        """Whether there is one of this number."""
        return iaid in self._by_iaid

    @property
    def is_full(self) -> bool:
        """Whether there may be no other one."""
        return len(self) >= MOST_BINDINGS

    def iaids(self) -> Set[int]:
        """The numbers of all of them."""
        return self._by_iaid.keys()

    def of(self, type_: AddressType) -> list[Binding]:
        """Those of a type."""
        return [each for each in self if each.type is type_]

    def add(self, binding: Binding) -> Binding:
        """There is one more."""
        self._by_iaid[binding.iaid] = binding
        return binding

    def free_iaid(self, type_: AddressType, first: int) -> int:
        """The lowest that is free: who asks for one thing again asks by the same number."""
        iaids = (iaid_of(type_, first + i) for i in range(MOST_BINDINGS))
        return next(iaid for iaid in iaids if iaid not in self)

    def enter(self, binding: Binding, after: Next, now_s: float) -> None:
        """The state that follows, and its exchange."""
        exchange = self._exchange_of(after.state)
        if exchange is not None and exchange.to_one and binding.server is None:
            after = Next(State.ENDED)  # whom to give it back to is not known: it will lapse
        binding.enter(after.state, now_s + after.after_s)
        if after.state not in ASKING:
            binding.asked_s = None
        elif after.state is State.SOLICITING and binding.asked_s is None:
            binding.asked_s = now_s
        if after.state is State.ENDED:
            del self._by_iaid[binding.iaid]
        elif exchange is not None:
            binding.schedule = timing.begun(exchange, now_s + after.after_s)
            if exchange.kind is not None:
                binding.xid = self._new_xid()

    def attach(self, interface: str) -> None:
        """All is sent there from now on, to servers that may have other limits."""
        self._limit = self._limits.get(interface) or timing.RateLimit()
        self._limits.pop(interface, None)  # so that it is the last one
        self._limits[interface] = self._limit
        while len(self._limits) > _MOST_LIMITS:
            del self._limits[next(iter(self._limits))]
        self.limit_solicits()

    def limit_solicits(self, most_s: int | None = None) -> None:
        """Solicits are so far apart at most, if a server may say that; None: as none has said."""
        if most_s is None:
            self._sol_max_rt_s = EXCHANGES[State.SOLICITING].mrt_s
        elif most_s in _SOL_MAX_RT:
            self._sol_max_rt_s = float(most_s)
            for each in self:
                each.follow(self._exchange_of(each.state))

    def next_s(self, seen_s: float) -> float:
        """When one has something to do; `seen_s` is when it was last asked (boot-time seconds)."""
        return min((each.next_s(self._free_s(each), seen_s) for each in self), default=NEVER)

    def _free_s(self, binding: Binding) -> float:
        """From when on something may be sent about it (boot-time seconds)."""
        return self._limit.free_s(kept=waits(binding.type))

    def refusal(
        self, binding: Binding, found: Judged, client: bytes, now_s: float
    ) -> Message | None:
        """What gives back at once prefixes that came and are not kept; None: there are none, or the
        limit is reached, and they lapse.
        """
        prefixes = found.prefixes or ((found.prefix,) if found.prefix else ())
        if not prefixes or self._limit.free_s(kept=False) > now_s:
            return None
        self._limit.note(now_s)
        return release_of(binding, found.message.server, prefixes, client, self._new_xid())

    def due_messages(self, settings: Settings, client: bytes, now_s: float) -> Iterator[Message]:
        """What is to be sent now, as far as the limit allows; it counts as sent.

        Of what is due at once, that comes first which may be over by the answer: applications are
        to learn it soon.
        """
        for binding in sorted(self, key=_turn):
            if binding.send_s > now_s or self._free_s(binding) > now_s:
                continue
            message = message_of(binding, settings, client, now_s)
            if message is not None and binding.schedule is not None:
                binding.schedule = binding.schedule.after_sending(now_s, self._random)
                self._limit.note(now_s)
                yield message

    def _exchange_of(self, state: State) -> Exchange | None:
        exchange = EXCHANGES.get(state)
        if exchange is not None and state is State.SOLICITING:
            return replace(exchange, mrt_s=self._sol_max_rt_s)
        return exchange

    def _new_xid(self) -> int:
        taken = {each.xid for each in self}
        while (xid := self._random.getrandbits(24)) in taken:
            pass
        return xid


def _turn(binding: Binding) -> tuple[float, bool]:
    """By what order messages are sent."""
    return binding.send_s, HANDOVER[binding.type] is not Old.OVER
