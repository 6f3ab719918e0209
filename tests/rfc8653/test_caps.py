"""A2: no application exhausts a limited type: caps of a class on live sockets and on requests."""

import mmap
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Final

import pytest

from odm_agent.core.model import TYPES, AddressType
from tests.lab.agent import LabClass, Settings
from tests.lab.cases import each_kind
from tests.lab.client import IPV6_ADDR_PREFERENCES, TYPE_SHIFT, Kind, ask, exchange, outcome
from tests.lab.counts import settles_at, total
from tests.lab.host import FIXED, NONPERSISTENT, SESSION, type_of
from tests.lab.metrics import verdicts
from tests.lab.place import Ready
from tests.lab.process import in_step
from tests.lab.world import CLASSES, STANDARD, World

_THREE: Final = {FIXED: {"sockets": 3}}
_SETTINGS: Final[Settings] = replace(
    STANDARD,
    classes={
        **CLASSES,
        "three": LabClass(allow=TYPES, default=FIXED, caps=_THREE),
        "asking": LabClass(allow=TYPES, caps={FIXED: {"sockets": 3}, SESSION: {"sockets": 1}}),
        "single": LabClass(allow=TYPES, default=FIXED, caps={FIXED: {"sockets": 1}}),
        "audited3": LabClass(allow=TYPES, default=FIXED, caps=_THREE, mode="audit"),
        "off3": LabClass(allow=TYPES, default=FIXED, caps=_THREE, mode="off"),
        "rated": LabClass(allow=(FIXED,), caps={FIXED: {"requests_per_minute": 60}}),
        "generous": LabClass(
            allow=(FIXED, NONPERSISTENT),
            default=NONPERSISTENT,
            caps={NONPERSISTENT: {"requests_per_minute": 60}, FIXED: {"requests_per_minute": 1}},
        ),
        "trickle": LabClass(allow=(FIXED,), caps={FIXED: {"requests_per_minute": 2}}),
    },
)
_STREAMS: Final = (Kind.TCP6, Kind.TCP4)
_PORT: Final = 26700
#: Longer than a fast answer takes, shorter than the kernel's first retransmission (1 s).
_SHORT_S: Final = 0.4


