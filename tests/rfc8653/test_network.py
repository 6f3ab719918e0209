"""Prefixes that a network delegates by type: a real agent, a stock Kea, tshark as the judge.

N: what goes over the link. D: which prefixes there are. S7: nothing before an application asks.
"""

import errno
import os
import time
from collections.abc import Callable, Iterator
from ipaddress import IPv6Network, ip_address
from pathlib import Path
from typing import Any

import pytest

from odm_agent import client
from odm_agent.core.model import AddressType
from tests.lab.client import Kind, ask, call, exchange, outcome, talker
from tests.lab.host import FIXED, NONPERSISTENT, SESSION
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.kea import Rules, Terms
from tests.netlab.mobile import MobileHost, Told
from tests.netlab.plan import SITES, WireType
from tests.netlab.probe_client import Message, Probe, Wish

pytestmark = needs_root

POOLS = SITES["a"].pools
AT_START = Told({"at_start": [SESSION.word]})
ON_DEMAND = Told({"types": [each.word for each in (SESSION, FIXED, NONPERSISTENT)]})
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


def _until_answered(mobile: MobileHost, place: str, type: AddressType) -> tuple[bool, str]:
    """A plain program that asks for a type and tries until it has an address: whether it was told
    that there is none, and the source that it has in the end.
    """

    def application() -> tuple[bool, str]:
        with Kind.TCP6.open() as sock:
            if type:
                ask(sock, type)
            told = False
            for _ in range(1000):
                try:
                    return told, exchange(sock, Kind.TCP6).local
                except OSError as error:
                    if error.errno != errno.EADDRNOTAVAIL:
                        raise
                    told = True
                    time.sleep(0.02)
            return told, "never"

    return mobile.places[place].do(application, timeout_s=60)


@pytest.mark.parametrize(
    ("place", "type"), [("every", SESSION), ("every", FIXED), ("session", AddressType.UNSPECIFIED)]
)
def test_D2_D4_a_type_that_is_not_there_is_requested_from_the_network(
    mobile: MobileHost, place: str, type: AddressType
) -> None:
    """One Solicit, with the type in it, when a socket asks, and the next attempt has an address."""
    mobile.reload(ON_DEMAND)
    mobile.route_back(POOLS[WireType[(type or SESSION).name]])
    assert not mobile.since_then()
    told_none, source = _until_answered(mobile, place, type)
    # To say which type is needed is a request already, which may be granted before the attempt.
    assert told_none or type
    wire_type = WireType[(type or SESSION).name]
    assert ip_address(source) in POOLS[wire_type]
    (solicit,) = mobile.since_then(Message.SOLICIT)
    assert solicit.asked == solicit.ia.iaid >> 24 == wire_type
    assert any(ip_address(source) in each for each in mobile.leased())
    (told,) = mobile.events("granted")
    assert told["prefix"] == f"isp/{(type or SESSION).word}"


def test_D3_a_socket_is_told_when_the_network_has_none(mobile: MobileHost) -> None:
    mobile.serve(Rules(pool_lengths={WireType.FIXED: 64}))
    with Probe(mobile.netns, "w0") as other:
        other.obtain(Wish(WireType.FIXED << 24, WireType.FIXED))
    mobile.reload(ON_DEMAND)

    def application() -> set[str]:
        told = set()
        with Kind.TCP6.open() as sock:
            ask(sock, FIXED)
            for _ in range(20):
                told.add(outcome(lambda: exchange(sock, Kind.TCP6)))
                time.sleep(0.1)
        return told

    assert mobile.places["every"].do(application) == {"EADDRNOTAVAIL"}
    told = mobile.await_event("failed")
    assert told["type"] == FIXED.word and "NoPrefixAvail" in told["detail"]
    sample = 'odm_requests_total{family="ipv6",outcome="refused",type="fixed"}'
    assert sample in mobile.agent.metrics()
    solicits = mobile.since_then(Message.SOLICIT)
    assert 1 <= len(solicits) <= 4, "it is not asked with each attempt"


def test_D3_a_socket_is_told_when_no_server_answers(mobile: MobileHost) -> None:
    mobile.kea.stop()
    mobile.reload(ON_DEMAND)
    with mobile.places["every"].background(_asking(SESSION)):
        told = mobile.await_event("failed")
    assert told["type"] == SESSION.word and "no server answers" in told["detail"]
    assert 'outcome="timed-out",type="session-lasting"' in mobile.agent.metrics()
    assert len(mobile.since_then(Message.SOLICIT)) >= 3, "it was tried again"


def _asking(type: AddressType) -> Callable[[Ready], None]:
    """A program that goes on asking."""

    def ask_on(ready: Ready) -> None:
        ready(None)
        while True:
            outcome(lambda: call(Kind.TCP6, type))
            time.sleep(0.2)

    return ask_on


