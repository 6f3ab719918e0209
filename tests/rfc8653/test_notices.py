"""T4, N3, S4: an application learns what becomes of the address of its socket, from the kernel.

The witness of an address is the peer, and `getsockname`.
"""

import errno
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from odm_agent import client
from odm_agent.client import AddressState, Notice
from odm_agent.core.model import AddressType, Family
from tests.lab.asking import AskingWorld, granted
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, call, exchange
from tests.lab.host import CORRESPONDENT, FIXED, NONPERSISTENT, PREFIXES, SESSION, prefix_of
from tests.lab.place import Conversation, Ready
from tests.lab.process import wait_until
from tests.lab.uplinked import WIFI, host, uplinked
from tests.lab.world import PLAIN, STANDARD, World

_HEADERS: Final = Path(__file__).parents[2] / "bpf" / "uapi"
_NOTICE_SIZE: Final = 80
_PORT: Final = 27052


def _holder(kind: Kind, type: AddressType) -> Callable[[Ready], None]:
    """An application with one socket: who it is to the peer, then its notice again and again."""

    def hold(ready: Ready) -> None:
        with kind.open() as sock:
            if type:
                ask(sock, type)
            ready(exchange(sock, kind).seen)
            while True:
                ready(client.notice(sock))
                time.sleep(0.02)

    return hold


def _until(
    talk: Conversation, state: AddressState, *, succeeded: bool = False, within_s: float = 20
) -> Notice:
    """The first notice of this state, with a successor if it is to have one."""
    until_s = time.monotonic() + within_s
    while time.monotonic() < until_s:
        told = talk.hear(within_s)
        assert isinstance(told, Notice)
        if told.state is state and (told.successor is not None or not succeeded):
            return told
    raise AssertionError(f"still {told}")


@pytest.mark.parametrize("asked", [True, False], ids=["asked", "by-default"])
@each_kind()
def test_T4_the_kernel_tells_the_state_of_each_socket_s_address(
    world: World, kind: Kind, asked: bool
) -> None:
    """Asked for and by default, connected and not: that is as the peer sees it."""
    place = world.place("every" if asked else "session")
    expected = world.address(SESSION, kind.family)

    def application() -> tuple[str, str, Notice | None, Notice | None]:
        with kind.open() as sock:
            if asked:
                ask(sock, SESSION)
            before = client.notice(sock)
            done = exchange(sock, kind)
            return done.seen, done.local, before, client.notice(sock)

    seen, local, before, after = place.do(application)
    assert seen == expected
    assert before is not None and before.state is AddressState.UNBOUND
    assert before.address is None
    if not kind.mapped:  # until it is connected it is an IPv6 socket
        assert str(before.successor) == expected
    assert after is not None and after.type is SESSION
    if ip_address(local).is_unspecified:
        assert after.state is AddressState.UNBOUND and after.address is None
    else:
        assert (after.state, str(after.address)) == (AddressState.PREFERRED, expected)
        assert after.successor is None and after.valid_until_s is None


@each_kind(Kind.TCP6, Kind.TCP4, Kind.MPTCP6, Kind.UDP6, Kind.UDP4)
def test_T4_a_bound_socket_is_told_the_state_of_what_it_chose(world: World, kind: Kind) -> None:
    """Of another type than its class's default, without asking."""
    chosen = world.address(FIXED, kind.family)

    def application() -> Notice | None:
        with kind.open() as sock:
            sock.bind((chosen, 0))
            return client.notice(sock)

    told = world.place("choosy").do(application)
    assert told is not None
    assert (told.state, told.type, str(told.address)) == (AddressState.PREFERRED, FIXED, chosen)


