"""What every source of prefixes is to the agent: a machine of its own, without clock or socket."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from odm_agent.core.clock import Moment
from odm_agent.core.effects import GiveBack, Release, Request
from odm_agent.core.events import (
    Failed,
    Failure,
    Granted,
    Tick,
    Unconfirmed,
    Unserved,
    Withdrawn,
)
from odm_agent.core.leases import Lease
from odm_agent.core.model import AddressType, IPNetwork, TypedPrefix


@dataclass(frozen=True, slots=True)
class Configured:
    """All typed prefixes of a configuration that was read, in its order."""

    prefixes: tuple[TypedPrefix, ...]


@dataclass(frozen=True, slots=True)
class Resumed:
    """What an agent before this one held of the source, with what is left of the lifetimes."""

    leases: tuple[Lease, ...]


@dataclass(frozen=True, slots=True)
class Received:
    """A message from the network; `sender` as the source's transport spells it."""

    data: bytes
    sender: str


@dataclass(frozen=True, slots=True)
class Linked:
    """Whether the interface to which a source is attached can carry packets: it is up and has a
    carrier, and a link-local address that is ready. Said of each change, and at the start. Another
    interface: the source is attached there from now on.
    """

    interface: str
    up: bool


@dataclass(frozen=True, slots=True)
class Send:
    """A message to the network; `to` as the source's transport spells it."""

    data: bytes
    to: str


class Outcome(Enum):
    """What became of a prefix, or of the wish for one."""

    GRANTED = "granted"
    RENEWED = "renewed"
    WITHDRAWN = "withdrawn"
    RELEASED = "released"
    #: The network that the host is attached to now does not serve what is held.
    UNSERVED = "unserved"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Noted:
    """What people may want to know of a source and its network.

    `took_s`: how long the network was asked for it, if it was. `failure` is why, if it `FAILED`,
    and `cause` the same for people. `asked`: it answers a `Request`.
    """

    outcome: Outcome
    type: AddressType
    network: IPNetwork | None = None
    cause: str = ""
    took_s: float | None = None
    failure: Failure | None = None
    asked: bool = False


Input = Configured | Resumed | Received | Linked | Request | Release | GiveBack | Tick
Output = Send | Granted | Withdrawn | Unconfirmed | Unserved | Failed | Noted


class Source(Protocol):
    """A source of prefixes. What it has no use for, it leaves alone.

    Its grants carry its `name` in their keys, and id 0 unless their prefixes have numbers already.
    A `Request` is answered some time: by a grant of what is wanted (also if that is held already,
    as it may be on its way back; but if it is to be `on_net`, only of what the present network has
    confirmed), or `Failed`. `GiveBack` is about one of its grants, which nothing
    uses any more.
    """

    @property
    def name(self) -> str:
        """One word, by which leases and numbers of prefixes name it."""

    def step(self, given: Input, now: Moment) -> Sequence[Output]:
        """What it makes of something that happened."""

    def deadline(self) -> float | None:
        """When it wants a `Tick` (boot-time seconds); None: never."""
