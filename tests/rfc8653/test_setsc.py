"""S3, S4: setsc() asks, waits, and tells the address that is used; in C and Python."""

import asyncio
import errno
import os
import socket
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Final

import pytest

from odm_agent import client
from odm_agent.core.model import AddressType, Family
from tests.lab.asking import CLASSES, AskingWorld, granted, refused
from tests.lab.client import Kind, ask, asked, exchange
from tests.lab.host import FIXED, NONPERSISTENT, SESSION, prefix_of, type_of
from tests.lab.process import wait_until

_HEADERS: Final = Path(__file__).parents[2] / "bpf" / "uapi"
_KINDS: Final = [
    *(Kind.TCP6, Kind.TCP4, Kind.MPTCP6, Kind.UDP6, Kind.UDP4, Kind.SENDTO6, Kind.SENDTO4)
]
#: Long enough for any machine.
_PATIENCE_S: Final = 60.0
_PROGRAM: Final = """
#include "odm.h"
#include <arpa/inet.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    struct in6_addr source = IN6ADDR_ANY_INIT;
    char text[INET6_ADDRSTRLEN];
    int family = atoi(argv[1]), type = atoi(argv[2]), code, fd;

    (void)argc;
    fd = socket(family == 6 ? AF_INET6 : AF_INET, SOCK_STREAM, 0);
    errno = 0;
    code = argv[3] ? odm_setsc(fd, type, atoi(argv[3]), &source) : setsc(fd, &source, type);
    printf("%s %d %s\\n",
           code == EAI_REQUIREDIPNOTSUPPORTED ? "unsupported" :
           code == EAI_REQUIREDIPFAILED      ? "failed" :
           code == EAI_SYSTEM          ? "system" : "ok",
           code ? errno : 0, inet_ntop(AF_INET6, &source, text, sizeof(text)));
    return 0;
}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskingWorld]:
    """A network that has nothing yet."""
    with AskingWorld(tmp_path_factory.mktemp("setsc")) as made:
        yield made


@pytest.fixture
def world(shared: AskingWorld) -> Iterator[AskingWorld]:
    """Nothing was given, and in the end nothing is."""
    shared.told()
    os.environ["ODM_WAIT_SOCKET"] = str(shared.agent.wait_socket)
    yield shared
    del os.environ["ODM_WAIT_SOCKET"]
    shared.script()
    shared.withdraw()


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C program that says what setsc() answered: FAMILY TYPE [MILLISECONDS]."""
    folder = tmp_path_factory.mktemp("setsc-c")
    source, made = folder / "setsc.c", folder / "setsc"
    source.write_text(_PROGRAM)
    strict = ["-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{_HEADERS}"]
    subprocess.run(
        ["cc", "-std=c99", "-D_POSIX_C_SOURCE=200809L", *strict, "-o", made, source], check=True
    )
    return made


def _c(world: AskingWorld, program: Path, *arguments: object, name: str = "asking") -> list[str]:
    done = world.place(name).run([str(program), *map(str, arguments)], timeout_s=_PATIENCE_S)
    return done.stdout.split()


@pytest.mark.parametrize("bound", [False, True], ids=["unbound", "bound"])
@pytest.mark.parametrize("kind", _KINDS, ids=lambda each: each.name)
def test_S3_S4_it_waits_for_the_address_that_is_used(
    world: AskingWorld, kind: Kind, bound: bool
) -> None:
    """It requests and waits, and then tells what connect() or sendto() use, and bind() takes."""
    world.script(granted(SESSION, kind.family, delay_s=0.5))

    def application() -> tuple[str, str, str]:
        with kind.open() as sock:
            found = client.setsc(sock, SESSION, timeout_s=_PATIENCE_S)
            before = str(ip_address(sock.getsockname()[0]))
            if bound:
                sock.bind((str(found), 0))
            return str(found), before, exchange(sock, kind).seen

    found, before, seen = world.place("asking").do(application, timeout_s=2 * _PATIENCE_S)
    assert found in prefix_of(SESSION, kind.family)
    assert ip_address(before).is_unspecified
    assert seen == found
    assert world.told() == [f"request session-lasting/{kind.family}"]