def test_T4_an_accepted_socket_is_told(world: World) -> None:
    address = world.address(FIXED, Family.IPV6)

    def server(ready: Ready) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            ask(sock, FIXED)
            sock.bind(("::", _PORT))
            sock.listen()
            ready(client.notice(sock))
            accepted, _ = sock.accept()
            ready(client.notice(accepted))
            accepted.sendall(b"served\n")
            accepted.close()
            time.sleep(60)

    with world.place("every").conversation(server) as talk:
        listening = talk.hear()
        assert world.peer.dial("tcp", address, _PORT)["answer"].strip() == "served"
        accepted = talk.hear()
    for each in (listening, accepted):
        assert (each.state, each.type, str(each.address)) == (
            *(AddressState.PREFERRED, FIXED, address),
        )


def _raw(kind: Kind, to: tuple[str, int] | None = None) -> int | str:
    """How many bytes of a notice the kernel answers, or the errno's word."""
    with kind.open() as sock:
        if to is not None:
            sock.connect(to)
        try:
            return len(sock.getsockopt(socket.IPPROTO_IPV6, client.SOCKOPT, _NOTICE_SIZE))
        except OSError as error:
            return errno.errorcode[error.errno or 0]


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.MPTCP6])
def test_S6_to_a_socket_of_no_class_nothing_is_told(world: World, kind: Kind) -> None:
    """The kernel's own answer, as without us; and so to a class that is off."""
    stock = _raw(kind)
    for name in (PLAIN, "off"):
        assert world.place(name).do(lambda: _raw(kind)) == stock, name
        assert world.place(name).do(lambda: _unnoticed(kind)), name


def _unnoticed(kind: Kind) -> bool:
    with kind.open() as sock:
        exchange(sock, kind)
        return client.notice(sock) is None


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_S6_an_untyped_address_is_none_of_ours(world: World, kind: Kind) -> None:
    """Of a class without a default; and what never leaves the host, of one that has one."""
    assert world.place("nothing").do(lambda: _unnoticed(kind))

    def local() -> bool:
        loopback = "::1" if kind.family is Family.IPV6 else "127.0.0.1"
        with kind.open() as sock:
            sock.bind((loopback, 0))
            return client.notice(sock) is None

    assert world.place("session").do(local)


def test_S6_a_socket_of_another_namespace_is_none_of_ours(world: World) -> None:
    place = replace(world.place("session"), netns=world.site.c)
    assert place.do(lambda: _raw(Kind.TCP6)) == _raw(Kind.TCP6)


def test_S8_without_an_agent_nothing_is_told() -> None:
    for kind in (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4):
        with kind.open() as sock:
            assert client.notice(sock) is None


def test_a_notice_of_a_closed_socket_is_an_error() -> None:
    sock = Kind.TCP6.open()
    sock.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        client.notice(sock)


_PROGRAM: Final = """
#include "odm.h"
#include <arpa/inet.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    struct odm_address_notice notice;
    struct sockaddr_in6 to = { .sin6_family = AF_INET6, .sin6_port = htons(7001) };
    char held[INET6_ADDRSTRLEN], next[INET6_ADDRSTRLEN];
    int fd = socket(AF_INET6, SOCK_DGRAM, 0);

    (void)argc;
    inet_pton(AF_INET6, argv[1], &to.sin6_addr);
    for (int i = 0; i < 2; i++) {
        int told = odm_notice(fd, &notice);
        printf("%d %d %d %s %s\\n", told, notice.state, notice.type,
               inet_ntop(AF_INET6, &notice.address, held, sizeof(held)),
               inet_ntop(AF_INET6, &notice.successor, next, sizeof(next)));
        if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == -1)
            return 1;
    }
    printf("%d\\n", odm_notice(-1, &notice));
    return 0;
}
"""


def test_T4_in_c(world: World, tmp_path: Path) -> None:
    source, program = tmp_path / "notice.c", tmp_path / "notice"
    source.write_text(_PROGRAM)
    strict = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{_HEADERS}"]
    subprocess.run(["cc", *strict, "-o", program, source], check=True)
    command = [str(program), CORRESPONDENT[Family.IPV6]]
    address = world.address(SESSION, Family.IPV6)
    done = world.place("session").run(command)
    assert done.stdout.splitlines() == [f"1 1 2 :: {address}", f"1 2 2 {address} ::", "-1"]
    done = world.place(PLAIN).run(command)
    assert done.stdout.splitlines() == ["0 0 0 :: ::", "0 0 0 :: ::", "-1"]


