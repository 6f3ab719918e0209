"""A stock server as a process in a namespace, with all that it says in a file."""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from tests.lab.netns import NetNs
from tests.lab.process import wait_until

_START_S: Final = 20.0
_STOP_S: Final = 10.0
_LAST_LINES: Final = 40


class Server(ABC):
    """One server, started with its context and gone with it; it may be stopped and started."""

    #: What messages call it.
    name = "server"
    #: What asks it to end.
    stop_signal = signal.SIGTERM

    def __init__(self, netns: NetNs | None, log: Path) -> None:
        """`netns` is where it runs; None: where we do."""
        self.netns, self.log = netns, log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What is run; it must stay in the foreground."""

    @abstractmethod
    def ready(self) -> bool:
        """Whether it serves."""

    def environment(self) -> Mapping[str, str]:
        """What it finds in its environment beside ours."""
        return {}

    @property
    def pid(self) -> int:
        """The running server's process."""
        assert self._process is not None, f"{self.name} doesn't run"
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, and return when it serves."""
        assert not self.running, f"{self.name} runs already"
        command = list(self.command())
        with self.log.open("ab") as output:
            # A session of its own: Ctrl-C is for us, who then end what we started.
            self._process = subprocess.Popen(
                command if self.netns is None else self.netns.command(command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment()},
                start_new_session=True,
            )
        try:
            wait_until(self._ready_or_dead, f"{self.name} serves", _START_S)
            assert self.running, f"{self.name} ended at its start"
        except BaseException as error:
            self.kill()
            error.add_note(f"{self.name} said:\n{self.said()}")
            raise

    def stop(self) -> None:
        """Ask it to end, and return when it has; one that doesn't is killed."""
        if self._process is None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it anew."""
        self.stop()
        self.start()

    def said(self) -> str:
        """The end of what it said."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(lines[-_LAST_LINES:])

    def _ready_or_dead(self) -> bool:
        return not self.running or self.ready()


def listens(pid: int, table: str, port: int) -> bool:
    """Whether /proc/net/`table` (tcp6, udp6, …) of a process's namespace has a socket at a port."""
    try:
        lines = Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    except OSError:  # it is over
        return False
    served = {"0A", "07"}  # TCP_LISTEN; what an unconnected UDP socket has there
    return any(
        fields[1].rpartition(":")[2] == f"{port:04X}" and fields[3] in served
        for fields in map(str.split, lines)
    )
