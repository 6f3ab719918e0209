"""Being somebody else: another cgroup, another network namespace, another user's rights."""

import ctypes
import socket
from typing import Final

from tests.lab.client import outcome
from tests.lab.process import CLONE_NEWNET, enter_netns, forked
from tests.rfc8653.bypass.packets import spoofed
from tests.rfc8653.bypass.privileges import become
from tests.rfc8653.bypass.technique import (
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

GROUP: Final = "Being somebody else"

_PERMITTED: Final = "every"
_CLONE_NEWUSER: Final = 0x10000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def _joins(uid_nobody: bool) -> Act:
    """The process moves into the cgroup of a class that may."""

    def act(stage: Stage) -> str:
        procs = stage.world.place(_PERMITTED).cgroup.procs

        def process() -> str:
            become("" if uid_nobody else "root")
            return outcome(join)

        def join() -> None:
            procs.write_text("0")
            with stage.udp() as sock:
                sock.bind((stage.source, 0))
                sock.sendto(DATA, stage.to)

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


_KERNEL: Final = Expect(Result.KERNEL, told="EACCES")
_PRIVATE: Final = "no route leads out of a namespace of one's own"
_AT_BIND: Final = refused("bind")

TECHNIQUES: Final = (
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
        remedy="Who may write the cgroup.procs of a class is of that class whenever he likes. "
        "Leave it to root; agents of containers get a subtree of their own.",
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
