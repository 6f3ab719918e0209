"""A grant that this host holds: held, not derived, so that its end doesn't end connections."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.core.grants import Grant
from odm_agent.core.lifetimes import OVER, AddressLease, Lifetime, Phase, Terms
from odm_agent.core.model import TypedPrefix

#: What any date is within (boot-time seconds), so that it can be told in nanoseconds of 63 bits.
_LATEST_S: Final = 9e9
#: Numbers of addresses have 32 bits, those of bytes 63.
_NUMBERS: Final = 1 << 32
_MOST_BYTES: Final = 1 << 63


@dataclass(frozen=True, slots=True)
class Lease:
    """A grant, its phase, and what became of its addresses."""

    grant: Grant
    phase: Phase = Phase.PROBING
    #: Those of its addresses, if they end (`Terms.end`).
    addresses: tuple[AddressLease, ...] = ()
    #: How many numbers its addresses have had.
    numbered: int = 0
    #: Numbers of former addresses, and until when they may not serve again (boot-time seconds).
    resting: tuple[tuple[int, float], ...] = ()
    #: Whether it goes back to the network with its last socket.
    returning: bool = False
    #: Whether sockets that ask for a new address have one of their own, which hooks make.
    opened: bool = False
    #: Whether it is over since the network serves it no more (`core.handover`).
    handover: bool = False

    @property
    def resting_numbers(self) -> frozenset[int]:
        """The numbers of former addresses that may not serve again yet."""
        return frozenset(number for number, _ in self.resting)

    @property
    def lifetime(self) -> Lifetime:
        """How long it lasts; what is configured never ends."""
        return self.grant.lifetime or Lifetime()

    def is_over(self, now_s: float) -> bool:
        """Whether it goes when its last socket is gone."""
        return self.phase is Phase.LINGERING and self.lifetime.valid_until_s <= now_s

    @property
    def next_s(self) -> float:
        """When its phase changes by itself (boot-time seconds).

        Nothing is preferred for longer than it is valid, whatever the network says.
        """
        if self.phase is Phase.LINGERING:
            return NEVER
        return min(self.lifetime.preferred_until_s, self.lifetime.valid_until_s)


def later(lease: Lease, by_s: float) -> Lease:
    """The same lease on a clock that shows `by_s` more, as another boot's does."""
    grant = lease.grant
    if grant.lifetime is not None:
        grant = replace(grant, lifetime=_later(grant.lifetime, by_s))
    return replace(
        lease,
        grant=grant,
        addresses=tuple(
            replace(
                each,
                born_s=each.born_s + by_s,
                lifetime=_later(each.lifetime, by_s),
                rotate_at_s=each.rotate_at_s + by_s,
            )
            for each in lease.addresses
        ),
        resting=tuple((number, until_s + by_s) for number, until_s in lease.resting),
    )


def _later(lifetime: Lifetime, by_s: float) -> Lifetime:
    return Lifetime(lifetime.preferred_until_s + by_s, lifetime.valid_until_s + by_s)


def flaw(lease: Lease, then_s: float) -> str | None:
    """Why a lease can't have been held at `then_s` (boot-time seconds); None: it can.

    For what was read, which may have been damaged, or changed by hand.
    """
    prefix, addresses = lease.grant.prefix, lease.addresses
    ids = [each.id for each in addresses]
    numbers = [*(each.number for each in addresses), *(number for number, _ in lease.resting)]
    if not all(0 < id_ < OVER for id_ in ids) or len(set(ids)) < len(ids):
        return "the ids of its addresses are out of range, or one is there twice"
    if not all(0 <= number < lease.numbered < _NUMBERS for number in numbers):
        return "the numbers of its addresses are out of range"
    if len(set(numbers)) < len(numbers):
        return "two addresses have one number"
    born = (each.born_s for each in addresses)
    if not all(-_LATEST_S < born_s <= then_s + 1 < _LATEST_S for born_s in born):
        return "an address was not there yet"
    if not all(map(_is_date, _dates(lease))):
        return "a date is none"
    if prefix.id < 1 or prefix.pool < 1 or not all(map(_can_be, _terms(prefix))):
        return "its prefix can't be"
    if not 0 <= (lease.grant.release_s or 0.0) < _LATEST_S:
        return "the time after which it goes back is none"
    return None


def _terms(prefix: TypedPrefix) -> Iterator[Terms]:
    yield prefix.terms
    yield from (seat.terms for seat in prefix.seats)


def _dates(lease: Lease) -> Iterator[float]:
    for lifetime in (lease.lifetime, *(each.lifetime for each in lease.addresses)):
        yield from (lifetime.preferred_until_s, lifetime.valid_until_s)
    yield from (each.rotate_at_s for each in lease.addresses)
    yield from (until_s for _, until_s in lease.resting)


def _is_date(boot_s: float) -> bool:
    return boot_s == NEVER or abs(boot_s) < _LATEST_S


def _can_be(terms: Terms) -> bool:
    times = (terms.preferred_s, terms.valid_s, terms.rotate_s)
    return (
        all(each is None or 0 < each < _LATEST_S for each in times)
        and all(each is None or 0 < each < _MOST_BYTES for each in (terms.budget, terms.warn))
        and terms.linger >= 1
        and 0 <= terms.reuse_s < _LATEST_S
    )
