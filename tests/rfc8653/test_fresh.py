"""D5, S4, L5, L6: an application asks for a new address, though there is one (ODM_FRESH)."""

import errno
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from itertools import pairwise
from pathlib import Path
from typing import Final

import pytest

from odm_agent import client
from odm_agent.client import Lifetime
from odm_agent.core.model import AddressType, Family
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import Kind, call, disconnect, exchange, outcome
from tests.lab.host import GRACEFUL, NONPERSISTENT, SESSION, type_of
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.lab.world import STANDARD, World

_HEADERS: Final = Path(__file__).parents[2] / "bpf" / "uapi"
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={"asking": LabClass(allow=(NONPERSISTENT, GRACEFUL))},
    # Sockets of nonpersistent IPv6 addresses have their own; all others share those of a pool.
    extra={
        "brief6": {"sharing": "socket"},
        "brief4": {"pool": 4},
        "graceful6": {"pool": 2},
        "graceful4": {"pool": 2},
    },
)


@pytest.fixture(scope="module", params=["agent", "no agent"])
def shared(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    """What is there is told and given by the kernel, whether or not an agent lives."""
    with World(tmp_path_factory.mktemp("fresh"), _SETTINGS) as made:
        if request.param == "no agent":
            made.agent.sigkill()
        yield made


def _again(sock: socket.socket, kind: Kind) -> str:
    """From where the socket is seen, when it connects or sends anew."""
    if kind.connects:
        disconnect(sock)
    return exchange(sock, kind).seen


@each_kind(Kind.TCP6, Kind.MPTCP6, Kind.SENDTO6)
def test_D5_each_fresh_request_gives_a_socket_another_address_of_its_own(
    shared: World, kind: Kind
) -> None:
    """None comes twice, also if a request without the bit comes between; and no other has it."""

    def application() -> tuple[list[str], list[str]]:
        with kind.open() as sock:
            client.set_type(sock, NONPERSISTENT)
            seen = [exchange(sock, kind).seen]
            for _ in range(3):
                client.set_type(sock, NONPERSISTENT, fresh=True)
                seen.append(_again(sock, kind))
                assert _again(sock, kind) == seen[-1], "until the next request it stays"
            client.set_type(sock, NONPERSISTENT)
            _again(sock, kind)
            client.set_type(sock, NONPERSISTENT, fresh=True)
            seen.append(_again(sock, kind))
        return seen, [call(kind, NONPERSISTENT).seen for _ in range(3)]

    seen, others = shared.place("asking").do(application)
    assert {type_of(each) for each in seen} == {NONPERSISTENT}
    assert len(set(seen)) == len(seen)
    assert set(seen).isdisjoint(others)


@each_kind(Kind.TCP4, Kind.MPTCP4, Kind.SENDTO4)
def test_D5_of_a_pool_the_next_address_is_in_turn(shared: World, kind: Kind) -> None:
    """All of it, before one comes again."""

    def application() -> list[str]:
        with kind.open() as sock:
            seen: list[str] = []
            for _ in range(5):
                client.set_type(sock, NONPERSISTENT, fresh=True)
                seen.append(exchange(sock, kind).seen if not seen else _again(sock, kind))
                assert _again(sock, kind) == seen[-1], "until the next request it stays"
            return seen

    seen = shared.place("asking").do(application)
    assert {type_of(each) for each in seen} == {NONPERSISTENT}
    assert len(set(seen)) == 4
    assert all(one != other for one, other in pairwise(seen))


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4)
def test_D5_who_shares_an_address_is_given_another_one(shared: World, kind: Kind) -> None:
    """Of the two of an on-link prefix."""

    def application() -> list[str]:
        with kind.open() as sock:
            client.set_type(sock, GRACEFUL)
            seen = [exchange(sock, kind).seen]
            client.set_type(sock, GRACEFUL, fresh=True)
            seen.append(_again(sock, kind))
            return seen

    before, after = shared.place("asking").do(application)
    assert {type_of(before), type_of(after)} == {GRACEFUL}
    assert before != after


