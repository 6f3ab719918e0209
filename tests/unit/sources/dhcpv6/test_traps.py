"""What servers do that would cost a host its prefix, or give it one that it did not ask for."""

from dataclasses import replace
from ipaddress import IPv6Address, IPv6Network

import pytest

from odm_agent.core.events import Failed, Failure, Granted, Withdrawn
from odm_agent.core.model import TYPES, AddressType
from odm_agent.sources.dhcpv6.bindings import MOST_BINDINGS
from odm_agent.sources.dhcpv6.messages import IAPD, IAPrefix, Kind, Message, Status
from odm_agent.sources.wire_types import to_wire
from tests.virtual.delegated import DUID, FIXED, SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server

GRACEFUL = AddressType.GRACEFUL_REPLACEMENT
AT_START = replace(SETTINGS, at_start=frozenset({SESSION}))


def bound(server: Server | None = None, type_: AddressType = SESSION) -> Link:
    """A link on which a prefix of the type is held."""
    link = Link(servers=[server or Server(t1_s=1000, t2_s=2000)])
    link.ask(type_)
    link.advance(5)
    assert link.of(Granted)
    return link


# --- the type in every message, one IA_PD in each ---


@pytest.mark.parametrize("type_", TYPES)
def test_every_message_has_one_ia_pd_with_the_type(type_: AddressType) -> None:
    link = bound(Server(t1_s=100, t2_s=200, rapid=False, preference=255), type_)
    link.advance(100)  # Renew
    link.servers[0].twist = lambda said: None
    link.advance(300)  # Rebind
    link.servers[0].twist = None
    link.give_back(type_)
    link.advance(5)
    assert set(link.kinds) == {*Kind} - {Kind.ADVERTISE, Kind.REPLY}
    for _, message in link.sent:
        (ia_pd,) = message.ia_pds
        (prefix,) = ia_pd.prefixes
        assert prefix.service == to_wire(type_)
        assert ia_pd.iaid == to_wire(type_) << 24
        assert (prefix.preferred_s, prefix.valid_s, ia_pd.t1_s, ia_pd.t2_s) == (0, 0, 0, 0)
        if message.kind not in (Kind.SOLICIT, Kind.REQUEST):
            assert IPv6Network((prefix.address, prefix.length)) == link.granted.grant.prefix.network


def test_types_are_asked_for_by_messages_of_their_own() -> None:
    link = Link()
    for type_ in TYPES:
        link.ask(type_)
    link.advance(1)
    assert len(link.sent) == len(TYPES)
    assert {each.grant.prefix.type for each in link.of(Granted)} == set(TYPES)
    assert len({message.xid for _, message in link.sent}) == len(TYPES)


def test_the_vendor_option_is_sent_where_one_is_configured() -> None:
    link = Link(replace(SETTINGS, enterprise=32473), enterprise=32473)
    link.ask()
    ((_, solicit),) = link.sent
    assert 17 in solicit.requested and solicit.vendor_service == 2
    plain = Link(enterprise=32473)
    plain.ask()
    ((_, solicit),) = plain.sent
    assert 17 not in solicit.requested and solicit.vendor_service is None


def test_every_message_has_the_vendor_option_where_one_is_configured() -> None:
    server = Server(t1_s=100, t2_s=200, rapid=False, preference=255)
    link = Link(replace(SETTINGS, enterprise=32473), servers=[server], enterprise=32473)
    link.ask()
    link.advance(105)  # Renew
    server.twist = lambda said: None
    link.advance(300)  # Rebind
    server.twist = None
    link.give_back()
    link.advance(5)
    assert set(link.kinds) == {*Kind} - {Kind.ADVERTISE, Kind.REPLY}
    assert {message.vendor_service for _, message in link.sent} == {2}


# --- four messages where two do not do ---


def test_without_rapid_commit_the_best_advertise_of_the_first_second_is_taken() -> None:
    low, high = Server(1, rapid=False, preference=5), Server(2, rapid=False, preference=9)
    link = Link(servers=[low, high])
    link.ask()
    link.advance(0.9)
    assert link.kinds == [Kind.SOLICIT]
    link.advance(0.3)
    assert link.kinds == [Kind.SOLICIT, Kind.REQUEST]
    assert link.sent[1][1].server == high.duid
    assert link.sent[1][1].xid != link.sent[0][1].xid
    assert link.granted.grant.prefix.network == high.leases[0x02000000]


