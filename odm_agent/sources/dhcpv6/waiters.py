"""Who waits for prefixes of a delegation, and what he and people are told."""

from collections.abc import Iterator, Mapping, Set

from odm_agent.core.clock import NEVER
from odm_agent.core.events import Failed, Failure
from odm_agent.core.model import AddressType, Family
from odm_agent.sources.base import Noted, Outcome, Output
from odm_agent.sources.dhcpv6.binding import Binding, Held


class Waiters:
    """By type: until when somebody waits, by when it should be there, and what was wrong last."""

    def __init__(self, name: str) -> None:
        """Nobody waits yet. `name` is that of the delegation."""
        self._name = name
        #: Who waits, and until when (boot-time seconds).
        self._until: dict[AddressType, float] = {}
        #: Who wants it of the present network, whatever is held.
        self._on_net: set[AddressType] = set()
        #: Types that are held from the start on are to be there by then (boot-time seconds).
        self._expected: dict[AddressType, float] = {}
        #: Why the network last gave no prefix of a type.
        self._troubles: dict[AddressType, str] = {}

    def __contains__(self, type_: AddressType) -> bool:
        """Whether somebody waits for it."""
        return type_ in self._until

    @property
    def troubles(self) -> Mapping[AddressType, str]:
        """Why the network last gave no prefix of a type."""
        return self._troubles

    def wait(self, type_: AddressType, until_s: float, *, on_net: bool = False) -> None:
        """Somebody waits from now on; `on_net`: for one of the present network."""
        self._until[type_] = until_s
        self._on_net.discard(type_)
        if on_net:
            self._on_net.add(type_)

    def wants_on_net(self, type_: AddressType) -> bool:
        """Whether who waits for it wants one of the present network."""
        return type_ in self._until and type_ in self._on_net

    def wait_no_more(self, type_: AddressType) -> None:
        """Nobody does."""
        self._until.pop(type_, None)

    def expect(self, type_: AddressType, by_s: float) -> None:
        """It is to be there from the start on, and people are told if it is not by then."""
        self._expected[type_] = by_s

    def expect_nothing(self) -> None:
        """There is no link by which it could come."""
        self._expected.clear()

    def keep_only(self, types: Set[AddressType]) -> frozenset[AddressType]:
        """Forget what is not asked for any more; for which of that somebody waits."""
        for kept in (self._expected, self._troubles):
            for type_ in kept.keys() - types:
                del kept[type_]
        return frozenset(self._until.keys() - types)

    def dates(self) -> Iterator[float]:
        """When somebody has waited long enough (boot-time seconds)."""
        yield from self._until.values()
        yield from self._expected.values()

    @property
    def next_s(self) -> float:
        """The first of the dates."""
        return min(self.dates(), default=NEVER)

    def late(self, now_s: float) -> list[AddressType]:
        """For which types somebody has waited long enough."""
        dated = (*self._until.items(), *self._expected.items())
        return [type_ for type_, until_s in dated if until_s <= now_s]

    def fail(
        self, type_: AddressType, cause: str, kind: Failure, took_s: float | None = None
    ) -> list[Output]:
        """Tell who waits, and people, if that is anything new for them."""
        said: list[Output] = []
        is_news = self._troubles.get(type_) != cause
        self._troubles[type_] = cause
        expected = self._expected.pop(type_, None) is not None
        asked = self._until.pop(type_, None) is not None
        if asked or expected or is_news:
            said.append(Noted(Outcome.FAILED, type_, None, cause, took_s, kind, asked))
        if asked:
            text = f"{self._name}: no prefix is {type_.word}: {cause}"
            said.append(Failed((type_, Family.IPV6), text, kind))
        return said

    def granted(self, binding: Binding, given: Held, before: Held | None, now_s: float) -> Noted:
        """What people are told of a grant; nobody waits for it any more."""
        self._troubles.pop(binding.type, None)
        self._expected.pop(binding.type, None)
        asked = self._until.pop(binding.type, None) is not None
        same = before is not None and before.network == given.network
        outcome = Outcome.RENEWED if same else Outcome.GRANTED
        took_s = binding.took_s(now_s)
        return Noted(outcome, binding.type, given.network, took_s=took_s, asked=asked)
