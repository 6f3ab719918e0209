"""Router advertisements (RFC 4861, section 4.2) and the typed prefixes in them.

The type stands in an option of its own (draft-feng-dmm-ra-prefixtype-03, form ii): 32 octets as
those of a Prefix Information option, the type in the lowest three bits of the flags. Its form i,
flags in the Prefix Information option itself, is not read: hosts that know nothing of types would
make addresses of such a prefix.
"""

import struct
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from odm_agent.core.clock import NEVER
from odm_agent.core.model import AddressType
from odm_agent.sources.wire_types import from_wire

#: ICMPv6 type of a router advertisement.
ROUTER_ADVERTISEMENT: Final = 134
#: What no router has forwarded arrives with this hop limit (section 6.1.2).
HOP_LIMIT: Final = 255
#: No honest one is longer; links with larger packets exist, and don't need them for this.
MOST_OCTETS: Final = 4096
#: How many typed prefixes of one advertisement count: a link has few, a liar many.
MOST_PREFIXES: Final = 16

_HEAD: Final = struct.Struct("!BBHBBHII")
_PREFIX: Final = struct.Struct("!BBBBIII16s")
_INFINITY: Final = 0xFFFFFFFF
_TYPE_BITS: Final = 0b111
#: Lengths of options count in these (section 4.6).
_UNIT: Final = 8


@dataclass(frozen=True, slots=True)
class Advertised:
    """A prefix that a router calls one of a type; `valid_s`: for so long (seconds), 0 no more."""

    network: IPv6Network
    type: AddressType
    valid_s: float


def advertised(data: bytes, sender: str, hop_limit: int, code: int) -> tuple[Advertised, ...]:
    """The typed prefixes of a message that was received; `code` is that of their option.

    `sender` may have a zone. What is no valid advertisement (section 6.1.2) has none.
    """
    if hop_limit != HOP_LIMIT or not _is_link_local(sender):
        return ()
    if not _HEAD.size <= len(data) <= MOST_OCTETS:
        return ()
    kind, icmp_code, *_ = _HEAD.unpack_from(data)
    if kind != ROUTER_ADVERTISEMENT or icmp_code != 0:
        return ()
    options = _options(data[_HEAD.size :])
    if options is None:
        return ()
    found = (_prefix(value) for number, value in options if number == code)
    return tuple(each for each in found if each is not None)[:MOST_PREFIXES]


def _options(data: bytes) -> list[tuple[int, bytes]] | None:
    """All of them, with their heads; None: one has a length that can't be."""
    found: list[tuple[int, bytes]] = []
    at = 0
    while at < len(data):
        length = data[at + 1] * _UNIT if at + 1 < len(data) else 0
        if not length or at + length > len(data):
            return None
        found.append((data[at], data[at : at + length]))
        at += length
    return found


def _prefix(option: bytes) -> Advertised | None:
    """What an option of the right code says; None: nothing that counts (RFC 4862, 5.5.3)."""
    if len(option) != _PREFIX.size:
        return None
    _, _, length, flags, valid, preferred, _, address = _PREFIX.unpack(option)
    type_ = from_wire(flags & _TYPE_BITS)
    if type_ is None or preferred > valid or not 0 < length <= 128:
        return None
    network = IPv6Network((IPv6Address(address), length), strict=False)
    if not any(network.subnet_of(each) for each in _ROUTED):
        return None
    return Advertised(network, type_, NEVER if valid == _INFINITY else float(valid))


#: Global and unique local unicast (RFC 4291, RFC 4193).
_ROUTED: Final = (IPv6Network("2000::/3"), IPv6Network("fc00::/7"))


def _is_link_local(sender: str) -> bool:
    try:
        return IPv6Address(sender.partition("%")[0]).is_link_local
    except ValueError:
        return False
