"""Where an application runs: a cgroup (its class) in a network namespace (its host)."""

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import Pipe
from typing import TYPE_CHECKING, Any, TypeVar

from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs
from tests.lab.process import ChildError, enter_netns

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

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
        with self.conversation(function) as talk:
            yield talk.hear()

    @contextmanager
    def conversation(self, function: Callable[[Ready], None]) -> "Iterator[Conversation]":
        """Run `function` beside the test, as `background` does; it may say `ready` many times."""
        hearing, saying = Pipe(duplex=False)
        pid = os.fork()
        if pid == 0:
            hearing.close()
            self._child(function, saying)
        saying.close()
        try:
            yield Conversation(pid, hearing)
        finally:
            hearing.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def _child(self, function: Callable[[Ready], None], saying: "Connection[Any, Any]") -> None:
        try:
            self.cgroup.procs.write_text("0")
            enter_netns(self.netns.path)
            function(saying.send)
        except BaseException as error:
            saying.send(error)
        finally:
            os._exit(0)


@dataclass(frozen=True)
class Conversation:
    """A function that runs beside the test, by its process."""

    pid: int
    _hearing: "Connection[Any, Any]"

    def hear(self, timeout_s: float = 10) -> Any:
        """The next thing that it says; what it raised is raised here."""
        if not self._hearing.poll(timeout_s):
            raise ChildError(f"the background function said nothing within {timeout_s} s")
        try:
            value = self._hearing.recv()
        except EOFError:
            raise ChildError("the background function died before it said anything") from None
        if isinstance(value, BaseException):
            raise value
        return value
