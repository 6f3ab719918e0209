"""A policy is the same after it has been in the maps."""

import ctypes as ct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.config.quantities import LARGEST, LONGEST_S
from odm_agent.core.model import TYPES, AddressType, Cap, ClassPolicy, Limit, Mode, SocketKind
from odm_agent.datapath import abi
from odm_agent.datapath.maps import classes

caps = st.builds(
    lambda type, numbers: Cap(type, *numbers),
    st.sampled_from(TYPES),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 100_000)).filter(any),
)
limits = st.builds(
    lambda type, numbers: Limit(type, *numbers),
    st.sampled_from(TYPES),
    st.tuples(st.integers(0, LONGEST_S), st.integers(0, LARGEST)).filter(any),
)
policies = st.builds(
    ClassPolicy,
    id=st.integers(0, abi.MAX_CLASSES - 1),
    name=st.just(""),
    allow=st.frozensets(st.sampled_from(TYPES)),
    default=st.sampled_from(AddressType),
    mode=st.sampled_from(Mode),
    strict=st.booleans(),
    fail_closed=st.booleans(),
    refuse=st.frozensets(st.sampled_from(SocketKind)),
    caps=st.lists(caps, unique_by=lambda cap: cap.type).map(frozenset),
    limits=st.lists(limits, unique_by=lambda limit: limit.type).map(frozenset),
)


class Rows:
    """A map in memory."""

    def __init__(self, rows: dict[AddressType, Any], class_id: int) -> None:
        self._rows = {abi.usage_index(class_id, type_): row for type_, row in rows.items()}

    def get(self, index: int) -> Any:
        return self._rows[index]


@given(policies)
def test_a_policy_reads_back_as_it_was_written(policy: ClassPolicy) -> None:
    maps: Any = {
        "odm_caps": Rows(dict(classes.caps(policy)), policy.id),
        "odm_limits": Rows(dict(classes.limits(policy)), policy.id),
    }
    row = abi.Class.from_buffer_copy(bytes(classes.pack(policy)))
    assert classes.unpack(policy.id, row, maps) == policy


def test_a_class_that_is_gone_is_all_zero() -> None:
    assert not any(bytes(classes.pack(None)))
    assert all(bytes(cap) == bytes(ct.sizeof(abi.Cap)) for cap in classes.caps(None).values())


@given(st.integers(1, 100_000))
def test_requests_are_spread_over_the_minute(per_minute: int) -> None:
    policy = ClassPolicy(1, "", caps=frozenset({Cap(AddressType.FIXED, 0, per_minute)}))
    row = classes.caps(policy)[AddressType.FIXED]
    assert row.interval_ns * per_minute <= 60e9 < (row.interval_ns + 1) * per_minute
    assert row.burst_ns == row.interval_ns * (per_minute - 1), "that many may come at once"


def test_who_must_be_known_when_a_socket_is_made() -> None:
    quiet = ClassPolicy(1, "")
    closed = ClassPolicy(1, "", refuse=frozenset({SocketKind.RAW}))
    off = ClassPolicy(1, "", mode=Mode.OFF, refuse=frozenset({SocketKind.RAW}))
    capped = ClassPolicy(1, "", caps=frozenset({Cap(AddressType.FIXED, 1)}))
    assert [classes.is_watched(each) for each in (quiet, closed, off, capped)] == [
        *(False, True, False, True)
    ]


@pytest.mark.parametrize("highest", [1, 2, 3, 13, 16, 17, 128, 129, 254])
def test_classes_share_all_places_for_questions_and_none_twice(highest: int) -> None:
    share = classes.dialogue_share(range(highest + 1))
    assert share.bit_count() == 1, "programs take a remainder by it as a mask"
    assert highest * share <= abi.MAX_DIALOGUES < 2 * highest * share + share


def test_share_is_that_of_a_single_class_where_there_is_none() -> None:
    assert classes.dialogue_share([]) == classes.dialogue_share([0]) == abi.MAX_DIALOGUES
