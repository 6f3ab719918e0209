"""What can't be written is said, and nothing is left by halves."""

import errno
import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from odm_agent.journal import Journal, JournalError
from odm_agent.prefixes.memory import Given
from tests.unit.journal.doubles import Refusing, open_journal

CALLS: dict[str, Callable[[Journal], object]] = {
    "secret": lambda it: it.secret(),
    "give_number": lambda it: it.give_number("class", "new", 1),
    "join_numbering": lambda it: it.join_numbering(),
    "remember_addresses": lambda it: it.remember_addresses({}, {ip_address("::1"): Given(1)}),
    "remember_sysctl": lambda it: it.remember_sysctl("net/x", "0"),
    "forget_sysctl": lambda it: it.forget_sysctl("net/x"),
    "free_numbers": lambda it: it.free_numbers("class", ["new"]),
    "leave_numbering": lambda it: it.leave_numbering(),
    "numbers": lambda it: it.numbers("class"),
    "numbers_are_shared": lambda it: it.numbers_are_shared(),
    "sysctls": lambda it: it.sysctls(),
    "addresses": lambda it: it.addresses(),
    "prefixes_by_interface": lambda it: it.prefixes_by_interface(),
}


WRITES = list(CALLS)[:8]


#: A kind of statement -> the calls that make one.
MAKE = {
    "BEGIN": WRITES,
    "COMMIT": WRITES,
    "SELECT": ["secret", *list(CALLS)[8:]],
    "INSERT": WRITES[:5],
    "DELETE": WRITES[2:],
}


@pytest.mark.parametrize(
    ("statement", "call"), [(word, call) for word, calls in MAKE.items() for call in calls]
)
def test_whatever_fails_is_a_journal_error_and_leaves_nothing_begun(
    tmp_path: Path, call: str, statement: str
) -> None:
    with open_journal(tmp_path) as journal:
        db = journal._db
        journal._db = Refusing(db, statement)  # type: ignore[assignment]
        with pytest.raises(JournalError, match="disk is full; make sure"):
            CALLS[call](journal)
        assert not db.in_transaction
        journal._db = db
        CALLS[call](journal)


def test_a_disk_that_is_full_refuses_all_of_a_transaction(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        pages = journal._db.execute("PRAGMA page_count").fetchone()[0]
        journal._db.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(JournalError, match="full"), journal.transaction():
            for number in range(1000):
                journal.give_number("class", f"name {number}", number)
        assert journal.numbers("class") == {}
        journal.give_number("class", "small", 1)


def test_who_holds_the_database_holds_up_nobody_for_long(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal, closing(sqlite3.connect(journal.path)) as other:
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(JournalError, match=r"locked; make sure .* no other process uses it"):
            journal.give_number("class", "a", 1)
        assert time.monotonic() - began < 0.1
        other.rollback()
        journal.give_number("class", "a", 1)


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_file_that_is_gone_is_not_written_into(tmp_path: Path, what: str) -> None:
    with open_journal(tmp_path) as journal:
        assert journal.lost is None
        journal.path.unlink()
        if what == "replaced":
            journal.path.touch()
        assert "put the file back" in (journal.lost or "")
        with pytest.raises(JournalError, match="was removed or replaced"):
            journal.give_number("class", "a", 1)


def test_a_file_system_that_is_read_only_is_said_so(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal._db.execute("PRAGMA query_only = 1")
        with pytest.raises(JournalError, match="readonly database; make sure"):
            journal.give_number("class", "a", 1)


def test_what_was_written_is_on_the_disk_when_somebody_has_seen_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log of what was written is what counts: sqlite finds all that is whole there."""
    flushed: list[str] = []

    def note(descriptor: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fdatasync", note)
    with open_journal(tmp_path) as journal:
        journal.give_number("class", "new", 1)
        assert not journal.is_flushed and not flushed
        journal.flush()
        assert journal.is_flushed
        assert [Path(each).name for each in flushed] == [f"{journal.path.name}-wal"]
        journal.flush()
        assert len(flushed) == 1, "there is nothing new"
        journal.give_number("class", "newer", 2)
        assert not journal.is_flushed


def test_what_could_not_be_brought_to_the_disk_is_said_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with open_journal(tmp_path) as journal:
        journal.give_number("class", "new", 1)
        with monkeypatch.context() as patch:
            patch.setattr(os, "fdatasync", fail)
            with pytest.raises(JournalError, match="cannot keep state there"):
                journal.flush()
        assert not journal.is_flushed
        journal.flush()
        assert journal.is_flushed
