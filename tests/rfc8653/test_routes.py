"""N4: packets leave by the gateway that their source belongs to, whatever happens to the links."""

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Final

import pytest

from odm_agent.core.model import AddressType, Family
from tests.lab.cases import each_family, each_kind, each_type
from tests.lab.client import Kind, call, outcome
from tests.lab.host import (
    CORRESPONDENT,
    CORRESPONDENT_2,
    LINKS,
    NONPERSISTENT,
    Captures,
    owner_of,
    prefix_of,
    type_of,
)
from tests.lab.metrics import counts
from tests.lab.netns import address
from tests.lab.process import wait_until
from tests.lab.world import BY_DEFAULT, PLAIN, World
from tests.rfc8653.bypass.packets import datagram
from tests.rfc8653.test_servers import wildcard_server

_PORT: Final = 27001
_SERVERS: Final = (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)


@each_type()
@each_kind()
def test_N4_requests_leave_by_the_gateway_of_their_source(
    world: World, captures: Captures, kind: Kind, type: AddressType
) -> None:
    for seen in (
        world.place("every").do(lambda: call(kind, type)).seen,
        world.place(BY_DEFAULT[type]).do(lambda: call(kind)).seen,
        world.place(BY_DEFAULT[type]).do(lambda: call(kind, bind=(kind.wildcard, 0))).seen,
    ):
        assert type_of(seen) is type
    via = prefix_of(type, kind.family).via
    other = {"A": "B", "B": "A"}[via]
    assert captures.sources(via) == {ip_address(world.address(type, kind.family))}
    assert not captures.sources(other)


@each_type()
@each_kind(*_SERVERS)
def test_N4_answers_of_servers_leave_by_the_gateway_of_their_source(
    world: World, captures: Captures, kind: Kind, type: AddressType
) -> None:
    """SYN-ACKs and UDP answers, of explicit addresses and of wildcards."""
    typed = world.address(type, kind.family)
    via = prefix_of(type, kind.family).via
    for place, bound in (("every", typed), (BY_DEFAULT[type], kind.wildcard)):
        with world.place(place).background(wildcard_server(kind, bound)):
            answered = world.peer.dial("tcp" if kind.stream else "udp", typed, _PORT)
            assert answered.get("from") == typed, answered
        packets = [each for each in captures.at(via).packets() if each.source_port == _PORT]
        assert {str(each.source) for each in packets} == {typed}
        assert any(each.syn_ack for each in packets) is kind.stream
    assert not captures.sources({"A": "B", "B": "A"}[via])


@pytest.mark.parametrize("letter", ["B"])
@each_kind(Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4)
def test_N4_neighbours_on_a_link_are_reached_directly(
    world: World, captures: Captures, kind: Kind, letter: str
) -> None:
    """No detour by the prefix's gateway; with and without a mark (a port that is fixed before)."""
    neighbour = str(LINKS[letter, kind.family][1])

    def application() -> None:
        for bind in (None, (kind.wildcard, 0)):
            with kind.open() as sock:
                if bind:
                    sock.bind(bind)
                _send(sock, kind, (neighbour, 9))

    world.place("brief").do(application)
    packets = [each for each in captures.at(letter).packets() if str(each.destination) == neighbour]
    sources = [str(each.source) for each in packets if each.port == 9]
    assert sources == [world.address(NONPERSISTENT, kind.family)] * 2
    assert not captures.sources({"A": "B", "B": "A"}[letter])


# --- links that flap ------------------------------------------------------------------------------


