"""A grant that this host holds: held, not derived, so that its end doesn't end connections."""

from dataclasses import dataclass, replace

from odm_agent.core.clock import NEVER
from odm_agent.core.grants import Grant
from odm_agent.core.lifetimes import AddressLease, Lifetime, Phase


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