def test_S3_S4_a_server_listens_on_what_it_was_told(world: AskingWorld) -> None:
    world.script(granted(SESSION, Family.IPV6))

    def application() -> bool:
        with Kind.TCP6.open() as sock:
            found = client.setsc(sock, SESSION, timeout_s=_PATIENCE_S)
            sock.bind((str(found), 0))
            sock.listen()
            return bool(sock.getsockname()[0] == str(found))

    assert world.place("asking").do(application, timeout_s=2 * _PATIENCE_S)


@pytest.mark.parametrize("kind", _KINDS, ids=lambda each: each.name)
def test_S3_what_is_there_costs_no_word_with_the_agent(world: AskingWorld, kind: Kind) -> None:
    """The kernel tells it. The agent's socket is not even there."""
    os.environ["ODM_WAIT_SOCKET"] = "/nonexistent"

    def application() -> tuple[str, str]:
        with kind.open() as sock:
            found = client.setsc(sock, FIXED, timeout_s=0.0)
            return str(found), exchange(sock, kind).seen

    found, seen = world.place("asking").do(application)
    assert found == seen and found in prefix_of(FIXED, kind.family)


def test_S3_who_can_not_reach_the_agent_waits_all_the_same(world: AskingWorld) -> None:
    os.environ["ODM_WAIT_SOCKET"] = "/nonexistent"
    world.script(granted(SESSION, Family.IPV6, delay_s=0.5))

    def application() -> str:
        with Kind.TCP6.open() as sock:
            return str(client.setsc(sock, SESSION, timeout_s=_PATIENCE_S))

    found = world.place("asking").do(application, timeout_s=2 * _PATIENCE_S)
    assert found in prefix_of(SESSION, Family.IPV6)


def test_S3_a_socket_that_has_an_address_is_told_that_one(world: AskingWorld) -> None:
    def application() -> bool:
        with Kind.TCP6.open() as sock:
            client.set_type(sock, FIXED)
            seen = exchange(sock, Kind.TCP6).seen
            return str(client.setsc(sock, FIXED, timeout_s=0.0)) == seen

    assert world.place("asking").do(application)


@pytest.mark.parametrize(
    ("said", "type_", "kind"),
    [
        ("refused", NONPERSISTENT, Kind.TCP6),
        ("unsupported", NONPERSISTENT, Kind.TCP4),
        ("timed-out", SESSION, Kind.TCP4),
    ],
    ids=lambda each: each if isinstance(each, str) else each.name,
)
def test_D3_S3_a_failure_is_told_with_its_cause(
    world: AskingWorld, said: str, type_: AddressType, kind: Kind
) -> None:
    """Each by another want: what has failed is not tried again for a second."""
    cause = f"the network said {said}"
    world.script(refused(type_, kind.family, cause, said, delay_s=0.2))

    def application() -> tuple[int | None, str, bool]:
        with kind.open() as sock:
            try:
                client.setsc(sock, type_, timeout_s=_PATIENCE_S)
            except client.RequestFailed as error:
                told = error.errno, error.strerror or "", error.unsupported
                assert not client.get_type(sock)
                assert type_of(exchange(sock, kind).seen) is AddressType.UNSPECIFIED
                return told
            return None, "", False

    failed = world.place("asking").do(application, timeout_s=2 * _PATIENCE_S)
    assert failed == (errno.EADDRNOTAVAIL, cause, said == "unsupported")


def test_S3_it_takes_no_longer_than_it_may_and_leaves_the_option_as_it_was(
    world: AskingWorld,
) -> None:
    """What was asked for before included, with the preferences of RFC 5014.

    The request goes on, for the next one who asks; its answer is waited for.
    """

    def application() -> tuple[str, bool]:
        with Kind.TCP6.open() as sock:
            ask(sock, FIXED)
            sock.setsockopt(socket.IPPROTO_IPV6, client.SOCKOPT, 2)
            before = asked(sock)
            try:
                return str(client.setsc(sock, SESSION, timeout_s=0.3)), False
            except TimeoutError as error:
                return errno.errorcode[error.errno or 0], asked(sock) == before

    world.script(granted(SESSION, Family.IPV6, delay_s=2.0))
    assert world.place("asking").do(application) == ("ETIMEDOUT", True)
    configured = len(world.agent.settings.prefixes)
    wait_until(lambda: len(world.agent.read("prefixes")) > configured, "it comes", _PATIENCE_S)


