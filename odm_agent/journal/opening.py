"""Opening the state database: whose the file is, whether it is whole, how it is kept."""

import os
import sqlite3
from pathlib import Path
from typing import Final

from odm_agent.folders import distrust
from odm_agent.journal.errors import JournalError, damaged
from odm_agent.journal.schema import migrate

#: How long others may hold the database when it is opened, and later, when the agent's loop waits.
_BUSY_S: Final = 5.0
_BUSY_LATER_MS: Final = 20

#: Device and inode.
Identity = tuple[int, int]


def own_file(path: Path) -> Identity:
    """See to it that the file is there (0600), in a folder (0700) that nobody else may change.

    Raises OSError, JournalError.
    """
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
        return found.st_dev, found.st_ino
    finally:
        os.close(opened)


def connect(path: Path) -> sqlite3.Connection:
    """The database, whole and with the tables of this version. Raises sqlite3.Error, JournalError.

    The thread that opens it is not the one that uses it; two never do at a time.
    """
    db = sqlite3.connect(path, isolation_level=None, timeout=_BUSY_S, check_same_thread=False)
    try:
        _check(db, path)
        db.execute("PRAGMA journal_mode = WAL")
        # A power failure takes maps and sockets, too. What is to be told before all else is flushed
        # by whoever writes it (`Database.flush`), so that nobody waits for the disk else.
        db.execute("PRAGMA synchronous = NORMAL")
        migrate(db, path)
        _check_numbers(db, path)
        db.execute(f"PRAGMA busy_timeout = {_BUSY_LATER_MS}")
    except BaseException:
        db.close()
        raise
    return db


def _check(db: sqlite3.Connection, path: Path) -> None:
    """Look at every page: what is damaged must not be found when it is needed, later."""
    found = [str(row[0]) for row in db.execute("PRAGMA quick_check(3)")]
    if found != ["ok"]:
        raise damaged(path, "; ".join(" ".join(each.split()) for each in found))


def _check_numbers(db: sqlite3.Connection, path: Path) -> None:
    """Look at every number: to sqlite the type of a column is no more than advice."""
    tables = [
        str(row[0]) for row in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")
    ]
    for table in tables:
        for _, column, type_, *_ in db.execute("SELECT * FROM pragma_table_info(?)", (table,)):
            wrong = (
                f"SELECT 1 FROM \"{table}\" WHERE typeof(\"{column}\") NOT IN ('integer', 'null')"
            )
            if type_ == "INTEGER" and db.execute(f"{wrong} LIMIT 1").fetchone():
                raise damaged(path, f"{table}.{column} holds what is no number")
