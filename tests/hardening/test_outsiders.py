"""What the agent keeps is root's alone: an unprivileged caller gets nothing of it."""

import ctypes
import errno
import os
import re
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from odm_agent.control.client import ControlClient
from odm_agent.core.errors import DatapathError, OdmError
from odm_agent.datapath import libbpf
from odm_agent.datapath.install import pins
from odm_agent.folders import distrust
from odm_agent.journal import Journal, JournalError
from tests.lab.client import Kind, call
from tests.lab.process import forked
from tests.lab.world import World

NOBODY: Final = 65534
_PR_SET_DUMPABLE: Final = 4
_CLONE_NEWUSER: Final = 0x10000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def as_nobody(attempt: Callable[[], str]) -> str:
    """As a user without privileges."""
    return forked(attempt, uid=NOBODY)


def as_root_of_his_own(attempt: Callable[[], str]) -> str:
    """As the same user in a user namespace of his own, where he is root and may do everything."""

    def enter() -> str:
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)  # else his own /proc/self is not his
        if _libc.unshare(_CLONE_NEWUSER):
            pytest.skip(f"no user namespaces: {os.strerror(ctypes.get_errno())}")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {NOBODY} 1")
        Path("/proc/self/gid_map").write_text(f"0 {NOBODY} 1")
        os.setuid(0)
        assert (os.getuid(), os.geteuid()) == (0, 0)
        return attempt()

    return forked(enter, uid=NOBODY)


CALLERS: Final = {"nobody": as_nobody, "root-of-his-own": as_root_of_his_own}
each_caller = pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)


def told(attempt: Callable[[], object]) -> str:
    """What an attempt comes to: a word for an errno, or our own words."""
    try:
        attempt()
    except DatapathError as error:
        return errno.errorcode[libbpf.error_code(error)]
    except OdmError as error:
        return str(error)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


@contextmanager
def opened(*paths: Path) -> Iterator[None]:
    """Let everybody through to what is behind these, which then has to refuse by itself."""
    before = {path: stat.S_IMODE(path.stat().st_mode) for path in paths}
    for path in paths:
        path.chmod(0o777)
    try:
        yield
    finally:
        for path, mode in before.items():
            path.chmod(mode)


def _places(world: World) -> tuple[list[Path], list[Path]]:
    """Folders and files of the agent."""
    agent = world.agent
    state, pinned = agent.folder / "state", agent.pins
    files = [agent.socket, *state.iterdir(), *pinned.glob("odm_*"), *(pinned / "links").iterdir()]
    return [agent.socket.parent, state, pinned, pinned / "links"], files


def test_all_is_root_s_and_nobody_else_s(world: World) -> None:
    folders, files = _places(world)
    assert {"control.sock", "state.db", "odm_origins", "odm_egress"} <= {f.name for f in files}
    for path, mode in [*((each, 0o700) for each in folders), *((each, 0o600) for each in files)]:
        found = path.stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, mode), path


@each_caller
def test_an_outsider_passes_none_of_the_folders(
    world: World, caller: Callable[[Callable[[], str]], str]
) -> None:
    folders, files = _places(world)
    attempts = [*(lambda each=each: os.listdir(each) for each in folders)]
    attempts += [*(lambda each=each: list(each.open("rb")) for each in files)]
    said = caller(lambda: " ".join(sorted({told(each) for each in attempts})))
    assert said == "EACCES"


@each_caller
def test_an_outsider_opens_nothing_even_where_the_folders_let_him_through(
    world: World, caller: Callable[[Callable[[], str]], str]
) -> None:
    folders, files = _places(world)
    state = [each for each in files if each.parent.name == "state"]
    pinned = [each for each in files if each.name.startswith("odm_")]

    def attempt() -> str:
        said = {told(lambda each=each: each.read_bytes()) for each in state}  # type: ignore[misc]
        said |= {told(lambda each=each: libbpf.get_pinned(each)) for each in pinned}  # type: ignore[misc]
        said.add(told(lambda: _call(world)))
        return " ".join(sorted(said))

    with opened(*folders):
        said = caller(attempt)
    assert set(said.replace("Permission denied", "EACCES").split()) & {"done"} == set()
    assert {word for word in said.split() if word.isupper()} <= {"EACCES", "EPERM"}, said


