"""How long the control socket takes to answer under load: `python -m tests.soak.latency` (root).

A benchmark to be run by hand; all is in namespaces and a cgroup of its own. One client asks for
`status` again and again, from before a load begins until the agent has dealt with it.
"""

import argparse
import os
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from statistics import quantiles
from typing import Final

from odm_agent.control.client import ControlClient
from tests.lab import run
from tests.lab.agent import METRICS, LabClass, Settings
from tests.lab.host import FIXED, PREFIXES
from tests.lab.netns import NetNs
from tests.lab.process import enter_netns
from tests.lab.world import World

_PAUSE_S: Final = 0.005
#: The agent has dealt with a load when for so long no answer has taken longer than that, seconds.
_CALM_S: Final = 3.0
_SLOW_S: Final = 0.05
#: How long idle connections are held.
_HELD_S: Final = 5.0
_NOBODY: Final = 65534
_SETTINGS: Final = Settings(
    PREFIXES,
    {
        "fixed": LabClass(allow=(FIXED,), default=FIXED),
        "services": LabClass(allow=(FIXED,), default=FIXED, cgroups=("services/*",)),
        "users": LabClass(allow=(FIXED,), default=FIXED, cgroups=("users/*/*",), delegated=True),
    },
)


@dataclass(frozen=True)
class Scale:
    """How much of each load there is."""

    addresses: int
    routes: int
    cgroups: int
    connections: int
    mkdirs: int

    @classmethod
    def of(cls, part: float) -> "Scale":
        """The whole, or a part of it."""
        whole = (10_000, 10_000, 1_000, 3_000, 20_000)
        return cls(*(max(1, int(each * part)) for each in whole))


def main() -> int:
    """Run each load by itself, on the host that the ones before have left."""
    parser = argparse.ArgumentParser(prog="latency", description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="part of the whole load")
    parser.add_argument("--bound", type=float, default=60.0, help="seconds for each load at most")
    options = parser.parse_args()
    os.environ[run.MARK] = str(os.getpid())
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print(f"{'load':28} {'answers':>8} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'took s':>8}")
    with tempfile.TemporaryDirectory(prefix="odm-latency-") as folder:
        _measure(Path(folder), Scale.of(options.scale), options.bound)
    return 0


def _measure(folder: Path, scale: Scale, bound_s: float) -> None:
    with World(folder, _SETTINGS, start=False) as world:
        config = world.agent.config
        config.write_text(config.read_text().replace('"debug"', '"warning"'))
        for name in ("services", "users", "users/nobody"):
            world.place(name)
        home = world.cgroup.path / "users" / "nobody"
        os.chown(home, _NOBODY, _NOBODY)
        world.agent.start()
        host, path = world.site.host, world.agent.socket
        services = world.cgroup.path / "services"
        loads: list[tuple[str, Callable[[], int]]] = [
            ("at rest", lambda: _forked(lambda: time.sleep(2))),
            (f"{scale.addresses} addresses", lambda: _batch(host, _addresses(scale.addresses))),
            (f"{scale.routes} routes of main", lambda: _batch(host, _routes(scale.routes))),
            (
                f"{scale.cgroups} cgroups of root",
                lambda: _forked(lambda: _mkdirs(services, scale.cgroups)),
            ),
            (
                f"{scale.connections} idle connections",
                lambda: _forked(lambda: _connect(scale.connections), host),
            ),
            (
                f"{scale.mkdirs} cgroups of a user",
                lambda: _forked(lambda: _mkdirs(home, scale.mkdirs, _NOBODY)),
            ),
        ]
        try:
            for name, start in loads:
                pid = start()
                try:
                    _report(name, path, partial(_has_ended, pid), bound_s)
                finally:
                    _end(pid)
        finally:
            _rmdirs(home)
            _rmdirs(services)


def _report(name: str, path: Path, is_over: Callable[[], bool], bound_s: float) -> None:
    taken: list[float] = []
    began = slow = time.monotonic()
    with ControlClient(path, timeout_s=bound_s) as client:
        while (asked := time.monotonic()) - began < bound_s:
            client.call("status")
            taken.append(time.monotonic() - asked)
            if taken[-1] > _SLOW_S or not is_over():
                slow = time.monotonic()
            elif time.monotonic() - slow > _CALM_S:
                break
            time.sleep(_PAUSE_S)
    cuts = quantiles(taken, n=100)
    figures = [1000 * each for each in (cuts[49], cuts[98], max(taken))]
    print(
        f"{name:28} {len(taken):8}",
        *(f"{each:8.1f}" for each in figures),
        f"{time.monotonic() - began:8.1f}",
        flush=True,
    )


def _batch(host: NetNs, lines: Iterator[str]) -> int:
    """`ip -batch` in a process of its own."""
    return _forked(lambda: host.batch("".join(lines)))


def _addresses(count: int) -> Iterator[str]:
    first = IPv6Address("2001:db8:ffff::1")
    return (f"address add {first + number}/128 dev w1 nodad\n" for number in range(count))


def _routes(count: int) -> Iterator[str]:
    first = IPv4Address("10.0.0.0")
    return (f"route add {first + 256 * n}/24 via 192.0.2.1 dev w0\n" for n in range(count))


def _mkdirs(folder: Path, count: int, uid: int = 0) -> None:
    os.setuid(uid)
    for number in range(count):
        (folder / f"b{number}").mkdir()


def _connect(count: int) -> None:
    """Connections to the metrics endpoint that say nothing, held until this process is ended."""
    os.setuid(_NOBODY)
    where, port = METRICS.rsplit(":", 1)
    held = []
    for _ in range(count):
        with suppress(OSError):
            held.append(socket.create_connection((where, int(port)), timeout=1))
    print(f"{len(held)} of {count} connections are held", file=sys.stderr)
    time.sleep(_HELD_S)


def _forked(work: Callable[[], None], netns: NetNs | None = None) -> int:
    """Have work done in a child process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if netns is not None:
            enter_netns(netns.path)
        work()
        code = 0
    except BaseException as error:
        print(f"the load ended: {error!r}", file=sys.stderr)
    finally:
        os._exit(code)


def _has_ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _end(pid: int) -> None:
    if not _has_ended(pid):
        print("the load had not come to its end", file=sys.stderr)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def _rmdirs(folder: Path) -> None:
    for each in folder.iterdir():
        if each.is_dir():
            each.rmdir()


if __name__ == "__main__":
    sys.exit(main())
