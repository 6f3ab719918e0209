"""`python -m tests.soak [--seconds N] [--seed N]`: exit code 1 if anything was not as promised."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from odm_agent.core.model import Family
from odm_agent.datapath.maps.writer import MapWriter
from tests.lab.counts import settles_at
from tests.lab.host import CORRESPONDENT, FIXED
from tests.lab.netns import NetNs
from tests.lab.place import Place, Ready
from tests.lab.world import World
from tests.soak.checks import frozen_check
from tests.soak.classes import CGROUPS, DEFAULTS, SERVICES, SETTINGS
from tests.soak.command import soaked
from tests.soak.services import serve
from tests.soak.turmoil import Turmoil
from tests.soak.worker import Report, work

_PAUSE_S: Final = (0.5, 3.0)
_CHECK_EVERY: Final = 3


def main() -> int:
    """Run it and print what was seen."""
    return soaked("soak", __doc__, "--seconds", 600.0, lambda seconds: f"{seconds:.0f} s", _soak)


def _soak(folder: Path, seconds: float, draw: random.Random) -> list[str]:
    violations: list[str] = []
    with World(folder, SETTINGS) as world, ExitStack() as stack:
        server = _Server(world.site.c)
        stack.callback(server.kill)
        fixed = {family: world.address(FIXED, family) for family in Family}
        workers = [
            _Worker(
                stack,
                world.place(CGROUPS.get(name, name)),
                lambda ready, name=name: work(name, fixed, ready),  # type: ignore[misc]
            )
            for name in DEFAULTS
        ]
        workers += [
            _Worker(
                stack,
                world.place("plain"),
                lambda ready, name=name: serve(name, world.cgroup.path, ready),  # type: ignore[misc]
            )
            for name in SERVICES
        ]
        turmoil = Turmoil(world, draw)
        counters = _verdicts(world)
        end = time.monotonic() + seconds
        rounds, most = 0, 0
        while time.monotonic() < end:
            time.sleep(draw.uniform(*_PAUSE_S))
            turmoil.round()
            rounds += 1
            if rounds % _CHECK_EVERY == 0:
                held, wrong = frozen_check(world, len(workers))
                most = max(most, held)
                violations += wrong
                counters = _never_back(counters, _verdicts(world), violations)
        turmoil.settle()
        reports = [worker.end() for worker in workers]
        violations += turmoil.violations
        try:
            settles_at(world.agent, 0, timeout_s=30)
        except AssertionError as error:
            violations.append(f"sockets are counted that are gone: {error}")
        violations += [f"lost: {what}" for what, n in _losses(world).items() if n]
        told = server.end()
    violations += told["violations"]
    for report in reports:
        violations += report.violations
    _print(reports, told["seen"], turmoil, most)
    return violations


def _verdicts(world: World) -> Counter[str]:
    with MapWriter(world.agent.pins) as datapath:
        return Counter({str(key): count for key, count in datapath.verdicts().items()})


def _losses(world: World) -> dict[str, int]:
    with MapWriter(world.agent.pins) as datapath:
        return datapath.losses()


def _never_back(old: Counter[str], new: Counter[str], violations: list[str]) -> Counter[str]:
    violations += [f"a counter went back: {key}" for key, count in old.items() if new[key] < count]
    return new


def _print(reports: list[Report], seen: dict[str, int], turmoil: Turmoil, most: int) -> None:
    done: Counter[str] = sum((report.done for report in reports), Counter())
    print("sockets:", ", ".join(f"{n:,} {what}" for what, n in sorted(done.items())))
    print("agent:", ", ".join(f"{n} {what}" for what, n in sorted(turmoil.done.items())))
    if turmoil.ready_s:
        ordered = sorted(turmoil.ready_s)
        print(
            f"ready again: median {ordered[len(ordered) // 2]:.2f} s, longest {ordered[-1]:.2f} s"
        )
    print(f"most sockets counted at a time: {most}")
    for what, n in sorted(seen.items()):
        print(f"  {what}: {n:,}")


class _Server:
    """The correspondent's process."""

    def __init__(self, netns: NetNs) -> None:
        self._process = subprocess.Popen(
            netns.command([sys.executable, "-m", "tests.soak.server", *CORRESPONDENT.values()]),
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def end(self) -> dict[str, Any]:
        """What it has seen."""
        out, _ = self._process.communicate(timeout=30)
        result: dict[str, Any] = json.loads(out)
        return result

    def kill(self) -> None:
        """End it at once, if it is still there."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()


class _Worker:
    """A process beside the soak that tells a report at its end."""

    def __init__(self, stack: ExitStack, place: Place, function: Callable[[Ready], None]) -> None:
        self._talk = stack.enter_context(place.conversation(function))
        self._talk.hear()

    def end(self) -> Report:
        """Ask for its report."""
        os.kill(self._talk.pid, signal.SIGTERM)
        report: Report = self._talk.hear(timeout_s=30)
        return report


if __name__ == "__main__":
    sys.exit(main())
