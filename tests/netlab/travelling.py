"""A host with an agent that moves between the two sites, and what its streams make of it."""

import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Self

from odm_agent.core.model import TYPES, AddressType
from tests.lab.agent import LabClass
from tests.lab.host import GRACEFUL, NONPERSISTENT
from tests.lab.place import Ready
from tests.lab.process import wait_until
from tests.netlab.kea import STANDARD, Rules
from tests.netlab.plan import CORE
from tests.netlab.roaming import Roamer
from tests.netlab.site import AccessSite
from tests.netlab.streams import Stream, Streams
from tests.netlab.topology import NetLab

#: One class of each type, called as the type; those whose addresses go are told so at once.
CLASSES: Final = {
    type.word: LabClass(
        allow=(type,),
        default=type,
        on_handover="end" if type in (NONPERSISTENT, GRACEFUL) else None,
    )
    for type in TYPES
}
_WORDS: Final = [type.word for type in TYPES]
_DELEGATION: Final = {"interface": ["w0", "w1"], "types": _WORDS, "at_start": _WORDS}
#: A client may send 20 messages in 20 seconds (RFC 8415, section 14.1; `sources.dhcpv6.timing`), so
#: who moves again after so long (seconds) waits for nothing.
REST_S: Final = 10.0
_ATTACHED_S: Final = 60.0
_CALL_EVERY_S: Final = 0.02
_CALL_S: Final = 10.0
_CALLS_S: Final = 60.0


class Order(Enum):
    """Whether there is a link to the next site before the one to the last is lost."""

    MAKE_FIRST = "make-before-break"
    BREAK_FIRST = "break-before-make"


@dataclass(frozen=True)
class Move:
    """When the link to the one site was lost, and that to the other one was there (monotonic)."""

    left: AccessSite
    came: AccessSite
    lost_s: float
    linked_s: float


@dataclass(frozen=True)
class Call:
    """An attempt to connect: when, how long it took in seconds, and the errno's name if in vain."""

    at_s: float
    took_s: float
    error: str | None


class Traveller:
    """The host, at one of the sites; both are there while it stays."""

    def __init__(
        self,
        folder: Path,
        rules: Rules = STANDARD,
        classes: Mapping[str, LabClass] = CLASSES,
        *,
        agent: Mapping[str, str] | None = None,
    ) -> None:
        """`agent` is as in `Settings`."""
        with ExitStack() as stack:
            self.lab = stack.enter_context(NetLab(rules))
            self.streams = stack.enter_context(Streams(self.lab))
            self.roamer = stack.enter_context(
                Roamer(self.lab, folder, classes, {"isp": _DELEGATION}, agent=agent)
            )
            self.await_attached(self.lab.a)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def by(self) -> AccessSite:
        """The site by which all types serve now."""
        rows = self.roamer.agent.read("prefixes")
        (interface,) = {row["interface"] for row in rows if row["state"] == "ready"}
        return next(each for each in self.lab.sites.values() if each.interface == interface)

    def other(self, site: AccessSite) -> AccessSite:
        """The other one of the two."""
        return self.lab.b if site is self.lab.a else self.lab.a

    def await_attached(self, site: AccessSite) -> None:
        """Wait until all types serve by a site, and by no other."""
        letter = site.plan.letter
        wait_until(
            lambda: self._attached() is site, f"all types serve by site {letter}", _ATTACHED_S
        )

    def settled(self) -> AccessSite:
        """The site by which all types serve, when that is one."""
        wait_until(lambda: self._attached() is not None, "all types serve by one site", _ATTACHED_S)
        return self.by

    def _attached(self) -> AccessSite | None:
        rows = self.roamer.agent.read("prefixes")
        ready = [row for row in rows if row["state"] == "ready"]
        if {row["type"] for row in ready} != set(_WORDS):
            return None
        by = {row["interface"] for row in ready}
        return next((e for e in self.lab.sites.values() if by == {e.interface}), None)

    @contextmanager
    def moving(self, order: Order) -> Iterator[Move]:
        """Move to the other site; at the end both links are there again, and it stays."""
        left = self.by
        came = self.other(left)
        if order is Order.BREAK_FIRST:
            came.unplug()
            time.sleep(0.3)
        lost_s = left.unplug()
        linked_s = lost_s
        if order is Order.BREAK_FIRST:
            linked_s = came.plug()
        yield Move(left, came, lost_s, linked_s)
        self.await_attached(came)
        left.plug()
        left.await_router()

    def open(self, kind: str, type: AddressType, name: str, seconds: float = 10.0) -> Stream:
        """Start a stream of the type's class."""
        return self.streams.open(kind, name, self.roamer.places[type.word], seconds)

    @contextmanager
    def calling(self, type: AddressType) -> Iterator[Callable[[], list[Call]]]:
        """New sockets of a class connect to the correspondent, many a second.

        Yields what ends that, waits until the last one is decided, and returns them.
        """
        enough = self.roamer.agent.folder / "enough"
        enough.unlink(missing_ok=True)

        def application(ready: Ready) -> None:
            ready(None)
            ready(_calls(enough))

        def calls() -> list[Call]:
            enough.touch()
            made: list[Call] = talk.hear(2 * _CALL_S)
            return made

        with self.roamer.places[type.word].conversation(application) as talk:
            talk.hear()
            yield calls


def _calls(enough: Path) -> list[Call]:
    """Those that were made until the file is there."""
    made: list[Call] = []

    def one() -> None:
        began_s, error = time.monotonic(), None
        try:
            socket.create_connection((str(CORE[1]), 80), timeout=_CALL_S).close()
        except OSError as failed:
            error = type(failed).__name__ if failed.errno is None else str(failed)
        made.append(Call(began_s, time.monotonic() - began_s, error))

    threads = []
    until_s = time.monotonic() + _CALLS_S
    while not enough.exists() and time.monotonic() < until_s:
        threads.append(threading.Thread(target=one))
        threads[-1].start()
        time.sleep(_CALL_EVERY_S)
    for each in threads:
        each.join()
    return made
