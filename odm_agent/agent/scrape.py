"""What a scrape reads; in the endpoint's thread, of values that never change in place."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from odm_agent import __version__
from odm_agent.agent import lifetimes, sockets, status
from odm_agent.agent.requests import BUCKETS_S
from odm_agent.agent.state import State
from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import AddressType, Cap, Family
from odm_agent.core.outages import Tally
from odm_agent.datapath import abi
from odm_agent.metrics.readings import Info, Lifetimes, Reloads, VerdictLabels


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
        """From sock_diag, now; without those that the programs count."""
        listed = sockets.typed_sockets(self._state)
        return sockets.count_by_type(each for each in listed if not each.counted)

    def tracked(self) -> Mapping[tuple[int, AddressType, Family], int]:
        """As the programs count them."""
        return sockets.count_live(self._state)

    def caps(self) -> Iterable[tuple[int, Cap]]:
        """Of all classes in force."""
        return [(p.id, cap) for p in self._state.engine.classes.values() for cap in p.caps]

    def corrections(self) -> int:
        """Counts that the agent had to put right."""
        return self._state.counts.corrected

    def losses(self) -> Mapping[str, int]:
        """What the programs could not note."""
        return self._state.datapath.losses()

    def sent(self) -> Mapping[tuple[int, AddressType], tuple[int, int]]:
        """Straight from the map."""
        traffic = self._state.datapath.traffic()
        return {key: (each.bytes, each.packets) for key, each in traffic.items()}

    def lifetimes(self) -> Iterable[Lifetimes]:
        """As `odm-agent lifetimes` has them."""
        return lifetimes.summary(self._state)

    def rotations(self) -> Mapping[tuple[str, AddressType, Cause], int]:
        """As the table has turned to other addresses."""
        return self._state.rotations.copy()

    def requests(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """From the book of requests."""
        return self._state.requests.outcomes.copy()

    def request_latency(self) -> Mapping[AddressType, tuple[Iterable[tuple[float, int]], float]]:
        """From the book of requests."""
        bounds = (*BUCKETS_S, math.inf)
        return {
            type_: (list(zip(bounds, each.counts, strict=True)), each.sum_s)
            for type_, each in self._state.requests.latency.copy().items()
        }

    def network_requests(self) -> Mapping[tuple[AddressType, str], int]:
        """As noted."""
        return self._state.network_notes.outcomes.copy()

    def network_drops(self) -> Mapping[str, int]:
        """As the ports count them."""
        return self._state.delegations.dropped()

    def handovers(self) -> Tally:
        """From the book of handovers."""
        return self._state.handovers.tally

    def addresses(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """By where they stand."""
        return Counter(
            (row.prefix.type, row.prefix.family, state)
            for row, _, state in status.address_states(self._state)
        )

    def prefixes(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """By where they stand."""
        return Counter(
            (row.prefix.type, row.prefix.family, status.prefix_state(self._state, row)[0])
            for row in self._state.engine.table
        )

    def reloads(self) -> Reloads:
        """Configuration loads since the start."""
        found = self._state.reloads
        return Reloads(found.ok, found.failed, found.loaded)

    def alarms(self) -> int:
        """How many."""
        return len(status.alarms(self._state))
