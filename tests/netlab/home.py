"""A host that moves between today's networks, and keeps addresses by an anchor of its own.

Both sites give an autoconfigured address and a default route, and know nothing of types. The
tunnel's outer socket is of a class with nonpersistent addresses, its inner prefix is a fixed one.
"""

import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, Self

from tests.lab.agent import LabClass
from tests.lab.host import FIXED, NONPERSISTENT
from tests.netlab.anchor import INTERFACE, PREFIX, Anchor
from tests.netlab.roaming import Roamer
from tests.netlab.site import AccessSite
from tests.netlab.streams import Stream, Streams
from tests.netlab.topology import NetLab
from tests.netlab.travelling import Move, Order

_FOLLOW: Final = Path(__file__).parents[2] / "examples" / "handover" / "wireguard-follow"
_CLASSES: Final = {
    "tunnel": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
    "fixed": LabClass(allow=(FIXED,), default=FIXED),
}
_UPLINKS: Final = {"link": {"interface": "w[0-9]"}}
_PREFIXES: Final = {
    "home": {
        "type": FIXED.word,
        "prefix": str(PREFIX),
        "interface": INTERFACE,
        "placement": "delegated",
    }
}
_BEGUN_S: Final = 0.5


class Home:
    """The host with its agent, the anchor, and streams from the prefix that this keeps for it."""

    def __init__(self, folder: Path, *, agent: Mapping[str, str] | None = None) -> None:
        """`agent` is as in `Settings`."""
        with ExitStack() as stack:
            self.lab = stack.enter_context(NetLab())
            self.streams = stack.enter_context(Streams(self.lab))
            self.roamer = stack.enter_context(
                Roamer(
                    self.lab,
                    folder,
                    _CLASSES,
                    {},
                    uplinks=_UPLINKS,
                    others=_PREFIXES,
                    agent=agent,
                )
            )
            cgroup = self.roamer.places["tunnel"].cgroup
            self.anchor = stack.enter_context(Anchor(self.lab, cgroup))
            self.roamer.await_ready("home")
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def address(self) -> str:
        """What is kept."""
        return self.roamer.agent.addresses("home")[0]

    def outer_site(self) -> AccessSite:
        """At which site the anchor hears the tunnel's outer socket."""
        source = self.anchor.await_outer().partition("]")[0].removeprefix("[")
        return next(each for each in self.lab.sites.values() if each.serves(source))

    def open(self, kind: str, name: str, seconds: float) -> Stream:
        """Start a stream from what is kept."""
        return self.streams.open(kind, name, self.roamer.places["fixed"], seconds)

    @contextmanager
    def moving(self, order: Order) -> Iterator[Move]:
        """Move to the other site, with the script that the recipe has; at the end there are both
        links again, and it stays.
        """
        left = self.outer_site()
        came = next(each for each in self.lab.sites.values() if each is not left)
        if order is Order.BREAK_FIRST:
            came.unplug()
        with self._following():
            time.sleep(_BEGUN_S)
            lost_s = linked_s = left.unplug()
            if order is Order.BREAK_FIRST:
                linked_s = came.plug()
                came.await_router()
            yield Move(left, came, lost_s, linked_s)
        left.plug()
        left.await_router()

    @contextmanager
    def _following(self) -> Iterator[None]:
        process = subprocess.Popen(
            self.anchor.near.within(["sh", str(_FOLLOW), INTERFACE]), start_new_session=True
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
