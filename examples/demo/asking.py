"""The third act: a type that is not there is asked for, and comes, or the network says no.

In a network of its own (`tests.netlab`): one access site, whose stock Kea delegates prefixes by
type. It gives fixed ones to hosts only that it knows, and this one it doesn't.
"""

import errno
import os
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

from rich.status import Status
from rich.table import Table

from examples.demo.show import verdict
from odm_agent.core.model import AddressType
from tests.lab.agent import LabClass
from tests.netlab.dissect import Wire, wire
from tests.netlab.kea import Rules
from tests.netlab.plan import SITES, WireType
from tests.netlab.probe_client import Message
from tests.netlab.probe_client import Status as Code
from tests.netlab.roaming import Roamer
from tests.netlab.topology import NetLab

_FIXED: Final = AddressType.FIXED
_SESSION: Final = AddressType.SESSION_LASTING
_CLASSES: Final = {
    "transfers": LabClass(allow=(_SESSION,), default=_SESSION),
    "monitoring": LabClass(allow=(_FIXED,), default=_FIXED),
}
_DELEGATIONS: Final = {"isp": {"interface": "w0", "types": [_SESSION.word, _FIXED.word]}}
_PATIENCE_S: Final = 20.0


@dataclass(frozen=True)
class Asked:
    """What a program's class asked the network for, what was answered, and what came of it."""

    place: str
    type: AddressType
    at_first: str
    answer: str
    then: str
    wrong: str | None


class Asking:
    """A host with an agent that has nothing yet."""

    def __init__(self, stack: ExitStack, folder: Path, status: Status) -> None:
        status.update("making a network that delegates prefixes")
        self._status = status
        self._lab = stack.enter_context(NetLab(Rules(known_only=True), letters="a"))
        self._wire: Wire = stack.enter_context(wire(self._lab.mobile, "w0", self._lab.folder))
        self._host = stack.enter_context(Roamer(self._lab, folder, _CLASSES, _DELEGATIONS))

    def scenes(self) -> Iterator[Asked]:
        """Both scenes."""
        self._status.update("asking for a session-lasting prefix")
        yield self._given()
        self._status.update("asking for a fixed prefix")
        yield self._refused()

    def _given(self) -> Asked:
        at_first = _why(self._host.fetch("transfers", "before"))
        source, number = None, 0
        until_s = time.monotonic() + _PATIENCE_S
        while source is None and time.monotonic() < until_s:
            number += 1
            if self._host.fetch("transfers", f"asked-{number}") == "hello":
                (source,) = self._lab.nginx.logged(f"asked-{number}")
            else:
                time.sleep(0.2)
        answer = self._answer(WireType.SESSION_LASTING)
        wrong = None
        if self._lab.nginx.callers("before"):
            wrong = "it left before there was an address"
        elif source is None:
            wrong = "no address came"
        elif IPv6Address(source) not in SITES["a"].pools[WireType.SESSION_LASTING]:
            wrong = "it is not of Kea's pool"
        return Asked("transfers", _SESSION, at_first, answer, source or "-", wrong)

    def _refused(self) -> Asked:
        at_first = _why(self._host.fetch("monitoring", "before"))
        until_s = time.monotonic() + _PATIENCE_S
        while not (answer := self._answer(WireType.FIXED)) and time.monotonic() < until_s:
            time.sleep(0.2)
        then = _why(self._host.fetch("monitoring", "refused"))
        wrong = None
        if answer != "NoPrefixAvail":
            wrong = "Kea did not say so"
        elif self._lab.nginx.callers("before") | self._lab.nginx.callers("refused"):
            wrong = "it left all the same"
        return Asked("monitoring", _FIXED, at_first, answer, then, wrong)

    def _answer(self, type: WireType) -> str:
        """What Kea said to the last one who asked for a type, as tshark reads it."""
        answers = {each.xid: each for each in self._wire.messages(Message.REPLY, Message.ADVERTISE)}
        said = ""
        for asked in self._wire.messages(Message.SOLICIT, Message.REQUEST):
            if asked.asked == type and (answer := answers.get(asked.xid)) is not None:
                given = [str(each.prefix) for each in answer.ia.prefixes if each.valid]
                refused = Code.NO_PREFIX_AVAIL in (answer.ia.status, answer.status)
                said = ", ".join(given) or ("NoPrefixAvail" if refused else "nothing")
        return said


def _why(said: str) -> str:
    """Why curl could not connect: the name of the kernel's error."""
    found = re.search(r"connect fail for .*: (.+)", said)
    names = {os.strerror(number): name for number, name in errno.errorcode.items()}
    return names.get(found[1], found[1]) if found else said.rpartition("\n")[2]


def table(asked: list[Asked]) -> Table:
    """Both scenes, a line for each."""
    result = Table(title="Addresses that are asked for", title_justify="left")
    for heading in ("class", "type", "at first", "Kea, by tshark", "then, by nginx's log"):
        result.add_column(heading, overflow="fold")
    result.add_column("as promised", justify="center")
    for each in asked:
        result.add_row(
            each.place, each.type.word, each.at_first, each.answer, each.then, verdict(each.wrong)
        )
    return result
