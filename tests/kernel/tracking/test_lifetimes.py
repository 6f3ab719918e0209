"""From when to when a socket holds its address, in every way that a socket can end."""

import os
import signal
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

import pytest

from odm_agent.core.model import Family
from odm_agent.kernel.sock_diag import sockets
from tests.kernel.tracking.conftest import routed
from tests.lab.cases import each_kind
from tests.lab.client import Kind, ask, disconnect, exchange, outcome
from tests.lab.counts import listed, settles_at, total
from tests.lab.host import CORRESPONDENT, FIXED, NONPERSISTENT, SESSION
from tests.lab.netns import checked
from tests.lab.place import Ready
from tests.lab.world import World

_STREAMS: Final = (Kind.TCP6, Kind.TCP4)
_TCP: Final = (*_STREAMS, Kind.TCP_MAPPED)
_SERVER_PORT: Final = 26500
_REFUSING: Final = 26501


def _during(world: World, place: str, setup: Callable[[ExitStack], object]) -> int:
    """How many sockets count while an application of a class holds what `setup` has opened."""

    def application(ready: Ready) -> None:
        with ExitStack() as stack:
            setup(stack)
            ready(None)
            signal.pause()

    with world.place(place).background(application):
        return total(world.agent)


@pytest.mark.parametrize("place", ["counted", "every"])
@each_kind()
def test_a_socket_counts_from_its_first_use_to_its_end(
    tracked: World, kind: Kind, place: str
) -> None:
    """By its class's caps, or since it asked for a type itself."""

    def setup(stack: ExitStack) -> None:
        for _ in range(3):
            sock = stack.enter_context(kind.open())
            if place == "every":
                ask(sock, FIXED)
            exchange(sock, kind)

    assert _during(tracked, place, setup) == 3
    settles_at(tracked.agent, 0)


@each_kind()
def test_nobody_else_is_counted(tracked: World, kind: Kind) -> None:
    def setup(stack: ExitStack) -> None:
        exchange(stack.enter_context(kind.open()), kind)

    for place in ("fixed", "plain", "choosy", "nothing"):
        assert _during(tracked, place, setup) == 0


@each_kind(*_TCP, Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED)
def test_sockets_that_are_only_bound(tracked: World, kind: Kind) -> None:
    """sock_diag lists no TCP socket that is only bound."""
    address = kind.spell(tracked.address(FIXED, kind.family))

    def setup(stack: ExitStack) -> None:
        for _ in range(2):
            stack.enter_context(kind.open()).bind((address, 0))

    assert _during(tracked, "counted", setup) == 2


@each_kind(*_STREAMS)
@pytest.mark.parametrize("typed", [True, False], ids=["typed-listener", "wildcard-listener"])
def test_accepted_sockets_count_one_by_one(tracked: World, kind: Kind, typed: bool) -> None:
    address = tracked.address(FIXED, kind.family)

    def application(ready: Ready) -> None:
        with kind.open() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address if typed else kind.wildcard, _SERVER_PORT))
            listener.listen(8)
            ready(None)
            streams = [listener.accept()[0] for _ in range(3)]
            listener.close()
            streams.pop().close()
            signal.pause()

    own = int(typed)
    with tracked.place("counted").background(application):
        assert total(tracked.agent) == own, "a wildcard listener holds no address"
        with ExitStack() as stack:
            for number in range(3):
                caller = tracked.site.c.call(socket.socket, kind.af, socket.SOCK_STREAM)
                stack.enter_context(caller).connect((address, _SERVER_PORT))
                if number < 2:
                    settles_at(tracked.agent, own + number + 1)
            settles_at(tracked.agent, 3 - 1)  # the listener and one stream are closed


@each_kind(*_STREAMS)
def test_a_child_that_nobody_accepts_ends_with_its_listener(tracked: World, kind: Kind) -> None:
    address = tracked.address(FIXED, kind.family)

    def application(ready: Ready) -> None:
        with kind.open() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((address, _SERVER_PORT))
            listener.listen(8)
            ready(None)
            signal.sigwait([signal.SIGUSR1])
        signal.pause()

    with tracked.place("counted").background(_blocking_usr1(application)) as pid:
        callers = [tracked.site.c.call(socket.socket, kind.af) for _ in range(3)]
        for caller in callers:
            caller.connect((address, _SERVER_PORT))
        settles_at(tracked.agent, 4)
        os.kill(pid, signal.SIGUSR1)
        settles_at(tracked.agent, 0)
        for caller in callers:
            caller.close()


def _blocking_usr1(application: Callable[[Ready], None]) -> Callable[[Ready], None]:
    """The application with SIGUSR1 kept for sigwait; what it says when ready is its pid."""

    def blocking(ready: Ready) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        application(lambda _: ready(os.getpid()))

    return blocking


