"""Whatever servers, the link and applications do, in whatever order: what a delegation keeps.

The source alone, on a link with two servers that obey, forget, lie and fall silent; messages get
lost, doubled and late, and the agent is started anew.
"""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network
from random import Random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from odm_agent.core.clock import NEVER
from odm_agent.core.effects import GiveBack
from odm_agent.core.events import Failed, Granted, Unconfirmed, Unserved, Withdrawn
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.handover import waits
from odm_agent.core.leases import Lease
from odm_agent.core.model import AddressType, Family
from odm_agent.sources.base import Input, Output, Received, Resumed, Send
from odm_agent.sources.dhcpv6.bindings import MOST_BINDINGS
from odm_agent.sources.dhcpv6.codec import MalformedError, parsed
from odm_agent.sources.dhcpv6.messages import INFINITY, IAPrefix, Kind, Status
from odm_agent.sources.dhcpv6.source import PATIENCE_S
from odm_agent.sources.dhcpv6.timing import RateLimit
from tests.virtual.delegated import FIXED, SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server, Twist

#: Seconds: a host that does other things, too, is slow, and that is no fault.
pytestmark = pytest.mark.timeout(600)

GRACEFUL = AddressType.GRACEFUL_REPLACEMENT
TYPES = st.sampled_from([FIXED, SESSION, GRACEFUL])
LIFETIMES = st.sampled_from([0, 1, 5, 60, 3600, INFINITY])
SLACK_S = 1e-6


def _with(**changes: object) -> Twist:
    return lambda said: replace(
        said,
        ia_pds=tuple(
            replace(i, prefixes=tuple(replace(p, **changes) for p in i.prefixes))  # type: ignore[arg-type]
            for i in said.ia_pds
        ),
    )


def _ia(**changes: object) -> Twist:
    return lambda said: replace(
        said,
        ia_pds=tuple(replace(each, **changes) for each in said.ia_pds),  # type: ignore[arg-type]
    )


ODD = tuple(IAPrefix(IPv6Address(f"2001:db8:ff:{n}::"), 64, 9, 9, 2) for n in range(12))
TWISTS: list[Twist | None] = [
    None,
    None,
    lambda said: None,
    _with(preferred_s=0),
    _with(preferred_s=0, valid_s=0),
    _with(preferred_s=9, valid_s=3),
    _with(service=None),
    _with(service=1),
    _with(length=0),
    _with(address=IPv6Address("2001:db8:cafe::")),
    _with(address=IPv6Address("ff02::")),
    _ia(prefixes=()),
    _ia(prefixes=ODD),
    _ia(iaid=1),
    _ia(t1_s=9, t2_s=3),
    _ia(t1_s=1, t2_s=1),
    *(_ia(status=each) for each in Status),
    lambda said: replace(said, status=Status.UNSPEC_FAIL, ia_pds=()),
    lambda said: replace(said, server=b"\0\3\0\1another"),
    lambda said: replace(said, rapid_commit=not said.rapid_commit),
    lambda said: replace(said, sol_max_rt_s=60),
]
AT_START = replace(SETTINGS, at_start=frozenset({FIXED}), untyped_as=SESSION)


class Watched(Link):
    """A link on which all that the source is told and says is held against what it keeps."""

    def start(self) -> None:
        self.held: dict[GrantKey, Grant] = {}
        self.waiting: dict[Want, float] = {}
        #: By network: the lifetimes that some server gave it, as dates.
        self.promised: dict[IPv6Network, set[tuple[float, float]]] = {}
        super().start()

    def give(self, given: Input) -> list[Output]:
        if isinstance(given, Received):
            self._promise(given)
        said = super().give(given)
        for each in said:
            self._check(each)
        return said

    def _promise(self, given: Received) -> None:
        try:
            message = parsed(given.data, self.codes)
        except MalformedError:
            return
        for prefix in (p for i in message.ia_pds for p in i.prefixes):
            network = IPv6Network((prefix.address, prefix.length), strict=False)
            dates = tuple(
                NEVER if s == INFINITY else self.boot_s + s
                for s in (prefix.preferred_s, prefix.valid_s)
            )
            self.promised.setdefault(network, set()).add((dates[0], dates[1]))

    def _check(self, said: Output) -> None:
        match said:
            case Granted(grant):
                self.waiting.pop(grant.want, None)
                network, lifetime = grant.prefix.network, grant.lifetime
                assert isinstance(network, IPv6Network) and lifetime is not None
                dates = (lifetime.preferred_until_s, lifetime.valid_until_s)
                # What no server restores is deprecated before that.
                ends = {valid_s for preferred_s, valid_s in self.promised[network]}
                known = dates in self.promised[network]
                deprecated = dates[0] <= self.boot_s and dates[1] in ends
                assert known or deprecated, "no server gave it for so long"
                assert dates[0] <= dates[1] > self.boot_s
                assert network.subnet_of(IPv6Network("2000::/3")), "it is routed"
                self.held[grant.key] = grant
            case Withdrawn(key):
                self.held.pop(key, None)
            case Unconfirmed(key, False):
                prefix = replace(self.held[key].prefix, unconfirmed=True, attached=False)
                self.held[key] = replace(self.held[key], prefix=prefix)
            case Unserved(key):
                assert not self.held[key].prefix.attached, "it is held by the present network"
                prefix = replace(self.held[key].prefix, unconfirmed=False)
                self.held[key] = replace(self.held[key], prefix=prefix)
                if not waits(prefix.type):
                    del self.held[key]
            case Failed(want):
                self.waiting.pop(want, None)
            case Send(data):
                message = parsed(data, self.codes)
                if message.kind is Kind.RELEASE:
                    back = {p.address for each in message.ia_pds for p in each.prefixes}
                    held = {each.prefix.network.network_address for each in self.held.values()}
                    assert held.isdisjoint(back), "it is given back while it is used"


