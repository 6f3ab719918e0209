"""What is written down of leases, on the real journal, and what is read of it after a boot."""

import ast
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from ipaddress import IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from odm_agent.agent.lease_book import LeaseBook
from odm_agent.core import machine, trace
from odm_agent.core.clock import NEVER, Moment
from odm_agent.core.effects import Project, Record
from odm_agent.core.events import Granted, Metered, Tick
from odm_agent.core.grants import Grant, GrantKey
from odm_agent.core.leases import Lease
from odm_agent.core.lifetimes import AddressLease, Lifetime, Phase, Terms
from odm_agent.core.model import AddressType, Placement, TypedPrefix
from odm_agent.datapath.maps.rows import pack_lease
from odm_agent.journal import Journal, Owner
from odm_agent.prefixes.table import PrefixTable
from odm_agent.prefixes.typings import leases as lease_rows
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


#: An address that is in use, and one that rests, of a prefix whose addresses end.
ENDING = Lease(
    Grant(GrantKey("static", "p"), replace(PREFIX, terms=Terms(preferred_s=60.0, budget=10**6))),
    addresses=(
        AddressLease(4, 12, 90.0, Phase.CURRENT, Lifetime(150.0, NEVER), 140.0, warned=True),
        AddressLease(5, 13, 95.0, Phase.SPARE, Lifetime(155.0, 300.0)),
    ),
    numbered=6,
    resting=((3, 120.0),),
)


def read_in(folder: Path, boot: str, now: Moment) -> Lease:
    with closing(Journal(folder / "state.db", Owner(boot, 1, "/pins"))) as journal:
        (lease,) = LeaseBook(journal).read(now)
    return lease


@pytest.fixture
def written(tmp_path: Path) -> Path:
    with closing(Journal(tmp_path / "state.db", Owner("this boot", 1, "/pins"))) as journal:
        LeaseBook(journal).note(Record(9, ENDING), NOW)
    return tmp_path


@pytest.mark.parametrize("wall_s", [0.0, NOW.wall_s, NOW.wall_s + 1e9])
def test_in_the_same_boot_the_wall_clock_changes_nothing(written: Path, wall_s: float) -> None:
    assert read_in(written, "this boot", Moment(104.0, wall_s)) == ENDING


def test_after_a_boot_as_much_is_left_as_the_wall_clock_says(written: Path) -> None:
    """4 s have passed, and the clock of this boot shows 3: all is 101 s - 4 s - 3 s less."""
    lease = read_in(written, "the next", LATER)
    first, second = lease.addresses
    assert (first.born_s, first.lifetime, first.rotate_at_s) == (-11.0, Lifetime(49.0), 39.0)
    assert (second.born_s, second.lifetime) == (-6.0, Lifetime(54.0, 199.0))
    assert second.rotate_at_s == NEVER
    assert lease.resting == ((3, 19.0),)
    back = replace(lease, grant=ENDING.grant, addresses=ENDING.addresses, resting=ENDING.resting)
    assert back == ENDING, "all else is as it was"
    assert [(e.number, e.id, e.phase, e.warned) for e in lease.addresses] == [
        (4, 12, Phase.CURRENT, True),
        (5, 13, Phase.SPARE, False),
    ]


def test_a_wall_clock_that_went_back_over_a_boot_gives_no_more_time(written: Path) -> None:
    """A host without a clock of its own that counts while it is off."""
    lease = read_in(written, "the next", Moment(3.0, NOW.wall_s - 1000.0))
    assert [e.lifetime.preferred_until_s - 3.0 for e in lease.addresses] == [
        e.lifetime.preferred_until_s - NOW.boot_s for e in ENDING.addresses
    ]


