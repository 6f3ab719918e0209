"""A host without an agent in a reference network of its own: what Linux does by itself."""

import json
from contextlib import ExitStack
from typing import Self

from tests.lab.cgroup import Cgroup
from tests.lab.place import Place
from tests.lab.process import wait_until
from tests.netlab.plan import CORE
from tests.netlab.site import AccessSite
from tests.netlab.streams import Stream, Streams
from tests.netlab.topology import NetLab

_HEARD_S = 20.0


class StockHost:
    """Autoconfigured at both sites, with a default route by each, as radvd announces them."""

    def __init__(self) -> None:
        with ExitStack() as stack:
            self.lab = stack.enter_context(NetLab())
            self.streams = stack.enter_context(Streams(self.lab))
            self.place = Place(stack.enter_context(Cgroup("stock")), self.lab.mobile)
            for site in self.lab.sites.values():
                site.await_router()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def by(self) -> AccessSite:
        """The site by which it would reach the correspondent now."""
        (route,) = json.loads(self.lab.mobile.ip("-6", "-j", "route", "get", str(CORE[1])))
        return next(each for each in self.lab.sites.values() if each.interface == route["dev"])

    def address(self, site: AccessSite) -> str:
        """Its address at a site."""
        found: list[str] = []

        def there() -> bool:
            told = self.lab.mobile.ip("-6", "-j", "address", "show", "dev", site.interface)
            found[:] = [
                each["local"]
                for link in json.loads(told)
                for each in link.get("addr_info", [])
                if each["scope"] == "global"
            ]
            return len(found) == 1

        wait_until(there, f"an address by the router of site {site.plan.letter}", _HEARD_S)
        return found[0]

    def open(self, kind: str, name: str, seconds: float = 10.0) -> Stream:
        """Start a stream of it."""
        return self.streams.open(kind, name, self.place, seconds)
