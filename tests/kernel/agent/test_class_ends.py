"""A class that ends takes nothing from the sockets that it had, and gives nothing to new ones.

It ends for a socket when it is switched off or removed from the configuration, or when the process
leaves its cgroup. Connections, listeners and bound sockets go on; what is new is of no class.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from odm_agent.core.model import UNCLASSIFIED, AddressType, Family
from odm_agent.core.projection import CgroupRow
from odm_agent.datapath.maps.writer import MapWriter
from tests.kernel.agent.conftest import eventually
from tests.lab.agent import LabClass, Settings
from tests.lab.client import PORT, Kind, call, disconnect, exchange, outcome, source_cmsg
from tests.lab.host import CORRESPONDENT_2, FIXED, LINKS, PREFIXES, SESSION
from tests.lab.place import Ready
from tests.lab.world import PLAIN, World, with_pool

_ENDING: Final = LabClass(allow=(FIXED,), default=FIXED)
#: Two addresses of IPv4, so that its UDP sockets are bound, and not marked.
_SETTINGS: Final = with_pool(
    Settings(
        PREFIXES,
        {
            "ending": _ENDING,
            "inner": LabClass(allow=(SESSION,), default=SESSION, cgroups=("ending/inner",)),
            "never": replace(_ENDING, mode="off"),
        },
    ),
    "fixed4",
    2,
)
_OTHER_PORT: Final = 7002
_LISTENING: Final = {"explicit": 27101, "wildcard": 27102}
_STREAMS: Final = (Kind.TCP6, Kind.TCP4, Kind.TCP_MAPPED)
_DATAGRAMS: Final = (Kind.UDP6, Kind.UDP4, Kind.UDP_MAPPED)
_SENDTO: Final = (Kind.SENDTO6, Kind.SENDTO4, Kind.SENDTO_MAPPED)
_ORDINARY: Final = AddressType.UNSPECIFIED


def _seen(action: Callable[[], str]) -> str:
    """What the peer saw, or the errno's word."""
    found: list[str] = []
    told = outcome(lambda: found.append(action()))
    return found[0] if found else told


def _goes_on(sock: socket.socket, kind: Kind) -> str:
    """The source of a socket that is connected, as the peer sees it (TCP: as it saw it before)."""
    sock.send(b"more")
    answer = sock.recv(100).decode().split()[0]
    return answer if not kind.stream else {"more": "goes on"}[answer]


def _exchanges(sock: socket.socket, kind: Kind, to: tuple[str, int] | None = None) -> str:
    return exchange(sock, kind, to).seen


def _calls(kind: Kind, bind: tuple[str, int] | None = None) -> str:
    return call(kind, bind=bind).seen


def _reconnects(sock: socket.socket, kind: Kind) -> str:
    """A UDP socket is connected anew, and not disconnected before."""
    sock.connect((kind.destination[0], _OTHER_PORT))
    sock.send(b"x")
    return sock.recv(100).decode().split()[0]


def _names(sock: socket.socket, kind: Kind, source: str) -> str:
    sock.sendmsg([b"x"], source_cmsg(source), 0, kind.destination)
    return sock.recv(100).decode().split()[0]


def _echo(listener: socket.socket) -> None:
    """Answer every caller, for ever."""

    def serve(connection: socket.socket) -> None:
        while data := connection.recv(100):
            connection.send(data)

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


def _listen(kind: Kind, address: str, port: int) -> None:
    """Answer beside everything else, over one family."""
    listener = socket.socket(kind.af)
    if kind.af == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address, port))
    listener.listen(8)
    threading.Thread(target=_echo, args=(listener,), daemon=True).start()


@dataclass(frozen=True)
class Sources:
    """The addresses of the site: the class's, and the host's own."""

    typed: dict[Family, str]
    own: dict[Family, str]

    @classmethod
    def of(cls, world: World) -> "Sources":
        """As the agent has them now."""
        return cls(
            {family: world.address(FIXED, family) for family in Family},
            {family: world.address(_ORDINARY, family) for family in Family},
        )


