"""What others send from a typed address is not forwarded; what they send to us still arrives."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.core.model import TYPES, AddressType, Family, IPAddress
from tests.lab.cases import each_kind
from tests.lab.client import Kind, call, outcome
from tests.lab.host import CORRESPONDENT, LINKS, PREFIXES, LabPrefix, prefix_of
from tests.lab.netns import NetNs, address, veth
from tests.lab.process import wait_until
from tests.lab.world import BY_DEFAULT, STANDARD, World
from tests.rfc8653.test_servers import wildcard_server

#: Of the gateway's own networks, so that it lets them through; routed on to the container.
_OWN: Final = {Family.IPV4: "192.0.2.33", Family.IPV6: "2001:db8:a:0:c::33"}
_INNER: Final = {Family.IPV4: "192.0.2.32/30", Family.IPV6: "2001:db8:a:0:c::/80"}
_NEAR: Final = {Family.IPV4: "192.0.2.34", Family.IPV6: "2001:db8:a:0:c::34"}
_DELEGATED: Final = [each for each in PREFIXES if each.placement.value == "delegated"]
_PORT: Final = 27001


@pytest.fixture(scope="module")
def routing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A host that forwards, with an agent that refuses what others send from its prefixes."""
    with World(tmp_path_factory.mktemp("routing")) as world:
        _forward(world)
        yield world


@pytest.fixture(scope="module")
def handing_on(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """The same, with all prefixes handed on."""
    extra = {each.name: {"forwarded": "allow"} for each in PREFIXES}
    settings = replace(STANDARD, extra=extra)
    with World(tmp_path_factory.mktemp("handing-on"), settings) as world:
        _forward(world)
        yield world


def _forward(world: World) -> None:
    host = world.site.host
    host.sysctl("net/ipv4/ip_forward", "1")
    host.sysctl("net/ipv6/conf/all/forwarding", "1")
    _reverse_path(host, "0")  # the host's own defence against spoofers, where it has one


def _reverse_path(host: NetNs, value: str) -> None:
    for scope in ("all", "w0", "w1"):  # the greater of all's and the interface's counts
        host.sysctl(f"net/ipv4/conf/{scope}/rp_filter", value)


@contextmanager
def _container(world: World) -> Iterator[NetNs]:
    """A namespace behind the host, with addresses of its own that the network knows."""
    host, gateway = world.site.host, world.site.a
    with NetNs("container") as inner:
        veth(host, "c0", inner, "eth0")
        host.sysctl("net/ipv4/conf/c0/rp_filter", "0")
        for family in Family:
            bits = _INNER[family].partition("/")[2]
            address(host, "c0", f"{_NEAR[family]}/{bits}")
            address(inner, "eth0", f"{_OWN[family]}/{bits}")
            inner.ip(f"-{family}", "route", "add", "default", "via", _NEAR[family])
            via = str(LINKS["A", family][2])
            gateway.ip(f"-{family}", "route", "replace", _INNER[family], "via", via)
        try:
            for family in Family:  # a new link takes a moment
                wait_until(lambda: _reaches(inner, family), "the container has its way out")  # noqa: B023
            yield inner
        finally:
            host.ip("link", "del", "c0")


def _reaches(inner: NetNs, family: Family) -> bool:
    return inner.fork(lambda: outcome(lambda: _greet(family))) == "ok"


def _send(inner: NetNs, source: IPAddress) -> str:
    """A datagram and a SYN to the correspondent from an address that the container gives itself."""
    address(inner, "eth0", f"{source}/{source.max_prefixlen}")
    to = CORRESPONDENT[Family.of(source)]
    family = socket.AF_INET6 if source.version == 6 else socket.AF_INET

    def application() -> str:
        with socket.socket(family, socket.SOCK_STREAM) as sock:
            sock.setblocking(False)
            sock.bind((str(source), 0))
            sock.connect_ex((to, 7001))
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.2)
            sock.bind((str(source), 0))
            sock.connect((to, 7001))
            sock.send(b"x")
            return outcome(lambda: sock.recv(100))

    return inner.fork(application)


