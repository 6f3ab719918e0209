"""N4: whatever the main table says of a destination holds for typed packets, served either way.

The witness is the kernel's own lookup (`ip route get`): by the mark of a prefix, from its address,
and as an untyped program of the host has it.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from odm_agent.agent.engine import Engine
from odm_agent.core.model import AddressType, Family, IPNetwork, Placement, TypedPrefix
from odm_agent.datapath.fake import FakeDatapath
from odm_agent.kernel.netlink import NetlinkKernel
from odm_agent.prefixes.numbers import Numbers
from odm_agent.prefixes.table import PrefixTable
from tests.lab.netns import NetNs, address, veth

NUMBERS: Final = Numbers(table_base=865300, rule_priority=8653, mark_mask=0xFF000000, protocol=86)
#: The prefixes' own gateway, on w1; the host's default route is on w0.
GATEWAY: Final = {Family.IPV4: "198.51.100.1", Family.IPV6: "2001:db8:b::1"}
HOST_GATEWAY: Final = {Family.IPV4: "192.0.2.1", Family.IPV6: "2001:db8:a::1"}
#: A LAN behind w2, on which there is no uplink.
ROUTER: Final = {Family.IPV4: "10.9.0.1", Family.IPV6: "fd00:9::1"}
ROUTER_2: Final = {Family.IPV4: "10.9.0.2", Family.IPV6: "fd00:9::2"}
NETWORKS: Final[dict[Family, IPNetwork]] = {
    Family.IPV4: ip_network("198.51.100.64/29"),
    Family.IPV6: ip_network("2001:db8:b3::/64"),
}
BOTH: Final = pytest.mark.parametrize("family", list(Family), ids=["IPv4", "IPv6"])

#: Kinds of route, as `ip route add` has them after the destination; {r}, {s}: routers of the LAN.
UNICAST: Final = {
    "through a router": "via {r} dev w2",
    "with an MTU": "via {r} dev w2 mtu 1400",
    "with a locked MTU": "via {r} dev w2 mtu lock 1300",
    "with an MSS": "via {r} dev w2 advmss 1000",
    "with windows": "via {r} dev w2 initcwnd 22 initrwnd 33 window 4000",
    "with times": "via {r} dev w2 rto_min 300ms rtt 200ms hoplimit 33 quickack 1",
    "with congestion control": "via {r} dev w2 congctl reno features ecn",
    "straight to an interface": "dev w2",
    "straight to an interface, with an MTU": "dev w2 mtu 1350",
    "with a metric": "via {r} dev w2 metric 50",
    "of one nexthop object": "nhid {n1}",
    "of a nexthop object with an MTU": "nhid {n1} mtu 1380",
}
SEVERAL: Final = {
    "by several next hops": "nexthop via {r} dev w2 weight 2 nexthop via {s} dev w2",
    "by several, with an MTU": "mtu 1390 nexthop via {r} dev w2 nexthop via {s} dev w2",
    "of a group of nexthop objects": "nhid {n3}",
}
REFUSING: Final = {
    "unreachable": "RTNETLINK answers: No route to host",
    "prohibit": "RTNETLINK answers: Permission denied",
    "blackhole": "RTNETLINK answers: Invalid argument",
}


@dataclass
class Site:
    """A host with a typed prefix of each family, and what the kernel answers there."""

    host: NetNs
    engine: Engine

    def settle(self, *lines: str) -> None:
        """Change the main table, and let the agent see it."""
        if lines:
            self.host.batch("".join(f"{line}\n" for line in lines))
        self.engine.converge()
        assert not self.engine.failures

    def source(self, family: Family) -> str:
        """The typed address."""
        return str(self.engine.table.addresses_of(family)[0])

    def by_mark(self, family: Family, to: str, *more: str) -> dict[str, Any]:
        """Where a socket goes that was given its source by a mark."""
        return self.get(family, to, "mark", hex(NUMBERS.mark(family)), *more)

    def by_source(self, family: Family, to: str, *more: str) -> dict[str, Any]:
        """Where a socket goes that is bound to the typed address."""
        return self.get(family, to, "from", self.source(family), *more)

    def get(self, family: Family, to: str, *more: str) -> dict[str, Any]:
        """The kernel's answer without what names the question; {"error": ...} if it refuses."""
        command = ["ip", "-details", "-json", f"-{family.value}", "route", "get", to, *more]
        done = subprocess.run(
            self.host.command(command), capture_output=True, text=True, check=False
        )
        if done.returncode:
            return {"error": done.stderr.strip()}
        (answer,) = json.loads(done.stdout)
        about_the_question = ("from", "mark", "uid", "cache", "table", "protocol", "pref", "nhid")
        for each in about_the_question:
            answer.pop(each, None)
        return dict(answer)

    def agrees(self, family: Family, to: str) -> dict[str, Any]:
        """What both ways say; they may differ in nothing."""
        marked, bound = self.by_mark(family, to), self.by_source(family, to)
        assert marked.pop("prefsrc", None) == (None if "error" in marked else self.source(family))
        bound.pop("prefsrc", None)
        for each in (marked, bound):
            each.pop("metric", None)
        assert marked == bound, f"{to}: a marked socket and a bound one differ"
        return bound