@pytest.fixture
def flapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world of our own, since its links and agent are broken."""
    with World(tmp_path_factory.mktemp("flapped")) as made:
        yield made


def _admin(world: World, state: str) -> None:
    world.site.host.ip("link", "set", "w1", state)
    if state == "up":
        # Going down took the IPv6 address; whoever manages the link puts it back.
        near = LINKS["B", Family.IPV6]
        address(world.site.host, "w1", f"{near[2]}/{near[0].prefixlen}")


def _carrier(world: World, state: str) -> None:
    world.site.b.ip("link", "set", "to-host", state)


@pytest.mark.parametrize("flap", [_admin, _carrier], ids=["administratively", "carrier"])
def test_N4_no_packet_strays_while_a_link_flaps_and_the_agent_is_dead(
    flapped: World, flap: Callable[[World, str], None]
) -> None:
    world = flapped
    world.agent.sigkill()
    with world.captures() as captures:
        _use_everything(world)
        assert not captures.strays()
        flap(world, "down")
        _use_everything(world)
        flap(world, "up")
        _use_everything(world)
        strays = captures.strays()
        assert not strays
    world.agent.start()
    if flap is _carrier:
        # The far end's IPv6 addresses and its routes went with its link.
        _restore_gateway(world)
    for family in Family:
        kind = Kind.UDP6 if family is Family.IPV6 else Kind.UDP4
        wait_until(
            lambda kind=kind: _works(world, kind),  # type: ignore[misc]
            f"{kind.name} works again after the agent came back",
            timeout_s=30,
        )


@pytest.mark.parametrize("flap", [_admin, _carrier], ids=["administratively", "carrier"])
def test_N4_no_packet_strays_while_a_link_flaps_under_a_running_agent(
    flapped: World, flap: Callable[[World, str], None]
) -> None:
    world = flapped
    with world.captures() as captures:
        for state in ("down", "up"):
            flap(world, state)
            _use_everything(world)
        assert not captures.strays()
    if flap is _carrier:
        _restore_gateway(world)
    for kind in (Kind.UDP6, Kind.UDP4):
        wait_until(lambda kind=kind: _works(world, kind), f"{kind.name} works again", 30)  # type: ignore[misc]


def _restore_gateway(world: World) -> None:
    near, gateway, _ = LINKS["B", Family.IPV6]
    address(world.site.b, "to-host", f"{gateway}/{near.prefixlen}")
    for family in Family:
        delegated = prefix_of(NONPERSISTENT, family)
        host = str(LINKS["B", family][2])
        world.site.b.ip("route", "replace", str(delegated.network), "via", host)
    graceful = prefix_of(AddressType.GRACEFUL_REPLACEMENT, Family.IPV6)
    address(world.site.b, "to-host", f"{graceful.network[1]}/64")


def _works(world: World, kind: Kind) -> bool:
    try:
        return type_of(world.place("brief").do(lambda: call(kind)).seen) is NONPERSISTENT
    except OSError:
        return False


def _use_everything(world: World) -> None:
    """Sockets of each default type in one process each; that some fail is expected."""
    for place in BY_DEFAULT.values():

        def application() -> list[str]:
            told = []
            for kind in (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4):
                for bind in (None, (kind.wildcard, 0)):
                    with kind.open() as sock:
                        sock.settimeout(0.05)
                        if bind:
                            sock.bind(bind)
                        told.append(outcome(lambda: _send(sock, kind, kind.destination)))  # noqa: B023
            return told

        world.place(place).do(application)


def _send(sock: socket.socket, kind: Kind, to: tuple[str, int]) -> None:
    if kind.connects:
        sock.connect(to)
        sock.send(b"x")
    else:
        sock.sendto(b"x", to)


@each_kind()
def test_N4_a_null_route_holds_however_a_socket_got_its_source(world: World, kind: Kind) -> None:
    """With a port of its own or without one: given by bpf_bind, by a mark, or for one datagram."""
    host, to = world.site.host, CORRESPONDENT_2[kind.family]
    place = world.place("session")
    wildcard = kind.wildcard

    def outcomes() -> list[str]:
        to_there = (kind.spell(to), kind.port)
        return [
            outcome(lambda: call(kind, to=to_there)),
            outcome(lambda: call(kind, bind=(wildcard, 0), to=to_there)),
        ]

    length = 32 if kind.family is Family.IPV4 else 128
    for refusal, told in (("prohibit", "EACCES"), ("unreachable", "EHOSTUNREACH")):
        assert place.do(outcomes) == ["ok", "ok"], "the control"
        host.ip("route", "add", refusal, f"{to}/{length}")
        try:
            wait_until(lambda: place.do(outcomes) == [told] * 2, f"{refusal} holds")  # noqa: B023
        finally:
            host.ip("route", "del", refusal, f"{to}/{length}")
        wait_until(lambda: place.do(outcomes) == ["ok", "ok"], "it holds no more")


@pytest.mark.parametrize("family", list(Family), ids=["IPv4", "IPv6"])
def test_N4_halves_of_a_default_route_take_no_typed_packet(
    world: World, captures: Captures, family: Family
) -> None:
    """They lead over the other uplink, where whatever is untyped goes."""
    host = world.site.host
    halves = ("0.0.0.0/1", "128.0.0.0/1") if family is Family.IPV4 else ("::/1", "8000::/1")
    kinds = [kind for kind in Kind if kind.family is family]
    for half in halves:
        host.ip("route", "add", half, "via", str(LINKS["B", family][1]), "dev", "w1")
    try:
        for kind in kinds:
            for bind in (None, (kind.wildcard, 0)):
                seen = world.place("fixed").do(lambda: call(kind, bind=bind)).seen  # noqa: B023
                assert type_of(seen) is AddressType.FIXED
        assert not captures.strays()
    finally:
        for half in halves:
            host.ip("route", "del", half)


def test_N4_a_rule_that_stands_before_ours_is_told_with_its_remedy(world: World) -> None:
    """Added without a priority, as VPNs do, while the agent runs: `status` and `check` say so."""
    host, agent = world.site.host, world.agent

    def told() -> list[str]:
        return [a for a in agent.read("status")["alarms"] if "stands before ours" in a]

    assert not told()
    host.ip("route", "add", "default", "dev", "w1", "table", "4242")
    host.ip("rule", "add", "not", "fwmark", "0xca6c", "table", "4242")
    try:
        wait_until(lambda: bool(told()), "the agent tells of the rule")
        assert "IPv4 rule 8652 (not from all fwmark 0xca6c lookup 4242)" in told()[0]
        assert "ip -4 rule del priority 8652" in told()[0]
        found = json.loads(agent.call("check", str(agent.config), "--json").stdout)
        remedies = [each["remedy"] for each in found if each["name"] == "policy rules"]
        assert any("ip -4 rule del priority 8652" in each for each in remedies)
    finally:
        host.ip("rule", "del", "table", "4242")
        host.ip("route", "flush", "table", "4242")
    wait_until(lambda: not told(), "the alarm ends with the rule")


# --- others' routes -------------------------------------------------------------------------------


@contextmanager
def _all_by_b(world: World, target: str) -> Iterator[None]:
    """A rule of somebody else's, asked before ours, that leads to gateway B."""
    family = Family(ip_address(target).version)
    version = f"-{family}"
    rule = ("priority", "1", "to", target, "lookup", "4242")
    ip = world.site.host.ip
    ip(version, *("route", "add", "default", "via", str(LINKS["B", family][1]), "table", "4242"))
    ip(version, "rule", "add", *rule)
    try:
        yield
    finally:
        ip(version, "rule", "del", *rule)
        ip(version, "route", "flush", "table", "4242")


