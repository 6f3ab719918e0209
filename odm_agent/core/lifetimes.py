"""How long prefixes and addresses serve: what is configured, and what became of it."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from odm_agent.core.clock import NEVER


@dataclass(frozen=True, slots=True)
class Lifetime:
    """Boot-time seconds: until when sockets are given the prefix or address, and until when it is
    ours.

    RFC 4862, section 5.5.4: an address is deprecated first, and invalid later.
    """

    preferred_until_s: float = NEVER
    valid_until_s: float = NEVER


@dataclass(frozen=True, slots=True)
class Terms:
    """How long each address of a prefix serves; None: without end. Seconds, and IP bytes sent.

    `preferred_s` and `budget` end in the kernel: the address is given to no socket any more.
    `rotate_s` is when the agent has another address take its place, of its own accord. `warn` is
    the number of bytes at which the successor is made. `hard`: the packet that reaches the budget
    is the last one. `linger` is how many former addresses may be left for those sockets that have
    them; `reuse_s` how long an address stays unused before it may serve again.
    """

    preferred_s: float | None = None
    valid_s: float | None = None
    rotate_s: float | None = None
    budget: int | None = None
    warn: int | None = None
    hard: bool = False
    linger: int = 32
    reuse_s: float = 0.0

    @property
    def end(self) -> bool:
        """Whether an address of the prefix ever ends, and so has a lease."""
        return self.end_in_kernel or self.rotate_s is not None

    @property
    def end_in_kernel(self) -> bool:
        """Whether the hooks end an address, and not the agent alone."""
        return (self.preferred_s, self.valid_s, self.budget) != (None,) * 3


WITHOUT_END: Final = Terms()
ALWAYS: Final = Lifetime()


class Phase(Enum):
    """Where a lease stands on its way."""

    #: Its addresses are being configured and checked.
    PROBING = "probing"
    #: Its address is ready, and given to sockets once another one's time is over.
    SPARE = "spare"
    #: Sockets have been offered its addresses.
    CURRENT = "current"
    #: No socket is given its addresses anew; those that sockets have, they keep.
    LINGERING = "lingering"


class Cause(Enum):
    """Why another address took the place of one."""

    #: It is over: `preferred`, `valid` or `rotate`.
    TIME = "time"
    BUDGET = "budget"
    #: Somebody wanted another one.
    ASKED = "asked"
    #: Its prefix is another one now, under the same name.
    CONFIGURATION = "configuration"


#: The lease of what may serve nobody: it is always over.
OVER: Final = 16383


@dataclass(frozen=True, slots=True)
class AddressLease:
    """An address of a prefix whose addresses end.

    `number` tells the prefix's addresses apart, of all times; `id` is that of the kernel's row, in
    which the hooks look up dates and budget. `preferred_until_s` and `valid_until_s` of `lifetime`
    are what the kernel goes by; `rotate_at_s` is for the agent. They count from `born_s`: when it
    was made, and again when it took another one's place. `warned`, `spent`: what the hooks said of
    its bytes.
    """

    number: int
    id: int
    born_s: float
    phase: Phase = Phase.PROBING
    lifetime: Lifetime = ALWAYS
    rotate_at_s: float = NEVER
    warned: bool = False
    spent: bool = False
    #: Whether its successor is there, or is being made.
    succeeded: bool = False
    #: The class whose own it is; "": it is shared.
    class_name: str = ""
