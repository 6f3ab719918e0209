"""The reference network: two sites with one lease database, a core, and what each lets through."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from ipaddress import IPv6Network

import pytest

from tests.lab.netns import address
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.plan import CORE, SITES, WireType
from tests.netlab.probe_client import Probe, Status, Wish
from tests.netlab.site import AccessSite
from tests.netlab.topology import NetLab

pytestmark = needs_root

NONPERSISTENT, SESSION, FIXED, GRACEFUL = WireType


@pytest.fixture(scope="module")
def lab() -> Iterator[NetLab]:
    with NetLab() as made:
        yield made


@pytest.fixture
def probes(lab: NetLab) -> Iterator[tuple[Probe, Probe]]:
    """The same host at both sites."""
    with Probe(lab.mobile, "w0") as at_a, Probe(lab.mobile, "w1", at_a.duid) as at_b:
        yield at_a, at_b


def routed(site: AccessSite, prefix: IPv6Network) -> None:
    """Wait until a site has a route for a prefix."""
    wait_until(lambda: prefix in site.routed(), f"site {site.plan.letter} routes {prefix}", 10)


def core_leads(lab: NetLab, prefix: IPv6Network) -> AccessSite | None:
    """To which site the core sends what goes to a prefix."""
    (route,) = json.loads(lab.core.ip("-6", "-j", "route", "show", str(prefix))) or [{}]
    at = {str(each.plan.backbone[1]): each for each in lab.sites.values()}
    return at.get(route.get("gateway", ""))


def use(lab: NetLab, stack: ExitStack, prefix: IPv6Network, interface: str) -> str:
    """Make the host send from a prefix by an interface; returns the address."""
    own = str(prefix[1])
    address(lab.mobile, "lo", f"{own}/128")
    stack.callback(lab.mobile.ip, "address", "delete", f"{own}/128", "dev", "lo")
    gateway = lab.a if interface == "w0" else lab.b
    route = ("default", "from", str(prefix), "via", str(gateway.plan.router), "dev", interface)
    lab.mobile.ip("-6", "route", "replace", *route)
    stack.callback(lab.mobile.ip, "-6", "route", "delete", *route)
    return own


def fetch(lab: NetLab, own: str, request: str) -> bool:
    """Whether the correspondent's web server is reached from an address; its log must say so."""
    done = lab.mobile.call(
        lab.mobile.run,
        [
            *("sh", "-c", 'curl -sS --max-time 2 --noproxy "*" --interface "$0" "$1" || true'),
            *(own, f"http://[{CORE[1]}]/{request}"),
        ],
    )
    reached = done.strip() == "hello"
    seen = lab.nginx.logged(request) if reached else lab.nginx.callers(request)
    assert seen == ({own} if reached else set())
    return reached


def test_a_site_lets_out_its_own_prefixes_only(lab: NetLab, probes: tuple[Probe, Probe]) -> None:
    at_a, at_b = probes
    prefix = at_a.obtain(Wish(1, SESSION)).prefix
    other = at_b.obtain(Wish(2, NONPERSISTENT)).prefix
    routed(lab.a, prefix)
    routed(lab.b, other)
    before = [each.filter.dropped() for each in lab.sites.values()]
    with ExitStack() as stack:
        own, foreign = use(lab, stack, prefix, "w0"), use(lab, stack, other, "w1")
        assert fetch(lab, own, "from-a") and fetch(lab, foreign, "from-b")
        assert [each.filter.dropped() for each in lab.sites.values()] == before
    with ExitStack() as stack:
        use(lab, stack, other, "w0")
        assert not fetch(lab, foreign, "b-by-a")
        assert lab.a.filter.dropped() > before[0]
        assert lab.b.filter.dropped() == before[1]


def test_a_prefix_that_is_given_back_is_routed_no_more(
    lab: NetLab, probes: tuple[Probe, Probe]
) -> None:
    at_a, _ = probes
    given = at_a.obtain(Wish(3, SESSION))
    routed(lab.a, given.prefix)
    assert str(given.prefix) in lab.core.ip("-6", "route")
    at_a.release(given.server, Wish(3, SESSION, given.prefix))
    wait_until(lambda: given.prefix not in lab.a.routed(), "the route goes", 10)
    wait_until(lambda: str(given.prefix) not in lab.core.ip("-6", "route"), "the core's, too", 10)


