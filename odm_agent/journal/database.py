"""The state database as a whole: whose it is, and how it is read and written."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, NamedTuple

from odm_agent.journal.errors import JournalError, unwritable
from odm_agent.journal.opening import connect, own_file


class Owner(NamedTuple):
    """Whose changed sysctls are meant: they are those of one network namespace in one boot.

    `netns` is its cookie, `pin_dir` the pin folder of the agent that changed them.
    """

    boot: str
    netns: int
    pin_dir: str


_ANYBODY: Final = Owner("", 0, "")


class Database:
    """What the parts of the journal stand on: each has the tables of one subject."""

    def __init__(self, path: Path, owner: Owner = _ANYBODY) -> None:
        """Open the database at `path`, making it (0600) and its folder (0700) if they are missing.

        Sysctls of others than `owner` are neither told nor forgotten. Raises JournalError.
        """
        self.path = path
        self._owner = (owner.boot, str(owner.netns), owner.pin_dir)
        try:
            self._identity = own_file(path)
        except OSError as error:
            raise unwritable(path, error) from error
        with self._told():
            self._db = connect(path)
        self._unflushed = True

    @property
    def is_flushed(self) -> bool:
        """Whether all that was written survives a power failure."""
        return not self._unflushed

    def close(self) -> None:
        """Close the database; closing twice is harmless."""
        with suppress(JournalError):
            self.flush()
        self._db.close()

    def flush(self) -> None:
        """What was written survives a power failure from now on. From any thread.

        Without it, it survives the end of the process, and sooner or later reaches the disk: in the
        order in which it was written. Raises JournalError.
        """
        if not self._unflushed:
            return
        self._unflushed = False
        try:
            log = os.open(f"{self.path}-wal", os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fdatasync(log)
            finally:
                os.close(log)
        except FileNotFoundError:
            return  # all is in the database, which was flushed then
        except OSError as error:
            self._unflushed = True
            raise unwritable(self.path, error) from error

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
                self._unflushed = True
            except BaseException:
                # A full disk may have ended the transaction already.
                with suppress(sqlite3.Error):
                    self._db.execute("ROLLBACK")
                raise

    def _read(self, query: str, *arguments: str | int) -> list[tuple[object, ...]]:
        with self._told():
            return self._db.execute(query, arguments).fetchall()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Whatever sqlite raises is a JournalError."""
        try:
            yield
        except sqlite3.Error as error:
            raise unwritable(self.path, error) from error
