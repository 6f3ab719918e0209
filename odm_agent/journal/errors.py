"""What is said of a state database that can't be used."""

import sqlite3
from pathlib import Path
from typing import Final

from odm_agent.core.errors import OdmError

#: What sqlite says of a file that is damaged.
_DAMAGED: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})


class JournalError(OdmError):
    """The state database could not be opened, read or written."""


def unwritable(path: Path, error: Exception) -> JournalError:
    """The operating system or sqlite refused something."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without what is said beside it
    if code in _DAMAGED:
        return damaged(path, error)
    return JournalError(
        f"{path}: cannot keep state there: {error}; make sure that agent.state_dir is a"
        " folder that root may write, with free space, and that no other process uses it"
    )


def damaged(path: Path, reason: object) -> JournalError:
    """What is in the file is not what was written."""
    return JournalError(
        f"{path}: the state there is damaged: {reason}; put a copy in its place, or move"
        " it away (fixed addresses then change), and start the agent again"
    )


def too_new(path: Path, version: int, known: int) -> JournalError:
    """A later version of the agent wrote it."""
    return JournalError(
        f"{path}: the state is of version {version}, this agent knows up to"
        f" {known}; run the newer odm-agent that wrote it, or move the file"
        " away (fixed addresses then change)"
    )
