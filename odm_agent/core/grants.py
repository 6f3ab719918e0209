"""What a source of prefixes gave to this host, and for how long."""

from dataclasses import dataclass

from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType, Family, TypedPrefix

#: What somebody may wait for: an address of a type and an IP version.
Want = tuple[AddressType, Family]


@dataclass(frozen=True, slots=True)
class GrantKey:
    """Which of its grants a source means; `instance` is the source's own name for it."""

    source: str
    instance: str


@dataclass(frozen=True, slots=True)
class Grant:
    """A prefix with its type, interface and gateway.

    `lifetime` None: the configuration says so, and it goes as soon as it says so no more. A
    prefix that comes from elsewhere has id 0 until a number is found for it. `release_s`: it goes
    back when no socket has used it for so long (seconds); None: never.
    """

    key: GrantKey
    prefix: TypedPrefix
    lifetime: Lifetime | None = None
    release_s: float | None = None

    @property
    def is_configured(self) -> bool:
        """Whether it stands in the configuration, which is also where it is written down."""
        return self.lifetime is None

    @property
    def want(self) -> Want:
        """What it is good for."""
        return self.prefix.type, self.prefix.family
