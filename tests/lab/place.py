"""Where an application runs: a cgroup (its class) in a network namespace (its host)."""

import os
import pickle
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from select import select
from typing import Any, TypeVar

from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs
from tests.lab.process import ChildError, enter_netns

R = TypeVar("R")
#: Tells the parent that the background function is ready (and anything it wants to say).
Ready = Callable[[Any], None]


@dataclass(frozen=True)
class Place:
    """Runs functions and commands as an application of a class."""

    cgroup: Cgroup
    netns: NetNs

    def do(self, function: Callable[[], R], *, uid: int = 0, timeout_s: float = 20) -> R:
        """The result of `function`, called in a process of its own here."""
        return self.cgroup.call(function, netns=self.netns, uid=uid, timeout_s=timeout_s)

    def run(
        self, command: Sequence[str], *, input: str | None = None, timeout_s: float = 20
    ) -> "subprocess.CompletedProcess[str]":
        """Run a command here to its end."""
        return self.cgroup.run(command, netns=self.netns, input=input, timeout_s=timeout_s)

    def spawn(self, command: Sequence[str], **options: Any) -> "subprocess.Popen[str]":
        """Start a command here."""
        return self.cgroup.spawn(command, netns=self.netns, **options)

    @contextmanager
    def background(self, function: Callable[[Ready], None]) -> Iterator[Any]:
        """Run `function` beside the test, from when it says `ready(value)`; yields that value.

        An exception before it is ready is the test's. It is killed at the end.
        """
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            self._child(function, writer)
        os.close(writer)
        try:
            if not select([reader], [], [], 10)[0]:
                raise ChildError("the background function was not ready within 10 s")
            data = os.read(reader, 65536)
            if not data:
                raise ChildError("the background function died before it was ready")
            value = pickle.loads(data)
            if isinstance(value, BaseException):
                raise value
            yield value
        finally:
            os.close(reader)
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _child(self, function: Callable[[Ready], None], writer: int) -> None:
        try:
            self.cgroup.procs.write_text("0")
            enter_netns(self.netns.path)
            function(lambda value: void(os.write(writer, pickle.dumps(value))))
        except BaseException as error:
            os.write(writer, pickle.dumps(error))
        finally:
            os._exit(0)


def void(_: object) -> None:
    """Take a value that nobody wants."""
