"""The pinned maps as the projection that they are: what the agent writes there."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from odm_agent.core import tables
from odm_agent.core.actions import DatapathAction, Guard, Unguard
from odm_agent.core.model import AddressType, ClassPolicy, Family, IPNetwork
from odm_agent.core.numbering import Kind
from odm_agent.core.projection import CgroupRow, PrefixRow, Projection, SpanRow
from odm_agent.core.tables import Drop, Put, Table
from odm_agent.datapath import abi
from odm_agent.datapath.base import Sent
from odm_agent.datapath.guards import packet_sockets
from odm_agent.datapath.maps import classes, following, forgetting, rows
from odm_agent.datapath.maps.blocks import OF_TYPINGS, Blocks
from odm_agent.datapath.maps.reader import MapReader
from odm_agent.datapath.maps.tables import Leases, opened
from odm_agent.policy.automaton import Automaton

#: Those whose rows `follow` writes; `fill` writes those of all others that the agent writes.
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
        self._tables = opened(self._maps)
        self._any_ip = self._any_ip_spans()
        self._blocks = Blocks(self._maps["odm_untyped_blocks"])
        for table in OF_TYPINGS:
            for key, row in self._tables[table].rows.items():
                self._blocks.note(table, key, row)
        self._written: set[int] = set()
        self._is_followed = False
        self._guards = packet_sockets.guarded(pin_dir)

    def read(self) -> Projection:
        """The rows that are in the maps now."""
        if packet_sockets.is_pinned(self._pin_dir):
            self._guards = packet_sockets.guarded(self._pin_dir)
        copies: dict[str, Any] = {t.name: dict(each.rows) for t, each in self._tables.items()}
        return Projection(**copies, guards=self._guards)

    def meters(self) -> dict[int, Sent]:
        """What was sent by each lease of which there is a row; from any thread."""
        return {key: self._meter(key) for key in self._tables[tables.LEASES].rows.copy()}

    def _meter(self, lease_id: int) -> Sent:
        row = self._maps["odm_meters"].get(lease_id)
        assert isinstance(row, abi.Meter)  # an array has all its rows
        return rows.unpack_meter(row)

    def resume_meters(self, sent: Mapping[int, Sent]) -> None:
        """What was sent by leases of which there is no row yet: their counts go on from there."""
        leases = self._tables[tables.LEASES]
        assert isinstance(leases, Leases)
        leases.resumed = {key: each for key, each in sent.items() if key not in leases.rows}

    def classified(self) -> Mapping[int, CgroupRow]:
        """The rows of cgroups as they are now, those included of cgroups that were let go."""
        return {key: rows.unpack_cgroup(row) for key, row in self._items("odm_cgroups")}

    def look_again(self) -> Mapping[int, CgroupRow]:
        """The same; `read` tells of all these from now on."""
        self._tables[tables.CGROUPS].read()
        return MappingProxyType(self._tables[tables.CGROUPS].rows)

    def row_of(self, cgroup_id: int) -> CgroupRow | None:
        """The row of one cgroup as it is in the map now."""
        row = self._maps["odm_cgroups"].get(cgroup_id)
        return rows.unpack_cgroup(row) if row is not None else None

    def let_go(self, cgroup_ids: Iterable[int]) -> None:
        """The programs remove the rows of these cgroups: `read` tells of them no more."""
        for cgroup_id in cgroup_ids:
            self._tables[tables.CGROUPS].rows.pop(cgroup_id, None)

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
        cgroups: Mapping[int, CgroupRow] = self._tables[tables.CGROUPS].rows
        members = Counter(row.class_id for row in cgroups.values())
        for class_id in class_ids:
            self._maps["odm_members"].put(class_id, members[class_id])

    def forget_number(self, kind: Kind, number: int) -> None:
        """Remove what is still said about a number that nothing carries. Raises DatapathError."""
        if kind == "class":
            forgetting.forget_class(self._maps, number)
        else:
            forgetting.forget_prefix(self._maps, number)

    def members(self, class_id: int) -> int:
        """How many rows of cgroups the class has, as the programs count them."""
        count = self._maps["odm_members"].get(class_id)
        return int(count or 0)

    def add_members(self, more: Mapping[int, int]) -> None:
        """Tell the programs of rows that were written (or removed, below 0), by class id."""
        for class_id, change in more.items():
            if change:
                count = max(0, self.members(class_id) + change)
                self._maps["odm_members"].put(class_id, count)

    def count_on_nonlocal_bind(self, allowed: bool) -> None:
        """Tell the programs whether IPv6 sockets can be bound to what no interface has."""
        self._count("nonlocal_bind", int(allowed))

    def prefixes(self) -> Mapping[int, PrefixRow]:
        """What hooks hand out now, by prefix id; a copy, since other threads ask as well."""
        return self._tables[tables.PREFIXES].rows.copy()

    def seats(self) -> Mapping[tuple[int, int], int]:
        """By prefix and class the prefix id that is the class's own; a copy, as `prefixes`."""
        return self._tables[tables.SEATS].rows.copy()

    def choices(self) -> Mapping[tuple[AddressType, Family], tuple[int, ...]]:
        """The ids of the prefixes that serve each type, the first one first."""
        return MappingProxyType(self._tables[tables.CHOICES].rows)

    def apply(self, action: DatapathAction) -> None:
        """Write or drop one row; each is seen whole by the hooks or not at all."""
        match action:
            case Put(tables.CGROUPS, cgroup_id, cgroup):
                self._classify(cgroup_id, cgroup)
            case Put(table, key, row):
                self._write(table, key, row)
                self._sum_up(table, key)
            case Drop(table, key):
                self._tables[table].drop(key)
                self._sum_up(table, key)
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
        for table, written in self._tables.items():
            if written.names.issubset(fresh):
                for key, row in table.of(goal).items():
                    self._write(table, key, row)
        if "odm_untyped_blocks" in fresh:
            self._blocks.write()
        self._any_ip = self._any_ip_spans()
        self._count("any_ip_spans", len(self._any_ip))
        self._count_shared()
        self._count_classes()
        self._forget_resolved()

    def _write(self, table: Table[Any, Any], key: Any, row: Any) -> None:
        """Nothing is typed in a block that counts as untyped."""
        if table in OF_TYPINGS:
            self._blocks.before(table, key, row)
        self._tables[table].put(key, row)

    # --- what follows from rows -----------------------------------------------------------------

    def _classify(self, cgroup_id: int, row: CgroupRow) -> None:
        """Unless the programs have: then whatever was resolved is still true."""
        cgroups = self._tables[tables.CGROUPS]
        known = self._maps["odm_cgroups"].get(cgroup_id)
        if known is not None and rows.unpack_cgroup(known) == row:
            cgroups.rows[cgroup_id] = row
            return
        cgroups.put(cgroup_id, row)
        self._written.add(cgroup_id)
        self._forget_resolved()

    def _sum_up(self, table: Table[Any, Any], key: Any) -> None:
        """Keep what hooks read in one place true, now that a row was written or removed."""
        if table in OF_TYPINGS:
            self._blocks.after(table, key, self._tables[table].rows.get(key))
        match table:
            case tables.SPANS:
                row = self._tables[table].rows.get(key)
                (self._any_ip.add if row and row.any_ip else self._any_ip.discard)(key)
                self._count("any_ip_spans", len(self._any_ip))
            case tables.PREFIXES:
                self._count_shared()
            case tables.CLASSES:
                self._count_classes()
            case tables.CGROUPS:
                self._forget_resolved()

    def _any_ip_spans(self) -> set[IPNetwork]:
        spans: Mapping[IPNetwork, SpanRow] = self._tables[tables.SPANS].rows
        return {network for network, row in spans.items() if row.any_ip}

    def _count_shared(self) -> None:
        prefixes: Mapping[int, PrefixRow] = self._tables[tables.PREFIXES].rows
        self._count("shared_prefixes", sum(each.shared for each in prefixes.values()))

    def _count_classes(self) -> None:
        policies: Mapping[int, ClassPolicy] = self._tables[tables.CLASSES].rows
        self._count("strict_classes", sum(each.strict for each in policies.values()))
        self._count("watched_classes", sum(map(classes.is_watched, policies.values())))
        self._count("dialogue_share", classes.dialogue_share(policies))

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
