"""N3: what agent, metrics and events say of handovers that have really been."""

import time
from collections.abc import Iterator
from typing import Any, Final

import pytest

from odm_agent.core.model import TYPES
from tests.lab.host import FIXED, GRACEFUL, NONPERSISTENT, SESSION
from tests.lab.metrics import samples
from tests.lab.process import wait_until
from tests.lab.root import needs_root
from tests.netlab.travelling import Order, Traveller

pytestmark = needs_root

#: How each type's handover ends between two sites with one lease database.
_OUTCOMES: Final = {
    FIXED.word: "kept",
    SESSION.word: "kept",
    NONPERSISTENT.word: "replaced",
    GRACEFUL.word: "replaced",
}
_LATE_S: Final = 30.0


@pytest.fixture(scope="module")
def traveller(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traveller]:
    with Traveller(tmp_path_factory.mktemp("traveller")) as made:
        yield made


def _counts(traveller: Traveller) -> dict[str, dict[str, float]]:
    """How many handovers, by type and outcome."""
    found: dict[str, dict[str, float]] = {}
    for labels, value in samples(traveller.roamer.agent, "odm_handovers_total"):
        found.setdefault(labels["type"], {})[labels["outcome"]] = value
    return found


def _of_types(traveller: Traveller, name: str, **labels: str) -> dict[str, float]:
    return {
        each["type"]: value
        for each, value in samples(traveller.roamer.agent, name)
        if labels.items() <= each.items()
    }


def _told(traveller: Traveller, kind: str) -> dict[str, dict[str, Any]]:
    """The events of a kind by type, of which there is one each."""
    events = traveller.roamer.events(kind)
    assert len({each["type"] for each in events}) == len(events), events
    return {each["type"]: each for each in events}


def test_N3_metrics_and_events_tell_of_a_handover_and_of_its_sockets(traveller: Traveller) -> None:
    assert not _counts(traveller)
    streams = {
        type.word: traveller.open("tcp", type, f"counted-{type.word}")
        for type in (FIXED, SESSION, NONPERSISTENT)
    }
    old = {type.word: str(traveller.roamer.prefix("isp", type)) for type in TYPES}
    with traveller.moving(Order.MAKE_FIRST) as move:
        traveller.await_attached(move.came)
        took_s = time.monotonic() - move.lost_s
        streams[NONPERSISTENT.word].stop()
    assert _counts(traveller) == {word: {outcome: 1} for word, outcome in _OUTCOMES.items()}
    outages_s = _of_types(traveller, "odm_handover_outage_seconds_sum")
    assert outages_s.keys() == _OUTCOMES.keys()
    assert all(0 < each < took_s for each in outages_s.values()), (outages_s, took_s)
    name = "odm_handover_sockets_total"
    assert _of_types(traveller, name, fate="moved") == {FIXED.word: 1, SESSION.word: 1}
    assert _of_types(traveller, name, fate="ended") == {NONPERSISTENT.word: 1}
    assert not _of_types(traveller, name, fate="lost")
    begun, over = _told(traveller, "handover"), _told(traveller, "handover-over")
    for type in TYPES:
        word, new = type.word, str(traveller.roamer.prefix("isp", type))
        assert begun[word]["address"] == over[word]["address"] == old[word]
        assert begun[word]["detail"].startswith(f"from {move.left.interface}: ")
        assert over[word]["new"] == new
        assert (new == old[word]) is (_OUTCOMES[word] == "kept")
        said = f"{_OUTCOMES[word]} after {outages_s[word]:.3f} s, by {move.came.interface}"
        assert over[word]["detail"] == said
    for word in (FIXED.word, SESSION.word):
        streams[word].await_flow(time.monotonic())
        assert streams[word].stop().error is None


def test_N3_a_handover_in_which_the_agent_dies_is_counted_once_with_its_true_outage(
    traveller: Traveller,
) -> None:
    agent, left = traveller.roamer.agent, traveller.by
    came = traveller.other(left)
    before = _counts(traveller)
    outages_s = _of_types(traveller, "odm_handover_outage_seconds_sum")
    told = {kind: len(traveller.roamer.events(kind)) for kind in ("handover", "handover-over")}
    came.unplug()
    time.sleep(0.3)
    lost_s = left.unplug()
    wait_until(
        lambda: len(traveller.roamer.events("handover")) == told["handover"] + len(TYPES),
        "all types are lost",
        _LATE_S,
    )
    assert len(traveller.roamer.events("handover-over")) == told["handover-over"]
    dead_s = time.monotonic()
    agent.sigkill()
    time.sleep(1.0)
    agent.start()
    linked_s = came.plug()
    traveller.await_attached(came)
    there_s = time.monotonic()
    assert _counts(traveller) == {
        word: {outcome: before.get(word, {}).get(outcome, 0) + 1}
        for word, outcome in _OUTCOMES.items()
    }
    assert not traveller.roamer.events("handover"), "it was told by the agent before"
    assert _told(traveller, "handover-over").keys() == _OUTCOMES.keys()
    for word, sum_s in _of_types(traveller, "odm_handover_outage_seconds_sum").items():
        took_s = sum_s - outages_s.get(word, 0.0)
        assert linked_s - dead_s < took_s < there_s - lost_s, word
    left.plug()
    left.await_router()
