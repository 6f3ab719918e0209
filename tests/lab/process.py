"""Run a function somewhere else: in another network namespace, cgroup or user."""

import ctypes
import mmap
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

CLONE_NEWNET: Final = 0x40000000
_libc: Final = ctypes.CDLL(None, use_errno=True)


def enter_netns(path: Path) -> None:
    """Move the calling *thread* into the network namespace at `path`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns({path})")
    finally:
        os.close(descriptor)


def threaded(path: Path, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Call `function` in a thread that is in the namespace at `path`.

    What it returns may hold sockets: they stay in that namespace, and in *this* process's cgroup.
    """
    outcome: list[R] = []
    failure: list[BaseException] = []

    def body() -> None:
        try:
            enter_netns(path)
            outcome.append(function(*args, **kwargs))
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


class ChildError(Exception):
    """A forked child died before it could answer, or did not answer in time."""


def _answer(function: Callable[[], Any]) -> bytes:
    try:
        return pickle.dumps((True, function()))
    except BaseException as error:
        try:
            return pickle.dumps((False, error))
        except Exception:
            return pickle.dumps((False, ChildError(repr(error))))


def forked(
    function: Callable[[], R],
    *,
    netns: Path | None = None,
    procs: Path | None = None,
    uid: int = 0,
    timeout_s: float = 30.0,
) -> R:
    """Call `function` in a forked child: in the cgroup of file `procs`, in `netns`, as `uid`.

    The result (or the exception) comes back pickled; raises ChildError if the child dies or hangs.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        signal.alarm(int(timeout_s) + 1)

        def placed() -> R:
            if procs is not None:
                procs.write_text("0")
            if netns is not None:
                enter_netns(netns)
            if uid:
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
            return function()

        data = _answer(placed)
        try:
            while data:
                data = data[os.write(writer, data) :]
        finally:
            os._exit(0)
    os.close(writer)
    chunks = bytearray()
    try:
        while chunk := os.read(reader, 65536):
            chunks += chunk
    finally:
        os.close(reader)
        _reap(pid)
    if not chunks:
        raise ChildError("the child ended without an answer (killed, or out of time)")
    succeeded, value = pickle.loads(bytes(chunks))
    if not succeeded:
        raise value
    result: R = value
    return result


def _reap(pid: int) -> None:
    """Wait for a child that has closed its pipe; end it if it lingers."""
    deadline = time.monotonic() + 2
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return
        time.sleep(0.002)


@contextmanager
def in_step() -> Iterator[Callable[[], None]]:
    """The body runs in two processes at once, each on a CPU of its own where there are two.

    Yields what waits, without sleeping, until the other process has come as far: what follows
    happens at the same moment in both. Only this process returns from it, after the other's end.
    """
    turns = memoryview(mmap.mmap(-1, 16)).cast("Q")
    child = os.fork()
    me = int(child == 0)
    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cpus)[-me]})

    def wait() -> None:
        turns[me] += 1
        while turns[1 - me] < turns[me]:
            pass

    try:
        yield wait
    finally:
        if child == 0:
            os._exit(0)
        turns[me] = (1 << 64) - 1  # whatever happened here, the other one need not wait
        os.waitpid(child, 0)
        os.sched_setaffinity(0, cpus)


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 5.0) -> None:
    """Poll until `condition()`; AssertionError naming `what` if it never comes."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s} s in vain: {what}")
        time.sleep(0.01)
