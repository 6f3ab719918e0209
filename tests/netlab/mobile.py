"""A host with an agent, at an access site whose stock Kea gives it prefixes."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from ipaddress import IPv6Network
from pathlib import Path
from typing import Any, Final, Self

from odm_agent.core.model import TYPES, AddressType
from tests.lab.agent import Agent, LabClass, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.host import FIXED, NONPERSISTENT, SESSION
from tests.lab.netns import NetNs, address
from tests.lab.peer import Peer
from tests.lab.place import Place
from tests.lab.process import wait_until
from tests.netlab.dissect import Seen, Wire, wire
from tests.netlab.folder import lab_folder
from tests.netlab.kea import STANDARD, Rules
from tests.netlab.plan import SITES
from tests.netlab.postgres import Postgres
from tests.netlab.probe_client import Message
from tests.netlab.site import ACCESS, AccessSite

#: A correspondent behind the site's gateway.
CORRESPONDENT: Final = "2001:db8:c::1"
CLASSES: Final = {
    "every": LabClass(allow=TYPES),
    "fixed": LabClass(allow=(FIXED,), default=FIXED),
    "session": LabClass(allow=(SESSION,), default=SESSION),
    "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
    "nothing": LabClass(),
}
_GRANTED_S: Final = 30.0


@dataclass
class Told:
    """What the agent is told of its delegation beside the interface; `keys` None: it has none."""

    keys: Mapping[str, Any] | None = field(default_factory=dict)
    classes: Mapping[str, LabClass] = field(default_factory=lambda: CLASSES)
    agent: Mapping[str, Any] = field(default_factory=dict)


class MobileHost:
    """One site, one agent, and what goes over their link."""

    def __init__(
        self,
        folder: Path,
        told: Told,
        rules: Rules = STANDARD,
        *,
        database: bool = False,
        entry: str = "odm_agent",
    ) -> None:
        """`database`: the server has its leases in a PostgreSQL, which may go away. `entry` is the
        agent's module.
        """
        with ExitStack() as stack:
            files = stack.enter_context(lab_folder())
            self.netns = stack.enter_context(NetNs("mobile"))
            self.postgres = stack.enter_context(Postgres(files / "postgres")) if database else None
            leases = self.postgres.for_kea if self.postgres else None
            plan = SITES["a"]
            site = stack.enter_context(
                AccessSite(files, plan, self.netns, "w0", rules, database=leases, advertise=False)
            )
            self.kea, gateway, router = site.kea, site.netns, plan.router
            address(self.netns, "w0", f"{router + 15}/64")
            self.netns.ip("-6", "route", "add", "default", "via", str(router), "dev", "w0")
            address(gateway, "lo", f"{CORRESPONDENT}/128")
            self.gateway, self.access, self.router = gateway, ACCESS, router
            self.peer = stack.enter_context(Peer(gateway, [CORRESPONDENT]))
            self._heard = self._told = 0
            self.wire: Wire = stack.enter_context(wire(self.netns, "w0", files))
            self.cgroup = stack.enter_context(Cgroup("mobile"))
            self.places = {name: self._place(name) for name in told.classes}
            self.agent = Agent(self.netns, self.cgroup, folder, settings(told))
            stack.callback(self.agent.close)
            self.agent.entry = (entry,)
            self.agent.start()
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, *_: object
    ) -> None:
        if error is not None:
            print(f"--- the agent\n{self.agent.log.read_text()}\n--- Kea\n{self.kea.said()}")
        self._stack.close()

    def serve(self, rules: Rules = STANDARD) -> None:
        """Have the server told otherwise. It keeps its leases."""
        self.kea.stop()
        self.kea.configure(rules)
        self.kea.start()

    def forget(self) -> None:
        """Nothing is held or asked for, nothing was heard or told, all is as at the start."""
        if not self.kea.running:
            self.kea.start()
        self.reload(Told(None))
        wait_until(lambda: not self.prefixes() and not self.leased(), "nothing is held", 60)
        self.kea.stop()
        for each in self.kea.folder.glob("leases.csv*"):
            each.unlink()
        self.serve()
        self._heard = len(self.wire.messages())
        self._told = max((each["number"] for each in self.all_events()), default=0)

    def since_then(self, *kinds: Message) -> list[Seen]:
        """What went over the link since `forget`."""
        heard = self.wire.messages()[self._heard :]
        return [each for each in heard if not kinds or each.message in kinds]

    def await_exchange(self, kind: Message) -> tuple[Seen, Seen]:
        """The last message of a kind since `forget`, and its answer."""
        found: list[tuple[Seen, Seen]] = []

        def there() -> bool:
            heard = self.since_then()
            asked = [each for each in heard if each.message is kind]
            found[:] = [
                (one, other)
                for one in asked
                for other in heard
                if other.xid == one.xid and other.message is Message.REPLY
            ]
            return bool(found)

        wait_until(there, f"{kind.name} is answered", _GRANTED_S)
        return found[-1]

    def all_events(self) -> list[dict[str, Any]]:
        """What the agent tells of its life."""
        said = self.agent.call("events", "--json", *self.at_socket)
        return [json.loads(line) for line in said.stdout.splitlines()]

    def events(self, kind: str) -> list[dict[str, Any]]:
        """What has happened of a kind since `forget`, or since the agent started."""
        found = self.all_events()
        if found and found[-1]["number"] < self._told:
            self._told = 0
        return [e for e in found if e["event"] == kind and e["number"] > self._told]

    def await_event(self, kind: str) -> dict[str, Any]:
        """The first of a kind since `forget`."""
        wait_until(lambda: bool(self.events(kind)), f"{kind} is told", _GRANTED_S)
        return self.events(kind)[0]

    def delegated(self, type: AddressType) -> list[dict[str, Any]]:
        """How it stands with a type, by `status`."""
        (isp,) = self.agent.read("status")["delegations"]
        return [each for each in isp["types"] if each["type"] == type.word]

    def leased(self) -> set[IPv6Network]:
        """What the server says that it has delegated to the host."""
        duid = bytes.fromhex((self.agent.folder / "state" / "duid").read_text())
        return {each.prefix for each in self.kea.leases() if each.duid == duid}

    @property
    def at_socket(self) -> tuple[str, str]:
        """The option that leads a command to the agent."""
        return "--socket", str(self.agent.socket)

    def reload(self, told: Told) -> None:
        """Have the agent told otherwise."""
        self.agent.configure(settings(told))
        done = self.agent.reload()
        assert not done.returncode, done.stderr

    def prefixes(self, type: AddressType | None = None) -> dict[IPv6Network, dict[str, Any]]:
        """The rows of the agent's table, by prefix."""
        return {
            IPv6Network(row["prefix"]): row
            for row in self.agent.read("prefixes")
            if type is None or row["type"] == type.word
        }

    def await_prefix(self, type: AddressType, timeout_s: float = _GRANTED_S) -> IPv6Network:
        """A prefix of the type of which sockets are given addresses."""
        found: list[IPv6Network] = []

        def ready() -> bool:
            found[:] = [n for n, row in self.prefixes(type).items() if row["state"] == "ready"]
            return bool(found)

        wait_until(ready, f"a {type.word} prefix is ready", timeout_s)
        return found[0]

    def route_back(self, network: IPv6Network) -> None:
        """Have the gateway route a prefix to the host, as its relay would."""
        (local,) = (
            each.split()[3].partition("/")[0]
            for each in self.netns.ip("-o", "-6", "address", "show", "dev", "w0").splitlines()
            if " fe80" in each
        )
        self.gateway.ip("-6", "route", "replace", str(network), "via", local, "dev", self.access)

    def _place(self, name: str) -> Place:
        return Place(Cgroup(path=self.cgroup.path / name), self.netns)


def settings(told: Told) -> Settings:
    """The agent's configuration."""
    return Settings(
        classes=told.classes,
        agent=told.agent,
        delegations={} if told.keys is None else {"isp": {"interface": "w0", **told.keys}},
    )