class Delegation(RuleBasedStateMachine):
    """One host through its days."""

    def __init__(self) -> None:
        super().__init__()
        servers = [Server(1), Server(2, rapid=False)]
        self.random = Random(1)
        self.loss = 0.0
        self.link = Watched(AT_START, servers=servers)
        self.link.lossy = lambda message: self.random.random() < self.loss

    @rule(type_=TYPES)
    def ask(self, type_: AddressType) -> None:
        want = (type_, Family.IPV6)
        self.link.waiting.setdefault(want, self.link.boot_s)
        self.link.ask(type_)

    @rule(type_=TYPES)
    def release(self, type_: AddressType) -> None:
        self.link.waiting.pop((type_, Family.IPV6), None)
        self.link.release(type_)

    @rule(type_=TYPES)
    def give_back(self, type_: AddressType) -> None:
        for key, grant in list(self.link.held.items()):
            if grant.prefix.type is type_:
                self.link.give(GiveBack(key))

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.5, 1.5, 4.0, 30.0, 600.0, 4000.0]))
    def pass_time(self, seconds: float) -> None:
        self.link.advance(seconds)

    @rule(up=st.booleans())
    def change_link(self, up: bool) -> None:
        self.link.link(up)

    @rule(interface=st.sampled_from(["w0", "w1", "w2"]))
    def roam(self, interface: str) -> None:
        self.link.roam(interface)

    @rule(
        which=st.integers(0, 1),
        twist=st.integers(0, len(TWISTS) - 1),
        preferred_s=LIFETIMES,
        more_s=LIFETIMES,
        outage=st.booleans(),
        typed=st.booleans(),
    )
    def change_server(
        self, which: int, twist: int, preferred_s: int, more_s: int, outage: bool, typed: bool
    ) -> None:
        server = self.link.servers[which]
        server.twist, server.outage, server.typed = TWISTS[twist], outage, typed
        server.preferred_s = preferred_s
        server.valid_s = min(preferred_s + more_s, INFINITY)

    @rule(which=st.integers(0, 1), iaid=st.sampled_from([0x02000000, 0x03000000, 0x04000000]))
    def change_its_mind(self, which: int, iaid: int) -> None:
        server = self.link.servers[which]
        if self.random.random() < 0.5:
            server.leases.pop(iaid, None)
        elif iaid in server.leases:
            server.renumber(iaid)

    @rule(
        loss=st.sampled_from([0.0, 0.3, 1.0]),
        copies=st.integers(1, 3),
        delay_s=st.sampled_from([0.01, 0.4, 3.0, 30.0]),
    )
    def change_network(self, loss: float, copies: int, delay_s: float) -> None:
        """What is under way already keeps its delay, so it may come after what is sent later."""
        self.loss, self.link.copies, self.link.delay_s = loss, copies, delay_s

    @rule(octets=st.binary(max_size=60))
    def hear_noise(self, octets: bytes) -> None:
        if self.link.sent:
            xid = self.link.sent[-1][1].xid
            self.link.give(Received(b"\7" + xid.to_bytes(3, "big") + octets, "fe80::9%w0"))

    @rule()
    def start_anew(self) -> None:
        link = self.link
        held, promised = link.held, link.promised
        up, link.up = link.up, False
        link.forget_sent()
        link.start()
        link.promised = promised
        link.give(Resumed(tuple(Lease(each) for each in held.values())))
        if up:
            link.link(True)

    # --- what holds ---

    @invariant()
    def few_messages_are_sent(self) -> None:
        """Of one agent on a link: it knows nothing of what one before it has sent."""
        for times in self.link.times_by_interface().values():
            for first, last in zip(times, times[RateLimit.MESSAGES :], strict=False):
                assert last - first >= RateLimit.SECONDS - SLACK_S

    @invariant()
    def an_iaid_has_one_exchange_at_a_time(self) -> None:
        last: dict[int, int] = {}
        for _, message in self.link.sent:
            (ia_pd,) = message.ia_pds
            if last.get(ia_pd.iaid) != message.xid:
                assert message.elapsed == 0, "one goes on after another one has begun"
            last[ia_pd.iaid] = message.xid
        assert len(self.link.source._bindings) <= MOST_BINDINGS

    @invariant()
    def nothing_leaves_by_a_network_that_has_not_confirmed_it(self) -> None:
        for grant in self.link.held.values():
            if grant.prefix.attached and self.link.has_moved:
                assert self.link.up and grant.prefix.interface == self.link.interface

    @invariant()
    def nothing_is_held_for_too_long(self) -> None:
        for grant in self.link.held.values():
            assert grant.lifetime and grant.lifetime.valid_until_s > self.link.boot_s - SLACK_S

    @invariant()
    def who_waits_is_answered_in_time(self) -> None:
        for asked_s in self.link.waiting.values():
            assert self.link.boot_s - asked_s < PATIENCE_S + SLACK_S

    @invariant()
    def what_is_pending_has_a_deadline(self) -> None:
        ends = any(
            each.lifetime and each.lifetime.valid_until_s < NEVER
            for each in self.link.held.values()
        )
        if self.link.waiting or ends or self.link.source._bindings.iaids() - self._for_ever():
            assert self.link.source.deadline() is not None

    def _for_ever(self) -> set[int]:
        """What is held without end is pending for nothing."""
        return {
            int(key.instance, 16)
            for key, each in self.link.held.items()
            if each.lifetime and each.lifetime.valid_until_s == NEVER
        }


TestDelegation = Delegation.TestCase
TestDelegation.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
