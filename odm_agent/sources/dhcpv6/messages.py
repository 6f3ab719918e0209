"""DHCPv6 messages of prefix delegation as values, in the words of RFC 8415."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Final

#: A lifetime without end (section 7.7), in seconds.
INFINITY: Final = 0xFFFFFFFF


class Kind(IntEnum):
    """Messages that a client of prefix delegation sends or is sent (section 7.3)."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8


class Status(IntEnum):
    """Status codes (section 21.13); one that is unknown counts as `UNSPEC_FAIL`."""

    SUCCESS = 0
    UNSPEC_FAIL = 1
    NO_ADDRS_AVAIL = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5
    NO_PREFIX_AVAIL = 6


@dataclass(frozen=True, slots=True)
class Codes:
    """What says the type of a prefix: an option, and one of an enterprise if that is not None."""

    continuity: int
    enterprise: int | None = None


@dataclass(frozen=True, slots=True)
class IAPrefix:
    """A prefix (section 21.22), lifetimes in seconds; `service`: its type, as on the wire."""

    address: IPv6Address
    length: int
    preferred_s: int = 0
    valid_s: int = 0
    service: int | None = None


@dataclass(frozen=True, slots=True)
class IAPD:
    """An identity association for prefix delegation (section 21.21), T1 and T2 in seconds."""

    iaid: int
    t1_s: int = 0
    t2_s: int = 0
    prefixes: tuple[IAPrefix, ...] = ()
    status: Status | None = None
    service: int | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """A message between client and server; `elapsed` in hundredths of a second.

    `service` and `vendor_service`: a type that is said for the message as a whole.
    """

    kind: Kind
    xid: int
    client: bytes | None = None
    server: bytes | None = None
    ia_pds: tuple[IAPD, ...] = ()
    requested: tuple[int, ...] = ()
    elapsed: int | None = None
    preference: int = 0
    status: Status | None = None
    rapid_commit: bool = False
    sol_max_rt_s: int | None = None
    service: int | None = None
    vendor_service: int | None = None
