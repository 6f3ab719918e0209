"""Which cgroups are of which class now: what patterns name, and what `exec` has made."""

import logging
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final

from odm_agent.control import scopes
from odm_agent.core.errors import KernelError
from odm_agent.core.model import UNCLASSIFIED, AddressType, ClassPolicy, Mode
from odm_agent.core.projection import CgroupRow
from odm_agent.datapath import abi
from odm_agent.datapath.maps.following import Folder
from odm_agent.kernel.cgroup_watch import CgroupWatch
from odm_agent.kernel.cgroups import Matches, Refused, cgroup_id, distrust, expand, path_of
from odm_agent.policy.automaton import Automaton, compiled
from odm_agent.policy.ended import of_no_class
from odm_agent.policy.globs import class_of, match, nearest_class_of

log = logging.getLogger(__name__)

_SCOPES: Final = f"{scopes.PARENT}/*"
#: The class of new cgroups of which the programs can't tell whether a closed class's glob fits.
UNDECIDED: Final = ClassPolicy(
    id=abi.UNDECIDED_CLASS,
    name="undecided",
    mode=Mode.ENFORCE,
    default=AddressType.FIXED,  # which it may not use: so it is refused whatever it wants
    fail_closed=True,
)


class ClassifiedCgroups:
    """Follows the cgroup tree below `root`, where the programs are attached.

    Use: `follow`, let the programs know `automaton` and `folders`, then `rows`: what appears after
    the second is classified by the programs, what was there before is found by the third.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._root_id = cgroup_id(root)
        #: Class name -> the cgroups of that class now, as paths below `root`.
        self.members: dict[str, list[str]] = {}
        self.refused: tuple[Refused, ...] = ()
        self.automaton = Automaton()
        self._compiled_of: list[ClassPolicy] | None = None
        self._watch = CgroupWatch(root)

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def fileno(self) -> int:
        """Readable when cgroups came or went where patterns look."""
        return self._watch.fileno()

    def drain(self) -> bool:
        """Take the events away; whether `rows` may say something else now."""
        return self._watch.drain()

    def follow(self, classes: Mapping[int, ClassPolicy]) -> None:
        """Watch where the patterns of these classes look; raises KernelError."""
        policies = _configured(classes)
        self._watch.follow([_SCOPES, *(each for p in policies for each in p.cgroups)])
        if policies != self._compiled_of:
            self.automaton = compiled(policies, abi.UNDECIDED_CLASS)
            self._compiled_of = policies

    def root_is_gone(self) -> bool:
        """Whether the root was removed, also if there is another one by its name again."""
        try:
            return cgroup_id(self.root) != self._root_id
        except KernelError:
            return True

    def folders(self) -> dict[int, Folder]:
        """The cgroups below which patterns look now, by id; of those of others than root, some."""
        found: dict[int, Folder] = {}
        room = abi.MAX_FOREIGN_FOLDERS
        verdicts: dict[Path, str | None] = {}
        for path in self._watch.folders:
            if position := self.automaton.position(path.relative_to(self.root).parts):
                try:
                    number = cgroup_id(path)
                except KernelError:
                    continue  # gone again
                trusted = distrust(self.root, path / "any", verdicts) is None
                room -= not trusted
                if trusted or room >= 0:
                    found[number] = Folder(position, trusted)
        return found

    def is_gone(self, number: int) -> bool:
        """Whether the cgroup of that id was removed. Raises KernelError.

        Of no cgroup if the root can't be found: it may be hidden, and its programs at work.
        """
        return path_of(self.root, number) is None and not self.root_is_gone()

    def reserved(self) -> dict[int, ClassPolicy]:
        """Classes that nobody has configured, but that cgroups may be of."""
        return {UNDECIDED.id: UNDECIDED} if self.automaton.undecided else {}

    def rows(
        self,
        classes: Mapping[int, ClassPolicy],
        present: Mapping[int, CgroupRow],
        in_force: Mapping[int, ClassPolicy],
        with_sockets: Callable[[], Collection[int]] | None,
    ) -> dict[int, CgroupRow]:
        """The row of every classified cgroup, by cgroup id.

        A cgroup of a class in mode off is a row of no class, so that it doesn't inherit one; so is
        one that was of a class, unless it inherits another: its sockets go on (policy/ended.py).
        `present` are the rows that are there already, as read before the call, and `in_force` the
        classes that they name. Those of cgroups that were removed stay: a socket outlives its
        cgroup. The programs remove such a row with the last socket; where they can't,
        `with_sockets` says which cgroups have any. All stay if the root can't be found.
        Raises KernelError.
        """
        policies = _configured(classes)
        self.members = {policy.name: [] for policy in policies}
        refused: list[Refused] = []
        rows: dict[int, CgroupRow] = {}
        for policy in policies:
            found = expand(self.root, policy.cgroups, delegated=policy.delegated)
            found = self._bounded(policy, found, present)
            refused += found.refused
            for path, number in found.cgroups.items():
                if class_of(path, policies) is policy:
                    rows[number] = _row(policy, present.get(number), in_force)
                    self.members[policy.name].append(path)
        self._warn(tuple(refused))
        rows.update(self._scopes(policies, present, in_force))
        if self.root_is_gone():
            return dict(present)
        return rows | self._ended(rows, present, in_force, classes, with_sockets)

    def _bounded(
        self, policy: ClassPolicy, found: Matches, present: Mapping[int, CgroupRow]
    ) -> Matches:
        """No more cgroups that others than root could make than the programs would note.

        Exact paths come first, then those that are classified already, the oldest before others
        (ids only grow): whoever may make cgroups can't drive others out.
        """
        ours = {number for number, row in present.items() if row.class_id == policy.id}
        room = abi.MAX_DELEGATED - len(ours - set(found.cgroups.values()))
        if len(found.cgroups) <= room:
            return found
        exact = {pattern.strip("/") for pattern in policy.cgroups}
        verdicts: dict[Path, str | None] = {}
        kept: dict[str, int] = {}
        left: list[str] = []
        for path, number in sorted(
            found.cgroups.items(),
            key=lambda item: (item[0] not in exact, item[1] not in ours, item[1]),
        ):
            if distrust(self.root, self.root / path, verdicts) is None:
                kept[path] = number
            elif room > 0:
                kept[path] = number
                room -= 1
            else:
                left.append(path)
        if not left:
            return found
        reason = (
            f"{abi.MAX_DELEGATED} cgroups that others than root could make are of the class, those"
            f" included that were removed but have sockets; {len(left)} are left out"
        )
        pattern = next(each for each in policy.cgroups if match(each, left[0]))
        return Matches(kept, (*found.refused, Refused(left[0], pattern, reason)))

    def _ended(
        self,
        rows: Mapping[int, CgroupRow],
        present: Mapping[int, CgroupRow],
        in_force: Mapping[int, ClassPolicy],
        classes: Mapping[int, ClassPolicy],
        with_sockets: Callable[[], Collection[int]] | None,
    ) -> dict[int, CgroupRow]:
        """The rows of cgroups that no pattern names any more: removed, or of no class now."""
        going_on = {UNDECIDED.id, *(n for n, p in classes.items() if p.mode is not Mode.OFF)}
        gone: dict[int, CgroupRow] = {}
        classless: dict[int, CgroupRow] = {}
        for number, row in present.items():
            if number in rows:
                continue
            path, ended = path_of(self.root, number), of_no_class(row, in_force)
            if path is None:
                gone[number] = row if row.class_id in going_on else ended
            elif ended.kept and self.class_name_of(_below(self.root, path), classes) is None:
                classless[number] = ended
        if gone and with_sockets is not None:
            having = with_sockets()
            gone = {number: row for number, row in gone.items() if number in having}
        return gone | classless

    def class_name_of(self, path: str, classes: Mapping[int, ClassPolicy]) -> str | None:
        """The class of the cgroup at a path below `root`, as inherited; None: of no class."""
        parts, policies = path.split("/"), _configured(classes)
        named = len(parts) >= 2 and parts[0] == scopes.PARENT
        scope = scopes.parse(parts[1]) if named else None
        of_scope = (p for p in policies if scope and p.name == scope.class_name)
        found = next(of_scope, None) or nearest_class_of(path, policies)
        return found.name if found is not None and found.mode is not Mode.OFF else None

    def _scopes(
        self,
        policies: list[ClassPolicy],
        present: Mapping[int, CgroupRow],
        in_force: Mapping[int, ClassPolicy],
    ) -> dict[int, CgroupRow]:
        """Commands that `exec` started; their names say class and type."""
        by_name = {policy.name: policy for policy in policies}
        rows: dict[int, CgroupRow] = {}
        for path, number in expand(self.root, [_SCOPES]).cgroups.items():
            scope = scopes.parse(path.rsplit("/", 1)[-1])
            policy = by_name.get(scope.class_name) if scope else None
            if scope is None or policy is None:
                continue
            default = scope.type if scope.type in policy.allow else None
            rows[number] = _row(policy, present.get(number), in_force, default)
            self.members[policy.name].append(path)
        return rows

    def _warn(self, refused: tuple[Refused, ...]) -> None:
        for each in refused:
            if each not in self.refused:
                log.warning(
                    "cgroup not classified",
                    extra={"cgroup": each.path, "glob": each.pattern, "why": each.reason},
                )
        self.refused = refused


def _configured(classes: Mapping[int, ClassPolicy]) -> list[ClassPolicy]:
    return [policy for policy in classes.values() if policy.id != UNCLASSIFIED]


def _below(root: Path, path: Path) -> str:
    return str(path.relative_to(root))


def _row(
    policy: ClassPolicy,
    before: CgroupRow | None,
    in_force: Mapping[int, ClassPolicy],
    default: AddressType | None = None,
) -> CgroupRow:
    if policy.mode is Mode.OFF:
        return of_no_class(before, in_force)
    return CgroupRow(policy.id, default)
