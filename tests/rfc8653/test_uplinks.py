"""N2, T5, S1, S6, A1, N4: addresses and routes that others put on an interface serve a type.

Here they are put there by hand, as `ip` or a script would; network managers are in
tests/kernel/managers. The uplink is w1, towards gateway B; main's best default route is by w0.
"""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.core.model import Family
from tests.lab.client import Kind, ask, call, exchange, outcome, source_cmsg
from tests.lab.host import CORRESPONDENT, FIXED, LINKS, NONPERSISTENT
from tests.lab.place import Ready
from tests.lab.uplinked import KINDS, WIFI, host, seen, uplinked
from tests.lab.world import PLAIN, World

#: Of a site: routers may pass them on, so that the hooks do not take them for the link's.
_GROUPS: Final = {Family.IPV4: "239.255.7.7", Family.IPV6: "ff05::7:7"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """w1 is an uplink of type nonpersistent; shared by tests that leave it as it was."""
    with uplinked(tmp_path_factory.mktemp("uplinks"), {"wifi": WIFI}) as made:
        yield made


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_n2_what_others_put_on_an_interface_serves_the_type(world: World, kind: Kind) -> None:
    """N4: and it leaves by that interface's own gateway, though the host's best is another."""
    with world.captures() as captures:
        captures.await_quiet()
        assert seen(world, "brief", kind) == host("B", kind.family)
        assert not captures.strays()
        assert seen(world, "may", kind, NONPERSISTENT) == host("B", kind.family)
        assert not captures.strays()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_s6_for_everybody_else_nothing_has_changed(world: World, kind: Kind) -> None:
    for place in (PLAIN, "may", "other"):
        assert seen(world, place, kind) == host("A", kind.family), place


@pytest.mark.parametrize("place", [PLAIN, "other"])
@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO4])
def test_s6_others_bind_to_a_shared_address_and_go_the_way_that_they_went(
    world: World, place: str, kind: Kind
) -> None:
    """By main, so by w0: the gateway there drops it, as it does without us."""
    bound = (host("B", kind.family), 0)

    def send() -> str:
        with kind.open() as sock:
            sock.settimeout(0.3)
            sock.bind(bound)
            return outcome(lambda: exchange(sock, kind))

    with world.captures() as captures:
        captures.await_quiet()
        assert world.place(place).do(send) == "timeout"
        assert str(next(iter(captures.sources("A")))) == bound[0]
        assert not captures.sources("B")


@pytest.mark.parametrize("kind", [k for k in KINDS if not k.mptcp], ids=lambda kind: kind.name)
@pytest.mark.parametrize("place", ["may", "strict"])
def test_s1_who_may_use_the_type_binds_to_the_address_and_it_is_typed(
    world: World, place: str, kind: Kind
) -> None:
    """Also where the socket has a port before it connects."""
    bound = kind.spell(host("B", kind.family))
    with world.captures() as captures:
        captures.await_quiet()
        assert seen(world, place, kind, bind=(bound, 0)) == host("B", kind.family)
        assert seen(world, place, kind, NONPERSISTENT, bind=(bound, 0)) == bound.split(":ffff:")[-1]
        assert not captures.strays()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_s1_a_socket_that_has_a_port_already_is_led_by_the_mark(world: World, kind: Kind) -> None:
    bound = (kind.wildcard, 0)
    assert seen(world, "brief", kind, bind=bound) == host("B", kind.family)
    if not kind.mapped:  # a request narrows the wildcard, to IPv6
        assert seen(world, "may", kind, NONPERSISTENT, bind=bound) == host("B", kind.family)


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.SENDTO4])
def test_a1_to_a_strict_class_without_the_type_a_shared_address_is_untyped(
    world: World, kind: Kind
) -> None:
    bound = (host("B", kind.family), 0)
    assert world.place("sealed").do(lambda: outcome(lambda: call(kind, bind=bound))) == "EACCES"
    refused = world.place("other").do(lambda: outcome(lambda: call(kind, FIXED, bind=bound)))
    assert refused == "EADDRNOTAVAIL"
    assert world.place("other").do(lambda: outcome(lambda: call(kind, NONPERSISTENT))) == "EACCES"


