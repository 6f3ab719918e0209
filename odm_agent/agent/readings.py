"""What a scrape reads; in the endpoint's thread, of values that never change in place."""

from collections import Counter
from collections.abc import Iterable, Mapping

from odm_agent import __version__
from odm_agent.agent import sockets, views
from odm_agent.agent.state import State
from odm_agent.datapath import abi
from odm_agent.metrics.readings import Info, Reloads, VerdictLabels
from odm_agent.model import AddressType, Family


class AgentReadings:
    """The agent's side of the collector's protocol."""

    def __init__(self, state: State) -> None:
        self._state = state

    def info(self) -> Info:
        """Version and ABI."""
        return Info(__version__, abi.ABI_TAG)

    def class_names(self) -> Mapping[int, str]:
        """Of all classes that ever had an id since verdicts outlive the configuration."""
        return self._state.class_names

    def verdicts(self) -> Iterable[tuple[VerdictLabels, int]]:
        """Straight from the map."""
        return list(self._state.datapath.verdicts().items())

    def sockets(self) -> Mapping[tuple[int, AddressType, Family], int]:
        """From sock_diag, now."""
        return sockets.count_by_type(sockets.typed_sockets(self._state))

    def addresses(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """By where they stand."""
        return Counter(
            (row.prefix.type, row.prefix.family, views.address_state(self._state, row, address))
            for row in self._state.engine.table
            for address in (*row.addresses, *row.conflicts)
        )

    def prefixes(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """By where they stand."""
        return Counter(
            (row.prefix.type, row.prefix.family, views.prefix_state(self._state, row)[0])
            for row in self._state.engine.table
        )

    def reloads(self) -> Reloads:
        """Configuration loads since the start."""
        found = self._state.reloads
        return Reloads(found.ok, found.failed, found.loaded)

    def alarms(self) -> int:
        """How many."""
        return len(views.alarms(self._state))
