"""What the agent answers, as values: the documented shape of every `--json`.

Types, modes and states are words (`AddressType.word`), addresses and networks are text, times are
Unix seconds. Fields are only ever added.
"""

from typing import Any, Literal

import msgspec

PrefixState = Literal["ready", "waiting", "withdrawn"]
Happened = Literal[
    "rotated",
    "wandered",
    "ended",
    "warned",
    "spent",
    "refused",
    "alarm",
    "alarm-over",
    "requested",
    "granted",
    "failed",
    "returned",
    "withdrawn",
    "deprecated",
    "succeeded",
    "handover",
    "handover-over",
]
AddressState = Literal["ready", "tentative", "failed", "anyip", "withdrawn"]


class WanderView(msgspec.Struct, frozen=True, kw_only=True):
    """Prefixes of one type, family and preference that wander (names)."""

    type: str
    family: Literal["ipv4", "ipv6"]
    preference: int
    #: New sockets get an address of this one; None: none of them can serve.
    first: str | None = None
    #: Those that serve where the first one can't, in this order.
    behind: list[str] = []
    #: Until another one stands first.
    seconds_left: float


class DelegatedView(msgspec.Struct, frozen=True, kw_only=True):
    """A type that a network can be asked for, and a prefix of it that is held, if there is one.

    `idle`: nothing is asked for; `asking`: the first time; `renewing`: for longer; `confirming`:
    whether it still holds; `waiting`: it is held, and there is no link to ask on; `unserved`: and
    the present network does not serve it.
    """

    type: str
    state: Literal[
        "idle", "asking", "bound", "renewing", "confirming", "waiting", "unserved", "releasing"
    ]
    prefix: str | None = None
    preferred_seconds_left: float | None = None
    valid_seconds_left: float | None = None
    #: The server's DUID in hexadecimal, and the router or server that passed its answer on.
    server: str | None = None
    router: str | None = None
    asked_for_seconds: float | None = None
    #: Why it last gave nothing, as long as it has given nothing since.
    trouble: str = ""


class DelegationView(msgspec.Struct, frozen=True, kw_only=True):
    """A delegation of the configuration. `trouble` says why it can't be asked now."""

    name: str
    interface: str
    linked: bool
    trouble: str = ""
    types: list[DelegatedView] = []


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """The agent at a glance. `pid` also names its network namespace (`/proc/PID/ns/net`)."""

    version: str
    abi: int
    pid: int
    since: float
    config: str
    config_loaded: float
    #: Why the last reload was refused; None when it was taken, or when there was none.
    reload_error: str | None = None
    namespace_cookie: int
    #: The cgroup to which the programs are attached, as an absolute path.
    cgroup: str
    pin_dir: str
    programs: int
    prefixes: int
    addresses: int
    classes: int
    alarms: list[str] = []
    wandering: list[WanderView] = []
    delegations: list[DelegationView] = []


