"""Messages to octets and back, octet by octet where a server looks at them."""

import struct
from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from odm_agent.sources.dhcpv6.codec import MOST_OCTETS, MalformedError, packed, parsed
from odm_agent.sources.dhcpv6.messages import IAPD, Codes, IAPrefix, Kind, Message, Status

CODES = Codes(65001, 32473)
ADDRESS = IPv6Address("2001:db8:3000::")
U32 = st.integers(0, 2**32 - 1)
OCTET = st.integers(0, 255)
PREFIXES = st.builds(
    IAPrefix, st.ip_addresses(v=6), st.integers(0, 128), U32, U32, st.none() | OCTET
)
IA_PDS = st.builds(
    *(IAPD, U32, U32, U32, st.lists(PREFIXES, max_size=3).map(tuple)),
    *(st.none() | st.sampled_from(Status), st.none() | OCTET),
)
MESSAGES = st.builds(
    Message,
    st.sampled_from(Kind),
    st.integers(0, 2**24 - 1),
    client=st.none() | st.binary(max_size=130),
    server=st.none() | st.binary(max_size=130),
    ia_pds=st.lists(IA_PDS, max_size=3).map(tuple),
    requested=st.lists(st.integers(0, 65535), max_size=4).map(tuple),
    elapsed=st.none() | st.integers(0, 65535),
    preference=OCTET,
    status=st.none() | st.sampled_from(Status),
    rapid_commit=st.booleans(),
    sol_max_rt_s=st.none() | U32,
    service=st.none() | OCTET,
    vendor_service=st.none() | OCTET,
)


def option(code: int, value: bytes) -> bytes:
    return struct.pack("!HH", code, len(value)) + value


@given(MESSAGES)
def test_what_is_packed_is_parsed_the_same(message: Message) -> None:
    assert parsed(packed(message, CODES), CODES) == message


def test_a_solicit_has_its_octets_where_stock_servers_look_for_them() -> None:
    """The offsets are those of Kea's expressions, within the value of the IA_PD option."""
    asked = IAPD(0x03000001, prefixes=(IAPrefix(IPv6Address("::"), 64, service=3),))
    data = packed(Message(Kind.SOLICIT, 0x010203, b"\0\4" + bytes(16), ia_pds=(asked,)), CODES)
    assert data[:4] == bytes([1, 1, 2, 3])
    at = data.index(struct.pack("!HH", 25, 12 + 4 + 25 + 5))
    value = data[at + 4 :]
    assert value[:12] == bytes.fromhex("03000001 00000000 00000000")
    assert value[12:14] == bytes.fromhex("001a")
    assert value[41:46] == bytes.fromhex("fde9 0001 03")


def test_unknown_options_are_ignored_at_every_level() -> None:
    odd = option(999, b"odd")
    prefix = struct.pack("!IIB", 1, 2, 64) + ADDRESS.packed + odd + option(65001, b"\2") + odd
    ia_pd = struct.pack("!III", 7, 0, 0) + odd + option(26, prefix) + odd
    data = bytes([7, 0, 0, 9]) + odd + option(25, ia_pd) + odd
    expected = IAPD(7, prefixes=(IAPrefix(ADDRESS, 64, 1, 2, 2),))
    assert parsed(data, CODES) == Message(Kind.REPLY, 9, ia_pds=(expected,))


def test_the_code_of_the_type_is_as_configured() -> None:
    data = packed(Message(Kind.REPLY, 1, service=2), Codes(40000))
    assert parsed(data, Codes(40000)).service == 2
    assert parsed(data, CODES).service is None


def test_a_type_of_another_length_is_somebody_elses_option() -> None:
    assert parsed(bytes([7, 0, 0, 1]) + option(65001, b"text"), CODES).service is None


def test_vendor_options_of_others_are_not_looked_into() -> None:
    of_others = option(17, struct.pack("!I", 9) + b"\1")
    ours = option(17, struct.pack("!I", 32473) + option(1, b"\4"))
    message = parsed(bytes([7, 0, 0, 1]) + of_others + ours, CODES)
    assert message.vendor_service == 4
    assert parsed(bytes([7, 0, 0, 1]) + of_others + ours, Codes(65001)).vendor_service is None


def test_an_unknown_status_is_a_failure() -> None:
    data = bytes([7, 0, 0, 1]) + option(13, struct.pack("!H", 77) + b"why")
    assert parsed(data, CODES).status is Status.UNSPEC_FAIL


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\7\0\0",
        b"\4\0\0\1",  # Confirm: not for prefixes
        b"\x0c\0\0\1",  # Relay-forward
        b"\7\0\0\1\0",
        b"\7\0\0\1\0\1\0\5abcd",
        bytes([7, 0, 0, 1]) + option(25, bytes(11)),
        bytes([7, 0, 0, 1]) + option(25, bytes(12) + option(26, bytes(24))),
        bytes([7, 0, 0, 1]) + option(25, bytes(12) + option(26, bytes(8) + b"\x81" + bytes(16))),
        bytes([7, 0, 0, 1]) + option(13, b"\0"),
        bytes([7, 0, 0, 1]) + option(6, b"\0"),
        bytes([7, 0, 0, 1]) + option(7, b""),
        bytes([7, 0, 0, 1]) + option(82, bytes(3)),
        bytes([7, 0, 0, 1]) + option(999, bytes(MOST_OCTETS)),
    ],
)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError):
        parsed(data, CODES)