@pytest.fixture
def site() -> Iterator[Site]:
    with NetNs("host") as host, NetNs("far") as far:
        for name in ("w0", "w1", "w2"):
            veth(host, name, far, f"far-{name}")
        for name, uplink in (("w0", HOST_GATEWAY), ("w1", GATEWAY), ("w2", ROUTER)):
            address(host, name, *(_beside(uplink[family]) for family in Family))
        host.batch(
            "".join(f"route add default via {HOST_GATEWAY[family]} dev w0\n" for family in Family)
            + "".join(
                f"nexthop add id {_objects(f)['n1']} via {ROUTER[f]} dev w2\n"
                f"nexthop add id {_objects(f)['n2']} via {ROUTER_2[f]} dev w2\n"
                f"nexthop add id {_objects(f)['n3']} group"
                f" {_objects(f)['n1']}/{_objects(f)['n2']}\n"
                for f in Family
            )
        )
        table = PrefixTable(bytes(32)).with_only(_prefix(family) for family in Family)
        with host.call(NetlinkKernel, NUMBERS.protocol) as kernel:
            made = Site(host, Engine(kernel, FakeDatapath(), NUMBERS, table))
            made.settle()
            yield made


def _beside(gateway: str) -> str:
    return gateway.removesuffix("1") + ("10/64" if ":" in gateway else "10/24")


def _objects(family: Family) -> dict[str, int]:
    return {f"n{number}": family * 10 + number for number in (1, 2, 3)}


def _prefix(family: Family) -> TypedPrefix:
    return TypedPrefix(
        id=int(family),
        name=f"typed{family}",
        type=AddressType.FIXED,
        network=NETWORKS[family],
        interface="w1",
        gateway=ip_address(GATEWAY[family]),
        placement=Placement.DELEGATED,
        spans=(NETWORKS[family],),
    )


def _spelt(family: Family, how: str) -> str:
    return how.format(r=ROUTER[family], s=ROUTER_2[family], **_objects(family))


def _network(family: Family, number: int) -> tuple[str, str]:
    """A network of its own, and an address in it."""
    if family is Family.IPV4:
        return f"10.{number}.0.0/16", f"10.{number}.3.4"
    return f"fd00:{number:x}00::/32", f"fd00:{number:x}00::34"


@BOTH
@pytest.mark.parametrize("how", list(UNICAST))
def test_N4_a_route_holds_for_every_typed_packet_with_all_its_attributes(
    site: Site, family: Family, how: str
) -> None:
    network, to = _network(family, 20)
    site.settle(f"route add {network} {_spelt(family, UNICAST[how])}")
    untyped = site.get(family, to)
    assert untyped.pop("prefsrc"), "the control: main has the route"
    untyped.pop("metric", None)
    assert site.agrees(family, to) == untyped
    site.settle(f"route del {network}")
    assert site.agrees(family, to)["dev"] == "w1", "then it is the prefix's gateway again"


