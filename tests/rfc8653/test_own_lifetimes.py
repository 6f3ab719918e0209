"""L5: the lifetime that an application asks for, by its class and by its sockets."""

import errno
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from itertools import groupby
from pathlib import Path
from typing import Final

import pytest

from odm_agent import client
from odm_agent.client import Lifetime
from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import Kind, call, disconnect, exchange
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION, prefix_of, type_of
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.world import STANDARD, World

_HEADERS: Final = Path(__file__).parents[2] / "bpf" / "uapi"
#: Long enough for a slow machine to do something before, short enough to be waited for.
_SECONDS: Final = 3
_LIMIT_S: Final = 6
_LIMIT: Final = Lifetime(_LIMIT_S, 10**6)
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        "asking": LabClass(allow=(FIXED, NONPERSISTENT, GRACEFUL)),
        "limited": LabClass(
            allow=(SESSION,),
            default=SESSION,
            lifetimes={SESSION: {"preferred": f"{_LIMIT_S}s", "budget": "1MB"}},
        ),
        "watched": LabClass(
            allow=(SESSION,),
            mode="audit",
            lifetimes={SESSION: {"preferred": f"{_LIMIT_S}s", "budget": "1MB"}},
        ),
    },
    # Sockets of nonpersistent addresses have their own, graceful ones share two.
    extra={
        "brief6": {"sharing": "socket"},
        "brief4": {"sharing": "socket", "pool": 4},
        "graceful6": {"pool": 2, "rotate": "never"},
        "graceful4": {"pool": 2, "rotate": "never"},
    },
)
_KINDS: Final = (Kind.TCP6, Kind.TCP4, Kind.MPTCP6, Kind.SENDTO6)


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose applications ask for lifetimes of their own."""
    with World(tmp_path_factory.mktemp("asking"), _SETTINGS) as made:
        yield made


def _again(sock: socket.socket, kind: Kind) -> str:
    """From where the socket is seen, when it connects or sends anew."""
    if kind.connects:
        disconnect(sock)
    return exchange(sock, kind).seen


def _until_over(sock: socket.socket) -> None:
    left = client.lifetime_left(sock)
    assert left is not None and left.seconds is not None
    time.sleep(left.seconds + 0.1)


@pytest.mark.parametrize("type_", [NONPERSISTENT, GRACEFUL], ids=lambda t: t.word)
@each_kind(*_KINDS)
def test_L5_a_socket_is_given_another_address_when_its_time_is_over(
    asking: World, kind: Kind, type_: AddressType
) -> None:
    """Whether it has addresses of its own, or shares those of a pool."""

    def application() -> tuple[list[str], list[str]]:
        with kind.open() as sock:
            client.set_type(sock, type_, Lifetime(seconds=_SECONDS))
            before = [exchange(sock, kind).seen]
            _until_over(sock)
            return before, [_again(sock, kind)]

    before, after = asking.place("asking").do(application)
    assert {type_of(each) for each in before + after} == {type_}
    assert set(before).isdisjoint(after)


@each_kind(Kind.TCP6, Kind.SENDTO6)
def test_L5_until_then_a_socket_keeps_the_address_that_is_its_own(
    asking: World, kind: Kind
) -> None:
    def application() -> set[str]:
        with kind.open() as sock:
            client.set_type(sock, NONPERSISTENT, Lifetime(seconds=60, bytes=10**6))
            return {exchange(sock, kind).seen, *(_again(sock, kind) for _ in range(5))}

    assert len(asking.place("asking").do(application)) == 1


@each_kind(Kind.TCP6, Kind.TCP4)
def test_L5_L3_a_connection_goes_on_when_its_time_is_over(asking: World, kind: Kind) -> None:
    def talk(ready: Ready) -> None:
        with kind.open() as sock:
            client.set_type(sock, NONPERSISTENT, Lifetime(seconds=1))
            ready(exchange(sock, kind).seen)
            while True:
                sock.send(b"x")
                time.sleep(0.05)

    with asking.place("asking").background(talk) as had:
        time.sleep(1.5)
        with asking.captures() as captures:
            wait_until(lambda: ip_address(had) in captures.both(), "it goes on", timeout_s=5)


@pytest.mark.parametrize("alive", [True, False], ids=["agent", "no agent"])
def test_L5_L2_the_datagram_that_reaches_the_budget_is_the_last_one(
    tmp_path: Path, alive: bool
) -> None:
    """Counted is what is on the wire, headers included; also while the agent is dead."""
    size, many = 952, 10  # with IPv6's and UDP's headers 1000 bytes

    def application() -> list[tuple[str, int | None]]:
        kind = Kind.SENDTO6
        with kind.open() as sock:
            client.set_type(sock, NONPERSISTENT, Lifetime(bytes=3000))
            told = []
            for _ in range(many):
                sock.sendto(b"x" * size, kind.destination)
                source = sock.recv(4096).decode().split()[0]
                left = client.lifetime_left(sock)
                told.append((source, left.bytes if left else None))
            return told

    with World(tmp_path, _SETTINGS) as world:
        if not alive:
            world.agent.sigkill()
        told = world.place("asking").do(application)
    sources = [source for source, _ in told]
    parts = [sources[at : at + 3] for at in range(0, many, 3)]
    assert all(len(set(part)) == 1 for part in parts)
    assert len(set(sources)) == len(parts)
    assert [left for _, left in told] == [2000, 1000, 0] * 3 + [2000]


def test_L5_who_shares_the_only_address_is_given_none_again(asking: World) -> None:
    """Not the one that it has had for as long as it asked; and there is no spare yet."""

    def application() -> tuple[str, int | None]:
        with Kind.TCP6.open() as sock:
            client.set_type(sock, SESSION, Lifetime(seconds=1))
            seen = exchange(sock, Kind.TCP6).seen
            time.sleep(1.2)
            try:
                return seen, len(_again(sock, Kind.TCP6))
            except OSError as error:
                return seen, error.errno

    def has_just_begun() -> bool:
        return any(
            each["prefix"] == prefix_of(SESSION, Family.IPV6).name
            and each["phase"] == "current"
            and each["preferred_seconds_left"] > _LIMIT_S - 1
            for each in asking.agent.read("lifetimes")
        )

    wait_until(has_just_begun, "an address that has just begun", timeout_s=3 * _LIMIT_S)
    seen, refused = asking.place("limited").do(application)
    assert type_of(seen) == SESSION
    assert refused == errno.EADDRNOTAVAIL


@each_kind(Kind.TCP6, Kind.TCP4)
def test_L5_the_addresses_of_a_class_live_no_longer_than_it_says(asking: World, kind: Kind) -> None:
    """For sockets that ask nothing, of a prefix that never ends by itself."""
    place = asking.place("limited")
    seen: list[tuple[str, float]] = []
    until_s = time.monotonic() + 3 * _LIMIT_S
    while time.monotonic() < until_s:
        seen.append((place.do(lambda: call(kind).seen), time.monotonic()))
        time.sleep(0.1)
    assert {type_of(source) for source, _ in seen} == {SESSION}
    # One after the other; an IPv4 address may come again later.
    runs = [[at_s for _, at_s in run] for _, run in groupby(seen, key=lambda each: each[0])]
    assert len(runs) >= 3
    assert all(run[-1] - run[0] <= _LIMIT_S + 0.5 for run in runs)
    [lease] = [
        each
        for each in asking.agent.read("lifetimes")
        if each["prefix"] == prefix_of(SESSION, kind.family).name and each["phase"] == "current"
    ]
    [told] = [each for each in asking.agent.read("classes") if each["name"] == "limited"]
    assert told["lifetimes"] == [
        {"type": SESSION.word, "preferred_seconds": _LIMIT_S, "budget_bytes": 10**6}
    ]
    assert lease["budget_bytes"] == 10**6
    assert 0 < lease["preferred_seconds_left"] <= _LIMIT_S


def _answer(type_: AddressType, lifetime: Lifetime | None) -> Callable[[], object]:
    """What asking comes to: the errno, or what reads back."""

    def application() -> object:
        with Kind.TCP6.open() as sock:
            try:
                client.set_type(sock, type_, lifetime)
            except OSError as error:
                return error.errno
            return client.get_lifetime(sock)

    return application


@pytest.mark.parametrize(
    ("place", "type_", "asked", "answer"),
    [
        ("limited", SESSION, None, _LIMIT),
        ("limited", SESSION, Lifetime(2), Lifetime(2, 10**6)),
        ("limited", SESSION, Lifetime(bytes=5), Lifetime(_LIMIT_S, 5)),
        ("limited", SESSION, _LIMIT, _LIMIT),
        ("limited", SESSION, Lifetime(_LIMIT_S + 1), errno.EDQUOT),
        ("limited", SESSION, Lifetime(bytes=10**6 + 1), errno.EDQUOT),
        ("limited", SESSION, Lifetime(2, 10**6 + 1), errno.EDQUOT),
        ("watched", SESSION, Lifetime(_LIMIT_S + 1), Lifetime(_LIMIT_S + 1, 10**6)),
        ("asking", NONPERSISTENT, None, None),
        ("asking", NONPERSISTENT, Lifetime(2**32 - 1, 10**18), Lifetime(2**32 - 1, 10**18)),
        ("asking", NONPERSISTENT, Lifetime(bytes=10**18 + 1), errno.EINVAL),
        ("asking", NONPERSISTENT, Lifetime(bytes=2**64 - 1), errno.EINVAL),
        ("asking", FIXED, Lifetime(60), errno.EINVAL),
        ("asking", SESSION, Lifetime(60), errno.EACCES),
    ],
)
def test_L5_what_is_asked_is_held_against_the_limit_of_the_class(
    asking: World,
    place: str,
    type_: AddressType,
    asked: Lifetime | None,
    answer: Lifetime | int | None,
) -> None:
    assert asking.place(place).do(_answer(type_, asked)) == answer


@each_kind(*Kind)
def test_L5_a_refusal_leaves_the_socket_as_it_was(asking: World, kind: Kind) -> None:
    def application() -> tuple[AddressType, Lifetime | None]:
        with kind.open() as sock:
            client.set_type(sock, SESSION, Lifetime(2))
            with pytest.raises(OSError, match="quota"):
                client.set_type(sock, SESSION, Lifetime(_LIMIT_S + 1))
            return client.get_type(sock), client.get_lifetime(sock)

    assert asking.place("limited").do(application) == (SESSION, Lifetime(2, 10**6))


@each_kind(Kind.TCP6, Kind.TCP4)
def test_L5_a_type_without_a_lifetime_takes_it_back(asking: World, kind: Kind) -> None:
    def application() -> list[Lifetime | None]:
        read = []
        with kind.open() as sock:
            for lifetime in (Lifetime(2), None, Lifetime(bytes=7)):
                client.set_type(sock, NONPERSISTENT, lifetime)
                read.append(client.get_lifetime(sock))
            client.set_type(sock, AddressType.UNSPECIFIED)
            return [*read, client.get_lifetime(sock)]

    assert asking.place("asking").do(application) == [Lifetime(2), None, Lifetime(bytes=7), None]


_IN_C: Final = """
#include "odm.h"
#include <stdio.h>

