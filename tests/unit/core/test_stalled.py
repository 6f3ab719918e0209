"""What is held by an uplink that is down is not held for who needs it: the whole machine."""

from dataclasses import replace
from ipaddress import IPv6Network

from odm_agent.core import machine
from odm_agent.core.clock import Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import Answer, Effect, Release, Request
from odm_agent.core.events import Asked, Event, Failed, Failure, Granted, Needed, Offered, Tick
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType, Placement, TypedPrefix

NET = IPv6Network("2001:db8:1::/64")
PREFIX = TypedPrefix(
    *(7, "a/fixed", AddressType.FIXED, NET, "w0", None),
    *(Placement.DELEGATED, (NET,)),
)
GRANT = Grant(GrantKey("delegation:a", "1"), PREFIX, Lifetime())
OTHER_NET = IPv6Network("2001:db8:2::/64")
OTHER = replace(
    GRANT,
    key=GrantKey("delegation:b", "1"),
    prefix=replace(PREFIX, id=8, name="b/fixed", network=OTHER_NET, spans=(OTHER_NET,)),
)
WANT = GRANT.want
ADDRESS, OTHER_ADDRESS = NET[1], OTHER_NET[1]
SERVES = Offered(offers={WANT: ADDRESS}, ready=frozenset({7}))
STALLED = Offered(stalled=frozenset({7}))


class Host:
    """The machine, and what it wanted done of who asks and is asked."""

    def __init__(self, *events: Event) -> None:
        self.now_s = 100.0
        self.state = machine.begun((), Moment(self.now_s, 0.0))
        for event in events:
            self.hears(event)

    def hears(self, event: Event, after_s: float = 0.1) -> list[Effect]:
        """What is done about it, some time later."""
        self.now_s += after_s
        self.state, effects = machine.step(self.state, event, Moment(self.now_s, 0.0))
        return [each for each in effects if isinstance(each, Request | Release | Answer)]


def test_what_is_held_is_requested_only_while_its_uplink_is_down() -> None:
    host = Host(Granted(GRANT))
    assert host.hears(Needed(WANT)) == []  # its address is made ready yet
    host.hears(SERVES)
    assert host.hears(Needed(WANT)) == []
    assert host.hears(STALLED) == []  # nobody has asked for anything
    assert host.hears(Needed(WANT)) == [Request(WANT)]
    assert host.hears(Needed(WANT)) == []
    assert host.hears(SERVES) == [Release(WANT)]
    assert host.hears(Needed(WANT)) == []


def test_what_time_changes_does_not_bring_an_uplink_back() -> None:
    host = Host(Granted(GRANT), SERVES, STALLED, Tick())
    assert host.hears(Needed(WANT)) == [Request(WANT)]


def test_what_another_network_gives_is_held_too_and_answers() -> None:
    host = Host(Granted(GRANT), SERVES, STALLED)
    host.hears(Asked(Demand(1, WANT, 1000.0)))
    assert host.hears(STALLED) == [Request(WANT)]
    assert host.hears(Granted(OTHER)) == []
    assert host.hears(Needed(WANT)) == []
    offers = replace(STALLED, offers={WANT: OTHER_ADDRESS}, ready=frozenset({8}))
    assert host.hears(offers) == [Answer(1, OTHER_ADDRESS)]
    assert set(host.state.holding.leases) == {7, 8}
    assert host.hears(replace(offers, stalled=frozenset({7, 8}))) == []
    assert host.hears(Needed(WANT)) == [Request(WANT)]


def test_a_source_that_names_what_is_stalled_is_not_asked_in_a_loop() -> None:
    """Whatever it means by that: who waits goes on waiting, and the pauses become longer."""
    host = Host(Granted(GRANT), SERVES, STALLED)
    host.hears(Asked(Demand(1, WANT, 1000.0)))
    requests = host.hears(STALLED).count(Request(WANT))
    for _ in range(1000):
        if WANT in host.state.asking.requested:
            host.hears(Granted(GRANT))
        requests += host.hears(Tick()).count(Request(WANT))
        requests += host.hears(STALLED).count(Request(WANT))
    assert 1 in host.state.asking.demands
    assert 5 < requests < 12


def test_who_waits_on_a_host_that_can_ask_nobody_is_served_when_the_uplink_comes_back() -> None:
    host = Host(Granted(replace(GRANT, lifetime=None)), SERVES, STALLED)
    host.hears(Asked(Demand(1, WANT, 1000.0)))
    assert host.hears(STALLED) == [Request(WANT)]
    assert host.hears(Failed(WANT, "nobody", Failure.UNSUPPORTED)) == []
    assert host.hears(SERVES) == [Answer(1, ADDRESS)]
