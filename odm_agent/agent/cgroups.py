"""Which cgroups are of which class now: what patterns name, and what `exec` has made."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final, Protocol

from odm_agent.agent.left_out import LeftOut
from odm_agent.control import scopes
from odm_agent.core.errors import KernelError
from odm_agent.core.model import UNCLASSIFIED, AddressType, ClassPolicy, Mode
from odm_agent.core.projection import CgroupRow
from odm_agent.datapath import abi
from odm_agent.datapath.maps.following import Folder
from odm_agent.kernel.cgroups import Refused, cgroup_id, is_removed, path_of
from odm_agent.kernel.hierarchy import Hierarchy, Known
from odm_agent.policy.automaton import Automaton, compiled
from odm_agent.policy.ended import of_no_class
from odm_agent.policy.globs import is_glob, nearest_class_of
from odm_agent.policy.leads import Lead, Leads

_SCOPES: Final = f"{scopes.PARENT}/*"
#: How many cgroups are looked at, and how many rows decided, in a piece.
PIECE: Final = 256
#: For how many pieces of others' cgroups a start waits.
MOST_PIECES: Final = 40
#: The class of new cgroups of which the programs can't tell whether a closed class's glob fits.
UNDECIDED: Final = ClassPolicy(
    id=abi.UNDECIDED_CLASS,
    name="undecided",
    mode=Mode.ENFORCE,
    default=AddressType.FIXED,  # which it may not use: so it is refused whatever it wants
    fail_closed=True,
)


class Noted(Protocol):
    """What the programs and the agent have noted in the maps."""

    def row_of(self, cgroup_id: int) -> CgroupRow | None: ...
    def members(self, class_id: int) -> int: ...


@dataclass(slots=True)
class Changes:
    """Rows to write (None: to remove), by cgroup id, and how many more the classes have by that.

    Of cgroups that are `released` the programs remove the row.
    """

    rows: dict[int, CgroupRow | None] = field(default_factory=dict)
    members: Counter[int] = field(default_factory=Counter)
    released: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Place:
    """Why a cgroup has its row: its class, and whether it takes of what others may make of it."""

    policy: ClassPolicy
    path: str
    default: AddressType | None
    bounded: bool


class ClassifiedCgroups:
    """Follows the cgroup tree below `root`, where the programs are attached.

    Use: `follow`, `take_over` what the maps hold, then `step` and `told` as long as it `is_behind`.
    A step looks at a bounded number of cgroups; `rows` are what should be in the map by what was
    seen until now. One thread does all that; others may ask `members_of` and `refused`.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root_id = cgroup_id(root)
        #: By cgroup id. One of a class in mode off is a row of no class, so that none is inherited.
        self.rows: dict[int, CgroupRow] = {}
        #: Cgroups that were removed, but whose rows no program removes with their last socket.
        self.leaving: set[int] = set()
        self.automaton = Automaton()
        self._policies: list[ClassPolicy] | None = None
        self._by_name: dict[str, ClassPolicy] = {}
        #: By id: classes that are not off, and those that were before, of which there may be rows.
        self._at_work: dict[int, ClassPolicy] = {}
        self._former: dict[int, ClassPolicy] = {}
        #: How many of `rows` each class has.
        self._sizes: Counter[int] = Counter()
        self._places: dict[int, _Place] = {}
        self._members: dict[str, dict[int, str]] = {}
        #: By class id: those whose number is bounded.
        self._bounded: dict[int, set[int]] = {}
        self._left_out = LeftOut()
        #: Rows of which no look has found the reason yet.
        self._unsure: set[int] = set()
        self._hierarchy = Hierarchy(root)

    def close(self) -> None:
        """Stop watching."""
        self._hierarchy.close()

    def fileno(self) -> int:
        """Readable when cgroups came or went where patterns look."""
        return self._hierarchy.fileno()

    def drain(self) -> bool:
        """Take the events away, for `step`; whether there were any. Any thread may call it."""
        return self._hierarchy.drain()

    @property
    def refused(self) -> tuple[Refused, ...]:
        """Cgroups that are of no class though a pattern names one for them. Any thread may ask."""
        return self._left_out.refused

    @property
    def trouble(self) -> str | None:
        """Why not all is watched that should be; None: it is."""
        return self._hierarchy.trouble

    @property
    def is_behind(self) -> bool:
        """Whether a step has anything to do."""
        return self._hierarchy.is_behind or self.is_behind_root

    @property
    def is_behind_root(self) -> bool:
        """The same of what root has brought about."""
        return self._hierarchy.is_behind_root or bool(self._unsure and not self.root_is_gone())

    @property
    def knows_folders(self) -> bool:
        """Whether all was looked at that root has made."""
        return not self._hierarchy.is_behind_root

    def follow(self, classes: Mapping[int, ClassPolicy]) -> bool:
        """Look where the patterns of these classes lead; whether they are others than before."""
        policies = [policy for policy in classes.values() if policy.id != UNCLASSIFIED]
        if policies == self._policies:
            return False
        self._former |= self._at_work
        self._at_work = {each.id: each for each in policies if each.mode is not Mode.OFF}
        for class_id in self._at_work:
            self._former.pop(class_id, None)
        self._policies = policies
        self._by_name = {policy.name: policy for policy in policies}
        self.automaton = compiled(policies, abi.UNDECIDED_CLASS)
        # The programs gave rows also to cgroups that no pattern names, if they could not tell.
        undecided = bool(self.automaton.undecided)
        self._hierarchy.follow(Leads.of(policies, _SCOPES), report_all=undecided)
        return True

    def look_again(self) -> None:
        """Look at everything anew, piece by piece."""
        self._hierarchy.look_again()

    def take_over(
        self, present: Mapping[int, CgroupRow], classes: Mapping[int, ClassPolicy]
    ) -> None:
        """These are the rows of the map, and its classes: all stay until they are looked at."""
        for number, row in present.items():
            if number not in self.rows:
                self._put(number, row)
        for number in self.rows.keys() - present.keys():
            if number not in self._places or self.is_gone(number):
                self._put(number, None)
        self._unsure = self.rows.keys() - self._places.keys()
        known = {*self._at_work, *self._former, UNCLASSIFIED, UNDECIDED.id}
        self._former |= {
            n: each for n, each in classes.items() if n not in known and each.mode is not Mode.OFF
        }

    def step(self, most: int, noted: Noted, *, seen: bool) -> Changes:
        """Look at so many cgroups, and decide about so many. Raises KernelError.

        `seen`: the programs remove the row of a cgroup with its last socket.
        """
        hierarchy = self._hierarchy
        hierarchy.step(most)
        changes = Changes()
        for _ in range(min(most, len(hierarchy.changed))):
            number, known = hierarchy.changed.popitem(last=False)
            if known is None:
                self._lost(number, changes, seen=seen)
            else:
                self._decide(number, known, noted, changes)
        if self._unsure and not hierarchy.is_behind_root and not self.root_is_gone():
            for number in list(islice(self._unsure, most)):
                self._make_sure(number, changes, seen=seen)
        self._left_out.tell(self._by_name)
        return changes

    def visit(self, path: Path) -> None:
        """Look at one cgroup below the root in the next step. Raises KernelError."""
        self._hierarchy.visit(path.relative_to(self.root).parts)

    def new_folders(self) -> dict[int, Folder]:
        """The cgroups below which patterns look, by id, that `told` was not called for yet."""
        return self._folders(self._hierarchy.untold)

    def folders(self) -> dict[int, Folder]:
        """All cgroups below which patterns look now; of those of others than root, some."""
        return self._folders(self._hierarchy.folders.values())

    def told(self) -> None:
        """The programs know the folders: what is there now may be looked at."""
        self._hierarchy.told()

    def settle(self, noted: Noted) -> Changes:
        """Look at all that is there, but only for a while at what others than root make.

        What they make more is left for later steps. Raises KernelError.
        """
        whole = Changes()
        pieces = 0
        while self.is_behind_root or (self.is_behind and pieces < MOST_PIECES):
            whole.rows |= self.step(PIECE, noted, seen=False).rows
            self.told()
            pieces += 1
        return whole

    def forget_leaving(self, noted: Noted, with_sockets: Callable[[], Collection[int]]) -> Changes:
        """Rows of removed cgroups that no socket needs. They are asked for again at `take_over`."""
        changes = Changes()
        if self.leaving:
            for number in self.needed_by_none(self.leaving, noted, with_sockets()):
                self._change(number, None, changes)
            self.leaving = set()
        return changes

    def needed_by_none(
        self, removed: Collection[int], noted: Noted, with_sockets: Collection[int]
    ) -> set[int]:
        """Which of these removed cgroups no socket has its class from.

        Sockets of a cgroup below may have, and nobody can say any more where that was if it was
        removed as well: as long as there is such a one, none is told.
        """
        orphaned = any(
            number not in self.rows
            and noted.row_of(number) is None
            and is_removed(self.root, number)
            for number in with_sockets
            if number
        )
        return set() if orphaned else set(removed) - set(with_sockets)

    def root_is_gone(self) -> bool:
        """Whether the root was removed, also if there is another one by its name again."""
        try:
            return cgroup_id(self.root) != self._root_id
        except KernelError:
            return True

    def is_gone(self, number: int) -> bool:
        """Whether the cgroup of that id was removed. Raises KernelError.

        Of no cgroup if the root can't be found: it may be hidden, and its programs at work.
        """
        return path_of(self.root, number) is None and not self.root_is_gone()

    def reserved(self) -> dict[int, ClassPolicy]:
        """Classes that nobody has configured (any more), but that cgroups may be of."""
        found = {n: policy for n, policy in self._former.items() if self._sizes[n]}
        if self.automaton.undecided or self._sizes[UNDECIDED.id]:
            found[UNDECIDED.id] = UNDECIDED
        return found

    def members_of(self, name: str) -> list[str]:
        """The cgroups of a class now, as paths below `root`."""
        return sorted(list(self._members.get(name, {}).values()))

    def class_name_of(self, path: str, classes: Mapping[int, ClassPolicy]) -> str | None:
        """The class of the cgroup at a path below `root`, as inherited; None: of no class."""
        parts = path.split("/")
        policies = [policy for policy in classes.values() if policy.id != UNCLASSIFIED]
        named = len(parts) >= 2 and parts[0] == scopes.PARENT
        scope = scopes.parse(parts[1]) if named else None
        of_scope = (p for p in policies if scope and p.name == scope.class_name)
        found = next(of_scope, None) or nearest_class_of(path, policies)
        return found.name if found is not None and found.mode is not Mode.OFF else None

    # --- deciding -------------------------------------------------------------------------------

    def _decide(self, number: int, known: Known, noted: Noted, changes: Changes) -> None:
        """Give a cgroup that was seen the row that it should have."""
        self._left_out.let_in(number)
        if not (known.ended or number in self.rows or self.automaton.undecided):
            return  # patterns lead only through it
        have = noted.row_of(number)
        place = self._place_of(known, number)
        if place is not None and place.bounded and not self._has_room(place, number, have, noted):
            self._left_out.wait(number, place.policy, known)
            place = None
        self._settle(number, place)
        before = have or self.rows.get(number)
        if place is not None:
            self._change(number, self._row(place, before), changes, have)
        elif before is not None:
            self._change(number, self._ended(before, "/".join(known.parts)), changes, have)
        if place is not None and place.bounded:
            self._evict(place.policy, changes)

    def _place_of(self, known: Known, number: int) -> _Place | None:
        """Of the patterns that name it, what the first says. A refusal is noted."""
        path = "/".join(known.parts)
        for lead in known.ended:
            if lead.policy is not None:
                return self._matched(lead, lead.policy, known, path, number)
            scope = scopes.parse(known.name)
            policy = self._by_name.get(scope.class_name) if scope else None
            if scope is not None and policy is not None and known.untrusted is None:
                default = scope.type if scope.type in policy.allow else None
                return _Place(policy, path, default, bounded=False)
        return None

    def _matched(
        self, lead: Lead, policy: ClassPolicy, known: Known, path: str, number: int
    ) -> _Place | None:
        others_may = known.untrusted is not None and is_glob(lead.pattern)
        if others_may and not policy.delegated:
            refused = Refused(path, lead.pattern, known.untrusted or "")
            self._left_out.refuse(number, policy, refused)
            return None
        return _Place(policy, path, None, bounded=others_may)

    def _has_room(self, place: _Place, number: int, have: CgroupRow | None, noted: Noted) -> bool:
        """Whether another cgroup that others could make may be of the class.

        Those that are classified already stay, also those that no look has shown yet.
        """
        class_id = place.policy.id
        bounded = self._bounded.get(class_id, set())
        if number in bounded or (have is not None and have.class_id == class_id):
            return True
        unbounded = self._sizes[class_id] - len(bounded)
        return max(len(bounded), noted.members(class_id) - unbounded) < abi.MAX_DELEGATED

    def _evict(self, policy: ClassPolicy, changes: Changes) -> None:
        """Of more than may be, the newest goes (ids only grow)."""
        bounded = self._bounded[policy.id]
        if len(bounded) > abi.MAX_DELEGATED:
            number = max(bounded)
            path = self._places[number].path
            self._settle(number, None)
            self._change(number, self._ended(self.rows[number], path), changes)

    def _row(self, place: _Place, before: CgroupRow | None) -> CgroupRow:
        if place.policy.mode is Mode.OFF:
            return of_no_class(before, self._in_force)
        return CgroupRow(place.policy.id, place.default)

    @property
    def _in_force(self) -> dict[int, ClassPolicy]:
        """The classes by which rows were judged."""
        return {**self._former, **self._at_work}

    def _ended(self, row: CgroupRow, path: str) -> CgroupRow | None:
        """The row of a cgroup that no pattern names any more: its sockets go on (policy/ended.py),
        unless it inherits another class.
        """
        ended = of_no_class(row, self._in_force)
        inherits = {policy.id: policy for policy in self._policies or ()}
        return ended if ended.kept and self.class_name_of(path, inherits) is None else None

    def _settle(self, number: int, place: _Place | None) -> None:
        """Note why a cgroup has its row, or that it has none."""
        before = self._places.pop(number, None)
        self._unsure.discard(number)
        if before is not None:
            del self._members[before.policy.name][number]
            if before.bounded:
                self._bounded[before.policy.id].discard(number)
                if place is None or not place.bounded or place.policy.id != before.policy.id:
                    self._give_room(before.policy.id)
        if place is None:
            return
        self._places[number] = place
        self._members.setdefault(place.policy.name, {})[number] = place.path
        if place.bounded:
            self._bounded.setdefault(place.policy.id, set()).add(number)

    def _give_room(self, class_id: int) -> None:
        """There is room for one: the first that waits is decided about anew."""
        if (first := self._left_out.first_waiting(class_id)) is not None:
            number, known = first
            self._hierarchy.changed[number] = known

    def _change(
        self, number: int, row: CgroupRow | None, changes: Changes, have: CgroupRow | None = None
    ) -> None:
        if row is None and number not in self.rows and have is None:
            return
        old = have or self.rows.get(number)
        changes.rows[number] = row
        changes.members.update({each.class_id: 1 for each in (row,) if each is not None})
        changes.members.subtract({each.class_id: 1 for each in (old,) if each is not None})
        self._put(number, row)

    def _put(self, number: int, row: CgroupRow | None) -> None:
        if (old := self.rows.pop(number, None)) is not None:
            self._sizes[old.class_id] -= 1
        if row is not None:
            self.rows[number] = row
            self._sizes[row.class_id] += 1

    # --- what is there no more ------------------------------------------------------------------

    def _lost(self, number: int, changes: Changes, *, seen: bool) -> None:
        """It is not where it was: gone, or no pattern leads there."""
        self._left_out.let_in(number)
        self._settle(number, None)
        if number not in self.rows:
            return
        if (path := path_of(self.root, number)) is not None:
            ended = self._ended(self.rows[number], str(path.relative_to(self.root)))
            self._change(number, ended, changes)
        elif self.root_is_gone():
            self._unsure.add(number)
        else:
            self._leave(number, changes, seen=seen)

    def _leave(self, number: int, changes: Changes, *, seen: bool) -> None:
        """A socket outlives its cgroup: the row is needed until the last one is gone."""
        row = self.rows[number]
        if row.class_id not in self._at_work and row.class_id != UNDECIDED.id:
            self._change(number, of_no_class(row, self._in_force), changes)
        if seen:
            self._put(number, None)
            changes.released.append(number)
        else:
            self.leaving.add(number)

    def _make_sure(self, number: int, changes: Changes, *, seen: bool) -> None:
        """A row of the map that nothing explains yet, now that all of root's was looked at."""
        self._unsure.discard(number)
        path = path_of(self.root, number)
        if path is None:
            self._leave(number, changes, seen=seen)
            return
        self.visit(path)
        if self._hierarchy.changed.get(number) is None:
            ended = self._ended(self.rows[number], str(path.relative_to(self.root)))
            self._change(number, ended, changes)

    # --- telling --------------------------------------------------------------------------------

    def _folders(self, folders: Iterable[Known]) -> dict[int, Folder]:
        found: dict[int, Folder] = {}
        room = abi.MAX_FOREIGN_FOLDERS
        for known in folders:
            if position := self.automaton.position(known.parts):
                trusted = known.inside is None
                room -= not trusted
                if trusted or room >= 0:
                    found[known.number] = Folder(position, trusted)
        return found
