"""DHCPv6 messages of prefix delegation as values (RFC 8415, sections 8 and 21), and back.

Options have three levels: of a message, of an IA_PD, of a prefix. None deeper is looked into, and
none that is not named here; what is unknown is ignored, never a reason to drop (section 16).
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Final

from odm_agent.core.errors import OdmError
from odm_agent.sources.dhcpv6.messages import IAPD, Codes, IAPrefix, Kind, Message, Status

#: No honest message of a delegation is longer; what is built here has less than 300 octets.
MOST_OCTETS: Final = 4096


class MalformedError(OdmError):
    """A message that is none; nothing comes of it."""


class _Option(IntEnum):
    CLIENTID = 1
    SERVERID = 2
    ORO = 6
    PREFERENCE = 7
    ELAPSED_TIME = 8
    STATUS_CODE = 13
    RAPID_COMMIT = 14
    VENDOR_OPTS = 17
    IA_PD = 25
    IAPREFIX = 26
    SOL_MAX_RT = 82


#: The sub-option of `Codes.enterprise` that says the type.
_VENDOR_TYPE: Final = 1


#: Codes of options that can't stand for a type.
KNOWN_OPTIONS: Final = frozenset(_Option)
#: Options that a client asks a server for.
SOL_MAX_RT: Final = int(_Option.SOL_MAX_RT)
VENDOR_OPTS: Final = int(_Option.VENDOR_OPTS)

_OPTION: Final = struct.Struct("!HH")
_IA_PD: Final = struct.Struct("!III")
_IAPREFIX: Final = struct.Struct("!IIB16s")
_U32: Final = struct.Struct("!I")
_U16: Final = struct.Struct("!H")


def packed(message: Message, codes: Codes) -> bytes:
    """The octets of a message."""
    parts = [_U32.pack(message.kind << 24 | message.xid)]
    if message.client is not None:
        parts.append(_option(_Option.CLIENTID, message.client))
    if message.server is not None:
        parts.append(_option(_Option.SERVERID, message.server))
    # The IA_PD stands early, and its prefix and that one's type first in it: a stock server's
    # expressions find them by their offsets.
    parts += (_packed_ia_pd(each, codes) for each in message.ia_pds)
    if message.requested:
        oro = b"".join(map(_U16.pack, message.requested))
        parts.append(_option(_Option.ORO, oro))
    if message.elapsed is not None:
        parts.append(_option(_Option.ELAPSED_TIME, _U16.pack(message.elapsed)))
    if message.preference:
        parts.append(_option(_Option.PREFERENCE, bytes([message.preference])))
    parts.append(_packed_status(message.status))
    if message.rapid_commit:
        parts.append(_option(_Option.RAPID_COMMIT, b""))
    if message.sol_max_rt_s is not None:
        parts.append(_option(_Option.SOL_MAX_RT, _U32.pack(message.sol_max_rt_s)))
    parts.append(_packed_service(message.service, codes))
    if message.vendor_service is not None and codes.enterprise is not None:
        said = _option(_VENDOR_TYPE, bytes([message.vendor_service]))
        parts.append(_option(_Option.VENDOR_OPTS, _U32.pack(codes.enterprise) + said))
    return b"".join(parts)


def parsed(data: bytes, codes: Codes) -> Message:
    """The message of some octets from the network. Raises MalformedError, and nothing else."""
    if not 4 <= len(data) <= MOST_OCTETS:
        raise MalformedError(f"a DHCPv6 message has 4 to {MOST_OCTETS} octets, not {len(data)}")
    if data[0] not in _KINDS:
        raise MalformedError(f"no message of prefix delegation is of the kind {data[0]}")
    found = _Found(data[4:])
    return Message(
        kind=Kind(data[0]),
        xid=int.from_bytes(data[1:4], "big"),
        client=found.first(_Option.CLIENTID),
        server=found.first(_Option.SERVERID),
        ia_pds=tuple(_parsed_ia_pd(each, codes) for each in found.all(_Option.IA_PD)),
        requested=_parsed_oro(found.first(_Option.ORO)),
        elapsed=found.number(_Option.ELAPSED_TIME, 2),
        preference=found.number(_Option.PREFERENCE, 1) or 0,
        status=_parsed_status(found),
        rapid_commit=found.first(_Option.RAPID_COMMIT) is not None,
        sol_max_rt_s=found.number(_Option.SOL_MAX_RT, 4),
        service=found.service(codes.continuity),
        vendor_service=_parsed_vendor(found, codes),
    )


_KINDS: Final = frozenset(Kind)
_STATUSES: Final = frozenset(Status)


class _Found:
    """The options of one level, by code, as they stand. Raises MalformedError."""

    def __init__(self, data: bytes) -> None:
        self._found: dict[int, list[bytes]] = {}
        for code, value in _options(data):
            self._found.setdefault(code, []).append(value)

    def all(self, code: int) -> list[bytes]:
        return self._found.get(code, [])

    def first(self, code: int) -> bytes | None:
        """Of an option that may be there once."""
        return self._found[code][0] if code in self._found else None

    def number(self, code: int, octets: int) -> int | None:
        if (value := self.first(code)) is None:
            return None
        if len(value) != octets:
            raise MalformedError(f"option {code} has {len(value)} octets, not {octets}")
        return int.from_bytes(value, "big")

    def service(self, code: int) -> int | None:
        """A type's number; what is no octet is somebody else's use of a code that none has."""
        value = self.first(code)
        return value[0] if value is not None and len(value) == 1 else None


def _options(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at < len(data):
        if len(data) - at < _OPTION.size:
            raise MalformedError(f"{len(data) - at} octets are left behind the last option")
        code, length = _OPTION.unpack_from(data, at)
        at += _OPTION.size
        if len(data) - at < length:
            raise MalformedError(f"option {code} ends {length - len(data) + at} octets too late")
        yield code, data[at : at + length]
        at += length


def _parsed_ia_pd(data: bytes, codes: Codes) -> IAPD:
    if len(data) < _IA_PD.size:
        raise MalformedError(f"an IA_PD has {len(data)} octets")
    iaid, t1_s, t2_s = _IA_PD.unpack_from(data)
    found = _Found(data[_IA_PD.size :])
    prefixes = tuple(_parsed_prefix(each, codes) for each in found.all(_Option.IAPREFIX))
    return IAPD(iaid, t1_s, t2_s, prefixes, _parsed_status(found), found.service(codes.continuity))


def _parsed_prefix(data: bytes, codes: Codes) -> IAPrefix:
    if len(data) < _IAPREFIX.size:
        raise MalformedError(f"a prefix has {len(data)} octets")
    preferred_s, valid_s, length, address = _IAPREFIX.unpack_from(data)
    if length > 128:
        raise MalformedError(f"a prefix has {length} bits")
    service = _Found(data[_IAPREFIX.size :]).service(codes.continuity)
    return IAPrefix(IPv6Address(address), length, preferred_s, valid_s, service)


def _parsed_status(found: _Found) -> Status | None:
    if (value := found.first(_Option.STATUS_CODE)) is None:
        return None
    if len(value) < _U16.size:
        raise MalformedError("a status has no code")
    (number,) = _U16.unpack_from(value)
    return Status(number) if number in _STATUSES else Status.UNSPEC_FAIL


def _parsed_oro(data: bytes | None) -> tuple[int, ...]:
    if data is None:
        return ()
    if len(data) % _U16.size:
        raise MalformedError(f"an option request has {len(data)} octets")
    return tuple(number for (number,) in _U16.iter_unpack(data))


def _parsed_vendor(found: _Found, codes: Codes) -> int | None:
    """The type in our enterprise's option; those of others have a form of their own."""
    for each in found.all(_Option.VENDOR_OPTS):
        if len(each) >= _U32.size and int.from_bytes(each[:4], "big") == codes.enterprise:
            return _Found(each[_U32.size :]).service(_VENDOR_TYPE)
    return None


def _option(code: int, value: bytes) -> bytes:
    return _OPTION.pack(code, len(value)) + value


def _packed_ia_pd(ia_pd: IAPD, codes: Codes) -> bytes:
    value = _IA_PD.pack(ia_pd.iaid, ia_pd.t1_s, ia_pd.t2_s)
    for each in ia_pd.prefixes:
        head = (each.preferred_s, each.valid_s, each.length, each.address.packed)
        value += _option(
            _Option.IAPREFIX, _IAPREFIX.pack(*head) + _packed_service(each.service, codes)
        )
    value += _packed_status(ia_pd.status) + _packed_service(ia_pd.service, codes)
    return _option(_Option.IA_PD, value)


def _packed_status(status: Status | None) -> bytes:
    return b"" if status is None else _option(_Option.STATUS_CODE, _U16.pack(status))


def _packed_service(service: int | None, codes: Codes) -> bytes:
    return b"" if service is None else _option(codes.continuity, bytes([service]))
