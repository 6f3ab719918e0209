"""L6, D5: neither type nor history can be read off an address; each socket may have its own."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, Final

import pytest

from odm_agent.core.model import AddressType, Family
from odm_agent.prefixes.rfc7217 import is_reserved
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import PORT, Kind, ask, call, exchange, talker
from tests.lab.host import (
    CORRESPONDENT,
    GRACEFUL,
    LINKS,
    NONPERSISTENT,
    PREFIXES,
    SESSION,
    prefix_of,
    type_of,
)
from tests.lab.process import wait_until
from tests.lab.world import STANDARD, World

_MANY: Final = 10_000
_AT_ONCE: Final = 500
#: Addresses of the IPv4 prefix.
_POOL: Final = 4
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        "asking": LabClass(allow=(NONPERSISTENT,)),
        "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
    },
    extra={"brief6": {"sharing": "socket"}, "brief4": {"sharing": "socket", "pool": _POOL}},
)


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world with a prefix of which each socket gets an address of its own."""
    with World(tmp_path_factory.mktemp("private"), _SETTINGS) as made:
        yield made


def _connections(count: int) -> list[str]:
    """So many connections of sockets that asked, and the name of each."""
    names = []
    for _ in range(count):
        with Kind.TCP6.open() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            ask(sock, NONPERSISTENT)
            sock.connect((CORRESPONDENT[Family.IPV6], PORT))
            names.append(sock.getsockname()[0])
    return names


def test_L6_D5_ten_thousand_sockets_have_ten_thousand_addresses(private: World) -> None:
    """As the peer sees them; and the host's list of addresses stays as it was."""
    listed = private.site.host.ip("-6", "address")
    private.peer.seen()
    names: list[str] = []
    seen: list[str] = []
    for _ in range(_MANY // _AT_ONCE):
        names += private.place("asking").do(lambda: _connections(_AT_ONCE), timeout_s=60)
        seen += [each.source for each in private.peer.seen()]
    assert len(set(seen)) == _MANY
    assert {ip_address(each) for each in seen} == {ip_address(each) for each in names}
    assert {type_of(each) for each in seen} == {NONPERSISTENT}
    assert private.site.host.ip("-6", "address") == listed
    identifiers = {int(ip_address(each)) % 2**64 for each in seen}
    assert not [each for each in identifiers if is_reserved(each, 64)]
    # Nothing of the order in which they were made: half of the steps go up, as by chance.
    ordered = [int(ip_address(each)) for each in names]
    rises = sum(one < two for one, two in pairwise(ordered))
    assert abs(rises - _MANY / 2) < 5 * _MANY**0.5


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.SENDTO6], ids=lambda k: k.name)
def test_L6_D5_a_socket_keeps_the_address_that_is_its_own(private: World, kind: Kind) -> None:
    """Over all that it sends; and binds it, if it binds a wildcard."""

    def client() -> list[str]:
        with kind.open() as sock:
            ask(sock, NONPERSISTENT)
            if kind.stream:
                sock.bind(("::", 0))
                name = sock.getsockname()[0]
                return [name, exchange(sock, kind).seen]
            return [exchange(sock, kind).seen for _ in range(5)]

    first = private.place("asking").do(client)
    assert len(set(first)) == 1
    assert first != private.place("asking").do(client)


def test_D5_tcp_sockets_that_do_not_ask_share_one(private: World) -> None:
    """The kernel binds them to configured addresses only."""
    place = private.place("brief")
    assert len({place.do(lambda: call(Kind.TCP6).seen) for _ in range(5)}) == 1


@pytest.mark.parametrize("name", ["asking", "brief"])
def test_L6_D5_so_have_datagram_sockets(private: World, name: str) -> None:
    """Those that get the type by default, too: the kernel takes any source of theirs."""
    type_ = NONPERSISTENT if name == "asking" else AddressType.UNSPECIFIED
    place = private.place(name)
    seen = {place.do(lambda: call(Kind.SENDTO6, type_).seen) for _ in range(5)}
    assert len(seen) == 5
    assert {type_of(each) for each in seen} == {NONPERSISTENT}


@pytest.mark.parametrize("name", ["asking", "brief"])
@pytest.mark.parametrize("kind", [Kind.TCP4, Kind.UDP4, Kind.SENDTO4], ids=lambda k: k.name)
def test_L6_D5_ipv4_sockets_have_the_addresses_of_a_pool_in_turn(
    private: World, name: str, kind: Kind
) -> None:
    """Each another one, as long as there are some; datagrams may meet by chance."""
    type_ = NONPERSISTENT if name == "asking" else AddressType.UNSPECIFIED
    place = private.place(name)
    seen = [place.do(lambda: call(kind, type_).seen) for _ in range(_POOL)]
    assert {type_of(each) for each in seen} == {NONPERSISTENT}
    assert len(set(seen)) == _POOL if kind.connects else len(set(seen)) > 1


