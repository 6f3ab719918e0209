"""A delegation on another link: what it asks there, and what each answer means, by type."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from odm_agent.core.effects import GiveBack, Request
from odm_agent.core.events import Failed, Granted, Unconfirmed, Unserved, Withdrawn
from odm_agent.core.grants import Grant
from odm_agent.core.handover import waits
from odm_agent.core.leases import Lease
from odm_agent.core.model import TYPES, AddressType, Family
from odm_agent.sources.base import Linked, Output, Resumed
from odm_agent.sources.dhcpv6.messages import IAPD, Kind, Message, Status
from odm_agent.sources.wire_types import to_wire
from tests.virtual.delegated import FIXED, SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server, Twist

BRIEF, GRACEFUL = AddressType.NONPERSISTENT, AddressType.GRACEFUL_REPLACEMENT
ONES = [pytest.param(each, id=each.word) for each in TYPES]


def bound(*types: AddressType) -> Link:
    """A link on which a prefix of each type is held."""
    link = Link(servers=[Server(t1_s=1000, t2_s=2000)])
    for type_ in types:
        link.ask(type_)
    link.advance(5)
    assert len(link.of(Granted)) == len(types)
    return link


def since(link: Link, act: Callable[[], None]) -> tuple[list[Message], list[Output]]:
    """What was sent and said of it."""
    sent, said = len(link.sent), len(link.said)
    act()
    return [each for _, each in link.sent[sent:]], [each for _, each in link.said[said:]]


def elsewhere(link: Link, seconds: float = 0.5) -> None:
    """The host loses its link and is attached by another interface."""
    link.link(False)
    link.roam("w1")
    link.advance(seconds)


def attached(link: Link, interface: str) -> None:
    """There is a link by an interface, and some time passes."""
    link.roam(interface)
    link.advance(0.1)


def grants(said: list[Output]) -> dict[AddressType, Grant]:
    return {e.grant.prefix.type: e.grant for e in said if isinstance(e, Granted)}


def takes_back(asked: Message) -> Message:
    """As RFC 8415, section 18.3.5, wants it from a server for what is not of its link."""
    (ia_pd,) = asked.ia_pds
    gone = tuple(replace(each, preferred_s=0, valid_s=0, service=None) for each in ia_pd.prefixes)
    return replace(asked, ia_pds=(replace(ia_pd, prefixes=gone),))


def gives_another(number: int, *, unmentioned: bool = False) -> Twist:
    """Of what it is asked about a server gives another one."""

    def twist(said: Message) -> Message:
        if not said.ia_pds:  # a Release is answered
            return said
        (ia_pd,) = said.ia_pds
        other = Server(number)
        new = other.lease(ia_pd.iaid, other.network(ia_pd.iaid >> 24, 1), ia_pd.iaid >> 24)
        gone = () if unmentioned else takes_back(said).ia_pds[0].prefixes
        return replace(said, ia_pds=(replace(new, prefixes=(*new.prefixes, *gone)),))

    return twist


def test_all_that_is_held_is_confirmed_at_once_where_the_host_is_attached() -> None:
    """No delay: section 15 names the parameters of a Confirm, and its delay is none of them."""
    link = bound(*TYPES)
    before = grants(link.of(Granted))
    link.link(False)
    at_s = link.boot_s
    sent, said = since(link, lambda: attached(link, "w1"))
    assert [each.kind for each in sent] == [Kind.REBIND] * 4
    assert {at for at, each in link.sent if each in sent} == {at_s}
    assert all(each.server is None for each in sent)
    after = grants(said)
    assert after.keys() == {*TYPES}
    for type_, each in after.items():
        assert each.key == before[type_].key
        assert each.prefix == replace(before[type_].prefix, interface="w1")


def test_nothing_is_granted_anew_before_the_network_has_answered() -> None:
    link = bound(*TYPES)
    _, said = since(link, lambda: link.link(False))
    keys = {each.key for each in grants(link.of(Granted)).values()}
    assert {e.key for e in said if isinstance(e, Unconfirmed) and not e.attached} == keys
    link.servers = []
    _, said = since(link, lambda: elsewhere(link, 100.0))
    assert not [each for each in said if isinstance(each, Granted | Withdrawn | Unserved)]
    for type_ in TYPES:
        assert not grants(link.ask(type_)), "nor is it given to who asks"


@pytest.mark.parametrize("type_", ONES)
def test_what_another_network_does_not_serve_is_told_and_kept_by_type(type_: AddressType) -> None:
    link = bound(type_)
    held = link.granted.grant
    link.servers[0].twist = takes_back
    _, said = since(link, lambda: elsewhere(link))
    assert [each for each in said if isinstance(each, Unserved | Withdrawn)] == [Unserved(held.key)]
    assert not grants(said)
    standings = {each.network: each.state for each in link.source.standings()}
    assert (standings.get(held.prefix.network) == "unserved") is waits(type_)  # type: ignore[arg-type]
    # Back at home.
    link.servers[0].twist = None
    link.link(False)
    sent, said = since(link, lambda: attached(link, "w0"))
    if waits(type_):
        assert [each.kind for each in sent] == [Kind.REBIND]
        assert replace(grants(said)[type_], lifetime=None) == replace(held, lifetime=None)
    else:
        assert not sent


@pytest.mark.parametrize("unmentioned", [False, True])
@pytest.mark.parametrize("type_", ONES)
def test_another_prefix_of_another_network_replaces_what_does_not_wait(
    type_: AddressType, unmentioned: bool
) -> None:
    link = bound(type_)
    held = link.granted.grant
    link.servers[0].twist = gives_another(5, unmentioned=unmentioned)
    sent, said = since(link, lambda: elsewhere(link))
    if waits(type_):
        assert Unserved(held.key) in said and not grants(said)
        (back,) = (each for each in sent if each.kind is Kind.RELEASE)
        (given,) = back.ia_pds[0].prefixes
        other = Server(5).network(to_wire(type_), 1)
        assert given.address == other.network_address and back.server == link.servers[0].duid
    else:
        assert grants(said)[type_].prefix.network != held.prefix.network
        assert grants(said)[type_].key == held.key
        assert not any(isinstance(each, Unserved | Withdrawn) for each in said)


def test_a_network_that_knows_no_types_takes_nothing_that_waits_for_another() -> None:
    link = bound(FIXED)

    def untyped(said: Message) -> Message:
        if not said.ia_pds:
            return said
        (ia_pd,) = (gives_another(5)(said) or said).ia_pds
        bare = tuple(replace(each, service=None) for each in ia_pd.prefixes)
        return replace(said, ia_pds=(replace(ia_pd, prefixes=bare),))

    link.servers[0].twist = untyped
    sent, said = since(link, lambda: elsewhere(link))
    assert Unserved(link.granted.grant.key) in said
    assert [each.kind for each in sent] == [Kind.REBIND, Kind.RELEASE]


def test_a_lost_database_takes_nothing_back_on_another_link_either() -> None:
    """Trap: NoPrefixAvail, and beside it the prefix with lifetimes of 0."""
    link = bound(*TYPES)
    link.servers[0].outage = True
    _, said = since(link, lambda: elsewhere(link, 60.0))
    assert not [each for each in said if isinstance(each, Unserved | Withdrawn | Granted)]
    link.servers[0].outage = False
    _, said = since(link, lambda: link.advance(700.0))
    assert grants(said).keys() == {*TYPES}
    assert all(each.prefix.attached for each in grants(said).values())


def test_a_graceful_replacement_is_followed_by_a_new_one_at_once() -> None:
    link = bound(GRACEFUL)
    held = link.granted.grant

    def grace(said: Message) -> Message:
        if said.ia_pds[0].iaid != int(held.key.instance, 16):
            return said
        (ia_pd,) = said.ia_pds
        old = tuple(replace(each, preferred_s=0, valid_s=30) for each in ia_pd.prefixes)
        return replace(said, ia_pds=(replace(ia_pd, prefixes=old),))

    link.servers[0].twist = grace
    link.link(False)
    link.roam("w1")
    at_s = link.boot_s
    _, said = since(link, lambda: link.advance(0.1))
    old, new = (each.grant for each in said if isinstance(each, Granted))
    assert (old.key, old.prefix.network) == (held.key, held.prefix.network)
    assert old.lifetime is not None and old.lifetime.preferred_until_s <= link.boot_s
    assert new.key != held.key and new.prefix.interface == "w1"
    ((sent_s, _),) = ((at, e) for at, e in link.sent if e.kind is Kind.SOLICIT and at >= at_s)
    assert sent_s == at_s + 2 * link.delay_s, "in the step that heard the answer"


@pytest.mark.parametrize("type_", ONES)
def test_a_flap_costs_an_exchange_and_nothing_else(type_: AddressType) -> None:
    link = bound(type_)
    held = link.granted.grant

    def flap() -> None:
        link.link(False)
        link.advance(1.0)
        link.link(True)
        link.advance(0.1)

    sent, said = since(link, flap)
    assert [each.kind for each in sent] == [Kind.REBIND]
    assert replace(grants(said)[type_], lifetime=None) == replace(held, lifetime=None)
    assert not any(isinstance(each, Unserved | Withdrawn | Failed) for each in said)


@pytest.mark.parametrize("lost", [Kind.RENEW, Kind.REBIND, Kind.REQUEST])
def test_what_is_in_the_middle_of_an_exchange_goes_along(lost: Kind) -> None:
    link = bound(SESSION)
    held = link.granted.grant
    if lost is Kind.REQUEST:
        link.servers[0].leases.clear()
    gone = {lost, Kind.RENEW} if lost is Kind.REBIND else {lost}
    link.lossy = lambda message: message.kind in gone
    link.advance(2100 if lost is Kind.REBIND else 1010)
    assert link.kinds[-1] is lost
    link.servers[0].leases[int(held.key.instance, 16)] = held.prefix.network  # type: ignore[assignment]
    link.lossy = lambda message: False
    sent, said = since(link, lambda: elsewhere(link))
    assert [each.kind for each in sent] == [Kind.REBIND] and sent[0].elapsed == 0
    assert grants(said)[SESSION].prefix == replace(held.prefix, interface="w1")


def test_who_waits_goes_on_waiting_over_a_handover() -> None:
    link = Link(servers=[])
    link.ask(SESSION)
    link.advance(1.0)
    link.servers = [Server()]
    sent, said = since(link, lambda: elsewhere(link))
    assert [each.kind for each in sent] == [Kind.SOLICIT]
    assert grants(said)[SESSION].prefix.interface == "w1"
    assert not any(isinstance(each, Failed) for each in said)


def test_a_handover_in_the_middle_of_another_one() -> None:
    link = bound(*TYPES)
    before = grants(link.of(Granted))
    link.lossy = lambda message: True
    elsewhere(link, 3.0)
    link.lossy = lambda message: False
    sent, said = since(link, lambda: attached(link, "w2"))
    assert [(each.kind, each.elapsed) for each in sent] == [(Kind.REBIND, 0)] * 4
    for type_, each in grants(said).items():
        assert each.prefix == replace(before[type_].prefix, interface="w2")


def test_what_an_answer_says_that_comes_from_the_former_link_counts_no_more() -> None:
    link = bound(SESSION)
    link.delay_s = 0.5
    link.link(False)
    link.roam("w1")
    link.advance(0.1)
    late = [*link._under_way]
    link.roam("w2")
    link._under_way = sorted([*late, *link._under_way])
    _, said = since(link, lambda: link.advance(0.95))
    assert not grants(said)
    _, said = since(link, lambda: link.advance(0.2))
    assert grants(said)[SESSION].prefix.interface == "w2"


def test_all_links_gone_and_back_on_another_one() -> None:
    link = bound(*TYPES)
    link.link(False)
    _, said = since(link, lambda: link.advance(900.0))
    assert not said
    _, said = since(link, lambda: attached(link, "w1"))
    assert grants(said).keys() == {*TYPES}


def test_what_does_not_serve_any_more_does_not_keep_another_one_away() -> None:
    link = bound(SESSION)
    link.servers[0].twist = takes_back
    elsewhere(link)
    link.servers[0].twist = None
    link.ask(SESSION)
    link.advance(0.1)
    assert link.granted.grant.prefix.interface == "w1"


def test_what_nobody_wants_on_any_more_when_its_network_is_back_is_not_asked_for() -> None:
    """Two would be held for ever of what is held from the start on."""
    link = Link(replace(SETTINGS, at_start=frozenset({SESSION})), servers=[Server()])
    link.advance(5.0)
    servers, link.servers = link.servers, []
    elsewhere(link, 30.0)
    assert link.kinds[-1] is Kind.SOLICIT or Kind.SOLICIT in link.kinds[2:]
    link.lossy = lambda message: message.kind is Kind.SOLICIT
    link.servers = servers
    link.advance(700.0)
    assert link.granted.grant.prefix.attached
    assert len(link.source._bindings) == 1


def test_what_waits_for_another_network_is_given_back_when_nobody_has_it() -> None:
    for at_start in (frozenset[AddressType](), frozenset({SESSION})):
        link = Link(replace(SETTINGS, at_start=at_start), servers=[Server()])
        link.ask(SESSION)
        link.advance(5)
        held = link.granted.grant
        link.servers[0].twist = takes_back
        elsewhere(link, 0.1)
        said = link.give(GiveBack(held.key))
        assert Withdrawn(held.key, at_once=True) in said


# --- another agent ---


def resumed(link: Link, leases: list[Lease], interface: str) -> tuple[list[Message], list[Output]]:
    def start() -> None:
        link.up = False
        link.start()
        link.give(Resumed(tuple(leases)))
        link.up, link.interface = True, interface
        link.give(Linked(interface, True))
        link.advance(0.1)

    return since(link, start)


def test_what_may_be_over_is_asked_about_first() -> None:
    link = bound(FIXED, SESSION, BRIEF)
    sent, _ = since(link, lambda: elsewhere(link, 0.0))
    types = [each.ia_pds[0].iaid >> 24 for each in sent if each.kind is Kind.REBIND]
    assert types == [to_wire(each) for each in (BRIEF, FIXED, SESSION)]


def test_another_agent_on_the_same_link_pauses_nothing() -> None:
    link = bound(SESSION)
    sent, said = resumed(link, [Lease(link.granted.grant)], "w0")
    first, last = (each.grant.prefix for each in said if isinstance(each, Granted))
    assert (first.attached, first.unconfirmed) == (True, True)
    assert (last.attached, last.unconfirmed) == (True, False)
    assert not any(isinstance(each, Unconfirmed) for each in said)
    assert [each.kind for each in sent] == [Kind.REBIND]


def test_another_agent_on_another_link_lets_nothing_leave_before_it_is_confirmed() -> None:
    link = bound(SESSION)
    key = link.granted.grant.key
    _, said = resumed(link, [Lease(link.granted.grant)], "w1")
    kinds = [type(each) for each in said if isinstance(each, Granted | Unconfirmed)]
    assert kinds == [Granted, Unconfirmed, Granted]
    assert Unconfirmed(key, attached=False) in said
    assert link.granted.grant.prefix.interface == "w1"


def test_another_agent_knows_that_the_link_was_lost() -> None:
    link = bound(SESSION)
    held = link.granted.grant
    lost = replace(held, prefix=replace(held.prefix, attached=False, unconfirmed=True))
    _, said = resumed(link, [Lease(lost)], "w0")
    first, last = (each.grant.prefix for each in said if isinstance(each, Granted))
    assert not first.attached and last.attached


def test_what_another_prefix_has_replaced_does_not_take_that_with_it() -> None:
    """Both have one key; the former one lingers by itself."""
    link = bound(GRACEFUL)
    new = link.granted.grant
    assert new.lifetime is not None
    over = replace(new.lifetime, preferred_until_s=1.0, valid_until_s=2.0)
    old = replace(new, lifetime=over, prefix=replace(new.prefix, id=77))
    for leases in ([Lease(old), Lease(new)], [Lease(new), Lease(old)]):
        _, said = resumed(link, leases, "w0")
        assert not any(isinstance(each, Withdrawn) for each in said)


# --- a server that lost its memory (RFC 8978) ---


def test_what_a_server_has_forgotten_and_does_not_restore_is_given_to_nobody_new() -> None:
    link = bound(SESSION)
    held = link.granted.grant
    iaid = int(held.key.instance, 16)

    def forgot(said: Message) -> Message:
        if said.ia_pds[0].iaid != iaid:
            return said
        return replace(said, ia_pds=(IAPD(iaid, status=Status.NO_BINDING),))

    link.servers[0].twist = forgot
    _, said = since(link, lambda: link.advance(1000.5))
    stale, new = (each.grant for each in said if isinstance(each, Granted))
    assert stale.key == held.key and stale.prefix.network == held.prefix.network
    assert stale.lifetime is not None and held.lifetime is not None
    assert stale.lifetime.preferred_until_s <= link.boot_s
    assert stale.lifetime.valid_until_s == held.lifetime.valid_until_s
    assert new.key != held.key
    assert not any(isinstance(each, Withdrawn) for each in said)


@pytest.mark.parametrize("kind", [Kind.RENEW, Kind.REBIND])
@pytest.mark.parametrize("type_", ONES)
def test_another_prefix_of_a_renumbered_network_takes_the_place(
    type_: AddressType, kind: Kind
) -> None:
    link = bound(type_)
    held = link.granted.grant
    link.lossy = lambda message: message.kind is Kind.RENEW and kind is Kind.REBIND
    other = link.servers[0].renumber(int(held.key.instance, 16))
    _, said = since(link, lambda: link.advance(2100.0))
    assert grants(said)[type_].prefix.network == other
    assert grants(said)[type_].key == held.key
    assert not any(isinstance(each, Unserved) for each in said)


def test_a_request_of_the_present_network_asks_beside_what_waits() -> None:
    link = bound(SESSION)
    link.servers[0].twist = takes_back
    elsewhere(link)
    link.servers[0].twist = None
    link.give(Request((SESSION, Family.IPV6), on_net=True))
    link.advance(0.1)
    assert link.granted.grant.prefix.on_net


def test_what_came_and_is_not_kept_is_given_back_once() -> None:
    link = bound(FIXED)
    link.servers[0].twist = gives_another(5)
    sent, _ = since(link, lambda: elsewhere(link, 60.0))
    assert [each.kind for each in sent].count(Kind.RELEASE) == 1


def test_who_leaves_a_network_before_it_has_answered_asks_the_next_one_again() -> None:
    """It leads the prefix to itself a moment after its answer, perhaps as the last of the two."""
    link = bound(FIXED, SESSION)
    servers, link.servers = link.servers, []
    elsewhere(link, 0.05)
    link.servers = servers
    link.link(False)
    sent, said = since(link, lambda: attached(link, "w0"))
    assert {each.kind for each in sent} == {Kind.REBIND} and grants(said).keys() == {FIXED, SESSION}
    sent, _ = since(link, lambda: link.advance(2.0))
    assert [each.kind for each in sent] == [Kind.RENEW] * 2
    sent, _ = since(link, lambda: link.advance(100.0))
    assert not sent, "once"


def test_what_is_kept_is_confirmed_at_once_though_the_host_moves_often() -> None:
    """20 messages in 20 seconds at an interface: of each move more are sent than of these two."""
    link = bound(*TYPES)
    link.advance(100.0)
    for number in range(7):
        _, said = since(link, lambda: elsewhere(link, 1.0))
        assert {FIXED, SESSION} <= grants(said).keys(), f"at move {number}"
        link.link(False)
        _, said = since(link, lambda: attached(link, "w0"))
        link.advance(1.0)
        assert {FIXED, SESSION} <= grants(said).keys(), f"back from move {number}"


def test_who_was_answered_does_not_ask_again() -> None:
    link = bound(FIXED, SESSION)
    elsewhere(link, 0.05)
    link.link(False)
    attached(link, "w0")
    sent, _ = since(link, lambda: link.advance(100.0))
    assert not sent
