"""MPTCP: a connection from an untyped address, and subflows that the kernel opens beside it."""

import errno
import itertools
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from tests.lab.netns import NetNs
from tests.lab.peer import IPPROTO_MPTCP, MPTCP_PORT
from tests.rfc8653.bypass.technique import (
    FOUR,
    OPEN,
    Act,
    Stage,
    Technique,
    application,
    refused,
)

GROUP: Final = "MPTCP"

#: Where the kernel listens; each time elsewhere, since it lets go of a port only after a while.
_ports: Final = itertools.count(27100)
#: How long the kernel's worker is given to open its subflows.
_WORKER_S: Final = 0.4


def _to(stage: Stage) -> tuple[str, int]:
    return stage.to[0], MPTCP_PORT


def _bound(stage: Stage) -> None:
    with stage.tcp(IPPROTO_MPTCP) as sock:
        sock.bind((stage.source, 0))
        sock.connect(_to(stage))
        sock.recv(64)


def _talk(stage: Stage) -> None:
    """An ordinary connection, kept while the worker works."""
    with stage.tcp(IPPROTO_MPTCP) as sock:
        sock.connect(_to(stage))
        sock.recv(64)
        sock.send(b"more")
        sock.recv(64)
        time.sleep(_WORKER_S)


@contextmanager
def _limits(*namespaces: NetNs) -> Iterator[None]:
    for each in namespaces:
        each.run(["ip", "mptcp", "limits", "set", "subflow", "2", "add_addr_accepted", "2"])
    try:
        yield
    finally:
        for each in namespaces:
            each.run(["ip", "mptcp", "limits", "set", "subflow", "0", "add_addr_accepted", "0"])


@contextmanager
def _endpoint(stage: Stage, owner: str, *what: str) -> Iterator[str]:
    """An endpoint of the path manager, made by a process of the class `owner`; what `ip` said."""
    site = stage.world.site
    what = tuple(each.replace("PORT", str(next(_ports))) for each in what)
    with _limits(site.host, site.c):
        done = stage.world.place(owner).run(["ip", "mptcp", "endpoint", "add", stage.plain, *what])
        try:
            yield done.stderr
        finally:
            site.host.run(["ip", "mptcp", "endpoint", "flush"])


def _beside(owner: str, *what: str) -> Act:
    def act(stage: Stage) -> str:
        with _endpoint(stage, owner or stage.name, *what) as complaint:
            if complaint:
                # Linux 6.1 doesn't say which error it was.
                assert f"-{errno.EACCES}" in complaint or complaint == _NO_LISTENER, complaint
                return "EACCES"
            return stage.do(lambda: _talk(stage))

    return act


_NO_LISTENER: Final = "Error: create listen socket error.\n"
#: The worker that binds the subflow is a kernel thread: it counts as of no class.
_EXTRA: Final = refused("bind", "ok")
_WORKER: Final = "the kernel's worker is of no class, so nobody gets such a subflow; it is counted"
_AT_BIRTH: Final = refused("sock-create")

TECHNIQUES: Final = (
    Technique(
        "mptcp-bind",
        "bind, connect",
        application(_bound),
        refused("bind"),
        closed_by="mptcp",
        closed=_AT_BIRTH,
    ),
    Technique(
        "mptcp-subflow",
        "an extra subflow from the typed address (endpoint `subflow`), opened by the kernel",
        _beside("plain", "dev", "lo", "subflow"),
        _EXTRA,
        no_control=_WORKER,
        closed_by="mptcp",
        closed=_AT_BIRTH,
    ),
    Technique(
        "mptcp-fullmesh",
        "extra subflows to all addresses (endpoint `subflow fullmesh`), opened by the kernel",
        _beside("plain", "dev", "lo", "subflow", "fullmesh"),
        _EXTRA,
        no_control=_WORKER,
        closed_by="mptcp",
        closed=_AT_BIRTH,
    ),
    Technique(
        "mptcp-join",
        "the typed address announced (endpoint `signal`): the kernel shall listen there",
        _beside("", "dev", "lo", "signal", "port", "PORT"),
        refused("bind"),
        FOUR,
        needs="CAP_NET_ADMIN",
        closed_by="mptcp",
        closed=refused("bind"),
    ),
    Technique(
        "mptcp-join-permitted",
        "the typed address announced by a class that may use it: the peer joins",
        _beside("every", "dev", "lo", "signal", "port", "PORT"),
        OPEN,
        FOUR,
        remedy="The subflow belongs to the listener that the kernel made for the announcing "
        "process, whose class may use the address. Announce typed addresses without a port (then "
        'nobody can join there), or refuse = ["mptcp"] for the classes that may not.',
        closed_by="mptcp",
        closed=_AT_BIRTH,
    ),
)
