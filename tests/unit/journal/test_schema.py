"""A state of any older version is taken over, one of a newer version left alone."""

import sqlite3
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from odm_agent.journal import Journal, JournalError, Owner
from odm_agent.journal.schema import MIGRATIONS
from odm_agent.prefixes.memory import Given
from tests.unit.journal.doubles import open_journal


def test_a_newer_state_is_left_alone(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        path = journal.path
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(JournalError, match=f"version 99, this agent knows up to {len(MIGRATIONS)}"):
        open_journal(tmp_path)


@pytest.mark.parametrize("version", range(1, len(MIGRATIONS)))
def test_a_state_of_every_older_version_is_taken_over(tmp_path: Path, version: int) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(";".join(MIGRATIONS[:version]))
        db.execute("INSERT INTO ids VALUES ('class', 7, 'old')")
        db.execute("INSERT INTO secret VALUES (?)", (b"s" * 32,))
        if version > 1:
            db.execute("INSERT INTO addresses VALUES ('2001:db8::1', 3, 1)")
        if version > 3:
            db.execute("INSERT INTO leases VALUES (9, 'a grant')")
        db.execute(f"PRAGMA user_version = {version}")
        db.commit()
    for _ in range(2):
        with closing(Journal(path)) as journal:
            assert journal.numbers("class") == {"old": 7}
            assert journal.secret() == b"s" * 32
            address = {ip_address("2001:db8::1"): Given(3, conflict=True)}
            assert journal.addresses() == (address if version > 1 else {})
            assert journal.leases() == ({9: "a grant"} if version > 3 else {})
            assert not journal.sent(0) and not journal.meters() and not journal.recorded()
            (found,) = journal._db.execute("PRAGMA user_version").fetchone()
            assert found == len(MIGRATIONS)


def test_a_migration_that_fails_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_journal(tmp_path) as journal:
        journal.give_number("class", "old", 7)
    broken = (*MIGRATIONS, "CREATE TABLE new (x); INSERT INTO ids VALUES ('class', 8, 'old')")
    monkeypatch.setattr("odm_agent.journal.schema.MIGRATIONS", broken)
    with pytest.raises(JournalError, match="UNIQUE"):
        open_journal(tmp_path)
    mended = (*MIGRATIONS, "CREATE TABLE new (x)")
    monkeypatch.setattr("odm_agent.journal.schema.MIGRATIONS", mended)
    with open_journal(tmp_path) as journal:
        assert journal.numbers("class") == {"old": 7}


def test_numbers_of_the_version_before_are_still_given(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with closing(sqlite3.connect(tmp_path / "state" / "journal.sqlite")) as db:
        db.executescript(";".join(MIGRATIONS[:4]) + "INSERT INTO ids VALUES ('class', 200, 'old')")
        db.execute("PRAGMA user_version = 4")
    with open_journal(tmp_path) as journal:
        journal.join_numbering()
        assert journal.numbers("class") == {"old": 200}
        assert not journal.numbers_are_shared()


def test_prefixes_of_a_state_that_knew_no_addresses_are_told_from_later_ones(
    tmp_path: Path,
) -> None:
    """Their addresses were made with the interface's name, and must be made so again, once."""
    (tmp_path / "state").mkdir(mode=0o700)
    with closing(sqlite3.connect(tmp_path / "state" / "journal.sqlite")) as db:
        db.executescript(f"{MIGRATIONS[0]}; INSERT INTO ids VALUES ('prefix', 1, 'old');")
        db.execute("PRAGMA user_version = 1")
    for number in (2, 3):
        with open_journal(tmp_path) as journal:
            journal.give_number("prefix", f"later {number}", number)
            assert journal.prefixes_by_interface() == {"old"}
            assert journal.addresses() == {}


def test_a_sysctl_that_an_older_version_noted_is_put_back_by_who_comes_next(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.touch()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{MIGRATIONS[0]};INSERT INTO sysctls VALUES ('net/x', '0');")
        db.execute("PRAGMA user_version = 1")
    with closing(Journal(path, Owner("b1", 1, "/p"))) as journal:
        assert journal.sysctls() == {"net/x": "0"}
        journal.forget_sysctl("net/x")
        assert journal.sysctls() == {}