def test_preference_255_is_not_compared() -> None:
    link = Link(servers=[Server(1, rapid=False, preference=255)])
    link.ask()
    link.advance(0.1)
    assert link.of(Granted)


def test_after_the_first_second_the_first_advertise_is_taken() -> None:
    link = Link(servers=[Server(rapid=False)])
    link.lossy = lambda message: not link.boot_s > 1001.0
    link.ask()
    link.advance(1.2)
    assert link.kinds == [Kind.SOLICIT, Kind.SOLICIT, Kind.REQUEST]


def test_a_reply_to_a_solicit_must_say_rapid_commit() -> None:
    server = Server()
    server.twist = lambda said: replace(said, rapid_commit=False)
    link = Link(servers=[server])
    link.ask()
    link.advance(5)
    assert not link.of(Granted)


def test_one_server_that_has_none_is_no_answer_as_long_as_another_one_may_offer() -> None:
    link = Link(servers=[Server(1, exhausted={2}), Server(2, rapid=False)])
    link.ask()
    link.advance(2)
    assert link.of(Granted) and not link.of(Failed)


# --- what fails, and how that is told ---


def test_no_prefix_is_refused_with_the_reason() -> None:
    link = Link(servers=[Server(exhausted={2})])
    link.ask()
    link.advance(1.2)
    (failed,) = link.of(Failed)
    assert failed.kind is Failure.REFUSED and "NoPrefixAvail" in failed.cause
    link.advance(60)
    assert link.source.deadline() is None


def test_a_request_that_is_refused_fails() -> None:
    server = Server(rapid=False, preference=255)
    link = Link(servers=[server])
    server.twist = lambda said: (
        said
        if said.kind is Kind.ADVERTISE
        else replace(said, ia_pds=(IAPD(0x02000000, status=Status.NO_PREFIX_AVAIL),))
    )
    link.ask()
    link.advance(0.1)
    assert [each.kind for each in link.of(Failed)] == [Failure.REFUSED]


def test_a_status_of_the_message_as_a_whole_counts() -> None:
    server = Server()
    server.twist = lambda said: replace(said, ia_pds=(), status=Status.UNSPEC_FAIL)
    link = Link(servers=[server])
    link.ask()
    link.advance(1.2)
    (failed,) = link.of(Failed)
    assert "UnspecFail" in failed.cause


@pytest.mark.parametrize("rapid", [True, False])
def test_a_prefix_of_another_type_is_given_back_and_the_request_refused(rapid: bool) -> None:
    server = Server(always=1, rapid=rapid, preference=255)
    link = Link(servers=[server])
    link.ask()
    link.advance(10)
    assert [each.kind for each in link.of(Failed)] == [Failure.REFUSED]
    assert not link.of(Granted) and not server.leases
    if rapid:
        assert link.kinds == [Kind.SOLICIT, Kind.RELEASE]


def test_a_prefix_without_a_type_is_given_back_and_the_type_is_unsupported() -> None:
    server = Server(typed=False)
    link = Link(servers=[server])
    link.ask()
    link.advance(10)
    (failed,) = link.of(Failed)
    assert failed.kind is Failure.UNSUPPORTED
    assert not link.of(Granted) and not server.leases


def test_a_prefix_without_a_type_serves_as_what_is_configured_for_that() -> None:
    link = Link(replace(SETTINGS, untyped_as=SESSION), servers=[Server(typed=False)])
    link.ask(SESSION)
    link.ask(FIXED)
    link.advance(10)
    assert link.granted.grant.prefix.type is SESSION
    assert [each.want[0] for each in link.of(Failed)] == [FIXED]


@pytest.mark.parametrize("where", ["prefix", "ia_pd", "message", "vendor"])
def test_the_type_is_accepted_wherever_a_server_can_place_it(where: str) -> None:
    def placed(said: Message) -> Message:
        (ia_pd,) = said.ia_pds
        bare = replace(ia_pd.prefixes[0], service=2 if where == "prefix" else None)
        ia_pd = replace(ia_pd, prefixes=(bare,), service=2 if where == "ia_pd" else None)
        return replace(
            said,
            ia_pds=(ia_pd,),
            service=2 if where == "message" else None,
            vendor_service=2 if where == "vendor" else None,
        )

    server = Server()
    server.twist = placed
    link = Link(replace(SETTINGS, enterprise=32473), servers=[server], enterprise=32473)
    link.ask()
    link.advance(1)
    assert link.of(Granted)


