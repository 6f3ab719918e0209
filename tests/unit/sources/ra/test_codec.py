"""Typed prefixes of router advertisements; what is none changes nothing, whoever sends it."""

import struct
from ipaddress import IPv6Address, IPv6Network

import pytest

from odm_agent.core.model import AddressType
from odm_agent.sources.ra.codec import MOST_PREFIXES, Advertised, advertised

CODE = 253
ROUTER = "fe80::1%w0"


def option(
    prefix: str = "2001:db8:7::",
    flags: int = 0xC0 | 3,
    *,
    code: int = CODE,
    length: int = 64,
    valid: int = 600,
    preferred: int = 300,
) -> bytes:
    head = struct.pack("!BBBBIII", code, 4, length, flags, valid, preferred, 0)
    return head + IPv6Address(prefix).packed


def message(*options: bytes, lifetime: int = 1800) -> bytes:
    return struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, lifetime, 0, 0) + b"".join(options)


def heard(data: bytes, sender: str = ROUTER, hop_limit: int = 255) -> tuple[Advertised, ...]:
    return advertised(data, sender, hop_limit, CODE)


@pytest.mark.parametrize(
    ("number", "type_"),
    [
        (1, AddressType.NONPERSISTENT),
        (2, AddressType.SESSION_LASTING),
        (3, AddressType.FIXED),
        (4, AddressType.GRACEFUL_REPLACEMENT),
    ],
)
def test_the_type_is_in_the_lowest_bits_of_the_flags(number: int, type_: AddressType) -> None:
    expected = Advertised(IPv6Network("2001:db8:7::/64"), type_, 600.0)
    assert heard(message(option(flags=0xF8 | number))) == (expected,)


@pytest.mark.parametrize("number", [0, 5, 6, 7])
def test_reserved_types_are_none(number: int) -> None:
    assert heard(message(option(flags=0xC0 | number))) == ()


def test_other_options_are_left_alone_and_stand_where_they_want() -> None:
    source = bytes([1, 1, 2, 0, 0, 0, 0, 1])
    plain = option(code=3)
    found = heard(message(source, plain, option(), bytes([25, 1]) + bytes(6)))
    assert [each.network for each in found] == [IPv6Network("2001:db8:7::/64")]


def test_a_prefix_that_is_over_and_one_without_end_are_told() -> None:
    over, endless = heard(
        message(option(valid=0, preferred=0), option(valid=2**32 - 1, preferred=2**32 - 1))
    )
    assert (over.valid_s, endless.valid_s) == (0.0, float("inf"))


def test_bits_behind_the_length_mean_nothing() -> None:
    (found,) = heard(message(option("2001:db8:7::1")))
    assert found.network == IPv6Network("2001:db8:7::/64")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        message(option())[:15],
        bytes([133]) + message(option())[1:],
        bytes([134, 1]) + message(option())[2:],
        message(option(), bytes([5, 0, 0, 0])),
        message(option(), b"\1"),
        message(option(), bytes([5, 2]) + bytes(6)),
        message(option())[:-1],
        message(bytes([CODE, 1]) + bytes(6)),
        message(bytes([CODE, 5]) + bytes(38)),
        message(option(preferred=601)),
        message(option(length=0)),
        message(option(length=129)),
        message(option("fe80::")),
        message(option("ff02::")),
        message(option("::1", length=128)),
        message(*[option()] * 200),
    ],
)
def test_what_is_no_valid_advertisement_says_nothing(data: bytes) -> None:
    assert heard(data) == ()


@pytest.mark.parametrize("sender", ["2001:db8::1", "::1", "", "fe80::x", "ff02::1"])
def test_only_routers_of_the_link_are_heard(sender: str) -> None:
    assert heard(message(option()), sender) == ()


@pytest.mark.parametrize("hop_limit", [0, 1, 64, 254, 256, -1])
def test_what_was_forwarded_is_not_heard(hop_limit: int) -> None:
    assert heard(message(option()), hop_limit=hop_limit) == ()


def test_a_few_of_many_prefixes_count() -> None:
    many = message(*(option(f"2001:db8:{n:x}::") for n in range(100)))
    assert len(heard(many)) == MOST_PREFIXES
