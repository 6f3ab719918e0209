"""How streams fare when the host moves: `python -m tests.netlab.handover [--write]` (root).

A benchmark to be run by hand; all is in namespaces and cgroups of its own. A stock host without an
agent moves in a network of its own at the same time. `--write`: the table goes into
docs/handover.md.
"""

import argparse
import os
import platform
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from statistics import median
from typing import Final

from odm_agent import client
from odm_agent.core.model import AddressType
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION
from tests.lab.place import Ready
from tests.netlab.home import Home
from tests.netlab.plan import CORE
from tests.netlab.route_changes import RouteChanges
from tests.netlab.stock import StockHost
from tests.netlab.streams import Stream
from tests.netlab.travelling import REST_S, Move, Order, Traveller

KINDS: Final = ("ssh", "iperf3", "mptcp")
_BOUND_S: Final = 60.0
_STREAM_S: Final = 16.0
_SETTLES_S: Final = 1.5
#: They log so, unlike those of the tests.
_AS_AGENTS_DO: Final = {"log_level": "info"}
_PAGE: Final = Path(__file__).parents[2] / "docs" / "handover.md"
_BEGIN, _END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"


@dataclass
class Row:
    """What was seen of one type in one order, in seconds: since the loss of the link until the core
    led the prefix to the other site; silences by kind of stream; and bytes lost.
    """

    name: str
    order: str
    led: list[float] = field(default_factory=list)
    silences: dict[str, list[float]] = field(default_factory=dict)
    lost: int = 0

    def cells(self) -> list[str]:
        """Of the table's line: median and longest in milliseconds."""
        times = [self.led, *(self.silences.get(kind, []) for kind in KINDS)]
        return [self.name, self.order, *map(_shown, times), str(self.lost)]