def _strayed(world: World, name: str) -> float:
    """How many packets of a class were dropped at another uplink than their own."""
    wanted = {"class": name, "verdict": "refuse", "reason": "uplink", "hook": "egress"}
    return sum(count for labels, count in counts(world) if wanted.items() <= labels.items())


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4)
def test_N4_rule_before_ours_takes_no_typed_packet_to_another_uplink(
    world: World, captures: Captures, kind: Kind
) -> None:
    """By default, by a mark (whose table is not asked then), bound. What has no type goes there."""
    target = CORRESPONDENT_2[kind.family]
    bound = (world.address(AddressType.FIXED, kind.family), 0)
    before = _strayed(world, "fixed")

    def application(bind: tuple[str, int] | None) -> str:
        with kind.open() as sock:
            sock.settimeout(0.2)
            if bind:
                sock.bind(bind)
            return outcome(lambda: _send(sock, kind, (target, _PORT)))

    with _all_by_b(world, target):
        for bind in (None, (kind.wildcard, 0), bound):
            told = world.place("fixed").do(lambda bind=bind: application(bind))  # type: ignore[misc]
            assert told == ("timeout" if kind.stream else "EPERM")
        assert _strayed(world, "fixed") > before
        assert not captures.strays()
        world.place(PLAIN).do(lambda: application(None))
        assert captures.sources("B"), "the rule holds for everybody else"


@each_family
def test_N4_header_of_one_s_own_does_not_leave_by_another_uplink(
    world: World, captures: Captures, family: Family
) -> None:
    """A raw socket's route is chosen without the source that its header has."""
    source, target = world.address(NONPERSISTENT, family), CORRESPONDENT[family]
    packet = datagram(source, target)
    before = _strayed(world, "brief")

    def application(device: bytes) -> None:
        af = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
        with socket.socket(af, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
            if device:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
            sock.sendto(packet, (target, 0))

    def sent(device: bytes = b"") -> str:
        return world.place("brief").do(lambda: outcome(lambda: application(device)))

    assert sent() == "EPERM"
    assert _strayed(world, "brief") == before + 1
    assert not captures.strays()
    route = (target, "via", str(LINKS["B", family][1]), "dev", "w1")
    world.site.host.ip("route", "add", *route)
    try:
        assert sent(b"w1") == "ok"
    finally:
        world.site.host.ip("route", "del", *route)
    assert captures.sources("B") == {ip_address(source)}, "its own uplink is open to it"


def test_N4_captures_would_show_a_stray(world: World, captures: Captures) -> None:
    """The witness itself: a typed source sent by the wrong gateway is seen as a stray."""
    fixed = world.address(AddressType.FIXED, Family.IPV4)
    assert owner_of(ip_address(fixed)) == "A"
    target = CORRESPONDENT_2[Family.IPV4]
    with _all_by_b(world, target):
        world.place("audited").do(
            lambda: outcome(lambda: call(Kind.UDP4, bind=(fixed, 0), to=(target, 7001)))
        )
    assert captures.strays()