def _seen(world: World, inner: NetNs, source: IPAddress) -> dict[str, int]:
    """How many packets of any kind from `source` each gateway got."""
    with world.captures() as captures:
        _send(inner, source)
        # The order of the wire: when a packet behind them is there, they would be too.
        inner.fork(lambda: _greet(Family.of(source)))
        return {
            letter: sum(each.source == source for each in captures.at(letter).packets())
            for letter in "AB"
        }


def _greet(family: Family) -> str:
    """Ordinary traffic of the container: how the correspondent sees its TCP and UDP."""
    kinds = (Kind.TCP6, Kind.UDP6) if family is Family.IPV6 else (Kind.TCP4, Kind.UDP4)
    tcp, udp = (call(kind, bind=(_OWN[family], 0)).seen for kind in kinds)
    assert tcp == udp
    return tcp


def _configured(world: World, prefix: LabPrefix) -> IPAddress:
    return ip_address(world.agent.addresses(prefix.name)[0])


@pytest.mark.parametrize("prefix", PREFIXES, ids=lambda each: each.name)
def test_D8_A1_nothing_is_forwarded_from_a_typed_prefix(routing: World, prefix: LabPrefix) -> None:
    """Neither from an address that we have nor from one that nobody has."""
    with _container(routing) as inner:
        for source in (prefix.unused(), _configured(routing, prefix)):
            assert _seen(routing, inner, source) == {"A": 0, "B": 0}, source
    assert all(ip_address(each.source) not in prefix for each in routing.peer.seen())


@pytest.mark.parametrize("prefix", _DELEGATED, ids=lambda each: each.name)
def test_prefix_that_is_handed_on_is_forwarded_by_its_own_gateway(
    handing_on: World, prefix: LabPrefix
) -> None:
    """The control: without the refusal the same packets are on the wire."""
    other = {"A": "B", "B": "A"}[prefix.via]
    sources = [prefix.unused()]
    if prefix.family is Family.IPV6:  # from an address that it has itself IPv4 takes nothing
        sources.append(_configured(handing_on, prefix))
    with _container(handing_on) as inner:
        for source in sources:
            found = _seen(handing_on, inner, source)
            assert found[prefix.via] >= 2 and not found[other], (source, found)


@pytest.mark.parametrize(
    ("family", "word"), [(Family.IPV6, "EACCES"), (Family.IPV4, "EHOSTUNREACH")]
)
def test_whoever_may_be_answered_hears_that_it_is_prohibited(
    routing: World, family: Family, word: str
) -> None:
    """A prefix that was handed on in the routing table alone."""
    source = prefix_of(AddressType.FIXED, family).unused()
    route = (f"{source}/{source.max_prefixlen}", "dev", "c0")
    with _container(routing) as inner:
        routing.site.host.ip("route", "add", *route)
        assert _send(inner, source) == word


@pytest.mark.parametrize("family", Family, ids=lambda each: each.name)
def test_ordinary_traffic_is_forwarded_as_ever(routing: World, family: Family) -> None:
    with _container(routing) as inner, routing.captures() as captures:
        assert inner.fork(lambda: _greet(family)) == _OWN[family]
        assert captures.sources("A") == {ip_address(_OWN[family])} and not captures.sources("B")


def test_reload_hands_a_prefix_on_and_takes_it_back(own: World) -> None:
    _forward(own)
    prefix = prefix_of(AddressType.NONPERSISTENT, Family.IPV6)
    source = prefix.unused()
    with _container(own) as inner:
        for word, packets in (("refuse", 0), ("allow", 2), ("refuse", 0)):
            own.agent.configure(replace(STANDARD, extra={prefix.name: {"forwarded": word}}))
            assert own.agent.reload().returncode == 0
            assert _seen(own, inner, source) == {"A": 0, "B": packets}
            assert not own.agent.read("status")["alarms"]


