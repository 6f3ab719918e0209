"""What an agent with nothing to do takes: `python -m tests.netlab.idle` (root).

A benchmark to be run by hand; all is in namespaces and a cgroup of its own. The host holds a prefix
by DHCPv6, hears a router's advertisements every three to five seconds (stock radvd), and has its
link as an uplink, whose addresses are renewed with each of them. Nobody asks for anything.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.agent import Agent, LabClass, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.host import NONPERSISTENT, SESSION
from tests.lab.process import wait_until
from tests.netlab.site import OneSite

_READY_S = 30.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds: float = parser.parse_args().seconds
    with tempfile.TemporaryDirectory() as folder, _settled(Path(folder)) as agent:
        pid = agent.read("status")["pid"]
        began_s, before_s = time.monotonic(), _busy_s(pid)
        time.sleep(seconds)
        took_s, busy_s = time.monotonic() - began_s, _busy_s(pid) - before_s
        print(
            f"{took_s:.0f} s: {100 * busy_s / took_s:.3f} % CPU, {_resident_mib(pid):.1f} MiB RSS"
        )


@contextmanager
def _settled(folder: Path) -> Iterator[Agent]:
    """An agent that holds all that it can have."""
    told = Settings(
        classes={"any": LabClass(allow=(SESSION, NONPERSISTENT))},
        delegations={
            "isp": {"interface": "w0", "types": [SESSION.word], "at_start": [SESSION.word]}
        },
        uplinks={"link": {"interface": "w0", "advertised_types": 253}},
    )
    with (
        OneSite(advertise=True) as site,
        Cgroup("idle") as cgroup,
        Agent(site.host, cgroup, folder, told) as agent,
    ):

        def is_ready() -> bool:
            ready = {row["type"] for row in agent.read("prefixes") if row["state"] == "ready"}
            return {SESSION.word, NONPERSISTENT.word} <= ready

        wait_until(is_ready, "prefix and uplink are ready", _READY_S)
        yield agent


def _busy_s(pid: int) -> float:
    """What all threads of a process have computed, in seconds (to the nanosecond)."""
    each = (path.read_text().split()[0] for path in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(map(int, each)) / 1e9


def _resident_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmRSS:"))
    return int(kib) / 1024


if __name__ == "__main__":
    main()