class PrefixView(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the typed prefix table. `reason` says why a prefix is not ready (else empty)."""

    id: int
    name: str
    type: str
    #: None of an uplink whose addresses others manage.
    prefix: str | None
    family: Literal["ipv4", "ipv6"]
    interface: str
    gateway: str | None = None
    placement: Literal["delegated", "on-link", "managed"]
    #: Whether its addresses are everybody's, and typed to classes that may use the type.
    shared: bool = False
    pool: int
    state: PrefixState
    reason: str = ""
    #: How many of the pool may be handed out now.
    addresses: int
    table: int
    mark: int
    #: Whether each class has addresses of its own, with marks and tables of their own.
    by_class: bool = False


class AddressView(msgspec.Struct, frozen=True, kw_only=True):
    """A typed address. `anyip` addresses exist by a route only, not on an interface.

    `withdrawn`: it may be there, but is given to nobody, since nothing can leave by the uplink.
    """

    address: str
    #: The name of the prefix that it comes from.
    prefix: str
    type: str
    family: Literal["ipv4", "ipv6"]
    interface: str
    state: AddressState
    #: Sockets whose local address it is: tracked ones as the programs count them (exact), others as
    #: sock_diag lists them.
    sockets: int = 0
    #: The class whose own it is; None: it is shared.
    class_: str | None = msgspec.field(name="class", default=None)


class SocketView(msgspec.Struct, frozen=True, kw_only=True):
    """A live socket, as sock_diag lists it, with the class and type that the datapath gives it.

    `pid` 0 and an empty `process`: no process of this host holds it any more (e.g. FIN_WAIT).
    `source` and `destination` are `address:port`, IPv6 in brackets; empty where not set.
    """

    cookie: int
    pid: int
    process: str
    #: Class name, "unclassified" for none (`class` in JSON).
    class_: str = msgspec.field(name="class")
    type: str
    protocol: str
    state: str
    source: str
    destination: str
    cgroup: str


class CapView(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a type a class may have, and how many live sockets it has (None: no cap)."""

    type: str
    live: int
    sockets: int | None = None
    requests_per_minute: int | None = None


class LimitView(msgspec.Struct, frozen=True, kw_only=True):
    """How long an address of a type serves a class, and for how many bytes (None: no limit)."""

    type: str
    preferred_seconds: int | None = None
    budget_bytes: int | None = None


class ClassView(msgspec.Struct, frozen=True, kw_only=True):
    """An application class with the cgroups that its patterns match now (absolute paths)."""

    id: int
    name: str
    mode: Literal["enforce", "audit", "off"]
    allow: list[str]
    default: str | None = None
    strict: bool = False
    on_failure: Literal["open", "closed"]
    cgroups: list[str] = []
    sockets: int = 0
    #: Kinds of socket that the class may not use.
    refuse: list[str] = []
    caps: list[CapView] = []
    lifetimes: list[LimitView] = []


class LeaseView(msgspec.Struct, frozen=True, kw_only=True):
    """An address that ends, and how far it is used up; None where it has no such end.

    `phase`: `current` ones are given to sockets, `spare` and `probing` ones come next, `lingering`
    ones stay for the sockets that have them. All addresses of an any-IP prefix are one.
    """

    address: str
    prefix: str
    type: str
    phase: Literal["probing", "spare", "current", "lingering"]
    used_seconds: float
    preferred_seconds_left: float | None = None
    valid_seconds_left: float | None = None
    rotates_in_seconds: float | None = None
    used_bytes: int
    used_packets: int
    budget_bytes: int | None = None
    warn_bytes: int | None = None
    hard: bool = False
    #: Whether its prefix stands first of those that wander; None: it does not wander.
    first: bool | None = None
    wanders_in_seconds: float | None = None
    #: The class whose own it is; None: it is shared.
    class_: str | None = msgspec.field(name="class", default=None)


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """An address, and the one that sockets are given in its place now."""

    prefix: str
    old: str
    new: str


class UsageView(msgspec.Struct, frozen=True, kw_only=True):
    """What a class has sent from addresses of a type (IP bytes); no class: unclassified."""

    class_: str | None = msgspec.field(name="class", default=None)
    type: str
    bytes: int
    packets: int


class EventView(msgspec.Struct, frozen=True, kw_only=True):
    """Something that happened; None where a field says nothing of it. `time`: RFC 3339, UTC.

    `address` is whose time or bytes it is about; `rotated`: `new` takes its place; `wandered`: new
    sockets get addresses of `prefix`. `granted`, `withdrawn`, `released` are about a network's
    prefix, which stands in `address`; `failed`: none was given. `class_` and `type` are those of a
    socket that was refused, `detail` says why, or what else there is to say.
    """

    #: Counts events since the agent started.
    number: int
    time: str
    event: Happened
    prefix: str | None = None
    type: str | None = None
    address: str | None = None
    new: str | None = None
    class_: str | None = msgspec.field(name="class", default=None)
    detail: str | None = None


class Awaited(msgspec.Struct, frozen=True, kw_only=True):
    """An address that sockets are given, which was waited for."""

    type: str
    address: str


class Events(msgspec.Struct, frozen=True, kw_only=True):
    """What happened after the event that was named; `newest` is the number to ask with next.

    `lost`: how many are kept no more.
    """

    newest: int
    lost: int = 0
    events: list[EventView] = []


class Membership(msgspec.Struct, frozen=True, kw_only=True):
    """Which class a cgroup is in, and by which classified ancestor (empty: by none)."""

    class_: str = msgspec.field(name="class")
    default: str | None = None
    cgroup: str = ""


class Upgrade(msgspec.Struct, frozen=True, kw_only=True):
    """What `odm-agent upgrade` did. Without programs there was nothing to do."""

    #: "running" (it goes on), "stopped" (start it again), or "none".
    agent: Literal["running", "stopped", "none"]
    programs: int = 0
    new_maps: list[str] = []
    removed_maps: list[str] = []
    warnings: list[str] = []


class ReloadResult(msgspec.Struct, frozen=True, kw_only=True):
    """A reload that was taken; one that was not is an error of kind "config"."""

    config: str
    warnings: list[str] = []


class Request(msgspec.Struct, frozen=True):
    """What a request says beside its own arguments, which stand next to `verb`."""

    verb: str


class Answer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One answer. `kind` sorts errors: "config", "request" (malformed), "refused", "internal"."""

    ok: bool
    result: Any = None
    error: str = ""
    kind: str = ""