def test_host_s_own_routes_are_as_they_were(tmp_path: Path) -> None:
    def routes(host: NetNs) -> list[str]:
        return [host.ip(family, "route", "show", "table", "main") for family in ("-4", "-6")]

    def way(host: NetNs) -> list[str]:
        return [host.ip("route", "get", CORRESPONDENT[each]) for each in Family]

    with World(tmp_path, start=False) as world:
        host = world.site.host
        before, way_before = routes(host), way(host)
        world.agent.start()
        assert (routes(host), way(host)) == (before, way_before)
        world.agent.close()
        assert "8656" not in host.ip("rule") + host.ip("-6", "rule")


# --- what is for us ------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse_path", ["0", "1", "2"])
@pytest.mark.parametrize("family", Family, ids=lambda each: each.name)
def test_neighbour_with_an_address_of_an_on_link_prefix_reaches_us(
    routing: World, family: Family, reverse_path: str
) -> None:
    """Its source is in the prefix, and is not ours: the local table answers before our rules."""
    prefix = prefix_of(AddressType.GRACEFUL_REPLACEMENT, family)
    neighbour = prefix.unused()
    ours = [str(_configured(routing, prefix)), str(LINKS["B", family][2])]
    kind = Kind.TCP6 if family is Family.IPV6 else Kind.TCP4
    gateway = routing.site.b
    length = prefix.network.prefixlen
    link = (str(prefix.network), "dev", "w1")  # as router advertisements would have it
    address(gateway, "to-host", f"{neighbour}/{length}")
    if family is Family.IPV6:
        routing.site.host.ip("route", "add", *link)
    _reverse_path(routing.site.host, reverse_path)
    try:
        with routing.place("every").background(wildcard_server(kind, kind.wildcard)):
            for each in ours:
                gateway.run(["ping", "-c1", "-W2", "-I", str(neighbour), each])
                assert gateway.fork(lambda: _dial(kind, str(neighbour), each))  # noqa: B023
    finally:
        _reverse_path(routing.site.host, "0")
        gateway.ip("address", "del", f"{neighbour}/{length}", "dev", "to-host")
        if family is Family.IPV6:
            routing.site.host.ip("route", "del", *link)


def _dial(kind: Kind, source: str, to: str) -> Any:
    with kind.open() as sock:
        sock.bind((source, 0))
        sock.connect((to, _PORT))
        return sock.recv(100)


@pytest.mark.parametrize("reverse_path", ["1", "2"])
@pytest.mark.parametrize("type", TYPES, ids=lambda each: each.word)
@each_kind(Kind.TCP4, Kind.UDP4)
def test_typed_addresses_pass_the_reverse_path_filter(
    routing: World, kind: Kind, type: AddressType, reverse_path: str
) -> None:
    """The way back is looked up as our own packets are: by the prefix's gateway."""
    typed = routing.address(type, Family.IPV4)
    _reverse_path(routing.site.host, reverse_path)
    try:
        with routing.place(BY_DEFAULT[type]).background(wildcard_server(kind, kind.wildcard)):
            answered = routing.peer.dial("tcp" if kind.stream else "udp", typed, _PORT)
            assert answered.get("from") == typed, answered
    finally:
        _reverse_path(routing.site.host, "0")


def test_where_others_have_addresses_too_only_ours_are_refused(tmp_path: Path) -> None:
    """One link for typed and untyped addresses: what its other hosts send is forwarded as ever."""
    prefix = prefix_of(AddressType.GRACEFUL_REPLACEMENT, Family.IPV6)
    settings = replace(STANDARD, extra={prefix.name: {"untyped": "allow"}})
    with World(tmp_path, settings, start=False) as world:
        address(world.site.host, "w1", f"{prefix.network[0x99]}/64")
        world.agent.start()
        _forward(world)
        with _container(world) as inner:
            assert _seen(world, inner, _configured(world, prefix)) == {"A": 0, "B": 0}
            with world.captures() as captures:
                _send(inner, prefix.unused())
                inner.fork(lambda: _greet(Family.IPV6))
                everything = [*captures.at("A").packets(), *captures.at("B").packets()]
                assert [each for each in everything if each.source == prefix.unused()]
