"""Totals of what was sent, on the real journal: neither twice nor never, whatever ends between."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from odm_agent.agent.usage_book import HOUR_S, UsageBook
from odm_agent.core.model import AddressType
from odm_agent.datapath.base import Sent
from odm_agent.journal import Journal, Owner
from tests.virtual.world import FullDisk

FIXED, NP = AddressType.FIXED, AddressType.NONPERSISTENT
NAMES: Final = {0: "unclassified", 1: "ssh", 2: "web"}
HOUR: Final = 1_700_000_000 // HOUR_S * HOUR_S
NOTHING: Final[Mapping[int, Sent]] = {}

Traffic = dict[tuple[int, AddressType], Sent]


def opened(folder: Path, boot: str = "boot") -> "closing[Journal]":
    return closing(Journal(folder / "state.db", Owner(boot, 1, "/pins")))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FullDisk]:
    opened = FullDisk(tmp_path / "state.db", Owner("boot", 1, "/pins"))
    yield opened
    opened.close()


def test_what_is_written_and_what_is_not_yet_add_up(journal: FullDisk) -> None:
    book = UsageBook(journal)
    first: Traffic = {(1, FIXED): Sent(1000, 2), (2, NP): Sent(5, 1)}
    book.write(first, NAMES, NOTHING, HOUR + 5)
    then: Traffic = {(1, FIXED): Sent(1500, 3), (2, NP): Sent(5, 1), (0, FIXED): Sent(7, 1)}
    assert book.totals(then, NAMES, HOUR) == {
        ("ssh", FIXED): Sent(1500, 3),
        ("web", NP): Sent(5, 1),
        ("unclassified", FIXED): Sent(7, 1),
    }
    book.write(then, NAMES, NOTHING, HOUR + HOUR_S)
    assert book.totals(then, NAMES, HOUR)["ssh", FIXED] == Sent(1500, 3)
    assert book.totals(then, NAMES, HOUR + HOUR_S)["ssh", FIXED] == Sent(500, 1)


def test_the_next_agent_goes_on_with_the_same_counters(tmp_path: Path) -> None:
    traffic: Traffic = {(1, FIXED): Sent(1000, 2)}
    with opened(tmp_path) as journal:
        UsageBook(journal).write(traffic, NAMES, NOTHING, HOUR)
    with opened(tmp_path) as journal:
        book = UsageBook(journal)
        book.begin({(1, FIXED): Sent(1400, 3)})
        book.write({(1, FIXED): Sent(1600, 4)}, NAMES, NOTHING, HOUR)
        assert journal.sent(HOUR) == {("ssh", int(FIXED)): (1600, 4)}


@pytest.mark.parametrize("boot", ["boot", "the next"])
def test_counters_that_began_anew_are_added_whole(tmp_path: Path, boot: str) -> None:
    """New maps in the same boot, or another boot's; also when they soon count more than before."""
    with opened(tmp_path) as journal:
        UsageBook(journal).write({(1, FIXED): Sent(1000, 2)}, NAMES, NOTHING, HOUR)
    with opened(tmp_path, boot) as journal:
        book = UsageBook(journal)
        book.begin({})
        book.write({(1, FIXED): Sent(5000, 9)}, NAMES, NOTHING, HOUR)
        assert journal.sent(HOUR) == {("ssh", int(FIXED)): (6000, 11)}


@pytest.mark.parametrize("anew", [False, True])
def test_that_counters_began_anew_is_known_to_the_next_agent(tmp_path: Path, anew: bool) -> None:
    """Killed before it had anything to write; the counters, new ones, show more by then."""
    with opened(tmp_path) as journal:
        UsageBook(journal).write({(1, FIXED): Sent(1000, 2)}, NAMES, NOTHING, HOUR)
    with opened(tmp_path) as journal:
        UsageBook(journal).begin({(1, FIXED): Sent(1000, 2)} if anew else {}, anew=anew)
    with opened(tmp_path) as journal:
        book = UsageBook(journal)
        book.begin({(1, FIXED): Sent(5000, 9)})
        assert book.totals({(1, FIXED): Sent(5000, 9)}, NAMES, 0) == {
            ("ssh", FIXED): Sent(6000, 11)
        }


def test_a_full_disk_is_told_and_what_it_missed_is_written_later(journal: FullDisk) -> None:
    book = UsageBook(journal)
    journal.full = True
    book.write({(1, FIXED): Sent(1000, 2)}, NAMES, {3: Sent(8, 1)}, HOUR)
    assert book.trouble == "no space left on device"
    assert book.totals({(1, FIXED): Sent(1000, 2)}, NAMES, 0) == {("ssh", FIXED): Sent(1000, 2)}
    journal.full = False
    book.write({(1, FIXED): Sent(1200, 3)}, NAMES, {3: Sent(9, 2)}, HOUR)
    assert book.trouble is None
    assert journal.sent(HOUR) == {("ssh", int(FIXED)): (1200, 3)}
    assert journal.meters() == {3: (9, 2)}


def test_meters_are_those_of_the_last_time(journal: FullDisk) -> None:
    book = UsageBook(journal)
    book.write({}, NAMES, {3: Sent(8, 1), 4: Sent(2**63 - 1, 1)}, HOUR)
    book.write({}, NAMES, {4: Sent(2**63 - 1, 1)}, HOUR)
    assert journal.meters() == {4: (2**63 - 1, 1)}


@example([("send", 1), ("reset", 0), ("send", 1), ("agent", 0)])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(1, 10**12)),
            st.sampled_from([("write", 0), ("agent", 0), ("reset", 0), ("full", 0), ("boot", 0)]),
        ),
        max_size=40,
    )
)
def test_whatever_happens_each_byte_is_in_the_totals_once(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Agents come and go, maps and boots begin anew with totals written, disks fill."""
    path = tmp_path_factory.mktemp("usage") / "state.db"
    boots, sent, counter = 0, 0, Sent(0, 0)
    journal = FullDisk(path, Owner("0", 1, "/pins"))
    book = UsageBook(journal)

    def traffic() -> Traffic:
        return {(1, FIXED): counter}

    for what, amount in steps:
        if what == "send":
            sent += amount
            counter = Sent(counter.bytes + amount, counter.packets + 1)
        elif what == "full":
            journal.full = not journal.full
        elif what == "write":
            book.write(traffic(), NAMES, NOTHING, HOUR)
        else:
            journal.full = False
            if what != "agent":  # whoever takes the maps away has its totals written
                book.write(traffic(), NAMES, NOTHING, HOUR)
                counter = Sent(0, 0)
            boots += what == "boot"
            journal.close()
            journal = FullDisk(path, Owner(str(boots), 1, "/pins"))
            book = UsageBook(journal)
            book.begin(traffic())
        assert sum(each.bytes for each in book.totals(traffic(), NAMES, 0).values()) == sent
    journal.close()
