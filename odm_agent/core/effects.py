"""What the machine wants done. Each is a value; `agent.driver` does it, in this order."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from odm_agent.core.events import Dirty, Failure, Interrupted
from odm_agent.core.grants import GrantKey, Want
from odm_agent.core.host import Address
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import IPAddress, TypedPrefix


@dataclass(frozen=True, slots=True)
class Request:
    """Ask the sources for a prefix.

    `on_net`: one that the network gives to which the host is attached now, whatever is held.
    """

    want: Want
    on_net: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """Nobody waits for it any more: a source that is still trying may stop."""

    want: Want


@dataclass(frozen=True, slots=True)
class GiveBack:
    """No socket has used what a source gave for as long as was configured, and none can be given an
    address of it any more: it is the network's again, and the source may tell it so.
    """

    key: GrantKey


@dataclass(frozen=True, slots=True)
class Refuse:
    """A grant can't be used; `cause` is for people."""

    key: GrantKey
    cause: str


@dataclass(frozen=True, slots=True)
class Record:
    """Write down what is known of a prefix's lease, so that the next agent goes on with it."""

    prefix_id: int
    #: None: it is gone.
    lease: Lease | None


@dataclass(frozen=True, slots=True)
class Project:
    """The typed prefix table consists of these from now on.

    `causes`: why others have taken the place of what was current (by the ids of its leases).
    """

    prefixes: tuple[TypedPrefix, ...]
    causes: Mapping[int, Cause] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """Check whether another host uses an address; `Probed` says how that ended."""

    address: Address


@dataclass(frozen=True, slots=True)
class Conclude:
    """What a conflict check has found."""

    address: Address
    in_use: bool


@dataclass(frozen=True, slots=True)
class Answer:
    """Tell who waits. `cause` None: it is there, at `address` if one was wanted."""

    ticket: int
    address: IPAddress | None
    cause: str | None = None
    #: Of a request that failed.
    kind: Failure | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """Bring kernel and maps to what should be there; `Offered` says how that ended.

    `ended` are the prefixes, `ended_leases` the address leases of which to say afterwards whether a
    socket uses them; `watched` are prefixes in use of which to say the same. `resync`: hold the
    counts of sockets against the sockets that there are, too. `whole`: it is not to be interrupted
    once more.
    """

    dirty: Dirty
    ended: frozenset[int] = frozenset()
    ended_leases: frozenset[int] = frozenset()
    watched: frozenset[int] = frozenset()
    resync: bool = False
    whole: bool = False

    @property
    def interrupted(self) -> Interrupted:
        """What is said of it when it was broken off."""
        return Interrupted(self.dirty, bool(self.ended_leases or self.watched))


@dataclass(frozen=True, slots=True)
class EndSockets:
    """End the connections of an address whose time is over (its prefix's id, its number).

    By a `handover`: those of classes that want it so, all others are left.
    """

    prefix_id: int
    number: int
    handover: bool = False


Effect = (
    Request
    | Release
    | GiveBack
    | Refuse
    | Record
    | Project
    | Probe
    | Conclude
    | Answer
    | EndSockets
    | Look
)
