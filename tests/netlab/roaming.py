"""The reference network's host with an agent, to which one site delegates prefixes, or both."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from typing import Any, Self

from odm_agent.core.model import AddressType
from tests.lab.agent import Agent, LabClass, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.netns import NetNs
from tests.lab.place import Place
from tests.lab.process import wait_until
from tests.netlab.plan import CORE
from tests.netlab.topology import NetLab

#: Delegation over DHCPv6 takes a second where a server is slow; a loaded machine needs more.
_GRANTED_S = 40.0


class Roamer:
    """An agent, its classes, and what it has been delegated."""

    def __init__(
        self,
        lab: NetLab,
        folder: Path,
        classes: Mapping[str, LabClass],
        delegations: Mapping[str, Mapping[str, Any]],
        *,
        uplinks: Mapping[str, Mapping[str, Any]] | None = None,
        others: Mapping[str, Mapping[str, Any]] | None = None,
        agent: Mapping[str, Any] | None = None,
        entry: str = "odm_agent",
    ) -> None:
        """`uplinks`, `others` and `agent` are as in `Settings`; `entry` is the agent's module."""
        self.lab = lab
        with ExitStack() as stack:
            self.cgroup = stack.enter_context(Cgroup("roamer"))
            self.places = {name: self._place(name) for name in classes}
            settings = Settings(
                classes=classes,
                delegations=delegations,
                uplinks=uplinks or {},
                others=others or {},
                agent=agent or {},
            )
            self.agent = Agent(lab.mobile, self.cgroup, folder, settings)
            stack.callback(self.agent.close)
            self.agent.entry = (entry,)
            lab.await_routers()
            self.agent.start()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def netns(self) -> NetNs:
        """Where it runs."""
        return self.lab.mobile

    def prefix(self, delegation: str, type: AddressType) -> IPv6Network:
        """The prefix of a type by a delegation, when sockets are given its addresses.

        Its site routes it by then: a Reply is there some milliseconds before the route.
        """
        name, found = f"{delegation}/{type.word}", list[IPv6Network]()

        def ready() -> bool:
            found[:] = [
                IPv6Network(row["prefix"])
                for row in self.agent.read("prefixes")
                if row["name"] == name and row["state"] == "ready"
            ]
            return bool(found) and any(
                found[0] in each.routed() for each in self.lab.sites.values()
            )

        wait_until(ready, f"{name} is ready", _GRANTED_S)
        return found[0]

    def await_ready(self, name: str) -> None:
        """Wait until sockets are given addresses of a prefix, by its name."""
        wait_until(lambda: bool(self.agent.addresses(name)), f"{name} is ready", _GRANTED_S)

    def source(self, delegation: str, type: AddressType) -> IPv6Address:
        """The address that sockets are given of such a prefix."""
        self.prefix(delegation, type)
        return IPv6Address(self.agent.addresses(f"{delegation}/{type.word}")[0])

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What the agent tells of its life, of one kind."""
        said = self.agent.call("events", "--json", "--socket", str(self.agent.socket))
        found = [json.loads(line) for line in said.stdout.splitlines()]
        return [each for each in found if each["event"] == kind]

    def fetch(self, place: str, request: str, source: IPv6Address | None = None) -> str:
        """What curl says that gets `/request` from the correspondent: the page, or all it tried."""
        bind = ["--interface", str(source)] if source is not None else []
        url = f"http://[{CORE[1]}]/{request}"
        done = self.places[place].run(
            ["curl", "-sSv", "--max-time", "5", "--noproxy", "*", *bind, url]
        )
        return (done.stdout or done.stderr).strip()

    def resolve(self, place: str, name: str, source: IPv6Address | None = None) -> str:
        """What dig says of a name in the correspondent's zone."""
        bind = ["-b", str(source)] if source is not None else []
        done = self.places[place].run(
            [
                "dig",
                "+short",
                "+tries=1",
                "+time=5",
                *bind,
                f"@{CORE[1]}",
                f"{name}.demo.test",
                "AAAA",
            ]
        )
        return (done.stdout or done.stderr).strip()

    def _place(self, name: str) -> Place:
        return Place(Cgroup(path=self.cgroup.path / name), self.lab.mobile)
