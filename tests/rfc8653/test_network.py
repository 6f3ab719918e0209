"""Prefixes that a network delegates by type: a real agent, a stock Kea, tshark as the judge.

N: what goes over the link. D: which prefixes there are. S7: nothing before an application asks.
"""

import time
from collections.abc import Iterator
from ipaddress import IPv6Network, ip_address
from typing import Any

import pytest

from odm_agent.core.model import AddressType
from tests.lab.client import Kind, call, outcome, talker
from tests.lab.host import FIXED, NONPERSISTENT, SESSION
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.kea import Rules, Terms
from tests.netlab.mobile import MobileHost, Told
from tests.netlab.plan import SITES, WireType
from tests.netlab.probe_client import Message, Probe, Wish

pytestmark = needs_root

POOLS = SITES["a"].pools
AT_START = Told({"at_start": [SESSION.word]})
_SOON_S = 20.0


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MobileHost]:
    """One host for the tests that tell it anew what it is to ask for."""
    with MobileHost(tmp_path_factory.mktemp("mobile"), Told()) as made:
        yield made


@pytest.fixture
def mobile(shared: MobileHost) -> MobileHost:
    """It holds nothing, and its server is as the file says."""
    shared.forget()
    return shared


def holds(mobile: MobileHost, *types: AddressType, **keys: Any) -> list[IPv6Network]:
    """Prefixes of these types, asked for at the start."""
    mobile.reload(Told({"at_start": [each.word for each in types], **keys}))
    found = [mobile.await_prefix(each) for each in types]
    for each in found:
        mobile.route_back(each)
    return found


def test_S7_nothing_leaves_before_an_application_asks(mobile: MobileHost) -> None:
    mobile.reload(Told({"types": [SESSION.word]}))
    assert mobile.places["nothing"].do(lambda: call(Kind.TCP6)).seen
    assert mobile.netns.fork(lambda: call(Kind.UDP6)).seen
    time.sleep(3.0)  # longer than hosts that start at once wait for each other
    assert mobile.since_then() == []


def test_N1_D7_the_request_names_the_type_where_the_draft_has_it(mobile: MobileHost) -> None:
    (network,) = holds(mobile, SESSION)
    assert network.subnet_of(POOLS[WireType.SESSION_LASTING])
    solicit, reply = mobile.since_then()
    assert (solicit.message, reply.message) == (Message.SOLICIT, Message.REPLY)
    assert solicit.asked == WireType.SESSION_LASTING
    assert reply.ia.prefixes[0].prefix == network
    assert not solicit.malformed
    assert solicit.source.is_link_local and str(solicit.destination) == "ff02::1:2"
    (lease,) = mobile.kea.leases()
    assert (lease.prefix, lease.iaid, lease.duid) == (network, solicit.ia.iaid, solicit.client)
    (told,) = [each for each in mobile.events("granted") if each["address"] == str(network)]
    assert (told["prefix"], told["type"]) == ("isp/session-lasting", SESSION.word)


def test_D4_D7_the_prefix_is_configured_routed_and_used(mobile: MobileHost) -> None:
    session, brief = holds(mobile, SESSION, NONPERSISTENT)
    assert session.subnet_of(POOLS[WireType.SESSION_LASTING])
    assert brief.subnet_of(POOLS[WireType.NONPERSISTENT])
    for place, network in (("session", session), ("brief", brief)):
        for kind in (Kind.TCP6, Kind.UDP6, Kind.SENDTO6):
            seen = mobile.places[place].do(lambda kind=kind: call(kind))  # type: ignore[misc]
            assert ip_address(seen.seen) in network, (place, kind)
        row = mobile.prefixes()[network]
        assert (row["placement"], row["state"]) == ("delegated", "ready")
        assert f"from {network}" in mobile.netns.ip("-6", "rule", "show")
        default = mobile.netns.ip("-6", "route", "show", "table", str(row["table"]), "default")
        assert f"via {mobile.router} dev w0" in default  # as main's default route has it
    assert {each["type"] for each in mobile.agent.read("lifetimes")} == {
        SESSION.word,
        NONPERSISTENT.word,
    }


def test_D6_a_type_that_is_not_wanted_any_more_goes_back(mobile: MobileHost) -> None:
    session, brief = holds(mobile, SESSION, NONPERSISTENT)
    holds(mobile, NONPERSISTENT, types=[NONPERSISTENT.word])
    wait_until(lambda: session not in mobile.leased(), "it is given back", _SOON_S)
    (release, answer) = mobile.since_then(Message.RELEASE, Message.REPLY)[-2:]
    assert release.asked == WireType.SESSION_LASTING
    assert release.ia.prefixes[0].prefix == session
    assert answer.status in (None, 0)
    wait_until(lambda: [*mobile.prefixes()] == [brief], "nothing is left of it", _SOON_S)
    assert mobile.leased() == {brief}
    assert session in {IPv6Network(each["address"]) for each in mobile.events("returned")}


def test_N1_a_renewal_names_the_type_and_keeps_the_prefix(mobile: MobileHost) -> None:
    mobile.serve(Rules(terms={WireType.SESSION_LASTING: Terms(30, 60, 3, 20)}))
    (network,) = holds(mobile, SESSION)

    def renewed() -> bool:
        return len(mobile.since_then(Message.RENEW)) >= 2

    wait_until(renewed, "it is renewed twice", 60)
    assert {each.asked for each in mobile.since_then(Message.RENEW)} == {WireType.SESSION_LASTING}
    assert [*mobile.prefixes()] == [network]
    (left,) = [each["valid_seconds_left"] for each in mobile.agent.read("lifetimes")]
    assert left > 50, "the rows of its addresses are longer by then"
    seen = mobile.places["session"].do(lambda: call(Kind.TCP6))
    assert ip_address(seen.seen) in network


