"""The second act: addresses that end, by bytes while a download runs, and by time."""

import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from rich.status import Status
from rich.table import Table

from examples.demo.show import verdict
from odm_agent.core.model import AddressType, Family
from tests.lab.agent import Agent
from tests.lab.cgroup import Cgroup
from tests.lab.host import Site, prefix_of
from tests.netlab.correspondent import LARGE, LARGE_BYTES, WitnessServer, url

#: What the prefixes of two types are told for it. A download sends little: acknowledgements.
TERMS: Final = {
    **{name: {"budget": "70kB"} for name in ("brief6", "brief4")},
    **{name: {"rotate": "5s"} for name in ("graceful6", "graceful4")},
}
_PATIENCE_S: Final = 20.0


@dataclass(frozen=True)
class Scene:
    """What happened, the sources that the server logged before and after, and what is wrong."""

    what: str
    family: Family
    before: str
    after: str
    wrong: str | None


class Ending:
    """A download outlives the budget of its address; and a rotation takes place by time."""

    def __init__(
        self,
        site: Site,
        agent: Agent,
        cgroups: Mapping[str, Cgroup],
        server: WitnessServer,
        status: Status,
    ) -> None:
        self._site, self._agent, self._cgroups = site, agent, cgroups
        self._server, self._status = server, status

    def scenes(self) -> Iterator[Scene]:
        """All scenes, in IPv6 and IPv4."""
        for family in (Family.IPV6, Family.IPV4):
            self._status.update(f"spending a budget of bytes, IPv{family}")
            yield self._budget(family)
            self._status.update(f"waiting for a rotation, IPv{family}")
            yield self._rotation(family)

    def _budget(self, family: Family) -> Scene:
        name = f"download-v{family}"
        download = self._cgroups["browsing"].spawn(
            self._curl(family, f"{LARGE}?{name}", "%{size_download}"),
            netns=self._site.host,
            stdout=subprocess.PIPE,
        )
        try:
            before = self._current(AddressType.NONPERSISTENT, family)
            after = self._another(AddressType.NONPERSISTENT, family, "browsing", before)
            runs = download.poll() is None
            said, _ = download.communicate(timeout=60)
        finally:
            download.kill()
            download.wait()
        wrong = None
        if not runs:
            wrong = "the download was over before the budget"
        elif download.returncode or said.strip() != str(LARGE_BYTES):
            wrong = f"the download broke: exit code {download.returncode}, {said} bytes"
        elif self._server.logged(f"{LARGE}?{name}") != {before}:
            wrong = "the download did not keep its address"
        elif after == before:
            wrong = "the next connection still has it"
        return Scene("its budget, during a download", family, before, after, wrong)

    def _rotation(self, family: Family) -> Scene:
        before = self._current(AddressType.GRACEFUL_REPLACEMENT, family)
        after = self._another(AddressType.GRACEFUL_REPLACEMENT, family, "streaming", before)
        wrong = "no other address came" if after == before else None
        return Scene("time", family, before, after, wrong)

    def _current(self, type_: AddressType, family: Family) -> str:
        """The address that sockets are given now."""
        return self._agent.addresses(prefix_of(type_, family).name)[0]

    def _another(self, type_: AddressType, family: Family, cgroup: str, before: str) -> str:
        """The first other source of a row of requests, by the server's log."""
        until_s = time.monotonic() + _PATIENCE_S
        source, number = before, 0
        while source == before and time.monotonic() < until_s:
            number += 1
            request = f"after-{type_.word}-v{family}-{number}"
            self._cgroups[cgroup].run(
                self._curl(family, request, ""), netns=self._site.host, timeout_s=10
            )
            time.sleep(0.1)
            source = next(iter(self._server.callers(request)), before)
        return source

    def _curl(self, family: Family, request: str, told: str) -> list[str]:
        return [
            *("curl", "-sS", "--max-time", "60", "--noproxy", "*", "-o", "/dev/null"),
            *("-w", told, url(request, family)),
        ]


def table(scenes: list[Scene]) -> Table:
    """All scenes, a line for each."""
    result = Table(title="Addresses that end", title_justify="left")
    for heading in ("ended by", "family", "source before", "source after"):
        result.add_column(heading, no_wrap=heading != "ended by")
    result.add_column("as promised", justify="center")
    for each in scenes:
        family = f"IPv{each.family.value}"
        result.add_row(each.what, family, each.before, each.after, verdict(each.wrong))
    return result
