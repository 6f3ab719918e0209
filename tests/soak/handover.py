"""`python -m tests.soak.handover [--handovers N] [--seed N]`: exit code 1 if anything went wrong.

A host moves to and fro between two sites with live streams, and its agent is killed in a third of
the handovers. Witnesses: captures at both gateways (no source that a site does not serve), the
records that the streams carry, and the lists of kernel, maps and journal, which must not grow. The
agent's own count of handovers must be that of the moves.
"""

import random
import sqlite3
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import fields
from pathlib import Path
from typing import Final

from odm_agent.core.model import TYPES
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.host import FIXED, SESSION
from tests.lab.metrics import samples
from tests.netlab.travelling import Order, Traveller
from tests.netlab.watch import Watch
from tests.soak.command import soaked

_FLOWS_S: Final = 60.0
_KILL_AFTER_S: Final = (0.0, 0.4)
#: Written once a minute, a row for each lease or class: by agents that live so long.
_MINUTELY: Final = {f"journal's {table}" for table in ("meters", "sent", "recorded")}


def main() -> int:
    """Run it and print what was seen."""
    return soaked("handovers", __doc__, "--handovers", 1000, str, _soak)


def _soak(folder: Path, handovers: int, draw: random.Random) -> list[str]:
    violations: list[str] = []
    killed = 0
    with Traveller(folder) as traveller, ExitStack() as stack:
        watch = stack.enter_context(Watch(traveller.lab.sites.values(), traveller.lab.folder))
        streams = {
            f"{kind}-{type.word}": traveller.open(kind, type, f"{kind}-{type.word}")
            for kind in ("tcp", "mptcp", "ssh")
            for type in (FIXED, SESSION)
        }
        before: dict[str, int] | None = None
        for number in range(handovers):
            kill = draw.random() < 1 / 3
            with traveller.moving(draw.choice(list(Order))) as move:
                if kill:
                    killed += 1
                    time.sleep(draw.uniform(*_KILL_AFTER_S))
                    traveller.roamer.agent.sigkill()
                    traveller.roamer.agent.start()
                traveller.await_attached(move.came)
                there_s = time.monotonic()
                for each in streams.values():
                    watch.look()  # what a capture holds is bounded
                    each.await_flow(there_s, _FLOWS_S)
            watch.look()
            if number % 20 == 19:
                print(f"{number + 1} handovers, {killed} kills: {_counts(traveller)}", flush=True)
            if number == 3:
                before = _counts(traveller)
        violations += [f"at site {site}: {what}" for site, what in watch.strays().items()]
        after = _counts(traveller)  # while they live
        for name, stream in streams.items():
            outcome = stream.stop()
            if outcome.error or outcome.lost:
                violations.append(f"{name}: {outcome}")
        violations += _miscounted(traveller, handovers)
        print(f"{handovers} handovers, {killed} kills: {before} at first, {after} in the end")
        violations += [
            f"more {what}: {before[what]}, {n} in the end"
            for what, n in after.items()
            if before is not None
            and n > before[what] + 4 + (before["rows of leases"] if what in _MINUTELY else 0)
        ]
    return violations


def _counts(traveller: Traveller) -> dict[str, int]:
    """What there is of each, on the host."""
    netns = traveller.lab.mobile
    agent = traveller.roamer.agent
    with MapWriter(agent.pins) as datapath:
        losses = sum(datapath.losses().values())
        held, live = datapath.read(), len(datapath.live())
    rows = {
        f"rows of {each.name}": len(getattr(held, each.name))
        for each in fields(held)
        if each.name != "guards"
    }
    return {
        **rows,
        **_journal(agent.folder / "state" / "state.db"),
        "sockets": len([each for each in agent.read("sockets") if each["type"] != "unspecified"]),
        "addresses with sockets": live,
        "addresses": len(netns.ip("-o", "-6", "address", "show", "dev", "lo").splitlines()),
        "routes": len(netns.ip("-6", "route", "show", "table", "all", "proto", "86").splitlines()),
        "rules": len(netns.ip("-6", "rule").splitlines()),
        "prefixes": len(agent.read("prefixes")),
        "lost events": losses,
    }


def _journal(path: Path) -> dict[str, int]:
    """How many rows each table of the state database has."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as db:
        names = [str(n) for (n,) in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        return {
            f"journal's {name}": int(db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0])
            for name in names
        }


def _miscounted(traveller: Traveller, handovers: int) -> list[str]:
    """Of which types the agent, through all its deaths, has counted other than there were."""
    counted = dict.fromkeys((type.word for type in TYPES), 0)
    for labels, value in samples(traveller.roamer.agent, "odm_handovers_total"):
        counted[labels["type"]] += int(value)
    return [
        f"{many} handovers of type {word} are counted, of {handovers}"
        for word, many in counted.items()
        if many != handovers
    ]


if __name__ == "__main__":
    sys.exit(main())
