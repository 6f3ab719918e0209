"""A site with an agent and classes on it: what most tests against the agent stand on."""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from odm_agent.core.model import TYPES, AddressType, Family
from tests.lab.agent import Agent, LabClass, Settings
from tests.lab.cgroup import Cgroup
from tests.lab.host import (
    FIXED,
    GRACEFUL,
    LINKS,
    NONPERSISTENT,
    PREFIXES,
    SESSION,
    Captures,
    Site,
)
from tests.lab.place import Place

#: Class names by what they may and get.
CLASSES: Final = {
    "every": LabClass(allow=TYPES),
    "fixed": LabClass(allow=(FIXED,), default=FIXED),
    "session": LabClass(allow=(SESSION,), default=SESSION),
    "brief": LabClass(allow=(NONPERSISTENT,), default=NONPERSISTENT),
    "graceful": LabClass(allow=(GRACEFUL,), default=GRACEFUL),
    # Two types, one of them by default: an explicit choice is possible.
    "choosy": LabClass(allow=(SESSION, FIXED), default=SESSION),
    "strict": LabClass(allow=(FIXED, SESSION), default=FIXED, strict=True),
    "limited": LabClass(allow=(NONPERSISTENT,)),
    "nothing": LabClass(),
    "audited": LabClass(allow=(NONPERSISTENT,), mode="audit"),
    "off": LabClass(allow=(FIXED,), default=FIXED, mode="off"),
    # Inside another class's cgroup: the nearest classified ancestor decides.
    "inner": LabClass(allow=(SESSION,), default=SESSION, cgroups=("fixed/inner",)),
    "globbed": LabClass(allow=(SESSION,), default=SESSION, cgroups=("apps/*.service",)),
}
#: The class that gets a type without asking for it.
BY_DEFAULT: Final = {
    FIXED: "fixed",
    SESSION: "session",
    NONPERSISTENT: "brief",
    GRACEFUL: "graceful",
}
#: A cgroup of no class.
PLAIN: Final = "plain"
STANDARD: Final = Settings(prefixes=PREFIXES, classes=CLASSES)


class World:
    """A site, a cgroup tree and an agent (running once entered)."""

    def __init__(self, folder: Path, settings: Settings = STANDARD, *, start: bool = True) -> None:
        with ExitStack() as stack:
            self.site = stack.enter_context(Site())
            self.cgroup = stack.enter_context(Cgroup("world"))
            self._places: dict[str, Place] = {}
            for name, each in settings.classes.items():
                for path in each.cgroups or (name,):
                    if "*" not in path:
                        self.place(path)
            self.agent = Agent(self.site.host, self.cgroup, folder, settings)
            stack.callback(self.agent.close)
            if start:
                self.agent.start()
            self.peer = self.site.peer
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Remove everything."""
        self._stack.close()

    def place(self, path: str) -> Place:
        """An application's place in the cgroup `path` (made if missing) on the site's host."""
        cgroup = self.cgroup
        for name in path.split("/"):
            below = cgroup.path / name
            cgroup = Cgroup(path=below) if not below.exists() else Cgroup.at(below)
        return self._places.setdefault(path, Place(cgroup, self.site.host))

    def captures(self) -> Captures:
        """Captures at both gateways."""
        return self.site.captures()

    def address(self, type: AddressType, family: Family) -> str:
        """The first ready address of a type; UNSPECIFIED: the host's ordinary one."""
        if not type:
            return str(LINKS["A", family][2])
        name = next(each.name for each in PREFIXES if (each.type, each.family) == (type, family))
        return self.agent.addresses(name)[0]


def with_pool(settings: Settings, name: str, pool: int) -> Settings:
    """The same settings, one prefix with another pool."""
    return replace(settings, extra={**settings.extra, name: {"pool": pool}})