@each_kind(*_STREAMS, Kind.UDP6, Kind.UDP4)
def test_a_shared_descriptor_counts_once_until_the_last_is_closed(
    tracked: World, kind: Kind
) -> None:
    def application(ready: Ready) -> None:
        sock = kind.open()
        exchange(sock, kind)
        if os.fork() == 0:
            signal.alarm(20)
            signal.sigwait([signal.SIGUSR1])
            os._exit(0)  # the last descriptor
        sock.close()
        ready(None)
        os.waitpid(-1, 0)
        signal.pause()

    with tracked.place("counted").background(_blocking_usr1(application)):
        assert total(tracked.agent) == 1
        (tracked.place("counted").cgroup.path / "cgroup.kill").write_text("1")
        settles_at(tracked.agent, 0)


@each_kind(*_STREAMS, Kind.UDP6)
def test_a_socket_that_waits_in_a_queue_of_descriptors_counts(tracked: World, kind: Kind) -> None:
    def setup(stack: ExitStack) -> None:
        here, there = socket.socketpair()
        stack.enter_context(here)
        stack.enter_context(there)
        sock = kind.open()
        exchange(sock, kind)
        socket.send_fds(here, [b"x"], [sock.fileno()])
        sock.close()

    assert _during(tracked, "counted", setup) == 1


@each_kind(*_TCP)
def test_unsent_data_outlives_the_process(tracked: World, kind: Kind) -> None:
    """After close() the kernel goes on sending from the address, so it goes on counting."""
    with tracked.site.c.call(socket.socket, kind.af if not kind.mapped else socket.AF_INET) as sink:
        sink.bind((CORRESPONDENT[kind.family], 0))
        sink.listen(1)
        to = (kind.spell(CORRESPONDENT[kind.family]), sink.getsockname()[1])

        def application() -> None:
            with kind.open() as sock:
                sock.connect(to)
                sock.setblocking(False)
                with pytest.raises(BlockingIOError):
                    while True:
                        sock.send(bytes(65536))

        tracked.place("counted").do(application)
        assert total(tracked.agent) == 1
        left = listed(tracked.agent, lambda info: info.remote_port == to[1])
        assert [info.state for info in left] == ["FIN-WAIT-1"]
        assert left[0].inode == 0, "no process holds it"
    settles_at(tracked.agent, 0)  # the sink is closed with data unread: a RST


@each_kind(*_STREAMS)
def test_time_wait_does_not_count(tracked: World, kind: Kind) -> None:
    tracked.place("counted").do(lambda: _opened_and_closed(kind))
    waiting = [
        info
        for info in tracked.site.host.call(sockets)
        if info.state == "TIME-WAIT" and info.remote_port == kind.port
    ]
    assert waiting
    settles_at(tracked.agent, 0)


def _opened_and_closed(kind: Kind) -> None:
    with kind.open() as sock:
        exchange(sock, kind)


@each_kind(*_STREAMS)
def test_a_refused_connection_does_not_count(tracked: World, kind: Kind) -> None:
    def setup(stack: ExitStack) -> None:
        sock = stack.enter_context(kind.open())
        told = outcome(lambda: sock.connect((CORRESPONDENT[kind.family], _REFUSING)))
        assert told == "ECONNREFUSED"

    assert _during(tracked, "counted", setup) == 0


@each_kind(*_STREAMS)
@pytest.mark.parametrize("end", ["refused", "dissolved"])
def test_what_was_bound_outlives_its_connection(tracked: World, kind: Kind, end: str) -> None:
    address = tracked.address(FIXED, kind.family)

    def setup(stack: ExitStack) -> None:
        sock = stack.enter_context(kind.open())
        sock.bind((address, 0))
        if end == "refused":
            outcome(lambda: sock.connect((CORRESPONDENT[kind.family], _REFUSING)))
        else:
            exchange(sock, kind)
            disconnect(sock)
        assert sock.getsockname()[0] == address

    assert _during(tracked, "counted", setup) == 1