def _waited_for(mobile: MobileHost, type: AddressType) -> tuple[str, str]:
    """A program that waits by setsc(): the address that it was told, and the source that it has; or
    the error, and its cause."""
    socket = str(mobile.agent.wait_socket)

    def application() -> tuple[str, str]:
        os.environ["ODM_WAIT_SOCKET"] = socket
        with Kind.TCP6.open() as sock:
            try:
                told = client.setsc(sock, type, timeout_s=60)
            except client.RequestFailed as error:
                return "unsupported" if error.unsupported else "failed", str(error)
            return str(told), exchange(sock, Kind.TCP6).local

    return mobile.places["every"].do(application, timeout_s=90)


def test_S3_D2_setsc_waits_for_the_network_and_tells_the_address(mobile: MobileHost) -> None:
    mobile.reload(ON_DEMAND)
    mobile.route_back(POOLS[WireType.FIXED])
    told, source = _waited_for(mobile, FIXED)
    assert told == source
    assert ip_address(source) in POOLS[WireType.FIXED]
    (solicit,) = mobile.since_then(Message.SOLICIT)
    assert solicit.asked == WireType.FIXED


def test_S3_D3_setsc_tells_what_the_network_can_not_give(mobile: MobileHost) -> None:
    """None left, and a network that knows no types: two errors, as setsc() has them."""
    mobile.serve(Rules(pool_lengths={WireType.FIXED: 64}))
    with Probe(mobile.netns, "w0") as other:
        other.obtain(Wish(WireType.FIXED << 24, WireType.FIXED))
    mobile.reload(ON_DEMAND)
    said, cause = _waited_for(mobile, FIXED)
    assert said == "failed" and "NoPrefixAvail" in cause
    mobile.serve(Rules(untyped=True))
    said, cause = _waited_for(mobile, SESSION)
    assert said == "unsupported" and "does not know types" in cause


@pytest.fixture(scope="module")
def restless(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MobileHost]:
    """A host whose agent soon gives back what nobody uses."""
    folder = tmp_path_factory.mktemp("restless")
    with MobileHost(folder, Told(), entry="tests.lab.restless") as made:
        yield made


def test_D6_what_no_socket_uses_any_more_goes_back(restless: MobileHost) -> None:
    restless.forget()
    restless.reload(ON_DEMAND)
    restless.route_back(POOLS[WireType.SESSION_LASTING])
    with restless.places["session"].background(_asking(AddressType.UNSPECIFIED)):
        network = restless.await_prefix(SESSION)
    with restless.places["session"].background(talker(Kind.TCP6)):
        time.sleep(15)  # longer than three looks at all sockets
        assert restless.leased() == {network}, "a socket has it"
    wait_until(lambda: not restless.leased(), "it is given back", 60)
    (release, *_) = restless.since_then(Message.RELEASE)
    assert release.asked == WireType.SESSION_LASTING
    wait_until(lambda: not restless.prefixes(), "nothing is left of it", 30)
    assert restless.events("returned")


def test_D6_by_policy_it_is_kept(restless: MobileHost) -> None:
    restless.forget()
    restless.reload(Told({"types": [SESSION.word], "release": "never"}))
    _until_answered(restless, "session", AddressType.UNSPECIFIED)
    (network,) = restless.leased()
    time.sleep(20)  # five looks at all sockets
    assert restless.leased() == {network}
    assert [*restless.prefixes()] == [network]


def test_N1_an_outage_of_the_servers_database_takes_nothing_from_the_host(tmp_path: Path) -> None:
    """Kea then says that it has no prefix, gives the held one with no lifetime, or is silent."""
    rules = Rules(terms={WireType.SESSION_LASTING: Terms(200, 300, 3, 100)})
    with MobileHost(tmp_path, AT_START, rules, database=True) as mobile:
        network = mobile.await_prefix(SESSION)
        assert mobile.postgres is not None
        mobile.postgres.stop()

        before = len(mobile.since_then())

        def asked() -> bool:
            heard = mobile.since_then()[before:]
            asked = [e for e in heard if e.message in (Message.RENEW, Message.REBIND)]
            return len({each.time_s for each in asked}) >= 2

        wait_until(asked, "the server was asked, and asked again", 60)
        for reply in mobile.since_then()[before:]:
            assert reply.message is not Message.REPLY or reply.ia.status == 6, "no prefix"
        assert [*mobile.prefixes()] == [network]
        assert mobile.prefixes()[network]["state"] == "ready"
        refusals = len(mobile.since_then(Message.REPLY))
        mobile.postgres.start()

        def renewed() -> bool:
            replies = mobile.since_then(Message.REPLY)[refusals:]
            return any(each.ia.prefixes and each.ia.prefixes[0].valid for each in replies)

        wait_until(renewed, "it is renewed when the database is back", 90)
        wait_until(lambda: mobile.delegated(SESSION)[0]["state"] == "bound", "it is bound", 20)
        assert [*mobile.prefixes()] == [network]
        assert not mobile.events("withdrawn")
