"""Regions of one array: never two owners, and given back ones are used late."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.core.errors import DatapathError
from odm_agent.datapath.maps.slots import Slots


def test_region_that_was_given_back_is_not_used_at_once() -> None:
    slots = Slots(100)
    first = slots.take(10)
    slots.assign(1, first, 10)
    slots.release(1)
    assert slots.take(10) != first


def test_adopted_region_is_respected() -> None:
    slots = Slots(30)
    slots.mark_used(7, 0, 20)
    assert slots.take(10) == 20
    slots.assign(8, 20, 10)
    with pytest.raises(DatapathError, match="make `pool` smaller"):
        slots.take(1)


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 30)), max_size=60))
def test_regions_never_overlap(steps: list[tuple[int, int]]) -> None:
    slots, held = Slots(100), dict[int, range]()
    for owner, size in steps:
        if not size:
            slots.release(owner)
            held.pop(owner, None)
            continue
        try:
            first = slots.take(size)
        except DatapathError:
            assert sum(len(each) for each in held.values()) > 0
            continue
        region = range(first, first + size)
        assert region.stop <= 100
        assert all(region.stop <= r.start or r.stop <= region.start for r in held.values())
        slots.assign(owner, first, size)
        held[owner] = region
