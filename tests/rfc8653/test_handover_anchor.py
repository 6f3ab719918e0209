"""T1, T4: the user's own anchor keeps the addresses of a host that moves between today's networks.

Both sites give an autoconfigured address and a default route, and know nothing of types. A
WireGuard tunnel leads to a machine with a prefix: its outer socket is of a class with nonpersistent
addresses, its inner prefix serves the types that are kept.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.lab.agent import LabClass
from tests.lab.host import FIXED, NONPERSISTENT
from tests.lab.root import needs_root
from tests.netlab.anchor import INTERFACE, PREFIX, Anchor
from tests.netlab.roaming import Roamer
from tests.netlab.site import AccessSite
from tests.netlab.streams import Streams
from tests.netlab.topology import NetLab

pytestmark = needs_root

FOLLOW: Final = Path(__file__).parents[2] / "examples" / "handover" / "wireguard-follow"
CLASSES: Final = {
    "tunnel": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
    "fixed": LabClass(allow=(FIXED,), default=FIXED),
}
UPLINKS: Final = {"link": {"interface": "w[0-9]"}}
PREFIXES: Final = {
    "home": {
        "type": FIXED.word,
        "prefix": str(PREFIX),
        "interface": INTERFACE,
        "placement": "delegated",
    }
}
_KINDS: Final = ("ssh", "mptcp", "iperf3")
#: What WireGuard takes by itself is 15 s; what a busy machine may take here.
_SLOW_S: Final = 6.0
_STREAM_S: Final = 14.0


class Home:
    """A host that moves, its anchor, and streams from the prefix that this keeps for it."""

    def __init__(self, roamer: Roamer, anchor: Anchor, streams: Streams) -> None:
        self.lab, self.roamer = roamer.lab, roamer
        self.anchor, self.streams = anchor, streams

    def outer_site(self) -> AccessSite:
        """At which site the anchor hears the tunnel's outer socket."""
        source = self.anchor.await_outer().partition("]")[0].removeprefix("[")
        return next(each for each in self.lab.sites.values() if each.serves(source))

    @contextmanager
    def following(self) -> Iterator[None]:
        """The script runs that the recipe has."""
        process = subprocess.Popen(
            self.anchor.near.within(["sh", str(FOLLOW), INTERFACE]), start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("anchor")
    with (
        NetLab() as lab,
        Streams(lab) as streams,
        Roamer(lab, folder, CLASSES, {}, uplinks=UPLINKS, others=PREFIXES) as roamer,
        Anchor(lab, roamer.places["tunnel"].cgroup) as anchor,
    ):
        roamer.await_ready("home")
        yield Home(roamer, anchor, streams)


@pytest.mark.parametrize("order", ["make-first", "break-first"])
def test_T1_what_comes_through_the_anchor_goes_on_when_the_host_moves(
    home: Home, order: str
) -> None:
    fixed = home.roamer.places["fixed"]
    streams = {
        kind: home.streams.open(kind, f"{order}-{kind}", fixed, _STREAM_S) for kind in _KINDS
    }
    left = home.outer_site()
    other = next(each for each in home.lab.sites.values() if each is not left)
    if order == "break-first":
        other.unplug()
    with home.following():
        time.sleep(0.5)
        lost_s = left.unplug()
        if order == "break-first":
            other.plug()
            other.await_router()
        there_s = time.monotonic()
        for each in streams.values():
            each.await_flow(there_s)
        assert home.outer_site() is other
        time.sleep(1)
        silences = {kind: each.silence_s(lost_s) for kind, each in streams.items()}
        left.plug()
    outcomes = {kind: each.stop() for kind, each in streams.items()}
    for kind, outcome in outcomes.items():
        assert outcome.error is None, (kind, outcome)
        assert outcome.lost == 0 < outcome.got, (kind, outcome)
        assert outcome.source == home.roamer.agent.addresses("home")[0], (kind, outcome)
    assert max(silences.values()) < _SLOW_S + (there_s - lost_s), silences