@BOTH
@pytest.mark.parametrize("how", list(SEVERAL))
def test_N4_several_next_hops_serve_typed_packets_as_they_do_others(
    site: Site, family: Family, how: str
) -> None:
    """Which of them is chosen by a hash of the addresses; the same for the same ones."""
    network, to = _network(family, 20)
    site.settle(f"route add {network} {_spelt(family, SEVERAL[how])}")
    routers, mtus = set(), set()
    for number in range(1, 33):
        one = to[:-1] + str(number) if family is Family.IPV4 else f"{to[:-2]}{number:x}"
        source = site.source(family)
        # A marked socket has its source by the time that it sends.
        marked = site.by_mark(family, one, "from", source)
        bound = site.by_source(family, one)
        assert marked == bound
        routers.add(bound["gateway"])
        mtus.update(json.dumps(bound.get("metrics")).split("mtu")[1:])
    assert routers == {ROUTER[family], ROUTER_2[family]}
    assert bool(mtus) is ("MTU" in how)


@BOTH
@pytest.mark.parametrize(
    "how", ["of one nexthop object", "of a nexthop object with an MTU", "of a group"]
)
def test_N4_nexthop_objects_of_which_routes_name_the_number_only(
    site: Site, family: Family, how: str
) -> None:
    """As routing daemons have it (nexthop_compat_mode)."""
    site.host.sysctl("net/ipv4/nexthop_compat_mode", "0")
    network, to = _network(family, 20)
    site.settle(f"route add {network} {_spelt(family, UNICAST.get(how, 'nhid {n3}'))}")
    untyped = site.get(family, to, "from", site.source(family))
    assert untyped["dev"] == "w2", "the control"
    assert site.by_mark(family, to)["dev"] == site.by_source(family, to)["dev"] == "w2"
    if how in UNICAST:
        assert site.agrees(family, to)["gateway"] == ROUTER[family]
    number = _objects(family)["n1"]
    site.settle(f"nexthop replace id {number} via {ROUTER_2[family]} dev w2")
    assert site.by_source(family, to)["gateway"] == ROUTER_2[family], "all lead there now"


@BOTH
@pytest.mark.parametrize("compatible", ["0", "1"])
def test_N4_a_nexthop_object_that_refuses_refuses_every_typed_packet(
    site: Site, family: Family, compatible: str
) -> None:
    site.host.sysctl("net/ipv4/nexthop_compat_mode", compatible)
    network, to = _network(family, 20)
    version = f"-{family}" if family is Family.IPV6 else ""
    site.host.ip(*version.split(), "nexthop", "add", "id", "777", "blackhole")
    site.settle(f"route add {network} nhid 777")
    assert site.agrees(family, to) == site.get(family, to)
    assert "error" in site.agrees(family, to)


@BOTH
@pytest.mark.parametrize("kind", list(REFUSING))
def test_N4_a_route_that_refuses_refuses_every_typed_packet(
    site: Site, family: Family, kind: str
) -> None:
    network, to = _network(family, 20)
    assert site.agrees(family, to)["dev"] == "w1", "the control: without it there is a way"
    site.settle(f"route add {kind} {network}")
    assert site.agrees(family, to) == site.get(family, to)
    assert site.agrees(family, to) == {"error": REFUSING[kind]}


@BOTH
def test_N4_where_main_does_not_decide_the_prefix_does(site: Site, family: Family) -> None:
    wide, to = _network(family, 20)
    narrow = f"{to}/{32 if family is Family.IPV4 else 128}"
    site.settle(f"route add {wide} via {ROUTER[family]} dev w2", f"route add throw {narrow}")
    assert site.agrees(family, to)["gateway"] == GATEWAY[family]


@BOTH
def test_N4_a_blocked_host_in_a_reachable_network_stays_blocked(site: Site, family: Family) -> None:
    wide, to = _network(family, 20)
    narrow = f"{to}/{32 if family is Family.IPV4 else 128}"
    site.settle(f"route add {wide} via {ROUTER[family]} dev w2", f"route add blackhole {narrow}")
    assert site.agrees(family, to) == {"error": REFUSING["blackhole"]}


@BOTH
def test_N4_of_two_routes_the_one_with_the_better_metric_counts(site: Site, family: Family) -> None:
    network, to = _network(family, 20)
    site.settle(
        f"route add {network} via {ROUTER[family]} dev w2 metric 70",
        f"route add {network} via {ROUTER_2[family]} dev w2 metric 60",
    )
    assert site.agrees(family, to)["gateway"] == ROUTER_2[family]
    site.settle(f"route del {network} via {ROUTER_2[family]} dev w2 metric 60")
    assert site.agrees(family, to)["gateway"] == ROUTER[family]
    site.settle(f"route add prohibit {network} metric 10")
    assert site.agrees(family, to) == {"error": REFUSING["prohibit"]}