def test_a1_bytes_are_counted_for_classes_and_not_for_others(world: World) -> None:
    def sent(place: str) -> int:
        return sum(
            each["bytes"]
            for each in world.agent.read("usage")
            if each.get("class") == place and each["type"] == "nonpersistent"
        )

    before = {place: sent(place) for place in ("brief", "unclassified")}
    for kind in (Kind.TCP4, Kind.TCP6, Kind.SENDTO4, Kind.SENDTO6, Kind.UDP_MAPPED):
        was = sent("brief")
        seen(world, "brief", kind)
        assert sent("brief") > was, kind
    assert sent("unclassified") == before["unclassified"]


def test_a2_caps_hold_on_shared_addresses(world: World) -> None:
    def hold(ready: Ready) -> None:
        with Kind.TCP6.open() as sock:
            ready(exchange(sock, Kind.TCP6).seen)
            sock.recv(1)

    with world.place("capped").background(hold) as seen:
        assert seen == host("B", Family.IPV6)
        for kind in (Kind.TCP4, Kind.UDP6, Kind.SENDTO6):
            assert world.place("capped").do(lambda k=kind: outcome(lambda: call(k))) == "EDQUOT"  # type: ignore[misc]


def test_s1_a_control_message_names_a_shared_address_as_without_us(world: World) -> None:
    def send() -> str:
        with Kind.SENDTO4.open() as sock:
            sock.bind(("0.0.0.0", 0))
            sock.sendmsg(
                [b"hello"],
                source_cmsg(host("A", Family.IPV4)),
                0,
                (CORRESPONDENT[Family.IPV4], 7001),
            )
            return sock.recv(4096).decode().split()[0]

    assert world.place("may").do(send) == host("A", Family.IPV4)


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4], ids=lambda kind: kind.name)
def test_n4_a_server_that_has_chosen_the_address_answers_by_its_own_uplink(
    world: World, kind: Kind
) -> None:
    """From the SYN-ACK on; and it does so for who asks for the type and binds to the wildcard."""
    here = host("B", kind.family)

    def serve(ready: Ready) -> None:
        with kind.open() as sock:
            sock.bind((here, 0))
            sock.listen()
            sock.settimeout(None)
            ready(sock.getsockname()[1])
            child, _ = sock.accept()
            child.sendall(b"served")
            child.recv(1)

    with world.captures() as captures:
        captures.await_quiet()
        with world.place("may").background(serve) as port:
            heard = world.site.c.call(_fetch, here, port)
            assert heard == b"served"
        assert not captures.strays()


def _fetch(host: str, port: int) -> bytes:
    with socket.create_connection((host, port), timeout=5) as sock:
        return sock.recv(16)


def test_s6_local_clients_and_servers_talk_over_a_shared_address(world: World) -> None:
    here = host("B", Family.IPV4)

    def serve(ready: Ready) -> None:
        with Kind.TCP4.open() as sock:
            sock.bind(("0.0.0.0", 0))
            sock.listen()
            sock.settimeout(None)
            ready(sock.getsockname()[1])
            while True:
                sock.accept()[0].sendall(b"served")

    for server in (PLAIN, "other", "brief"):
        with world.place(server).background(serve) as port:
            for client in (PLAIN, "other", "brief"):
                assert world.place(client).do(lambda p=port: _fetch(here, p)) == b"served"  # type: ignore[misc]


def test_t5_costly_types_by_uplink(tmp_path: Path) -> None:
    """SSH from the fixed address of a tunnel, say: only classes that may use it are given it."""
    uplinks = {"vpn": {"interface": "w1", "type": "fixed"}, "eth": {"interface": "w0"}}
    with uplinked(tmp_path, uplinks) as world:
        for kind in (Kind.TCP6, Kind.TCP4, Kind.SENDTO6, Kind.UDP4):
            assert seen(world, "other", kind, FIXED) == host("B", kind.family)
            assert seen(world, "sealed", kind) == host("B", kind.family)
            assert seen(world, "brief", kind) == host("A", kind.family)
            assert seen(world, PLAIN, kind) == host("A", kind.family)
            with pytest.raises(PermissionError):
                seen(world, "brief", kind, FIXED)