class Application:
    """Makes sockets while it is of the class, and uses them when it has ended."""

    def __init__(self, sources: Sources, step: Path, leave_to: Path | None) -> None:
        self._sources = sources
        self._step = step
        self._leave_to = leave_to
        self._later: dict[str, Callable[[], str]] = {}

    def __call__(self, ready: Ready) -> None:
        """Say what the sockets are seen as before and after."""
        ready(self._before())
        while not self._step.exists():
            time.sleep(0.02)
        if self._leave_to is not None:
            self._leave_to.write_text("0")
        ready({name: _seen(use) for name, use in self._later.items()} | self._new())
        while True:
            time.sleep(1)

    def _before(self) -> dict[str, str]:
        seen = {}
        for kind in (*_STREAMS, *_DATAGRAMS, *_SENDTO):
            sock = kind.open()
            seen[f"{kind.name} connected"] = exchange(sock, kind).seen
            if kind.connects:
                self._later[f"{kind.name} connected"] = partial(_goes_on, sock, kind)
            else:
                self._later[f"{kind.name} sends"] = partial(_exchanges, sock, kind)
            if kind in _DATAGRAMS:
                again, dissolved = kind.open(), kind.open()
                exchange(again, kind)
                self._later[f"{kind.name} connected anew"] = partial(_reconnects, again, kind)
                exchange(dissolved, kind)
                disconnect(dissolved)
                self._later[f"{kind.name} dissolved"] = partial(_exchanges, dissolved, kind)
            bound = kind.open()
            bound.bind((kind.spell(self._sources.typed[kind.family]), 0))
            self._later[f"{kind.name} bound"] = partial(_exchanges, bound, kind)
        for name, port in _LISTENING.items():
            for kind in (Kind.TCP6, Kind.TCP4):
                typed = self._sources.typed[kind.family]
                _listen(kind, typed if name == "explicit" else kind.wildcard, port)
        return seen

    def _new(self) -> dict[str, str]:
        """What the same process gets from now on."""
        seen = {}
        for kind in (Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4):
            typed = self._sources.typed[kind.family]
            routed = (CORRESPONDENT_2[kind.family], PORT)
            seen[f"new {kind.name}"] = _seen(partial(_calls, kind))
            seen[f"new {kind.name} bound"] = _seen(partial(_calls, kind, (typed, 0)))
            with kind.open() as sock:
                sock.settimeout(0.5)
                seen[f"new {kind.name} by a route"] = _seen(partial(_exchanges, sock, kind, routed))
            if not kind.stream:
                with kind.open() as sock:
                    seen[f"new {kind.name} names"] = _seen(partial(_names, sock, kind, typed))
        return seen


@dataclass(frozen=True)
class End:
    """How the class ends. `then`: what happens to the agent afterwards."""

    how: str
    then: str = ""

    def __str__(self) -> str:
        return f"{self.how}-{self.then}" if self.then else self.how

    def settings(self) -> Settings:
        """The configuration afterwards."""
        classes = dict(_SETTINGS.classes)
        if self.how == "off":
            classes["ending"] = replace(_ENDING, mode="off")
        elif self.how == "removed":
            del classes["ending"]
        return replace(_SETTINGS, classes=classes)