def test_S3_A1_who_may_not_is_told_at_once(world: AskingWorld, program: Path) -> None:
    def application() -> str:
        with Kind.TCP6.open() as sock:
            try:
                return str(client.setsc(sock, SESSION, timeout_s=_PATIENCE_S))
            except PermissionError as error:
                return errno.errorcode[error.errno or 0]

    assert world.place("fixed").do(application) == "EACCES"
    said = _c(world, program, 6, int(SESSION), name="fixed")
    assert said == ["failed", str(errno.EACCES), "::"]
    assert world.told() == []


def test_S8_without_an_agent_it_is_not_supported(program: Path) -> None:
    done = subprocess.run([program, "6", "2"], capture_output=True, text=True, timeout=30)
    assert done.stdout.split() == ["unsupported", str(errno.ENOTSUP), "::"]
    with Kind.TCP6.open() as sock, pytest.raises(client.NotSupported):
        client.setsc(sock, SESSION)


def test_S3_in_c(world: AskingWorld, program: Path) -> None:
    """Waits, is told of failures, and ends in time."""
    world.script(
        granted(SESSION, Family.IPV6, delay_s=0.5),
        refused(NONPERSISTENT, Family.IPV6, "none", delay_s=0.2),
        refused(NONPERSISTENT, Family.IPV4, "nobody", "unsupported", delay_s=0.2),
    )
    word, code, address = _c(world, program, 6, int(SESSION))
    assert (word, code) == ("ok", "0") and address in prefix_of(SESSION, Family.IPV6)
    assert _c(world, program, 6, int(SESSION), 0) == ["ok", "0", address]
    word, code, address = _c(world, program, 4, int(FIXED))
    assert (word, code) == ("ok", "0")
    assert address.removeprefix("::ffff:") in prefix_of(FIXED, Family.IPV4)
    unavailable = str(errno.EADDRNOTAVAIL)
    said = _c(world, program, 6, int(NONPERSISTENT), 60_000)
    assert said == ["failed", unavailable, "::"]
    said = _c(world, program, 4, int(NONPERSISTENT), 60_000)
    assert said == ["unsupported", unavailable, "::"]
    said = _c(world, program, 4, int(SESSION), 300)
    assert said == ["failed", str(errno.ETIMEDOUT), "::"]
    assert _c(world, program, 6, 9) == ["system", str(errno.EINVAL), "::"]


def test_S3_a_thousand_who_wait_make_one_request_and_are_all_answered(world: AskingWorld) -> None:
    world.script(granted(SESSION, Family.IPV6, delay_s=2.0))

    async def everybody() -> int:
        sockets = [socket.socket(socket.AF_INET6, socket.SOCK_STREAM) for _ in range(1000)]
        waiting = (client.setsc_async(sock, SESSION, timeout_s=_PATIENCE_S) for sock in sockets)
        found = await asyncio.gather(*waiting)
        for sock in sockets:
            sock.close()
        return len(found) if len(set(found)) == 1 else 0

    def application() -> int:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        return asyncio.run(everybody())

    assert world.place("asking").do(application, timeout_s=2 * _PATIENCE_S) == 1000
    assert world.told() == ["request session-lasting/6"]


def test_S3_a_command_can_be_started_when_its_address_is_there(world: AskingWorld) -> None:
    """`odm-agent exec --wait`; what does not come starts nothing."""
    world.script(
        granted(SESSION, Family.IPV6, delay_s=0.5),
        refused(NONPERSISTENT, Family.IPV6, "no prefix is left"),
        refused(NONPERSISTENT, Family.IPV4, "no prefix is left"),
    )
    options = ["exec", "--socket", str(world.agent.socket), "--class", "asking"]
    done = world.agent.call(*options, "--type", "session-lasting", "--wait", "60", "--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert "request session-lasting/6" in world.told()
    done = world.agent.call(*options, "--type", "nonpersistent", "--wait", "60", "--", "true")
    assert done.returncode == 1 and "there is no nonpersistent address: IPv6: " in done.stderr
    done = world.agent.call(*options, "--wait", "5", "--", "true")
    assert done.returncode == 1 and "no default type" in done.stderr


assert CLASSES["asking"].allow == (FIXED, SESSION, AddressType.NONPERSISTENT)
