"""The agent with one source more, whose network is a file: `python -m tests.lab.scripted run ...`.

The file (named in ODM_SCRIPT) says in JSON what comes of a request, by type and IP version:
`{"session-lasting/6": {"network": "2001:db8:a2::/64", "interface": "w0", "gateway": ...,
"delay_s": 0.2, "release_s": 60}}`, or `{"cause": ..., "kind": "refused"}`. What the source is told
is written beside it (`FILE.told`), a line each. While there is a file `FILE.withdrawn`, all that
was given is taken back; one `FILE.unconfirmed` says once that the host is not attached any more
where all of it was given. It is read ten times a second, so what it lacks may still come.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from odm_agent.agent import loop
from odm_agent.agent.driver import Driver
from odm_agent.core import looking, machine, releasing
from odm_agent.core.clock import Moment
from odm_agent.core.effects import GiveBack, Release, Request
from odm_agent.core.events import Failed, Failure, Granted, Unconfirmed, Withdrawn
from odm_agent.core.grants import Grant, GrantKey, Want
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import Placement, TypedPrefix
from odm_agent.sources.base import Input, Output
from tests.lab.entry import run

NAME = "script"


def key(want: Want) -> str:
    """How the file names what is wanted."""
    return f"{want[0].word}/{want[1]}"


@dataclass
class FileSource:
    """Answers requests as the file says."""

    file: Path
    name: str = NAME
    _waiting: dict[Want, float] = field(default_factory=dict)
    _given: set[GrantKey] = field(default_factory=set)
    _now_s: float = 0.0

    def step(self, given: Input, now: Moment) -> Sequence[Output]:
        self._now_s = now.boot_s
        match given:
            case Request(want, on_net):
                self._tell(f"request {key(want)}" + " on-net" * on_net)
                self._waiting[want] = now.boot_s
            case Release(want):
                self._tell(f"release {key(want)}")
                self._waiting.pop(want, None)
            case GiveBack(grant):
                self._tell(f"give back {grant.instance}")
        if self._given and self.file.with_suffix(".withdrawn").exists():
            gone, self._given = self._given, set()
            return [Withdrawn(each) for each in gone]
        flag = self.file.with_suffix(".unconfirmed")
        if self._given and flag.exists():
            flag.unlink()
            return [Unconfirmed(each) for each in self._given]
        due = [want for want, since_s in self._waiting.items() if self._is_due(want, since_s)]
        for want in due:
            del self._waiting[want]
        return [self._answer(want) for want in due]

    def deadline(self) -> float | None:
        return self._now_s + 0.1 if self._given or self._waiting else None

    def _is_due(self, want: Want, since_s: float) -> bool:
        """Whether the file has an answer, and it was asked for long enough ago."""
        reply = self._reply(want)
        return reply is not None and since_s + reply.get("delay_s", 0.0) <= self._now_s

    def _answer(self, want: Want) -> Output:
        reply = self._reply(want) or {"cause": "the script has nothing"}
        if "cause" in reply:
            return Failed(want, reply["cause"], Failure(reply.get("kind", "refused")))
        network = ip_network(reply["network"])
        instance = key(want) + reply.get("instance", "")
        prefix = TypedPrefix(
            id=0,
            name=instance,
            type=want[0],
            network=network,
            interface=reply["interface"],
            gateway=ip_address(reply["gateway"]),
            placement=Placement.DELEGATED,
            spans=(network,),
            pool=reply.get("pool", 1),
            per_socket=reply.get("per_socket", False),
        )
        self._given.add(GrantKey(NAME, instance))
        return Granted(Grant(GrantKey(NAME, instance), prefix, Lifetime(), reply.get("release_s")))

    def _reply(self, want: Want) -> dict[str, Any] | None:
        found: dict[str, Any] | None = json.loads(self.file.read_text()).get(key(want))
        return found

    def _tell(self, line: str) -> None:
        with self.file.with_suffix(".told").open("a") as told:
            told.write(line + "\n")


class _Driver(Driver):
    def __init__(self, hands: Any, sources: Any, leases: Any) -> None:
        super().__init__(hands, [*sources, FileSource(Path(os.environ["ODM_SCRIPT"]))], leases)


def _set(modules: list[Any], name: str, variable: str) -> None:
    """A test can't wait as long as people can."""
    if variable in os.environ:
        for module in modules:
            setattr(module, name, float(os.environ[variable]))


if __name__ == "__main__":
    setattr(loop, "Driver", _Driver)  # noqa: B010
    _set([releasing], "LEAST_S", "ODM_LEAST_S")
    _set([looking, machine], "RESYNC_S", "ODM_RESYNC_S")
    run()
