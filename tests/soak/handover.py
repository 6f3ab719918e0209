"""`python -m tests.soak.handover [--handovers N] [--seed N]`: exit code 1 if anything went wrong.

A host moves to and fro between two sites with live streams, and its agent is killed in a third of
the handovers. Witnesses: captures at both gateways (no source that a site does not serve), the
records that the streams carry, and the kernel's lists, which must not grow.
"""

import random
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.host import FIXED, SESSION
from tests.netlab.travelling import Order, Traveller
from tests.netlab.watch import Watch
from tests.soak.command import soaked

_FLOWS_S: Final = 60.0
_KILL_AFTER_S: Final = (0.0, 0.4)


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
            for kind in ("tcp", "mptcp")
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
                    each.await_flow(there_s, _FLOWS_S)
            watch.look()
            if number % 20 == 19:
                print(f"{number + 1} handovers, {killed} kills: {_counts(traveller)}", flush=True)
            if number == 3:
                before = _counts(traveller)
        violations += [f"at site {site}: {what}" for site, what in watch.strays().items()]
        for name, stream in streams.items():
            outcome = stream.stop()
            if outcome.error or outcome.lost:
                violations.append(f"{name}: {outcome}")
        after = _counts(traveller)
        print(f"{handovers} handovers, {killed} kills: {before} at first, {after} in the end")
        violations += [
            f"more {what}: {before[what]}, {n} in the end"
            for what, n in after.items()
            if before is not None and n > before[what] + 4
        ]
    return violations


def _counts(traveller: Traveller) -> dict[str, int]:
    """What there is of each, on the host."""
    netns = traveller.lab.mobile
    with MapWriter(traveller.roamer.agent.pins) as datapath:
        losses = sum(datapath.losses().values())
    return {
        "addresses": len(netns.ip("-o", "-6", "address", "show", "dev", "lo").splitlines()),
        "routes": len(netns.ip("-6", "route", "show", "table", "all", "proto", "86").splitlines()),
        "rules": len(netns.ip("-6", "rule").splitlines()),
        "prefixes": len(traveller.roamer.agent.read("prefixes")),
        "lost events": losses,
    }


if __name__ == "__main__":
    sys.exit(main())
