"""The sysctls that an agent changed, as they were before."""

from typing import Final

from odm_agent.journal.database import Database

_OWNED: Final = "(boot = '' OR (boot, netns, pin_dir) = (?, ?, ?))"


class Sysctls(Database):
    """`changed_sysctls`."""

    def remember_sysctl(self, path: str, value: str) -> None:
        """Note what a sysctl was before the owner changed it; only the first value counts."""
        with self.transaction():
            # What was changed before the last boot is not changed any more.
            self._db.execute(
                "DELETE FROM changed_sysctls WHERE boot NOT IN ('', ?)", self._owner[:1]
            )
            self._db.execute(
                "INSERT OR IGNORE INTO changed_sysctls VALUES (?, ?, ?, ?, ?)",
                (*self._owner, path, value),
            )

    def sysctls(self) -> dict[str, str]:
        """The sysctls that the owner changed, with what they were before."""
        rows = self._read(f"SELECT path, value FROM changed_sysctls WHERE {_OWNED}", *self._owner)
        return {str(p): str(v) for p, v in rows}

    def forget_sysctl(self, path: str) -> None:
        """Note that a sysctl of the owner is as it was (or gone with its interface)."""
        with self.transaction():
            self._db.execute(
                f"DELETE FROM changed_sysctls WHERE {_OWNED} AND path = ?", (*self._owner, path)
            )
