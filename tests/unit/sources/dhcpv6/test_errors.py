"""What a client does about the errors of a server: what is held stays, and another one is asked.

RFC 8415, sections 18.2.5 and 18.2.10. By the times at which messages are sent.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from odm_agent.core.events import Granted, Withdrawn
from odm_agent.core.leases import Lease
from odm_agent.sources.base import Resumed
from odm_agent.sources.dhcpv6.messages import IAPD, Kind, Message, Status
from odm_agent.sources.dhcpv6.transitions import ERROR_S
from tests.virtual.delegated import SESSION, SETTINGS, Link
from tests.virtual.dhcpv6_server import Server

_IAID = 0x02000000
_T1_S, _T2_S = 1000, 2000
#: What says that a prefix is not to be had; none of it takes one back that is held.
_ERRORS = [Status.UNSPEC_FAIL, Status.NO_PREFIX_AVAIL, Status.NOT_ON_LINK]


def _bound(server: Server) -> Link:
    link = Link(servers=[server])
    link.ask()
    link.advance(1)
    assert link.of(Granted)
    return link


def _refuses(status: Status, whole: bool) -> Callable[[Message], Message]:
    """The error in the message or in the IA_PD, there beside the prefix without lifetimes."""

    def answer(said: Message) -> Message:
        if whole:
            return replace(said, ia_pds=(), status=status)
        (ia_pd,) = said.ia_pds
        gone = tuple(replace(each, preferred_s=0, valid_s=0) for each in ia_pd.prefixes)
        return replace(said, ia_pds=(IAPD(ia_pd.iaid, prefixes=gone, status=status),))

    return answer


def _gap_s(link: Link) -> float:
    """How long the last message came after the one before."""
    (before_s, _), (last_s, _) = link.sent[-2:]
    return last_s - before_s


def _after_error() -> object:
    """An answer has been under way to the client, and then it has waited."""
    return pytest.approx(ERROR_S, abs=0.1)


@pytest.mark.parametrize("whole", [False, True], ids=["ia_pd", "message"])
@pytest.mark.parametrize("status", _ERRORS, ids=lambda each: each.name)
def test_a_renewal_that_is_refused_takes_nothing_and_any_server_is_asked_soon(
    status: Status, whole: bool
) -> None:
    link = _bound(Server(t1_s=_T1_S, t2_s=_T2_S))
    held = link.granted.grant
    link.servers[0].twist = _refuses(status, whole)
    link.advance(_T1_S + ERROR_S)
    assert link.kinds == [Kind.SOLICIT, Kind.RENEW, Kind.REBIND]
    assert _gap_s(link) == _after_error()
    link.advance(_T2_S)
    assert not link.of(Withdrawn)
    link.servers[0].twist = None
    link.advance(700)
    assert link.granted.grant.prefix.network == held.prefix.network
    assert link.granted.grant.lifetime != held.lifetime


@pytest.mark.parametrize("whole", [False, True], ids=["ia_pd", "message"])
@pytest.mark.parametrize("status", _ERRORS, ids=lambda each: each.name)
def test_a_prefix_that_another_link_does_not_confirm_stays_and_is_asked_for_again_soon(
    status: Status, whole: bool
) -> None:
    link = _bound(Server(t1_s=_T1_S, t2_s=_T2_S))
    link.servers[0].twist = _refuses(status, whole)
    link.link(False)
    link.link(True)
    link.advance(1 + ERROR_S + 0.1)
    assert link.kinds == [Kind.SOLICIT, Kind.REBIND, Kind.REBIND]
    assert _gap_s(link) == _after_error()
    assert not link.of(Withdrawn)


def test_a_server_that_never_makes_a_binding_is_asked_no_more_often_than_others() -> None:
    """Each of its errors could be answered at once, and so on."""
    link = _bound(Server(t1_s=_T1_S, t2_s=_T2_S))
    link.servers[0].twist = lambda said: replace(
        said, ia_pds=(IAPD(_IAID, status=Status.NO_BINDING),)
    )
    link.advance(_T1_S + ERROR_S)
    sent = [each for each in link.sent if each[1].ia_pds[0].iaid == _IAID]
    kinds = [each.kind for _, each in sent]
    assert kinds == [Kind.SOLICIT, Kind.RENEW, Kind.REQUEST, Kind.REBIND, Kind.REQUEST]
    (asked_s, _), (rebind_s, _) = sent[2:4]
    assert rebind_s - asked_s == _after_error()
    assert not link.of(Withdrawn)


def test_a_binding_that_nobody_makes_anew_is_asked_for_of_any_server_at_once() -> None:
    link = _bound(Server(t1_s=_T1_S, t2_s=_T2_S))
    link.servers[0].leases.clear()
    link.lossy = lambda message: message.kind is Kind.REQUEST
    link.advance(_T1_S + 290)
    requests = [at_s for at_s, each in link.sent if each.kind is Kind.REQUEST]
    (rebind_s, *_) = (at_s for at_s, each in link.sent if each.kind is Kind.REBIND)
    assert len(requests) == 10 or requests[10] > rebind_s
    last = [at_s for at_s in requests if at_s < rebind_s][-1]
    assert 0.9 * 30 <= rebind_s - last <= 1.1 * 30, "when the next Request would be sent"
    assert not link.of(Withdrawn)


def test_where_t1_is_t2_any_server_is_asked_then() -> None:
    link = _bound(Server(t1_s=_T1_S, t2_s=_T1_S))
    (bound_s,) = [at_s for at_s, _ in link.outcomes()]
    link.servers.clear()
    link.advance(_T1_S + 1)
    assert link.kinds == [Kind.SOLICIT, Kind.REBIND]
    assert link.sent[-1][0] - bound_s == pytest.approx(_T1_S)


@pytest.mark.parametrize("instance", ["03000000", "00000000", "02", "102000000", "-1", "x"])
def test_a_lease_whose_number_is_none_of_its_type_is_not_gone_on_with(instance: str) -> None:
    grant = _bound(Server()).granted.grant
    key = replace(grant.key, instance=instance)
    link = Link(SETTINGS)
    said = link.give(Resumed((Lease(replace(grant, key=key)),)))
    assert said == [Withdrawn(key)] and not link.sent
    assert {each.state for each in link.source.standings()} == {"idle"}
    assert any(
        isinstance(each, Granted) and each.grant.prefix.type is SESSION
        for each in Link(SETTINGS).give(Resumed((Lease(grant),)))
    )
