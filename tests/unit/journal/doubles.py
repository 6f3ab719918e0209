"""A journal of a test's own, and a disk that fails."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from odm_agent.journal import Journal


def open_journal(folder: Path) -> "closing[Journal]":
    return closing(Journal(folder / "state" / "journal.sqlite"))


class Refusing:
    """A connection that fails at one kind of statement, as a full or failing disk makes it."""

    def __init__(self, db: sqlite3.Connection, statement: str) -> None:
        self._db, self._statement = db, statement

    def __getattr__(self, name: str) -> Any:
        return getattr(self._db, name)

    def execute(self, query: str, *arguments: Any) -> Any:
        if query.startswith(self._statement):
            raise sqlite3.OperationalError("database or disk is full")
        return self._db.execute(query, *arguments)

    def executemany(self, query: str, *arguments: Any) -> Any:
        return self.execute(query) if query.startswith(self._statement) else None