def test_N4_a_route_for_one_type_of_service_is_for_that_alone(site: Site) -> None:
    network, to = _network(Family.IPV4, 20)
    site.settle(
        f"route add {network} via {ROUTER[Family.IPV4]} dev w2",
        f"route add {network} tos 0x10 via {ROUTER_2[Family.IPV4]} dev w2",
    )
    for tos, router in (("0x00", ROUTER), ("0x10", ROUTER_2)):
        for way in (site.by_mark, site.by_source):
            assert way(Family.IPV4, to, "tos", tos)["gateway"] == router[Family.IPV4]


def test_N4_a_route_for_one_source_is_for_the_prefix_that_it_names(site: Site) -> None:
    family = Family.IPV6
    network, to = _network(family, 20)
    other, to_other = _network(family, 21)
    site.settle(
        f"route add {network} from {NETWORKS[family]} via {ROUTER[family]} dev w2",
        f"route add {network} via {ROUTER_2[family]} dev w2 metric 1",
        f"route add {other} from 2001:db8:77::/64 via {ROUTER[family]} dev w2",
    )
    assert site.agrees(family, to)["gateway"] == ROUTER[family]
    assert site.agrees(family, to_other)["gateway"] == GATEWAY[family]


@BOTH
def test_N4_a_nexthop_object_that_changes_takes_typed_packets_along(
    site: Site, family: Family
) -> None:
    network, to = _network(family, 20)
    number = _objects(family)["n1"]
    site.settle(f"route add {network} nhid {number}")
    assert site.agrees(family, to)["gateway"] == ROUTER[family]
    site.settle(f"nexthop replace id {number} via {ROUTER_2[family]} dev w2")
    assert site.agrees(family, to)["gateway"] == ROUTER_2[family]


@BOTH
def test_N4_a_network_on_two_links_is_reached_over_either(site: Site, family: Family) -> None:
    """Over the prefix's own, unless the socket is bound to the other."""
    network, to = _network(family, 20)
    site.settle(*(f"route append {network} dev {name} metric 5" for name in ("w2", "w1")))
    assert site.agrees(family, to)["dev"] == "w1"
    # Without a source: with one, IPv6 takes `oif` for a hint, unless a socket is bound to it.
    assert site.by_mark(family, to, "oif", "w2")["dev"] == "w2"


# --- what would leave by somebody else's gateway --------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    "route", ["via {gateway} dev w0", "nexthop via {gateway} dev w0 nexthop via {own} dev w1"]
)
def test_N4_no_route_leads_typed_packets_to_the_gateway_of_another_uplink(
    site: Site, family: Family, route: str
) -> None:
    network, to = _network(family, 20)
    gateway, own = HOST_GATEWAY[family], GATEWAY[family]
    site.settle(f"route add {network} {route.format(gateway=gateway, own=own)}")
    assert site.agrees(family, to)["gateway"] == own
    assert site.agrees(family, HOST_GATEWAY[family])["gateway"] == own


#: What VPNs and others make instead of a default route, which they don't want to replace.
DISGUISES: Final = {
    Family.IPV4: {
        "halves": ("0.0.0.0/1", "128.0.0.0/1"),
        "one half": ("128.0.0.0/1",),
        "quarters": ("0.0.0.0/2", "64.0.0.0/2", "128.0.0.0/2", "192.0.0.0/2"),
        "all but private networks": (
            *("0.0.0.0/5", "8.0.0.0/7", "11.0.0.0/8", "12.0.0.0/6", "16.0.0.0/4", "32.0.0.0/3"),
            *("64.0.0.0/2", "128.0.0.0/3", "160.0.0.0/5", "168.0.0.0/6", "172.0.0.0/12"),
            *("172.32.0.0/11", "172.64.0.0/10", "172.128.0.0/9", "173.0.0.0/8", "174.0.0.0/7"),
            *("176.0.0.0/4", "192.0.0.0/9", "192.128.0.0/11", "192.160.0.0/13", "192.169.0.0/16"),
            *("192.170.0.0/15", "192.172.0.0/14", "192.176.0.0/12", "192.192.0.0/10"),
            *("193.0.0.0/8", "194.0.0.0/7", "196.0.0.0/6", "200.0.0.0/5", "208.0.0.0/4"),
        ),
    },
    Family.IPV6: {
        "halves": ("::/1", "8000::/1"),
        "global unicast": ("2000::/3",),
        "halves of it": ("2000::/4", "3000::/4"),
        "quarters": ("::/2", "4000::/2", "8000::/2", "c000::/2"),
    },
}
FAR: Final = {
    Family.IPV4: ("203.0.113.9", "172.0.1.2", "11.1.2.3", "200.1.2.3"),
    Family.IPV6: ("2001:db8:c::1", "2400::1", "3fff::1"),
}


