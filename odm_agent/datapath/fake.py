"""Maps in memory."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from odm_agent.core.actions import (
    DatapathAction,
    DropCgroup,
    DropClass,
    DropPrefix,
    DropSource,
    DropSpan,
    DropUplink,
    Guard,
    PutCgroup,
    PutChoice,
    PutClass,
    PutPrefix,
    PutSource,
    PutSpan,
    PutUplink,
    Unguard,
)
from odm_agent.core.model import AddressType, Family
from odm_agent.core.projection import PrefixRow, Projection
from odm_agent.datapath.base import VerdictKey


class FakeDatapath:
    """The fake of `Datapath`. `fault` refuses actions, `counts` is what `verdicts` answers."""

    def __init__(self) -> None:
        """Empty maps."""
        self._rows = Projection()
        #: Called with each action; what it raises is raised instead of carrying it out.
        self.fault: Callable[[DatapathAction], None] = lambda action: None
        self.counts: dict[VerdictKey, int] = {}

    def read(self) -> Projection:
        """A copy of the rows."""
        rows = self._rows
        return replace(
            rows,
            spans=dict(rows.spans),
            sources=dict(rows.sources),
            prefixes=dict(rows.prefixes),
            choices=dict(rows.choices),
            classes=dict(rows.classes),
            cgroups=dict(rows.cgroups),
        )

    def prefixes(self) -> Mapping[int, PrefixRow]:
        """What would be handed out, by prefix id."""
        return self._rows.prefixes

    def choices(self) -> Mapping[tuple[AddressType, Family], tuple[int, ...]]:
        """The ids of the prefixes that serve each type."""
        return self._rows.choices

    def apply(self, action: DatapathAction) -> None:
        """Write or drop one row."""
        self.fault(action)
        rows = self._rows
        match action:
            case PutSpan(network, span):
                rows.spans[network] = span
            case DropSpan(network):
                rows.spans.pop(network, None)
            case PutSource(address, source):
                rows.sources[address] = source
            case DropSource(address):
                rows.sources.pop(address, None)
            case PutPrefix(prefix_id, prefix):
                rows.prefixes[prefix_id] = prefix
            case DropPrefix(prefix_id):
                rows.prefixes.pop(prefix_id, None)
            case PutChoice(type_, family, ()):
                rows.choices.pop((type_, family), None)
            case PutChoice(type_, family, prefix_ids):
                rows.choices[type_, family] = prefix_ids
            case PutClass(policy):
                # The maps know no names.
                row = replace(policy, name="", cgroups=(), delegated=False)
                rows.classes[policy.id] = row
            case DropClass(class_id):
                rows.classes.pop(class_id, None)
            case PutCgroup(cgroup_id, cgroup):
                rows.cgroups[cgroup_id] = cgroup
            case DropCgroup(cgroup_id):
                rows.cgroups.pop(cgroup_id, None)
            case PutUplink(interface):
                self._rows = replace(rows, uplinks=rows.uplinks | {interface})
            case DropUplink(interface):
                self._rows = replace(rows, uplinks=rows.uplinks - {interface})
            case Guard(interface):
                self._rows = replace(rows, guards=rows.guards | {interface})
            case Unguard(interface):
                self._rows = replace(rows, guards=rows.guards - {interface})

    def verdicts(self) -> dict[VerdictKey, int]:
        """The counts that the test has set."""
        return dict(self.counts)
