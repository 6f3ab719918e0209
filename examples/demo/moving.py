"""The last act: the host moves to another network, and each type keeps its promise.

In a network of its own (`tests.netlab`): two access sites that filter sources, whose stock Keas
share their leases. The link to the second site is there before the one to the first is lost.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from ipaddress import IPv6Address
from pathlib import Path
from typing import Final

from rich.status import Status
from rich.table import Table

from examples.demo.programs import CLASSES
from examples.demo.show import verdict
from odm_agent.core.model import AddressType
from tests.netlab.plan import SITES, WireType
from tests.netlab.streams import Outcome
from tests.netlab.travelling import Move, Order, Traveller

#: The programs of the first act's classes; those whose addresses go want to be told.
_CLASSES: Final = {**CLASSES, "browsing": replace(CLASSES["browsing"], on_handover="end")}
_KEPT: Final = (AddressType.FIXED, AddressType.SESSION_LASTING)
#: How long both addresses of a graceful-replacement type are used side by side, at least.
_BESIDE_S: Final = 0.5


@dataclass(frozen=True)
class Moved:
    """What became of a type's open connection, and which source the next one has."""

    type: AddressType
    before: str
    connection: str
    after: str
    wrong: str | None


class Moving:
    """A host at the first of two networks."""

    def __init__(self, stack: ExitStack, folder: Path, status: Status) -> None:
        status.update("making two networks to move between")
        self._status = status
        own = folder / "moving"
        own.mkdir()
        self._traveller = stack.enter_context(Traveller(own, classes=_CLASSES))

    def scenes(self) -> Iterator[Moved]:
        """One of each type, of the same move."""
        self._status.update("moving to another network")
        streams, places = self._traveller.streams, self._traveller.roamer.places
        opened = {name: streams.open("tcp", f"open-{name}", places[name]) for name in _CLASSES}
        with self._traveller.moving(Order.MAKE_FIRST) as move:
            self._traveller.await_attached(move.came)
            next_ones = {name: self._next(name) for name in _CLASSES}
            time.sleep(_BESIDE_S)
            silences = {name: each.silence_s(move.lost_s) for name, each in opened.items()}
            outcomes = {name: each.stop() for name, each in opened.items()}
        for name, each in _CLASSES.items():
            (type,) = each.allow
            yield _judged(type, move, outcomes[name], silences[name], next_ones[name])

    def _next(self, name: str) -> str:
        """The source of a new connection, by the server's log."""
        self._traveller.roamer.fetch(name, f"next-{name}")
        return next(iter(self._traveller.lab.nginx.logged(f"next-{name}")), "-")


def _judged(type: AddressType, move: Move, outcome: Outcome, silence_s: float, after: str) -> Moved:
    if outcome.error_s is not None:
        connection = f"{outcome.error} after {(outcome.error_s - move.lost_s) * 1e3:.0f} ms"
    else:
        connection = f"goes on, silent {silence_s * 1e3:.0f} ms, {outcome.lost} bytes lost"
    return Moved(type, outcome.source, connection, after, _wrong(type, move, outcome, after))


def _wrong(type: AddressType, move: Move, outcome: Outcome, after: str) -> str | None:
    """What is not as promised, if anything."""
    if not after[:1].isalnum():
        return "no new connection came"
    ended = type is AddressType.NONPERSISTENT
    if ended and outcome.error != "ECONNABORTED":
        return "the application was not told"
    if not ended and (outcome.error is not None or outcome.lost):
        return f"the open connection broke: {outcome.error}, {outcome.lost} bytes lost"
    if type in _KEPT:
        return None if after == outcome.source else "the next connection has another address"
    pools = {
        each: SITES[each.plan.letter].pools[WireType[type.name]] for each in (move.left, move.came)
    }
    if IPv6Address(outcome.source) not in pools[move.left]:
        return "the open connection has not kept its address"
    return None if IPv6Address(after) in pools[move.came] else "the next one has not the new prefix"


def table(moved: list[Moved]) -> Table:
    """All types, a line for each."""
    result = Table(title="The host moves to another network", title_justify="left")
    for heading in ("type", "its open connection", "source before, after"):
        result.add_column(heading, no_wrap=heading != "its open connection")
    result.add_column("as promised", justify="center")
    for each in moved:
        sources = dict.fromkeys((each.before, each.after))
        result.add_row(each.type.word, each.connection, "\n".join(sources), verdict(each.wrong))
    return result
