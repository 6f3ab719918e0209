"""The same operations on one of our sockets and on a stock one, for comparison.

The twin is a process outside of the cgroup that the programs are attached to, in the same network
namespace: none of them runs for its sockets.
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, Generic, TypeVar

from tests.lab.place import Place
from tests.lab.process import enter_netns

Q = TypeVar("Q")
A = TypeVar("A")
libc: Final = ctypes.CDLL(None, use_errno=True)


class Twin(Generic[Q, A]):
    """Performs what it is asked to in another process."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def ask(self, question: Q) -> A:
        """The answer of the function that the twin runs."""
        self._connection.send(question)
        answer: A = self._connection.recv()
        return answer


@contextmanager
def twin(perform: Callable[[Q], A], netns: Path, uid: int = 0) -> Iterator[Twin[Q, A]]:
    """A process that answers with `perform`, in the cgroup of whoever calls this."""
    ours, its = Pipe()
    pid = os.fork()
    if pid == 0:
        ours.close()
        try:
            enter_netns(netns)
            become(uid)
            while True:
                its.send(perform(its.recv()))
        except EOFError:
            pass
        finally:
            os._exit(0)
    its.close()
    try:
        yield Twin(ours)
    finally:
        ours.close()
        os.waitpid(pid, 0)


def become(uid: int) -> None:
    """Give up root for a user without privileges."""
    if uid:
        os.setgroups([])
        os.setgid(uid)
        os.setuid(uid)


def beside_twin(
    place: Place, perform: Callable[[Q], A], body: Callable[[Twin[Q, A]], None], uid: int = 0
) -> None:
    """Run `body` as an application at `place`, with a twin outside of all cgroups of the agent."""
    with twin(perform, place.netns.path, uid) as other:
        place.do(lambda: body(other), uid=uid, timeout_s=60)
