"""T1, T4: an anchor of the user keeps the addresses of a host that moves."""

import time
from collections.abc import Iterator
from typing import Final

import pytest

from tests.lab.root import needs_root
from tests.netlab.home import Home
from tests.netlab.travelling import Order

pytestmark = needs_root

_KINDS: Final = ("ssh", "mptcp", "iperf3")
#: What WireGuard takes by itself is 15 s; what a busy machine may take here.
_SLOW_S: Final = 6.0
_STREAM_S: Final = 14.0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with Home(tmp_path_factory.mktemp("anchor")) as made:
        yield made


@pytest.mark.parametrize("order", Order, ids=lambda each: each.value)
def test_T1_what_comes_through_the_anchor_goes_on_when_the_host_moves(
    home: Home, order: Order
) -> None:
    streams = {kind: home.open(kind, f"{order.name}-{kind}", _STREAM_S) for kind in _KINDS}
    with home.moving(order) as move:
        there_s = time.monotonic()
        for each in streams.values():
            each.await_flow(there_s)
        assert home.outer_site() is move.came
        time.sleep(1)
        silences = {kind: each.silence_s(move.lost_s) for kind, each in streams.items()}
    outcomes = {kind: each.stop() for kind, each in streams.items()}
    for kind, outcome in outcomes.items():
        assert outcome.error is None, (kind, outcome)
        assert outcome.lost == 0 < outcome.got, (kind, outcome)
        assert outcome.source == home.address, (kind, outcome)
    assert max(silences.values()) < _SLOW_S + (there_s - move.lost_s), silences
