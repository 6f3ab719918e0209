"""Streams from the mobile host to the correspondent, and what the correspondent has of them.

iperf3, ssh and MPTCP. What is lost is told by numbered records (iperf3: by its own two reports);
the silence is what the peer sees, the longest time in which nothing new came.
"""

import json
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, Self

from tests.lab.capture import EVERYWHERE, Capture
from tests.lab.place import Place
from tests.lab.process import wait_until
from tests.netlab import ticks
from tests.netlab.correspondent import Iperf
from tests.netlab.plan import CORE
from tests.netlab.server import Server, listens
from tests.netlab.sshd import Sshd
from tests.netlab.topology import NetLab

#: Where the correspondent hears TCP and MPTCP.
TICKS_PORT: Final = 7000
_IPERF_PORTS: Final = range(5300, 5400)
#: How often a record is sent: the resolution of a silence, milliseconds.
EVERY_MS: Final = 5
_FLOWS_S: Final = 20.0
_ENDS_S: Final = 6.0
_PYTHON: Final = (sys.executable, "-S", ticks.__file__)
#: iperf3 sends a block of so many bytes each 4 ms.
_BLOCK: Final = 500
_RATE: Final = "1M"


@dataclass(frozen=True)
class Outcome:
    """What became of a stream: bytes that the host had sent and the peer got, and how it ended.

    `error` is the errno's name that the application saw, `error_s` when (monotonic); None: none.
    """

    sent: int
    got: int
    source: str
    error: str | None = None
    error_s: float | None = None

    @property
    def lost(self) -> int:
        """Bytes that the application has sent, and that never came."""
        return self.sent - self.got


class Stream(ABC):
    """One stream; `stop` ends it in order."""

    @abstractmethod
    def arrivals(self) -> list[float]:
        """When something new came to the peer, by the monotonic clock."""

    @abstractmethod
    def stop(self) -> Outcome:
        """Let it come to its end; what became of it. One that hangs is killed."""

    @abstractmethod
    def kill(self) -> None:
        """End at once what is left of it here."""

    def silence_s(self, since_s: float, until_s: float | None = None) -> float:
        """The longest time without news at the peer that has not ended before `since_s`.

        A stream of which nothing came any more is silent until now.
        """
        end_s = time.monotonic() if until_s is None else until_s
        times = [*(each for each in self.arrivals() if each < end_s), end_s]
        gaps = [late - early for early, late in pairwise(times) if late >= since_s]
        return max(gaps, default=end_s - since_s)

    def await_flow(self, since_s: float, timeout_s: float = _FLOWS_S) -> None:
        """Wait until news come that are later than that."""
        wait_until(
            lambda: any(each > since_s for each in self.arrivals()[-1:]), "it flows", timeout_s
        )


