"""Run the programs, and judge by the servers' logs whether all is as promised."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from rich.status import Status
from rich.table import Table
from rich.text import Text

from examples.demo.programs import CLASSES, PROGRAMS, Program
from odm_agent.core.model import Family
from tests.lab.agent import Agent
from tests.lab.cgroup import Cgroup
from tests.lab.host import LINKS, Captures, Site, prefix_of, type_of
from tests.netlab.correspondent import WitnessServer


@dataclass(frozen=True)
class Outcome:
    """One program's run: the sources that the server logged, where they passed, what is wrong."""

    program: Program
    family: Family
    sources: frozenset[str]
    gateways: frozenset[str]
    said: str
    wrong: str | None


class Show:
    """The stage: a site with a running agent, and the correspondent's servers by name."""

    def __init__(
        self,
        site: Site,
        agent: Agent,
        cgroups: Mapping[str, Cgroup],
        servers: Mapping[str, WitnessServer],
        status: Status,
    ) -> None:
        self._site = site
        self._agent = agent
        self._cgroups = cgroups
        self._servers = servers
        self._status = status

    def outcomes(self) -> Iterator[Outcome]:
        """Run all programs in both families."""
        for number, program in enumerate(PROGRAMS):
            for family in (Family.IPV6, Family.IPV4):
                self._status.update(f"running {program.name} in {program.cgroup}, IPv{family}")
                yield self._run(f"run-{number}-v{family}", program, family)

    def _run(self, request: str, program: Program, family: Family) -> Outcome:
        witness = self._servers[program.server]
        bind_to = None
        if program.bind_to is not None:
            bind_to = self._agent.addresses(prefix_of(program.bind_to, family).name)[0]
        with self._site.captures() as captures:
            done = program.run(
                request, family, self._cgroups[program.cgroup], self._site.host, bind_to
            )
            sources = set() if bind_to else witness.logged(request)
            gateways = _gateways(captures)
        said = " ".join((done.stderr or done.stdout).split())
        if bind_to is not None:
            # errno 13 is EACCES: not the address is wrong, but who asks for it.
            refused = "errno 13:" in said and not witness.callers(request) and not gateways
            wrong = None if refused else f"{bind_to} was not refused: {said}"
        else:
            wrong = _verdict(program, family, sources, gateways)
            if wrong is None and done.returncode:
                wrong = f"exit code {done.returncode}: {said}"
        return Outcome(
            program,
            family,
            frozenset(sources),
            frozenset(gateways),
            f"{bind_to}: {said.rpartition(': ')[2]}" if bind_to else "",
            wrong,
        )


def _gateways(captures: Captures) -> set[str]:
    return {letter for letter in "AB" if captures.sources(letter)}


def _verdict(program: Program, family: Family, sources: set[str], gateways: set[str]) -> str | None:
    """What is not as promised, if anything."""
    if not sources:
        return "the server never saw it"
    if program.expected:
        wanted = prefix_of(program.expected, family)
        if not all(source in wanted for source in sources):
            return f"expected a source in {wanted.network}"
        gateway = wanted.via
    else:
        gateway = "A"
        if {ip_address(source) for source in sources} != {LINKS["A", family][2]}:
            return f"expected the host's ordinary address {LINKS['A', family][2]}"
    return None if gateways == {gateway} else f"expected gateway {gateway}"


def table(outcomes: list[Outcome]) -> Table:
    """All outcomes, a line for each."""
    result = Table(title="What the servers saw", title_justify="left")
    for heading in ("program", "class", "type", "family", "source in the server's log", "via"):
        result.add_column(heading, no_wrap=heading != "source in the server's log")
    result.add_column("as promised", justify="center")
    for each in outcomes:
        program = each.program
        classified = program.cgroup in CLASSES
        result.add_row(
            program.name,
            program.cgroup if classified else "(none)",
            _type_words(each),
            f"IPv{each.family.value}",
            Text(each.said or ", ".join(sorted(each.sources)) or "-"),
            ", ".join(sorted(each.gateways)) or "-",
            verdict(each.wrong),
        )
    return result


def verdict(wrong: str | None) -> Text:
    """The cell that says whether all was as promised."""
    return Text(f"NO: {wrong}", style="bold red") if wrong else Text("yes", "green")


def _type_words(outcome: Outcome) -> str:
    if outcome.said:
        return "refused"
    types = {type_of(source) for source in outcome.sources}
    return ", ".join(type.word if type else "(untyped)" for type in sorted(types)) or "-"
