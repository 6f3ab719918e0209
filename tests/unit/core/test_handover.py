"""What the machine does with a prefix that the network serves no more, by its type."""

from dataclasses import replace
from ipaddress import IPv6Network

import pytest

from odm_agent.core import machine
from odm_agent.core.clock import Moment
from odm_agent.core.effects import EndSockets, GiveBack, Look, Project, Record, Request
from odm_agent.core.events import Event, Granted, Offered, Tick, Unconfirmed, Unserved, Withdrawn
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.handover import HANDOVER, Old, waits
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime, Phase
from odm_agent.core.model import TYPES, AddressType, Placement, TypedPrefix
from odm_agent.core.releasing import LEAST_S
from odm_agent.core.standing_in import SUCCESSOR_S

NET, OTHER = IPv6Network("2001:db8:1::/64"), IPv6Network("2001:db8:2::/64")
KEY = GrantKey("delegation:isp", "1")
FIXED, SESSION = AddressType.FIXED, AddressType.SESSION_LASTING
BRIEF, GRACEFUL = AddressType.NONPERSISTENT, AddressType.GRACEFUL_REPLACEMENT
BEGIN_S = 100.0
UNTIL = Lifetime(BEGIN_S + 3600, BEGIN_S + 7200)


def grant(type_: AddressType, network: IPv6Network = NET, id_: int = 7) -> Grant:
    prefix = TypedPrefix(
        *(id_, f"isp/{type_.word}", type_, network, "w0", None),
        *(Placement.DELEGATED, (network,)),
    )
    return Grant(KEY, prefix, UNTIL, release_s=0.0)


class Host:
    """A host that holds a prefix of a type, of which sockets are given addresses."""

    def __init__(self, type_: AddressType, *, release_s: float | None = 0.0) -> None:
        self.now_s = BEGIN_S
        self.state = machine.begun((), self.moment)
        self.done: list[object] = []
        self.hears(Granted(replace(grant(type_), release_s=release_s)))
        (address,) = self.lease.addresses
        self.hears(Offered(ready=frozenset({7}), ready_leases=frozenset({address.id})))
        self.done.clear()

    @property
    def moment(self) -> Moment:
        return Moment(self.now_s, 0.0)

    @property
    def lease(self) -> Lease:
        return self.state.holding.leases[7]

    @property
    def prefix(self) -> TypedPrefix:
        """As the table has it."""
        table = [each for each in self.done if isinstance(each, Project)][-1].prefixes
        return next(each for each in table if each.id == 7)

    def hears(self, event: Event, after_s: float = 0.0) -> list[object]:
        """What is done of it, and of that nothing but time passes then."""
        self.now_s += after_s
        self.state, effects = machine.step(self.state, event, self.moment)
        self.state, more = machine.step(self.state, Tick(), self.moment)
        self.done += (said := [*effects, *more])
        return [each for each in said if not isinstance(each, Look)]

    def loses_its_link(self) -> None:
        self.hears(Unconfirmed(KEY, attached=False))


def test_the_table_has_each_type() -> None:
    assert HANDOVER.keys() == {*TYPES}
    assert {each for each in TYPES if waits(each)} == {FIXED, SESSION}


@pytest.mark.parametrize("type_", TYPES, ids=lambda each: each.word)
def test_the_loss_of_a_link_alone_ends_nothing_and_is_written_down(type_: AddressType) -> None:
    host = Host(type_)
    before = host.lease
    said = host.hears(Unconfirmed(KEY, attached=False))
    assert [each for each in said if isinstance(each, Record)] == [Record(7, host.lease)]
    assert not any(isinstance(each, EndSockets | GiveBack | Request) for each in said)
    assert host.lease.addresses == before.addresses and host.lease.phase is Phase.CURRENT
    assert not host.prefix.attached and not host.prefix.is_unserved
    host.hears(Granted(grant(type_)))
    assert host.lease == before and host.prefix.attached


@pytest.mark.parametrize("type_", TYPES, ids=lambda each: each.word)
def test_what_the_present_network_does_not_serve_ends_or_waits(type_: AddressType) -> None:
    host = Host(type_)
    host.loses_its_link()
    said = host.hears(Unserved(KEY))
    assert not host.prefix.attached
    ended = [each for each in said if isinstance(each, EndSockets)]
    if waits(type_):
        assert not ended and host.prefix.is_unserved and not host.prefix.lingering
        assert host.lease.lifetime == UNTIL
    else:
        assert ended == [EndSockets(7, 0, handover=True)]
        assert host.lease.phase is Phase.LINGERING and not host.lease.addresses
        host.hears(Offered(unused=frozenset({7})), 1.0)
        assert not host.state.holding.leases