@pytest.mark.parametrize("number", [0, 5, 255])
def test_a_reserved_type_is_as_good_as_none(number: int) -> None:
    server = Server()
    server.twist = lambda said: replace(
        said,
        service=2,
        ia_pds=tuple(
            replace(i, prefixes=tuple(replace(p, service=number) for p in i.prefixes))
            for i in said.ia_pds
        ),
    )
    link = Link(servers=[server])
    link.ask()
    link.advance(1)
    assert link.of(Granted), "the next wider option names the type"


# --- what is held stays held ---


def test_a_server_without_its_database_does_not_take_the_prefix_away() -> None:
    link = bound()
    server = link.servers[0]
    valid_until_s = link.granted.grant.lifetime and link.granted.grant.lifetime.valid_until_s
    grants = len(link.of(Granted))
    server.outage = True
    link.advance(3000)
    assert {Kind.RENEW, Kind.REBIND} < set(link.kinds)
    assert not link.of(Withdrawn) and len(link.of(Granted)) == grants
    server.outage = False
    link.advance(1200)
    assert len(link.of(Granted)) > grants and not link.of(Withdrawn)
    assert valid_until_s and link.granted.grant.lifetime
    assert link.granted.grant.lifetime.valid_until_s > valid_until_s


def test_an_outage_until_the_end_ends_the_prefix_at_its_last_known_date() -> None:
    link = bound()
    lifetime = link.granted.grant.lifetime
    link.servers[0].outage = True
    link.advance(8000)
    ((at_s, _),) = [(s, e) for s, e in link.said if isinstance(e, Withdrawn)]
    assert lifetime and at_s == pytest.approx(lifetime.valid_until_s)


def test_zero_lifetimes_without_an_error_are_a_withdrawal() -> None:
    link = bound()
    server = link.servers[0]
    server.twist = lambda said: replace(
        said,
        ia_pds=tuple(
            replace(i, prefixes=tuple(replace(p, preferred_s=0, valid_s=0) for p in i.prefixes))
            for i in said.ia_pds
        ),
    )
    link.advance(1000)
    assert [each.key for each in link.of(Withdrawn)] == [link.granted.grant.key]
    assert link.source.deadline() is None


def test_a_replacement_takes_the_place_of_the_prefix_under_the_same_key() -> None:
    link = bound()
    before = link.granted.grant
    network = link.servers[0].renumber(0x02000000)
    link.advance(1000)
    after = link.granted.grant
    assert after.prefix.network == network != before.prefix.network
    assert after.key == before.key
    assert not link.of(Withdrawn)


def test_a_forgotten_binding_is_requested_anew() -> None:
    link = bound()
    server = link.servers[0]
    held = server.leases.copy()
    server.leases.clear()
    server.twist = lambda said: said
    link.advance(999)
    assert link.kinds == [Kind.SOLICIT, Kind.RENEW, Kind.REQUEST]
    assert not link.of(Withdrawn)
    assert server.leases.keys() == held.keys()


def test_the_server_that_does_not_know_a_binding_is_asked_to_make_it() -> None:
    """After a link change it is another one than before."""
    link = Link()
    link.ask(AddressType.NONPERSISTENT)
    link.advance(0.1)
    link.servers[:] = [other := Server(2)]
    link.link(False)
    link.link(True)
    link.advance(3)
    assert link.kinds == [Kind.SOLICIT, Kind.REBIND, Kind.REQUEST]
    assert link.sent[-1][1].server == other.duid
    assert link.granted.grant.prefix.network == other.leases[0x01000000]


def test_an_answer_that_says_nothing_of_the_prefix_changes_nothing() -> None:
    link = bound()
    link.servers[0].twist = lambda said: replace(said, ia_pds=(IAPD(0x02000000),))
    grants = len(link.of(Granted))
    link.advance(3000)
    assert not link.of(Withdrawn) and len(link.of(Granted)) == grants


def test_a_renewed_prefix_keeps_its_type_if_the_server_does_not_repeat_it() -> None:
    link = bound()
    link.servers[0].typed = False
    grants = len(link.of(Granted))
    link.advance(1500)
    assert len(link.of(Granted)) > grants and not link.of(Withdrawn)


def test_a_prefix_that_is_renewed_as_another_type_goes_back() -> None:
    """What sockets were promised of it does not hold any more."""
    link = bound()
    link.servers[0].always = 1
    link.advance(1010)
    assert [each.key for each in link.of(Withdrawn)] == [link.granted.grant.key]
    assert link.kinds[-1] is Kind.RELEASE and not link.servers[0].leases


