"""T1-T4, N3: ssh, iperf3 and MPTCP through a handover, as the correspondent sees them.

How long it takes, a table says that `python -m tests.netlab.handover` makes; here is what must hold
on a slow machine as well: bytes, sources, and that nothing fails.
"""

import time
from collections.abc import Iterator

import pytest

from odm_agent.core.model import AddressType
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION
from tests.lab.root import needs_root
from tests.netlab.handover import KINDS
from tests.netlab.travelling import Order, Traveller

pytestmark = needs_root


@pytest.fixture(scope="module")
def traveller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traveller]:
    with Traveller(tmp_path_factory.mktemp("traveller")) as made:
        yield made


@pytest.mark.parametrize("order", Order, ids=lambda each: each.value)
@pytest.mark.parametrize("type", [FIXED, SESSION], ids=lambda each: each.word)
def test_T1_T2_nothing_is_lost_of_what_has_a_kept_address(
    traveller: Traveller, type: AddressType, order: Order
) -> None:
    source = traveller.roamer.source("isp", type)
    streams = {
        kind: traveller.open(kind, type, f"kept-{type.word}-{order.name}-{kind}", 6)
        for kind in KINDS
    }
    with traveller.moving(order):
        there_s = time.monotonic()
        for each in streams.values():
            each.await_flow(there_s)
    for kind, each in streams.items():
        outcome = each.stop()
        assert (outcome.error, outcome.source) == (None, str(source)), (kind, outcome)
        # iperf3's two ends may disagree about the block that was under way at its end.
        assert outcome.got and outcome.lost <= (500 if kind == "iperf3" else 0), (kind, outcome)
    assert traveller.roamer.source("isp", type) == source


@pytest.mark.parametrize("order", Order, ids=lambda each: each.value)
def test_T3_the_application_is_told_that_its_address_is_over(
    traveller: Traveller, order: Order
) -> None:
    stream = traveller.open("tcp", NONPERSISTENT, f"over-{order.name}")
    with traveller.moving(order) as move:
        traveller.await_attached(move.came)
        outcome = stream.stop()
    assert outcome.error == "ECONNABORTED", outcome


@pytest.mark.parametrize("order", Order, ids=lambda each: each.value)
def test_T4_no_new_connection_fails(traveller: Traveller, order: Order) -> None:
    """Also those that are begun while no network is known, or the old prefix is to go already."""
    with traveller.calling(GRACEFUL) as calls:
        time.sleep(0.5)
        with traveller.moving(order) as move:
            traveller.await_attached(move.came)
            there_s = time.monotonic()
            time.sleep(0.5)
            made = calls()
    assert [each for each in made if each.at_s < move.lost_s]
    assert [each for each in made if each.at_s > there_s]
    assert not [each for each in made if each.error]