@each_kind(Kind.UDP6, Kind.UDP4)
def test_D5_a_connected_udp_socket_keeps_its_address_until_it_is_disconnected(
    shared: World, kind: Kind
) -> None:
    def application() -> list[str]:
        with kind.open() as sock:
            client.set_type(sock, GRACEFUL)
            seen = [exchange(sock, kind).seen]
            client.set_type(sock, GRACEFUL, fresh=True)
            return [*seen, exchange(sock, kind).seen, _again(sock, kind)]

    had, kept, new = shared.place("asking").do(application)
    assert had == kept != new


@each_kind(Kind.TCP6, Kind.UDP6, Kind.SENDTO6, Kind.TCP4, Kind.UDP4)
@pytest.mark.parametrize("type_", [NONPERSISTENT, GRACEFUL], ids=lambda t: t.word)
def test_S4_setsc_tells_the_new_address_and_it_can_be_bound(
    shared: World, kind: Kind, type_: AddressType
) -> None:
    def application() -> tuple[str, str, str]:
        with kind.open() as sock:
            client.set_type(sock, type_)
            first = client.setsc(sock, type_, timeout_s=5)
            told = client.setsc(sock, type_, timeout_s=5, fresh=True)
            sock.bind((kind.spell(str(told)), 0))
            return str(first), str(told), exchange(sock, kind).seen

    first, told, seen = shared.place("asking").do(application)
    assert told == seen
    assert told != first or kind is Kind.TCP4 or type_ is GRACEFUL
    assert type_of(told) is type_


@each_kind(Kind.TCP6, Kind.UDP6, Kind.SENDTO6)
def test_S4_the_address_that_setsc_tells_is_given_also_without_a_bind(
    shared: World, kind: Kind
) -> None:
    def application() -> tuple[str, str]:
        with kind.open() as sock:
            told = client.setsc(sock, NONPERSISTENT, timeout_s=5, fresh=True)
            return str(told), exchange(sock, kind).seen

    told, seen = shared.place("asking").do(application)
    assert told == seen


def test_L5_a_fresh_address_may_have_a_lifetime_too(shared: World) -> None:
    def application() -> tuple[list[str], Lifetime | None]:
        kind = Kind.SENDTO6
        with kind.open() as sock:
            seen = []
            for _ in range(3):
                client.set_type(sock, NONPERSISTENT, Lifetime(bytes=10**6), fresh=True)
                seen += [exchange(sock, kind).seen for _ in range(2)]
            return seen, client.get_lifetime(sock)

    seen, lifetime = shared.place("asking").do(application)
    assert [seen[at] == seen[at + 1] for at in (0, 2, 4)] == [True] * 3
    assert len(set(seen)) == 3
    assert lifetime == Lifetime(bytes=10**6)


def test_L6_fresh_addresses_of_a_socket_have_nothing_in_common_but_the_prefix(
    shared: World,
) -> None:
    def application() -> list[str]:
        with Kind.SENDTO6.open() as sock:
            seen = []
            for _ in range(32):
                client.set_type(sock, NONPERSISTENT, fresh=True)
                seen.append(exchange(sock, Kind.SENDTO6).seen)
            return seen

    ids = [int(IPv6Address(each)) & 2**64 - 1 for each in shared.place("asking").do(application)]
    assert len(set(ids)) == 32
    for bit in range(64):  # each is one in half of them: never the same in 32 of a hash
        assert 0 < sum(each >> bit & 1 for each in ids) < 32, bit


def test_S8_where_nobody_enforces_types_nothing_is_fresh() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        assert outcome(lambda: client.set_type(sock, NONPERSISTENT, fresh=True)) == "ENOTSUP"
        with pytest.raises(client.NotSupported) as refused:
            client.setsc(sock, NONPERSISTENT, on_net=True)
        assert refused.value.errno == errno.ENOTSUP