def test_a_prefix_that_gave_way_to_one_of_another_type_goes_back_with_that() -> None:
    """As a stock server does it with a Renew that lacks the type."""
    link = bound()
    network = link.servers[0].network(1, 99)

    def fallen(said: Message) -> Message:
        (ia_pd,) = said.ia_pds
        gone = tuple(replace(p, preferred_s=0, valid_s=0) for p in ia_pd.prefixes)
        new = IAPrefix(network.network_address, 64, 60, 120, 1)
        return replace(said, ia_pds=(replace(ia_pd, prefixes=(new, *gone)),))

    link.servers[0].twist = fallen
    link.advance(996)
    link.servers[0].twist = None
    link.advance(2)
    assert len(link.of(Withdrawn)) == 1
    (ia_pd,) = link.sent[-1][1].ia_pds
    assert link.kinds[-1] is Kind.RELEASE
    assert network.network_address in {each.address for each in ia_pd.prefixes}


def test_a_prefix_that_is_deprecated_gets_a_successor_and_lapses() -> None:
    """Graceful replacement: the network lets one go slowly while another one is there."""
    link = bound(type_=GRACEFUL)
    server = link.servers[0]
    old = link.granted.grant

    def deprecated(said: Message) -> Message:
        return replace(
            said,
            ia_pds=tuple(
                replace(
                    i,
                    t1_s=0,
                    t2_s=0,
                    prefixes=tuple(replace(p, preferred_s=0, valid_s=30) for p in i.prefixes),
                )
                if i.iaid == 0x04000000
                else i
                for i in said.ia_pds
            ),
        )

    server.twist = deprecated
    link.advance(997)
    last, new = link.of(Granted)[-2:]
    assert last.grant.prefix.network == old.prefix.network
    assert last.grant.lifetime and last.grant.lifetime.preferred_until_s <= link.boot_s
    assert new.grant.key.instance == "04000001"
    assert new.grant.prefix.network != old.prefix.network
    link.advance(31)
    assert [each.key for each in link.of(Withdrawn)] == [old.key]


# --- dates ---


@pytest.mark.parametrize(
    ("t1", "t2", "at_s"),
    [(0, 0, 1800), (100, 0, 100), (0, 1000, 625), (100, 200, 100), (9000, 9999, 1800)],
)
def test_t1_is_chosen_where_the_server_leaves_it_open(t1: int, t2: int, at_s: float) -> None:
    link = bound(Server(t1_s=t1, t2_s=t2))
    bound_s = next(s for s, e in link.said if isinstance(e, Granted))
    link.advance(4000)
    renews = [s for s, m in link.sent if m.kind is Kind.RENEW]
    assert renews[0] - bound_s == pytest.approx(at_s)


@pytest.mark.parametrize(
    "change",
    [
        {"preferred_s": 100, "valid_s": 50},
        {"valid_s": 0},
        {"preferred_s": 0},
        {"length": 65},
        {"length": 47},
        {"length": 0, "address": IPv6Address("::")},
        {"address": IPv6Address("fe80::")},
        {"address": IPv6Address("ff02::")},
        {"address": IPv6Address("::")},
        {"address": IPv6Address("::ffff:0:0")},
    ],
)
def test_a_prefix_that_no_host_can_have_is_none(change: dict[str, int | IPv6Address]) -> None:
    server = Server()
    server.twist = lambda said: replace(
        said,
        ia_pds=tuple(
            replace(i, prefixes=tuple(replace(p, **change) for p in i.prefixes))  # type: ignore[arg-type]
            for i in said.ia_pds
        ),
    )
    link = Link(servers=[server])
    link.ask()
    link.advance(2)
    assert not link.of(Granted) and len(link.of(Failed)) == 1


def test_t1_after_t2_makes_the_ia_pd_none() -> None:
    link = Link(servers=[Server(t1_s=200, t2_s=100)])
    link.ask()
    link.advance(11)
    assert not link.of(Granted)
    assert [each.kind for each in link.of(Failed)] == [Failure.TIMED_OUT]


def test_a_lifetime_without_end_never_ends() -> None:
    link = bound(Server(preferred_s=2**32 - 1, valid_s=2**32 - 1))
    lifetime = link.granted.grant.lifetime
    assert lifetime and lifetime.valid_until_s == float("inf")
    assert link.source.deadline() is None


# --- what does not answer an exchange ---