int main(void)
{
	struct odm_lifetime wanted = { 2, 3000 }, none = { 0, 0 }, more = { 3600, 0 }, asked, left;
	int fd = socket(AF_INET6, SOCK_STREAM, 0);

	printf("%d ", odm_set_type_for(fd, SESSION_LASTING_IP_ADDRESS, &wanted));
	printf("%d ", odm_get_lifetime(fd, &asked, &left));
	printf("%u %llu %u ", asked.seconds, (unsigned long long)asked.bytes, left.seconds);
	printf("%d ", odm_set_type_for(fd, SESSION_LASTING_IP_ADDRESS, &none));
	printf("%d ", errno == EINVAL);
	printf("%d ", odm_set_type_for(fd, SESSION_LASTING_IP_ADDRESS, &more));
	printf("%d ", errno == EDQUOT);
	printf("%d", odm_get_type(fd));
	return 0;
}
"""


def test_L5_the_c_header_asks_and_reads_back(asking: World, tmp_path: Path) -> None:
    source, program = tmp_path / "ask.c", tmp_path / "ask"
    source.write_text(_IN_C)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{_HEADERS}"]
    subprocess.run(["cc", *strict, "-o", str(program), str(source)], check=True)
    done = asking.place("limited").run([str(program)])
    assert done.stdout == "0 1 2 3000 2 -1 1 -1 1 2", done.stderr


def test_L5_D5_ipv4_sockets_take_the_addresses_of_a_pool_in_turn(asking: World) -> None:
    """No two of as many as it holds have the same one, whether or not they ask."""
    place = asking.place("asking")
    seen = place.do(lambda: [call(Kind.TCP4, NONPERSISTENT).seen for _ in range(4)])
    assert len(set(seen)) == 4
    assert {type_of(each) for each in seen} == {NONPERSISTENT}


@pytest.mark.parametrize("family", list(Family), ids=lambda f: f"ipv{f.value}")
def test_L5_where_nobody_enforces_a_lifetime_is_not_supported(family: Family) -> None:
    af = socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET
    with socket.socket(af, socket.SOCK_STREAM) as sock:
        with pytest.raises(client.NotSupported):
            client.set_type(sock, SESSION, Lifetime(60))
        assert client.get_lifetime(sock) is None and client.lifetime_left(sock) is None
