"""When a message is sent again, and when not (RFC 8415, sections 14.1 and 15)."""

from collections import deque
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.sources.dhcpv6.messages import Kind
from odm_agent.sources.dhcpv6.transitions import Exchange

#: Section 15: RAND is drawn from so far around 0.
_RAND: Final = 0.1
#: An elapsed time that is longer is said to be so long (section 21.9), in hundredths of a second.
_MOST_ELAPSED: Final = 0xFFFF


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far an exchange is (boot-time seconds).

    `due_s` is when the next message is sent, `over_s` when the exchange has failed.
    """

    exchange: Exchange
    due_s: float
    over_s: float = NEVER
    sent: int = 0
    first_s: float = 0.0
    rt_s: float = 0.0

    @property
    def is_under_way(self) -> bool:
        """Whether there is something to answer."""
        return self.sent > 0 or self.exchange.kind is None

    def elapsed(self, now_s: float) -> int:
        """How long it has gone on, in hundredths of a second; the first message says 0."""
        return min(int((now_s - self.first_s) * 100), _MOST_ELAPSED) if self.sent else 0

    def after_sending(self, now_s: float, random: Random) -> "Schedule":
        """The same exchange when one more message has been sent."""
        exchange = self.exchange
        first_s = self.first_s if self.sent else now_s
        rt_s = _next_rt(exchange, self.rt_s, random)
        over_s = first_s + exchange.mrd_s if exchange.mrd_s else NEVER
        due_s = now_s + rt_s
        if self.sent + 1 == exchange.mrc:
            over_s = min(over_s, due_s)
        return replace(
            self,
            sent=self.sent + 1,
            first_s=first_s,
            rt_s=rt_s,
            over_s=over_s,
            due_s=due_s if due_s < over_s else NEVER,
        )


def begun(exchange: Exchange, at_s: float) -> Schedule:
    """An exchange whose first message is due at `at_s`."""
    if exchange.kind is None:
        return Schedule(exchange, NEVER, at_s + exchange.mrd_s)
    return Schedule(exchange, at_s)


def _next_rt(exchange: Exchange, before_s: float, random: Random) -> float:
    if not before_s:
        # The first time of a Solicit is more than IRT: who listens for a whole second hears all.
        least = 0.001 if exchange.kind is Kind.SOLICIT else -_RAND
        return exchange.irt_s * (1 + random.uniform(least, _RAND))
    rt_s = before_s * (2 + random.uniform(-_RAND, _RAND))
    if exchange.mrt_s and rt_s > exchange.mrt_s:
        return exchange.mrt_s * (1 + random.uniform(-_RAND, _RAND))
    return rt_s


class RateLimit:
    """So many messages in so many seconds at most, whatever servers do (section 14.1)."""

    MESSAGES: Final = 20
    SECONDS: Final = 20.0
    #: So many are sent about what sockets are to keep alone: they hang until that is confirmed.
    OF_KEPT: Final = 8

    def __init__(self) -> None:
        """Nothing has been sent yet."""
        self._sent: deque[float] = deque(maxlen=self.MESSAGES)

    def free_s(self, *, kept: bool) -> float:
        """From when on a message may be sent (boot-time seconds); `kept`: about what waits for a
        network that serves it.
        """
        most = self.MESSAGES if kept else self.MESSAGES - self.OF_KEPT
        return self._sent[-most] + self.SECONDS if len(self._sent) >= most else 0.0

    def note(self, now_s: float) -> None:
        """One has been sent."""
        self._sent.append(now_s)