def test_everything_says_the_type_of_a_shared_address(world: World) -> None:
    def hold(ready: Ready) -> None:
        with Kind.UDP6.open() as typed, Kind.UDP6.open() as bound:
            ask(typed, NONPERSISTENT)
            typed.connect(Kind.UDP6.destination)
            bound.bind((host("A", Family.IPV6), 0))
            ready(None)
            typed.recv(1)

    by_name = {each["name"]: each for each in world.agent.read("prefixes")}
    assert by_name.keys() == {"wifi/ipv4", "wifi/ipv6"}
    for family in Family:
        found = by_name[f"wifi/ipv{family}"]
        assert (found["state"], found["placement"]) == ("ready", "managed")
        assert (found["interface"], found["shared"], found["prefix"]) == ("w1", True, None)
        assert found["gateway"] == str(LINKS["B", family][1])
    assert {each["address"] for each in world.agent.read("addresses")} == {
        host("B", family) for family in Family
    }
    with world.place("may").background(hold):
        types = {
            each["source"].rpartition(":")[0].strip("[]"): each["type"]
            for each in world.agent.read("sockets")
            if each["class"] == "may"
        }
    assert types[host("B", Family.IPV6)] == "nonpersistent"
    assert types[host("A", Family.IPV6)] == "unspecified"
    status = world.agent.read("status")
    assert (status["prefixes"], status["addresses"], status["alarms"]) == (2, 2, [])
    assert world.agent.read("lifetimes") == []
    assert 'odm_prefixes{family="ipv4",state="ready",type="nonpersistent"} 1' in (
        world.agent.metrics()
    )


@pytest.mark.parametrize(
    ("place", "asks", "sent"),
    [("brief", False, True), ("may", True, False), ("strict", False, False), (PLAIN, False, True)],
    ids=["default", "asked", "strict", "plain"],
)
@pytest.mark.parametrize("connects", [False, True], ids=["sends", "connects"])
@pytest.mark.parametrize("family", Family, ids=lambda family: family.name)
def test_s6_a_group_of_another_link_is_reached_as_without_us(
    world: World, family: Family, connects: bool, place: str, asks: bool, sent: bool
) -> None:
    """A UDP socket has the mark of the uplink from its birth on, and says later where to send.

    Who wants the type, by asking for it or by a strict class, sends nothing untyped instead.
    """
    group = _GROUPS[family]
    index = int(world.site.host.ip("-o", "link", "show", "w0").partition(":")[0])

    def send() -> None:
        domain = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
        with socket.socket(domain, socket.SOCK_DGRAM) as sock:
            if asks:
                ask(sock, NONPERSISTENT)
            if family is Family.IPV4:
                request = bytes(8) + index.to_bytes(4, sys.byteorder)  # struct ip_mreqn
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            if connects:
                sock.connect((group, 7777))
                sock.send(b"anybody?")
            else:
                sock.sendto(b"anybody?", (group, 7777))

    with world.captures() as captures:
        captures.await_quiet()
        told = world.place(place).do(lambda: outcome(send))
        came = {
            letter: [str(p.source) for p in captures.at(letter).packets() if p.port == 7777]
            for letter in "AB"
        }
    if sent:
        assert (told, came) == ("ok", {"A": [host("A", family)], "B": []})
    elif connects:  # its source is the other link's, as the kernel chose it before
        assert (told, came) == ("EPERM", {"A": [], "B": []})
    else:
        assert (told, came) == ("ok", {"A": [host("B", family)], "B": []})


@pytest.mark.parametrize("family", Family, ids=lambda family: family.name)
def test_explain_says_what_a_socket_that_is_typed_by_its_mark_is_given(
    world: World, family: Family
) -> None:
    def explained(place: str, *option: str) -> dict[str, Any]:
        line = world.agent.program(
            *("explain", "--json", "--socket", str(world.agent.socket)),
            *(place, CORRESPONDENT[family], *option),
        )
        done = subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    uplink, other = host("B", family), host("A", family)
    found = explained("brief")
    assert (found["source"], found["type"]) == (uplink, NONPERSISTENT.word)
    found = explained("may", "--type", NONPERSISTENT.word)
    assert (found["source"], found["type"]) == (uplink, NONPERSISTENT.word)
    found = explained("may")
    assert (found["source"], found["type"]) == (other, "untyped")
    found = explained("other", "--type", NONPERSISTENT.word)
    assert (found["source"], found["errno"]) == (None, "EACCES")
