"""New addresses for sockets that ask for one: opened prefixes, bounded renewals, who is told."""

from collections.abc import Iterable
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network

import pytest

from odm_agent.core import machine
from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.demands import Demand
from odm_agent.core.effects import Answer, Effect, Record, Request
from odm_agent.core.events import (
    Asked,
    Event,
    Failure,
    Granted,
    Needed,
    Offered,
    Tick,
    Unconfirmed,
)
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.lifetimes import WITHOUT_END, Lifetime, Phase, Terms
from odm_agent.core.machine import State
from odm_agent.core.model import AddressType, Family, IPNetwork, Placement, TypedPrefix
from odm_agent.core.renewing import APART_S
from odm_agent.prefixes import typings
from odm_agent.prefixes.table import PrefixTable

SESSION = AddressType.SESSION_LASTING
NET6, NET4 = IPv6Network("2001:db8:1::/64"), IPv4Network("192.0.2.0/28")
WANT6: Want = (SESSION, Family.IPV6)
WANT4: Want = (SESSION, Family.IPV4)
KEY = GrantKey("delegation:isp", "1")
ROTATES = Terms(rotate_s=86400.0)


def prefix(network: IPNetwork = NET6, **keys: object) -> TypedPrefix:
    made = TypedPrefix(
        *(7, "isp/session", SESSION, network, "w0", None, Placement.DELEGATED, (network,))
    )
    return replace(made, **keys)  # type: ignore[arg-type]


class Stepped:
    """The machine, and what it wanted done."""

    def __init__(self, *given: TypedPrefix, lifetime: Lifetime | None = None) -> None:
        self.now_s = 100.0
        self.state: State = machine.begun((), self.now)
        self.done: list[Effect] = []
        for each in given:
            self.put(Granted(Grant(replace(KEY, instance=str(each.id)), each, lifetime)))
        self.look()

    @property
    def now(self) -> Moment:
        return Moment(self.now_s, 1e9 + self.now_s)

    def put(self, *events: Event) -> list[Effect]:
        self.done = []
        for event in events:
            self.state, effects = machine.step(self.state, event, self.now)
            self.done += effects
        return self.done

    def look(self, own: Iterable[int] = ()) -> list[Effect]:
        """Time passes, and kernel and maps are as they should be."""
        self.put(Tick())
        leases = self.state.holding.leases
        ready = {e.id for lease in leases.values() for e in lease.addresses}
        wants = {lease.grant.want for lease in leases.values()}
        return self.put(
            Offered(
                offers=dict.fromkeys(wants),  # type: ignore[arg-type]
                ready=frozenset(leases),
                finished=True,
                ready_leases=frozenset(ready),
                own=frozenset(own),
            ),
            Tick(),
        )

    def answers(self) -> list[Answer]:
        return [each for each in self.done if isinstance(each, Answer)]

    def numbers(self) -> list[int]:
        """Of the current addresses."""
        (lease,) = self.state.holding.leases.values()
        return [each.number for each in lease.addresses if each.phase is Phase.CURRENT]

    def table(self) -> PrefixTable:
        return PrefixTable(b"k" * 32).with_only(self.state.holding.prefixes())


@pytest.mark.parametrize("lifetime", [None, Lifetime(5000.0, 9000.0)], ids=["static", "leased"])
def test_a_delegated_prefix_is_opened_once_and_written_down(lifetime: Lifetime | None) -> None:
    stepped = Stepped(prefix(), lifetime=lifetime)
    (row,) = stepped.table()
    assert not row.any_ip and not row.makes_own
    (record,) = stepped.put(Needed(WANT6, fresh=True))
    assert isinstance(record, Record) and record.lease is not None and record.lease.opened
    (row,) = stepped.table()
    assert row.any_ip and row.makes_own
    assert stepped.put(Needed(WANT6, fresh=True)) == []
    assert stepped.numbers() == ([0] if lifetime else []), "nobody else's address changes"


def test_addresses_of_an_opened_prefix_end_with_the_prefix() -> None:
    stepped = Stepped(prefix(), lifetime=Lifetime(5000.0, 9000.0))
    stepped.put(Needed(WANT6, fresh=True))
    table = stepped.table()
    lease = typings.leases(table)[typings.spans(table)[NET6].lease]
    assert (lease.preferred_ns, lease.valid_ns) == (5000 * 10**9, 9000 * 10**9)


@pytest.mark.parametrize(
    "closed",
    [
        prefix(IPv6Network("2001:db8:1::/72")),
        prefix(placement=Placement.ON_LINK),
        prefix(terms=Terms(preferred_s=3600.0)),
        prefix(NET4),
    ],
    ids=["longer than 64 bits", "on-link", "its addresses end", "IPv4"],
)
def test_what_can_not_be_opened_is_not(closed: TypedPrefix) -> None:
    stepped = Stepped(closed)
    stepped.put(Needed((SESSION, closed.family), fresh=True))
    assert not stepped.state.holding.leases[7].opened


