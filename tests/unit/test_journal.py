import sqlite3
import stat
import time
from collections.abc import Callable
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from odm_agent.journal import _MIGRATIONS, Journal, JournalError, Owner
from odm_agent.prefixes.memory import Given


def open_journal(folder: Path) -> "closing[Journal]":
    return closing(Journal(folder / "state" / "journal.sqlite"))


def test_secret_and_numbers_outlive_a_restart(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        secret = journal.secret()
        assert len(secret) == 32
        for name, number in {"a": 1, "b": 2, "c": 7}.items():
            journal.give_number("class", name, number)
        journal.give_number("prefix", "b", 1)
        journal.free_numbers("class", ["b", "never given"])
    with open_journal(tmp_path) as journal:
        assert journal.secret() == secret
        assert journal.numbers("class") == {"a": 1, "c": 7}
        assert journal.numbers("prefix") == {"b": 1}, "each kind counts for itself"


def test_the_numbers_of_other_agents_maps_are_known_until_they_leave(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    one, other = Owner("boot", 1, "/pins"), Owner("boot", 1, "/elsewhere")
    with closing(Journal(path, one)) as mine, closing(Journal(path, other)) as others:
        mine.join_numbering()
        mine.join_numbering()
        assert not mine.numbers_are_shared()
        others.join_numbering()
        assert mine.numbers_are_shared()
        assert others.numbers_are_shared()
        mine.leave_numbering()
        assert not others.numbers_are_shared()
        mine.join_numbering()
    with closing(Journal(path, one._replace(boot="the next"))) as mine:
        mine.join_numbering()
        assert not mine.numbers_are_shared(), "a boot leaves no maps"


def test_another_host_has_another_secret(tmp_path: Path) -> None:
    with open_journal(tmp_path / "a") as one, open_journal(tmp_path / "b") as other:
        assert one.secret() != other.secret()


def test_a_sysctl_is_remembered_as_it_was_first(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.remember_sysctl("net/ipv6/conf/eth0/use_oif_addrs_only", "0")
        journal.remember_sysctl("net/ipv6/conf/eth0/use_oif_addrs_only", "1")
        assert journal.sysctls() == {"net/ipv6/conf/eth0/use_oif_addrs_only": "0"}
        journal.forget_sysctl("net/ipv6/conf/eth0/use_oif_addrs_only")
        assert journal.sysctls() == {}


def test_a_sysctl_belongs_to_one_namespace_in_one_boot(tmp_path: Path) -> None:
    """Neither another namespace nor another agent's pins, and after a boot nothing is changed."""
    path, name = tmp_path / "journal.sqlite", "net/ipv6/conf/eth0/use_oif_addrs_only"
    ours = Owner("b1", 1, "/p")
    with closing(Journal(path, ours)) as journal:
        journal.remember_sysctl(name, "0")
    for other in (ours._replace(netns=2), ours._replace(pin_dir="/q"), ours._replace(boot="b2")):
        with closing(Journal(path, other)) as journal:
            assert journal.sysctls() == {}
            journal.forget_sysctl(name)
    with closing(Journal(path, ours)) as journal:
        assert journal.sysctls() == {name: "0"}
    with closing(Journal(path, Owner("b2", 1, "/p"))) as journal:
        journal.remember_sysctl(name, "2")
        assert journal.sysctls() == {name: "2"}
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT boot FROM changed_sysctls").fetchall() == [("b2",)]


def test_a_sysctl_that_an_older_version_noted_is_put_back_by_who_comes_next(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.touch()
    with closing(sqlite3.connect(path)) as db:
        db.executescript(f"{_MIGRATIONS[0]};INSERT INTO sysctls VALUES ('net/x', '0');")
        db.execute("PRAGMA user_version = 1")
    with closing(Journal(path, Owner("b1", 1, "/p"))) as journal:
        assert journal.sysctls() == {"net/x": "0"}
        journal.forget_sysctl("net/x")
        assert journal.sysctls() == {}


def test_only_the_owner_may_read_the_state(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.secret()
        files = [p for p in journal.path.parent.iterdir()]
        assert len(files) > 1, "with its write-ahead log"
        assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}
        assert stat.S_IMODE(journal.path.parent.stat().st_mode) == 0o700


def test_two_agents_on_one_database_never_give_the_same_number(tmp_path: Path) -> None:
    with open_journal(tmp_path) as one, open_journal(tmp_path) as other:
        one.give_number("class", "a", 1)
        with pytest.raises(JournalError, match="UNIQUE"):
            other.give_number("class", "b", 1)
        assert other.numbers("class") == {"a": 1}


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(JournalError, match=r"cannot keep state there.*agent\.state_dir"):
        open_journal(tmp_path)


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


def test_an_address_that_is_none_is_damage(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal._db.execute("INSERT INTO addresses VALUES ('nonsense', 1, 0)")
        with pytest.raises(JournalError, match="damaged"):
            journal.addresses()


def test_what_is_no_database_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "journal.sqlite").write_bytes(b"no database" * 500)
    with pytest.raises(JournalError, match=r"damaged: .*move it away"):
        open_journal(tmp_path)


def test_a_newer_state_is_left_alone(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        path = journal.path
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(
        JournalError, match=f"version 99, this agent knows up to {len(_MIGRATIONS)}"
    ):
        open_journal(tmp_path)


def test_addresses_and_conflicts_outlive_a_restart(tmp_path: Path) -> None:
    one, two = ip_address("2001:db8::1"), ip_address("192.0.2.1")
    with open_journal(tmp_path) as journal:
        assert journal.addresses() == {}
        journal.remember_addresses({}, {one: Given(0), two: Given(3)})
    with open_journal(tmp_path) as journal:
        before = journal.addresses()
        assert before == {one: Given(0), two: Given(3)}
        journal.remember_addresses(before, {one: Given(0, conflict=True)})
    with open_journal(tmp_path) as journal:
        assert journal.addresses() == {one: Given(0, conflict=True)}


def test_prefixes_of_a_state_that_knew_no_addresses_are_told_from_later_ones(
    tmp_path: Path,
) -> None:
    """Their addresses were made with the interface's name, and must be made so again, once."""
    (tmp_path / "state").mkdir(mode=0o700)
    with closing(sqlite3.connect(tmp_path / "state" / "journal.sqlite")) as db:
        db.executescript(f"{_MIGRATIONS[0]}; INSERT INTO ids VALUES ('prefix', 1, 'old');")
        db.execute("PRAGMA user_version = 1")
    for number in (2, 3):
        with open_journal(tmp_path) as journal:
            journal.give_number("prefix", f"later {number}", number)
            assert journal.prefixes_by_interface() == {"old"}
            assert journal.addresses() == {}


def test_numbers_of_the_version_before_are_still_given(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    with closing(sqlite3.connect(tmp_path / "state" / "journal.sqlite")) as db:
        db.executescript(";".join(_MIGRATIONS[:4]) + "INSERT INTO ids VALUES ('class', 200, 'old')")
        db.execute("PRAGMA user_version = 4")
    with open_journal(tmp_path) as journal:
        journal.join_numbering()
        assert journal.numbers("class") == {"old": 200}
        assert not journal.numbers_are_shared()


HOUR_S, DAY_S = 3600, 86400
#: The beginning of a day.
DAY = 20_000 * DAY_S


def test_totals_add_up_by_hour_class_and_type(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for hour in (DAY, DAY, DAY + HOUR_S):
            journal.add_sent(hour, {("ssh", 1): (100, 1), ("web", 3): (7, 1)}, {}, {})
        assert journal.sent(DAY) == {("ssh", 1): (300, 3), ("web", 3): (21, 3)}
        assert journal.sent(DAY + 1) == {("ssh", 1): (100, 1), ("web", 3): (7, 1)}
    with open_journal(tmp_path) as journal:
        assert journal.sent(DAY + HOUR_S) == {("ssh", 1): (100, 1), ("web", 3): (7, 1)}


def test_old_totals_are_kept_by_the_day_and_no_longer_than_thirteen_months(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        for hour in range(420 * 24):
            journal.add_sent(DAY + hour * HOUR_S, {("ssh", 1): (1, 1)}, {}, {})
        last = DAY + 420 * DAY_S - HOUR_S
        (rows,) = journal._db.execute("SELECT COUNT(*) FROM sent").fetchone()
        assert rows == 400 + 8 * 24
        kept, _ = journal.sent(0)["ssh", 1]
        assert 400 * 24 < kept < 410 * 24, "summed up, not dropped"
        assert journal.sent(last - 5 * DAY_S)["ssh", 1] == (5 * 24 + 1, 5 * 24 + 1)


def test_a_clock_that_is_set_far_ahead_for_a_while_costs_no_totals(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal.add_sent(DAY, {("ssh", 1): (100, 1)}, {}, {})
        journal.add_sent(DAY + 9000 * DAY_S, {("ssh", 1): (1, 1)}, {}, {})
        journal.add_sent(DAY, {("ssh", 1): (100, 1)}, {}, {})
        assert journal.sent(DAY)["ssh", 1] == (201, 3)


def test_counters_of_another_boot_are_not_told(tmp_path: Path) -> None:
    path, owner = tmp_path / "state.db", Owner("b1", 1, "/p")
    with closing(Journal(path, owner)) as journal:
        journal.add_sent(DAY, {}, {(1, 1): (100, 1)}, {12: (5, 1)})
        assert journal.recorded() == {(1, 1): (100, 1)}
    with closing(Journal(path, owner._replace(boot="b2"))) as journal:
        assert journal.recorded() == {}
        assert journal.meters() == {12: (5, 1)}, "a budget outlasts a boot"


@pytest.mark.parametrize("version", range(1, len(_MIGRATIONS)))
def test_a_state_of_every_older_version_is_taken_over(tmp_path: Path, version: int) -> None:
    path = tmp_path / "state.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(";".join(_MIGRATIONS[:version]))
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
            assert found == len(_MIGRATIONS)


def test_a_migration_that_fails_leaves_the_version_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_journal(tmp_path) as journal:
        journal.give_number("class", "old", 7)
    broken = (*_MIGRATIONS, "CREATE TABLE new (x); INSERT INTO ids VALUES ('class', 8, 'old')")
    monkeypatch.setattr("odm_agent.journal._MIGRATIONS", broken)
    with pytest.raises(JournalError, match="UNIQUE"):
        open_journal(tmp_path)
    mended = (*_MIGRATIONS, "CREATE TABLE new (x)")
    monkeypatch.setattr("odm_agent.journal._MIGRATIONS", mended)
    with open_journal(tmp_path) as journal:
        assert journal.numbers("class") == {"old": 7}
