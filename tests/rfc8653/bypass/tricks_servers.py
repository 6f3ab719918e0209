"""Being called at the typed address, and answering from it."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.lab.client import outcome, source_cmsg
from tests.lab.peer import IPPROTO_MPTCP
from tests.lab.place import Ready
from tests.rfc8653.bypass.technique import (
    ALL,
    DATA,
    UNTYPED,
    Act,
    Form,
    Stage,
    Technique,
    refused,
)

GROUP: Final = "Listening and answering"

_PORT: Final = 27003
_SHARED_PORT: Final = 27004
_IPV6_RECVPKTINFO: Final = 49
_IP_PKTINFO: Final = 8
_TCP_FASTOPEN: Final = 23
_WAIT_S: Final = 0.3
_CALLS: Final = 24
Listen = Callable[[Stage, socket.socket], object]


def _wildcard(stage: Stage) -> str:
    return "0.0.0.0" if stage.form is Form.IPV4 else "::"


def _listen(stage: Stage, sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((_wildcard(stage), _PORT))
    sock.listen(4)


def _autobind(stage: Stage, sock: socket.socket) -> None:
    sock.listen(4)


def _fast_open(stage: Stage, sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN, 4)
    _listen(stage, sock)


def _called(listen: Listen, protocol: int = 0) -> Act:
    """A listener on the wildcard; the correspondent calls it at its typed address."""

    def act(stage: Stage) -> str:
        def server(ready: Ready) -> None:
            with stage.tcp(protocol) as sock:
                listen(stage, sock)
                sock.settimeout(None)
                ready(sock.getsockname()[1])
                while True:
                    stream, _ = sock.accept()
                    stream.sendall(DATA)
                    stream.close()

        try:
            with stage.place.background(stage.beside(server)) as port:
                told = stage.world.peer.dial("tcp", stage.plain, port, timeout_s=_WAIT_S)
        except PermissionError:
            return "EACCES"
        return "ok" if told.get("from") == stage.plain else "no call"

    return act


@contextmanager
def cookies(stage: Stage) -> Iterator[None]:
    """Every SYN is answered by a SYN cookie."""
    stage.world.site.host.sysctl("net/ipv4/tcp_syncookies", "2")
    try:
        yield
    finally:
        stage.world.site.host.sysctl("net/ipv4/tcp_syncookies", "1")


def _with_cookies(act: Act) -> Act:
    def inner(stage: Stage) -> str:
        with cookies(stage):
            return act(stage)

    return inner


def _bound_listener(stage: Stage) -> None:
    with stage.tcp() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((stage.source, _PORT))
        sock.listen(4)


def _bound_listener_called(stage: Stage) -> str:
    """The same for a class that may, with a call; one that may not never gets so far."""
    told = stage.do(lambda: _bound_listener(stage))
    if told != "ok":
        return told

    def listen(stage: Stage, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((stage.source, _PORT))
        sock.listen(4)

    return _called(listen)(stage)


def _shared(stage: Stage) -> str:
    """Join the SO_REUSEPORT group of a listener that may, and take all of its calls."""

    def listen(stage: Stage, sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((_wildcard(stage), _SHARED_PORT))
        sock.listen(4)

    def member(ready: Ready) -> None:
        with stage.tcp() as sock:
            listen(stage, sock)
            sock.settimeout(None)
            ready(sock.getsockname()[1])
            while True:
                stream, _ = sock.accept()
                stream.sendall(stage.name.encode())
                stream.close()

    permitted = stage.in_class("every")

    def owner(ready: Ready) -> None:
        with permitted.tcp() as sock:
            listen(permitted, sock)
            ready(None)
            while True:
                sock.settimeout(None)
                stream, _ = sock.accept()
                stream.close()

    with ExitStack() as stack:
        stack.enter_context(permitted.place.background(permitted.beside(owner)))
        port = stack.enter_context(stage.place.background(stage.beside(member)))
        for _ in range(_CALLS):  # the kernel spreads calls over the group by their port
            told = stage.world.peer.dial("tcp", stage.plain, port, timeout_s=_WAIT_S)
            if "error" in told:
                return "no call"
            if told["answer"] == stage.name:
                return "ok"
    return "no call"


def _answering(answer: Callable[[Stage, socket.socket], None]) -> Act:
    """A UDP server on the wildcard that is asked at its typed address."""

    def act(stage: Stage) -> str:
        def server(ready: Ready) -> None:
            with stage.udp() as sock:
                sock.bind((_wildcard(stage), _PORT))
                sock.settimeout(2)
                ready(None)
                told = outcome(lambda: answer(stage, sock))
                report.send(told.encode())

        ours, report = socket.socketpair()
        with ours, report, stage.place.background(stage.beside(server)):
            stage.world.peer.dial("udp", stage.plain, _PORT, timeout_s=_WAIT_S)
            ours.settimeout(3)
            return ours.recv(64).decode()

    return act


def _plain_answer(stage: Stage, sock: socket.socket) -> None:
    _, caller = sock.recvfrom(64)
    sock.sendto(DATA, caller)


def _connected_answer(stage: Stage, sock: socket.socket) -> None:
    _, caller = sock.recvfrom(64)
    sock.connect(caller)
    sock.send(DATA)


def _named_answer(stage: Stage, sock: socket.socket) -> None:
    """As servers do it that take care: the address asked, taken out of the control message."""
    if stage.form is Form.IPV6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    _, _, _, caller = sock.recvmsg(64, 64)
    sock.sendmsg([DATA], source_cmsg(stage.plain), 0, caller)


_SYN_REFUSED: Final = refused("ingress", "no call")

TECHNIQUES: Final = (
    Technique(
        "listen-bound",
        "TCP: bind the typed address, listen",
        _bound_listener_called,
        refused("bind"),
        ALL,
    ),
    Technique(
        "listen-wildcard",
        "TCP: listen on the wildcard, called at the typed address",
        _called(_listen),
        _SYN_REFUSED,
        ALL,
    ),
    Technique(
        "listen-autobound",
        "TCP: listen without bind, called at the typed address",
        _called(_autobind),
        _SYN_REFUSED,
        ALL,
    ),
    Technique(
        "listen-cookies",
        "TCP: the same where every SYN is answered by a SYN cookie",
        _with_cookies(_called(_listen)),
        _SYN_REFUSED,
        ALL,
    ),
    Technique(
        "listen-fast-open",
        "TCP: the same with Fast Open",
        _called(_fast_open),
        _SYN_REFUSED,
    ),
    Technique(
        "listen-mptcp",
        "MPTCP: listen on the wildcard, called at the typed address",
        _called(_listen, IPPROTO_MPTCP),
        _SYN_REFUSED,
        closed_by="mptcp",
        closed=refused("sock-create"),
    ),
    Technique(
        "listen-shared",
        "SO_REUSEPORT: share the port of a listener that may, hope for its calls",
        _shared,
        _SYN_REFUSED,
        others="answers of the listener that may",
    ),
    Technique(
        "answer",
        "UDP: receive on the wildcard at the typed address, sendto",
        _answering(_plain_answer),
        UNTYPED,
        ALL,
    ),
    Technique(
        "answer-connected",
        "UDP: receive on the wildcard at the typed address, connect, send",
        _answering(_connected_answer),
        UNTYPED,
        ALL,
    ),
    Technique(
        "answer-pktinfo",
        "UDP: receive on the wildcard, answer with the address asked as IP_PKTINFO, IPV6_PKTINFO",
        _answering(_named_answer),
        refused("sendmsg"),
    ),
)