class _Ticks(Stream):
    """A stream of numbered records, by the files that both ends write."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._said = folder / f"{name}.said"

    def arrivals(self) -> list[float]:
        return [each[0] for each in self._notes()]

    def _notes(self) -> list[tuple[float, int]]:
        try:
            data = (self._folder / f"{self._name}.notes").read_bytes()
        except FileNotFoundError:
            return []
        whole = len(data) // ticks.NOTE.size * ticks.NOTE.size
        notes = [(time / 1e9, n) for time, n in ticks.NOTE.iter_unpack(data[:whole])]
        assert all(n != ticks.WRONG for _, n in notes), "other bytes came than were sent"
        return notes

    def _outcome(self) -> Outcome:
        """When the sender has ended; the last records may still be under way."""
        said: dict[str, Any] = {"sent": 0, "error": "killed", "at_s": time.monotonic()}
        with suppress(FileNotFoundError):
            said = json.loads(self._said.read_text())
        if said["error"] is None:
            with suppress(AssertionError):
                wait_until((self._folder / f"{self._name}.end").exists, "the peer's end", 5)
        notes = self._notes()
        source = self._folder / f"{self._name}.source"
        return Outcome(
            said["sent"] * ticks.RECORD.size,
            (notes[-1][1] if notes else 0) * ticks.RECORD.size,
            source.read_text().removeprefix("::ffff:") if source.exists() else "-",
            said["error"],
            said["at_s"] if said["error"] else None,
        )


class _Connection(_Ticks):
    """TCP or MPTCP, by a small program."""

    def __init__(self, folder: Path, name: str, place: Place, kind: str) -> None:
        super().__init__(folder, name)
        to = (name, str(CORE[1]), str(TICKS_PORT))
        self._process = place.spawn(
            [*_PYTHON, "send", kind, str(self._said), str(EVERY_MS), *to], start_new_session=True
        )

    def stop(self) -> Outcome:
        _end(self._process)
        return self._outcome()

    def kill(self) -> None:
        _ended(self._process, 0)


class _Ssh(_Ticks):
    """ssh, which sends what it is given as its input; the peer's end is what it has started."""

    def __init__(self, folder: Path, name: str, place: Place, server: Sshd) -> None:
        super().__init__(folder, name)
        self._sender = subprocess.Popen(
            [*_PYTHON, "send", "stdout", str(self._said), str(EVERY_MS)],
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        remote = f"exec {' '.join(_PYTHON)} hear {folder} {name}"
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._ssh = place.spawn(
                server.call(remote),
                stdin=self._sender.stdout,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        assert self._sender.stdout is not None
        self._sender.stdout.close()  # ssh alone reads: the sender learns of its end

    def stop(self) -> Outcome:
        _end(self._sender)
        hangs = not _ended(self._ssh, _ENDS_S)
        outcome = self._outcome()
        if outcome.error is None and (hangs or self._ssh.returncode):
            said = "hangs" if hangs else self._log.read_text().strip().rpartition("\n")[2]
            return Outcome(outcome.sent, outcome.got, outcome.source, said, time.monotonic())
        return outcome

    def kill(self) -> None:
        for each in (self._sender, self._ssh):
            _ended(each, 0)


class _Iperf(Stream):
    """iperf3, whose server has one stream only; arrivals are packets with data."""

    def __init__(self, streams: "Streams", name: str, place: Place, seconds: float) -> None:
        self._streams, self._name = streams, name
        self.port = streams.free_port()
        folder = streams.folder / f"{name}.iperf"
        folder.mkdir()
        self._server = Iperf(streams.lab.core, folder, self.port)
        self._server.start()
        self._report = folder / "client.json"
        with self._report.open("wb") as report:
            self._process = place.spawn(
                [
                    *("iperf3", "-c", str(CORE[1]), "-p", str(self.port), "-J", "-T", name),
                    *("-b", _RATE, "-l", str(_BLOCK), "-t", f"{seconds:.0f}"),
                ],
                stdout=report,
                start_new_session=True,
            )
        self._until_s = time.monotonic() + seconds + _ENDS_S

    def arrivals(self) -> list[float]:
        return self._streams.data_at(self.port)

    def stop(self) -> Outcome:
        hangs = not _ended(self._process, max(0.0, self._until_s - time.monotonic()))
        self._server.stop()
        try:
            report = json.loads(self._report.read_text())
        except json.JSONDecodeError:
            report = {}
        error = "hangs" if hangs else report.get("error")
        ends = report.get("end", {})
        sent = ends.get("sum_sent", {}).get("bytes", 0)
        got = ends.get("sum_received", {}).get("bytes", 0)
        source = "".join(sorted(self._streams.sources_at(self.port)))
        return Outcome(sent, got, source, error, time.monotonic() if error else None)

    def kill(self) -> None:
        _ended(self._process, 0)
        self._server.kill()


class _Ears(Server):
    """The correspondent's end of TCP and MPTCP streams."""

    name = "the receiver of streams"

    def __init__(self, lab: NetLab, folder: Path) -> None:
        self._folder = folder
        super().__init__(lab.core, folder / "ears.log")

    def command(self) -> Sequence[str]:
        """In the foreground."""
        return [*_PYTHON, "listen", str(CORE[1]), str(TICKS_PORT), str(self._folder)]

    def ready(self) -> bool:
        """Whether it takes connections."""
        return listens(self.pid, "tcp6", TICKS_PORT)


class Streams:
    """The correspondent's servers for them, and a capture of what comes to it."""

    def __init__(self, lab: NetLab) -> None:
        self.lab, self.folder = lab, lab.folder / "streams"
        self._data: dict[int, list[float]] = {}
        self._sources: dict[int, set[str]] = {}
        self._to_monotonic_s = time.monotonic() - time.time()
        self._ports = iter(_IPERF_PORTS)
        with ExitStack() as stack:
            self.folder.mkdir()
            self._sshd = stack.enter_context(Sshd(lab.core, lab.folder))
            stack.enter_context(_Ears(lab, self.folder))
            self._capture = stack.enter_context(Capture(lab.core, EVERYWHERE))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, kind: str, name: str, place: Place, seconds: float = 10.0) -> Stream:
        """Start a stream (`ssh`, `tcp`, `mptcp`, `iperf3`) and return when it flows.

        `seconds` is how long an iperf3 runs; the others do until they are stopped.
        """
        began_s = time.monotonic()
        stream: Stream
        match kind:
            case "ssh":
                stream = _Ssh(self.folder, name, place, self._sshd)
            case "iperf3":
                stream = _Iperf(self, name, place, seconds)
            case "tcp" | "mptcp":
                stream = _Connection(self.folder, name, place, kind)
            case _:
                raise ValueError(kind)
        self._stack.callback(stream.kill)
        stream.await_flow(began_s)
        return stream

    def free_port(self) -> int:
        """A port of the correspondent that no stream has had."""
        return next(self._ports)

    def data_at(self, port: int) -> list[float]:
        """When packets with data came to a port, by the monotonic clock."""
        self.look()
        return self._data.get(port, [])

    def sources_at(self, port: int) -> set[str]:
        """From where they came."""
        self.look()
        return self._sources.get(port, set())

    def look(self) -> None:
        """Take what was captured out of the kernel's buffer, which is not without end."""
        for each in self._capture.packets():
            if each.payload and each.port in _IPERF_PORTS:
                at_s = each.time_s + self._to_monotonic_s
                self._data.setdefault(each.port, []).append(at_s)
                self._sources.setdefault(each.port, set()).add(str(each.source))


def _ended(process: "subprocess.Popen[Any]", timeout_s: float) -> bool:
    """Whether it has ended by itself; else it is killed."""
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False
    return True


def _end(process: "subprocess.Popen[Any]") -> None:
    process.terminate()
    _ended(process, _ENDS_S)
