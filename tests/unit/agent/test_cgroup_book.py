"""What is written down of cgroups is read by the next agent: of this boot, and of these pins."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from odm_agent.agent.cgroup_book import CgroupBook
from odm_agent.core.model import UNCLASSIFIED, AddressType, ClassPolicy
from odm_agent.core.projection import CgroupRow
from odm_agent.datapath import abi
from odm_agent.journal import CgroupNote, Journal, Owner
from tests.virtual.world import FullDisk

FIXED, SESSION = AddressType.FIXED, AddressType.SESSION_LASTING
OURS: Final = Owner("boot", 1, "/pins")
CLASSES: Final = {3: ClassPolicy(3, "web", allow=frozenset({FIXED, SESSION}))}
ROWS: Final = {
    11: CgroupRow(3),
    12: CgroupRow(3, default=SESSION),
    13: CgroupRow(UNCLASSIFIED, kept=frozenset({FIXED})),
    14: CgroupRow(UNCLASSIFIED),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    with closing(Journal(path, OURS)) as opened:
        yield opened


def test_rows_and_what_their_classes_allow_are_there_again(journal: Journal) -> None:
    CgroupBook(journal).write(ROWS, CLASSES)
    book = CgroupBook(journal)
    assert book.rows() == ROWS
    assert {n: each.allow for n, each in book.classes().items()} == {3: {FIXED, SESSION}}


def test_what_changes_is_written_and_what_goes_is_forgotten(journal: Journal) -> None:
    book = CgroupBook(journal)
    book.write(ROWS, CLASSES)
    later = {11: CgroupRow(UNCLASSIFIED, kept=frozenset({SESSION})), 12: ROWS[12]}
    book.write(later, CLASSES)
    assert CgroupBook(journal).rows() == later
    book.write({}, {})
    assert CgroupBook(journal).rows() == {} == CgroupBook(journal).classes()


def test_undecided_cgroups_are_looked_at_anew(journal: Journal) -> None:
    CgroupBook(journal).write({11: CgroupRow(abi.UNDECIDED_CLASS)}, {})
    assert CgroupBook(journal).rows() == {}


@pytest.mark.parametrize(
    "other", [Owner("another boot", 1, "/pins"), Owner("boot", 2, "/pins"), Owner("boot", 1, "/p")]
)
def test_ids_of_another_boot_and_maps_of_others_say_nothing(path: Path, other: Owner) -> None:
    with closing(Journal(path, OURS)) as journal:
        CgroupBook(journal).write(ROWS, CLASSES)
    with closing(Journal(path, other)) as journal:
        book = CgroupBook(journal)
        assert book.rows() == {}
        book.write({99: CgroupRow(3)}, CLASSES)
    with closing(Journal(path, OURS)) as journal:
        assert CgroupBook(journal).rows() == ({} if other.boot != OURS.boot else ROWS)


def test_maps_that_are_gone_leave_nothing(journal: Journal) -> None:
    """`detach` says so: what began after it is nothing that a class from before has ended for."""
    CgroupBook(journal).write(ROWS, CLASSES)
    journal.leave_numbering()
    assert CgroupBook(journal).rows() == {}


@pytest.mark.parametrize(
    "wrong", [CgroupNote(3, 99, 2), CgroupNote(-1, None, 2), CgroupNote(1000, None, 2)]
)
def test_what_cannot_be_true_is_not_used_and_said(
    journal: Journal, caplog: pytest.LogCaptureFixture, wrong: CgroupNote
) -> None:
    CgroupBook(journal).write(ROWS, CLASSES)
    journal.keep_cgroups({77: wrong})
    assert CgroupBook(journal).rows() == ROWS
    assert "wrong notes of cgroups" in caplog.text


def test_what_cannot_be_written_is_told_and_tried_again(path: Path) -> None:
    with closing(FullDisk(path, OURS)) as journal:
        book = CgroupBook(journal)
        journal.full = True
        book.write(ROWS, CLASSES)
        assert book.trouble is not None
        journal.full = False
        book.record()
        assert book.trouble is None
        assert CgroupBook(journal).rows() == ROWS
