"""A delegation that is configured anew keeps what still fits; and what people are told of one."""

from dataclasses import replace

import pytest

from odm_agent.core.events import Failed, Failure, Granted, Withdrawn
from odm_agent.core.lifetimes import Terms
from odm_agent.core.model import AddressType
from odm_agent.sources.base import Linked, Noted, Outcome
from odm_agent.sources.dhcpv6.messages import Kind
from odm_agent.sources.dhcpv6.source import PATIENCE_S
from tests.virtual.delegated import FIXED, SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server

AT_START = replace(SETTINGS, at_start=frozenset({SESSION}))
NOTHING = replace(SETTINGS, types=frozenset(), at_start=frozenset())


def held(settings: object = AT_START, **options: object) -> Link:
    link = Link(settings, **options)  # type: ignore[arg-type]
    link.advance(2.0)
    return link


def test_a_prefix_serves_by_the_new_terms_at_once_and_stays_itself() -> None:
    link = held()
    before = link.granted.grant
    link.source.configure(replace(AT_START, preference=5, terms={SESSION: Terms(rotate_s=60)}))
    assert link.source.deadline() is not None
    link.advance(0.0)
    after = link.granted.grant
    assert (after.key, after.lifetime) == (before.key, before.lifetime)
    assert after.prefix == replace(before.prefix, preference=5, terms=Terms(rotate_s=60))
    assert link.kinds == [Kind.SOLICIT]


def test_a_type_that_is_named_no_more_is_used_no_more_and_given_back() -> None:
    link = held()
    link.source.configure(NOTHING)
    link.advance(5.0)
    assert link.of(Withdrawn) == [Withdrawn(link.granted.grant.key, at_once=True)]
    assert link.kinds == [Kind.SOLICIT, Kind.RELEASE]
    assert not link.servers[0].leases
    assert link.source.is_idle


def test_what_no_server_confirms_to_have_back_is_left_after_some_tries() -> None:
    link = held()
    link.lossy = lambda message: True
    link.source.configure(NOTHING)
    link.advance(60.0)
    assert link.kinds == [Kind.SOLICIT] + [Kind.RELEASE] * 4
    assert link.source.is_idle


def test_who_waits_for_a_type_that_is_named_no_more_is_told_so() -> None:
    link = Link(servers=[])
    link.ask(FIXED)
    link.source.configure(replace(SETTINGS, types=frozenset({SESSION})))
    link.advance(0.0)
    (failed,) = link.of(Failed)
    assert (failed.want[0], failed.kind) == (FIXED, Failure.UNSUPPORTED)


def test_on_another_interface_all_begins_anew() -> None:
    link = held()
    key = link.granted.grant.key
    link.source.configure(replace(AT_START, interfaces=("w7",)))
    link.advance(10.0)
    assert link.of(Withdrawn) == [Withdrawn(key, at_once=True)]
    assert link.kinds == [Kind.SOLICIT]  # there is nobody to give it back to
    link.give(Linked("w7", True))
    link.advance(2.0)
    assert link.kinds == [Kind.SOLICIT] * 2
    assert link.granted.grant.prefix.interface == "w7"


def test_a_type_that_is_named_again_while_it_is_given_back_comes_again() -> None:
    link = held()
    link.source.configure(NOTHING)
    link.advance(0.5)
    link.source.configure(AT_START)
    link.advance(10.0)
    assert len(link.of(Granted)) == 2
    assert not link.source.is_idle


def noted(link: Link) -> list[tuple[Outcome, AddressType]]:
    return [(each.outcome, each.type) for each in link.of(Noted)]


def test_a_prefix_is_told_when_it_comes_is_renewed_and_goes() -> None:
    link = held()
    (granted,) = link.of(Noted)
    assert granted.outcome is Outcome.GRANTED and granted.network
    assert granted.took_s == pytest.approx(0.02)
    link.advance(2000.0)
    assert noted(link)[1:] == [(Outcome.RENEWED, SESSION)]
    link.lossy = lambda message: True
    link.advance(8000.0)
    # When it is not preferred any more, another one is asked for beside it.
    assert noted(link)[2:] == [(Outcome.FAILED, SESSION), (Outcome.WITHDRAWN, SESSION)]
    assert "not valid any more" in link.of(Noted)[3].cause


def test_one_that_is_to_be_there_at_the_start_is_missed_once() -> None:
    link = held(servers=[])
    link.advance(PATIENCE_S)
    (missed,) = link.of(Noted)
    assert (missed.outcome, missed.failure) == (Outcome.FAILED, Failure.TIMED_OUT)
    assert missed.cause == "no server answers"
    assert not link.of(Failed)  # nobody waits
    link.advance(3600.0)
    assert len(link.of(Noted)) == 1


@pytest.mark.parametrize(
    ("server", "failure", "cause"),
    [
        (Server(exhausted={2}), Failure.REFUSED, "NoPrefixAvail"),
        (Server(typed=False), Failure.UNSUPPORTED, "does not know types"),
        (Server(always=1), Failure.REFUSED, "gave one that is nonpersistent"),
    ],
)
def test_why_none_came_is_told_whether_or_not_somebody_waits(
    server: Server, failure: Failure, cause: str
) -> None:
    link = held(servers=[server])
    failed = [each for each in link.of(Noted) if each.outcome is Outcome.FAILED]
    assert [each.failure for each in failed] == [failure]
    assert cause in failed[0].cause
    (standing,) = (each for each in link.source.standings() if each.type is SESSION)
    assert cause in standing.trouble


def test_how_it_stands_is_told_of_each_type() -> None:
    link = held()
    found = {each.type: each for each in link.source.standings()}
    assert found.keys() == SETTINGS.types
    assert {each.state for type_, each in found.items() if type_ is not SESSION} == {"idle"}
    session = found[SESSION]
    assert session.state == "bound"
    assert session.network == link.granted.grant.prefix.network
    assert session.lifetime == link.granted.grant.lifetime
    assert session.server == link.servers[0].duid
    assert str(session.router) == "fe80::1"
    assert link.source.interfaces == SETTINGS.interfaces
    link.link(False)
    assert {e.state for e in link.source.standings() if e.type is SESSION} == {"waiting"}
    link.link(True)
    assert {e.state for e in link.source.standings() if e.type is SESSION} == {"confirming"}


def test_one_that_is_asked_for_is_told_since_when() -> None:
    link = Link(servers=[])
    link.ask(FIXED)
    link.advance(3.0)
    (standing,) = (each for each in link.source.standings() if each.type is FIXED)
    assert (standing.state, standing.network) == ("asking", None)
    assert standing.asked_s == link.boot_s - 3.0
