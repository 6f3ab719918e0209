"""What is written down of leases, on the real journal, and what is read of it after a boot."""

from collections.abc import Iterator
from ipaddress import IPv6Network
from pathlib import Path

import pytest

from odm_agent.agent.lease_book import LeaseBook
from odm_agent.core.clock import Moment
from odm_agent.core.effects import Record
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import Lifetime
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from tests.virtual.world import FullDisk

NET = IPv6Network("2001:db8:1::/64")
PREFIX = TypedPrefix(9, "g", AddressType.FIXED, NET, "w0", None, Placement.DELEGATED, (NET,))
LEASE = Lease(Grant(GrantKey("dhcp", "1"), PREFIX, Lifetime(110.0)))
NOW, LATER = Moment(100.0, 5000.0), Moment(3.0, 5004.0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FullDisk]:
    opened = FullDisk(tmp_path / "state.db")
    yield opened
    opened.close()


def test_what_is_left_of_a_lifetime_outlasts_a_boot(journal: FullDisk) -> None:
    LeaseBook(journal).note(Record(9, LEASE), NOW)
    (lease,) = LeaseBook(journal).read(LATER)
    assert lease.lifetime == Lifetime(9.0)
    assert lease.grant.key == LEASE.grant.key and lease.grant.prefix == PREFIX


def test_a_lease_that_is_gone_is_forgotten(journal: FullDisk) -> None:
    book = LeaseBook(journal)
    book.note(Record(9, LEASE), NOW)
    book.note(Record(9, None), NOW)
    assert book.read(NOW) == []


def test_a_full_disk_is_told_and_all_is_written_later(journal: FullDisk) -> None:
    book = LeaseBook(journal)
    journal.full = True
    book.note(Record(9, LEASE), NOW)
    book.note(Record(8, None), NOW)
    assert book.trouble == "no space left on device"
    journal.full = False
    book.write()
    assert book.trouble is None
    assert [lease.grant.prefix.id for lease in book.read(NOW)] == [9]


@pytest.mark.parametrize("text", ["Grant(", "Tick()", "Grant(new=1)"])
def test_a_row_that_cannot_be_read_loses_its_lease_alone(
    journal: FullDisk, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    LeaseBook(journal).note(Record(9, LEASE), NOW)
    journal.keep_leases({8: text})
    assert [lease.grant.prefix.id for lease in LeaseBook(journal).read(NOW)] == [9]
    assert "a lease is lost" in caplog.text


def test_what_is_written_is_not_written_again(
    journal: FullDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = LeaseBook(journal)
    book.note(Record(9, LEASE), NOW)
    written: list[object] = []
    monkeypatch.setattr(journal, "keep_leases", written.append)
    book.write()
    assert not written