@pytest.mark.parametrize("value", [(1, 2, 3), ("boot", NOW), ("boot", 5.0, LEASE), LEASE])
def test_a_row_of_another_shape_is_left_out(
    journal: FullDisk, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    journal.keep_leases({9: trace.spelled(value)})
    assert LeaseBook(journal).read(NOW) == []
    assert "a lease is lost" in caplog.text


#: What may stand where something else should: of other types, and of the right ones.
WRONG = (
    *("None", "True", "'x'", "b'x'", "()", "(1,)", "(1, 2)", "frozenset(())", "{}", "..."),
    *("0", "-1", "1", "16383", "4294967296", str(1 << 64), "9" * 400, "float('1e300')"),
    *("float('nan')", "float('inf')", "float('-inf')", "1j", "IPv4Address('192.0.2.7')"),
    *("IPv4Network('192.0.2.0/31')", "IPv6Network('::/0')", "AddressType(0)", "Family(4)"),
    *("Phase('lingering')", "Terms()", "Lifetime()", "Tick()", "IPv4Network(())", "AddressType(9)"),
)


def damaged(text: str) -> Iterator[str]:
    """Whatever one wrong value makes of a row, at each place."""
    places = [node for node in ast.walk(ast.parse(text, mode="eval")) if isinstance(node, ast.expr)]
    for node in places:
        assert node.end_col_offset is not None
        for wrong in WRONG:
            yield text[: node.col_offset] + wrong + text[node.end_col_offset :]


def assert_goes_on(lease: Lease) -> None:
    """An agent that begins with it has a table and rows, and no lifetime is longer than ever."""
    configured = Grant(ENDING.grant.key, replace(ENDING.grant.prefix, pool=2))
    state, table = machine.begun([lease], NOW), PrefixTable(b"secret")
    for event in (Granted(configured), Tick(), Metered(frozenset({12}), frozenset({13})), Tick()):
        state, effects = machine.step(state, event, NOW)
        for effect in effects:
            if isinstance(effect, Project):
                table = table.with_only(effect.prefixes)
            elif isinstance(effect, Record):
                trace.spelled(effect.lease)
    for row in lease_rows(table).values():
        pack_lease(row)
        assert row.preferred_ns <= (NOW.boot_s + 60.0) * 1e9
    assert machine.deadline(state) is not None
    assert table.addresses_of(9)


@pytest.mark.parametrize("boot", ["this boot", "the next"])
def test_what_cannot_be_is_dropped_and_told_and_all_else_is_no_harm(
    boot: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Each value of a row in turn is one that is of another type, or out of range."""
    rows = list(damaged(trace.spelled(("this boot", NOW, ENDING))))
    read = dict[int, str]()
    dropped: list[object] = []
    journal: Any = SimpleNamespace(boot=boot, leases=lambda: read, keep_leases=dropped.append)
    for row in rows:
        read[9] = row
        for lease in LeaseBook(journal).read(NOW):
            assert_goes_on(lease)
    assert len(rows) * 3 / 4 < len(dropped) < len(rows)
    assert all(each == {9: None} for each in dropped)
    assert len([each for each in caplog.records if "a lease is lost" in each.message]) == len(
        dropped
    )


def test_what_is_dropped_is_gone_from_the_state(journal: FullDisk) -> None:
    """Text that is none, too: of damage, the disk's own."""
    journal.keep_leases({8: "Grant(", 9: trace.spelled(("", NOW, ENDING)), 10: "x"})
    journal._db.execute("UPDATE leases SET granted = CAST(x'ff00fe' AS TEXT) WHERE prefix_id = 10")
    assert len(LeaseBook(journal).read(NOW)) == 1
    assert set(journal.leases()) == {9}


def test_a_lease_of_which_another_prefix_has_an_id_is_dropped(journal: FullDisk) -> None:
    """Their meters would be one."""
    other = replace(ENDING, grant=replace(ENDING.grant, prefix=replace(PREFIX, id=10)))
    journal.keep_leases(
        {each: trace.spelled(("", NOW, lease)) for each, lease in ((9, ENDING), (10, other))}
    )
    [lease] = LeaseBook(journal).read(NOW)
    assert lease.grant.prefix.id == 9