@each_kind(*_STREAMS)
def test_linger_shutdown_and_destruction(tracked: World, kind: Kind) -> None:
    def reset() -> None:
        with kind.open() as sock:
            exchange(sock, kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    tracked.place("counted").do(reset)
    assert total(tracked.agent) == 0

    def shut(stack: ExitStack) -> None:
        sock = stack.enter_context(kind.open())
        exchange(sock, kind)
        sock.shutdown(socket.SHUT_RDWR)
        sock.recv(1)  # the correspondent's end has come: the connection is over

    assert _during(tracked, "counted", shut) == 0

    def application(ready: Ready) -> None:
        with kind.open() as sock:
            exchange(sock, kind)
            ready(sock.getsockname()[1])
            signal.pause()

    with tracked.place("counted").background(application) as port:
        assert total(tracked.agent) == 1
        checked(tracked.site.host.command(["ss", "-K", "sport", "=", str(port)]))
        settles_at(tracked.agent, 0)


@each_kind(*_STREAMS, Kind.UDP6, Kind.UDP4)
def test_a_socket_that_connects_anew_counts_once(tracked: World, kind: Kind) -> None:
    def setup(stack: ExitStack) -> None:
        sock = stack.enter_context(kind.open())
        for _ in range(3):
            sock.connect(kind.destination)
            disconnect(sock)
        sock.connect(kind.destination)

    assert _during(tracked, "counted", setup) == 1


@each_kind(Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED)
def test_a_udp_socket_that_turns_to_the_host_itself_holds_nothing(
    tracked: World, kind: Kind
) -> None:
    """A resolver library asks many in turn by one socket; loopback needs no typed address."""
    loopback = kind.spell("::1" if kind.family is Family.IPV6 else "127.0.0.1")

    def setup(stack: ExitStack) -> None:
        sock = stack.enter_context(kind.open())
        sock.connect(kind.destination)
        disconnect(sock)
        sock.connect((loopback, 9))

    assert _during(tracked, "counted", setup) == 0


@each_kind(Kind.SENDTO6, Kind.SENDTO4)
def test_the_type_that_a_socket_asks_for_next_is_what_it_counts_for(
    tracked: World, kind: Kind
) -> None:
    def setup(stack: ExitStack) -> None:
        sock = stack.enter_context(kind.open())
        for type_ in (SESSION, FIXED, NONPERSISTENT):
            ask(sock, type_)
            exchange(sock, kind)

    def application(ready: Ready) -> None:
        with ExitStack() as stack:
            setup(stack)
            ready(None)
            signal.pause()

    with tracked.place("every").background(application):
        assert total(tracked.agent) == 1
        (row,) = [view for view in tracked.agent.read("classes") if view["name"] == "every"]
        assert row["sockets"] == 1
        counted = {
            view["type"]: view["sockets"]
            for view in tracked.agent.read("addresses")
            if view["family"] == f"ipv{kind.family.value}"
        }
        assert counted[NONPERSISTENT.word] == 1
        assert counted[FIXED.word] == counted[SESSION.word] == 0


@each_kind(Kind.UDP6, Kind.UDP4)
def test_a_udp_socket_whose_source_the_kernel_chose_is_found_at_egress(
    tracked: World, kind: Kind
) -> None:

    def setup(stack: ExitStack) -> None:
        stack.enter_context(kind.open()).sendto(b"x", kind.destination)

    with routed(tracked, kind.family):
        assert _during(tracked, "bare", setup) == 1


@each_kind()
def test_killed_processes_leave_nothing(tracked: World, kind: Kind) -> None:
    def setup(stack: ExitStack) -> None:
        for _ in range(20):
            exchange(stack.enter_context(kind.open()), kind)

    assert _during(tracked, "counted", setup) == 20
    settles_at(tracked.agent, 0)


def test_what_the_agent_shows_is_what_there_is(tracked: World) -> None:
    """A known number of each sort: the counts, the census and sock_diag's list side by side."""
    fixed = {family: tracked.address(FIXED, family) for family in Family}

    def setup(stack: ExitStack) -> None:
        for kind in (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4, Kind.SENDTO6):
            for _ in range(4):
                exchange(stack.enter_context(kind.open()), kind)
        for kind in (Kind.TCP6, Kind.TCP4):
            stack.enter_context(kind.open()).bind((fixed[kind.family], 0))
            listener = stack.enter_context(kind.open())
            listener.bind((fixed[kind.family], 0))
            listener.listen(1)

    def application(ready: Ready) -> None:
        with ExitStack() as stack:
            setup(stack)
            ready(None)
            signal.pause()

    with tracked.place("counted").background(application):
        assert total(tracked.agent) == 5 * 4 + 4
        here = {*fixed.values()}
        shown = listed(tracked.agent, lambda info: str(info.local) in here)
        # Not listed, or by newer kernels only: two TCP sockets that are only bound. Unconnected UDP
        # is listed, but without its address.
        bound = [info for info in shown if (info.protocol, info.state) == ("tcp", "UNCONN")]
        assert len(shown) - len(bound) == 4 * 4 + 2
        types = [v["type"] for v in tracked.agent.read("sockets") if v["class"] == "counted"]
        assert types.count("fixed") >= len(shown)
        (row,) = [view for view in tracked.agent.read("classes") if view["name"] == "counted"]
        assert row["caps"][0] == {
            "type": "fixed",
            "live": 24,
            "sockets": 1_000_000,
            "requests_per_minute": None,
        }
        metric = 'odm_sockets{class="counted",counted="kernel",family="ipv6",type="fixed"} 14.0'
        assert metric in tracked.agent.metrics()