_IN_C: Final = """
#include "odm.h"
#include <arpa/inet.h>
#include <stdio.h>

int main(void)
{
	int type = NON_PERSISTENT_IP_ADDRESS, fd = socket(AF_INET6, SOCK_DGRAM, 0);
	struct in6_addr first, second;
	struct odm_lifetime wanted = { 60, 0 };

	printf("%d ", odm_set_type(fd, ODM_FRESH) == -1 && errno == EINVAL);
	printf("%d ", odm_set_type(fd, FIXED_IP_ADDRESS | ODM_FRESH) == -1 && errno == EINVAL);
	printf("%d ", odm_set_type(fd, 5 | ODM_ON_NET) == -1 && errno == EINVAL);
	printf("%d ", odm_set_type(fd, -1) == -1 && errno == EINVAL);
	printf("%d ", odm_set_type(fd, type | ODM_FRESH | ODM_ON_NET));
	printf("%d ", odm_set_type_for(fd, type | ODM_FRESH, &wanted));
	printf("%d ", odm_get_type(fd));
	printf("%d ", odm_setsc(fd, type | ODM_FRESH, 5000, &first));
	printf("%d ", odm_setsc(fd, type | ODM_FRESH, 5000, &second));
	printf("%d", memcmp(&first, &second, sizeof(first)) != 0);
	return 0;
}
"""