@each_caller
def test_whoever_reaches_the_control_socket_is_asked_who_he_is(
    world: World, caller: Callable[[Callable[[], str]], str]
) -> None:
    """A user namespace makes anybody root, but not for us."""
    with opened(world.agent.socket.parent, world.agent.socket):
        assert "only root may control the agent" in caller(lambda: told(lambda: _call(world)))
    assert world.agent.read("status")["pid"]


def _call(world: World) -> object:
    with ControlClient(world.agent.socket) as client:
        return client.call("status")


def test_metrics_tell_no_process_and_no_address(world: World) -> None:
    """Everybody on the host can read them."""

    def application(ready: Callable[[object], None]) -> None:
        Path("/proc/self/comm").write_text("telltale")
        with socket.create_connection(Kind.TCP4.destination) as sock:
            ready(sock.getsockname())
            threading.Event().wait(10)

    world.place("fixed").do(lambda: call(Kind.TCP6))
    with world.place("fixed").background(application):
        assert any(each["process"] == "telltale" for each in world.agent.read("sockets"))
        text = world.agent.metrics()
    assert 'odm_sockets{class="fixed"' in text
    assert "telltale" not in text
    addresses = [
        *re.findall(r"\d+\.\d+\.\d+\.\d+", text),
        *re.findall(r"[0-9a-f]*::[0-9a-f]*", text),
    ]
    assert not addresses
    for each in ("203.0.113", "192.0.2", "2001:db8", "odm-test", str(world.agent.folder)):
        assert each not in text


# --- folders that were somebody else's before ----------------------------------------------------


def test_pin_folder_that_somebody_else_has_made_is_not_used(own: World) -> None:
    """Anybody may make a folder in bpffs: its owner could remove our links from it."""
    agent = own.agent
    agent.close()
    forked(lambda: agent.pins.mkdir(mode=0o777), uid=NOBODY)
    try:
        with pytest.raises(AssertionError, match=f"belongs to uid {NOBODY}.*agent.pin_dir"):
            agent.start()
        assert not list(agent.pins.iterdir()), "nothing is put there"
        os.chown(agent.pins, 0, 0)
        agent.start()
    finally:
        with suppress(OSError):
            agent.pins.rmdir()


def test_pin_folder_that_leads_elsewhere_is_not_used(own: World) -> None:
    own.agent.close()
    elsewhere = own.agent.pins.with_name(f"{own.agent.pins.name}-elsewhere")
    elsewhere.mkdir()
    forked(lambda: own.agent.pins.symlink_to(elsewhere), uid=NOBODY)
    try:
        with pytest.raises(AssertionError, match=f"belongs to uid {NOBODY}"):
            own.agent.start()
    finally:
        own.agent.pins.unlink()
        pins.remove(elsewhere)


def test_state_and_socket_are_not_kept_in_a_folder_of_others(tmp_path: Path) -> None:
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    os.chown(theirs, NOBODY, NOBODY)
    with pytest.raises(JournalError, match=f"belongs to uid {NOBODY}"):
        Journal(theirs / "state" / "state.db")
    led = tmp_path / "led"
    led.symlink_to(theirs)
    assert distrust(led) == f"{theirs} belongs to uid {NOBODY}"
    theirs.chmod(0o755)
    os.chown(theirs, 0, 0)
    theirs.chmod(0o777)
    with pytest.raises(JournalError, match="everybody may write"):
        Journal(theirs / "state.db")
    theirs.chmod(0o1777)
    assert distrust(theirs) is None


def test_database_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    Journal(path).close()
    path.chmod(0o644)
    journal = Journal(path)
    journal.secret()
    try:
        modes = {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    finally:
        journal.close()
    assert modes == {0o600}


@pytest.fixture
def own(tmp_path: Path) -> Iterator[World]:
    """The standard site, for one test alone; its agent is not started."""
    with World(tmp_path, start=False) as made:
        yield made
