"""The schema of odm-agent.toml. docs/configuration.md describes each key; a test compares them."""

from typing import Literal, get_args

import msgspec

TypeWord = Literal["fixed", "session-lasting", "nonpersistent", "graceful-replacement"]
ModeWord = Literal["enforce", "audit", "off"]
FailureWord = Literal["open", "closed"]
KindWord = Literal["raw", "ping", "mptcp", "udplite", "packet", "xdp"]


class AgentConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[agent]`: where the agent keeps its things, and which numbers it may use in the kernel."""

    state_dir: str = "/var/lib/odm-agent"
    #: Compiled programs, for the next start; empty: they are compiled at each.
    cache_dir: str = "/var/cache/odm-agent"
    socket: str = "/run/odm-agent/control.sock"
    #: Where applications wait for addresses; everybody may connect. Empty: nowhere.
    wait_socket: str = "/run/odm/wait.sock"
    pin_dir: str = "/sys/fs/bpf/odm"
    #: Where the programs are attached; empty: the cgroup v2 root, found by its mount.
    cgroup: str = ""
    #: The bits of a socket's mark that are ours: one run of 4 to 16 set bits.
    mark_mask: int = 0xFF000000
    #: Prefix number N uses routing table `table_base` + N.
    table_base: int = 865300
    #: Our four kinds of rules stand at this priority and the three after it.
    rule_priority: int = 8653
    #: rtm_protocol, fra_protocol and IFA_PROTO of all that we make (8 bits).
    protocol: int = 86
    #: Lets all IPv6 sockets of the host be bound to addresses that no interface has.
    nonlocal_bind: bool = False
    #: "address:port" of the Prometheus endpoint; empty: none.
    metrics: str = "127.0.0.1:9653"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class UnclassifiedConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[unclassified]`: what happens to sockets of no class that use typed addresses."""

    mode: ModeWord = "enforce"
    #: Kinds of socket that sockets of no class may not use.
    refuse: list[KindWord] = []


class CapConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[classes.NAME.caps.TYPE]`: how much of a type the class may have at most."""

    #: Live sockets with an address of the type.
    sockets: int | None = None
    #: Sockets that ask for the type, or are given it by default; that many may come at once.
    requests_per_minute: int | None = None


class LifetimeConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[classes.NAME.lifetimes.TYPE]`: how long the class uses an address of the type at most."""

    #: How long it is given to sockets; e.g. "12h".
    preferred: str | None = None
    #: IP bytes after which it is given to no socket any more; e.g. "10GB".
    budget: str | None = None


class ClassConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[classes.NAME]`: which cgroups belong to an application class, and what it may use."""

    #: Paths or globs below `agent.cgroup`, e.g. "system.slice/ssh.service".
    cgroups: list[str] = []
    allow: list[TypeWord] = []
    default: TypeWord | None = None
    mode: ModeWord = "enforce"
    strict: bool = False
    #: None: "closed" if the class may use fixed or session-lasting, else "open".
    on_failure: FailureWord | None = None
    #: Lets the globs match below cgroups that others than root may write.
    delegated: bool = False
    #: Kinds of socket that the class may not use.
    refuse: list[KindWord] = []
    #: What becomes of its sockets whose address is over by a handover: they end, or are left.
    on_handover: Literal["keep", "end"] = "keep"
    #: "endpoints": its MPTCP connections join from the address that follows theirs.
    mptcp: Literal["endpoints"] | None = None
    caps: dict[TypeWord, CapConfig] = {}
    lifetimes: dict[TypeWord, LifetimeConfig] = {}


class PrefixConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[prefixes.NAME]`: a static typed prefix."""

    type: TypeWord
    prefix: str
    interface: str
    #: Next hop of packets from this prefix; None: the interface itself (point-to-point).
    gateway: str | None = None
    #: Optional cross-check of `prefix`.
    family: Literal["ipv4", "ipv6"] | None = None
    placement: Literal["delegated", "on-link"]
    #: IPv4: "first-last", the addresses that are ours. Required on-link, else the whole prefix.
    range: str | None = None
    pool: int = 1
    preference: int = 0
    #: How often another one of those of its type, family and preference that wander stands first.
    wander: str | None = None
    untyped: Literal["refuse", "allow"] = "refuse"
    #: How long an address is given to sockets, and how long packets leave from it; e.g. "12h".
    preferred: str | None = None
    valid: str | None = None
    #: How often another address takes its place; "never". None: once a day for the types that are
    #: renewed without being asked.
    rotate: str | None = None
    #: IP bytes after which it is given to no socket any more; e.g. "10GB".
    budget: str | None = None
    #: The part of the budget at which its successor is made; None: "80%".
    warn: str | None = None
    #: Whether the budget also ends what is sent from it.
    hard: bool = False
    #: How many former addresses stay for the sockets that have them.
    linger: int = 32
    #: How long an IPv4 address rests before it serves again.
    reuse: str | None = None
    #: Whether sockets share addresses, or each class has its own, or each socket.
    sharing: Literal["host", "class", "socket"] = "host"
    #: Packets from the prefix that others made (containers, hosts behind this one).
    forwarded: Literal["refuse", "allow"] = "refuse"


class TermsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[delegations.NAME.terms.TYPE]`: how long addresses of the type serve within a prefix."""

    preferred: str | None = None
    valid: str | None = None
    rotate: str | None = None
    budget: str | None = None
    warn: str | None = None
    hard: bool = False


class DelegationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[delegations.NAME]`: typed prefixes that a network is asked for (DHCPv6, RFC 8415)."""

    #: Name or glob, or several, the better ones first; it is attached by one of them at a time.
    interface: str | list[str]
    #: What the network may be asked for.
    types: list[TypeWord] = msgspec.field(default_factory=lambda: list(get_args(TypeWord)))
    #: What it is asked for at the start, before any application asks.
    at_start: list[TypeWord] = []
    #: When a prefix is given back: "unused", "never", or so long after its last socket.
    release: str = "unused"
    #: Code of the continuity-service option (draft-moses-dmm-dhcp-ondemand-mobility, section 4).
    option: int = 65001
    #: The enterprise number under which the type is told as a vendor option, too.
    enterprise: int | None = None
    #: As which type a prefix serves of which the server doesn't say one; None: it is given back.
    untyped: TypeWord | None = None
    #: Length of the prefixes that are asked for, a hint.
    length: int = 64
    #: Hosts that are asked whether they are there, one of each IP version at most, and how often.
    echo: list[str] = []
    echo_interval: str = "10s"
    #: Next hop of packets; None: that of the interface's default route, or who answered.
    gateway: str | None = None
    pool: int = 1
    preference: int = 0
    linger: int = 32
    sharing: Literal["host", "class", "socket"] = "host"
    forwarded: Literal["refuse", "allow"] = "refuse"
    terms: dict[TypeWord, TermsConfig] = {}


class UplinkConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[uplinks.NAME]`: an interface whose addresses and default route others manage."""

    #: Its name, or a glob such as "wl*".
    interface: str
    type: TypeWord = "nonpersistent"
    #: Whether its addresses are only for classes that may use the type.
    exclusive: bool = False
    preference: int = 0
    #: Code of the option in which its routers say the type of a prefix; None: they are not heard.
    advertised_types: int | None = None
    #: Hosts that are asked whether they are there, one of each IP version at most, and how often.
    echo: list[str] = []
    echo_interval: str = "10s"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole file."""

    agent: AgentConfig = AgentConfig()
    unclassified: UnclassifiedConfig = UnclassifiedConfig()
    classes: dict[str, ClassConfig] = {}
    prefixes: dict[str, PrefixConfig] = {}
    delegations: dict[str, DelegationConfig] = {}
    uplinks: dict[str, UplinkConfig] = {}
