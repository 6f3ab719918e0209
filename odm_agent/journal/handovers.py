"""The handovers that are under way, and what those before came to."""

from odm_agent.journal.database import Database


class Handovers(Database):
    """`handovers`."""

    def handovers(self) -> str | None:
        """What `keep_handovers` has kept in this boot."""
        query = "SELECT CAST(told AS BLOB) FROM handovers WHERE boot = ?"
        for (told,) in self._read(query, self.boot):
            if isinstance(told, bytes):  # damaged text may be none: whoever reads it can tell
                return told.decode(errors="surrogateescape")
        return None

    def keep_handovers(self, told: str) -> None:
        """Write it down, as text, in the place of what was there."""
        with self.transaction():
            self._db.execute("DELETE FROM handovers")
            self._db.execute("INSERT INTO handovers VALUES (?, ?)", (self.boot, told))
