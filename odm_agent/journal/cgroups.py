"""What the programs' maps said of cgroups, which nobody could find out again."""

from collections.abc import Mapping
from typing import NamedTuple

from odm_agent.journal.database import Database


class CgroupNote(NamedTuple):
    """Of which class a cgroup is, its own default type, and the types that the class allows (as
    bits); of no class: those that its sockets keep."""

    class_id: int
    default: int | None
    types: int


class Cgroups(Database):
    """`cgroups`."""

    def cgroups(self) -> dict[int, CgroupNote]:
        """What `keep_cgroups` has kept of the owner's, by the ids of cgroups, which a boot ends."""
        rows = self._read(
            "SELECT cgroup, class_id, default_type, types FROM cgroups"
            " WHERE (boot, netns, pin_dir) = (?, ?, ?)",
            *self._owner,
        )
        return {
            int(str(cgroup)): CgroupNote(
                int(str(class_id)),
                None if default is None else int(str(default)),
                int(str(types)),
            )
            for cgroup, class_id, default, types in rows
        }

    def keep_cgroups(self, changed: Mapping[int, CgroupNote | None]) -> None:
        """Write down what cgroups are, by their ids; None: there is nothing to say any more."""
        with self.transaction():
            self._db.execute("DELETE FROM cgroups WHERE boot <> ?", self._owner[:1])
            self._db.executemany(
                "DELETE FROM cgroups WHERE (boot, netns, pin_dir, cgroup) = (?, ?, ?, ?)",
                [(*self._owner, cgroup) for cgroup in changed],
            )
            self._db.executemany(
                "INSERT INTO cgroups VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(*self._owner, cgroup, *note) for cgroup, note in changed.items() if note],
            )