def test_L6_D5_an_ipv4_datagram_socket_keeps_its_address(private: World) -> None:
    def client() -> set[str]:
        with Kind.SENDTO4.open() as sock:
            return {exchange(sock, Kind.SENDTO4).seen for _ in range(5)}

    assert len(private.place("brief").do(client)) == 1


def test_L6_D5_where_the_host_allows_it_tcp_sockets_need_not_ask(tmp_path: Path) -> None:
    """net.ipv6.ip_nonlocal_bind, which is put back."""
    setting = "/proc/sys/net/ipv6/ip_nonlocal_bind"
    settings = replace(_SETTINGS, agent={"nonlocal_bind": True})
    with World(tmp_path, settings) as world:
        host, place = world.site.host, world.place("brief")
        assert host.run(["cat", setting]).strip() == "1"

        def sources() -> list[str]:
            return [place.do(lambda: call(Kind.TCP6).seen) for _ in range(20)]

        seen = sources()
        assert len(set(seen)) == len(seen)
        assert {type_of(each) for each in seen} == {NONPERSISTENT}
        world.agent.sigkill()
        assert len({*seen, *sources()}) == 40, "in the kernel alone"
        world.agent.start()
        # A resolver connects one UDP socket to many destinations: it is bound to none of these.
        assert len({place.do(lambda: call(Kind.UDP6).seen) for _ in range(5)}) == 1
        world.agent.sigkill()
        world.agent.configure(_SETTINGS)
        world.agent.start()
        assert host.run(["cat", setting]).strip() == "0", "it is not wanted any more"
        assert len(set(sources())) == 1
        world.agent.sigkill()
        world.agent.configure(settings)
        world.agent.start()
        world.agent.close()
        assert host.run(["cat", setting]).strip() == "0", "detach puts it back"


def test_L6_no_two_types_or_successors_have_an_identifier_in_common(private: World) -> None:
    """Types can't be told by it, nor can it be told which address came after which."""
    named = {each["prefix"]: each["address"] for each in private.agent.read("addresses")}
    identifiers = [
        int(IPv6Address(named[prefix_of(type_, Family.IPV6).name])) % 2**64
        for type_ in (NONPERSISTENT, GRACEFUL, SESSION)
    ]
    done = private.agent.call(
        "rotate", "graceful6", "--json", "--socket", str(private.agent.socket)
    )
    assert done.returncode == 0, done.stderr
    [new] = private.agent.addresses("graceful6")[:1]
    identifiers.append(int(IPv6Address(new)) % 2**64)
    assert len(set(identifiers)) == len(identifiers)
    for one in identifiers:
        for other in identifiers:
            # Unlike in about half of their bits.
            assert one == other or 8 < (one ^ other).bit_count() < 56


#: Three of each family that are as good as the other, at both uplinks; brief4 and brief6 by B.
_WANDERING: Final = ("fixed", "session", "brief")
_EVERY_S: Final = 5


def _wander(every: str) -> Settings:
    keys = {"type": NONPERSISTENT.word, "wander": every, "rotate": "never"}
    names = [f"{name}{family}" for name in _WANDERING for family in Family]
    return replace(_SETTINGS, extra=dict.fromkeys(names, keys))


