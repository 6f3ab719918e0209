"""Streams in the reference network: what they say of a host that stays, and of one that moves.

The stock host has no agent: addresses by advertisements, and default routes, as every Linux.
"""

import time
from collections.abc import Iterator

import pytest

from tests.lab.root import needs_root
from tests.netlab import ticks
from tests.netlab.stock import StockHost

pytestmark = needs_root

_KINDS = ("ssh", "tcp", "mptcp", "iperf3")
#: How long a silence is that no machine makes that is merely busy, seconds.
_SILENT_S = 5.0


@pytest.fixture(scope="module")
def stock() -> Iterator[StockHost]:
    with StockHost() as made:
        yield made


def test_nothing_is_lost_by_who_stays_and_the_peer_sees_where_he_is(stock: StockHost) -> None:
    own = stock.address(stock.by)
    opened = {kind: stock.open(kind, f"stays-{kind}", 2) for kind in _KINDS}
    began_s = time.monotonic()
    time.sleep(1)
    silences = {kind: each.silence_s(began_s) for kind, each in opened.items()}
    assert max(silences.values()) < _SILENT_S, silences
    for kind, each in opened.items():
        outcome = each.stop()
        assert outcome.error is None, (kind, outcome)
        assert outcome.lost == 0 < outcome.got, (kind, outcome)
        assert outcome.source == own, (kind, outcome)


def test_everything_of_a_stock_host_hangs_that_moves(stock: StockHost) -> None:
    """It has a way by the other site, and does not use it: its address is of the first one."""
    left = stock.by
    own = stock.address(left)
    opened = {kind: stock.open(kind, f"moves-{kind}", 2) for kind in _KINDS}
    lost_s = left.unplug()
    time.sleep(_SILENT_S)
    for kind, each in opened.items():
        assert each.silence_s(lost_s) > _SILENT_S - 1, kind
    left.plug()
    for each in opened.values():
        assert each.stop().source == own


def test_a_receiver_tells_other_bytes_from_those_that_were_sent(stock: StockHost) -> None:
    stream = stock.open("tcp", "wrong")
    stream.stop()
    notes = stock.streams.folder / "wrong.notes"
    notes.write_bytes(notes.read_bytes() + ticks.NOTE.pack(0, ticks.WRONG))
    with pytest.raises(AssertionError, match="other bytes"):
        stream.arrivals()
