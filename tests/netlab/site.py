"""An access site: a gateway namespace with its servers, and the access link's end in it."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Self

from tests.lab.netns import NetNs, address, veth
from tests.netlab.folder import lab_folder
from tests.netlab.kea import STANDARD, Kea, Rules
from tests.netlab.plan import SITES, SitePlan

#: The gateway's interface towards hosts.
ACCESS: Final = "access"


class AccessSite:
    """A gateway with Kea; `attach` gives a host its link."""

    def __init__(
        self,
        folder: Path,
        plan: SitePlan,
        host: NetNs,
        interface: str,
        rules: Rules = STANDARD,
        *,
        database: Mapping[str, Any] | None = None,
    ) -> None:
        self.plan, self.host, self.interface = plan, host, interface
        with ExitStack() as stack:
            self.netns = stack.enter_context(NetNs(f"site-{plan.letter}"))
            veth(host, interface, self.netns, ACCESS)
            address(self.netns, ACCESS, f"{plan.router}/{plan.link.prefixlen}")
            self.netns.sysctl("net/ipv6/conf/all/forwarding", "1")
            self.kea = Kea(self.netns, ACCESS, folder / plan.letter, plan, rules, database=database)
            stack.enter_context(self.kea)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()


class OneSite:
    """The light variant: a host with one link, `w0`, to one site whose Kea keeps its own leases."""

    def __init__(self, rules: Rules = STANDARD, letter: str = "a") -> None:
        with ExitStack() as stack:
            self.folder = stack.enter_context(lab_folder())
            self.host = stack.enter_context(NetNs("mobile"))
            self.site = stack.enter_context(
                AccessSite(self.folder, SITES[letter], self.host, "w0", rules)
            )
            self.kea = self.site.kea
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