def test_what_does_not_match_changes_nothing() -> None:
    link = Link(servers=[])
    link.ask()
    (_, solicit) = link.sent[0]
    server = Server()
    good = server.answer(solicit)
    assert good is not None
    for wrong in (
        replace(good, xid=good.xid ^ 1),
        replace(good, client=DUID + b"x"),
        replace(good, client=None),
        replace(good, server=None),
        replace(good, server=b"\0\3"),
        replace(good, server=bytes(131)),
        replace(good, ia_pds=()),
        replace(good, ia_pds=tuple(replace(i, iaid=i.iaid + 1) for i in good.ia_pds)),
        replace(good, kind=Kind.SOLICIT),
    ):
        link.hear(wrong, server.address)
    for sender in ("2001:db8::1", "::1", "", "%w0", "fe80::x%w0"):
        link.hear(good, sender)
    assert not link.of(Granted) and not link.of(Failed)
    link.hear(good, server.address)
    assert link.of(Granted)


def test_an_answer_of_another_server_does_not_renew() -> None:
    link = bound()
    grants = len(link.of(Granted))
    link.servers[0].twist = lambda said: replace(said, server=b"\0\3other")
    link.advance(1999 - 5)
    assert len(link.of(Granted)) == grants


def test_an_advertise_to_a_request_and_late_copies_change_nothing() -> None:
    server = Server(rapid=False, preference=255)
    link = Link(servers=[server], copies=3)
    link.ask()
    link.advance(5)
    assert link.kinds == [Kind.SOLICIT, Kind.REQUEST]
    assert len(link.of(Granted)) == 1


def test_a_reply_that_comes_when_nobody_waits_any_more_is_given_back() -> None:
    link = Link(delay_s=0.4)
    link.ask()
    link.advance(0.5)
    link.release()
    link.advance(10)
    assert not link.of(Granted)
    assert link.kinds == [Kind.SOLICIT, Kind.RELEASE]
    assert not link.servers[0].leases


# --- released, resumed, limited ---


def test_a_held_prefix_is_withdrawn_before_it_is_released() -> None:
    link = bound()
    link.release()
    link.advance(5)
    assert Kind.RELEASE not in link.kinds, "nobody waits any more, but sockets may use it"
    link.give_back()
    link.advance(5)
    withdrawn_s = next(s for s, e in link.said if isinstance(e, Withdrawn))
    released_s = next(s for s, m in link.sent if m.kind is Kind.RELEASE)
    assert released_s > withdrawn_s
    assert not link.servers[0].leases and link.source.deadline() is None


def test_what_is_held_at_start_is_not_released_and_is_asked_for_for_ever() -> None:
    link = Link(AT_START)
    link.advance(2)
    link.release()
    link.advance(5)
    assert Kind.RELEASE not in link.kinds and not link.of(Withdrawn)
    late = Link(AT_START, servers=[])
    late.advance(5000)
    late.servers.append(Server())
    late.ask()
    late.advance(0.1)
    assert late.of(Granted), "who waits does not wait for the next Solicit"


def test_after_a_wrong_type_at_start_the_network_is_left_alone_for_a_while() -> None:
    link = Link(AT_START, servers=[Server(always=1)])
    link.advance(590)
    assert link.kinds == [Kind.SOLICIT, Kind.RELEASE]
    link.servers[0].always = None
    link.advance(30)
    assert link.of(Granted)


def test_eight_prefixes_are_the_most() -> None:
    server = Server(preferred_s=1, valid_s=10_000)
    server.twist = lambda said: said if said.rapid_commit else None
    link = Link(servers=[server])
    link.ask()
    link.advance(1000)
    assert len({each.grant.key for each in link.of(Granted)}) == MOST_BINDINGS
    link.ask(FIXED)
    failed = link.of(Failed)[-1]
    assert failed.want[0] is FIXED and failed.kind is Failure.REFUSED


def test_a_first_instance_keeps_the_iaids_of_two_delegations_apart() -> None:
    link = Link(replace(SETTINGS, first_instance=0x100))
    link.ask()
    link.advance(1)
    assert link.granted.grant.key.instance == "02000100"


def test_only_one_prefix_of_those_given_is_taken() -> None:
    server = Server()
    extra = tuple(
        IAPrefix(IPv6Address(f"2001:db8:ffff:{n}::"), 64, 100, 200, 2) for n in range(100)
    )
    server.twist = lambda said: replace(
        said, ia_pds=tuple(replace(i, prefixes=i.prefixes + extra) for i in said.ia_pds)
    )
    link = Link(servers=[server])
    link.ask()
    link.advance(1)
    assert len(link.of(Granted)) == 1
