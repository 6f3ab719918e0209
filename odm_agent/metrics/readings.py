"""What a scrape reads. The agent implements it; the tests bring their own."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from odm_agent.core.lifetimes import Cause
from odm_agent.core.model import AddressType, Cap, Family
from odm_agent.core.outages import Tally


class VerdictLabels(Protocol):
    """By what a verdict is counted; the datapath's own key fits (adapters don't import another)."""

    @property
    def class_id(self) -> int: ...
    @property
    def type(self) -> AddressType: ...
    @property
    def verdict(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def hook(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Info:
    """What this agent is."""

    version: str
    abi: int


@dataclass(frozen=True, slots=True)
class Reloads:
    """Configuration loads since the agent started; `last_success` is in Unix seconds."""

    ok: int
    failed: int
    last_success: float


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """What is left of a prefix's current addresses, the least of them (None: no end), and how many
    former ones linger."""

    prefix: str
    type: AddressType
    seconds_left: float | None
    bytes_left: int | None
    lingering: int


class Readings(Protocol):
    """Read at scrape time, each on its own: one that raises loses only its own metrics.

    Called from the endpoint's thread, one scrape at a time: what is shared with the event loop
    must be safe to read from there (immutable snapshots, or pinned maps with their own handles).
    """

    def info(self) -> Info: ...

    def class_names(self) -> Mapping[int, str]:
        """Names by class id; id 0 need not be in it."""

    def verdicts(self) -> Iterable[tuple[VerdictLabels, int]]:
        """All verdicts since the maps were made, e.g. `datapath.verdicts().items()`."""

    def sockets(self) -> Mapping[tuple[int, AddressType, Family], int]:
        """Live sockets by class id, type and family, as sock_diag lists them.

        Those that the programs count are left out.
        """

    def tracked(self) -> Mapping[tuple[int, AddressType, Family], int]:
        """Live sockets by class id, type and family, as the programs count them."""

    def caps(self) -> Iterable[tuple[int, Cap]]:
        """(class id, cap) of all classes in force."""

    def corrections(self) -> int:
        """Counts that were found to be wrong since the agent started."""

    def losses(self) -> Mapping[str, int]:
        """What the programs could not note since their maps were made, by what it was."""

    def sent(self) -> Mapping[tuple[int, AddressType], tuple[int, int]]:
        """IP bytes and packets sent since the maps were made, by class id and type."""

    def lifetimes(self) -> Iterable[Lifetimes]:
        """Of all prefixes whose addresses end."""

    def rotations(self) -> Mapping[tuple[str, AddressType, Cause], int]:
        """How often an address took another one's place since the agent started: by prefix, type
        and why."""

    def requests(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """What sources of prefixes were asked for since the agent started, and what came of it."""

    def request_latency(self) -> Mapping[AddressType, tuple[Iterable[tuple[float, int]], float]]:
        """How long these took: in buckets, (upper bound in seconds, how many), and their sum."""

    def network_requests(self) -> Mapping[tuple[AddressType, str], int]:
        """What networks have done since the agent started, by type and outcome."""

    def network_drops(self) -> Mapping[str, int]:
        """Datagrams of DHCP servers that were thrown away, or not sent, by why."""

    def handovers(self) -> Tally:
        """What handovers came to since the host booted."""

    def addresses(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """Typed addresses by type, family and state."""

    def prefixes(self) -> Mapping[tuple[AddressType, Family, str], int]:
        """Typed prefixes by type, family and state."""

    def reloads(self) -> Reloads: ...

    def alarms(self) -> int:
        """How many conditions now need a person (`odm-agent status` lists them)."""
