"""What happens to the agent. Each is a value, so a run can be written down and replayed."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, Flag, auto

from odm_agent.core.demands import Demand
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.host import Address
from odm_agent.core.model import IPAddress


class Dirty(Flag):
    """What may have changed since it was last looked at. `KERNEL`: the table, too."""

    KERNEL = auto()
    CGROUPS = auto()
    ALL = KERNEL | CGROUPS


@dataclass(frozen=True, slots=True)
class Changed:
    """Something outside has changed: a link, an address, a cgroup, the configuration."""

    what: Dirty


@dataclass(frozen=True, slots=True)
class Granted:
    """A source gave a prefix, or gives it for longer."""

    grant: Grant


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A source takes a grant back. One that is configured goes at once, others when unused.

    `at_once`: nothing may leave from its addresses any more, whoever has them; the network may give
    the prefix to somebody else now.
    """

    key: GrantKey
    at_once: bool = False


@dataclass(frozen=True, slots=True)
class Unconfirmed:
    """The host is not attached any more where a source got what it gave under `key`, or may not be.

    A `Granted` of it says that the network that the host is attached to now serves it. Not
    `attached`: its link was lost, so nothing may leave from it before that.
    """

    key: GrantKey
    attached: bool = True


@dataclass(frozen=True, slots=True)
class Unserved:
    """The network that the host is attached to now does not serve what a source got elsewhere and
    gave under `key`. What becomes of it, `core.handover` says by its type.
    """

    key: GrantKey


class Failure(Enum):
    """Why nothing came of a request; of several failures the last in this order says most.

    The words are those of metrics, too.
    """

    #: Nobody can be asked for it.
    UNSUPPORTED = "unsupported"
    #: Who was asked has not answered.
    TIMED_OUT = "timed-out"
    #: Who was asked has none, or gave something else.
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Failed:
    """No source can give what was requested; `cause` is for people."""

    want: Want
    cause: str
    kind: Failure = Failure.REFUSED


@dataclass(frozen=True, slots=True)
class Needed:
    """A socket wants an address of which no prefix serves one now, and its class may have it.

    `on_net` and `fresh` as in `Wish`.
    """

    want: Want
    on_net: bool = False
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """Somebody waits from now on."""

    demand: Demand


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Who waited by this ticket does so no more."""

    ticket: int


@dataclass(frozen=True, slots=True)
class Probed:
    """A conflict check (RFC 5227) has ended; `in_use` None: it could not be made."""

    address: Address
    in_use: bool | None


@dataclass(frozen=True, slots=True)
class Offered:
    """A look at kernel and maps has ended: this is what sockets are given now.

    `offers` has for each want the address that the kernel holds and that is given first, `ready`
    the ids of all prefixes of which sockets are given addresses. `usable`: nothing more is to be
    waited for. `finished`: nothing could not be done; `own_fault`: by a fault of the agent itself.
    `behind`: it was broken off before it had looked at all cgroups, to let others have their turn.
    `unused` are those lingering prefixes, of those asked about, that no socket uses.
    `ready_leases` are the ids of address leases whose addresses the kernel holds, ready;
    `unused_leases` those, of the ones asked about, whose addresses no socket uses. `idle` are
    those prefixes of the ones that are watched of which no socket has an address; None: none was.
    `stalled` are the prefixes that serve no socket, and not since something is still being made:
    nothing can leave by their uplinks, or all their addresses are others'.
    `on_net` are those wants of `offers` that the network serves to which the host is attached now,
    `own` the ids of prefixes in which hooks make an address for each socket that wants a new one.
    """

    offers: Mapping[Want, IPAddress] = field(default_factory=dict)
    ready: frozenset[int] = frozenset()
    usable: bool = False
    finished: bool = False
    own_fault: bool = False
    behind: bool = False
    to_probe: frozenset[Address] = frozenset()
    unused: frozenset[int] = frozenset()
    ready_leases: frozenset[int] = frozenset()
    unused_leases: frozenset[int] = frozenset()
    idle: frozenset[int] | None = None
    stalled: frozenset[int] = frozenset()
    on_net: frozenset[Want] = frozenset()
    own: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Interrupted:
    """A look was broken off, since there is something for a source that may change what is to be
    done: `dirty` is still to be looked at. `asked`: whether addresses are in use was to be told.
    """

    dirty: Dirty
    asked: bool = False


@dataclass(frozen=True, slots=True)
class Serving:
    """In the middle of a look, which goes on: sockets are given these addresses from now on.

    Who waits for one of them hears of it at once; all else is decided when the look has ended.
    """

    offers: Mapping[Want, IPAddress]


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing but time has passed."""


@dataclass(frozen=True, slots=True)
class Metered:
    """The hooks, or a look at what they counted, say how far the leases of addresses are used up.

    `warned` have reached their warning threshold, `spent` their budget (ids of address leases).
    """

    warned: frozenset[int] = frozenset()
    spent: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Rotated:
    """Somebody wants other addresses in the place of these (ids of address leases), now."""

    lease_ids: frozenset[int]


Event = (
    Changed
    | Granted
    | Withdrawn
    | Unconfirmed
    | Unserved
    | Failed
    | Needed
    | Asked
    | Cancelled
    | Probed
    | Offered
    | Interrupted
    | Serving
    | Metered
    | Rotated
    | Tick
)