@pytest.mark.parametrize("by", ["dev w2", "via {r} dev w2", "prohibit"])
@pytest.mark.parametrize(
    ("family", "parts"),
    [
        pytest.param(family, parts, id=f"IPv{family}-{name}")
        for family, each in DISGUISES.items()
        for name, parts in each.items()
    ],
)
def test_N4_a_default_route_in_disguise_is_not_taken_by_typed_packets(
    site: Site, family: Family, parts: tuple[str, ...], by: str
) -> None:
    how, kind = ("", "prohibit") if by == "prohibit" else (_spelt(family, by), "")
    private, to_private = _network(family, 20)
    site.settle(
        *(f"route add {kind} {part} {how}" for part in parts),
        f"route add {private} dev w2",
    )
    if len(parts) > 1:
        untyped = site.get(family, FAR[family][0])
        assert untyped.get("dev") == (None if kind else "w2"), "the control: untyped ones take it"
    for far in FAR[family]:
        assert site.agrees(family, far)["gateway"] == GATEWAY[family], far
    assert site.agrees(family, to_private)["dev"] == "w2", "the VPN's own network stays its own"


@BOTH
@pytest.mark.parametrize("kind", ["unreachable", "blackhole", "prohibit", "throw"])
def test_N4_nor_is_a_default_route_of_any_other_kind(site: Site, family: Family, kind: str) -> None:
    everything = "0.0.0.0/0" if family is Family.IPV4 else "::/0"
    site.settle(f"route add {kind} {everything} metric 1")
    assert site.agrees(family, FAR[family][0])["gateway"] == GATEWAY[family]


@BOTH
def test_N4_with_the_uplink_down_other_links_are_still_reached_and_nothing_else(
    site: Site, family: Family
) -> None:
    network, to = _network(family, 20)
    site.settle(f"route add {network} via {ROUTER[family]} dev w2", "link set w1 down")
    assert site.agrees(family, to)["dev"] == "w2"
    assert site.agrees(family, FAR[family][0]) == {"error": REFUSING["unreachable"]}


# --- any table ------------------------------------------------------------------------------------


@st.composite
def _tables(draw: Callable[..., Any]) -> list[str]:
    """Lines of `ip route add`, of networks that lie in one another, in any order."""
    family = draw(st.sampled_from(list(Family)))
    kinds = st.sampled_from([*UNICAST.values(), *(f"{kind}!" for kind in REFUSING)])
    lines = []
    for length in draw(st.lists(st.integers(9, 32), min_size=1, max_size=6, unique=True)):
        how = _spelt(family, draw(kinds))
        network = (
            ip_network(f"10.20.3.4/{length}", strict=False)
            if family is Family.IPV4
            else ip_network(f"fd00:2000::34/{length * 4}", strict=False)
        )
        refuses = how.endswith("!")
        lines.append(f"{how[:-1]} {network}" if refuses else f"{network} {how}")
    return [str(family.value), *lines]


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(tables=_tables())
def test_N4_of_any_main_table_both_ways_say_what_main_says(site: Site, tables: list[str]) -> None:
    family, lines = Family(int(tables[0])), tables[1:]
    site.settle(*(f"route add {line}" for line in lines))
    try:
        for number in (4, 5, 200):
            to = f"10.20.3.{number}" if family is Family.IPV4 else f"fd00:2000::{number:x}"
            untyped = site.get(family, to)
            if untyped.get("dev") == "w0":
                continue  # by the default route, which is not for typed packets
            untyped.pop("prefsrc", None)
            untyped.pop("metric", None)
            assert site.agrees(family, to) == untyped
    finally:
        site.settle(*(f"route del {line}" for line in lines))
