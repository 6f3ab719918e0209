"""Which cgroups are of which class now: what patterns name, and what `exec` has made."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path

from odm_agent.control import scopes
from odm_agent.kernel.cgroup_watch import CgroupWatch
from odm_agent.kernel.cgroups import Refused, expand, path_of
from odm_agent.model import AddressType, ClassPolicy, Mode
from odm_agent.policy.compile import UNCLASSIFIED
from odm_agent.policy.globs import class_of, nearest_class_of
from odm_agent.projection import CgroupRow

log = logging.getLogger(__name__)

_SCOPES = f"{scopes.PARENT}/*"
#: As long as TCP tries to deliver what a closed socket has left (tcp_retries2, about 15 minutes).
_DEPARTED_S = 1000.0
_DEPARTED_AT_MOST = 4096


class ClassifiedCgroups:
    """Follows the cgroup tree below `root`, where the programs are attached."""

    def __init__(self, root: Path) -> None:
        self.root = root
        #: Class name -> the cgroups of that class now, as paths below `root`.
        self.members: dict[str, list[str]] = {}
        self.refused: tuple[Refused, ...] = ()
        self._watch = CgroupWatch(root)
        self._present: dict[int, CgroupRow] = {}
        self._departed: dict[int, tuple[CgroupRow, float]] = {}

    def close(self) -> None:
        """Stop watching."""
        self._watch.close()

    def fileno(self) -> int:
        """Readable when cgroups came or went where patterns look."""
        return self._watch.fileno()

    def drain(self) -> bool:
        """Take the events away; whether `rows` may say something else now."""
        return self._watch.drain()

    def rows(self, classes: Mapping[int, ClassPolicy]) -> dict[int, CgroupRow]:
        """The row of every classified cgroup, by cgroup id; watches for the next change.

        A cgroup of a class in mode off is a row of no class, so that it doesn't inherit one.
        """
        policies = [policy for policy in classes.values() if policy.id != UNCLASSIFIED]
        self._watch.follow([_SCOPES, *(each for p in policies for each in p.cgroups)])
        self.members = {policy.name: [] for policy in policies}
        refused: list[Refused] = []
        rows: dict[int, CgroupRow] = {}
        for policy in policies:
            found = expand(self.root, policy.cgroups, delegated=policy.delegated)
            refused += found.refused
            for path, cgroup_id in found.cgroups.items():
                if class_of(path, policies) is policy:
                    rows[cgroup_id] = _row(policy)
                    self.members[policy.name].append(path)
        self._warn(tuple(refused))
        rows.update(self._scopes({policy.name: policy for policy in policies}))
        return rows | self._departed_rows(rows, classes)

    def remember(self, rows: Mapping[int, CgroupRow]) -> None:
        """Take over what the agent before had classified, cgroups that are gone included."""
        self._present = {**rows, **self._present}

    def _departed_rows(
        self, rows: Mapping[int, CgroupRow], classes: Mapping[int, ClassPolicy]
    ) -> dict[int, CgroupRow]:
        """Rows of cgroups that were removed a short while ago.

        A socket outlives its process and cgroup while it still has something to send. Ids are never
        given to another cgroup, so that such a row harms nobody.
        """
        now = time.monotonic()
        for cgroup_id, row in self._present.items():
            if cgroup_id not in rows and path_of(self.root, cgroup_id) is None:
                self._departed[cgroup_id] = (row, now)
        self._present = dict(rows)
        kept = list(self._departed.items())[-_DEPARTED_AT_MOST:]
        self._departed = {
            cgroup_id: (row, since)
            for cgroup_id, (row, since) in kept
            if now - since < _DEPARTED_S and row.class_id in classes
        }
        return {cgroup_id: row for cgroup_id, (row, _) in self._departed.items()}

    def class_name_of(self, path: str, classes: Mapping[int, ClassPolicy]) -> str | None:
        """The class of the cgroup at a path below `root`, as inherited; None: of no class."""
        parts = path.split("/")
        if len(parts) >= 2 and parts[0] == scopes.PARENT and (scope := scopes.parse(parts[1])):
            return scope.class_name
        policies = [policy for policy in classes.values() if policy.id != UNCLASSIFIED]
        found = nearest_class_of(path, policies)
        return found.name if found is not None and found.mode is not Mode.OFF else None

    def _scopes(self, by_name: Mapping[str, ClassPolicy]) -> dict[int, CgroupRow]:
        """Commands that `exec` started; their names say class and type."""
        rows: dict[int, CgroupRow] = {}
        for path, cgroup_id in expand(self.root, [_SCOPES]).cgroups.items():
            scope = scopes.parse(path.rsplit("/", 1)[-1])
            policy = by_name.get(scope.class_name) if scope else None
            if scope is None or policy is None:
                continue
            default = scope.type if scope.type in policy.allow else None
            rows[cgroup_id] = _row(policy, default)
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


def _row(policy: ClassPolicy, default: AddressType | None = None) -> CgroupRow:
    if policy.mode is Mode.OFF:
        return CgroupRow(UNCLASSIFIED)
    return CgroupRow(policy.id, default)
