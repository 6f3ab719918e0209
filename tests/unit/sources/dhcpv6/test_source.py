"""The source of delegated prefixes, against a server on a clock that the test moves."""

from ipaddress import IPv6Address, IPv6Network

from odm_agent.core.effects import Request
from odm_agent.core.events import Failed, Failure, Granted, Unconfirmed, Withdrawn
from odm_agent.core.grants import GrantKey
from odm_agent.core.model import Family, Placement
from odm_agent.sources.dhcpv6.messages import Kind
from tests.virtual.delegated import DUID, FIXED, SESSION, Link


def test_a_request_is_granted_by_two_messages() -> None:
    link = Link()
    link.ask(SESSION)
    link.advance(0.1)
    assert link.kinds == [Kind.SOLICIT]
    grant = link.granted.grant
    assert grant.key == GrantKey("delegation:isp", "02000000")
    assert grant.prefix.type is SESSION
    assert grant.prefix.network == IPv6Network("2001:db8:1002:1::/64")
    assert grant.prefix.gateway == IPv6Address("fe80::1")
    assert grant.prefix.placement is Placement.DELEGATED
    assert grant.lifetime is not None
    assert grant.lifetime.preferred_until_s == link.boot_s - 0.1 + 0.02 + 3600
    assert grant.lifetime.valid_until_s == link.boot_s - 0.1 + 0.02 + 7200


def test_a_solicit_has_all_that_the_draft_and_the_rfc_ask_for() -> None:
    link = Link()
    link.ask(FIXED)
    ((_, solicit),) = link.sent
    assert solicit.client == DUID and solicit.server is None
    assert solicit.rapid_commit and solicit.elapsed == 0
    assert set(solicit.requested) == {82, 65001}
    (ia_pd,) = solicit.ia_pds
    assert (ia_pd.iaid, ia_pd.t1_s, ia_pd.t2_s) == (0x03000000, 0, 0)
    (hint,) = ia_pd.prefixes
    assert (hint.address, hint.length, hint.service) == (IPv6Address("::"), 64, 3)


def test_what_is_held_while_the_link_is_down_answers_nobody_before_that_is_up() -> None:
    link = Link()
    link.ask(SESSION)
    link.advance(0.1)
    link.link(False)
    assert link.ask(SESSION) == []
    link.advance(5)
    link.link(True)
    assert len(link.of(Granted)) == 1
    link.advance(0.1)
    before, after = (each.grant for each in link.of(Granted))
    assert (after.key, after.prefix) == (before.key, before.prefix)
    link.advance(60)
    assert not link.of(Failed)
    link.link(False)
    link.ask(SESSION)
    link.advance(10)
    (failed,) = link.of(Failed)
    assert failed.kind is Failure.TIMED_OUT and "has no link" in failed.cause


def _rebinds_in_vain(seconds: float) -> Link:
    """A host that holds a prefix, is attached anew, and has asked for so long whether it serves."""
    link = Link()
    link.ask(SESSION)
    link.advance(0.1)
    assert not link.granted.grant.prefix.unconfirmed
    link.link(False)
    assert link.of(Unconfirmed) == [Unconfirmed(link.granted.grant.key, attached=False)]
    link.lossy = lambda message: message.kind is Kind.REBIND
    link.link(True)
    link.advance(seconds)
    return link


def test_who_wants_the_present_network_waits_while_that_may_confirm_what_is_held() -> None:
    link = _rebinds_in_vain(2.0)
    assert link.give(Request((SESSION, Family.IPV6), on_net=True)) == []
    link.advance(1.0)
    assert link.kinds[-1] is Kind.REBIND
    link.lossy = lambda message: False
    link.advance(4.5)
    assert Kind.SOLICIT not in link.kinds[1:]
    assert not link.granted.grant.prefix.unconfirmed


def test_then_another_prefix_is_asked_for_and_what_is_held_stays() -> None:
    link = _rebinds_in_vain(12.0)
    held = link.granted.grant
    link.give(Request((SESSION, Family.IPV6), on_net=True))
    link.advance(1.0)
    other = link.granted.grant
    assert other.key != held.key and other.prefix.network != held.prefix.network
    assert not other.prefix.unconfirmed
    assert not link.of(Withdrawn)
    (again,) = link.give(Request((SESSION, Family.IPV6), on_net=True))
    assert isinstance(again, Granted) and again.grant.key == other.key


def test_what_can_not_be_asked_for_fails_at_once() -> None:
    link = Link()
    (said,) = link.ask(FIXED, Family.IPV4)
    assert isinstance(said, Failed) and said.kind is Failure.UNSUPPORTED
