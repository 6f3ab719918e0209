"""Damaged router advertisements, forty thousand of them: none raises, and none says too much."""

from ipaddress import IPv6Network
from random import Random
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from odm_agent.core.model import AddressType
from odm_agent.sources.ra.codec import MOST_PREFIXES
from tests.unit.sources.ra.test_codec import heard, message, option
from tests.virtual.damage import Edit, damaged, edited

_SOURCE: Final = bytes([1, 1, 2, 0, 0, 0, 0, 1])
_SAMPLES: Final = (
    message(option(), option("2001:db8:8::"), bytes([5, 1]) + bytes(6)),
    message(_SOURCE, option(code=3), option(valid=0, preferred=0)),
    message(*(option(f"2001:db8:{n:x}::") for n in range(2 * MOST_PREFIXES))),
)
_UNICAST: Final = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))
_PACKETS: Final = st.one_of(st.binary(max_size=200), edited(st.sampled_from(_SAMPLES)))


@pytest.mark.timeout(600)
@settings(max_examples=40_000)
@given(data=_PACKETS)
def test_nothing_raises_and_only_valid_prefixes_are_told(data: bytes) -> None:
    found = heard(data)
    assert len(found) <= MOST_PREFIXES
    for each in found:
        assert any(each.network.subnet_of(unicast) for unicast in _UNICAST)
        assert each.type is not AddressType.UNSPECIFIED


def test_half_of_it_says_something() -> None:
    """Neither all samples do once they are edited, nor hardly any."""
    random, tried = Random(4861), 2000
    said = 0
    for _ in range(tried):
        damage = random.choice(list(Edit)), random.randrange(400), random.randbytes(4)
        said += bool(heard(damaged(random.choice(_SAMPLES), [damage])))
    assert tried / 20 < said < tried * 19 / 20
