"""What one IAID stands for, and the messages that are sent about it."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType
from odm_agent.sources.dhcpv6.answers import Judged, network_of
from odm_agent.sources.dhcpv6.messages import IAPD, INFINITY, IAPrefix
from odm_agent.sources.dhcpv6.timing import Schedule
from odm_agent.sources.dhcpv6.transitions import (
    ASKING,
    HOLDING,
    TRANSITIONS,
    Came,
    Exchange,
    State,
)
from odm_agent.sources.wire_types import to_wire

#: In an IAID a type is above its instance.
_TYPE_SHIFT: Final = 24
#: So long a network may take to lead a prefix to who has asked for it (seconds). Who has left it
#: before it had answered can't know whether it or the next one does so last, and asks again.
_SETTLES_S: Final = 1.0


def iaid_of(type_: AddressType, instance: int) -> int:
    """The IAID of an instance of a type: another one for each prefix that is held at once."""
    return to_wire(type_) << _TYPE_SHIFT | instance


def is_iaid_of(type_: AddressType, iaid: int) -> bool:
    """Whether an IAID is of a type."""
    return iaid >> _TYPE_SHIFT == to_wire(type_)


@dataclass(frozen=True, slots=True)
class Held:
    """A prefix that is held, and its dates (boot-time seconds).

    `gateway`: the router, or server, from which it came.
    """

    network: IPv6Network
    lifetime: Lifetime
    gateway: IPv6Address | None
    t1_s: float = NEVER
    t2_s: float = NEVER

    @property
    def prefix(self) -> IAPrefix:
        """It, as a client names it to a server."""
        return IAPrefix(self.network.network_address, self.network.prefixlen)


def held(prefix: IAPrefix, ia_pd: IAPD, gateway: IPv6Address, now_s: float) -> Held:
    """What a Reply gives, from its arrival on.

    T1 and T2 that the server leaves open are half and four fifths of the preferred lifetime (RFC
    8415, section 14.2); a deprecated prefix is not renewed, since it is to go.
    """
    preferred_s, valid_s = _seconds(prefix.preferred_s), _seconds(prefix.valid_s)
    base_s = preferred_s or NEVER
    t2_s = _seconds(ia_pd.t2_s) if 0 < ia_pd.t2_s < valid_s else 0.8 * base_s
    t1_s = _seconds(ia_pd.t1_s) if 0 < ia_pd.t1_s <= t2_s else 0.625 * t2_s
    if not preferred_s:
        t1_s = t2_s = NEVER
    return Held(
        network=network_of(prefix),
        lifetime=Lifetime(now_s + preferred_s, now_s + valid_s),
        gateway=gateway,
        t1_s=now_s + max(t1_s, 1.0),
        t2_s=now_s + max(t2_s, 1.0),
    )


def _seconds(lifetime: int) -> float:
    return NEVER if lifetime == INFINITY else float(lifetime)


@dataclass
class Binding:
    """One IAID, where it stands, and the exchange that runs."""

    iaid: int
    type: AddressType
    state: State = State.WAITING
    #: When to ask, in `WAITING` (boot-time seconds).
    begin_s: float = NEVER
    schedule: Schedule | None = None
    xid: int = 0
    #: Since when the network is asked for a prefix (boot-time seconds); None: it is not.
    asked_s: float | None = None
    #: Who has offered or given it.
    server: bytes | None = None
    held: Held | None = None
    #: By which interface a server has given it last, or confirmed it.
    interface: str = ""
    #: Whether a server has said so since the host is attached where it is now.
    confirmed: bool = False
    #: Whether its packets may leave by the interface: not from when the link is lost until then.
    attached: bool = True
    #: Whether the host has left a network that was asked, and that had not answered.
    left_early: bool = False
    #: What was offered (`REQUESTING`) or is given back (`RELEASING`).
    prefixes: tuple[IAPrefix, ...] = ()
    #: What the best Advertise until now offers, and what the last that offers nothing lacks.
    best: Judged | None = None
    misfit: Judged | None = None

    @property
    def is_held(self) -> bool:
        """Whether it holds a prefix."""
        return self.state in HOLDING

    def is_asking(self, xid: int) -> bool:
        """Whether a message of this transaction was sent, and may be answered."""
        schedule = self.schedule
        return schedule is not None and self.xid == xid and schedule.is_under_way

    def took_s(self, now_s: float) -> float | None:
        """For how long the network has been asked; None: it is not."""
        return None if self.asked_s is None else now_s - self.asked_s

    def is_preferred(self, now_s: float) -> bool:
        """Whether it holds a prefix that sockets may be given."""
        return self._preferred_until_s > now_s

    def is_deprecated(self, now_s: float) -> bool:
        """Whether it holds a prefix that is kept for those sockets alone that have it."""
        return self.is_held and not self.is_preferred(now_s)

    def will_serve(self, now_s: float, *, on_net: bool = False) -> bool:
        """Whether there is no need to ask by another one. `on_net`: of the present network, of
        which a server may yet say that it serves what is held.
        """
        if self.state in ASKING or self.state is State.LEAVING:
            return True
        if self.state in (State.CONFIRMING, State.RESTORING):
            return self.is_preferred(now_s)
        return self.serves(now_s, on_net=on_net)

    def serves(self, now_s: float, *, on_net: bool = False) -> bool:
        """Whether sockets are given it, or will be as soon as it is configured."""
        is_here = self.confirmed if on_net else self.attached
        return self.is_preferred(now_s) and is_here

    def detach(self) -> None:
        """It is not known any more where the host is attached."""
        self.confirmed = self.attached = False

    def leave(self) -> None:
        """The link is lost."""
        self.left_early = self.schedule is not None and self.schedule.sent > 0

    def settling(self, given: Held, now_s: float) -> Held:
        """What a network gives; it is renewed soon if another one may have given it, too."""
        if not self.left_early:
            return given
        self.left_early = False
        return replace(given, t1_s=min(given.t1_s, now_s + _SETTLES_S))

    def deprecate(self, now_s: float) -> None:
        """It is to be given to no socket any more."""
        if self.held is not None:
            lifetime = self.held.lifetime
            until_s = min(lifetime.preferred_until_s, now_s)
            self.held = replace(self.held, lifetime=replace(lifetime, preferred_until_s=until_s))

    @property
    def _preferred_until_s(self) -> float:
        """Minus infinity: it holds none."""
        return self.held.lifetime.preferred_until_s if self.is_held and self.held else -NEVER

    def dates(self) -> Iterator[tuple[float, Came]]:
        """When time alone changes something, and what it is then (boot-time seconds)."""
        row, schedule = TRANSITIONS[self.state], self.schedule
        if Came.BEGIN in row:
            yield self.begin_s, Came.BEGIN
        if self.is_held and self.held is not None:
            yield self.held.lifetime.valid_until_s, Came.EXPIRED
            if Came.T2 in row:
                yield self.held.t2_s, Came.T2
            if Came.T1 in row:
                yield self.held.t1_s, Came.T1
        if schedule is not None:
            if Came.GIVEN_UP in row:
                yield schedule.over_s, Came.GIVEN_UP
            # Advertises are collected until the Solicit would be sent again (section 18.2.1).
            if schedule.sent and self.best is not None:
                yield schedule.due_s, Came.OFFERED
            elif schedule.sent and self.misfit is not None:
                yield schedule.due_s, Came.REFUSED

    def due(self, now_s: float) -> Came | None:
        """The first that time has brought, if anything."""
        return next((came for date_s, came in self.dates() if date_s <= now_s), None)

    @property
    def send_s(self) -> float:
        """When a message is due (boot-time seconds)."""
        return self.schedule.due_s if self.schedule is not None else NEVER

    def next_s(self, free_s: float, seen_s: float) -> float:
        """When it has something to do (boot-time seconds).

        `free_s`: from when on something may be sent; `seen_s`: when it was last looked at.
        """
        due_s = min((date_s for date_s, _ in self.dates()), default=NEVER)
        due_s = min(due_s, max(self.send_s, free_s))
        if self._preferred_until_s > seen_s:
            due_s = min(due_s, self._preferred_until_s)
        return due_s

    def follow(self, exchange: Exchange | None) -> None:
        """Go on with the exchange that runs as with this one."""
        if self.schedule is not None and exchange is not None:
            self.schedule = replace(self.schedule, exchange=exchange)

    def note(self, came: Came, found: Judged | None, given: Held | None) -> None:
        """Keep of what came what the next state needs."""
        back = (self.held.prefix,) if self.is_held and self.held else ()
        if came is Came.OFFERED and self.best and self.best.prefix:
            self.server, self.prefixes = self.best.message.server, (self.best.prefix,)
        elif came is Came.GIVEN and found and found.prefix:
            self.server, self.held, self.prefixes = found.message.server, given, (found.prefix,)
            self.confirmed = self.attached = True
        elif came is Came.WRONG and found:
            self.server, self.prefixes = found.message.server, back + found.prefixes
        elif came is Came.NO_BINDING and found:
            self.server = found.message.server
        elif came is Came.UNWANTED:
            self.prefixes = back
        if came is Came.REFUSED:
            self.misfit = None

    def enter(self, state: State, begin_s: float) -> None:
        """Another state, with no exchange yet."""
        self.state, self.begin_s, self.schedule = state, begin_s, None
        self.best = self.misfit = None
        if state is State.SOLICITING:
            self.server = None
