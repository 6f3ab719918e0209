"""What is counted, told and written down of handovers, on the real journal."""

from collections.abc import Iterator
from ipaddress import IPv6Address, IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest

from odm_agent.agent.event_log import EventLog
from odm_agent.agent.handover_book import Gone, HandoverBook
from odm_agent.core.clock import Moment
from odm_agent.core.model import AddressType, Family
from odm_agent.core.outages import Fate, Outcome, Seen, Way
from odm_agent.journal import Owner
from tests.virtual.world import FullDisk

FIXED: Final = AddressType.FIXED
WANT: Final = (FIXED, Family.IPV6)
NET: Final = IPv6Network("2001:db8:1::/64")
HERE: Final = Way(3, "isp/fixed", NET, "w0")
THERE: Final = Way(3, "isp/fixed", NET, "w1")
LOST: Final = Seen({}, {3: "w0 has no carrier"}, frozenset((WANT,)))


def unwritten() -> HandoverBook:
    """A book that writes nothing down."""
    journal: Any = SimpleNamespace(handovers=lambda: None, keep_handovers=lambda told: None)
    return HandoverBook(journal)


def at(boot_s: float) -> Moment:
    return Moment(boot_s, 1_700_000_000 + boot_s)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[FullDisk]:
    opened = FullDisk(tmp_path / "state.db", Owner("this-boot", 1, "/p"))
    yield opened
    opened.close()


def _look(book: HandoverBook, seen: Seen, boot_s: float, events: EventLog) -> None:
    book.look(seen, at(boot_s), {}, at(boot_s), events)
    book.write()


def _serving(way: Way) -> Seen:
    return Seen({WANT: (way,)}, held=frozenset((WANT,)))


def _told(events: EventLog) -> list[tuple[Any, ...]]:
    return [(e.event, e.prefix, e.type, e.address, e.new, e.detail) for e in events.after(0)]


def test_an_agent_that_dies_in_the_middle_leaves_one_handover_with_its_true_outage(
    journal: FullDisk,
) -> None:
    before, after = EventLog(), EventLog()
    book = HandoverBook(journal)
    _look(book, _serving(HERE), 10.0, before)
    _look(book, LOST, 20.0, before)
    assert not book.tally.outcomes
    for seen, boot_s in ((LOST, 21.0), (_serving(THERE), 22.5), (_serving(THERE), 23.0)):
        book = HandoverBook(journal)
        _look(book, seen, boot_s, after)
    assert HandoverBook(journal).tally.outcomes == {(FIXED, Outcome.KEPT): 1}
    assert HandoverBook(journal).tally.sums_s == {FIXED: 2.5}
    said = ("isp/fixed", "fixed", str(NET))
    assert _told(before) == [("handover", *said, None, "from w0: w0 has no carrier")]
    assert _told(after) == [("handover-over", *said, str(NET), "kept after 2.500 s, by w1")]
    assert after.after(0)[0].time == "2023-11-14T22:13:42.500Z"


def test_one_that_happened_while_no_agent_ran_is_counted_too(journal: FullDisk) -> None:
    _look(HandoverBook(journal), _serving(HERE), 10.0, EventLog())
    book, events = HandoverBook(journal), EventLog()
    _look(book, _serving(THERE), 99.0, events)
    assert book.tally.outcomes == {(FIXED, Outcome.KEPT): 1}
    assert [each[0] for each in _told(events)] == ["handover", "handover-over"]


def test_another_boot_counts_anew(journal: FullDisk, tmp_path: Path) -> None:
    book = HandoverBook(journal)
    _look(book, _serving(HERE), 10.0, EventLog())
    _look(book, LOST, 20.0, EventLog())
    journal.close()
    other = FullDisk(tmp_path / "state.db", Owner("the-next-boot", 1, "/p"))
    book = HandoverBook(other)
    _look(book, _serving(THERE), 3.0, EventLog())
    assert not book.tally.outcomes
    other.close()


@pytest.mark.parametrize("text", ["", "(1, 2, )", "(Outages(), Tally(outages={}, sums_s=7), )"])
def test_what_is_damaged_is_told_and_counted_anew(
    journal: FullDisk, text: str, caplog: pytest.LogCaptureFixture
) -> None:
    journal.keep_handovers(text)
    assert not HandoverBook(journal).tally.outcomes
    assert "handovers are counted anew" in caplog.text


def test_a_full_disk_is_told_and_all_is_written_later(journal: FullDisk) -> None:
    book = HandoverBook(journal)
    journal.full = True
    _look(book, _serving(HERE), 10.0, EventLog())
    _look(book, _serving(THERE), 20.0, EventLog())
    assert book.trouble
    journal.full = False
    book.write()
    assert not book.trouble
    assert HandoverBook(journal).tally.outcomes == {(FIXED, Outcome.KEPT): 1}


def test_sockets_are_counted_by_what_became_of_them(journal: FullDisk) -> None:
    book, events = HandoverBook(journal), EventLog()
    _look(book, _serving(HERE), 10.0, events)
    over = book.look(_serving(THERE), at(20.0), {}, at(20.0), events)
    old = IPv6Address("2001:db8:9::1")
    nonpersistent = AddressType.NONPERSISTENT
    book.ended(Gone(nonpersistent, lambda info: info.local == old), 4)
    listed: list[Any] = [SimpleNamespace(local=each) for each in (old, NET[1], NET[2], NET[1])]
    book.count(
        over,
        lambda over, info: info.local in over.outage.left.network,
        lambda kinds: [sum(map(kind, listed)) for kind in kinds],
    )
    expected = {(nonpersistent, Fate.ENDED): 4, (nonpersistent, Fate.LOST): 1}
    assert book.tally.sockets == {**expected, (FIXED, Fate.MOVED): 3}
    book.count([], lambda over, info: True, lambda kinds: pytest.fail("once"))
