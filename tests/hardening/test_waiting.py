"""The waiting socket is everybody's: it serves who is shut up with nothing else, and no stranger
makes the agent request anything there, or holds it up.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from odm_agent.control import watchers
from odm_agent.control.client import ControlClient
from odm_agent.control.wait_caller import ANSWER, MAGIC, REQUEST, WATCH, Said
from odm_agent.control.wait_server import MOST_OF_USER
from odm_agent.core.model import Family
from tests.lab.asking import CLASSES, AskingWorld, granted
from tests.lab.host import SESSION, prefix_of
from tests.lab.world import STANDARD

_HEADERS: Final = Path(__file__).parents[2] / "bpf" / "uapi"
_NOBODY: Final = 65534
_PROGRAM: Final = """
#include "odm.h"
#include <arpa/inet.h>
#include <stdio.h>
int main(void)
{
    struct in6_addr source;
    char text[INET6_ADDRSTRLEN];
    int fd = socket(AF_INET6, SOCK_STREAM, 0);
    int code = odm_setsc(fd, SESSION_LASTING_IP_ADDRESS, 60000, &source);

    printf("%d %s\\n", code, code ? "" : inet_ntop(AF_INET6, &source, text, sizeof(text)));
    return 0;
}
"""
#: Waits at nothing but the descriptor until its socket has something to count with.
_WATCHER: Final = """
#include "odm.h"
#include <arpa/inet.h>
#include <stdio.h>
int main(void)
{
    struct odm_address_notice notice;
    char text[INET6_ADDRSTRLEN];
    int fd = socket(AF_INET6, SOCK_STREAM, 0), watch = odm_watch();
    struct pollfd poller = { watch, POLLIN, 0 };

    if (watch == -1 || odm_set_type(fd, SESSION_LASTING_IP_ADDRESS))
        return 1;
    while (poll(&poller, 1, 60000) == 1 && odm_watched(watch) && odm_notice(fd, &notice) == 1) {
        if (!IN6_IS_ADDR_UNSPECIFIED(&notice.successor))
            return puts(inet_ntop(AF_INET6, &notice.successor, text, sizeof(text))) < 0;
        puts("unbound");
        fflush(stdout);
    }
    return 2;
}
"""
#: A root with nothing of the host but the program, libraries and the folder to wait in. Without the
#: pins that other tests hide where they are.
_SANDBOX: Final = """
umount --lazy --all --types bpf &&
mount -t tmpfs none /mnt && cp {program} /mnt/program && mkdir /mnt/odm &&
mount --bind {folder} /mnt/odm && mount -t tmpfs none /tmp && mount -t tmpfs none /run &&
umount -l /sys && exec env -i ODM_WAIT_SOCKET=/mnt/odm/wait.sock setpriv --reuid=65534 \
--regid=65534 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all /mnt/program
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AskingWorld]:
    """One whose folder to wait in others can reach."""
    reached = Path(tempfile.mkdtemp(prefix="odm-test-wait-"))
    reached.chmod(0o755)
    path = reached / "wait" / "wait.sock"
    settings = replace(STANDARD, classes=CLASSES, agent={"wait_socket": str(path)})
    try:
        with AskingWorld(tmp_path_factory.mktemp("waiting"), settings) as made:
            made.agent.wait_socket = path
            yield made
    finally:
        shutil.rmtree(reached)


def _alive(world: AskingWorld) -> None:
    """The agent answers who controls it, and who knows no ticket, at once."""
    with ControlClient(world.agent.socket, timeout_s=30) as client:
        assert client.call("status")["pid"]
    assert _ask(world, 1) is Said.UNKNOWN


def _ask(world: AskingWorld, ticket: int) -> Said:
    with socket.socket(socket.AF_UNIX) as agent:
        agent.settimeout(30)
        agent.connect(str(world.agent.wait_socket))
        agent.sendall(REQUEST.pack(MAGIC, 1000, ticket))
        return Said(ANSWER.unpack(agent.recv(ANSWER.size))[0])


def test_S3_a_sandbox_reaches_nothing_but_the_folder_to_wait_in(
    world: AskingWorld, tmp_path: Path
) -> None:
    source, program = tmp_path / "waits.c", tmp_path / "waits"
    source.write_text(_PROGRAM)
    subprocess.run(["cc", "-Wall", "-Werror", f"-I{_HEADERS}", "-o", program, source], check=True)
    world.script(granted(SESSION, Family.IPV6, delay_s=0.5))
    script = _SANDBOX.format(program=program, folder=world.agent.wait_socket.parent)
    done = world.place("asking").run(["unshare", "--mount", "sh", "-c", script], timeout_s=90)
    code, address = done.stdout.split()
    assert code == "0", done.stderr
    assert address in prefix_of(SESSION, Family.IPV6)
    world.script()
    world.withdraw()