def test_who_waits_for_an_opened_prefix_is_answered_when_hooks_make_addresses() -> None:
    stepped = Stepped(prefix())
    stepped.put(Asked(Demand(1, WANT6, 500.0, fresh=True)))
    assert stepped.answers() == []
    stepped.look()
    assert stepped.answers() == [], "the route is not there yet"
    stepped.look(own=[7])
    assert [each.cause for each in stepped.answers()] == [None]


def test_all_who_ask_within_a_time_share_one_renewal() -> None:
    stepped = Stepped(prefix(NET4, terms=ROTATES, pool=2))
    assert stepped.numbers() == [0, 1]
    stepped.put(Needed(WANT4, fresh=True))
    stepped.look()
    assert stepped.numbers() == [2, 3]
    (row,) = stepped.table()
    assert row.prefix.new_until_s == 100.0 + APART_S
    for second in range(1, 10):
        stepped.now_s = 100.0 + second
        stepped.put(Needed(WANT4, fresh=True))
        stepped.look()
        assert stepped.numbers() == [2, 3]
    stepped.now_s = 100.0 + APART_S
    assert machine.deadline(stepped.state) == stepped.now_s
    stepped.look()
    assert stepped.numbers() == [4, 5], "who asked in between is not forgotten"


def test_who_waits_for_another_one_is_answered_when_it_is_there() -> None:
    stepped = Stepped(prefix(NET4, terms=ROTATES))
    stepped.put(Asked(Demand(1, WANT4, 500.0, fresh=True)))
    assert stepped.answers() == []
    stepped.look()
    stepped.look()
    assert [(each.ticket, each.cause) for each in stepped.answers()] == [(1, None)]
    assert stepped.numbers() == [1]


def test_what_was_made_before_he_could_wait_is_there_for_him() -> None:
    """The hook tells of the need first; that is no reason to renew twice, nor to let him wait."""
    stepped = Stepped(prefix(NET4, terms=ROTATES))
    stepped.put(Needed(WANT4, fresh=True), Needed(WANT4, fresh=True))
    stepped.look()
    assert stepped.numbers() == [1]
    stepped.put(Asked(Demand(1, WANT4, 500.0, fresh=True)))
    stepped.look()
    assert [(each.ticket, each.cause) for each in stepped.answers()] == [(1, None)]
    stepped.now_s = 100.0 + 2 * APART_S
    stepped.look()
    assert stepped.numbers() == [1]


def test_what_can_not_change_is_not_supported_and_told_at_once() -> None:
    for fixed in (prefix(NET4), prefix(NET4, terms=WITHOUT_END, pool=3)):
        stepped = Stepped(fixed)
        stepped.put(Asked(Demand(1, WANT4, 500.0, fresh=True)))
        (answer,) = stepped.answers()
        assert answer.kind is Failure.UNSUPPORTED and answer.cause
        assert not any(isinstance(each, Request) for each in stepped.done)


def test_no_address_that_a_socket_may_have_has_to_go_for_new_ones() -> None:
    """However often new ones are asked for: the oldest former ones would end first."""
    stepped = Stepped(prefix(NET4, terms=Terms(rotate_s=86400.0, linger=3)))
    for turn in range(20):
        stepped.now_s = 100.0 + turn * APART_S
        stepped.put(Needed(WANT4, fresh=True))
        stepped.look()
    (lease,) = stepped.state.holding.leases.values()
    phases = [each.phase for each in lease.addresses]
    assert phases.count(Phase.LINGERING) == 3 and stepped.numbers() == [3]
    assert lease.numbered == 4, "none has been retired"


def test_what_the_present_network_has_not_confirmed_is_asked_for_once_more() -> None:
    stepped = Stepped(prefix(), lifetime=Lifetime(5000.0, 9000.0))
    key = replace(KEY, instance="7")
    assert stepped.put(Needed(WANT6, on_net=True)) == []
    stepped.put(Unconfirmed(key))
    assert stepped.put(Needed(WANT6)) == []
    assert stepped.put(Needed(WANT6, on_net=True)) == [Request(WANT6, on_net=True)]
    assert stepped.put(Needed(WANT6, on_net=True)) == []
    (row,) = stepped.table()
    assert row.prefix.unconfirmed
    stepped.put(Granted(Grant(key, prefix(), Lifetime(NEVER, NEVER))))
    (row,) = stepped.table()
    assert not row.prefix.unconfirmed
    assert stepped.put(Needed(WANT6, on_net=True)) == []


def test_who_waits_for_the_present_network_is_not_answered_by_another_one() -> None:
    stepped = Stepped(prefix(), lifetime=Lifetime(5000.0, 9000.0))
    stepped.put(Unconfirmed(replace(KEY, instance="7")))
    stepped.put(Asked(Demand(1, WANT6, 500.0, on_net=True)), Asked(Demand(2, WANT6, 500.0)))
    stepped.look()
    assert [each.ticket for each in stepped.answers()] == [2]
    assert Request(WANT6, on_net=True) in stepped.done
    stepped.put(Offered(offers={WANT6: None}, on_net=frozenset({WANT6})))  # type: ignore[dict-item]
    assert [each.ticket for each in stepped.answers()] == [1]
