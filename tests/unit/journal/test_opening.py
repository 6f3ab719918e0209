"""Whose the file is, and whether it is whole."""

import stat
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from odm_agent.journal import Journal, JournalError
from odm_agent.prefixes.memory import Given
from tests.unit.journal.doubles import open_journal


def test_only_the_owner_may_read_the_state(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.secret()
        files = [p for p in journal.path.parent.iterdir()]
        assert len(files) > 1, "with its write-ahead log"
        assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}
        assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(JournalError, match=r"cannot keep state there.*agent\.state_dir"):
        open_journal(tmp_path)


def test_a_damaged_state_is_said_so_with_what_to_do(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        path = journal.path
        journal.remember_addresses({}, {ip_address(n): Given(n) for n in range(300)})
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))
    with (
        pytest.raises(JournalError, match=r"damaged: .*put a copy in its place"),
        closing(Journal(path)) as journal,
    ):
        journal.addresses()


def test_damage_where_nobody_reads_is_found_when_it_is_opened(tmp_path: Path) -> None:
    """An index that lost entries of its table: reading goes well, a name would get two numbers."""
    with open_journal(tmp_path) as journal:
        path = journal.path
        for number in range(200):
            journal.give_number("class", f"name {number}", number)
        journal._db.executescript("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = journal._db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_autoindex_ids_2'"
        ).fetchone()
        (size,) = journal._db.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\x0a\0\0\0\0" + size.to_bytes(2, "big") + b"\0")  # a leaf without cells
    with pytest.raises(JournalError, match=r"damaged: .*put a copy in its place"):
        open_journal(tmp_path)


def test_what_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(JournalError, match=r"damaged: .*move it away"):
        open_journal(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "INSERT INTO meters VALUES (1, 'many', 2)",
        "INSERT INTO meters VALUES (1, 1.5, 2)",
        "INSERT INTO sent VALUES ('web', 2, 3600, x'00', 1)",
        "INSERT INTO recorded VALUES ('boot', 1, 'two', 3, 4)",
        "INSERT INTO ids VALUES ('class', 'one', 'web')",
        "INSERT INTO addresses VALUES ('2001:db8::1', 'first', 0)",
        "INSERT INTO cgroups VALUES ('', '', '', 7, 1, 'x', 2)",
    ],
)
def test_what_is_no_number_is_found_when_it_is_opened(tmp_path: Path, change: str) -> None:
    with open_journal(tmp_path) as journal:
        journal._db.execute(change)
    with pytest.raises(
        JournalError, match=r"damaged: \w+\.\w+ holds what is no number; put a copy"
    ):
        open_journal(tmp_path)