def test_D3_that_there_is_none_left_is_told_with_its_cause(mobile: MobileHost) -> None:
    mobile.serve(Rules(pool_lengths={WireType.FIXED: 64}))
    with Probe(mobile.netns, "w0") as other:
        other.obtain(Wish(WireType.FIXED << 24, WireType.FIXED))
    mobile.reload(Told({"at_start": [FIXED.word]}))
    told = mobile.await_event("failed")
    assert (told["prefix"], told["type"]) == ("isp/fixed", FIXED.word)
    assert "NoPrefixAvail" in told["detail"]
    assert 'odm_network_requests_total{outcome="refused",type="fixed"}' in mobile.agent.metrics()
    assert "NoPrefixAvail" in mobile.agent.log.read_text()
    (standing,) = mobile.delegated(FIXED)
    assert standing["state"] == "asking" and "NoPrefixAvail" in standing["trouble"]
    assert _attempt(mobile, "fixed") == "EADDRNOTAVAIL"
    explained = mobile.agent.call("explain", "fixed", "2001:db8:c::1", *mobile.at_socket)
    assert "can be asked for a prefix that is fixed (delegation 'isp', asking)" in explained.stdout
    assert not mobile.prefixes()


def test_N2_without_a_policy_an_untyped_prefix_is_given_back(mobile: MobileHost) -> None:
    mobile.serve(Rules(untyped=True))
    mobile.reload(AT_START)
    told = mobile.await_event("failed")
    assert "does not know types" in told["detail"]
    wait_until(lambda: not mobile.leased(), "it is given back", _SOON_S)
    assert 'outcome="unsupported",type="session-lasting"' in mobile.agent.metrics()
    assert not mobile.prefixes()


def test_N2_by_policy_an_untyped_prefix_serves(mobile: MobileHost) -> None:
    mobile.serve(Rules(untyped=True))
    (network,) = holds(mobile, NONPERSISTENT, untyped=NONPERSISTENT.word)
    assert mobile.leased() == {network}
    seen = mobile.places["brief"].do(lambda: call(Kind.TCP6))
    assert ip_address(seen.seen) in network


def test_N1_a_server_that_forgets_is_asked_to_bind_it_anew(mobile: MobileHost) -> None:
    mobile.serve(Rules(terms={WireType.SESSION_LASTING: Terms(30, 60, 3, 20)}))
    (network,) = holds(mobile, SESSION)
    mobile.kea.ask("lease6-del", **{"ip-address": str(network.network_address), "type": "IA_PD"})
    wait_until(lambda: mobile.leased() == {network}, "it is bound again", 60)
    seen = mobile.places["session"].do(lambda: call(Kind.TCP6))
    assert ip_address(seen.seen) in network
    assert not mobile.events("withdrawn")


def test_N1_a_killed_agent_goes_on_with_its_prefix(mobile: MobileHost) -> None:
    (network,) = holds(mobile, SESSION)
    with mobile.places["session"].background(talker(Kind.TCP6)) as source:
        mobile.agent.sigkill()
        seen = mobile.places["session"].do(lambda: call(Kind.TCP6))
        assert ip_address(seen.seen) in network, "enforcement goes on"
        assert _attempt(mobile, "nothing", bind=source) == "EACCES"
        mobile.agent.start()
        (rebind, reply) = mobile.await_exchange(Message.REBIND)
        assert rebind.asked == WireType.SESSION_LASTING
        assert reply.ia.prefixes[0].prefix == network and reply.ia.prefixes[0].valid
        assert mobile.await_prefix(SESSION) == network
        assert source in mobile.agent.addresses("isp/session-lasting")
        assert mobile.netns.run(["ss", "-6Htn", "state", "established", "src", f"[{source}]"])
    assert not mobile.since_then(Message.SOLICIT)[1:]


def test_N1_what_ends_while_no_agent_lives_ends_all_the_same(mobile: MobileHost) -> None:
    mobile.serve(Rules(terms={WireType.SESSION_LASTING: Terms(8, 14, 6, 7)}))
    (network,) = holds(mobile, SESSION)
    with mobile.places["session"].background(talker(Kind.TCP6)) as source:
        granted_s = time.monotonic()
        assert ip_address(source) in network
        mobile.agent.sigkill()
        wait_until(lambda: _attempt(mobile, "session") == "EADDRNOTAVAIL", "none is given", 20)
        assert time.monotonic() - granted_s < 12, "at the preferred end"
        wait_until(lambda: not _sends(mobile, source), "nothing leaves any more", 20)
    mobile.agent.start()
    mobile.serve()


def _sends(mobile: MobileHost, source: str) -> bool:
    """Whether a packet from an address reaches the gateway within a while."""
    seen = mobile.gateway.run(
        ["sh", "-c", f"timeout 2 tcpdump -i {mobile.access} -nc1 src {source} and tcp || true"]
    )
    return bool(seen.strip())


def _attempt(mobile: MobileHost, place: str, *, bind: str | None = None) -> str:
    """What a socket of a class is told that would talk."""
    there = (bind, 0) if bind else None
    return mobile.places[place].do(lambda: outcome(lambda: call(Kind.TCP6, bind=there)))
