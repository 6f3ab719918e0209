"""Addresses and the secret that they are made of."""

from ipaddress import ip_address
from pathlib import Path

import pytest

from odm_agent.journal import JournalError
from odm_agent.prefixes.memory import Given
from tests.unit.journal.doubles import open_journal


def test_another_host_has_another_secret(tmp_path: Path) -> None:
    with open_journal(tmp_path / "a") as one, open_journal(tmp_path / "b") as other:
        assert one.secret() != other.secret()


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


def test_an_address_that_is_none_is_damage(tmp_path: Path) -> None:
    with open_journal(tmp_path) as journal:
        journal._db.execute("INSERT INTO addresses VALUES ('nonsense', 1, 0)")
        with pytest.raises(JournalError, match="damaged"):
            journal.addresses()
