"""The source of delegated prefixes alone on its clock, with servers on its link."""

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TypeVar

from odm_agent.core.clock import Moment
from odm_agent.core.effects import GiveBack, Release, Request
from odm_agent.core.events import Failed, Granted, Tick, Withdrawn
from odm_agent.core.model import AddressType, Family
from odm_agent.sources.base import Input, Linked, Output, Received, Send
from odm_agent.sources.dhcpv6.codec import packed, parsed
from odm_agent.sources.dhcpv6.messages import Codes, Kind, Message
from odm_agent.sources.dhcpv6.settings import OPTION_CODE, Settings
from odm_agent.sources.dhcpv6.source import SERVERS, DelegationSource
from tests.virtual.dhcpv6_server import Server

DUID = bytes.fromhex("0004" + "11" * 16)
LINK = "w0"
SETTINGS = Settings("isp", (LINK, "w[1-9]"), frozenset(AddressType) - {AddressType.UNSPECIFIED})
SESSION = AddressType.SESSION_LASTING
FIXED = AddressType.FIXED
_T = TypeVar("_T", bound=Output)


@dataclass
class Link:
    """The link, its servers and the client on it. `delay_s` is how long each message is under way.

    `lossy` is asked of each message whether it gets lost.
    """

    settings: Settings = SETTINGS
    servers: list[Server] = field(default_factory=lambda: [Server()])
    seed: int = 1
    boot_s: float = 1000.0
    delay_s: float = 0.01
    lossy: Callable[[Message], bool] = lambda message: False
    copies: int = 1
    up: bool = True
    enterprise: int | None = None

    def __post_init__(self) -> None:
        self.codes = Codes(OPTION_CODE, self.enterprise)
        self.interface = LINK
        #: Whether the present agent has seen another link than at its start.
        self.has_moved = False
        self._by_interface: dict[str, list[float]] = {}
        self.sent: list[tuple[float, Message]] = []
        self.said: list[tuple[float, Output]] = []
        self._under_way: list[tuple[float, int, bytes, str]] = []
        self._order = count()
        self.start()

    def start(self) -> None:
        """A new agent, which is told how the link is."""
        self.source = DelegationSource(self.settings, DUID, Random(self.seed))
        self.has_moved = False
        if self.up:
            self.give(Linked(self.interface, True))

    # --- the client ---

    def give(self, given: Input) -> list[Output]:
        """Something happens now."""
        said = list(self.source.step(given, Moment(self.boot_s, self.boot_s)))
        for each in said:
            self.said.append((self.boot_s, each))
            if isinstance(each, Send):
                assert each.to == SERVERS
                self._carry(each.data)
        return said

    def ask(self, type_: AddressType = SESSION, family: Family = Family.IPV6) -> list[Output]:
        return self.give(Request((type_, family)))

    def release(self, type_: AddressType = SESSION) -> list[Output]:
        return self.give(Release((type_, Family.IPV6)))

    def give_back(self, type_: AddressType = SESSION) -> list[Output]:
        """No socket uses any prefix of the type any more."""
        keys = {e.grant.key for e in self.of(Granted) if e.grant.prefix.type is type_}
        return [each for key in sorted(keys, key=str) for each in self.give(GiveBack(key))]

    def link(self, up: bool) -> None:
        self.has_moved |= self.up and not up
        self.up = up
        if not up:
            self._under_way.clear()
        self.give(Linked(self.interface, up))

    def roam(self, interface: str) -> None:
        """The host is attached elsewhere now."""
        self._under_way.clear()
        self.has_moved |= interface != self.interface
        self.up, self.interface = True, interface
        self.give(Linked(interface, True))

    def forget_sent(self) -> None:
        """What was sent is that of an agent before this one."""
        self.sent.clear()
        self._by_interface.clear()

    def times_by_interface(self) -> dict[str, list[float]]:
        """When something was sent by each (boot-time seconds)."""
        return self._by_interface

    def advance(self, seconds: float) -> None:
        """Let time pass: all that becomes due happens at its moment, in order."""
        until_s = self.boot_s + seconds
        for _ in range(60_000):
            arrives_s = self._under_way[0][0] if self._under_way else until_s + 1
            due_s = self.source.deadline()
            next_s = min(arrives_s, until_s + 1 if due_s is None else due_s)
            if next_s > until_s:
                self.boot_s = until_s
                return
            self.boot_s = max(self.boot_s, next_s)
            if arrives_s <= self.boot_s:
                _, _, data, sender = heapq.heappop(self._under_way)
                self.give(Received(data, sender))
            else:
                self.give(Tick())
        raise AssertionError("the client never rests")

    # --- what is seen of it ---

    def of(self, kind: type[_T]) -> list[_T]:
        """What was said of this kind."""
        return [each for _, each in self.said if isinstance(each, kind)]

    @property
    def granted(self) -> Granted:
        """The last grant."""
        return self.of(Granted)[-1]

    @property
    def kinds(self) -> list[Kind]:
        """What was sent."""
        return [message.kind for _, message in self.sent]

    def times(self, kind: Kind) -> list[float]:
        """When it was sent, from the first on."""
        times = [at_s for at_s, message in self.sent if message.kind is kind]
        return [at_s - times[0] for at_s in times]

    def outcomes(self) -> Iterator[tuple[float, Output]]:
        """All that was said but messages."""
        return ((s, e) for s, e in self.said if isinstance(e, Granted | Withdrawn | Failed))

    # --- the network ---

    def _carry(self, data: bytes) -> None:
        message = parsed(data, self.codes)
        self.sent.append((self.boot_s, message))
        self._by_interface.setdefault(self.interface, []).append(self.boot_s)
        if not self.up or self.lossy(message):
            return
        for server in self.servers:
            if (answer := server.answer(message)) is None or self.lossy(answer):
                continue
            for _ in range(self.copies):
                self.deliver(packed(answer, self.codes), server.address, 2 * self.delay_s)

    def hear(self, message: Message, sender: str) -> list[Output]:
        """A message comes to the client now."""
        return self.give(Received(packed(message, self.codes), sender))

    def deliver(self, data: bytes, sender: str, after_s: float = 0.0) -> None:
        """A message comes to the client."""
        entry = (self.boot_s + after_s, next(self._order), data, sender)
        heapq.heappush(self._under_way, entry)
