"""Follows handovers as applications have them: when a type serves no more, and when it does again.

One handover of a type and IP version is under way at most: what is lost before anything serves
again belongs to it. Nothing here decides what becomes of prefixes; that is `core.handover`.
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Final

from odm_agent.core.grants import Want
from odm_agent.core.model import AddressType, IPAddress, IPNetwork

#: The upper bounds of the buckets in which outages are counted (seconds); one more has no bound.
BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
#: So long a type of which nothing is held is waited for before its handover counts as given up
#: (seconds): a network is asked at once, if at all.
PATIENCE_S: Final = 60.0


class Outcome(Enum):
    """How a handover ended; the words are those of metrics and events."""

    #: The same prefix serves, by another interface or gateway.
    KEPT = "kept"
    #: Another prefix serves.
    REPLACED = "replaced"
    #: The same prefix serves as before: the link was lost for a while, and nothing has moved.
    RETURNED = "returned"
    #: Nothing of the type is held any more, and nothing came for as long as is waited.
    GIVEN_UP = "given-up"


class Fate(Enum):
    """What a handover made of a socket; the words are those of metrics."""

    #: Its prefix was kept, and its packets leave by another interface or gateway.
    MOVED = "moved"
    #: Its address was over, and it was ended, as its class wants it.
    ENDED = "ended"
    #: Its address was over, and nobody ended it: it hangs until its own time-outs.
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Way:
    """A prefix of which new sockets are given addresses, and how packets leave from these."""

    prefix_id: int
    name: str
    network: IPNetwork
    interface: str
    gateway: IPAddress | None = None

    def is_as(self, other: "Way") -> bool:
        """Whether sockets of one are as well off with the other; a gateway may be replaced."""
        return (self.prefix_id, self.network, self.interface) == (
            other.prefix_id,
            other.network,
            other.interface,
        )


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look has found: which ways serve, the first one first; why prefixes are lost (by their
    ids, of those that a network gave or led to and that can't serve now); and of what there is
    anything that may serve again.
    """

    ready: Mapping[Want, tuple[Way, ...]] = field(default_factory=dict)
    lost: Mapping[int, str] = field(default_factory=dict)
    held: frozenset[Want] = frozenset()


@dataclass(frozen=True, slots=True)
class Outage:
    """A handover that is under way: what served, since when it can't (boot-time seconds), and why.

    `bare_s`: since when nothing of it is held any more; None: something is.
    """

    left: Way
    since_s: float
    why: str
    bare_s: float | None = None


@dataclass(frozen=True, slots=True)
class Over:
    """A handover has ended; `took_s` seconds after it began. `successor` None: nothing serves."""

    want: Want
    outage: Outage
    successor: Way | None
    took_s: float

    @property
    def outcome(self) -> Outcome:
        """How it ended."""
        left, came = self.outage.left, self.successor
        if came is None:
            return Outcome.GIVEN_UP
        if came.network != left.network:
            return Outcome.REPLACED
        is_there = (came.interface, came.gateway) == (left.interface, left.gateway)
        return Outcome.RETURNED if is_there else Outcome.KEPT


@dataclass(frozen=True, slots=True)
class Begun:
    """A handover has begun."""

    want: Want
    outage: Outage


