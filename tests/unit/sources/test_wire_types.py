"""Two numberings of types meet in one place."""

import pytest

from odm_agent.core.model import TYPES, AddressType
from odm_agent.sources.wire_types import from_wire, to_wire


@pytest.mark.parametrize(
    ("type_", "number"),
    [
        (AddressType.NONPERSISTENT, 1),
        (AddressType.SESSION_LASTING, 2),
        (AddressType.FIXED, 3),
        (AddressType.GRACEFUL_REPLACEMENT, 4),
    ],
)
def test_types_have_the_numbers_of_the_draft(type_: AddressType, number: int) -> None:
    assert to_wire(type_) == number
    assert from_wire(number) is type_


def test_every_type_has_one_and_the_rest_name_none() -> None:
    assert {from_wire(to_wire(each)) for each in TYPES} == set(TYPES)
    assert all(from_wire(number) is None for number in (0, *range(5, 256)))
