"""An access site: a gateway in a namespace, with its servers, and a link to a host."""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Final, Self

from tests.lab.netns import NetNs, address, veth
from tests.lab.process import wait_until
from tests.netlab.filters import SourceFilter
from tests.netlab.folder import lab_folder
from tests.netlab.kea import STANDARD, Kea, Rules
from tests.netlab.plan import FOLDER, SITES, SitePlan
from tests.netlab.radvd import Radvd

#: The gateway's interface towards hosts.
ACCESS: Final = "access"
#: Of routes that Kea's hook writes.
_PROTOCOL: Final = "186"
_HEARD_S: Final = 20.0


class AccessSite:
    """A gateway with Kea, radvd, a source filter, and a route for each lease."""

    def __init__(
        self,
        folder: Path,
        plan: SitePlan,
        host: NetNs,
        interface: str,
        rules: Rules = STANDARD,
        *,
        database: Mapping[str, Any] | None = None,
        core: NetNs | None = None,
        advertise: bool = True,
    ) -> None:
        """`core` is told where a prefix is; without it nothing is behind the gateway.

        Who doesn't let the site `advertise` gives the host addresses and routes himself.
        """
        self.plan, self.host, self.interface = plan, host, interface
        self._kept: list[str] = []
        #: When the host's carrier was away, by the wall clock.
        self.unplugged_s: list[float] = []
        self.folder = folder / plan.letter
        self.folder.mkdir(mode=0o750)  # newer Keas want nobody else to come near their sockets
        with ExitStack() as stack:
            self.netns = stack.enter_context(NetNs(f"site-{plan.letter}"))
            self._wire_up()
            self.filter = SourceFilter(self.netns, ACCESS)
            self.kea = Kea(
                *(self.netns, ACCESS, self.folder, plan, rules),
                database=database,
                hook=self._hook(core),
            )
            stack.enter_context(self.kea)
            self.radvd = Radvd(self.netns, ACCESS, self.folder, plan)
            stack.callback(self.radvd.stop)
            if advertise:
                self.radvd.start()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the servers and remove the gateway with its link."""
        self._stack.close()

    def routed(self) -> dict[IPv6Network, IPv6Address]:
        """The delegated prefixes that are routed to a host, and the host's link-local address."""
        listed = self.netns.ip("-6", "-j", "route", "show", "dev", ACCESS, "proto", _PROTOCOL)
        return {
            IPv6Network(each["dst"]): IPv6Address(each["gateway"]) for each in json.loads(listed)
        }

    def unplug(self) -> float:
        """Take the host's carrier away; the gateway keeps its routes, as routers do.

        Returns when that was, by the monotonic clock (at most as early as some milliseconds).
        """
        self._kept = [
            f"{line.replace('sec ', ' ')} dev {ACCESS} proto {_PROTOCOL}"
            for line in self.netns.ip(
                *("-6", "route", "show", "dev", ACCESS, "proto", _PROTOCOL)
            ).splitlines()
            if "expires -" not in line  # it is over, and is not taken away yet
        ]
        began_s = time.monotonic()
        self.netns.ip("link", "set", ACCESS, "down")
        self.unplugged_s.append(time.time())
        return began_s

    def plug(self) -> float:
        """Give the carrier back; returns when both ends can send, and tells since when there is one
        (monotonic, at most as late as some milliseconds).
        """
        self.netns.ip("link", "set", ACCESS, "up")
        linked_s = time.monotonic()
        self._number()
        self.netns.batch("".join(f"route replace {each}\n" for each in self._kept))
        self._await_link_local(self.netns, ACCESS)
        self._await_link_local(self.host, self.interface)
        return linked_s

    def serves(self, source: str) -> bool:
        """Whether an address is the site's: of its link, or of a prefix that it routes."""
        return any(IPv6Address(source) in each for each in (self.plan.link, *self.routed()))

    def await_router(self) -> None:
        """Wait until the host has heard the gateway's advertisements."""
        wait_until(
            lambda: (
                f"dev {self.interface} proto ra" in self.host.ip("-6", "route", "show", "default")
            ),
            f"the router of site {self.plan.letter} is heard",
            _HEARD_S,
        )

    def _number(self) -> None:
        address(self.netns, ACCESS, f"{self.plan.router}/{self.plan.link.prefixlen}")

    @staticmethod
    def _await_link_local(netns: NetNs, interface: str) -> None:
        """The kernel makes it when the carrier is there, a moment after that was asked for."""

        def ready() -> bool:
            shown = netns.ip("-6", "address", "show", "dev", interface, "scope", "link")
            return "fe80:" in shown and "tentative" not in shown

        wait_until(ready, f"{interface} has a link-local address")

    def _wire_up(self) -> None:
        plan = self.plan
        veth(self.host, self.interface, self.netns, ACCESS)
        self._number()
        self._await_link_local(self.netns, ACCESS)  # Kea binds to it, or ends
        self.netns.sysctl("net/ipv6/conf/all/forwarding", "1")
        # What is delegated to nobody is nowhere: it must not go back where it came from.
        self.netns.batch(
            "".join(f"route add unreachable {pool} metric 4096\n" for pool in plan.pools.values())
        )

    def _hook(self, core: NetNs | None) -> Path:
        """The hook beside what it must know of this site."""
        hook = self.folder / "lease-route"
        hook.symlink_to(FOLDER / "lease-route")
        told = {
            "ACCESS": ACCESS,
            "VIA": self.plan.backbone[1],
            "CORE": f"ip -n {core.name}" if core is not None else "",
        }
        (self.folder / "lease-route.conf").write_text(
            "".join(f"{word}='{value}'\n" for word, value in told.items())
        )
        return hook


class OneSite:
    """The light variant: a host with one link, `w0`, to one site whose Kea keeps its own leases."""

    def __init__(
        self, rules: Rules = STANDARD, letter: str = "a", *, advertise: bool = False
    ) -> None:
        with ExitStack() as stack:
            self.folder = stack.enter_context(lab_folder())
            self.host = stack.enter_context(NetNs("mobile"))
            self.site = stack.enter_context(
                AccessSite(
                    *(self.folder, SITES[letter], self.host, "w0", rules), advertise=advertise
                )
            )
            self.kea = self.site.kea
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