def main() -> None:
    """Measure, print, and write if told to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = "".join(f"{line}\n" for line in _measured(Path(folder), options.rounds))
    print(text)
    if options.write:
        page = _PAGE.read_text()
        head, _, rest = page.partition(_BEGIN)
        _PAGE.write_text(f"{head}{_BEGIN}{text}{_END}{rest.partition(_END)[2]}")


def _measured(folder: Path, rounds: int) -> list[str]:
    with StockHost() as stock:
        hanging = {kind: stock.open(kind, kind) for kind in KINDS}
        lost_s = stock.by.unplug()
        with Traveller(folder, agent=_AS_AGENTS_DO) as traveller:
            rows = [
                _kept(traveller, type, order, rounds)
                for type in (FIXED, SESSION)
                for order in Order
            ]
            told = [_told(traveller, order, n) for n in range(rounds) for order in Order]
            noticed = [_noticed(traveller, order) for _ in range(rounds) for order in Order]
            calls = [_calls(traveller, order) for order in Order]
        (of_home := folder / "home").mkdir()
        with Home(of_home, agent=_AS_AGENTS_DO) as home:
            rows += [_anchored(home, order, rounds) for order in Order]
        time.sleep(max(0.0, lost_s + _BOUND_S + 1 - time.monotonic()))
        stock_cells = [
            f"> {_BOUND_S:.0f} s" if each.silence_s(lost_s) > _BOUND_S else "goes on"
            for each in hanging.values()
        ]
    head = ["type", "order", "route", *(f"{kind}: silence" for kind in KINDS), "bytes lost"]
    lines = [head, ["-"] * len(head)]
    lines += [["stock Linux, no agent", Order.MAKE_FIRST.value, "-", *stock_cells, "all since"]]
    lines += [each.cells() for each in rows]
    failed, made = sum(each[0] for each in calls), sum(each[1] for each in calls)
    return [
        f"{date.today()}, Linux {platform.release()}, {rounds} handovers a line: median (longest).",
        "",
        *("| " + " | ".join(line) + " |" for line in lines),
        "",
        f"Graceful-replacement: {failed} of {made} new connections failed, tried every 20 ms "
        f"from {REST_S:.0f} seconds before the loss of the link on.",
        "",
        'Nonpersistent, `on_handover = "end"`: the application is told '
        f"{median(told) * 1e3:.0f} ms (longest {max(told) * 1e3:.0f}) after the link was lost.",
        "",
        "Graceful-replacement, `client.notices`: a socket is told of its successor "
        f"{median(noticed) * 1e3:.0f} ms (longest {max(noticed) * 1e3:.0f}) after that.",
    ]


def _shown(times: list[float]) -> str:
    return f"{median(times) * 1e3:.0f} ({max(times) * 1e3:.0f}) ms" if times else "-"


def _kept(traveller: Traveller, type: AddressType, order: Order, rounds: int) -> Row:
    row = Row(type.word, order.value)
    for number in range(rounds):
        streams = {
            kind: traveller.open(kind, type, f"{type.word}-{order.name}-{number}-{kind}", _STREAM_S)
            for kind in KINDS
        }
        network = traveller.roamer.prefix("isp", type)
        with (
            RouteChanges(traveller.lab.core, traveller.lab.folder / "core.routes") as routes,
            _moving(traveller, order) as move,
        ):
            _note(row, streams, move.lost_s)
            if (led_s := routes.first_s(network, move.lost_s)) is not None:
                row.led.append(led_s - move.lost_s)
        row.lost += sum(each.stop().lost for each in streams.values())
    return row


@contextmanager
def _moving(traveller: Traveller, order: Order) -> Iterator[Move]:
    """Move after a while of rest."""
    time.sleep(REST_S)
    with traveller.moving(order) as move:
        yield move


def _anchored(home: Home, order: Order, rounds: int) -> Row:
    row = Row("fixed, by an anchor", order.value)
    for number in range(rounds):
        streams = {
            kind: home.open(kind, f"anchor-{order.name}-{number}-{kind}", _STREAM_S)
            for kind in KINDS
        }
        with home.moving(order) as move:
            _note(row, streams, move.lost_s)
        row.lost += sum(each.stop().lost for each in streams.values())
    return row


def _note(row: Row, streams: Mapping[str, Stream], lost_s: float) -> None:
    """Wait until they flow again, and note how long they did not."""
    there_s = time.monotonic()
    for each in streams.values():
        each.await_flow(there_s)
    time.sleep(_SETTLES_S)
    for kind, each in streams.items():
        row.silences.setdefault(kind, []).append(each.silence_s(lost_s))


def _told(traveller: Traveller, order: Order, number: int) -> float:
    """How long after the link was lost an application is told that its address is over, seconds."""
    stream = traveller.open("tcp", NONPERSISTENT, f"told-{order.name}-{number}")
    with _moving(traveller, order) as move:
        traveller.await_attached(move.came)
        time.sleep(0.5)
        outcome = stream.stop()
    assert outcome.error == "ECONNABORTED" and outcome.error_s is not None, outcome
    return outcome.error_s - move.lost_s


def _noticed(traveller: Traveller, order: Order) -> float:
    """How long after the link was lost a socket's notices name the successor, seconds."""

    def application(ready: Ready) -> None:
        os.environ["ODM_WAIT_SOCKET"] = str(traveller.roamer.agent.wait_socket)
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.connect((str(CORE[1]), 9))
            ready(None)
            for notice in client.notices(sock):
                if notice.state is not client.AddressState.PREFERRED and notice.successor:
                    ready(time.monotonic())

    with traveller.roamer.places[GRACEFUL.word].conversation(application) as talk:
        talk.hear()
        with _moving(traveller, order) as move:
            told_s: float = talk.hear(_BOUND_S)
    return told_s - move.lost_s


def _calls(traveller: Traveller, order: Order) -> tuple[int, int]:
    """How many new connections failed, of how many."""
    with traveller.calling(GRACEFUL) as calls:
        time.sleep(0.5)
        with _moving(traveller, order) as move:
            traveller.await_attached(move.came)
            time.sleep(0.5)
            made = calls()
    return sum(each.error is not None for each in made), len(made)


if __name__ == "__main__":
    main()
