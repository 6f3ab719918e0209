"""Names keep their numbers, and no number is given twice."""

from contextlib import closing
from pathlib import Path

import pytest

from odm_agent.journal import Journal, JournalError, Owner
from tests.unit.journal.doubles import open_journal


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


def test_two_agents_on_one_database_never_give_the_same_number(tmp_path: Path) -> None:
    with open_journal(tmp_path) as one, open_journal(tmp_path) as other:
        one.give_number("class", "a", 1)
        with pytest.raises(JournalError, match="UNIQUE"):
            other.give_number("class", "b", 1)
        assert other.numbers("class") == {"a": 1}