def test_S4_the_c_header_asks_for_new_addresses(shared: World, tmp_path: Path) -> None:
    source, program = tmp_path / "fresh.c", tmp_path / "fresh"
    source.write_text(_IN_C)
    strict = ["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    subprocess.run(["cc", *strict, f"-I{_HEADERS}", "-o", str(program), str(source)], check=True)
    done = shared.place("asking").run([str(program)])
    assert done.stdout == "1 1 1 1 0 0 3 0 0 1", done.stderr


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Prefixes with one address each, which the agent has to change for who asks."""
    settings = replace(
        STANDARD,
        classes={
            "asking": LabClass(allow=(SESSION, NONPERSISTENT, GRACEFUL)),
            "other": LabClass(allow=(SESSION, GRACEFUL)),
            "capped": LabClass(allow=(GRACEFUL,), caps={GRACEFUL: {"requests_per_minute": 3}}),
        },
    )
    with (
        World(tmp_path_factory.mktemp("asked"), settings) as made,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("ODM_WAIT_SOCKET", str(made.agent.wait_socket))
        yield made


def _setsc(kind: Kind, type_: AddressType) -> Callable[[], tuple[str, str]]:
    """An application that waits for a new address: what it is told, and where it is seen."""

    def application() -> tuple[str, str]:
        with kind.open() as sock:
            told = client.setsc(sock, type_, timeout_s=15, fresh=True)
            if not kind.connects:
                return str(told), exchange(sock, kind).seen
            sock.bind((kind.spell(str(told)), 0))
            return str(told), exchange(sock, kind).seen

    return application


@each_kind(Kind.TCP6, Kind.UDP6, Kind.SENDTO6, Kind.MPTCP6)
def test_D5_S4_a_delegated_prefix_is_opened_for_who_asks(asked: World, kind: Kind) -> None:
    """And nobody else sees anything of it; each who asks has an address of his own."""
    place = asked.place("asking")
    shared = asked.address(SESSION, Family.IPV6)

    def plain() -> str:
        with kind.open() as sock:
            return str(_later(sock, kind, SESSION))

    if kind is Kind.MPTCP6:  # its own can't be told before it connects
        seen = {place.do(plain) for _ in range(3)}
    else:
        pairs = [place.do(_setsc(kind, SESSION)) for _ in range(2)]
        assert all(told == found for told, found in pairs)
        seen = {found for _, found in pairs} | {place.do(plain)}
    assert len(seen) == 3 and shared not in seen
    assert {type_of(each) for each in seen} == {SESSION}
    assert place.do(lambda: call(kind, SESSION).seen) == shared
    assert asked.place("other").do(lambda: call(kind, SESSION).seen) == shared
    assert asked.agent.addresses("session6") == [shared]


def _later(sock: socket.socket, kind: Kind, type_: AddressType) -> str:
    """A plain program that tries again, for as long as there is no new address."""
    client.set_type(sock, type_, fresh=True)
    for _ in range(500):
        with suppress(OSError):
            return exchange(sock, kind).seen
        time.sleep(0.02)
    return "never"


def test_D5_an_opened_prefix_stays_so_for_who_has_its_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over the end of the agent, and the start of another one."""

    def talks(ready: Ready) -> None:
        with Kind.TCP6.open() as sock:
            told = client.setsc(sock, SESSION, timeout_s=15, fresh=True)
            assert exchange(sock, Kind.TCP6).seen == str(told)
            ready(str(told))
            while True:
                sock.send(b"x")
                time.sleep(0.05)

    settings = replace(STANDARD, classes={"asking": LabClass(allow=(SESSION,))})
    with World(tmp_path, settings) as world:
        monkeypatch.setenv("ODM_WAIT_SOCKET", str(world.agent.wait_socket))
        with world.place("asking").background(talks) as told:
            _survives(world, told)


def _survives(world: World, told: str) -> None:
    """Packets come and go at an address, whoever lives."""
    for end in (world.agent.stop, world.agent.sigkill):
        end()
        world.agent.start()
        with world.captures() as captures:
            wait_until(lambda: ip_address(told) in captures.both(), "it goes on", timeout_s=5)


def test_D5_others_take_the_place_of_the_address_once_for_all_who_ask(asked: World) -> None:
    """Of an on-link prefix, whose addresses rotate by themselves some day."""
    before = asked.address(GRACEFUL, Family.IPV6)

    def application() -> list[tuple[str, str]]:
        found = []
        sockets = [Kind.TCP6.open() for _ in range(4)]
        for sock in sockets:
            client.set_type(sock, GRACEFUL, fresh=True)
        for sock in sockets:
            told = client.setsc(sock, GRACEFUL, timeout_s=15, fresh=True)
            sock.bind((str(told), 0))
            found.append((str(told), exchange(sock, Kind.TCP6).seen))
        return found

    apart = asked.place("asking").do(application, timeout_s=40)
    assert all(told == seen for told, seen in apart)
    (new,) = {seen for _, seen in apart}
    assert type_of(new) is GRACEFUL and new != before
    events = asked.agent.call("events", "--json", "--socket", str(asked.agent.socket)).stdout
    turns = [each for each in map(json.loads, events.splitlines()) if each["event"] == "rotated"]
    assert [(each["prefix"], each["address"], each["new"]) for each in turns] == [
        ("graceful6", before, new)
    ]


def test_D3_where_no_other_address_can_be_made_that_is_said(asked: World) -> None:
    """At once to who waits; a plain program has no address, and never the one that there is."""

    def application() -> tuple[bool, str, str]:
        with Kind.TCP4.open() as sock:
            with pytest.raises(client.RequestFailed) as refused:
                client.setsc(sock, SESSION, timeout_s=15, fresh=True)
            client.set_type(sock, SESSION, fresh=True)
            told = outcome(lambda: exchange(sock, Kind.TCP4))
            client.set_type(sock, SESSION)
            return refused.value.unsupported, told, exchange(sock, Kind.TCP4).seen

    unsupported, told, seen = asked.place("asking").do(application)
    assert unsupported and told == "EADDRNOTAVAIL"
    assert seen == asked.address(SESSION, Family.IPV4)


def test_A2_fresh_requests_count_as_requests(asked: World) -> None:
    def application() -> list[str]:
        with Kind.TCP4.open() as sock:
            return [outcome(lambda: client.set_type(sock, GRACEFUL, fresh=True)) for _ in range(5)]

    told = asked.place("capped").do(application)
    assert told[0] == "ok" and told[-1] == "EDQUOT"
