"""One access site: what stock Kea makes of typed requests, read off the link by tshark."""

import time
from collections.abc import Iterator
from ipaddress import IPv6Network

import pytest

from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.dissect import Wire, wire
from tests.netlab.kea import Rules, Terms
from tests.netlab.plan import SITES, WireType, type_of
from tests.netlab.probe_client import Layout, Message, Probe, Status, Wish
from tests.netlab.site import OneSite

pytestmark = needs_root

NONPERSISTENT, SESSION, FIXED, GRACEFUL = WireType
POOLS = SITES["a"].pools


@pytest.fixture
def one() -> Iterator[OneSite]:
    with OneSite() as made:
        yield made


@pytest.fixture
def probe(one: OneSite) -> Iterator[Probe]:
    with Probe(one.host, "w0") as made:
        yield made


@pytest.fixture
def link(one: OneSite) -> Iterator[Wire]:
    with wire(one.host, "w0", one.folder) as made:
        yield made


@pytest.mark.parametrize("layout", Layout, ids=lambda each: each.name)
@pytest.mark.parametrize("type", WireType, ids=lambda each: each.name)
def test_each_type_has_a_pool_of_its_own(
    probe: Probe, link: Wire, type: WireType, layout: Layout
) -> None:
    told = probe.obtain(Wish(type << 24, type, layout=layout))
    solicit, reply = link.messages()
    assert not solicit.malformed and not reply.malformed
    assert (solicit.message, reply.message) == (Message.SOLICIT, Message.REPLY)
    assert solicit.client == reply.client == probe.duid
    assert (solicit.asked, solicit.type) == {
        Layout.DRAFT: (type, None),
        Layout.TOP: (None, type),
    }[layout]
    (seen,) = reply.ia.prefixes
    assert seen.prefix == told.prefix and seen.prefix.subnet_of(POOLS[type])
    assert type_of(seen.prefix) is type
    # Stock Kea says the type at the top level and nowhere else.
    assert (reply.type, reply.ia.type, seen.type) == (type, None, None)
    assert reply.ia.iaid == type << 24
    assert 0 < reply.ia.t1 < reply.ia.t2 < seen.preferred < seen.valid


def test_four_messages_lead_to_the_same_prefix(probe: Probe, link: Wire) -> None:
    advertised = probe.solicit(Wish(1, SESSION))
    assert advertised.preference == 255
    given = probe.request(advertised.server, Wish(1, SESSION, advertised.prefix))
    kept = probe.renew(given.server, Wish(1, SESSION, given.prefix))
    rebound = probe.rebind(Wish(1, SESSION, given.prefix))
    assert {advertised.prefix, given.prefix, kept.prefix, rebound.prefix} == {given.prefix}
    probe.release(given.server, Wish(1, SESSION, given.prefix))
    assert link.exchanges() == [
        (Message.SOLICIT, Message.ADVERTISE),
        (Message.REQUEST, Message.REPLY),
        (Message.RENEW, Message.REPLY),
        (Message.REBIND, Message.REPLY),
        (Message.RELEASE, Message.REPLY),
    ]


def test_a_renewal_that_does_not_name_the_type_loses_the_prefix(probe: Probe) -> None:
    given = probe.obtain(Wish(1, SESSION))
    told = probe.renew(given.server, Wish(1, None, given.prefix))
    assert told.withdrawn == [given.prefix]
    assert told.prefix in POOLS[NONPERSISTENT].subnets(new_prefix=64)


def test_only_the_first_of_two_ias_is_looked_at(probe: Probe) -> None:
    told = probe.obtain(Wish(1, FIXED), Wish(2, SESSION))
    assert len(told.given) == 2
    assert all(type_of(each) is FIXED for each in told.given)


@pytest.mark.parametrize("type", [None, 0, 9], ids=["untyped", "any", "unknown"])
def test_who_asks_for_no_type_that_there_is_gets_a_nonpersistent_prefix(
    probe: Probe, type: int | None
) -> None:
    told = probe.obtain(Wish(1, type))
    assert type_of(told.prefix) is NONPERSISTENT and told.type == NONPERSISTENT


def test_a_pool_runs_out_and_serves_again_after_a_release() -> None:
    with OneSite(Rules(pool_lengths={FIXED: 63})) as one, Probe(one.host, "w0") as probe:
        given = [probe.obtain(Wish(number, FIXED)) for number in (1, 2)]
        assert len({each.prefix for each in given}) == 2
        assert {each.prefix for each in one.kea.leases()} == {each.prefix for each in given}
        for refused in (probe.obtain(Wish(3, FIXED)), probe.solicit(Wish(3, FIXED))):
            assert refused.status == Status.NO_PREFIX_AVAIL and not refused.prefixes
        assert probe.obtain(Wish(4, SESSION)).given  # another pool is not concerned
        probe.release(given[0].server, Wish(1, FIXED, given[0].prefix))
        assert probe.obtain(Wish(3, FIXED)).prefix == given[0].prefix