@pytest.fixture(scope="module")
def capped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world whose classes have caps."""
    with World(tmp_path_factory.mktemp("capped"), _SETTINGS) as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_left(capped: World) -> Iterator[None]:
    """Every test begins and ends with all places free."""
    settles_at(capped.agent, 0)
    yield
    settles_at(capped.agent, 0, timeout_s=10)


def _told(kind: Kind, count: int, type: AddressType | None, stack: ExitStack) -> list[str]:
    """What `count` sockets are told that stay open in `stack`."""
    told = []
    for _ in range(count):
        sock = stack.enter_context(kind.open())

        def use(sock: socket.socket = sock) -> None:
            if type:
                ask(sock, type)
            exchange(sock, kind)

        told.append(outcome(use))
    return told


@pytest.mark.parametrize("place", ["three", "asking"])
@each_kind()
def test_A2_sockets_over_the_cap_are_EDQUOT_until_a_place_is_free(
    capped: World, kind: Kind, place: str
) -> None:
    type = FIXED if place == "asking" else None

    def application() -> tuple[list[str], list[str]]:
        with ExitStack() as stack:
            first = _told(kind, 5, type, stack)
        time.sleep(0.3)  # the connections' ends have come and gone
        with ExitStack() as stack:
            return first, _told(kind, 3, type, stack)

    first, again = capped.place(place).do(application)
    assert first == ["ok"] * 3 + ["EDQUOT"] * 2
    assert again == ["ok"] * 3
    assert verdicts(capped, place, type=FIXED) >= 2, "counted, with the reason"


@each_kind(*_STREAMS, Kind.UDP6, Kind.UDP4)
def test_A2_binding_over_the_cap_is_EDQUOT_and_undone(capped: World, kind: Kind) -> None:
    address = capped.address(FIXED, kind.family)

    def application() -> tuple[list[str], str]:
        with ExitStack() as stack:
            sockets = [stack.enter_context(kind.open()) for _ in range(4)]
            told = [outcome(lambda s=s: s.bind((address, 0))) for s in sockets]  # type: ignore[misc]
            return told, str(sockets[3].getsockname()[0])

    told, left = capped.place("three").do(application)
    assert told == ["ok"] * 3 + ["EDQUOT"]
    assert left == kind.wildcard, "the bind has left nothing behind"


@each_kind(Kind.TCP6, Kind.UDP4)
def test_A2_one_class_at_its_cap_leaves_the_others_and_its_other_types_alone(
    capped: World, kind: Kind
) -> None:
    def holder(ready: Ready) -> None:
        with ExitStack() as stack:
            ready(_told(kind, 4, None, stack))
            signal.pause()

    with capped.place("three").background(holder) as told:
        assert told == ["ok"] * 3 + ["EDQUOT"]

        def other(type: AddressType | None) -> tuple[str, str]:
            with kind.open() as sock:
                if type:
                    ask(sock, type)
                seen = exchange(sock, kind).seen
                return type_of(seen).word, seen

        for place in ("fixed", "asking", "every"):
            asked = None if place == "fixed" else FIXED
            assert capped.place(place).do(lambda asked=asked: other(asked))[0] == "fixed"  # type: ignore[misc]
        assert capped.place("three").do(lambda: other(SESSION))[0] == "session-lasting"
        assert capped.place("plain").do(lambda: other(None))[0] == "unspecified"


@each_kind(*_STREAMS)
def test_A2_a_listener_at_the_cap_answers_nobody(capped: World, kind: Kind) -> None:
    """The listener takes one place, two callers the others; the next one is not even answered."""
    address = capped.address(FIXED, kind.family)

    def server(ready: Ready) -> None:
        with kind.open() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.settimeout(None)
            listener.bind((address, _PORT))
            listener.listen(8)
            ready(None)
            streams = []
            while True:
                streams.append(listener.accept()[0])

    def caller() -> socket.socket:
        sock: socket.socket = capped.site.c.call(socket.socket, kind.af)
        sock.settimeout(_SHORT_S)
        return sock

    with capped.place("three").background(server), ExitStack() as stack:
        told = []
        for number in range(4):
            sock = stack.enter_context(caller())
            told.append(outcome(lambda s=sock: s.connect((address, _PORT))))  # type: ignore[misc]
            settles_at(capped.agent, min(number + 2, 3))
        assert told == ["ok", "ok", "timeout", "timeout"]


@each_kind(Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4)
def test_A2_audit_counts_the_excess_and_lets_it_go_on(capped: World, kind: Kind) -> None:
    before = verdicts(capped, "audited3", verdict="audit")

    def holder(ready: Ready) -> None:
        with ExitStack() as stack:
            ready(_told(kind, 5, None, stack))
            signal.pause()

    with capped.place("audited3").background(holder) as told:
        assert told == ["ok"] * 5
        assert total(capped.agent) == 5
    assert verdicts(capped, "audited3", verdict="audit") == before + 2


def test_A2_a_class_that_is_off_has_no_caps(capped: World) -> None:
    def application() -> list[str]:
        with ExitStack() as stack:
            return _told(Kind.UDP6, 5, None, stack)

    assert capped.place("off3").do(application) == ["ok"] * 5


def test_A2_requests_over_the_rate_are_EDQUOT(capped: World) -> None:
    """60 in a minute: 60 at once, then one in a second."""

    def application(count: int) -> list[str]:
        with Kind.TCP6.open() as sock:
            return [outcome(lambda: ask(sock, FIXED)) for _ in range(count)]

    told = capped.place("rated").do(lambda: application(62))
    assert told[:60] == ["ok"] * 60
    assert told[-1] == "EDQUOT"
    time.sleep(1.1)
    assert capped.place("rated").do(lambda: application(1)) == ["ok"]


def test_A2_what_a_class_gives_by_default_is_requested_too(capped: World) -> None:
    """And the requests for one type are none for another."""

    def application() -> list[str]:
        told = []
        for _ in range(62):
            with Kind.UDP4.open() as sock:
                told.append(outcome(lambda: exchange(sock, Kind.UDP4)))
        with Kind.UDP4.open() as sock:
            told.append(outcome(lambda: ask(sock, FIXED)))
        return told

    *given, other = capped.place("generous").do(application)
    assert given[:60] == ["ok"] * 60
    assert "EDQUOT" in given[60:]
    assert other == "ok"


def test_A2_a_socket_that_is_refused_keeps_what_it_had(capped: World) -> None:
    def application() -> tuple[list[str], int]:
        with Kind.UDP6.open() as sock:
            told = [outcome(lambda: ask(sock, FIXED)) for _ in range(3)]
            return told, sock.getsockopt(socket.IPPROTO_IPV6, IPV6_ADDR_PREFERENCES) >> TYPE_SHIFT

    told, type = capped.place("trickle").do(application)
    assert told == ["ok", "ok", "EDQUOT"]
    assert type == FIXED


def test_A2_two_at_once_never_get_the_last_place_both(capped: World) -> None:
    """Two processes reach for it in the same moment, some thousands of times."""
    rounds = 4000

    def application() -> tuple[int, int]:
        got = memoryview(mmap.mmap(-1, 2 * rounds)).cast("B")
        parent = os.getpid()
        with in_step() as wait:
            me = int(os.getpid() != parent)
            for turn in range(rounds):
                with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                    wait()
                    told = outcome(lambda: sock.connect(Kind.UDP6.destination))
                    got[2 * turn + me] = told == "ok"
                    wait()
        both = [got[2 * turn] + got[2 * turn + 1] for turn in range(rounds)]
        return min(both), max(both)

    assert capped.place("single").do(application, timeout_s=60) == (1, 1)


def _hold(kind: Kind, count: int) -> Callable[[Ready], None]:
    def holder(ready: Ready) -> None:
        with ExitStack() as stack:
            ready(_told(kind, count, None, stack))
            signal.pause()

    return holder


def test_A2_caps_hold_while_the_agent_is_dead_and_change_with_the_configuration(
    capped: World,
) -> None:
    agent = capped.agent
    agent.sigkill()
    try:
        with capped.place("three").background(_hold(Kind.TCP6, 4)) as told:
            assert told == ["ok"] * 3 + ["EDQUOT"]
            agent.start()
            assert total(agent) == 3, "what is counted survives"
            wider = LabClass(allow=TYPES, default=FIXED, caps={FIXED: {"sockets": 5}})
            agent.configure(replace(_SETTINGS, classes={**_SETTINGS.classes, "three": wider}))
            assert agent.reload().returncode == 0
            with capped.place("three").background(_hold(Kind.TCP6, 3)) as more:
                assert more == ["ok", "ok", "EDQUOT"]
    finally:
        agent.configure(_SETTINGS)
        assert agent.reload().returncode == 0


def test_A2_a_cap_that_comes_later_knows_older_sockets_from_their_next_use_on(
    capped: World,
) -> None:
    """Sockets made before their class had a cap have no notes: that is said in the docs."""
    agent = capped.agent
    later = LabClass(allow=(FIXED,), default=FIXED, caps={FIXED: {"sockets": 1}})

    def application(ready: Ready) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.connect(Kind.UDP6.destination)
            ready(os.getpid())
            signal.sigwait([signal.SIGUSR1])
            sock.connect(Kind.UDP6.destination)
            signal.pause()

    try:
        with capped.place("fixed").background(application) as pid:
            agent.configure(replace(_SETTINGS, classes={**_SETTINGS.classes, "fixed": later}))
            assert agent.reload().returncode == 0
            assert total(agent) == 0
            os.kill(pid, signal.SIGUSR1)
            settles_at(agent, 1)
            with capped.place("fixed").background(_hold(Kind.UDP6, 1)) as told:
                assert told == ["EDQUOT"]
    finally:
        agent.configure(_SETTINGS)
        assert agent.reload().returncode == 0