@dataclass
class Outcome:
    """What was seen of one end of the class: by the application, and by those who call it."""

    sources: Sources
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A class that ends again and again; a route gives its source to one destination."""
    with World(tmp_path_factory.mktemp("ends"), _SETTINGS) as made:
        for family in Family:
            bits = 32 if family is Family.IPV4 else 128
            made.site.host.ip(
                *("route", "add", f"{CORRESPONDENT_2[family]}/{bits}"),
                *("via", str(LINKS["A", family][1]), "dev", "w0"),
                *("src", made.address(FIXED, family)),
            )
        yield made


@pytest.fixture(
    scope="module",
    params=[
        End("off"),
        End("removed"),
        End("left"),
        End("off", "killed"),
        End("removed", "started again"),
    ],
    ids=str,
)
def ended(
    site: World, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[End, Outcome]]:
    """The class has ended; afterwards it is in force again."""
    end: End = request.param
    step = tmp_path_factory.mktemp("step") / "go"
    sources = Sources.of(site)
    leave_to = site.place(PLAIN).cgroup.procs if end.how == "left" else None
    agent = site.agent
    callers: dict[str, socket.socket] = {}
    with site.place("ending").conversation(Application(sources, step, leave_to)) as talk:
        before = talk.hear(20)
        for name, port in _LISTENING.items():
            for kind in (Kind.TCP6, Kind.TCP4):
                caller = site.site.c.call(socket.socket, kind.af)
                caller.settimeout(3)
                caller.connect((sources.typed[kind.family], port))
                callers[f"{kind.name} {name}"] = caller
        try:
            agent.configure(end.settings())
            assert agent.reload().returncode == 0
            if end.then:
                agent.sigkill()
            if end.then == "started again":
                agent.start()
            step.touch()
            after = talk.hear(60)
            for name, caller in callers.items():
                after[f"{name} accepted"] = _seen(partial(_echoed, caller))
                kind, port = Kind[name.split()[0]], _LISTENING[name.split()[1]]
                with site.site.c.call(socket.socket, kind.af) as late:
                    late.settimeout(1)
                    to = sources.typed[kind.family], port
                    after[f"{name} listening"] = _seen(partial(_answered, late, to))
            yield end, Outcome(sources, before, after)
        finally:
            for caller in callers.values():
                caller.close()
            agent.configure(_SETTINGS)
            if agent.ended:
                agent.start()
            assert agent.reload().returncode == 0


def _echoed(caller: socket.socket) -> str:
    caller.send(b"still there?")
    return {b"still there?": "goes on"}[caller.recv(100)]


def _answered(caller: socket.socket, to: tuple[str, int]) -> str:
    caller.connect(to)
    return _echoed(caller)


def test_sockets_of_the_class_had_its_source(ended: tuple[End, Outcome]) -> None:
    _, seen = ended
    kinds = (*_STREAMS, *_DATAGRAMS)
    had = {kind: seen.before[f"{kind.name} connected"] for kind in kinds}
    assert all(any(source in each for each in PREFIXES[:2]) for source in had.values())


@pytest.mark.parametrize("kind", _STREAMS, ids=lambda kind: kind.name)
def test_connection_goes_on(ended: tuple[End, Outcome], kind: Kind) -> None:
    assert ended[1].after[f"{kind.name} connected"] == "goes on"


@pytest.mark.parametrize("kind", _DATAGRAMS, ids=lambda kind: kind.name)
@pytest.mark.parametrize("use", ["connected", "connected anew"])
def test_connected_datagram_socket_keeps_its_source(
    ended: tuple[End, Outcome], kind: Kind, use: str
) -> None:
    """No hook can take it from the socket, also where it connects to somebody else."""
    source = ended[1].after[f"{kind.name} {use}"]
    assert any(source in each for each in PREFIXES[:2])


@pytest.mark.parametrize("kind", _DATAGRAMS, ids=lambda kind: kind.name)
def test_datagram_socket_that_was_disconnected_is_as_stock(
    ended: tuple[End, Outcome], kind: Kind
) -> None:
    assert ended[1].after[f"{kind.name} dissolved"] == ended[1].sources.own[kind.family]


@pytest.mark.parametrize("kind", (*_STREAMS, *_DATAGRAMS, *_SENDTO), ids=lambda kind: kind.name)
def test_bound_socket_goes_on_unless_its_process_has_left(
    ended: tuple[End, Outcome], kind: Kind
) -> None:
    """Who takes it elsewhere would hand over a source that its class may use, and he may not."""
    end, seen = ended
    typed = "EACCES" if end.how == "left" else seen.sources.typed[kind.family]
    assert seen.after[f"{kind.name} bound"] == typed


@pytest.mark.parametrize("kind", [Kind.TCP6, Kind.TCP4], ids=lambda kind: kind.name)
@pytest.mark.parametrize("bound", _LISTENING)
@pytest.mark.parametrize("what", ["accepted", "listening"])
def test_server_goes_on(ended: tuple[End, Outcome], kind: Kind, bound: str, what: str) -> None:
    assert ended[1].after[f"{kind.name} {bound} {what}"] == "goes on"


@pytest.mark.parametrize("kind", _SENDTO, ids=lambda kind: kind.name)
def test_unconnected_socket_is_as_stock(ended: tuple[End, Outcome], kind: Kind) -> None:
    assert ended[1].after[f"{kind.name} sends"] == ended[1].sources.own[kind.family]


@pytest.mark.parametrize(
    "kind", [Kind.TCP6, Kind.TCP4, Kind.UDP6, Kind.UDP4], ids=lambda kind: kind.name
)
def test_new_socket_gets_nothing_typed(ended: tuple[End, Outcome], kind: Kind) -> None:
    """Neither by default, nor by choice, nor by a route of somebody else's."""
    _, seen = ended
    new = {
        name.removeprefix(f"new {kind.name}").strip(): told
        for name, told in seen.after.items()
        if name.startswith(f"new {kind.name}")
    }
    expected = {
        "": seen.sources.own[kind.family],
        "bound": "EACCES",
        "by a route": "timeout" if kind.stream else "EPERM",
    }
    assert new == (expected if kind.stream else {**expected, "names": "EACCES"})


