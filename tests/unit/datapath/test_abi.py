"""Addresses and networks on their way into the maps and back."""

from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address

from hypothesis import given
from hypothesis import strategies as st

from odm_agent.config.check_prefixes import ON_LINK_POOL
from odm_agent.config.quantities import LARGEST
from odm_agent.core.lifetimes import OVER
from odm_agent.core.model import LEASED_AT_MOST, AddressType, Family, IPAddress
from odm_agent.datapath import abi


@given(st.ip_addresses())
def test_address_comes_back(made: IPAddress) -> None:
    if isinstance(made, IPv6Address) and made.ipv4_mapped:
        made = made.ipv4_mapped  # one and the same to the maps
    assert abi.unpack_addr(abi.pack_addr(made)) == made


def test_ipv4_is_mapped_in_network_order() -> None:
    assert bytes(abi.pack_addr(ip_address("192.0.2.1"))).hex() == "00" * 10 + "ffff" + "c0000201"


def test_spans_come_back_with_their_length() -> None:
    for network in (IPv4Network("192.0.2.0/26"), IPv6Network("2001:db8::/33")):
        key = abi.pack_span(network)
        assert key.prefix_length == network.prefixlen + (96 if network.version == 4 else 0)
        assert abi.unpack_span(key) == network


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
def test_pool_word_comes_back(first: int, size: int, configured: int) -> None:
    assert abi.unpack_pool(abi.pack_pool(first, size, configured)) == (first, size, configured)


def test_choices_have_a_row_each() -> None:
    keys = [(t, f) for t in AddressType for f in Family]
    rows = [abi.pack_choice_key(key) for key in keys]
    assert set(rows) == set(range(10))
    assert [abi.unpack_choice_key(row) for row in rows] == keys


def test_the_lease_that_is_always_over_is_the_last_row() -> None:
    """The core gives the ids below it, and knows nothing of maps."""
    assert abi.MAX_LEASES - 1 == OVER


def test_what_the_core_and_the_configuration_allow_is_what_the_programs_look_at() -> None:
    """Neither knows anything of maps."""
    assert LEASED_AT_MOST == abi.MAX_LEASED
    assert ON_LINK_POOL <= abi.MAX_LEASED
    assert LARGEST == abi.MAX_LIFETIME_BYTES
