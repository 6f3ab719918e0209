"""The tables of the state database, and the way to them from those of every older version."""

import sqlite3
from pathlib import Path
from typing import Final

from odm_agent.journal.errors import too_new

#: Raised when a table changes; `MIGRATIONS[n]` leads from version n to n + 1.
MIGRATIONS: Final = (
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
    # One row, of one boot.
    "CREATE TABLE handovers (boot TEXT NOT NULL, told TEXT NOT NULL);",
)


def migrate(db: sqlite3.Connection, path: Path) -> None:
    """Bring the tables to this version. Raises JournalError if a later one wrote them."""
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise too_new(path, version, len(MIGRATIONS))
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        db.executescript(f"BEGIN;{script};PRAGMA user_version = {number};COMMIT;")
