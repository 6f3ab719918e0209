"""Sockets that change hands: made by a class that may, used by one that may not."""

import array
import ctypes
import os
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from tests.bypass.packets import spoofed
from tests.bypass.privileges import become
from tests.bypass.technique import (
    DATA,
    OPEN,
    Act,
    Expect,
    Form,
    Result,
    Stage,
    Technique,
    refused,
)
from tests.bypass.tricks_bind import talk
from tests.lab.client import outcome
from tests.lab.place import Ready
from tests.lab.process import CLONE_NEWNET, enter_netns, forked

GROUP: Final = "Sockets that change hands"

_PERMITTED: Final = "every"
_CLONE_NEWUSER: Final = 0x10000000
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


def _joins(uid_nobody: bool) -> Act:
    """The process moves into the cgroup of a class that may."""

    def act(stage: Stage) -> str:
        procs = stage.world.place(_PERMITTED).cgroup.procs

        def process() -> str:
            become("" if uid_nobody else "root")
            return outcome(lambda: (procs.write_text("0"), _use(_send_to, stage, _free(stage))))

        def _free(stage: Stage) -> socket.socket:
            return _bound_udp(stage)

        return stage.place.do(process)

    return act


def _outside(stage: Stage) -> str:
    """Made outside of the agent's part of the tree, for which no program runs, and brought in."""
    procs = stage.place.cgroup.procs

    def process() -> str:
        sock = stage.udp()
        procs.write_text("0")

        def use() -> None:
            sock.bind((stage.source, 0))
            sock.sendto(DATA, stage.to)

        return outcome(use)

    return forked(process, netns=stage.world.site.host.path)


def _via_namespace(stage: Stage) -> str:
    """The socket is of our namespace; the process leaves it, and binds from afar."""
    elsewhere = stage.world.site.c.path

    def process() -> None:
        with stage.udp() as sock:
            enter_netns(elsewhere)
            sock.bind((stage.source, 0))
            sock.sendto(DATA, stage.to)

    return stage.do(process)


def _and_back(stage: Stage) -> str:
    """Into another namespace and back; a socket from each."""
    home, elsewhere = stage.world.site.host.path, stage.world.site.c.path

    def process() -> None:
        enter_netns(elsewhere)
        stage.udp().close()
        enter_netns(home)
        with stage.udp() as sock:
            sock.bind((stage.source, 0))
            sock.sendto(DATA, stage.to)

    return stage.do(process)


def _user_namespace(stage: Stage) -> str:
    """All capabilities over a network of one's own: which leads nowhere."""

    def process() -> None:
        if _libc.unshare(_CLONE_NEWUSER | CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare")
        with stage.raw(socket.IPPROTO_RAW) as sock:
            sock.sendto(spoofed(stage), (stage.to[0], 0))

    return stage.do(process)


_DELEGATED: Final = (
    "A connected socket of a class that may, used by one that may not: whoever hands it on has "
    "delegated its use, as he could relay the data himself. Keep such descriptors to yourself."
)
_KERNEL: Final = Expect(Result.KERNEL, told="EACCES")
_PRIVATE: Final = "no route leads out of a namespace of one's own"
_AT_BIND: Final = refused("bind")

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
        _moved(Stage.tcp, lambda stage, sock: (sock.bind((stage.source, 0)), talk(stage, sock)),
               maker="", user=_PERMITTED),
        refused("egress", "timeout"),
        needs="root",
    ),
    Technique(
        "lent-udp",
        "made in a cgroup that may not, used in one that may: bind, sendto",
        _moved(Stage.udp, lambda stage, sock: (sock.bind((stage.source, 0)), _send_to(stage, sock)),
               maker="", user=_PERMITTED),
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
    Technique(
        "joins-nobody",
        "moving oneself into the cgroup of a class that may",
        _joins(True),
        _KERNEL,
        no_control="the next row",
    ),
    Technique(
        "joins-root",
        "moving oneself into the cgroup of a class that may, as root",
        _joins(False),
        OPEN,
        needs="root",
        remedy="Who may write the cgroup.procs of a class is of that class whenever he likes. Leave "
        "it to root; agents of containers get a subtree of their own.",
    ),
    Technique(
        "outside",
        "made outside of the part of the tree that the agent is attached to, then moved in",
        _outside,
        OPEN,
        needs="root",
        remedy="Programs belong to the cgroup in which a socket is made. Attach to the root of the "
        "hierarchy, which is the default: then no outside is left.",
    ),
    Technique(
        "setns-away",
        "setns: a socket of this namespace, bound from within another one",
        _via_namespace,
        _AT_BIND,
        needs="root",
    ),
    Technique(
        "setns-back",
        "setns: into another namespace and back, then bind, sendto",
        _and_back,
        _AT_BIND,
        needs="root",
    ),
    Technique(
        "user-namespace",
        "user and network namespace of one's own: raw packets",
        _user_namespace,
        {
            Form.IPV6: Expect(Result.KERNEL, told="EADDRNOTAVAIL"),
            Form.IPV4: Expect(Result.KERNEL, told="ENETUNREACH"),
        },
        no_control=_PRIVATE,
    ),
)