def test_both_sites_see_the_same_leases(lab: NetLab, probes: tuple[Probe, Probe]) -> None:
    given = {type: probes[0].obtain(Wish(0x10 + type, type)).prefix for type in WireType}
    assert set(given.values()) <= {each.prefix for each in lab.a.kea.leases()}
    assert lab.a.kea.leases() == lab.b.kea.leases()


def test_a_host_that_moves_keeps_what_its_types_promise(
    lab: NetLab, probes: tuple[Probe, Probe]
) -> None:
    """The first site is gone altogether: its Kea is killed, the link to it has no carrier."""
    at_a, at_b = probes
    held = {type: at_a.obtain(Wish(0x20 + type, type)).prefix for type in WireType}
    for each in held.values():
        routed(lab.a, each)
    lab.a.kea.kill()
    lab.a.unplug()
    try:
        told = {type: at_b.rebind(Wish(0x20 + type, type, held[type])) for type in WireType}
        assert all(each.type == type for type, each in told.items())
        for type in (SESSION, FIXED):
            (kept,) = told[type].prefixes
            assert kept.prefix == held[type] and 0 < kept.preferred < kept.valid
        assert told[NONPERSISTENT].withdrawn == [held[NONPERSISTENT]]
        assert told[NONPERSISTENT].prefix.subnet_of(SITES["b"].pools[NONPERSISTENT])
        (grace,) = told[GRACEFUL].prefixes
        assert (grace.prefix, grace.preferred) == (held[GRACEFUL], 0) and 0 < grace.valid <= 60
        fresh = at_b.obtain(Wish(0x30, GRACEFUL)).prefix
        assert fresh.subnet_of(SITES["b"].pools[GRACEFUL])
        with ExitStack() as stack:
            for type in (SESSION, FIXED, GRACEFUL):
                routed(lab.b, held[type])
                wait_until(lambda type=type: core_leads(lab, held[type]) is lab.b, "the core")  # type: ignore[misc]
                own = use(lab, stack, held[type], "w1")
                assert fetch(lab, own, f"moved-{type.name}")
    finally:
        lab.a.plug()
        lab.a.kea.start()


def test_no_prefix_is_given_to_two_hosts_by_two_sites(lab: NetLab) -> None:
    given: list[IPv6Network] = []

    def ask(interface: str) -> None:
        with Probe(lab.mobile, interface) as probe:
            given.extend(probe.obtain(Wish(each, SESSION)).prefix for each in range(30))

    threads = [threading.Thread(target=ask, args=(each,)) for each in ("w0", "w1")]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(given) == len(set(given)) == 60


def test_a_lost_database_takes_a_prefix_away_once_and_then_says_nothing(
    lab: NetLab, probes: tuple[Probe, Probe]
) -> None:
    """It looks as an exhausted pool does; a client must not take it at its word."""
    at_a, _ = probes
    given = at_a.obtain(Wish(0x40, SESSION))
    held = Wish(0x40, SESSION, given.prefix)
    lab.postgres.stop()
    try:
        told = at_a.renew(given.server, held)
        assert told.status == Status.NO_PREFIX_AVAIL
        assert told.withdrawn == [given.prefix] and not told.given
        with pytest.raises(TimeoutError):
            at_a.renew(given.server, held)
    finally:
        lab.postgres.start()

    def served() -> bool:
        try:
            return at_a.renew(given.server, held).given == [given.prefix]
        except TimeoutError:
            return False

    wait_until(served, "Kea finds its database again", 30)
    with Probe(lab.mobile, "w1") as at_b:
        wait_until(lambda: bool(at_b.obtain(Wish(1, SESSION)).given), "the other Kea, too", 30)


def test_the_host_hears_both_routers_and_the_name_server(lab: NetLab) -> None:
    for site in lab.sites.values():
        wait_until(
            lambda site=site: str(site.plan.link[0])[:-1] in lab.mobile.ip("-6", "address"),  # type: ignore[misc]
            f"an address by site {site.plan.letter}'s advertisements",
            20,
        )
    routes = lab.mobile.ip("-6", "route", "show", "default")
    assert "dev w0 proto ra" in routes and "dev w1 proto ra" in routes
    answer = lab.mobile.run(["dig", "+short", f"@{CORE[1]}", "host.demo.test", "AAAA"])
    assert answer.strip() == str(CORE[1])
