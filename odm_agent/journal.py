"""What must outlive a reboot: secret, numbers of names, addresses, the sysctls that we changed."""

import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Final, NamedTuple

from odm_agent.core.errors import OdmError
from odm_agent.core.model import IPAddress
from odm_agent.core.numbering import Kind
from odm_agent.folders import distrust
from odm_agent.prefixes.memory import Given

#: Raised when a table changes; `_MIGRATIONS[n]` leads from version n to n + 1.
_MIGRATIONS: Final = (
    """
    CREATE TABLE secret (value BLOB NOT NULL);
    CREATE TABLE ids (
        kind TEXT NOT NULL, id INTEGER NOT NULL, name TEXT NOT NULL,
        PRIMARY KEY (kind, id), UNIQUE (kind, name)
    );
    CREATE TABLE sysctls (path TEXT PRIMARY KEY, value TEXT NOT NULL);
    """,
    # Until then addresses were made with the interface's name, and nobody wrote them down.
    """
    CREATE TABLE addresses (
        address TEXT PRIMARY KEY, number INTEGER NOT NULL, conflict INTEGER NOT NULL
    );
    CREATE TABLE prefixes_by_interface (name TEXT PRIMARY KEY);
    INSERT INTO prefixes_by_interface SELECT name FROM ids WHERE kind = 'prefix';
    """,
    # A row from before says nothing of whose it is: the next who asks takes it for his.
    """
    CREATE TABLE changed_sysctls (
        boot TEXT NOT NULL, netns TEXT NOT NULL, pin_dir TEXT NOT NULL,
        path TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (boot, netns, pin_dir, path)
    );
    INSERT INTO changed_sysctls SELECT '', '', '', path, value FROM sysctls;
    DROP TABLE sysctls;
    """,
    # Times in it are wall time.
    "CREATE TABLE leases (prefix_id INTEGER PRIMARY KEY, granted TEXT NOT NULL);",
    """
    CREATE TABLE deployments (
        boot TEXT NOT NULL, netns TEXT NOT NULL, pin_dir TEXT NOT NULL,
        PRIMARY KEY (boot, netns, pin_dir)
    );
    """,
    # `since` is Unix time, of an hour's or a day's beginning. `recorded` are the programs' counters
    # as far as they are in `sent`, of one boot.
    """
    CREATE TABLE sent (
        class TEXT NOT NULL, type INTEGER NOT NULL, since INTEGER NOT NULL,
        bytes INTEGER NOT NULL, packets INTEGER NOT NULL, PRIMARY KEY (class, type, since)
    );
    CREATE INDEX sent_since ON sent (since);
    CREATE TABLE recorded (
        boot TEXT NOT NULL, class_id INTEGER NOT NULL, type INTEGER NOT NULL,
        bytes INTEGER NOT NULL, packets INTEGER NOT NULL, PRIMARY KEY (class_id, type)
    );
    CREATE TABLE meters (
        lease INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, packets INTEGER NOT NULL
    );
    """,
    # `types` has a bit for each type (1 << type), `default_type` is NULL where the class's counts.
    """
    CREATE TABLE cgroups (
        boot TEXT NOT NULL, netns TEXT NOT NULL, pin_dir TEXT NOT NULL, cgroup INTEGER NOT NULL,
        class_id INTEGER NOT NULL, default_type INTEGER, types INTEGER NOT NULL,
        PRIMARY KEY (boot, netns, pin_dir, cgroup)
    );
    """,
)

#: How long totals are kept by the hour, and of how many hours and days there are any: 13 months.
_HOURLY_S: Final = 8 * 86400
_KEPT: Final = 8 * 24 + 400
#: Class or class id, and type.
Sender = tuple[str, int]
#: Bytes and packets.
Counted = tuple[int, int]


class Owner(NamedTuple):
    """Whose changed sysctls are meant: they are those of one network namespace in one boot.

    `netns` is its cookie, `pin_dir` the pin folder of the agent that changed them.
    """

    boot: str
    netns: int
    pin_dir: str


