"""Sockets that change hands: made by a class that may, used by one that may not."""

import array
import ctypes
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from tests.lab.client import outcome
from tests.lab.place import Ready
from tests.rfc8653.bypass.technique import (
    DATA,
    OPEN,
    Act,
    Stage,
    Technique,
    refused,
)
from tests.rfc8653.bypass.tricks_bind import talk

GROUP: Final = "Sockets that change hands"

_PERMITTED: Final = "every"
_PIDFD_GETFD: Final = 438
_libc: Final = ctypes.CDLL(None, use_errno=True)
Make = Callable[[Stage], socket.socket]
Use = Callable[[Stage, socket.socket], object]


def _bound_tcp(stage: Stage) -> socket.socket:
    sock = stage.tcp()
    sock.bind((stage.source, 0))
    return sock


def _bound_udp(stage: Stage) -> socket.socket:
    sock = stage.udp()
    sock.bind((stage.source, 0))
    return sock


def _connected(stage: Stage) -> socket.socket:
    sock = _bound_udp(stage)
    sock.connect(stage.to)
    return sock


def _send(stage: Stage, sock: socket.socket) -> None:
    sock.send(DATA)


def _send_to(stage: Stage, sock: socket.socket) -> None:
    sock.sendto(DATA, stage.to)


def _bind_and_talk(stage: Stage, sock: socket.socket) -> None:
    sock.bind((stage.source, 0))
    talk(stage, sock)


def _bind_and_send(stage: Stage, sock: socket.socket) -> None:
    sock.bind((stage.source, 0))
    _send_to(stage, sock)


def _give(channel: socket.socket, sock: socket.socket) -> None:
    rights = array.array("i", [sock.fileno()])
    channel.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


def _take(channel: socket.socket) -> socket.socket:
    _, ((_, _, data),), _, _ = channel.recvmsg(1, socket.CMSG_SPACE(4))
    return socket.socket(fileno=array.array("i", data)[0])


def _passed(make: Make, use: Use) -> Act:
    """By SCM_RIGHTS; the maker is gone when the socket is used."""

    def act(stage: Stage) -> str:
        near, far = socket.socketpair()
        with near, far:
            stage.in_class(_PERMITTED).do(lambda: _give(near, make(stage)))
            return stage.do(lambda: _use(use, stage, _take(far)))

    return act


def _use(use: Use, stage: Stage, sock: socket.socket) -> None:
    sock.settimeout(0.4)
    with sock:
        use(stage, sock)


def _moved(make: Make, use: Use, maker: str = _PERMITTED, user: str = "") -> Act:
    """Inherited over a move: the process itself goes from one cgroup to the other."""

    def act(stage: Stage) -> str:
        first, then = maker or stage.name, user or stage.name
        elsewhere = stage.world.place(then).cgroup.procs

        def process() -> str:
            sock = make(stage)
            elsewhere.write_text("0")
            return outcome(lambda: _use(use, stage, sock))

        return stage.world.place(first).do(process)

    return act


def _taken(make: Make, use: Use) -> Act:
    """By pidfd_getfd, out of a process that one may trace."""

    def act(stage: Stage) -> str:
        def holder(ready: Ready) -> None:
            sock = make(stage)
            ready((os.getpid(), sock.fileno()))
            time.sleep(20)

        def thief(pid: int, number: int) -> None:
            pidfd = os.pidfd_open(pid)
            fd = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
            if fd < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
            _use(use, stage, socket.socket(fileno=fd))

        with stage.world.place(_PERMITTED).background(holder) as (pid, number):
            return stage.do(lambda: thief(pid, number))

    return act


def _accept_passed(stage: Stage) -> str:
    """A listener of a class that may, whose calls another class takes."""

    def listener(stage: Stage) -> socket.socket:
        sock = stage.tcp()
        sock.bind((stage.source, 0))
        sock.listen(4)
        return sock

    near, far = socket.socketpair()
    with near, far, ExitStack() as stack:
        stage.in_class(_PERMITTED).do(lambda: _give(near, listener(stage)))

        def server(ready: Ready) -> None:
            sock = _take(far)
            sock.settimeout(None)
            ready(sock.getsockname()[1])
            stream, _ = sock.accept()
            stream.sendall(DATA)
            stream.close()

        port = stack.enter_context(stage.place.background(stage.beside(server)))
        told = stage.world.peer.dial("tcp", stage.plain, port, timeout_s=1)
    return "ok" if told.get("answer") == DATA.decode() else "no call"


_DELEGATED: Final = (
    "A connected socket of a class that may, used by one that may not: whoever hands it on has "
    "delegated its use, as he could relay the data himself. Keep such descriptors to yourself."
)

TECHNIQUES: Final = (
    Technique(
        "passed-tcp",
        "SCM_RIGHTS: a bound TCP socket, then connect",
        _passed(_bound_tcp, talk),
        refused("connect"),
    ),
    Technique(
        "passed-udp",
        "SCM_RIGHTS: a bound UDP socket, then sendto",
        _passed(_bound_udp, _send_to),
        refused("sendmsg"),
    ),
    Technique(
        "passed-connected",
        "SCM_RIGHTS: a connected UDP socket, then send",
        _passed(_connected, _send),
        OPEN,
        remedy=_DELEGATED,
    ),
    Technique(
        "passed-listener",
        "SCM_RIGHTS: a listener on the typed address, then accept",
        _accept_passed,
        OPEN,
        remedy=_DELEGATED,
    ),
    Technique(
        "moved-tcp",
        "made in a cgroup that may, process moved: a bound TCP socket, then connect",
        _moved(_bound_tcp, talk),
        refused("connect"),
        needs="root",
    ),
    Technique(
        "moved-udp",
        "made in a cgroup that may, process moved: a bound UDP socket, then sendto",
        _moved(_bound_udp, _send_to),
        refused("sendmsg"),
        needs="root",
    ),
    Technique(
        "moved-connected",
        "made in a cgroup that may, process moved: a connected UDP socket, then send",
        _moved(_connected, _send),
        OPEN,
        needs="root",
        remedy=_DELEGATED,
    ),
    Technique(
        "lent-tcp",
        "made in a cgroup that may not, used in one that may: bind, connect",
        _moved(
            Stage.tcp,
            _bind_and_talk,
            maker="",
            user=_PERMITTED,
        ),
        refused("egress", "timeout"),
        needs="root",
    ),
    Technique(
        "lent-udp",
        "made in a cgroup that may not, used in one that may: bind, sendto",
        _moved(
            Stage.udp,
            _bind_and_send,
            maker="",
            user=_PERMITTED,
        ),
        refused("egress", "EPERM"),
        needs="root",
    ),
    Technique(
        "taken-bound",
        "pidfd_getfd: a bound TCP socket of a process that may, then connect",
        _taken(_bound_tcp, talk),
        refused("connect"),
        needs="root",
    ),
    Technique(
        "taken-connected",
        "pidfd_getfd: a connected UDP socket of a process that may, then send",
        _taken(_connected, _send),
        OPEN,
        needs="root",
        remedy="Who may trace a process (same user, or CAP_SYS_PTRACE) can act as that process in "
        "every way. Run classes as users of their own; kernel.yama.ptrace_scope = 1 or more.",
    ),
)
