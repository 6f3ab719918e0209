"""A grant that this host holds: held, not derived, so that its end doesn't end connections."""

from dataclasses import dataclass

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
