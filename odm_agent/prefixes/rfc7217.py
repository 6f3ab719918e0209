"""Stable, opaque IPv6 interface identifiers (RFC 7217, section 5).

RID = F(Prefix, Net_Iface, Network_ID, DAD_Counter, secret_key). F is SHA-256 over the fields,
each preceded by its length, so that no two different inputs share an encoding. Net_Iface is empty:
a typed prefix stands in the table once, and its addresses must not change with the uplink or its
name (prefixes of a time when it was the name still have it, `TypedPrefix.net_iface`). Network_ID is
left out (it is optional: the prefix already names the network). The number of an address within its
pool is one more field, so that a prefix may hold many.
"""

import hashlib
from collections.abc import Collection
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from odm_agent.core.model import IPNetwork

#: RFC 7217, section 6: how often another identifier is tried after a duplicate.
IDGEN_RETRIES: Final = 3
#: How often F is asked again for an identifier that is reserved or taken, before we just count on.
_REHASHES: Final = 16

#: 64-bit identifiers that no host may make up (RFC 5453 and the IANA registry that it started).
_RESERVED_64: Final = (
    (0x0000_0000_0000_0000, 0x0000_0000_0000_0000),  # subnet-router anycast, RFC 4291
    (0x0200_5EFF_FE00_0000, 0x0200_5EFF_FEFF_FFFF),  # IANA's own Ethernet block
    (0xFDFF_FFFF_FFFF_FF80, 0xFDFF_FFFF_FFFF_FFFF),  # reserved subnet anycast, RFC 2526
)
#: RFC 2526: with identifiers of other lengths the highest 128 are the reserved anycast ones.
_ANYCAST_BITS: Final = 7


def is_reserved(identifier: int, bits: int) -> bool:
    """Whether a host part of `bits` bits is reserved; a wider one holds a 64-bit identifier."""
    if bits >= 64:
        low = identifier & (2**64 - 1)
        return any(first <= low <= last for first, last in _RESERVED_64)
    if bits <= 1:
        return False  # /127 and /128 have no anycast address to spare (RFC 6164)
    if identifier == 0:
        return True
    # Prefixes so long that the anycast block would be all of them are ours to use.
    return (
        bits > _ANYCAST_BITS + 1 and identifier >> _ANYCAST_BITS == 2 ** (bits - _ANYCAST_BITS) - 1
    )


def opaque_address(
    network: IPv6Network,
    net_iface: str,
    index: int,
    dad_counter: int,
    secret: bytes,
    taken: Collection[IPv6Address] = (),
) -> IPv6Address | None:
    """Address number `index` of `network`, none of `taken`; None if the network is used up.

    A reserved or taken identifier raises the counter, as RFC 7217 (section 5, step 2) says. In
    networks so small that this may go on for long, we then count upwards from the last one.
    """
    bits = 128 - network.prefixlen
    base = int(network.network_address)
    identifier = 0
    for rehash in range(_REHASHES):
        identifier = _f(network, net_iface, index, dad_counter, rehash, secret) & (2**bits - 1)
        if _usable(base, identifier, bits, taken):
            return IPv6Address(base + identifier)
    for step in range(1, min(2**bits, len(taken) + 2 ** (_ANYCAST_BITS + 2))):
        candidate = (identifier + step) & (2**bits - 1)
        if _usable(base, candidate, bits, taken):
            return IPv6Address(base + candidate)
    return None


def socket_key(network: IPNetwork, secret: bytes) -> bytes:
    """The key (16 bytes) by which sockets get addresses of their own in a network (RFC 8981)."""
    key = hashlib.blake2b(str(network).encode(), key=secret[:64], digest_size=16, person=b"socket")
    return key.digest()


def _usable(base: int, identifier: int, bits: int, taken: Collection[IPv6Address]) -> bool:
    return not is_reserved(identifier, bits) and IPv6Address(base + identifier) not in taken


def _f(
    network: IPv6Network, net_iface: str, index: int, dad_counter: int, rehash: int, secret: bytes
) -> int:
    digest = hashlib.sha256()
    for part in (
        network.network_address.packed,
        bytes([network.prefixlen]),
        net_iface.encode(),
        index.to_bytes(4, "big"),
        dad_counter.to_bytes(4, "big"),
        rehash.to_bytes(4, "big"),
        secret,
    ):
        digest.update(len(part).to_bytes(4, "big"))
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")