# --- what becomes of it ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskingWorld]:
    """A network that gives on request, and takes back."""
    with AskingWorld(tmp_path_factory.mktemp("notices")) as made:
        yield made


def _another(family: Family) -> tuple[AddressType, Family, dict[str, object]]:
    """What the next network gives for SESSION."""
    other = prefix_of(NONPERSISTENT, family)
    return granted(
        SESSION,
        family,
        network=str(other.network),
        interface=other.interface,
        gateway=str(other.gateway),
        instance="/2",
    )


@pytest.mark.parametrize("name", ["asking", "default"])
@each_kind(Kind.TCP6, Kind.TCP4, Kind.TCP_MAPPED, Kind.MPTCP6, Kind.UDP6, Kind.UDP4)
def test_T4_N3_what_the_network_takes_back_is_deprecated_and_its_successor_is_named(
    asking: AskingWorld, kind: Kind, name: str
) -> None:
    """By what sockets are given then, as the peer sees it."""
    asked = SESSION if name == "asking" else AddressType.UNSPECIFIED
    asking.script(granted(SESSION, kind.family))

    def seen() -> str:
        try:
            return asking.place(name).do(lambda: call(kind, asked)).seen
        except OSError:
            return ""

    wait_until(lambda: bool(seen()), "an address", 20)
    try:
        with asking.place(name).conversation(_holder(kind, asked)) as talk:
            held = talk.hear()
            told = _until(talk, AddressState.PREFERRED)
            assert str(told.address) == held and told.successor is None
            asking.script()
            asking.file.with_suffix(".withdrawn").touch()
            told = _until(talk, AddressState.DEPRECATED)
            asking.file.with_suffix(".withdrawn").unlink()
            assert (str(told.address), told.successor) == (held, None)
            asking.script(_another(kind.family))
            wait_until(lambda: bool(seen()), "another address", 20)
            told = _until(talk, AddressState.DEPRECATED, succeeded=True)
            assert (str(told.address), str(told.successor)) == (held, seen())
    finally:
        asking.script()
        asking.withdraw()


def test_T4_an_address_ends_by_the_clock_with_the_agent_dead(tmp_path: Path) -> None:
    """Its dates are told before, and nobody need be alive for what follows them."""
    terms = {"session6": {"preferred": "6s", "valid": "12s"}}
    with World(tmp_path, replace(STANDARD, extra=terms)) as world:
        with world.place("session").conversation(
            _holder(Kind.TCP6, AddressType.UNSPECIFIED)
        ) as talk:
            held = talk.hear()
            world.agent.sigkill()
            told = _until(talk, AddressState.PREFERRED)
            assert told.preferred_until_s is not None and told.valid_until_s is not None
            now_s = time.clock_gettime(time.CLOCK_BOOTTIME)
            assert now_s < told.preferred_until_s < told.valid_until_s < now_s + 12.5
            for state, end_s in (
                (AddressState.DEPRECATED, told.preferred_until_s),
                (AddressState.OVER, told.valid_until_s),
            ):
                ended = _until(talk, state)
                assert str(ended.address) == held
                assert time.clock_gettime(time.CLOCK_BOOTTIME) >= end_s
        world.agent.start()


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6)
def test_T4_a_prefix_that_is_no_more_is_over(tmp_path: Path, kind: Kind) -> None:
    with World(tmp_path, STANDARD) as world:
        former = prefix_of(SESSION, kind.family)
        with world.place("session").conversation(_holder(kind, AddressType.UNSPECIFIED)) as talk:
            held = talk.hear()
            _until(talk, AddressState.PREFERRED)
            kept = [each for each in PREFIXES if each is not former]
            world.agent.configure(replace(STANDARD, prefixes=kept))
            assert world.agent.reload().returncode == 0
            told = _until(talk, AddressState.OVER)
            assert (str(told.address), told.type, told.successor) == (held, SESSION, None)


