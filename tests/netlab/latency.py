"""How long `setsc()` takes: `python -m tests.netlab.latency` (root).

A benchmark to be run by hand; all is in namespaces and a cgroup of its own. Side by side, in a new
order each round: the address is there; the prefix is there, and each socket gets an address of its
own; a stock Kea is asked; and, beside that, Kea asked without an agent.

A client may send 20 messages in 20 seconds at most (RFC 8415, section 14.1), and a round that asks
Kea takes two, a Solicit and a Release. So these are kept apart far enough that none waits for the
limit: what is measured, the slowest included, is what one application meets that asks now and then.
"""

import argparse
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Final

from odm_agent import client
from odm_agent.core.model import AddressType
from odm_agent.sources.dhcpv6.timing import RateLimit
from tests.lab.client import Kind
from tests.lab.host import NONPERSISTENT, SESSION
from tests.lab.place import Place
from tests.lab.process import wait_until
from tests.netlab.kea import STANDARD
from tests.netlab.mobile import MobileHost, Told
from tests.netlab.plan import WireType
from tests.netlab.probe_client import Probe, Wish
from tests.netlab.site import OneSite

_AT_ONCE: Final = 20
_TIMEOUT_S: Final = 20.0
#: What is asked for while the agent runs, and nothing of it between two rounds.
_ASKED: Final = NONPERSISTENT
#: So long after one request the next one is made, seconds.
_APART_S: Final = 2 * 1.05 * RateLimit.SECONDS / RateLimit.MESSAGES


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    rounds: int = parser.parse_args().rounds
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kinds = _kinds(stack, folder)
        seen: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(rounds):
            for name in random.sample(list(kinds), len(kinds)):
                seen[name] += kinds[name]()
    print(f"{'setsc() in Python, over':44}{'n':>6}{'p50 ms':>9}{'p99 ms':>9}")
    for name, times in seen.items():
        p99 = quantiles(times, n=100)[98] if len(times) > 1 else times[0]
        print(f"{name:44}{len(times):6}{median(times) * 1e3:9.3f}{p99 * 1e3:9.3f}")


def _kinds(stack: ExitStack, folder: Path) -> dict[str, Callable[[], list[float]]]:
    keys = {"at_start": [SESSION.word], "types": [SESSION.word, _ASKED.word]}
    hosts = {}
    for name, more in (("shared", {}), ("own", {"sharing": "socket"})):
        (folder / name).mkdir()
        host = stack.enter_context(MobileHost(folder / name, _told({**keys, **more})))
        host.await_prefix(SESSION)
        hosts[name] = host
    alone = stack.enter_context(OneSite(STANDARD))
    probe = stack.enter_context(Probe(alone.host, "w0"))
    return {
        "the address is there": partial(_asked, hosts["shared"].places["every"], SESSION),
        "the prefix is there, an address of its own": partial(
            _asked, hosts["own"].places["every"], SESSION
        ),
        "Kea is asked, by the agent": partial(_through, hosts["shared"], keys, _Pace()),
        "Kea is asked, without an agent": partial(_without, probe),
    }


def _told(keys: Mapping[str, Any]) -> Told:
    """That logs as agents do, unlike those of the tests."""
    return Told(keys, agent={"log_level": "info"})


def _asked(place: Place, type: AddressType) -> list[float]:
    """Sockets of which each asks, one after the other."""

    def application() -> list[float]:
        times = []
        for _ in range(_AT_ONCE):
            with Kind.TCP6.open() as sock:
                began_s = time.perf_counter()
                client.setsc(sock, type, timeout_s=_TIMEOUT_S)
                times.append(time.perf_counter() - began_s)
        return times

    return place.do(application)


def _through(host: MobileHost, keys: dict[str, list[str]], pace: "_Pace") -> list[float]:
    """One socket that has to wait for the network; then all is as it was before."""
    pace.wait()

    def application() -> float:
        os.environ["ODM_WAIT_SOCKET"] = str(host.agent.wait_socket)
        with Kind.TCP6.open() as sock:
            began_s = time.perf_counter()
            client.setsc(sock, _ASKED, timeout_s=_TIMEOUT_S)
            return time.perf_counter() - began_s

    took_s = host.places["every"].do(application, timeout_s=2 * _TIMEOUT_S)
    host.reload(_told({**keys, "types": [SESSION.word]}))
    wait_until(lambda: not host.prefixes(_ASKED), "it is given back", _TIMEOUT_S)
    host.reload(_told(keys))
    return [took_s]


class _Pace:
    """Keeps what a client asks far enough apart."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def wait(self) -> None:
        """Until the next request may be made."""
        time.sleep(max(0.0, self._next_s - time.monotonic()))
        self._next_s = time.monotonic() + _APART_S


def _without(probe: Probe) -> list[float]:
    wish = Wish(WireType.NONPERSISTENT << 24 | 1, WireType.NONPERSISTENT)
    began_s = time.perf_counter()
    answer = probe.obtain(wish)
    took_s = time.perf_counter() - began_s
    probe.release(answer.server, Wish(wish.iaid, wish.type, answer.prefix))
    return [took_s]


if __name__ == "__main__":
    main()
