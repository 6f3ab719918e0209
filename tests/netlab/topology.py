"""The whole reference network: a mobile host, two access sites, a core with a correspondent.

            w0 ── site a ──┐
   mobile                  ├── core: nginx, dnsmasq, iperf3     one PostgreSQL: both sites' leases
            w1 ── site b ──┘

Each site has a Kea, a radvd, and a filter that drops what its leases don't route to the host.
"""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Self

from tests.lab.netns import NetNs, address, veth
from tests.netlab.correspondent import Dnsmasq, Iperf, Nginx
from tests.netlab.folder import lab_folder
from tests.netlab.kea import STANDARD, Rules
from tests.netlab.plan import CORE, SITES, SitePlan, WireType
from tests.netlab.postgres import Postgres
from tests.netlab.site import AccessSite


class NetLab:
    """All of it, running from when it is made until it is closed."""

    def __init__(
        self, rules: Rules | Mapping[str, Rules] = STANDARD, *, letters: str = "ab"
    ) -> None:
        """`rules` may differ by site. One site alone needs no database, and is up in a second."""
        by_site = dict.fromkeys(letters, rules) if isinstance(rules, Rules) else rules
        with ExitStack() as stack:
            self.folder = stack.enter_context(lab_folder())
            self.postgres = Postgres(self.folder / "postgres")
            stack.callback(self.postgres.stop)
            if len(letters) > 1:
                self.postgres.start()
            self.mobile = stack.enter_context(NetNs("mobile"))
            self._wire_up(stack)
            self.core = stack.enter_context(NetNs("core"))
            address(self.core, "lo", f"{CORE[1]}/128")
            self.core.sysctl("net/ipv6/conf/all/forwarding", "1")
            self.sites: dict[str, AccessSite] = {}
            for letter in letters:
                site = AccessSite(
                    *(self.folder, SITES[letter], *self._end_of(letter)),
                    by_site.get(letter, STANDARD),
                    database=self.postgres.for_kea if self.postgres.running else None,
                    core=self.core,
                )
                self.sites[letter] = stack.enter_context(site)
                self._join(site)
            self.nginx = stack.enter_context(Nginx(self.core, self.folder, 80))
            self.dnsmasq = stack.enter_context(Dnsmasq(self.core, self.folder, 53))
            self.iperf = stack.enter_context(Iperf(self.core, self.folder))
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all servers and remove everything."""
        self._stack.close()

    def await_routers(self) -> None:
        """Wait until the host has heard the routers of all its links."""
        for site in self.sites.values():
            site.await_router()

    def _wire_up(self, stack: ExitStack) -> None:
        """Make what is between the host and the sites: nothing."""

    def _end_of(self, letter: str) -> tuple[NetNs, str]:
        """Where a site's link ends, and by which interface."""
        return self.mobile, f"w{len(self.sites)}"

    @property
    def a(self) -> AccessSite:
        """The site at the host's `w0`."""
        return self.sites["a"]

    @property
    def b(self) -> AccessSite:
        """The site at the host's `w1`."""
        return self.sites["b"]

    @property
    def namespaces(self) -> dict[str, NetNs]:
        """All namespaces, by what they are called."""
        sites = {f"site-{letter}": site.netns for letter, site in self.sites.items()}
        return {"mobile": self.mobile, **sites, "core": self.core}

    def _join(self, site: AccessSite) -> None:
        """Join a gateway and the core, which knows by itself only what stays at the site."""
        plan, inner = site.plan, f"to-{site.plan.letter}"
        veth(site.netns, "backbone", self.core, inner)
        length = plan.backbone.prefixlen
        address(site.netns, "backbone", f"{plan.backbone[1]}/{length}")
        address(self.core, inner, f"{plan.backbone[2]}/{length}")
        site.netns.ip("-6", "route", "add", "default", "via", str(plan.backbone[2]))
        self.core.batch(
            "".join(
                f"route replace {network} via {plan.backbone[1]}\n"
                for network in (plan.link, *_own_pools(plan))
            )
        )


def _own_pools(plan: SitePlan) -> list[object]:
    """The pools that no other site has."""
    own = (WireType.NONPERSISTENT, WireType.GRACEFUL_REPLACEMENT)
    return [plan.pools[type] for type in own]
