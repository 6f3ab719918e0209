"""What was sent: totals of hours and days, and the counters that they were made of."""

from collections.abc import Iterable, Mapping
from typing import Final

from odm_agent.journal.database import Database

#: How long totals are kept by the hour, and of how many hours and days there are any: 13 months.
_HOURLY_S: Final = 8 * 86400
_KEPT: Final = 8 * 24 + 400
#: Class or class id, and type.
Sender = tuple[str, int]
#: Bytes and packets.
Counted = tuple[int, int]


class Usage(Database):
    """`sent`, `recorded` and `meters`."""

    def sent(self, since_s: int) -> dict[Sender, Counted]:
        """What was sent by class and type since then (Unix seconds; a whole hour or day counts)."""
        rows = self._read(
            "SELECT class, type, SUM(bytes), SUM(packets) FROM sent WHERE since >= ?"
            " GROUP BY class, type",
            since_s,
        )
        return {(str(c), int(str(t))): (int(str(b)), int(str(p))) for c, t, b, p in rows}

    def recorded(self) -> dict[tuple[int, int], Counted]:
        """The programs' counters, by class id and type, as far as `sent` has them."""
        rows = self._read(
            "SELECT class_id, type, bytes, packets FROM recorded WHERE boot = ?", self.boot
        )
        return {(int(str(c)), int(str(t))): (int(str(b)), int(str(p))) for c, t, b, p in rows}

    def add_sent(
        self,
        hour_s: int,
        more: Mapping[Sender, Counted],
        recorded: Mapping[tuple[int, int], Counted],
        meters: Mapping[int, Counted],
    ) -> None:
        """Add to the totals of an hour (its beginning, Unix seconds), and note the counters.

        With each new hour those of old hours become totals of days, and the oldest are forgotten.
        """
        with self.transaction():
            begins = not self._read("SELECT 1 FROM sent WHERE since = ? LIMIT 1", hour_s)
            self._db.executemany(
                "INSERT INTO sent VALUES (?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET"
                " bytes = bytes + excluded.bytes, packets = packets + excluded.packets",
                [(*sender, hour_s, *counted) for sender, counted in more.items()],
            )
            self._db.execute("DELETE FROM recorded")
            self._db.executemany(
                "INSERT INTO recorded VALUES (?, ?, ?, ?, ?)",
                [(self.boot, *key, *counted) for key, counted in recorded.items()],
            )
            self._db.execute("DELETE FROM meters")
            self._db.executemany(
                "INSERT INTO meters VALUES (?, ?, ?)",
                [(lease, *counted) for lease, counted in meters.items()],
            )
            if begins:
                self._sum_up(hour_s - _HOURLY_S)

    def forget_recorded(self, counters: Iterable[tuple[int, int]]) -> None:
        """Note that these counters, by class id and type, have begun anew."""
        with self.transaction():
            self._db.executemany(
                "DELETE FROM recorded WHERE (class_id, type) = (?, ?)", list(counters)
            )

    def meters(self) -> dict[int, Counted]:
        """What was sent by each address lease, as last noted."""
        rows = self._read("SELECT lease, bytes, packets FROM meters")
        return {int(str(lease)): (int(str(b)), int(str(p))) for lease, b, p in rows}

    def _sum_up(self, before_s: int) -> None:
        """Make totals of days of those of hours before then; forget the oldest.

        It goes by how many there are, not by date: a clock that is wrong for a while costs none.
        """
        self._db.execute(
            "INSERT INTO sent SELECT class, type, since - since % 86400, SUM(bytes), SUM(packets)"
            " FROM sent WHERE since < ? AND since % 86400 > 0"
            " GROUP BY class, type, since / 86400 ON CONFLICT DO UPDATE SET"
            " bytes = bytes + excluded.bytes, packets = packets + excluded.packets",
            (before_s,),
        )
        self._db.execute("DELETE FROM sent WHERE since < ? AND since % 86400 > 0", (before_s,))
        self._db.execute(
            "DELETE FROM sent WHERE since < (SELECT MIN(since) FROM"
            " (SELECT DISTINCT since FROM sent ORDER BY since DESC LIMIT ?))",
            (_KEPT,),
        )
