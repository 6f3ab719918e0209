"""A new cgroup has its class from its first moment on, whatever the agent is doing."""

import os
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from odm_agent.control.client import ControlClient
from odm_agent.core.model import AddressType, Family
from odm_agent.datapath import abi
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.agent import LabClass
from tests.lab.client import Kind, call
from tests.lab.host import FIXED, SESSION, type_of
from tests.lab.process import wait_until
from tests.lab.restarts import restarted, restarts
from tests.lab.world import CLASSES, STANDARD, World

NOBODY = 65534
Life = Callable[[World], AbstractContextManager[None]]
NONE = AddressType.UNSPECIFIED
KINDS = (Kind.TCP6, Kind.TCP4, Kind.SENDTO6, Kind.UDP4)
#: Globs of all forms, some only in a tree that belongs to a user.
MORE = {
    "deep": LabClass(allow=(FIXED,), default=FIXED, cgroups=("top/*/app.slice/[a-f]*-?.scope",)),
    "named": LabClass(allow=(FIXED,), default=FIXED, cgroups=("user/u/own.service", "far/off/one")),
    "mine": LabClass(
        allow=(SESSION,), default=SESSION, cgroups=("user/*/my-*.scope",), delegated=True
    ),
    "theirs": LabClass(allow=(SESSION,), default=SESSION, cgroups=("user/*/root-*.scope",)),
    "rough": LabClass(allow=(FIXED,), default=FIXED, cgroups=("rough/[\u00e9x]*",)),
}
SETTINGS = replace(STANDARD, classes={**CLASSES, **MORE})


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    with World(tmp_path, SETTINGS) as made:
        yield made


def source(kind: Kind = Kind.TCP6) -> str:
    """The type of the source with which one is seen by the correspondent."""
    return type_of(call(kind).seen).word


def from_outside(world: World, function: Callable[[], object], uid: int = 0) -> object:
    """What a service manager does: in the host's namespace, in a cgroup of no class."""
    return world.place("plain").do(function, uid=uid, timeout_s=100)


def delegated(world: World) -> Path:
    """The tree of a user."""
    user = world.place("user/u").cgroup
    os.chown(user.path, NOBODY, NOBODY)
    os.chown(user.procs, NOBODY, NOBODY)
    return user.path


@contextmanager
def running(world: World) -> Iterator[None]:
    yield


@contextmanager
def busy(world: World) -> Iterator[None]:
    """Cgroups that its globs name come and go, and it is asked and made to reload all the time."""
    done = threading.Event()

    def churn() -> None:
        while not done.is_set():
            folder = world.cgroup.path / "apps/churn.service"
            folder.mkdir()
            folder.rmdir()

    def ask() -> None:
        while not done.is_set():
            with ControlClient(world.agent.socket) as client:
                client.call("status")
                client.call("reload")

    threads = [threading.Thread(target=each) for each in (churn, ask)]
    for each in threads:
        each.start()
    try:
        yield
    finally:
        done.set()
        for each in threads:
            each.join()


@contextmanager
def stopped(world: World) -> Iterator[None]:
    world.agent.send(signal.SIGSTOP)
    try:
        yield
    finally:
        world.agent.send(signal.SIGCONT)


@contextmanager
def dead(world: World) -> Iterator[None]:
    world.agent.sigkill()
    yield


@pytest.mark.parametrize("life", [running, busy, stopped, dead])
def test_every_one_of_1000_restarts_is_typed(own: World, life: Life) -> None:
    """The README's example: the first thing that the service does is to connect."""
    root = own.cgroup.path
    own.place("apps")
    (root / "session").rmdir()

    def manager() -> Counter[str]:
        said: Counter[str] = Counter()
        for number in range(250):
            for path in ("session", "apps/one.service"):
                said += restarts(root / path, 2, partial(source, KINDS[number % len(KINDS)]))
        return said

    with life(own):
        assert from_outside(own, manager) == {SESSION.word: 1000}


def test_server_binds_an_address_of_its_type_as_it_starts(own: World) -> None:
    (own.cgroup.path / "session").rmdir()
    address = own.address(SESSION, Family.IPV6)
    own.agent.sigkill()

    def serve() -> str:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind((address, 0))
        return "bound"

    assert from_outside(own, lambda: restarted(own.cgroup.path / "session", serve)) == "bound"


