"""The reference network for a host with one interface, which is moved from one site to the other.

            radio, moved to
   mobile w0 ── air ──┬── site a ──┐
                      └── site b ──┴── core

As a Wi-Fi station has it: its link goes, and comes back in another network, under the same name.
"""

import time
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

from tests.lab.netns import NetNs, veth
from tests.lab.process import wait_until
from tests.netlab.kea import STANDARD, Rules
from tests.netlab.topology import NetLab

_CELL: Final = "cell"
_RADIO: Final = "radio"
_HEARD_S: Final = 20.0


class OneLink(NetLab):
    """All of it; the host's only link is at the first site at first."""

    def __init__(self, rules: Rules | Mapping[str, Rules] = STANDARD) -> None:
        super().__init__(rules)
        self.attach("a")

    def detach(self) -> None:
        """The host's link is lost."""
        self.air.ip("link", "set", _RADIO, "down")
        wait_until(
            lambda: "state DOWN" in self.mobile.ip("link", "show", "w0"), "it is known to the host"
        )
        for site in self.sites.values():
            site.unplugged_s.append(time.time())

    def renew(self) -> None:
        """The host's interface is removed, and another one of the same name is made."""
        self.mobile.ip("link", "delete", "w0")
        self._make_link()
        self.detach()

    def attach(self, letter: str) -> None:
        """The host has a link to a site, and to no other."""
        for each in self.sites:
            self.air.ip("link", "set", f"to-{each}", "nomaster")
        self.air.ip("link", "set", f"to-{letter}", "master", _CELL)
        self.air.ip("link", "set", _RADIO, "up")

    def move(self, letter: str) -> None:
        """The host's link is lost, and comes back at a site."""
        self.detach()
        self.attach(letter)

    def await_routers(self) -> None:
        """Wait until the host has heard a router."""
        wait_until(
            lambda: "dev w0 proto ra" in self.mobile.ip("-6", "route", "show", "default"),
            "a router is heard",
            _HEARD_S,
        )

    def _wire_up(self, stack: ExitStack) -> None:
        self.air = stack.enter_context(NetNs("air"))
        for scope in ("all", "default"):
            self.air.sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", "1")
        self.air.ip("link", "add", _CELL, "type", "bridge", "mcast_snooping", "0")
        self.air.ip("link", "set", _CELL, "up")
        self._make_link()

    def _make_link(self) -> None:
        veth(self.mobile, "w0", self.air, _RADIO)
        self.air.ip("link", "set", _RADIO, "master", _CELL)

    def _end_of(self, letter: str) -> tuple[NetNs, str]:
        return self.air, f"to-{letter}"
