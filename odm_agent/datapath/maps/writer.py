"""The pinned maps as the projection that they are: what the agent writes there."""

import ctypes as ct
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

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
from odm_agent.core.errors import DatapathError
from odm_agent.core.model import AddressType, ClassPolicy, Family
from odm_agent.core.numbering import Kind
from odm_agent.core.projection import CgroupRow, PrefixRow, Projection
from odm_agent.datapath import abi
from odm_agent.datapath.guards import packet_sockets
from odm_agent.datapath.maps import classes, following, forgetting, rows
from odm_agent.datapath.maps.reader import MapReader
from odm_agent.datapath.maps.slots import Slots
from odm_agent.policy.automaton import Automaton

#: The maps whose rows `fill` writes.
FILLED: Final = frozenset(
    {
        "odm_spans",
        "odm_sources",
        "odm_prefixes",
        "odm_uplinks",
        "odm_pools",
        "odm_choices",
        "odm_classes",
        "odm_caps",
        "odm_cgroups",
    }
)
#: Those whose rows `follow` writes.
FOLLOWED: Final = frozenset({"odm_globs", "odm_steps", "odm_folders"})


class MapWriter(MapReader):
    """The maps below a pin folder, of which this process is the only writer but for the programs.

    What they hold is read once, when they are opened; from then on a copy is kept beside, so that
    `read` costs next to nothing. Only interfaces are looked at each time: anybody may change them.
    While the pins are hidden, the guards there are taken to be as they were last seen.
    Cgroups are classified by the programs, too: `classified` reads their rows anew.
    Raises DatapathError if a pin is missing or of another shape.
    """

    def __init__(self, pin_dir: Path) -> None:
        super().__init__(pin_dir)
        self._slots = Slots()
        self._spans = {abi.unpack_span(k): rows.unpack_span(v) for k, v in self._items("odm_spans")}
        self._sources = {
            abi.unpack_addr(k): rows.unpack_source(v) for k, v in self._items("odm_sources")
        }
        self._prefixes = dict(self._read_prefixes())
        self._uplinks = {key.value for key, _ in self._items("odm_uplinks")}
        self._choices = dict(self._read_choices())
        self._classes = {
            key.value: classes.unpack(key.value, row, self._maps["odm_caps"])
            for key, row in self._items("odm_classes")
            if any(bytes(row))
        }
        self._cgroups: dict[int, CgroupRow] = {}
        self._written: set[int] = set()
        self._is_followed = False
        self._guards = packet_sockets.guarded(pin_dir)
        self.classified()

    def read(self) -> Projection:
        """The rows that are in the maps now."""
        if packet_sockets.is_pinned(self._pin_dir):
            self._guards = packet_sockets.guarded(self._pin_dir)
        return Projection(
            spans=dict(self._spans),
            sources=dict(self._sources),
            prefixes=dict(self._prefixes),
            choices=dict(self._choices),
            classes=dict(self._classes),
            cgroups=dict(self._cgroups),
            guards=self._guards,
            uplinks=frozenset(self._uplinks),
        )

    def classified(self) -> Mapping[int, CgroupRow]:
        """The rows of cgroups as they are now; `read` tells the same until this is called again."""
        self._cgroups = {k.value: rows.unpack_cgroup(v) for k, v in self._items("odm_cgroups")}
        return MappingProxyType(self._cgroups)

    def newly_written(self) -> set[int]:
        """The cgroups whose rows this process, not the programs, has written since last asked."""
        written, self._written = self._written, set()
        return written

    def follow(
        self,
        automaton: Automaton,
        folders: Mapping[int, following.Folder],
        is_gone: Callable[[int], bool],
    ) -> None:
        """Let the programs classify new cgroups (see `following.follow`)."""
        following.follow(self._maps, automaton, folders, is_gone)
        if not self._is_followed:
            following.tidy(self._maps, automaton.generation, folders, is_gone)
            self._is_followed = True

    def count_members(self, class_ids: Collection[int]) -> None:
        """Tell the programs how many rows of cgroups these classes have, as last read."""
        members = Counter(row.class_id for row in self._cgroups.values())
        for class_id in class_ids:
            self._maps["odm_members"].put(class_id, ct.c_uint32(members[class_id]))

    def forget_number(self, kind: Kind, number: int) -> None:
        """Remove what is still said about a number that nothing carries. Raises DatapathError."""
        if kind == "class":
            forgetting.forget_class(self._maps, number)
        else:
            forgetting.forget_prefix(self._maps, number)

    def prefixes(self) -> Mapping[int, PrefixRow]:
        """What hooks hand out now, by prefix id; a copy, since other threads ask as well."""
        return self._prefixes.copy()

    def choices(self) -> Mapping[tuple[AddressType, Family], tuple[int, ...]]:
        """The ids of the prefixes that serve each type, the first one first."""
        return self._choices

    def apply(self, action: DatapathAction) -> None:
        """Write or drop one row; each is seen whole by the hooks or not at all."""
        match action:
            case PutSpan(network, row):
                self._maps["odm_spans"].put(abi.pack_span(network), rows.pack_span(row))
                self._spans[network] = row
                self._count("any_ip_spans", sum(s.any_ip for s in self._spans.values()))
            case DropSpan(network):
                self._maps["odm_spans"].delete(abi.pack_span(network))
                self._spans.pop(network, None)
                self._count("any_ip_spans", sum(s.any_ip for s in self._spans.values()))
            case PutSource(address, source):
                self._maps["odm_sources"].put(abi.pack_addr(address), rows.pack_source(source))
                self._sources[address] = source
            case DropSource(address):
                self._maps["odm_sources"].delete(abi.pack_addr(address))
                self._sources.pop(address, None)
            case PutPrefix(prefix_id, prefix):
                self._put_prefix(prefix_id, prefix)
            case DropPrefix(prefix_id):
                self._drop_prefix(prefix_id)
            case PutChoice():
                self._put_choice(action)
            case PutClass(policy):
                self._put_class(policy.id, policy)
            case DropClass(class_id):
                self._put_class(class_id, None)
            case PutCgroup(cgroup_id, cgroup):
                self._put_cgroup(cgroup_id, cgroup)
            case DropCgroup(cgroup_id):
                self._maps["odm_cgroups"].delete(cgroup_id)
                self._cgroups.pop(cgroup_id, None)
                self._forget_resolved()
            case PutUplink(interface):
                self._maps["odm_uplinks"].put(interface, ct.c_uint32(1))
                self._uplinks.add(interface)
            case DropUplink(interface):
                self._maps["odm_uplinks"].delete(interface)
                self._uplinks.discard(interface)
            case Guard(interface):
                packet_sockets.guard(self._pin_dir, interface)
                self._guards |= {interface}
            case Unguard(interface):
                packet_sockets.unguard(self._pin_dir, interface)
                self._guards -= {interface}

    def fill(self, goal: Projection, fresh: Collection[str]) -> None:
        """Write the goal's rows into maps that no program reads yet, and into no other.

        What the programs in force work on stays as it is, for they go on meanwhile; so `goal` is
        what should be there *now*, and the maps that both read agree with it as far as they can.
        """
        for name in FILLED & frozenset(fresh):
            match name:
                case "odm_spans":
                    for network, span in goal.spans.items():
                        self._maps[name].put(abi.pack_span(network), rows.pack_span(span))
                        self._spans[network] = span
                case "odm_sources":
                    for address, source in goal.sources.items():
                        self._maps[name].put(abi.pack_addr(address), rows.pack_source(source))
                        self._sources[address] = source
                case "odm_prefixes":  # and odm_pools, which is fresh with it
                    for prefix_id, prefix in goal.prefixes.items():
                        self._put_prefix(prefix_id, prefix)
                case "odm_uplinks":
                    for interface in goal.uplinks:
                        self._maps[name].put(interface, ct.c_uint32(1))
                    self._uplinks = set(goal.uplinks)
                case "odm_choices":
                    for (type_, family), prefix_ids in goal.choices.items():
                        self._put_choice(PutChoice(type_, family, prefix_ids))
                case "odm_classes":
                    for policy in goal.classes.values():
                        self._maps[name].put(policy.id, classes.pack(policy))
                        self._classes[policy.id] = policy
                case "odm_caps":
                    for policy in goal.classes.values():
                        for type_, cap in classes.caps(policy).items():
                            self._maps[name].put(abi.usage_index(policy.id, type_), cap)
                case "odm_cgroups":
                    for cgroup_id, cgroup in goal.cgroups.items():
                        self._maps[name].put(cgroup_id, rows.pack_cgroup(cgroup))
                        self._cgroups[cgroup_id] = cgroup
        self._count("any_ip_spans", sum(s.any_ip for s in self._spans.values()))
        self._count_classes()
        self._forget_resolved()

    # --- rows that take more than one write -------------------------------------------------

    def _put_cgroup(self, cgroup_id: int, cgroup: CgroupRow) -> None:
        """Unless it is there already: then whatever was resolved is still true."""
        row = rows.pack_cgroup(cgroup)
        known = self._maps["odm_cgroups"].get(cgroup_id)
        if known is None or bytes(known) != bytes(row):
            self._maps["odm_cgroups"].put(cgroup_id, row)
            self._written.add(cgroup_id)
            self._forget_resolved()
        self._cgroups[cgroup_id] = cgroup

    def _put_prefix(self, prefix_id: int, row: PrefixRow) -> None:
        """The pool first, in slots that nobody reads, then the one word that points to it."""
        if not 0 < prefix_id < abi.MAX_PREFIXES:
            raise DatapathError(f"the maps have no room for a prefix with the number {prefix_id}")
        first = self._slots.take(len(row.pool))
        for offset, address in enumerate(row.pool):
            self._maps["odm_pools"].put(first + offset, abi.pack_addr(address))
        self._maps["odm_prefixes"].put(prefix_id, rows.pack_prefix(row, first))
        self._slots.assign(prefix_id, first, len(row.pool))
        self._prefixes[prefix_id] = row

    def _drop_prefix(self, prefix_id: int) -> None:
        """Nothing to hand out; where connections from its addresses leave, they still do."""
        known = self._maps["odm_prefixes"].get(prefix_id)
        assert isinstance(known, abi.Prefix)  # an array has all its rows
        self._maps["odm_prefixes"].put(prefix_id, abi.Prefix(ifindex=known.ifindex))
        self._slots.release(prefix_id)
        self._prefixes.pop(prefix_id, None)

    def _put_choice(self, action: PutChoice) -> None:
        row = rows.pack_choice(action.prefix_ids)
        self._maps["odm_choices"].put(abi.choice_index(action.type, action.family), row)
        if action.prefix_ids:
            self._choices[action.type, action.family] = action.prefix_ids
        else:
            self._choices.pop((action.type, action.family), None)

    def _put_class(self, class_id: int, policy: ClassPolicy | None) -> None:
        if not 0 <= class_id < abi.MAX_CLASSES:
            raise DatapathError(f"the maps have no room for a class with the number {class_id}")
        # A cap before the class that says it has some.
        for type_, cap in classes.caps(policy).items():
            self._maps["odm_caps"].put(abi.usage_index(class_id, type_), cap)
        self._maps["odm_classes"].put(class_id, classes.pack(policy))
        if policy is None:
            self._classes.pop(class_id, None)
        else:
            self._classes[class_id] = policy
        self._count_classes()

    def _count_classes(self) -> None:
        self._count("strict_classes", sum(each.strict for each in self._classes.values()))
        self._count("watched_classes", sum(map(classes.is_watched, self._classes.values())))
        self._count("asked_share", classes.asked_share(self._classes))

    def _count(self, field: str, value: int) -> None:
        """Keep a number that hooks read in one place; most spare a lookup while they are 0."""
        settings = self.settings
        if getattr(settings, field) != value:
            setattr(settings, field, value)
            self._maps["odm_settings"].put(0, settings)

    def _forget_resolved(self) -> None:
        """Whatever a hook has resolved before is void from now on."""
        settings = self.settings
        settings.epoch += 1
        self._maps["odm_settings"].put(0, settings)

    # --- reading back what another process wrote ----------------------------------------------

    def _read_prefixes(self) -> Any:
        for key, row in self._items("odm_prefixes"):
            first, size, _ = abi.unpack_pool(row.pool)
            if not size:
                continue
            self._slots.mark_used(key.value, first, size)
            slots = (self._maps["odm_pools"].get(first + offset) for offset in range(size))
            pool = tuple(abi.unpack_addr(slot) for slot in slots if slot is not None)
            yield key.value, rows.unpack_prefix(row, pool)

    def _read_choices(self) -> Any:
        found: Mapping[int, Any] = {k.value: v for k, v in self._items("odm_choices")}
        for type_ in AddressType:
            for family in Family:
                row = found[abi.choice_index(type_, family)]
                if row.count:
                    yield (type_, family), rows.unpack_choice(row)
