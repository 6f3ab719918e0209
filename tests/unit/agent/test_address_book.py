"""What is written down about addresses, and what becomes of a journal that can't be written."""

from dataclasses import replace
from ipaddress import IPv6Network

from odm_agent.agent.address_book import AddressBook
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.journal import Journal, JournalError
from odm_agent.prefixes.memory import Memory
from odm_agent.prefixes.table import PrefixTable

NET = IPv6Network("2001:db8:1::/64")
HOME = TypedPrefix(
    1, "home", AddressType.FIXED, NET, "eth0", None, Placement.ON_LINK, (NET,), pool=2
)


class Disk(Journal):
    """A journal on a disk that may be full."""

    def __init__(self) -> None:
        self.full = False
        self.rows: dict[object, object] = {}
        self.writes = self.flushes = 0

    def remember_addresses(self, before: object, now: object) -> None:
        if self.full:
            raise JournalError("no space left on device")
        self.writes += 1
        self.rows = dict(now)  # type: ignore[call-overload]

    def flush(self) -> None:
        self.flushes += 1


def test_a_table_is_written_once_and_again_when_it_changes() -> None:
    disk, table = Disk(), PrefixTable(b"secret").with_only([HOME])
    book = AddressBook(disk, Memory())
    book.write(table)
    book.write(table)
    assert (disk.writes, len(disk.rows)) == (1, 2)
    book.write(table.with_conflict(table.addresses_of(1)[0]))
    assert (disk.writes, len(disk.rows)) == (2, 3)


def test_only_fixed_addresses_wait_for_the_disk() -> None:
    """That no power failure makes them others is what they are for."""
    disk, table = Disk(), PrefixTable(b"secret").with_only([HOME])
    book = AddressBook(disk, Memory())
    book.write(table)
    assert disk.flushes == 1
    brief = IPv6Network("2001:db8:2::/64")
    more = replace(HOME, id=2, type=AddressType.NONPERSISTENT, network=brief, spans=(brief,))
    book.write(table.with_only([HOME, more]))
    assert (disk.writes, disk.flushes) == (2, 1)


def test_a_full_disk_is_told_and_tried_again() -> None:
    disk, table = Disk(), PrefixTable(b"secret").with_only([HOME])
    book = AddressBook(disk, Memory())
    disk.full = True
    book.write(table)
    assert book.trouble == "no space left on device"
    disk.full = False
    book.write(table)
    assert book.trouble is None
    assert disk.rows == table.remembered().given
