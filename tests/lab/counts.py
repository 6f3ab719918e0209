"""What the programs count, read from the pins, and what the kernel's own lists say."""

from collections.abc import Callable
from dataclasses import dataclass

from odm_agent.core.model import AddressType
from odm_agent.datapath.base import LiveKey
from odm_agent.datapath.census import CensusRow
from odm_agent.datapath.maps.writer import MapWriter
from odm_agent.kernel.sock_diag import SocketInfo, sockets
from tests.lab.agent import Agent
from tests.lab.process import wait_until


@dataclass(frozen=True)
class Counts:
    """One look: by class and type, by address, and socket by socket."""

    usage: dict[tuple[int, AddressType], int]
    live: dict[LiveKey, int]
    census: list[CensusRow]

    @property
    def held(self) -> list[CensusRow]:
        """The sockets that are counted."""
        return [row for row in self.census if row.held is not None]


def look(agent: Agent) -> Counts:
    """The counts now; rows by address that count nobody are left out."""
    with MapWriter(agent.pins) as datapath:
        live = {key: count for key, count in datapath.live().items() if count}
        return Counts(datapath.usage(), live, datapath.census())


def total(agent: Agent) -> int:
    """All tracked sockets that hold an address; the three ways to tell must agree.

    A socket that opens or closes during the look is the only reason why they may not: look again.
    """
    found: Counts | None = None

    def agree() -> bool:
        nonlocal found
        found = look(agent)
        by_class, by_address = sum(found.usage.values()), sum(found.live.values())
        return by_class == by_address == len(found.held)

    wait_until(agree, f"the counts agree: {found}")
    assert found is not None
    return sum(found.usage.values())


def settles_at(agent: Agent, expected: int, timeout_s: float = 5.0) -> None:
    """Wait until `expected` tracked sockets hold an address."""
    try:
        wait_until(lambda: total(agent) == expected, f"{expected} sockets", timeout_s)
    except AssertionError as error:
        raise AssertionError(f"expected {expected}, found {look(agent)}") from error


def listed(agent: Agent, wanted: Callable[[SocketInfo], bool]) -> list[SocketInfo]:
    """What sock_diag lists in the agent's namespace, but for remnants (TIME_WAIT)."""
    found = agent.netns.call(sockets)
    return [info for info in found if not info.remnant and wanted(info)]