def test_S7_nobody_makes_the_agent_request_anything_by_talking(world: AskingWorld) -> None:
    """Numbers that look like tickets, in every class and of every type."""
    world.told()
    for class_id in range(8):
        for type_ in range(8):
            for family in range(2):
                for turn in range(3):
                    ticket = class_id << 56 | type_ << 53 | family << 52 | turn << 32 | 7
                    assert _ask(world, ticket) is Said.UNKNOWN
    time.sleep(0.3)
    assert world.told() == []
    _alive(world)


def test_who_says_nothing_half_or_too_much_holds_nobody_up(world: AskingWorld) -> None:
    with ExitStack() as stack:
        for said in (
            *(b"", b"ODM", os.urandom(16), os.urandom(4096), MAGIC + bytes(11)),
            *(WATCH, WATCH + bytes(11), WATCH + os.urandom(12), WATCH + os.urandom(4096)),
        ) * 20:
            agent = stack.enter_context(socket.socket(socket.AF_UNIX))
            agent.connect(str(world.agent.wait_socket))
            with suppress(OSError):
                agent.sendall(said)
        _alive(world)
    _alive(world)


def test_one_user_takes_no_more_than_his_share(world: AskingWorld) -> None:
    path = str(world.agent.wait_socket)

    def crowd() -> int:
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
        held = []
        busy = 0
        for _ in range(MOST_OF_USER + 200):
            agent = socket.socket(socket.AF_UNIX)
            agent.settimeout(30)
            agent.connect(path)
            held.append(agent)
        for agent in held[-100:]:
            busy += agent.recv(ANSWER.size)[:1] == bytes([Said.BUSY])
        return busy

    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            os.setuid(_NOBODY)
            busy = crowd()
            os.kill(os.getpid(), signal.SIGSTOP)  # it holds what it has, and does nothing
            os._exit(0 if busy == 100 else 1)
        os._exit(2)
    try:
        _, status = os.waitpid(pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        _alive(world)
    finally:
        os.kill(pid, signal.SIGCONT)
        _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    _alive(world)


def test_S7_a_crowd_that_watches_and_reads_nothing_takes_its_share_and_holds_nobody_up(
    world: AskingWorld,
) -> None:
    """And nothing is requested for it."""
    world.told()
    path = str(world.agent.wait_socket)
    with ExitStack() as stack:
        busy = 0
        held = []
        for _ in range(watchers.MOST_OF_USER + 50):
            agent = stack.enter_context(socket.socket(socket.AF_UNIX))
            agent.settimeout(30)
            agent.connect(path)
            agent.sendall(REQUEST.pack(WATCH, 0, 0))
            held.append(agent)
        for agent in held:
            busy += agent.recv(ANSWER.size)[:1] == bytes([Said.BUSY])
        assert busy == 50
        for _ in range(3):
            _alive(world)
            world.script(granted(SESSION, Family.IPV6))
            assert world.place("asking").do(_seen, timeout_s=60)
            world.script()
            world.withdraw()
        _alive(world)
        for agent in held[:10]:
            assert len(agent.recv(4096)) == ANSWER.size
    _alive(world)
    assert set(world.told()) <= {"request session-lasting/6"}


def _seen() -> bool:
    from odm_agent import client

    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
        return bool(client.setsc(sock, SESSION, timeout_s=30))


def test_T4_a_sandbox_that_reaches_only_the_folder_is_woken(
    world: AskingWorld, tmp_path: Path
) -> None:
    source, program = tmp_path / "watches.c", tmp_path / "watches"
    source.write_text(_WATCHER)
    subprocess.run(["cc", "-Wall", "-Werror", f"-I{_HEADERS}", "-o", program, source], check=True)
    world.script(granted(SESSION, Family.IPV6))
    script = _SANDBOX.format(program=program, folder=world.agent.wait_socket.parent)
    place = world.place("asking")
    with place.spawn(
        ["unshare", "--mount", "sh", "-c", script], stdout=subprocess.PIPE
    ) as application:
        try:
            assert application.stdout is not None
            assert application.stdout.readline() == "unbound\n"
            assert place.do(_seen, timeout_s=60)
            while (told := application.stdout.readline().strip()) == "unbound":
                pass  # woken by a step on the way there
            assert told in prefix_of(SESSION, Family.IPV6)
        finally:
            application.kill()
    world.script()
    world.withdraw()


def test_a_loop_of_callers_who_go_at_once_makes_one_request(world: AskingWorld) -> None:
    """By a ticket of their own, for what the network does not give."""
    world.told()
    path = world.agent.wait_socket

    def loop() -> int:
        from odm_agent import client, waiting

        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            client.set_type(sock, SESSION)
            found = waiting.prospect(sock, client.SOCKOPT)
            assert found is not None and found.ticket
            for _ in range(500):
                with socket.socket(socket.AF_UNIX) as agent:
                    agent.connect(str(path))
                    agent.sendall(REQUEST.pack(MAGIC, 60_000, found.ticket))
        return found.ticket

    assert world.place("asking").do(loop, timeout_s=60)
    _alive(world)
    assert world.told() == ["request session-lasting/6"]
