"""What routers of a link have called the types of its prefixes, and until when that holds."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Network
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.core.model import AddressType
from odm_agent.sources.ra.codec import Advertised

#: How many prefixes of a link are known at once: a liar on it makes no more.
MOST_HINTS: Final = 16

#: Which networks have which type.
Types = Mapping[IPv6Network, AddressType]


@dataclass(frozen=True, slots=True)
class Hints:
    """The typed networks of one link, each until a date (boot-time seconds)."""

    known: Mapping[IPv6Network, tuple[AddressType, float]] = field(default_factory=dict)

    def heard(self, found: Iterable[Advertised], now_s: float) -> "Hints":
        """With what an advertisement says. One that says 0 seconds takes the type back."""
        known = dict(self.at(now_s).known)
        for each in found:
            if not each.valid_s:
                known.pop(each.network, None)
            elif each.network in known or len(known) < MOST_HINTS:
                known[each.network] = each.type, now_s + each.valid_s
        return replace(self, known=known)

    def at(self, now_s: float) -> "Hints":
        """Without what is over."""
        return replace(self, known={n: hint for n, hint in self.known.items() if hint[1] > now_s})

    @property
    def types(self) -> Types:
        """What holds, as far as `at` has seen."""
        return {network: type_ for network, (type_, _) in self.known.items()}

    @property
    def deadline_s(self) -> float:
        """When the first is over (boot-time seconds)."""
        return min((until_s for _, until_s in self.known.values()), default=NEVER)
