"""The numbers of names, and whose maps may have them."""

from collections.abc import Iterable

from odm_agent.core.numbering import Kind
from odm_agent.journal.database import Database


class Numbers(Database):
    """`ids` and `deployments`."""

    def numbers(self, kind: Kind) -> dict[str, int]:
        """The names that have a number, from 1 on, with it."""
        rows = self._read("SELECT name, id FROM ids WHERE kind = ? ORDER BY id", kind)
        return {str(name): int(str(number)) for name, number in rows}

    def give_number(self, kind: Kind, name: str, number: int) -> None:
        """Note a name's number, neither of which may have been given."""
        with self.transaction():
            self._db.execute("INSERT INTO ids VALUES (?, ?, ?)", (kind, number, name))

    def free_numbers(self, kind: Kind, names: Iterable[str]) -> None:
        """Forget the numbers of these names: they may be given to others."""
        with self.transaction():
            rows = [(kind, name) for name in names]
            self._db.executemany("DELETE FROM ids WHERE kind = ? AND name = ?", rows)

    def join_numbering(self) -> None:
        """Note that the owner's maps may have any of the numbers, until it leaves or a boot."""
        with self.transaction():
            self._db.execute("DELETE FROM deployments WHERE boot <> ?", self._owner[:1])
            self._db.execute("INSERT OR IGNORE INTO deployments VALUES (?, ?, ?)", self._owner)

    def leave_numbering(self) -> None:
        """Note that the owner's maps are gone, and what they said of cgroups."""
        with self.transaction():
            for table in ("deployments", "cgroups"):
                self._db.execute(
                    f"DELETE FROM {table} WHERE (boot, netns, pin_dir) = (?, ?, ?)", self._owner
                )

    def numbers_are_shared(self) -> bool:
        """Whether maps of others than the owner may have the numbers, too."""
        others = self._read(
            "SELECT 1 FROM deployments WHERE (boot, netns, pin_dir) <> (?, ?, ?)", *self._owner
        )
        return bool(others)