def test_a_graceful_replacement_is_asked_for_at_once_where_the_old_one_is_in_use() -> None:
    host = Host(GRACEFUL)
    host.loses_its_link()
    assert Request(grant(GRACEFUL).want) in host.hears(Unserved(KEY))
    idle = Host(GRACEFUL)
    idle.hears(Offered(idle=frozenset({7})))
    idle.loses_its_link()
    assert not any(isinstance(each, Request) for each in idle.hears(Unserved(KEY)))
    for type_ in {*TYPES} - {GRACEFUL}:
        host = Host(type_)
        host.loses_its_link()
        assert not any(isinstance(each, Request) for each in host.hears(Unserved(KEY)))


def test_the_sockets_of_a_graceful_replacement_end_by_their_class_when_its_grace_is_over() -> None:
    host = Host(GRACEFUL)
    host.loses_its_link()
    grace = Lifetime(BEGIN_S, BEGIN_S + 30)
    said = host.hears(Granted(replace(grant(GRACEFUL), lifetime=grace)))
    assert not any(isinstance(each, EndSockets) for each in said)
    assert host.prefix.attached and host.prefix.stands_in and not host.prefix.lingering
    host.hears(Tick(), SUCCESSOR_S)
    assert host.prefix.attached and host.prefix.lingering
    assert EndSockets(7, 0, handover=True) in host.hears(Tick(), 30.0)


def test_what_ends_by_time_ends_all_its_sockets() -> None:
    host = Host(GRACEFUL)
    host.hears(Tick(), 3600.0)
    assert EndSockets(7, 0, handover=False) in host.hears(Tick(), 3600.0)
    host = Host(SESSION)
    assert EndSockets(7, 0, handover=False) in host.hears(Withdrawn(KEY, at_once=True))


@pytest.mark.parametrize("type_", TYPES, ids=lambda each: each.word)
def test_what_another_prefix_replaces_is_given_to_nobody(type_: AddressType) -> None:
    """A network that was renumbered, or a new one: the type says whether it is over at once."""
    host = Host(type_)
    said = host.hears(Granted(grant(type_, OTHER, 8)))
    assert host.prefix.lingering
    ended = [each for each in said if isinstance(each, EndSockets)]
    over = HANDOVER[type_] is Old.OVER
    assert ended == ([EndSockets(7, 0, handover=True)] if over else [])
    if not over:
        assert host.lease.addresses[0].lifetime.valid_until_s == UNTIL.valid_until_s


def test_what_was_kept_for_its_sockets_goes_back_with_the_last_of_them() -> None:
    for release_s in (0.0, 3600.0, None):
        host = Host(SESSION, release_s=release_s)
        host.loses_its_link()
        host.hears(Unserved(KEY))
        assert host.state.holding.watched() == {7}
        host.hears(Offered(idle=frozenset()), 1000.0)
        host.hears(Offered(idle=frozenset({7})), 10.0)
        host.hears(Offered(idle=frozenset({7})), LEAST_S)
        assert host.lease.returning
        assert GiveBack(KEY) in host.hears(Offered(unused=frozenset({7})))


def test_a_fixed_one_stays_and_none_goes_back_to_a_network_that_is_not_there() -> None:
    for type_ in TYPES:
        host = Host(type_)
        assert host.state.holding.watched() == {7}
        host.loses_its_link()
        assert not host.state.holding.watched()
    host = Host(FIXED)
    host.loses_its_link()
    host.hears(Unserved(KEY))
    assert not host.state.holding.watched()
    host.hears(Granted(grant(FIXED)))
    assert host.state.holding.watched() == {7}


def test_an_agent_that_goes_on_knows_what_waits_and_what_is_over() -> None:
    for type_ in TYPES:
        host = Host(type_)
        host.loses_its_link()
        said = host.hears(Unserved(KEY))
        noted = [each.lease for each in said if isinstance(each, Record)][-1]
        assert noted is not None and not noted.grant.prefix.attached
        host.state = machine.begun([noted], host.moment)
        host.done.clear()
        host.hears(Tick())
        assert host.prefix.lingering is not waits(type_)
        assert noted.handover is not waits(type_)