def _accepts(address: str, port: int) -> Callable[[Ready], None]:
    def serve(ready: Ready) -> None:
        with socket.create_server((address, port), family=socket.AF_INET6) as listener:
            ready(None)
            _echo(listener)

    return serve


def test_class_that_never_was_in_force_leaves_nothing(site: World) -> None:
    """What it would be allowed says nothing about what its sockets have."""
    address = site.address(FIXED, Family.IPV6)
    with site.place("never").background(_accepts("::", 27110)):
        assert site.peer.dial("tcp", address, 27110, timeout_s=0.5) == {"error": "timeout"}
    assert site.place("never").do(lambda: outcome(lambda: call(Kind.UDP6, bind=(address, 0)))) == (
        "EACCES"
    )


def test_class_above_takes_over(site: World) -> None:
    """Without a class of its own a cgroup is of the class above it, and its row is in no way."""
    inner = site.place("ending/inner")
    assert inner.do(lambda: call(Kind.TCP6).seen) == site.address(SESSION, Family.IPV6)
    classes = {name: each for name, each in _SETTINGS.classes.items() if name != "inner"}
    try:
        site.agent.configure(replace(_SETTINGS, classes=classes))
        assert site.agent.reload().returncode == 0
        assert inner.do(lambda: call(Kind.TCP6).seen) == site.address(FIXED, Family.IPV6)
    finally:
        site.agent.configure(_SETTINGS)
        assert site.agent.reload().returncode == 0
    assert inner.do(lambda: call(Kind.TCP6).seen) == site.address(SESSION, Family.IPV6)


@pytest.mark.parametrize("below", ["", "/worker"], ids=["in it", "in one below"])
def test_connection_outlives_class_and_cgroup(own: World, below: str) -> None:
    """Its process has left, the cgroup was removed, and then the class."""
    address, place = own.address(FIXED, Family.IPV6), own.place(f"ending{below}")
    session = own.place(PLAIN).cgroup.procs
    number, folder = own.place("ending").cgroup.id, own.place("ending").cgroup.path
    step = own.agent.folder / "step"

    def serve(ready: Ready) -> None:
        with socket.create_server((address, 7177), family=socket.AF_INET6) as server:
            ready(None)
            connection, _ = server.accept()
        session.write_text("0")
        step.write_text("left")
        while question := connection.recv(100):
            connection.send(question)
        connection.close()
        while True:
            time.sleep(1)

    with place.background(serve), own.site.c.call(socket.socket, socket.AF_INET6) as peer:
        peer.settimeout(3)
        peer.connect((address, 7177))
        eventually(step.exists, "the process has left")
        eventually(lambda: not place.cgroup.procs.read_text(), "the cgroup is empty")
        (folder / "inner").rmdir()
        if below:
            place.cgroup.path.rmdir()
        folder.rmdir()
        own.agent.configure(End("removed").settings())
        assert own.agent.reload().returncode == 0
        assert _echoed(peer) == "goes on"
        # A class that is not there is as one that is off: nothing would be looked at.
        assert _rows(own)[number] == CgroupRow(UNCLASSIFIED, kept=frozenset({FIXED}))
        peer.close()
        eventually(lambda: number not in _rows(own), "forgotten with its last socket", 10)


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """The same for one test alone."""
    with World(tmp_path, _SETTINGS) as made:
        yield made


def _rows(world: World) -> dict[int, CgroupRow]:
    with MapWriter(world.agent.pins) as datapath:
        return dict(datapath.classified())
