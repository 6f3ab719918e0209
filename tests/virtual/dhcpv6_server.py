"""A DHCPv6 server that delegates typed prefixes, as obliging or as hostile as a test wants it."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address, IPv6Network
from itertools import count

from odm_agent.sources.dhcpv6.messages import IAPD, IAPrefix, Kind, Message, Status
from odm_agent.sources.dhcpv6.settings import OPTION_CODE

#: What a test has the server do with an answer that it would give.
Twist = Callable[[Message], Message | None]


@dataclass
class Server:
    """Its answers; `leases` are the prefixes that it knows, by IAID."""

    number: int = 1
    preferred_s: int = 3600
    valid_s: int = 7200
    t1_s: int = 0
    t2_s: int = 0
    preference: int = 0
    rapid: bool = True
    #: Whether it knows types; and as which one it gives all (wire number), if not as the asked one.
    typed: bool = True
    always: int | None = None
    #: Types (wire numbers) that it has no prefixes of.
    exhausted: set[int] = field(default_factory=set)
    #: Its database is away: what it can't find it has not, and so takes back.
    outage: bool = False
    #: Prefixes with which it begins; then numbered ones.
    twist: Twist | None = None
    leases: dict[int, IPv6Network] = field(default_factory=dict)
    heard: list[Message] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=lambda: count(1))

    @property
    def duid(self) -> bytes:
        return bytes([0, 3, 0, 1, 2, 0, 0, 0, 0, self.number])

    @property
    def address(self) -> str:
        """From where its messages come, as the transport spells it."""
        return f"fe80::{self.number:x}%w0"

    def answer(self, asked: Message) -> Message | None:
        """What it sends, if anything."""
        self.heard.append(asked)
        if asked.server not in (None, self.duid):
            return None
        said = self._answer(asked)
        return said if said is None or self.twist is None else self.twist(said)

    def _answer(self, asked: Message) -> Message | None:
        (ia_pd,) = asked.ia_pds
        said = Message(Kind.REPLY, asked.xid, asked.client, self.duid)
        match asked.kind:
            case Kind.SOLICIT:
                rapid = self.rapid and asked.rapid_commit
                kind = Kind.REPLY if rapid else Kind.ADVERTISE
                given = self._given(ia_pd, commit=rapid)
                return replace(
                    said,
                    kind=kind,
                    rapid_commit=rapid,
                    preference=0 if rapid else self.preference,
                    ia_pds=(given,),
                )
            case Kind.REQUEST:
                return replace(said, ia_pds=(self._given(ia_pd, commit=True),))
            case Kind.RENEW | Kind.REBIND:
                return replace(said, ia_pds=(self._renewed(ia_pd),))
            case Kind.RELEASE:
                known = self.leases.pop(ia_pd.iaid, None) is not None
                return replace(said, status=Status.SUCCESS if known else Status.NO_BINDING)
        return None

    def _given(self, ia_pd: IAPD, commit: bool) -> IAPD:
        wished = self._wished(ia_pd)
        if self.outage or wished in self.exhausted:
            return IAPD(ia_pd.iaid, status=Status.NO_PREFIX_AVAIL)
        network = self.leases.get(ia_pd.iaid)
        if network is None:
            network = self.network(wished, next(self._numbers))
        if commit:
            self.leases[ia_pd.iaid] = network
        return self.lease(ia_pd.iaid, network, wished)

    def network(self, type_: int, number: int) -> IPv6Network:
        """The number-th prefix of a type (on the wire)."""
        return IPv6Network((f"2001:db8:{self.number:x}{type_:03x}:{number:x}::", 64))

    def lease(self, iaid: int, network: IPv6Network, wished: int) -> IAPD:
        """A prefix as it is given now."""
        service = (self.always or wished) if self.typed else None
        prefix = IAPrefix(
            *(network.network_address, network.prefixlen, self.preferred_s, self.valid_s),
            service=service,
        )
        return IAPD(iaid, self.t1_s, self.t2_s, (prefix,))

    def _renewed(self, ia_pd: IAPD) -> IAPD:
        (prefix,) = ia_pd.prefixes
        gone = replace(prefix, preferred_s=0, valid_s=0, service=None)
        if self.outage:
            return IAPD(ia_pd.iaid, prefixes=(gone,), status=Status.NO_PREFIX_AVAIL)
        network = self.leases.get(ia_pd.iaid)
        if network is None:
            return IAPD(ia_pd.iaid, status=Status.NO_BINDING)
        given = self.lease(ia_pd.iaid, network, self._wished(ia_pd))
        if prefix.service is None:  # as a stock server does: it falls into the default pool
            network = self.leases[ia_pd.iaid] = self.network(1, next(self._numbers))
            new = self.lease(ia_pd.iaid, network, 1)
            return replace(new, prefixes=(*new.prefixes, gone))
        if network.network_address != prefix.address:
            return replace(given, prefixes=(*given.prefixes, gone))
        return given

    def renumber(self, iaid: int) -> IPv6Network:
        """From the next Renew on it gives another prefix."""
        network = self.network(iaid >> 24, next(self._numbers))
        self.leases[iaid] = network
        return network

    def _wished(self, ia_pd: IAPD) -> int:
        """By the option where the draft has it; what names no type is nonpersistent."""
        return ia_pd.prefixes[0].service or 1


CODE = OPTION_CODE
ANY = IPv6Address("::")