def test_a_pool_serves_again_when_a_lease_has_expired() -> None:
    rules = Rules(pool_lengths={SESSION: 64}, terms={SESSION: Terms(1, 2, 0, 0)})
    with OneSite(rules) as one, Probe(one.host, "w0") as probe:
        given = probe.obtain(Wish(1, SESSION)).prefix
        assert not probe.obtain(Wish(2, SESSION)).given
        wait_until(
            lambda: probe.obtain(Wish(2, SESSION)).given == [given], "another client gets it", 20
        )


def test_fixed_prefixes_can_be_for_known_hosts_only() -> None:
    known = b"\0\4" + bytes(16)
    rules = Rules(known=[known.hex(":")], known_only=True)
    with OneSite(rules) as one:
        with Probe(one.host, "w0", known) as probe:
            assert type_of(probe.obtain(Wish(1, FIXED)).prefix) is FIXED
        with Probe(one.host, "w0") as probe:
            refused = probe.obtain(Wish(1, FIXED))
            assert refused.status == Status.NO_PREFIX_AVAIL and not refused.given
            assert probe.obtain(Wish(2, SESSION)).given


def test_a_server_that_knows_no_types_says_none() -> None:
    with OneSite(Rules(untyped=True)) as one, Probe(one.host, "w0") as probe:
        told = probe.obtain(Wish(1, SESSION))
        assert told.type is None and told.given


@pytest.mark.parametrize("way", ["stop", "kill"])
def test_leases_outlive_the_server(one: OneSite, probe: Probe, way: str) -> None:
    given = probe.obtain(Wish(1, SESSION))
    before = one.kea.leases()
    getattr(one.kea, way)()
    with pytest.raises(TimeoutError):
        probe.renew(given.server, Wish(1, SESSION, given.prefix))
    one.kea.start()
    assert one.kea.leases() == before
    assert probe.renew(given.server, Wish(1, SESSION, given.prefix)).prefix == given.prefix


def test_a_server_that_cannot_start_says_why(one: OneSite) -> None:
    one.kea.stop()
    one.kea.configure(Rules(pool_lengths={SESSION: 65}))
    with pytest.raises(AssertionError) as caught:
        one.kea.start()
    assert "prefix length (65)" in caught.value.__notes__[0]


def test_a_lost_carrier_is_the_host_s_alone(one: OneSite, probe: Probe) -> None:
    given = probe.obtain(Wish(1, SESSION))
    wait_until(lambda: given.prefix in one.site.routed(), "it is routed", 10)
    one.site.unplug()
    state = one.host.ip("-br", "link", "show", "w0")
    one.site.plug()
    assert "NO-CARRIER" in state
    assert given.prefix in one.site.routed()
    assert probe.renew(given.server, Wish(1, SESSION, given.prefix)).prefix == given.prefix


def test_advertisements_are_there_for_who_wants_them(one: OneSite) -> None:
    assert not one.host.ip("-6", "route", "show", "default")
    one.site.radvd.start()
    wait_until(
        lambda: "dev w0 proto ra" in one.host.ip("-6", "route", "show", "default"), "a route", 20
    )


def test_the_route_lives_as_long_as_the_lease() -> None:
    with OneSite(Rules(terms={SESSION: Terms(4, 5, 1, 2)})) as one, Probe(one.host, "w0") as probe:
        given = probe.obtain(Wish(1, SESSION))
        wait_until(lambda: given.prefix in one.site.routed(), "it is routed", 10)
        until_s = time.monotonic() + 8  # longer than one lease
        while time.monotonic() < until_s:
            assert probe.renew(given.server, Wish(1, SESSION, given.prefix)).given
            assert given.prefix in one.site.routed()
            time.sleep(0.5)
        wait_until(lambda: not _leads(one, given.prefix), "it leads nowhere any more", 20)


def _leads(one: OneSite, prefix: IPv6Network) -> bool:
    """Whether the gateway would send a packet for a prefix to the host."""
    try:
        return "dev access" in one.site.netns.ip("-6", "route", "get", str(prefix[1]))
    except AssertionError as error:
        assert "Network is unreachable" in str(error) or "No route" in str(error), error
        return False