def test_T4_an_address_that_another_one_follows_is_deprecated(tmp_path: Path) -> None:
    """`odm-agent rotate`: the successor is the one that sockets are given from then on."""
    terms = {"session6": {"rotate": "1h"}}
    with World(tmp_path, replace(STANDARD, extra=terms)) as world:
        place = world.place("session")
        with place.conversation(_holder(Kind.TCP6, AddressType.UNSPECIFIED)) as talk:
            held = talk.hear()
            done = world.agent.call("rotate", "session6", "--socket", str(world.agent.socket))
            assert done.returncode == 0, done.stderr
            told = _until(talk, AddressState.DEPRECATED, succeeded=True)
            successor = place.do(lambda: call(Kind.TCP6).seen)
            assert (str(told.address), str(told.successor)) == (held, successor)
            assert successor != held


def test_T4_a_lifetime_of_the_socket_s_own_ends_its_address(world: World) -> None:
    def application() -> list[Notice | None]:
        with Kind.TCP6.open() as sock:
            client.set_type(sock, SESSION, client.Lifetime(seconds=1))
            exchange(sock, Kind.TCP6)
            told = [client.notice(sock)]
            time.sleep(1.2)
            return [*told, client.notice(sock)]

    first, second = world.place("every").do(application)
    assert first is not None and second is not None
    assert first.state is AddressState.PREFERRED and first.preferred_until_s is not None
    assert second.state is AddressState.DEPRECATED


def _iterated(ready: Ready) -> None:
    """An application that waits for notices, and does nothing else."""
    with Kind.TCP6.open() as sock:
        ready(exchange(sock, Kind.TCP6).seen)
        for told in client.notices(sock):
            ready(told)
        ready("none of ours")


def test_T4_nothing_is_missed_when_the_agent_dies_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end wakes who watches; what another agent does then, too."""
    with World(tmp_path, STANDARD) as world:
        monkeypatch.setenv("ODM_WAIT_SOCKET", str(world.agent.wait_socket))
        with world.place("session").conversation(_iterated) as talk:
            held = talk.hear()
            assert talk.hear().state is AddressState.PREFERRED
            world.agent.sigkill()
            kept = [each for each in PREFIXES if each is not prefix_of(SESSION, Family.IPV6)]
            world.agent.configure(replace(STANDARD, prefixes=kept))
            world.agent.start()
            told = talk.hear(20)
            while told.state is AddressState.DEPRECATED:  # on the way there
                told = talk.hear(20)
            assert (told.state, str(told.address)) == (AddressState.OVER, held)
            world.agent.configure(STANDARD)
            assert world.agent.reload().returncode == 0
            while told.state is not AddressState.PREFERRED:
                told = talk.hear(20)
            assert str(told.address) == held
            classes = {k: v for k, v in STANDARD.classes.items() if k != "session"}
            world.agent.configure(replace(STANDARD, classes=classes))
            assert world.agent.reload().returncode == 0
            assert talk.hear(20) == "none of ours"


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP4)
def test_T4_an_uplink_of_others_tells_who_wants_its_type(tmp_path: Path, kind: Kind) -> None:
    """Its address is everybody's: to others it is none of ours."""
    with uplinked(tmp_path, {"wifi": WIFI}) as world:
        with world.place("brief").conversation(_holder(kind, AddressType.UNSPECIFIED)) as talk:
            told = _until(talk, AddressState.PREFERRED) if talk.hear() else None
            assert told is not None and str(told.address) == host("B", kind.family)
            assert told.type is NONPERSISTENT
            addresses = world.site.host.ip("-o", f"-{kind.family.value}", "address", "show", "w1")
            length = int(addresses.split(f"{told.address}/")[1].split()[0])
            world.site.host.ip("address", "del", f"{told.address}/{length}", "dev", "w1")
            _until(talk, AddressState.OVER)

        def bound() -> bool:
            with kind.open() as sock:
                sock.bind((kind.wildcard, 0))
                return client.notice(sock) is None

        assert world.place("may").do(bound)