#: path -> the type that a socket gets there.
PATHS = {
    "top/x/app.slice/abc-1.scope": FIXED,
    "top/x/app.slice/zbc-1.scope": None,
    "top/x/app.slice/abc-12.scope": None,
    "top/x/app.slicer/abc-1.scope": None,
    "far/off/one": FIXED,
    "far/off/one/more/below": FIXED,  # inherited
    "far/off/two": None,
    "apps/one.service/sub": SESSION,
    "apps/one.scope": None,
    "apps/\u00e9.service": SESSION,
    f"apps/{'x' * 247}.service": SESSION,  # NAME_MAX
}


def test_path_is_followed_as_it_appears_with_the_agent_dead(own: World) -> None:
    for path in ("far/off/one", "far/off", "far"):
        (own.cgroup.path / path).rmdir()
    own.agent.sigkill()
    found = {path: own.place(path).do(source) for path in PATHS}
    assert found == {path: (type or NONE).word for path, type in PATHS.items()}


def test_glob_that_the_kernel_cannot_follow_fails_closed_until_the_agent_is_there(
    own: World,
) -> None:
    """What surely doesn't match is let alone, even in the same folder."""
    own.place("rough")
    wait_until(lambda: bool(own.agent.read("status")), "the agent")
    own.agent.sigkill()
    place, other = own.place("rough/xy"), own.place("rough/x").cgroup
    other.path.rmdir()
    with pytest.raises(OSError, match="Cannot assign requested address"):
        place.do(source)
    assert own.place("roughly").do(source) == NONE.word
    own.agent.start()
    assert place.do(source) == FIXED.word


def test_only_root_names_cgroups_into_a_class(own: World) -> None:
    """A user's tree: exact paths and delegated globs count there, other globs don't."""
    user = delegated(own)
    (user / "own.service").rmdir()
    own.agent.sigkill()
    names = ("own.service", "my-1.scope", "root-1.scope")
    from_outside(own, lambda: list(map(os.mkdir, (user / name for name in names))), uid=NOBODY)
    found = [own.place(f"user/u/{name}").do(source) for name in names]
    assert found == [FIXED.word, SESSION.word, NONE.word]
    own.agent.start()
    found = [own.place(f"user/u/{name}").do(source) for name in names]
    assert found == [FIXED.word, SESSION.word, NONE.word]


@pytest.mark.parametrize("life", [running, dead])
def test_user_who_floods_his_class_takes_no_room_of_others(own: World, life: Life) -> None:
    user = delegated(own)
    before = own.place("user/u/my-old.scope")
    wait_until(lambda: before.do(source) == SESSION.word, "classified")
    most = abi.MAX_DELEGATED

    def flood() -> None:
        for number in range(most + 200):
            (user / f"my-{number}.scope").mkdir()

    with life(own):
        from_outside(own, flood, uid=NOBODY)
        wait_until(lambda: _largest(own) == most, "his share is full, and not overfull")
        with MapWriter(own.agent.pins) as datapath:
            assert datapath.losses()["cgroup"] > 0
        root = own.cgroup.path / "apps"
        root.mkdir(exist_ok=True)
        said = from_outside(own, lambda: restarts(root / "one.service", 20, source))
        assert said == {SESSION.word: 20}
        assert before.do(source) == SESSION.word


def test_room_of_cgroups_that_are_gone_is_given_back_with_the_agent_dead(own: World) -> None:
    user = delegated(own)
    own.agent.sigkill()

    def churn() -> None:
        for number in range(3 * abi.MAX_DELEGATED):
            folder = user / f"my-{number}.scope"
            folder.mkdir()
            folder.rmdir()

    from_outside(own, churn, uid=NOBODY)
    # The kernel lets go of a cgroup a moment after rmdir(2).
    wait_until(lambda: _rows(own) < 100, "the rows are gone", 20)
    assert own.place("user/u/my-last.scope").do(source) == SESSION.word


def test_cgroup_of_v2_keeps_its_name(own: World) -> None:
    """Else a rename would have to be followed."""
    own.place("plain/a")
    with pytest.raises(PermissionError):
        os.rename(own.cgroup.path / "plain/a", own.cgroup.path / "plain/b")


def _rows(world: World) -> int:
    with MapWriter(world.agent.pins) as datapath:
        return len(datapath.classified())


def _largest(world: World) -> int:
    """How many rows the class has that has most."""
    with MapWriter(world.agent.pins) as datapath:
        return max(Counter(row.class_id for row in datapath.classified().values()).values())