@pytest.fixture(scope="module")
def wandering(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose prefixes wander."""
    with World(tmp_path_factory.mktemp("wandering"), _wander(f"{_EVERY_S}s")) as made:
        yield made


def _name(address: str) -> str:
    """The prefix that an address is of."""
    return next(each.name for each in PREFIXES if address in each)


def _standing(world: World, family: Family) -> dict[str, Any]:
    """What the agent says of who stands first."""
    [found] = [e for e in world.agent.read("status")["wandering"] if e["family"][-1] == str(family)]
    told: dict[str, Any] = found
    return told


def _standing_for_a_while(world: World, family: Family) -> dict[str, Any]:
    """The same, not just before it changes."""
    told = _standing(world, family)
    if told["seconds_left"] < 2:
        time.sleep(told["seconds_left"] + 0.5)
        told = _standing(world, family)
    return told


def _calls(kind: Kind, for_s: float) -> list[tuple[float, str]]:
    """When one call after the other ended, and from which prefix it came, or the error.

    Who doesn't connect asks: else the port of a call before is answered as it was asked.
    """
    type = AddressType.UNSPECIFIED if kind.connects else NONPERSISTENT
    until_s, calls = time.monotonic() + for_s, []
    while time.monotonic() < until_s:
        try:
            source = _name(call(kind, type).seen)
        except OSError as error:
            source = repr(error)
        calls.append((time.monotonic(), source))
        time.sleep(0.02)
    return calls


def _runs(calls: Sequence[tuple[float, str]]) -> list[tuple[str, float]]:
    """One prefix after the other from which calls came, and since when."""
    return [(name, next(of)[0]) for name, of in groupby(calls, key=lambda each: each[1])]


@each_kind(Kind.TCP6, Kind.TCP4, Kind.SENDTO6)
def test_L6_new_sockets_come_from_another_prefix_each_period_and_old_ones_go_on(
    wandering: World, kind: Kind
) -> None:
    """As the peer sees them; no call fails, and each leaves by the gateway of its prefix."""
    place = wandering.place("brief")
    talking = Kind.TCP4 if kind is Kind.TCP4 else Kind.TCP6
    with place.background(talker(talking)) as had, wandering.captures() as captures:
        captures.await_quiet()
        told = _standing_for_a_while(wandering, kind.family)
        began_s = time.monotonic()
        runs = _runs(place.do(lambda: _calls(kind, 3.3 * _EVERY_S), timeout_s=60))
        events = wandering.agent.call("events", "--json", "--socket", str(wandering.agent.socket))
        captures.both()
        time.sleep(0.5)
        assert ip_address(had) in captures.both(), "the old socket goes on"
        assert not captures.strays()
    names = [name for name, _ in runs]
    assert set(names) <= {f"{each}{kind.family}" for each in _WANDERING}
    assert 4 <= len(runs) <= 5
    # What was told before is what came, when it was to come.
    assert names[0] == told["first"]
    assert set(told["behind"]) == {f"{e}{kind.family}" for e in _WANDERING} - {names[0]}
    assert abs(runs[1][1] - began_s - told["seconds_left"]) < 1.0
    for (_, before_s), (_, after_s) in pairwise(runs[1:]):
        assert 0.9 * _EVERY_S - 1 < after_s - before_s < 1.1 * _EVERY_S + 1
    wandered = [
        each["prefix"]
        for each in map(json.loads, events.stdout.splitlines())
        if each["event"] == "wandered" and each["prefix"].endswith(str(kind.family))
    ]
    assert " ".join(names[1:]) in " ".join(wandered)


def test_L6_with_the_agent_dead_the_last_order_stays_and_the_next_one_goes_on(
    wandering: World,
) -> None:
    place = wandering.place("brief")
    wandering.agent.sigkill()
    try:
        runs = _runs(place.do(lambda: _calls(Kind.TCP6, 2.2 * _EVERY_S), timeout_s=60))
        assert len(runs) == 1
        assert runs[0][0] in {f"{each}6" for each in _WANDERING}
    finally:
        wandering.agent.start()
    told = _standing_for_a_while(wandering, Family.IPV6)
    began_s = time.monotonic()
    runs = _runs(place.do(lambda: _calls(Kind.TCP6, 1.5 * _EVERY_S), timeout_s=60))
    assert runs[0][0] == told["first"]
    assert abs(runs[1][1] - began_s - told["seconds_left"]) < 1.0


@pytest.mark.parametrize("restarts", [False, True], ids=["agent", "another agent"])
def test_L6_where_the_first_one_is_lost_the_next_serves_and_nothing_else_moves(
    wandering: World, restarts: bool
) -> None:
    """An uplink that fails changes the turn of none that has another one; nor does a restart."""
    agent, place = wandering.agent, wandering.place("brief")
    before = agent.settings
    agent.configure(_wander("365d"))
    assert agent.reload().returncode == 0
    try:
        told = _standing(wandering, Family.IPV6)
        order = [told["first"], *told["behind"]]
        if restarts:
            agent.sigkill()
            agent.start()
        for letter in "AB":
            left = [each for each in order if _via(each) != letter]
            with _lost(wandering, letter):
                _await_order(wandering, left)
                assert _name(place.do(lambda: call(Kind.TCP6).seen)) == left[0]
            _await_order(wandering, order)
            assert _name(place.do(lambda: call(Kind.TCP6).seen)) == order[0]
    finally:
        agent.configure(before)
        assert agent.reload().returncode == 0


def _via(name: str) -> str:
    """The letter of a prefix's gateway."""
    return next(each.via for each in PREFIXES if each.name == name)


@contextmanager
def _lost(world: World, letter: str) -> Iterator[None]:
    """An uplink is down meanwhile; what went with it comes back with it."""
    host, uplink = world.site.host, next(each.interface for each in PREFIXES if each.via == letter)
    host.ip("link", "set", uplink, "down")
    try:
        yield
    finally:
        host.ip("link", "set", uplink, "up")
        for family in Family:
            network, near, far = LINKS[letter, family]
            host.ip("address", "replace", f"{far}/{network.prefixlen}", "dev", uplink, "nodad")
            if letter == "A":
                host.ip("route", "replace", "default", "via", str(near), "dev", uplink)


def _await_order(world: World, order: list[str]) -> None:
    def is_so() -> bool:
        told = _standing(world, Family.IPV6)
        return [each for each in (told["first"], *told["behind"]) if each] == order

    wait_until(is_so, f"{order} serve", 15)