@dataclass(frozen=True, slots=True)
class Outages:
    """By type and IP version what serves now, or did last, and the handovers that are under way."""

    ways: Mapping[Want, Way] = field(default_factory=dict)
    open: Mapping[Want, Outage] = field(default_factory=dict)

    def seen(
        self, seen: Seen, began_s: float, served_s: Mapping[Want, float], now_s: float
    ) -> tuple["Outages", list[Begun | Over]]:
        """What a look tells that began at `began_s`, and ended `now_s` (boot-time seconds).

        `served_s`: since when, of what sockets were first given within that look.
        """
        ways, under_way = dict(self.ways), dict(self.open)
        told: list[Begun | Over] = []
        for want in sorted({*ways, *under_way, *seen.ready}):
            ready, way = seen.ready.get(want, ()), ways.get(want)
            outage = under_way.pop(want, None)
            if outage is None and way is not None and (why := _why_lost(way, ready, seen)):
                outage = Outage(way, began_s, why)
                told.append(Begun(want, outage))
            if outage is not None:
                outage = _waiting(outage, is_held=want in seen.held, now_s=now_s)
                if (over := _over(want, outage, ready, served_s.get(want, now_s), now_s)) is None:
                    under_way[want] = outage
                else:
                    told.append(over)
            if ready:
                ways[want] = ready[0]
            elif want not in seen.held and want not in under_way:
                ways.pop(want, None)
        return Outages(ways, under_way), told


def _why_lost(way: Way, ready: Iterable[Way], seen: Seen) -> str | None:
    """Why a way that has served can't any more; None: it can, or has ended otherwise."""
    if any(way.is_as(each) for each in ready):
        return None
    if (why := seen.lost.get(way.prefix_id)) is not None:
        return why
    for each in ready:
        if each.prefix_id == way.prefix_id:
            return f"{each.network} by {each.interface} serves in its place"
    return None


def _waiting(outage: Outage, *, is_held: bool, now_s: float) -> Outage:
    """A handover that goes on, and since when nothing of its type is held."""
    if is_held:
        return replace(outage, bare_s=None)
    return outage if outage.bare_s is not None else replace(outage, bare_s=now_s)


def _over(
    want: Want, outage: Outage, ready: tuple[Way, ...], served_s: float, now_s: float
) -> Over | None:
    """How a handover has ended; None: it has not."""
    if ready:
        same = (each for each in ready if each.network == outage.left.network)
        took_s = max(0.0, served_s - outage.since_s)
        return Over(want, outage, next(same, ready[0]), took_s)
    if outage.bare_s is not None and now_s - outage.bare_s >= PATIENCE_S:
        return Over(want, outage, None, now_s - outage.since_s)
    return None


@dataclass(frozen=True, slots=True)
class Tally:
    """What handovers came to, since the host has booted."""

    outcomes: Mapping[tuple[AddressType, Outcome], int] = field(default_factory=dict)
    #: By type how many outages fell into each of `BUCKETS_S` and beyond, and their sum in seconds.
    outages: Mapping[AddressType, tuple[int, ...]] = field(default_factory=dict)
    sums_s: Mapping[AddressType, float] = field(default_factory=dict)
    sockets: Mapping[tuple[AddressType, Fate], int] = field(default_factory=dict)

    def with_over(self, over: Over) -> "Tally":
        """One more. Of one that is given up nobody knows an outage."""
        type_ = over.want[0]
        key = (type_, over.outcome)
        outcomes = {**self.outcomes, key: self.outcomes.get(key, 0) + 1}
        if over.outcome is Outcome.GIVEN_UP:
            return replace(self, outcomes=outcomes)
        counts = [*self.outages.get(type_, (0,) * (len(BUCKETS_S) + 1))]
        counts[bisect_left(BUCKETS_S, over.took_s)] += 1
        return replace(
            self,
            outcomes=outcomes,
            outages={**self.outages, type_: tuple(counts)},
            sums_s={**self.sums_s, type_: self.sums_s.get(type_, 0.0) + over.took_s},
        )

    def with_sockets(self, type_: AddressType, fate: Fate, many: int) -> "Tally":
        """So many more sockets met a fate."""
        if not many:
            return self
        key = (type_, fate)
        return replace(self, sockets={**self.sockets, key: self.sockets.get(key, 0) + many})

    @property
    def is_sound(self) -> bool:
        """Whether it can be, for what was read: counts are of as many buckets as there are."""
        return self.outages.keys() == self.sums_s.keys() and all(
            len(each) == len(BUCKETS_S) + 1 for each in self.outages.values()
        )