class CgroupNote(NamedTuple):
    """Of which class a cgroup is, its own default type, and the types that the class allows (as
    bits); of no class: those that its sockets keep."""

    class_id: int
    default: int | None
    types: int


_OWNED: Final = "(boot = '' OR (boot, netns, pin_dir) = (?, ?, ?))"
_ANYBODY: Final = Owner("", 0, "")


#: How long others may hold the database when it is opened, and later, when the agent's loop waits.
_BUSY_S: Final = 5.0
_BUSY_LATER_MS: Final = 20
#: What sqlite says of a file that is damaged.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class JournalError(OdmError):
    """The state database could not be opened, read or written."""


class Journal:
    """The state database. One process writes it, one thread at a time; close it when done."""

    def __init__(self, path: Path, owner: Owner = _ANYBODY) -> None:
        """Open the database at `path`, making it (0600) and its folder (0700) if they are missing.

        Sysctls of others than `owner` are neither told nor forgotten. Raises JournalError.
        """
        self.path = path
        self._owner = (owner.boot, str(owner.netns), owner.pin_dir)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if reason := distrust(path.parent):
                raise JournalError(
                    f"{reason}: others could replace the state in {path.parent}; give the folder to"
                    " root (chown root, chmod go-w), or choose another agent.state_dir"
                )
            # sqlite gives its -wal and -shm files the mode of the database.
            opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                os.fchmod(opened, 0o600)  # a copy that somebody put here may be readable to others
                found = os.fstat(opened)
                self._identity = (found.st_dev, found.st_ino)
            finally:
                os.close(opened)
        except OSError as error:
            raise self._unwritable(error) from error
        with self._told():
            # The thread that opens it is not the one that uses it; two never do at a time.
            self._db = sqlite3.connect(
                path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False
            )
        try:
            with self._told():
                self._check()
                self._migrate()
                self._db.execute(f"PRAGMA busy_timeout = {_BUSY_LATER_MS}")
        except JournalError:
            self._db.close()
            raise

    def close(self) -> None:
        """Close the database; closing twice is harmless."""
        self._db.close()

    @property
    def boot(self) -> str:
        """Which boot it is of the owner's; "": nobody has said."""
        return self._owner[0]

    @property
    def lost(self) -> str | None:
        """Why what is known would not be found by the next agent; None: it would.

        sqlite goes on writing to a file that was removed.
        """
        try:
            found = self.path.stat()
        except OSError as error:
            reason = error.strerror
        else:
            if (found.st_dev, found.st_ino) == self._identity:
                return None
            reason = "it is another file"
        return (
            f"{self.path} was removed or replaced while the agent runs ({reason}): what it knows is"
            " lost when it ends, and fixed addresses may change; put the file back, then start the"
            " agent again"
        )

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written within is written together, or not at all. Raises JournalError.

        Read before written: no two agents give the same number. One within another belongs to it.
        """
        if self._db.in_transaction:
            yield
            return
        with self._told():
            if (lost := self.lost) is not None:
                raise JournalError(lost)
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def secret(self) -> bytes:
        """The 32 random bytes that stable addresses are made from (RFC 7217), always the same."""
        with self.transaction():
            found = self._db.execute("SELECT value FROM secret").fetchone()
            if found is None:
                found = (secrets.token_bytes(32),)
                self._db.execute("INSERT INTO secret VALUES (?)", found)
        return bytes(found[0])

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

    def prefixes_by_interface(self) -> frozenset[str]:
        """The names of prefixes whose addresses were once made with the interface's name."""
        return frozenset(str(name) for (name,) in self._read("SELECT * FROM prefixes_by_interface"))

    def addresses(self) -> dict[IPAddress, Given]:
        """Every address that was ever made, by the number that it has in its pool."""
        rows = self._read("SELECT address, number, conflict FROM addresses")
        try:
            return {ip_address(str(a)): Given(int(str(n)), bool(other)) for a, n, other in rows}
        except ValueError as error:
            raise self._damaged(error) from error

    def remember_addresses(
        self, before: Mapping[IPAddress, Given], now: Mapping[IPAddress, Given]
    ) -> None:
        """Write down what differs between what `addresses` has told and what it shall tell."""
        gone = [(str(address),) for address in before.keys() - now.keys()]
        made = [
            (str(address), given.number, given.conflict)
            for address, given in now.items()
            if before.get(address) != given
        ]
        if not gone and not made:
            return
        with self.transaction():
            self._db.executemany("DELETE FROM addresses WHERE address = ?", gone)
            self._db.executemany("INSERT OR REPLACE INTO addresses VALUES (?, ?, ?)", made)

    def leases(self) -> dict[int, str]:
        """What `keep_leases` has kept: the grants, by the ids of their prefixes."""
        query = "SELECT prefix_id, CAST(granted AS BLOB) FROM leases ORDER BY prefix_id"
        return {  # as bytes, since damaged text may be none: whoever reads it can tell
            int(str(prefix_id)): bytes(granted).decode(errors="surrogateescape")
            for prefix_id, granted in self._read(query)
            if isinstance(granted, bytes)
        }

    def keep_leases(self, changed: Mapping[int, str | None]) -> None:
        """Write down grants, as text, by the ids of their prefixes; None: there is none now."""
        with self.transaction():
            self._db.executemany(
                "DELETE FROM leases WHERE prefix_id = ?", [(each,) for each in changed]
            )
            kept = [(id_, text) for id_, text in changed.items() if text is not None]
            self._db.executemany("INSERT INTO leases VALUES (?, ?)", kept)

    def cgroups(self) -> dict[int, CgroupNote]:
        """What `keep_cgroups` has kept of the owner's, by the ids of cgroups, which a boot ends."""
        rows = self._read(
            "SELECT cgroup, class_id, default_type, types FROM cgroups"
            " WHERE (boot, netns, pin_dir) = (?, ?, ?)",
            *self._owner,
        )
        try:
            return {
                int(str(cgroup)): CgroupNote(
                    int(str(class_id)),
                    None if default is None else int(str(default)),
                    int(str(types)),
                )
                for cgroup, class_id, default, types in rows
            }
        except ValueError as error:
            raise self._damaged(error) from error

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

    def _check(self) -> None:
        """Look at every page: what is damaged must not be found when it is needed, later."""
        found = [str(row[0]) for row in self._db.execute("PRAGMA quick_check(3)")]
        if found != ["ok"]:
            raise self._damaged("; ".join(" ".join(each.split()) for each in found))

    def _migrate(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        # A number must not be given twice because the power failed.
        self._db.execute("PRAGMA synchronous = FULL")
        version = int(self._db.execute("PRAGMA user_version").fetchone()[0])
        if version > len(_MIGRATIONS):
            raise JournalError(
                f"{self.path}: the state is of version {version}, this agent knows up to"
                f" {len(_MIGRATIONS)}; run the newer odm-agent that wrote it, or move the file"
                " away (fixed addresses then change)"
            )
        for number, script in enumerate(_MIGRATIONS[version:], start=version + 1):
            self._db.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT;")

    def _read(self, query: str, *arguments: str | int) -> list[tuple[object, ...]]:
        with self._told():
            return self._db.execute(query, arguments).fetchall()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever sqlite raises is a JournalError."""
        try:
            yield
        except sqlite3.Error as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: Exception) -> JournalError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what is said beside it
        if code in _DAMAGED:
            return self._damaged(error)
        return JournalError(
            f"{self.path}: cannot keep state there: {error}; make sure that agent.state_dir is a"
            " folder that root may write, with free space, and that no other process uses it"
        )

    def _damaged(self, reason: object) -> JournalError:
        return JournalError(
            f"{self.path}: the state there is damaged: {reason}; put a copy in its place, or move"
            " it away (fixed addresses then change), and start the agent again"
        )
