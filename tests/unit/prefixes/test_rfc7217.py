from ipaddress import IPv6Address, IPv6Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.prefixes.rfc7217 import is_reserved, opaque_address

NET = IPv6Network("2001:db8:1::/64")
SECRET = b"s" * 32


def test_the_address_is_stable() -> None:
    """Pinned: a change of the encoding would change the Fixed addresses of every host."""
    assert opaque_address(NET, "eth0", 0, 0, SECRET) == IPv6Address(
        "2001:db8:1:0:6766:5390:5572:4f89"
    )


def test_every_input_makes_another_address() -> None:
    made = {
        opaque_address(NET, "eth0", 0, 0, SECRET),
        opaque_address(NET, "eth1", 0, 0, SECRET),
        opaque_address(NET, "eth0", 1, 0, SECRET),
        opaque_address(NET, "eth0", 0, 1, SECRET),
        opaque_address(NET, "eth0", 0, 0, b"t" * 32),
    }
    other = opaque_address(IPv6Network("2001:db8:2::/64"), "eth0", 0, 0, SECRET)
    assert len({int(a) & (2**64 - 1) for a in [*made, other] if a}) == 6


@given(
    length=st.integers(8, 128),
    index=st.integers(0, 65535),
    counter=st.integers(0, 4),
    secret=st.binary(min_size=1, max_size=40),
)
def test_the_address_is_in_the_network_and_not_reserved(
    length: int, index: int, counter: int, secret: bytes
) -> None:
    network = IPv6Network(("2001:db8:ffff:ffff:ffff:ffff:ffff:fffe", length), strict=False)
    address = opaque_address(network, "eth0", index, counter, secret)
    assert address is not None and address in network
    assert not is_reserved(int(address) - int(network[0]), 128 - length)


@pytest.mark.parametrize(("length", "usable"), [(128, 1), (127, 2), (126, 3), (120, 255)])
def test_a_small_network_is_used_to_the_last_address(length: int, usable: int) -> None:
    network = IPv6Network(f"2001:db8::/{length}")
    taken: set[IPv6Address] = set()
    for index in range(usable):
        address = opaque_address(network, "eth0", index, 0, SECRET, taken)
        assert address is not None and address not in taken
        taken.add(address)
    assert opaque_address(network, "eth0", usable, 0, SECRET, taken) is None


@pytest.mark.parametrize(
    ("identifier", "bits", "reserved"),
    [
        (0, 64, True),
        (1, 64, False),
        (0xFDFF_FFFF_FFFF_FF7F, 64, False),
        (0xFDFF_FFFF_FFFF_FF80, 64, True),
        (0x0200_5EFF_FE00_5213, 64, True),  # Proxy Mobile IPv6, RFC 6543
        (1 << 64, 68, True),  # the subnet-router anycast address of the second /64 of a /60
        (0, 8, True),
        (0xFF, 8, False),
        (0x1FF, 9, True),
        (0x17F, 9, False),
        (0, 1, False),
        (0, 0, False),
    ],
)
def test_reserved_identifiers(identifier: int, bits: int, reserved: bool) -> None:
    assert is_reserved(identifier, bits) is reserved
